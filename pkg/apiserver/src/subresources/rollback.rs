//! deployments/rollback of extensions/v1beta1 and apps/v1beta1: asks the Deployment's controller to go back to an earlier
//! revision. The request is an annotation that it takes away again.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::meta;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::validation::{self, Path};
use serde_json::Value;

use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::guaranteed_update::{Attempt, Current, Step, guaranteed_update};
use crate::handlers::decode::{self, Expected};
use crate::options::WriteOptions;
use crate::respond;
use crate::write::Printed;

const KIND: &str = "DeploymentRollback";
const ANNOTATIONS: Path<'static> = Path::new("updatedAnnotations");

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let expected = Expected::kind(call.row.group(), call.row.version(), &call.row.api_version, KIND);
    let rollback = decode::object(call, &body, &expected, options, &mut warnings)?;
    check(&rollback)?;
    let name = meta::string(&rollback, &["name"]);
    if name != call.info.name {
        return Err(Status::bad_request(
            "name in URL does not match name in DeploymentRollback object",
        ));
    }
    let mut attempt = Rollback {
        call,
        rollback: &rollback,
        options,
        before: warnings.clone(),
        warnings,
    };
    let target = call.target(&call.info.namespace, &call.info.name, options.dry_run)?;
    guaranteed_update(target, &mut attempt).await?;
    let mut status = Status::new(200, "", "");
    status.message = format!("rollback request for deployment {name:?} succeeded");
    let mut response = respond::value(StatusCode::CREATED, call.output, status.to_value())?;
    respond::warn(&mut response, &attempt.warnings);
    Ok(response)
}

fn check(rollback: &Value) -> Result<(), Status> {
    let mut errors = validation::Errors::new();
    validation::annotations(meta::at(rollback, &["updatedAnnotations"]), &ANNOTATIONS, &mut errors);
    let name = meta::string(rollback, &["name"]);
    if name.is_empty() {
        errors.push(FieldError::required("name", "name is required"));
    }
    let revision = revision(rollback);
    if revision < 0 {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("rollback.version", revision, why));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("apps", KIND, name, &errors))
}

/// Zero: the last one.
fn revision(rollback: &Value) -> i64 {
    meta::i64_at(rollback, &["rollbackTo", "revision"]).unwrap_or(0)
}

struct Rollback<'a> {
    call: &'a Call,
    rollback: &'a Value,
    options: WriteOptions,
    before: Vec<String>,
    warnings: Vec<String>,
}

impl Attempt for Rollback<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let call = self.call;
        if current.object.is_none() {
            return Err(call.not_found());
        }
        self.warnings.clone_from(&self.before);
        let attributes = call.attributes(Operation::Create, &call.info.name, None, Options::Write(self.options));
        let mut rollback = self.rollback.clone();
        call.admit(&attributes, &mut rollback, &mut self.warnings).await?;
        let managed = current.managed().clone();
        let mut deployment = current.value;
        let annotations = meta::object_mut(&mut deployment, &["metadata", "annotations"]);
        if let Some(updated) = meta::map_at(&rollback, &["updatedAnnotations"]) {
            annotations.extend(updated.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let revision = revision(&rollback).to_string();
        annotations.insert(meta::DEPLOYMENT_ROLLBACK.into(), revision.into());
        Ok(Step::Put(
            Printed::of(&call.row.resource, &deployment, &managed)?,
            Vec::new(),
        ))
    }
}
