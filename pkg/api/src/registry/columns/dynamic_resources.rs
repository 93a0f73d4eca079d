//! resource.k8s.io (dynamic resource allocation).

use super::super::Column;
use super::{age, name, text};
use crate::meta;

pub fn resource_slice() -> Vec<Column> {
    vec![
        name(),
        text("Node", "The node.", |object, _| {
            meta::string(object, &["spec", "nodeName"]).into()
        }),
        text("Driver", "Its driver.", |object, _| {
            meta::string(object, &["spec", "driver"]).into()
        }),
        text("Pool", "Its pool.", |object, _| {
            meta::string(object, &["spec", "pool", "name"]).into()
        }),
        age(),
    ]
}

pub fn resource_claim() -> Vec<Column> {
    vec![
        name(),
        text("State", "Where it stands.", |object, _| {
            let mut states = Vec::new();
            if meta::is_deleting(object) {
                states.push("deleted");
            }
            if meta::at(object, &["status", "allocation"]).is_none() {
                if !meta::is_deleting(object) {
                    states.push("pending");
                }
            } else {
                states.push("allocated");
                states.push(if meta::items(object, &["status", "reservedFor"]).is_empty() {
                    ""
                } else {
                    "reserved"
                });
            }
            states.retain(|state| !state.is_empty());
            states.join(",").into()
        }),
        age(),
    ]
}
