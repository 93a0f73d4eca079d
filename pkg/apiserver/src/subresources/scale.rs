//! /scale: an autoscaling/v1 Scale made of the paths that the row names.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::registry::ScalePaths;
use mk8s_api::schema;
use mk8s_api::selectors::LabelSelector;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::{meta, patch};
use serde_json::{Value, json};

use crate::call::{Call, RETRIES};
use crate::handlers::decode::{self, Expected};
use crate::handlers::patch::{PatchType, read_patch};
use crate::options::WriteOptions;
use crate::pipeline::{self, Part, Updated};
use crate::respond;

pub async fn dispatch(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let Some(paths) = call.row.resource.scale.clone() else {
        return Err(Status::method_not_allowed("the resource has no scale"));
    };
    if call.info.verb == "get" {
        let scale = scale_of(&call.object()?.value(), &paths);
        return respond::value(StatusCode::OK, call.output, scale);
    }
    call.refuse_unsupported()?;
    let mut warnings = Vec::new();
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let change = if call.info.verb == "update" {
        let expected = Expected::kind("autoscaling", "v1", "autoscaling/v1", "Scale");
        Change::Put(decode::object(call, &body, &expected, options, &mut warnings)?)
    } else {
        Change::Patch(PatchType::of(call)?, read_patch(&body)?)
    };
    for _ in 0..RETRIES {
        let old = call.object()?;
        let old_value = old.value();
        let scale = change.apply(call, scale_of(&old_value, &paths))?;
        let version = meta::resource_version(&scale);
        let conditional = !matches!(version, "" | "0") && matches!(change, Change::Put(_));
        if conditional && version != old.revision.to_string() {
            return Err(call.conflict());
        }
        let replicas = meta::i64_at(&scale, &["spec", "replicas"]).unwrap_or(0);
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", old.name(), &[error]));
        }
        let mut new = old_value.clone();
        meta::set(&mut new, paths.spec_replicas, replicas);
        let updated = pipeline::update(call, &old, &old_value, new, Part::Main, options.dry_run, &mut warnings);
        match updated.await? {
            Updated::Written(written) => {
                let mut response = respond::value(StatusCode::OK, call.output, scale_of(&written.value(), &paths))?;
                respond::warn(&mut response, &warnings);
                return Ok(response);
            }
            Updated::Deleted(_) => return Err(call.not_found()),
            Updated::Conflict if conditional => return Err(call.conflict()),
            Updated::Conflict => {}
        }
    }
    Err(call.conflict())
}

enum Change {
    Put(Value),
    Patch(PatchType, Value),
}

impl Change {
    fn apply(&self, call: &Call, mut scale: Value) -> Result<Value, Status> {
        match self {
            Change::Put(new) => return Ok(new.clone()),
            Change::Patch(PatchType::Json, change) => patch::json(&mut scale, change),
            Change::Patch(PatchType::Strategic, change) => match schema::by_gvk("autoscaling", "v1", "Scale") {
                Some(schema) => patch::strategic(&mut scale, change, schema),
                None => patch::merge(&mut scale, change),
            },
            Change::Patch(PatchType::Merge, change) => patch::merge(&mut scale, change),
        }
        .map_err(|error| Status::bad_request(format!("{}: {error}", call.info.name)))?;
        Ok(scale)
    }
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let text = |key: &str| meta::at(object, &["metadata", key]).cloned().unwrap_or_default();
    let selector = match meta::at(object, paths.selector) {
        Some(Value::String(text)) => text.clone(),
        Some(selector) if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() => {
            LabelSelector::from_json(selector)
                .map(|parsed| parsed.to_string())
                .unwrap_or_default()
        }
        Some(map) => LabelSelector::from_map(map).to_string(),
        None => String::new(),
    };
    let mut status = json!({"replicas": meta::i64_at(object, paths.status_replicas).unwrap_or(0)});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let replicas = meta::i64_at(object, paths.spec_replicas).unwrap_or(0);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": text("name"), "namespace": text("namespace"), "uid": text("uid"),
            "resourceVersion": text("resourceVersion"), "creationTimestamp": text("creationTimestamp"),
        },
        "spec": if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) },
        "status": status,
    })
}
