//! resource.k8s.io (dynamic resource allocation): what must be there.

use std::collections::HashSet;

use serde_json::Value;

use super::{Errors, Path, SPEC, each, has, invalid_each, list, required, spec_of, text};
use crate::status::FieldError;
use crate::{meta as object, names};

fn device_claim(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let devices = has(spec, "devices").unwrap_or(&Value::Null);
    let devices_path = path.child("devices");
    let requests = devices_path.child("requests");
    let mut known: HashSet<&str> = HashSet::new();
    for (index, request) in each(devices, "requests") {
        let path = requests.index(index);
        match text(request, "name") {
            "" => errors.push(FieldError::required(path.child("name"), "")),
            name => {
                invalid_each(errors, &path.child("name"), name, names::dns_label(name));
                if !known.insert(name) {
                    errors.push(FieldError::duplicate(path.child("name"), name));
                }
            }
        }
        match has(request, "exactly") {
            Some(exactly) => {
                let path = path.child("exactly");
                required(errors, exactly, "deviceClassName", &path);
            }
            None if list(request, "firstAvailable").is_empty() => errors.push(FieldError::required(
                path,
                "exactly one of `exactly` or `firstAvailable` is required",
            )),
            None => {}
        }
    }
}

pub fn resource_claim(claim: &Value, errors: &mut Errors) {
    device_claim(spec_of(claim), &SPEC, errors);
}

pub fn resource_claim_template(template: &Value, errors: &mut Errors) {
    let spec = object::at(template, &["spec", "spec"]).unwrap_or(&Value::Null);
    device_claim(spec, &SPEC.child("spec"), errors);
}

pub fn resource_slice(slice: &Value, errors: &mut Errors) {
    let spec = spec_of(slice);
    required(errors, spec, "driver", &SPEC);
    let pool = has(spec, "pool").unwrap_or(&Value::Null);
    required(errors, pool, "name", &SPEC.child("pool"));
}
