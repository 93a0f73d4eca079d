//! networking.k8s.io.

use serde_json::Value;

use super::super::Column;
use super::{age, join, name, selector, text};
use crate::meta;

pub fn ingress_class() -> Vec<Column> {
    vec![
        name(),
        text("Controller", "Who serves it.", |object, _| {
            meta::string(object, &["spec", "controller"]).into()
        }),
        text("Parameters", "Object with its settings.", |object, _| {
            let Some(parameters) = meta::at(object, &["spec", "parameters"]) else {
                return "<none>".into();
            };
            let mut kind = meta::string(parameters, &["kind"]).to_string();
            if let Some(group) = meta::str_at(parameters, &["apiGroup"]) {
                kind = format!("{kind}.{group}");
            }
            format!("{kind}/{}", meta::string(parameters, &["name"])).into()
        }),
        age(),
    ]
}

pub fn network_policy() -> Vec<Column> {
    vec![
        name(),
        text("Pod-Selector", "Pods it is for.", |object, _| {
            match meta::at(object, &["spec", "podSelector"]) {
                Some(_) => selector(object, &["spec", "podSelector"]),
                None => "<none>".into(),
            }
        }),
        age(),
    ]
}

pub fn ip_address() -> Vec<Column> {
    vec![
        name(),
        text("ParentRef", "What uses the address.", |object, _| {
            let Some(parent) = meta::at(object, &["spec", "parentRef"]) else {
                return "<none>".into();
            };
            let get = |key: &str| meta::string(parent, &[key]);
            let mut text = crate::status::qualified(get("group"), get("resource")).to_lowercase();
            if !get("namespace").is_empty() {
                text = format!("{text}/{}", get("namespace"));
            }
            format!("{text}/{}", get("name")).into()
        }),
        age(),
    ]
}

pub fn service_cidr() -> Vec<Column> {
    vec![
        name(),
        text("CIDRs", "Ranges that service addresses come from.", |object, _| {
            let cidrs = meta::items(object, &["spec", "cidrs"]).iter().filter_map(Value::as_str);
            join(cidrs, ",").into()
        }),
        age(),
    ]
}
