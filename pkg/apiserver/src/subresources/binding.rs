//! pods/binding: the scheduler's word that a pod runs on a node.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::status::{FieldError, Status};
use mk8s_api::{meta, time};
use mk8s_store::Expect;
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::call::{Call, RETRIES};
use crate::handlers::decode::{self, Expected};
use crate::options::WriteOptions;
use crate::respond;
use crate::write::{self, WriteError};

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let expected = Expected::kind("", "v1", "v1", "Binding");
    let binding = decode::object(call, &body, &expected, options, &mut warnings)?;
    let name = meta::name(&binding);
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    bind_pod(call, &call.info.name, &binding, options.dry_run).await
}

/// POST to the old collection `bindings`.
pub async fn bind(call: &Call, binding: Value, dry_run: bool) -> Result<Response<Body>, Status> {
    let name = meta::name(&binding).to_string();
    bind_pod(call, &name, &binding, dry_run).await
}

async fn bind_pod(call: &Call, name: &str, binding: &Value, dry_run: bool) -> Result<Response<Body>, Status> {
    let mut errors = Vec::new();
    let kind = meta::string(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    let node = meta::string(binding, &["target", "name"]);
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", name, &errors));
    }
    {
        let attributes = call.attributes(Operation::Create, name, None, dry_run);
        call.admit(&attributes, Some(binding)).await?;
    }
    let pods = call.server.cache().resource("", "pods");
    let pods = pods.ok_or_else(|| Status::internal("pods are not stored"))?;
    for _ in 0..RETRIES {
        let old = pods
            .get(&call.info.namespace, name)
            .ok_or_else(|| Status::not_found("", "pods", name))?;
        let pod = assign(old.value(), name, node, binding)?;
        if dry_run {
            break;
        }
        match write::put(
            call.server.store(),
            pods,
            old.key.clone(),
            Expect::Revision(old.revision),
            &pod,
        )
        .await
        {
            Ok(_) => break,
            Err(WriteError::Conflict) => {}
            Err(WriteError::Status(status)) => return Err(status),
        }
    }
    respond::value(StatusCode::CREATED, call.output, Status::new(201, "", "").to_value())
}

fn assign(mut pod: Value, name: &str, node: &str, binding: &Value) -> Result<Value, Status> {
    let conflict = |why: &str| Status::conflict("", "pods/binding", name, why);
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(&pod) {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(&pod)
        )));
    }
    if meta::is_deleting(&pod) {
        return Err(conflict(&format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        )));
    }
    let own = meta::string(&pod, &["spec", "nodeName"]);
    if !own.is_empty() {
        return Err(conflict(&format!("pod {name} is already assigned to node {own:?}")));
    }
    if !meta::items(&pod, &["spec", "schedulingGates"]).is_empty() {
        return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    meta::set(&mut pod, &["spec", "nodeName"], node);
    for part in ["annotations", "labels"] {
        if let Some(map) = meta::map_at(binding, &["metadata", part]) {
            for (key, value) in map {
                meta::set(&mut pod, &["metadata", part, key], value.clone());
            }
        }
    }
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": time::rfc3339(jiff::Timestamp::now()),
        "observedGeneration": meta::generation(&pod),
    });
    let conditions: Vec<Value> = meta::items(&pod, &["status", "conditions"])
        .iter()
        .filter(|condition| meta::string(condition, &["type"]) != "PodScheduled")
        .cloned()
        .chain(std::iter::once(condition))
        .collect();
    meta::set(&mut pod, &["status", "conditions"], conditions);
    Ok(pod)
}
