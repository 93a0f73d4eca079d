//! resource.k8s.io (dynamic resource allocation).

use serde_json::Value;

use super::{Object, each, get, map, number, object, text};

fn device_request(request: &mut Object) {
    text(request, "allocationMode", "ExactCount");
    if super::str_of(request, "allocationMode") == "ExactCount" {
        number(request, "count", 1);
    }
}

fn claim_spec(spec: &mut Object) {
    let Some(devices) = object(spec, "devices") else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = get(request, "exactly") {
            device_request(exactly);
        }
        for sub in each(request, "firstAvailable") {
            device_request(sub);
        }
    }
}

pub fn resource_claim(claim: &mut Value) {
    let Some(map) = map(claim) else { return };
    object(map, "status");
    if let Some(spec) = object(map, "spec") {
        claim_spec(spec);
    }
}

pub fn resource_claim_template(template: &mut Value) {
    let Some(spec) = map(template).and_then(|map| object(map, "spec")) else {
        return;
    };
    object(spec, "metadata");
    if let Some(spec) = object(spec, "spec") {
        claim_spec(spec);
    }
}
