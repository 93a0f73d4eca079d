//! Admin access to devices: for namespaces that an administrator has marked, whoever asks for it (KEP-5018). Upstream's strategies
//! ask when a claim, or a template of claims, is made, and when what was allocated says that it has it.

use mk8s_api::meta;
use mk8s_api::status::{FieldError, Status};
use serde_json::Value;

use super::{Attributes, Operation};
use crate::lookup::Lookup;

const LABEL: &str = "resource.kubernetes.io/admin-access";

pub fn concerns(call: &Attributes<'_>) -> bool {
    matches!(
        (&*call.resource.plural, call.operation, call.subresource),
        ("resourceclaims" | "resourceclaimtemplates", Operation::Create, "")
            | ("resourceclaims", Operation::Update, "status")
    )
}

pub fn validate(call: &Attributes<'_>, object: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let Some(path) = asks(call, object) else { return Ok(()) };
    let error = match lookup.value("", "namespaces", "", call.namespace) {
        Some(namespace) if meta::string(&namespace, &["metadata", "labels", LABEL]) == "true" => return Ok(()),
        Some(_) => {
            let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
            FieldError::forbidden(path, why)
        }
        None => {
            let name = call.namespace;
            let why = format!("could not retrieve namespace to verify admin access: namespaces {name:?} not found");
            FieldError::internal(path, why)
        }
    };
    let (resource, name) = (call.resource, meta::name(object));
    Err(Status::invalid(&resource.group, &resource.kind, name, &[error]))
}

/// The first place that asks for it, as upstream names it: without `exactly`, and of a template as of its claims.
fn asks(call: &Attributes<'_>, object: &Value) -> Option<String> {
    let first = |items: &[Value], at: &[&str]| items.iter().position(|item| meta::bool_at(item, at) == Some(true));
    if call.subresource == "status" {
        let results = ["status", "allocation", "devices", "results"];
        let has = |claim: &Value| first(meta::items(claim, &results), &["adminAccess"]);
        let had = call.old.and_then(has).is_some();
        let index = has(object).filter(|_| !had)?;
        return Some(format!("status.allocation.devices.results[{index}].adminAccess"));
    }
    let requests: &[&str] = match &*call.resource.plural {
        "resourceclaims" => &["spec", "devices", "requests"],
        _ => &["spec", "spec", "devices", "requests"],
    };
    let index = first(meta::items(object, requests), &["exactly", "adminAccess"])?;
    Some(format!("spec.devices.requests[{index}].adminAccess"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Request;
    use super::*;
    use crate::lookup::MapLookup;

    #[test]
    fn it_is_for_marked_namespaces() {
        let lookup = MapLookup::default();
        for (name, labels) in [("marked", json!({LABEL: "true"})), ("plain", json!({LABEL: "yes"}))] {
            lookup.put("", "namespaces", &json!({"metadata": {"name": name, "labels": labels}}));
        }
        let requests = json!([{"name": "a", "exactly": {"deviceClassName": "c"}},
            {"name": "b", "exactly": {"deviceClassName": "c", "adminAccess": true}}]);
        let claim = json!({"metadata": {"name": "x"}, "spec": {"devices": {"requests": requests}}});
        let template = json!({"metadata": {"name": "x"}, "spec": {"spec": {"devices": {"requests": requests}}}});
        let made = |plural, namespace, object: &Value| {
            let request = Request {
                group: "resource.k8s.io",
                ..Request::create(plural, namespace)
            };
            request.with(None, |call| {
                assert!(concerns(call));
                validate(call, object, &lookup).err().map(|status| status.message)
            })
        };
        assert_eq!(made("resourceclaims", "marked", &claim), None);
        assert_eq!(made("resourceclaimtemplates", "marked", &template), None);
        for (plural, namespace, object) in [
            ("resourceclaims", "plain", &claim),
            ("resourceclaimtemplates", "plain", &template),
            ("resourceclaims", "none", &claim),
        ] {
            let told = made(plural, namespace, object).unwrap_or_default();
            assert!(told.contains("spec.devices.requests[1].adminAccess"), "{told}");
        }
        let results = |admin: bool| json!({"metadata": {"name": "x"}, "status": {"allocation": {"devices": {"results": [{"adminAccess": admin}]}}}});
        let status = |old: bool, new: bool| {
            let request = Request {
                operation: Operation::Update,
                subresource: "status",
                group: "resource.k8s.io",
                ..Request::create("resourceclaims", "plain")
            };
            request.with(Some(&results(old)), |call| {
                assert!(concerns(call));
                validate(call, &results(new), &lookup).is_ok()
            })
        };
        assert!(status(false, false) && status(true, true) && !status(false, true));
    }
}
