//! certificates.k8s.io: signing requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::rules::{
    Cases, Rule, Rules, Scope, all, by, call, check_object, each_unique, name, one_of, required, set, structure, whole,
};
use super::{Errors, Path, each, has, text};
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

const REQUEST: Rules = &[
    structure(
        "spec",
        &[all(ASKED), whole(not_legacy), call("expirationSeconds", long_enough)],
    ),
    CONDITIONS,
];

/// One that was sent as certificates.k8s.io/v1beta1.
const REQUEST_V1BETA1: Rules = &[
    structure("spec", &[all(ASKED), call("expirationSeconds", long_enough)]),
    CONDITIONS,
];

const ASKED: Rules = &[
    whole(encoded),
    required("usages"),
    set("usages", &USAGES),
    name("signerName", signer),
];

const CONDITIONS: Rule = structure(
    "status",
    &[
        each_unique("conditions", "type", &[&[required("type"), by("type", &BY_TYPE)], &[]]),
        whole(approved_or_denied),
    ],
);

/// What is decided is never decided the other way.
const BY_TYPE: Cases = Cases {
    of: &[(&["Approved", "Denied", "Failed"], &[one_of("status", &["True"])])],
    otherwise: &[one_of("status", &["False", "True", "Unknown"])],
};

pub fn signing_request(request: &Value, errors: &mut Errors) {
    check_object(REQUEST, request, errors);
}

pub fn signing_request_v1beta1(request: &Value, errors: &mut Errors) {
    check_object(REQUEST_V1BETA1, request, errors);
}

pub(super) fn conditions(request: &Value, errors: &mut Errors) {
    check_object(&[CONDITIONS], request, errors);
}

/// Whether base64 holds PEM of a certificate request; whoever signs it parses it.
fn encoded(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let good = STANDARD
        .decode(text(spec, "request"))
        .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE REQUEST-----"));
    if !good {
        let own = has(spec, "request").cloned().unwrap_or_default();
        let why = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid(path.child("request"), own, why));
    }
}

/// `example.com/signer-name`: who is to sign.
fn signer(text: &str) -> Vec<String> {
    let valid = text.split_once('/').is_some_and(|(domain, path)| {
        !path.is_empty() && domain.contains('.') && names::dns_subdomain(domain).is_empty()
    });
    let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    (!valid).then(|| why.to_string()).into_iter().collect()
}

/// One that is there already keeps it.
fn not_legacy(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if text(spec, "signerName") == LEGACY && object::resource_version(scope.object).is_empty() {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(path.child("signerName"), LEGACY, why));
    }
}

fn long_enough(seconds: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(path, seconds.clone(), why));
    }
}

fn approved_or_denied(status: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let of = |type_| each(status, "conditions").find(|(_, condition)| text(condition, "type") == type_);
    if let (Some(approved), Some(denied)) = (of("Approved"), of("Denied")) {
        let (index, type_) = if approved.0 > denied.0 {
            (approved.0, "Approved")
        } else {
            (denied.0, "Denied")
        };
        let why = "Approved and Denied conditions are mutually exclusive";
        let conditions = path.child("conditions");
        errors.push(FieldError::invalid(conditions.index(index).child("type"), type_, why));
    }
}
