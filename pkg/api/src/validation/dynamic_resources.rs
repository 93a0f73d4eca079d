//! resource.k8s.io (dynamic resource allocation): claims, their templates, classes and slices.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::device_selector;
use super::node_selector::node_selector;
use super::rules::{Rules, Scope, all, always, call, check, check_object, check_spec, name, structure, whole};
use super::volumes::{csi_driver, driver_name};
use super::{
    Errors, Path, SPEC, flag, has, immutable, immutable_text, int, invalid_each, list, numbered, spec_of, strings, text,
};
use crate::status::FieldError;
use crate::{meta, names};

/// Requests, constraints, configurations, selectors: of each as many.
const MOST: usize = 32;

const CLAIM: Rules = &[structure(
    "spec",
    &[structure(
        "devices",
        &[call("requests", requests), whole(constraints), whole(configurations)],
    )],
)];

const CLASS: Rules = &[structure(
    "spec",
    &[call("selectors", selectors), call("config", class_configurations)],
)];

const REQUEST: Rules = &[always("name", names::dns_label), whole(one_way)];

const SUBREQUEST: Rules = &[always("name", names::dns_label), all(EXACT)];

const EXACT: Rules = &[
    name("deviceClassName", names::dns_subdomain),
    call("selectors", selectors),
    whole(allocation),
];

const OPAQUE: Rules = &[whole(csi_driver), whole(parameters)];
/// Bytes of what a driver alone understands.
const MOST_RAW: usize = 10 * 1024;

pub fn resource_claim(claim: &Value, errors: &mut Errors) {
    check_object(CLAIM, claim, errors);
}

pub fn resource_claim_template(template: &Value, errors: &mut Errors) {
    let spec = spec_of(template);
    let metadata = has(spec, "metadata").unwrap_or(&Value::Null);
    let path = SPEC.child("metadata");
    super::annotations(has(metadata, "annotations"), &path.child("annotations"), errors);
    super::labels(has(metadata, "labels"), &path.child("labels"), errors);
    check(CLAIM, spec, &Scope::of(template), &SPEC, errors);
}

pub fn device_class(class: &Value, errors: &mut Errors) {
    check_object(CLASS, class, errors);
}

/// Whether there are not too many; then nothing else is told of them.
pub(super) fn few(count: usize, most: usize, path: &Path<'_>, errors: &mut Errors) -> bool {
    if count > most {
        errors.push(FieldError::too_many(path, count, most));
    }
    count <= most
}

/// None twice, told of the item.
pub(super) fn distinct<'a>(keys: impl Iterator<Item = &'a str>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, key) in keys.enumerate() {
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(path.index(index), key));
        }
    }
}

/// Items of which each has its own name.
fn named(items: &Value, (most, rules): (usize, Rules), scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if few(numbered(items).count(), most, path, errors) {
        for (index, item) in numbered(items) {
            check(rules, item, scope, &path.index(index), errors);
        }
        distinct(numbered(items).map(|(_, item)| text(item, "name")), path, errors);
    }
}

fn requests(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    named(own, (MOST, REQUEST), scope, path, errors);
}

fn one_way(request: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const SUBREQUESTS: usize = 8;
    let several = has(request, "firstAvailable").filter(|own| numbered(own).next().is_some());
    match (has(request, "exactly"), several) {
        (None, None) => errors.push(FieldError::required(
            path,
            "exactly one of `exactly` or `firstAvailable` is required",
        )),
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        (Some(exact), None) => check(EXACT, exact, scope, &path.child("exactly"), errors),
        (None, Some(several)) => named(
            several,
            (SUBREQUESTS, SUBREQUEST),
            scope,
            &path.child("firstAvailable"),
            errors,
        ),
    }
}

fn allocation(request: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let count = int(request, "count").unwrap_or(0);
    let at = path.child("count");
    match text(request, "allocationMode") {
        "All" if count != 0 => errors.push(FieldError::invalid(
            at,
            count,
            "must not be specified when allocationMode is 'All'",
        )),
        "ExactCount" if count <= 0 => errors.push(FieldError::invalid(at, count, super::NOT_POSITIVE)),
        "All" | "ExactCount" => {}
        other => errors.push(FieldError::not_supported(
            path.child("allocationMode"),
            other,
            &["All", "ExactCount"],
        )),
    }
}

fn selectors(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const LONGEST: usize = 10 * 1024;
    if !few(numbered(own).count(), MOST, path, errors) {
        return;
    }
    for (index, selector) in numbered(own) {
        let path = path.index(index);
        let path = path.child("cel");
        match has(selector, "cel") {
            None => errors.push(FieldError::required(path, "")),
            Some(cel) if text(cel, "expression").len() > LONGEST => {
                errors.push(FieldError::too_long(path.child("expression"), LONGEST));
            }
            Some(cel) => device_selector::check(text(cel, "expression"), &path.child("expression"), errors),
        }
    }
}

/// The requests of a claim, and of each its subrequests, if it has any.
pub(super) type Requests<'a> = HashMap<&'a str, Vec<&'a str>>;

pub(super) fn known(devices: &Value) -> Requests<'_> {
    let subrequests = |request| list(request, "firstAvailable").iter().map(|own| text(own, "name"));
    list(devices, "requests")
        .iter()
        .map(|request| (text(request, "name"), subrequests(request).collect()))
        .collect()
}

pub(super) fn references(own: &Value, known: &Requests<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("requests");
    if !few(list(own, "requests").len(), MOST, &path, errors) {
        return;
    }
    for (index, name) in strings(own, "requests").enumerate() {
        reference(name, known, &path.index(index), errors);
    }
    distinct(strings(own, "requests"), &path, errors);
}

/// The name of a request, or of a subrequest of it.
pub(super) fn reference(name: &str, known: &Requests<'_>, path: &Path<'_>, errors: &mut Errors) {
    const UNKNOWN: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    let found = match parts[..] {
        [request] => known.contains_key(request),
        [request, part] => known.get(request).is_some_and(|parts| parts.contains(&part)),
        _ => false,
    };
    if parts.len() <= 2 {
        for part in parts {
            invalid_each(errors, path, part, names::dns_label(part));
        }
    }
    if !found {
        errors.push(FieldError::invalid(path, name, UNKNOWN));
    }
}

fn constraints(devices: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (path, own, known) = (path.child("constraints"), list(devices, "constraints"), known(devices));
    if !few(own.len(), MOST, &path, errors) {
        return;
    }
    for (index, constraint) in own.iter().enumerate() {
        let path = path.index(index);
        references(constraint, &known, &path, errors);
        let path = path.child("matchAttribute");
        match has(constraint, "matchAttribute").and_then(Value::as_str) {
            None => errors.push(FieldError::required(path, "")),
            Some(attribute) => {
                qualified(attribute, &path, errors);
                if !attribute.contains('/') {
                    errors.push(FieldError::invalid(
                        path,
                        attribute,
                        "a fully qualified name must be a domain and a name separated by a slash",
                    ));
                }
            }
        }
    }
}

/// The name of an attribute or a capacity: an identifier, perhaps of a domain.
fn qualified(own: &str, path: &Path<'_>, errors: &mut Errors) {
    let parts: Vec<&str> = own.split('/').collect();
    let identifier = match parts[..] {
        [identifier] => identifier,
        [domain, identifier] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver_name(domain, path, errors);
            }
            if identifier.is_empty() {
                return errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            }
            identifier
        }
        _ => return,
    };
    const LONGEST: usize = 32;
    if identifier.len() > LONGEST {
        errors.push(FieldError::too_long(path, LONGEST));
    }
    invalid_each(errors, path, identifier, names::c_identifier(identifier));
}

fn configurations(devices: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (path, own, known) = (path.child("config"), list(devices, "config"), known(devices));
    if few(own.len(), MOST, &path, errors) {
        for (index, config) in own.iter().enumerate() {
            let path = path.index(index);
            references(config, &known, &path, errors);
            configuration(config, scope, &path, errors);
        }
    }
}

fn class_configurations(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if few(numbered(own).count(), MOST, path, errors) {
        for (index, config) in numbered(own) {
            configuration(config, scope, &path.index(index), errors);
        }
    }
}

pub(super) fn configuration(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("opaque");
    match has(own, "opaque") {
        None => errors.push(FieldError::required(path, "")),
        Some(opaque) => check(OPAQUE, opaque, scope, &path, errors),
    }
}

fn parameters(opaque: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("parameters");
    match has(opaque, "parameters") {
        None => errors.push(FieldError::required(path, "")),
        Some(own) => raw(own, &path, errors),
    }
}

/// An object that a driver alone understands.
pub(super) fn raw(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    if own.to_string().len() > MOST_RAW {
        errors.push(FieldError::too_long(path, MOST_RAW));
    } else if !own.is_object() {
        let why = "must be a valid JSON object";
        errors.push(FieldError::invalid(path, "<value omitted>", why));
    }
}

const SLICE_POOL: Rules = &[whole(csi_driver), structure("pool", &[whole(pool)])];
const SLICE_DEVICES: Rules = &[whole(nodes), whole(devices)];

pub fn resource_slice(slice: &Value, errors: &mut Errors) {
    check_spec(SLICE_POOL, slice, errors);
    check_spec(SLICE_DEVICES, slice, errors);
}

/// What may not change is told in the midst of the rest.
pub fn resource_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    check_spec(SLICE_POOL, new, errors);
    for (at, path) in [
        (&["spec", "pool", "name"][..], "spec.pool.name"),
        (&["spec", "driver"], "spec.driver"),
    ] {
        immutable_text(errors, new, old, at, path);
    }
    immutable(errors, new, old, &["spec", "nodeName"], "spec.nodeName");
    check_spec(SLICE_DEVICES, new, errors);
}

pub(super) fn pool_name(own: &str, path: &Path<'_>, errors: &mut Errors) {
    const LONGEST: usize = 253;
    if own.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if own.len() > LONGEST {
        errors.push(FieldError::too_long(path, LONGEST));
    }
    for part in own.split('/') {
        invalid_each(errors, path, part, names::dns_subdomain(part));
    }
}

fn pool(pool: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    pool_name(text(pool, "name"), &path.child("name"), errors);
    let number = |key| int(pool, key).unwrap_or(0);
    let (count, generation) = (number("resourceSliceCount"), number("generation"));
    if count <= 0 {
        let path = path.child("resourceSliceCount");
        errors.push(FieldError::invalid(path, count, super::NOT_POSITIVE));
    }
    if generation < 0 {
        errors.push(FieldError::invalid(
            path.child("generation"),
            generation,
            "must be greater than or equal to zero",
        ));
    }
}

/// Where a slice's devices are, told in one of four ways.
fn nodes(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut set = Vec::new();
    if let Some(own) = has(spec, "nodeName").and_then(Value::as_str) {
        let path = path.child("nodeName");
        if own.is_empty() {
            errors.push(FieldError::invalid(
                path,
                "",
                "must be either unset or set to a non-empty string",
            ));
        } else {
            set.push("`nodeName`");
            invalid_each(errors, &path, own, names::dns_subdomain(own));
        }
    }
    if let Some(own) = has(spec, "nodeSelector") {
        set.push("`nodeSelector`");
        let path = path.child("nodeSelector");
        node_selector(own, &path, errors);
        let terms = list(own, "nodeSelectorTerms");
        if terms.len() != 1 {
            errors.push(FieldError::invalid(
                path.child("nodeSelectorTerms"),
                terms.to_vec(),
                "must have exactly one node selector term",
            ));
        }
    }
    for (key, told) in [
        ("allNodes", "`allNodes`"),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`"),
    ] {
        if has(spec, key).is_some() {
            if flag(spec, key) {
                set.push(told);
            } else {
                errors.push(FieldError::invalid(
                    path.child(key),
                    false,
                    "must be either unset or set to true",
                ));
            }
        }
    }
    match set[..] {
        [] => errors.push(FieldError::required(path, ONE)),
        [_] => {}
        _ => errors.push(FieldError::invalid(
            path,
            format!("{{{}}}", set.join(", ")),
            format!("{ONE}, but multiple fields are set"),
        )),
    }
}

fn devices(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const DEVICES: usize = 128;
    const DEVICE: Rules = &[always("name", names::dns_label), whole(facts)];
    if let Some(own) = has(spec, "devices") {
        named(own, (DEVICES, DEVICE), scope, &path.child("devices"), errors);
    }
}

/// A device's attributes and capacity.
fn facts(device: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let of = |key| meta::map_at(device, &[key]);
    let count = ["attributes", "capacity"].map(|key| of(key).map_or(0, |own| own.len()));
    let count = count[0] + count[1];
    if count > MOST {
        errors.push(FieldError::invalid(
            path,
            count,
            format!("the total number of attributes and capacities must not exceed {MOST}"),
        ));
    }
    let attributes = path.child("attributes");
    for (key, attribute) in of("attributes").into_iter().flatten() {
        let path = attributes.key(key);
        qualified(key, &path, errors);
        value(attribute, &path, errors);
    }
    let capacity = path.child("capacity");
    for (key, _) in of("capacity").into_iter().flatten() {
        qualified(key, &capacity.key(key), errors);
    }
}

fn value(attribute: &Value, path: &Path<'_>, errors: &mut Errors) {
    const LONGEST: usize = 64;
    let set = ["bool", "int", "string", "version"].map(|key| has(attribute, key).is_some());
    let (own, version) = (text(attribute, "string"), text(attribute, "version"));
    if own.len() > LONGEST {
        errors.push(FieldError::too_long(path.child("string"), LONGEST));
    }
    if set[3] {
        let path = path.child("version");
        if !names::semantic_version(version) {
            errors.push(FieldError::invalid(
                path,
                version,
                "must be a string compatible with semver.org spec 2.0.0",
            ));
        }
        if version.len() > LONGEST {
            errors.push(FieldError::too_long(path, LONGEST));
        }
    }
    const ONE: &str = "exactly one value must be specified";
    match set.iter().filter(|set| **set).count() {
        0 => errors.push(FieldError::invalid(path, "", ONE)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, attribute.clone(), ONE)),
    }
}
