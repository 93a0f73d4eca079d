//! storage.k8s.io.

use serde_json::Value;

use super::super::{Cell, Column};
use super::{age, boolean, integer, join, name, text};
use crate::meta;

pub fn storage_class() -> Vec<Column> {
    vec![
        Column {
            cell: Cell::Of(|object, _| {
                let is_default = [
                    "storageclass.kubernetes.io/is-default-class",
                    "storageclass.beta.kubernetes.io/is-default-class",
                ]
                .iter()
                .any(|key| meta::annotation(object, key) == Some("true"));
                let suffix = if is_default { " (default)" } else { "" };
                format!("{}{suffix}", meta::name(object)).into()
            }),
            ..name()
        },
        text("Provisioner", "Who makes its volumes.", |object, _| {
            meta::string(object, &["provisioner"]).into()
        }),
        text("ReclaimPolicy", "What becomes of released volumes.", |object, _| {
            super::or(object, &["reclaimPolicy"], "Delete")
        }),
        text("VolumeBindingMode", "When claims are bound.", |object, _| {
            super::or(object, &["volumeBindingMode"], "Immediate")
        }),
        text("AllowVolumeExpansion", "Whether its volumes can grow.", |object, _| {
            meta::bool_at(object, &["allowVolumeExpansion"]).unwrap_or(false).into()
        }),
        age(),
    ]
}

pub fn volume_attributes_class() -> Vec<Column> {
    vec![
        name(),
        text("DriverName", "Its driver.", |object, _| {
            meta::string(object, &["driverName"]).into()
        }),
        age(),
    ]
}

pub fn volume_attachment() -> Vec<Column> {
    vec![
        name(),
        Column {
            format: "name".into(),
            ..text("Attacher", "Its driver.", |object, _| {
                meta::string(object, &["spec", "attacher"]).into()
            })
        },
        text("PV", "The volume.", |object, _| {
            meta::string(object, &["spec", "source", "persistentVolumeName"]).into()
        }),
        text("Node", "The node.", |object, _| {
            meta::string(object, &["spec", "nodeName"]).into()
        }),
        boolean("Attached", "Whether it is attached.", |object, _| {
            meta::bool_at(object, &["status", "attached"]).unwrap_or(false).into()
        }),
        age(),
    ]
}

pub fn csi_node() -> Vec<Column> {
    vec![
        name(),
        integer("Drivers", "Number of drivers.", |object, _| {
            meta::items(object, &["spec", "drivers"]).len().into()
        }),
        age(),
    ]
}

pub fn csi_driver() -> Vec<Column> {
    vec![
        name(),
        boolean("AttachRequired", "Whether volumes are attached first.", |object, _| {
            meta::bool_at(object, &["spec", "attachRequired"])
                .unwrap_or(true)
                .into()
        }),
        boolean("PodInfoOnMount", "Whether it is told of the pod.", |object, _| {
            meta::bool_at(object, &["spec", "podInfoOnMount"])
                .unwrap_or(false)
                .into()
        }),
        boolean("StorageCapacity", "Whether capacity is considered.", |object, _| {
            meta::bool_at(object, &["spec", "storageCapacity"])
                .unwrap_or(false)
                .into()
        }),
        text(
            "TokenRequests",
            "Audiences it gets tokens for.",
            |object, _| match meta::at(object, &["spec", "tokenRequests"]) {
                None => "<unset>".into(),
                Some(_) => {
                    let requests = meta::items(object, &["spec", "tokenRequests"]);
                    join(requests.iter().map(|request| meta::string(request, &["audience"])), ",").into()
                }
            },
        ),
        boolean(
            "RequiresRepublish",
            "Whether it is called again and again.",
            |object, _| {
                meta::bool_at(object, &["spec", "requiresRepublish"])
                    .unwrap_or(false)
                    .into()
            },
        ),
        text("Modes", "Kinds of volumes.", |object, _| {
            let modes = meta::items(object, &["spec", "volumeLifecycleModes"]);
            match join(modes.iter().filter_map(Value::as_str), ",") {
                text if text.is_empty() => "<none>".into(),
                text => text.into(),
            }
        }),
        age(),
    ]
}
