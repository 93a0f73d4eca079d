//! How a definition's versions are converted. Upstream names the webhook's fields by its own form.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::pem::Pem;

use super::super::{Errors, Path, has, list, strings, text};
use super::asked::Asked;
use super::{SPEC, one_of, open_api};
use crate::status::FieldError;
use crate::{meta, names};

pub(super) fn check(conversion: &Value, preserves: bool, asked: &Asked<'_>, errors: &mut Errors) {
    let path = SPEC.child("conversion");
    let strategy = text(conversion, "strategy");
    if strategy != "None" && preserves {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid(path.child("strategy"), strategy, why));
    }
    one_of(conversion, "strategy", &["None", "Webhook"], &path, errors);
    let webhook = has(conversion, "webhook").unwrap_or(&Value::Null);
    let (client, versions) = (
        path.child("webhookClientConfig"),
        path.child("conversionReviewVersions"),
    );
    let config = has(webhook, "clientConfig");
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.push(FieldError::forbidden(client, why));
        }
        if !list(webhook, "conversionReviewVersions").is_empty() {
            errors.push(FieldError::forbidden(versions, why));
        }
        return;
    }
    match config {
        None => errors.push(FieldError::required(client, "required when strategy is set to Webhook")),
        Some(config) => match (has(config, "url"), has(config, "service")) {
            (Some(_), None) => url(text(config, "url"), &client.child("url"), errors),
            (None, Some(of)) => service(of, &client.child("service"), errors),
            _ => errors.push(FieldError::required(
                client,
                "exactly one of url or service is required",
            )),
        },
    }
    if let Some(error) = bundle_error(conversion).filter(|_| asked.bundle) {
        errors.push(error);
    }
    review_versions(webhook, asked.known_review, &versions, errors);
}

/// Whether the webhook reads a version of the question that is spoken here, or says of none that it does.
pub(super) fn reads_a_known_review(conversion: &Value) -> bool {
    let versions = || strings(&conversion["webhook"], "conversionReviewVersions");
    versions().next().is_none() || versions().any(|version| REVIEWS.contains(&version))
}

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// What is wrong with the certificates that vouch for the webhook.
pub(super) fn bundle_error(conversion: &Value) -> Option<FieldError> {
    let said = meta::string(conversion, &["webhook", "clientConfig", "caBundle"]);
    let bytes = STANDARD.decode(said).unwrap_or_default();
    let mut read = Pem::iter_from_buffer(&bytes);
    if bytes.is_empty() || read.any(|block| block.is_ok_and(|block| block.parse_x509().is_ok())) {
        return None;
    }
    let why = "unable to load root certificates: unable to parse bytes as PEM block";
    let at = SPEC.child("conversion");
    let at = at.child("webhookClientConfig");
    Some(FieldError::invalid(at.child("caBundle"), said, why))
}

fn review_versions(webhook: &Value, known: bool, path: &Path<'_>, errors: &mut Errors) {
    let all: Vec<&str> = strings(webhook, "conversionReviewVersions").collect();
    if all.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut seen = HashSet::new();
    for (index, version) in all.iter().enumerate() {
        if !seen.insert(*version) {
            errors.push(FieldError::invalid(path.index(index), *version, "duplicate version"));
            continue;
        }
        for why in names::dns_1035_label(version) {
            errors.push(FieldError::invalid(path.index(index), *version, why));
        }
    }
    if known && !all.iter().any(|version| REVIEWS.contains(version)) {
        let shown: Vec<Value> = all.iter().map(|version| (*version).into()).collect();
        errors.push(FieldError::invalid(
            path,
            shown,
            "must include at least one of v1, v1beta1",
        ));
    }
}

/// A webhook's address.
fn url(url: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let (authority, tail) = authority.split_at(authority.find(['/', '?', '#']).unwrap_or(authority.len()));
    let (user, host) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(user, host)| (Some(user), host));
    let (tail, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    let query = tail.split_once('?').map_or("", |(_, query)| query);
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(path, scheme, why));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(path, host, format!("host must be specified{FORM}")));
    }
    for (part, what) in [
        (user.unwrap_or_default(), "user information is"),
        (fragment, "fragments are"),
        (query, "query parameters are"),
    ] {
        if !part.is_empty() {
            errors.push(FieldError::invalid(
                path,
                part,
                format!("{what} not permitted in the URL"),
            ));
        }
    }
}

/// The service of a webhook. Upstream gives its check the name for the namespace and the other way, to the same end.
fn service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, at) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, key).is_empty() {
            errors.push(FieldError::required(path.child(at), ""));
        }
    }
    let port = open_api::port(service);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        let why = format!("port is not valid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(path.child("port"), port, why));
    }
    let (own, at) = (text(service, "path"), path.child("path"));
    match own {
        "" | "/" => return,
        "//" => return errors.push(FieldError::invalid(at, own, "segment[0] may not be empty")),
        own if !own.starts_with('/') => errors.push(FieldError::invalid(at, own, "must start with a '/'")),
        _ => {}
    }
    let steps = own.get(1..).unwrap_or_default();
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.push(FieldError::invalid(
                at,
                own,
                format!("segment[{index}] may not be empty"),
            ));
            continue;
        }
        for why in names::dns_subdomain(step) {
            errors.push(FieldError::invalid(at, own, format!("segment[{index}]: {why}")));
        }
    }
}
