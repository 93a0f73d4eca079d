//! certificates.k8s.io: signing requests.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Errors, Path, SPEC, has, int, list, spec_of, strings, text};
use crate::status::FieldError;
use crate::{meta as object, names};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Signs what no other signer is named for; nobody may ask for it but through the version that names it by itself.
const LEGACY: &str = "kubernetes.io/legacy-unknown";

pub fn signing_request(request: &Value, errors: &mut Errors) {
    as_sent(request, true, errors);
}

/// One that was sent as certificates.k8s.io/v1beta1.
pub fn signing_request_v1beta1(request: &Value, errors: &mut Errors) {
    as_sent(request, false, errors);
}

fn as_sent(request: &Value, newer: bool, errors: &mut Errors) {
    let spec = spec_of(request);
    if !is_certificate_request(text(spec, "request")) {
        let own = has(spec, "request").cloned().unwrap_or_default();
        let why = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid("spec.request", own, why));
    }
    usages(spec, errors);
    signer_name(text(spec, "signerName"), errors);
    // One that is there already keeps it.
    let is_new = object::resource_version(request).is_empty();
    if newer && is_new && text(spec, "signerName") == LEGACY {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid("spec.signerName", LEGACY, why));
    }
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|&seconds| seconds < 600) {
        errors.push(FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
    conditions(request, errors);
}

/// `example.com/signer-name`: who is to sign.
fn signer_name(signer: &str, errors: &mut Errors) {
    match signer {
        "" => errors.push(FieldError::required("spec.signerName", "")),
        _ => {
            let valid = signer.split_once('/').is_some_and(|(domain, path)| {
                !path.is_empty() && domain.contains('.') && names::dns_subdomain(domain).is_empty()
            });
            if !valid {
                errors.push(FieldError::invalid(
                    "spec.signerName",
                    signer,
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'",
                ));
            }
        }
    }
}

fn usages(spec: &Value, errors: &mut Errors) {
    let usages = SPEC.child("usages");
    if list(spec, "usages").is_empty() {
        errors.push(FieldError::required(usages, ""));
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, usage) in strings(spec, "usages").enumerate() {
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(usages.index(index), usage, &USAGES));
        }
        if !seen.insert(usage) {
            errors.push(FieldError::duplicate(usages.index(index), usage));
        }
    }
}

/// Whether base64 holds PEM of a certificate request; whoever signs it parses it.
fn is_certificate_request(encoded: &str) -> bool {
    STANDARD
        .decode(encoded)
        .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE REQUEST-----"))
}

pub(super) fn conditions(request: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    let conditions = status.child("conditions");
    let own = object::items(request, &["status", "conditions"]);
    let has_type = |type_: &str| own.iter().position(|condition| text(condition, "type") == type_);
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, condition) in own.iter().enumerate() {
        let path = conditions.index(index);
        if text(condition, "type").is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        }
        let decided = matches!(text(condition, "type"), "Approved" | "Denied" | "Failed");
        match text(condition, "status") {
            "" => errors.push(FieldError::required(path.child("status"), "")),
            "True" => {}
            other if decided => errors.push(FieldError::not_supported(path.child("status"), other, &["True"])),
            "False" | "Unknown" => {}
            other => errors.push(FieldError::not_supported(
                path.child("status"),
                other,
                &["False", "True", "Unknown"],
            )),
        }
        let type_ = text(condition, "type");
        if !seen.insert(type_) {
            errors.push(FieldError::duplicate(path.child("type"), type_));
        }
    }
    if let (Some(approved), Some(denied)) = (has_type("Approved"), has_type("Denied")) {
        errors.push(FieldError::invalid(
            conditions.index(approved.max(denied)).child("type"),
            text(&own[approved.max(denied)], "type"),
            "Approved and Denied conditions are mutually exclusive",
        ));
    }
}
