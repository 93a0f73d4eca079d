//! admissionregistration.k8s.io and apiregistration.k8s.io.

use super::super::Column;
use super::{age, integer, name, text};
use crate::meta;

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
