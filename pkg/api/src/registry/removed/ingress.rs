//! Ingress of extensions/v1beta1 and networking.k8s.io/v1beta1: a backend names a Service and its port in two fields.
//!
//! What a path leaves out of `pathType` is not shown: 2018 had no such field, and kubectl, which compares a manifest's paths
//! as a whole with those it is shown, would change the object each time it is applied.

use serde_json::{Value, json};

use crate::meta;

/// The default of both versions.
const UNSAID: &str = "ImplementationSpecific";

pub(super) fn to_stored(ingress: &mut Value) {
    meta::relocate(ingress, &["spec", "backend"], &["spec", "defaultBackend"]);
    each_backend(ingress, |backend| {
        let name = meta::remove(backend, &["serviceName"]).unwrap_or_default();
        let port = meta::remove(backend, &["servicePort"]).unwrap_or_default();
        let name = name.as_str().unwrap_or_default();
        // An empty port is none; an empty name of a port is one all the same.
        let port = match port {
            Value::String(port) if port.is_empty() => Some(json!({})),
            Value::String(port) => Some(json!({"name": port})),
            Value::Number(port) if port.as_i64() != Some(0) => Some(json!({"number": port})),
            _ => None,
        };
        if !name.is_empty() || port.is_some() {
            let port = port.unwrap_or_else(|| json!({}));
            meta::set(backend, &["service"], json!({"name": name, "port": port}));
        }
    });
}

pub(super) fn from_stored(ingress: &mut Value) {
    for rule in meta::items_mut(ingress, &["spec", "rules"]) {
        for path in meta::items_mut(rule, &["http", "paths"]) {
            if meta::string(path, &["pathType"]) == UNSAID {
                meta::remove(path, &["pathType"]);
            }
        }
    }
    each_backend(ingress, |backend| {
        let mut service = meta::remove(backend, &["service"]).unwrap_or_default();
        let name = meta::remove(&mut service, &["name"]).filter(|name| name.as_str() != Some(""));
        if let Some(name) = name {
            meta::set(backend, &["serviceName"], name);
        }
        let named = meta::remove(&mut service, &["port", "name"]).filter(|name| name.as_str() != Some(""));
        let port = named.or_else(|| meta::remove(&mut service, &["port", "number"]));
        meta::set(backend, &["servicePort"], port.unwrap_or_else(|| 0.into()));
    });
    meta::relocate(ingress, &["spec", "defaultBackend"], &["spec", "backend"]);
}

fn each_backend(ingress: &mut Value, change: impl Fn(&mut Value)) {
    if let Some(backend) = meta::at_mut(ingress, &["spec", "defaultBackend"]) {
        change(backend);
    }
    for rule in meta::items_mut(ingress, &["spec", "rules"]) {
        for path in meta::items_mut(rule, &["http", "paths"]) {
            if let Some(backend) = meta::at_mut(path, &["backend"]) {
                change(backend);
            }
        }
    }
}
