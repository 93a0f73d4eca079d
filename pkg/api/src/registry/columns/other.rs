//! The smaller groups.

use serde_json::Value;

use super::super::Column;
use super::{age, boolean, int, integer, join, name, scalar, selector, text};
use crate::{meta, time};

/// RoleBinding and ClusterRoleBinding.
pub fn role_binding() -> Vec<Column> {
    vec![
        name(),
        text("Role", "The role that is granted.", |object, _| {
            format!(
                "{}/{}",
                meta::string(object, &["roleRef", "kind"]),
                meta::string(object, &["roleRef", "name"])
            )
            .into()
        }),
        age(),
        text("Users", "Users it is granted to.", |object, _| subjects(object, "User")).wide(),
        text("Groups", "Groups it is granted to.", |object, _| {
            subjects(object, "Group")
        })
        .wide(),
        text("ServiceAccounts", "Service accounts it is granted to.", |object, _| {
            subjects(object, "ServiceAccount")
        })
        .wide(),
    ]
}

fn subjects(object: &Value, kind: &str) -> Value {
    let names: Vec<String> = meta::items(object, &["subjects"])
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let name = meta::string(subject, &["name"]);
            if kind == "ServiceAccount" {
                format!("{}/{name}", meta::string(subject, &["namespace"]))
            } else {
                name.to_string()
            }
        })
        .collect();
    names.join(", ").into()
}

/// Name and the time of creation: kinds that upstream has no printer for.
pub fn created_at() -> Vec<Column> {
    vec![
        name(),
        Column {
            type_: "date",
            ..text("Created At", "When the object was created.", |object, _| {
                meta::string(object, &["metadata", "creationTimestamp"]).into()
            })
        },
    ]
}

pub fn signing_request() -> Vec<Column> {
    vec![
        name(),
        age(),
        text("SignerName", "Who should sign.", |object, _| {
            super::or(object, &["spec", "signerName"], "<none>")
        }),
        text("Requestor", "Who asked.", |object, _| {
            meta::string(object, &["spec", "username"]).into()
        }),
        text(
            "RequestedDuration",
            "How long it should be valid.",
            |object, _| match meta::i64_at(object, &["spec", "expirationSeconds"]) {
                Some(seconds) => time::human_duration(jiff::SignedDuration::from_secs(seconds)).into(),
                None => "<none>".into(),
            },
        ),
        text(
            "Condition",
            "What was decided, and whether it is signed.",
            |object, _| {
                let has = |type_: &str| meta::condition(object, type_).is_some();
                let mut status = if has("Denied") {
                    "Denied".to_string()
                } else if has("Approved") {
                    "Approved".to_string()
                } else {
                    "Pending".to_string()
                };
                if has("Failed") {
                    status.push_str(",Failed");
                }
                if !meta::string(object, &["status", "certificate"]).is_empty() {
                    status.push_str(",Issued");
                }
                status.into()
            },
        ),
    ]
}

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

pub fn storage_class() -> Vec<Column> {
    vec![
        Column {
            cell: |object, _| {
                let is_default = [
                    "storageclass.kubernetes.io/is-default-class",
                    "storageclass.beta.kubernetes.io/is-default-class",
                ]
                .iter()
                .any(|key| meta::annotation(object, key) == Some("true"));
                let suffix = if is_default { " (default)" } else { "" };
                format!("{}{suffix}", meta::name(object)).into()
            },
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
            format: "name",
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

pub fn csi_storage_capacity() -> Vec<Column> {
    vec![
        name(),
        text("StorageClassName", "Its class.", |object, _| {
            meta::string(object, &["storageClassName"]).into()
        }),
        text("Capacity", "What is left.", |object, _| {
            meta::at(object, &["capacity"]).map_or_else(|| "<unset>".into(), |size| scalar(size).into())
        }),
    ]
}

pub fn webhook_configuration() -> Vec<Column> {
    vec![
        name(),
        integer("Webhooks", "Number of webhooks.", |object, _| {
            meta::items(object, &["webhooks"]).len().into()
        }),
        age(),
    ]
}

pub fn admission_policy() -> Vec<Column> {
    vec![
        name(),
        integer("Validations", "Number of validations.", |object, _| {
            meta::items(object, &["spec", "validations"]).len().into()
        }),
        text("ParamKind", "Kind of its parameters.", |object, _| {
            match meta::at(object, &["spec", "paramKind"]) {
                None => "<unset>".into(),
                Some(kind) => format!("{}/{}", meta::api_version(kind), meta::kind(kind)).into(),
            }
        }),
        age(),
    ]
}

pub fn admission_policy_binding() -> Vec<Column> {
    vec![
        name(),
        text("PolicyName", "The policy.", |object, _| {
            meta::string(object, &["spec", "policyName"]).into()
        }),
        text("ParamRef", "Its parameters.", |object, _| {
            let get = |key: &str| meta::string(object, &["spec", "paramRef", key]);
            match (get("namespace"), get("name")) {
                (_, "") => "<unset>".into(),
                ("", name) => format!("*/{name}").into(),
                (namespace, name) => format!("{namespace}/{name}").into(),
            }
        }),
        age(),
    ]
}

pub fn flow_schema() -> Vec<Column> {
    vec![
        name(),
        text("PriorityLevel", "Its priority level.", |object, _| {
            meta::string(object, &["spec", "priorityLevelConfiguration", "name"]).into()
        }),
        text("MatchingPrecedence", "Lower ones are tried first.", |object, _| {
            int(object, &["spec", "matchingPrecedence"])
        }),
        text("DistinguisherMethod", "How flows are told apart.", |object, _| {
            super::or(object, &["spec", "distinguisherMethod", "type"], "<none>")
        }),
        age(),
        text("MissingPL", "Whether its priority level is missing.", |object, _| {
            meta::condition(object, "Dangling")
                .map_or("?", |condition| meta::string(condition, &["status"]))
                .into()
        }),
    ]
}

pub fn priority_level() -> Vec<Column> {
    vec![
        name(),
        text("Type", "Exempt or Limited.", |object, _| {
            meta::string(object, &["spec", "type"]).into()
        }),
        text(
            "NominalConcurrencyShares",
            "Its share of the requests in flight.",
            |object, _| limited(object, &["nominalConcurrencyShares"]),
        ),
        text("Queues", "Number of queues.", |object, _| {
            limited(object, &["limitResponse", "queuing", "queues"])
        }),
        text("HandSize", "Queues that a flow may use.", |object, _| {
            limited(object, &["limitResponse", "queuing", "handSize"])
        }),
        text("QueueLengthLimit", "Most requests in a queue.", |object, _| {
            limited(object, &["limitResponse", "queuing", "queueLengthLimit"])
        }),
        age(),
    ]
}

fn limited(object: &Value, path: &[&str]) -> Value {
    meta::at(object, &["spec", "limited"])
        .and_then(|limited| meta::at(limited, path))
        .cloned()
        .unwrap_or_else(|| "<none>".into())
}

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

pub fn api_service() -> Vec<Column> {
    vec![
        name(),
        text(
            "Service",
            "Service that answers for this version.",
            |object, _| match meta::at(object, &["spec", "service"]) {
                None => "Local".into(),
                Some(service) => format!(
                    "{}/{}",
                    meta::string(service, &["namespace"]),
                    meta::string(service, &["name"])
                )
                .into(),
            },
        ),
        text("Available", "Whether it answers.", |object, _| {
            match meta::condition(object, "Available") {
                Some(condition) if condition["status"] == "True" => "True".into(),
                Some(condition) => format!(
                    "{} ({})",
                    meta::string(condition, &["status"]),
                    meta::string(condition, &["reason"])
                )
                .into(),
                None => "Unknown".into(),
            }
        }),
        age(),
    ]
}
