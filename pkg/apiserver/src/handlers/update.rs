//! update (PUT).

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::meta;
use mk8s_api::status::{FieldError, Status};
use serde_json::Value;

use super::answer;
use super::decode::{self, Expected};
use crate::call::{Call, RETRIES, Written};
use crate::object::Object;
use crate::options::WriteOptions;
use crate::pipeline::{self, Part, Updated};

/// Kinds that a PUT creates where there is none (strategies with AllowCreateOnUpdate).
const CREATE_ON_UPDATE: [(&str, &str); 10] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("node.k8s.io", "runtimeclasses"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

/// Kinds that a PUT without resourceVersion does not change (strategies without AllowUnconditionalUpdate).
const CONDITIONAL_ONLY: [(&str, &str); 13] = [
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("coordination.k8s.io", "leases"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "poddisruptionbudgets"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
];

fn listed(table: &[(&str, &str)], call: &Call) -> bool {
    table.contains(&(call.row.group(), call.row.plural()))
}

pub async fn update(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    update_part(call, body, Part::Main).await
}

/// PUT of the object or of its status.
pub async fn update_part(call: &Call, body: Bytes, part: Part) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let mut warnings = Vec::new();
    let mut object = decode::object(call, &body, &Expected::row(call), options, &mut warnings)?;
    check_name(call, &mut object)?;
    call.row.to_stored(&mut object);
    for _ in 0..RETRIES {
        let found = call.cache()?.get(&call.info.namespace, call.info.path_name());
        let Some(old) = found else {
            if part != Part::Main || !listed(&CREATE_ON_UPDATE, call) {
                return Err(call.not_found());
            }
            if !meta::uid(&object).is_empty() {
                return Err(precondition_uid(call, meta::uid(&object), ""));
            }
            let written = pipeline::create(call, object, options.dry_run, &mut warnings).await?;
            return answer(call, StatusCode::CREATED, written, &warnings);
        };
        let old_value = old.value();
        check_version(call, &object, &old, &old_value)?;
        let conditional = !matches!(meta::resource_version(&object), "" | "0");
        let mut notes = warnings.clone();
        let updated = pipeline::update(
            call,
            &old,
            &old_value,
            object.clone(),
            part,
            options.dry_run,
            &mut notes,
        );
        match updated.await? {
            Updated::Written(written) => return answer(call, StatusCode::OK, written, &notes),
            Updated::Deleted(last) => return answer(call, StatusCode::OK, Written::Tree(last), &notes),
            Updated::Conflict if conditional => return Err(call.conflict()),
            Updated::Conflict => {}
        }
    }
    Err(call.conflict())
}

/// The name in the body must be the URL's; an absent one is filled in.
pub fn check_name(call: &Call, object: &mut Value) -> Result<(), Status> {
    let name = meta::name(object);
    let wanted = call.info.path_name();
    if name.is_empty() {
        meta::metadata_mut(object).insert("name".into(), wanted.into());
        return Ok(());
    }
    if name != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}

/// A resourceVersion or uid in the object must be those of what is stored.
pub fn check_version(call: &Call, object: &Value, old: &Arc<Object>, old_value: &Value) -> Result<(), Status> {
    let uid = meta::uid(object);
    if !uid.is_empty() && uid != meta::uid(old_value) {
        return Err(precondition_uid(call, uid, meta::uid(old_value)));
    }
    match meta::resource_version(object) {
        "" | "0" if listed(&CONDITIONAL_ONLY, call) => {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            Err(Status::invalid(
                call.row.group(),
                call.row.plural(),
                old.name(),
                &[error],
            ))
        }
        "" | "0" => Ok(()),
        version => match version.parse::<u64>() {
            Ok(version) if version == old.revision => Ok(()),
            Ok(_) => Err(call.conflict()),
            Err(_) => Err(Status::invalid(
                call.row.group(),
                call.row.kind(),
                old.name(),
                &[FieldError::invalid(
                    "metadata.resourceVersion",
                    version,
                    "must be convertible to an integer",
                )],
            )),
        },
    }
}

fn precondition_uid(call: &Call, wanted: &str, own: &str) -> Status {
    Status::conflict(
        call.row.group(),
        call.row.plural(),
        &call.info.name,
        &format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {own}"),
    )
}
