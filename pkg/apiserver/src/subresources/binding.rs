//! pods/binding: the scheduler's word that a pod runs on a node.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::status::Status;
use mk8s_api::validation::{self, Path};
use mk8s_api::{meta, time};
use serde_json::{Value, json};

use crate::admission::{Operation, Options};
use crate::call::{Call, check_name};
use crate::guaranteed_update::{Attempt, Current, Reads, Step, Target, guaranteed_update};
use crate::handlers::decode::{self, Expected};
use crate::options::WriteOptions;
use crate::respond;
use crate::write::Printed;

const ANNOTATIONS: Path<'static> = Path::new("metadata.annotations");

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let expected = Expected::kind("", "v1", "v1", "Binding");
    let binding = decode::object(call, &body, &expected, options, &mut warnings)?;
    if meta::name(&binding) != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    bind_pod(call, &call.info.name, &binding, options, warnings).await
}

/// POST to the old collection `bindings`.
pub async fn bind(
    call: &Call,
    binding: Value,
    options: WriteOptions,
    warnings: Vec<String>,
) -> Result<Response<Body>, Status> {
    call.check_namespace()?;
    let name = meta::name(&binding).to_string();
    bind_pod(call, &name, &binding, options, warnings).await
}

async fn bind_pod(
    call: &Call,
    name: &str,
    binding: &Value,
    options: WriteOptions,
    decoded: Vec<String>,
) -> Result<Response<Body>, Status> {
    let pods = call.server.cache().resource("", "pods");
    let pods = pods.ok_or_else(|| Status::internal("pods are not stored"))?;
    let target = Target {
        store: call.server.store(),
        cache: &pods,
        known_as: None,
        key: pods.key(&call.info.namespace, name),
        deadline: call.deadline,
        dry_run: options.dry_run,
        reads: Reads::Whole,
        looks: true,
        turn: call.turn.as_ref(),
    };
    let mut binding = Bind {
        call,
        name,
        binding,
        options,
        warnings: Vec::new(),
    };
    let bound = guaranteed_update(target, &mut binding).await;
    bound.map_err(|status| status.warned(&decoded))?;
    let mut response = respond::value(StatusCode::CREATED, call.output, Status::new(201, "", "").to_value())?;
    let warnings: Vec<String> = decoded.into_iter().chain(binding.warnings).collect();
    respond::warn(&mut response, &warnings);
    Ok(response)
}

struct Bind<'a> {
    call: &'a Call,
    name: &'a str,
    binding: &'a Value,
    options: WriteOptions,
    warnings: Vec<String>,
}

impl Attempt for Bind<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let (call, name) = (self.call, self.name);
        // Those of an attempt that lost are said again by the next.
        self.warnings.clear();
        let Some(pod) = &current.object else {
            check_name(name)?;
            return Err(Status::not_found("", "pods", name));
        };
        let (resource, managed) = (pod.resource().clone(), pod.managed.clone());
        let admission = call.server.admission();
        let attributes = call.attributes(Operation::Create, name, None, Options::Write(self.options));
        let mut binding = self.binding.clone();
        admission.mutate(&attributes, &mut binding).await?;
        check(name, |errors| validation::pod_binding(&binding, errors))?;
        let pod = assign(current.value, name, &binding)?;
        // Each of the binding's was well-formed; together with the pod's own they may be too many.
        let annotations = meta::at(&pod, &["metadata", "annotations"]);
        check(name, |errors| {
            validation::annotations(annotations, &ANNOTATIONS, errors)
        })?;
        call.validate(&attributes, &binding, &mut self.warnings).await?;
        Ok(Step::Put(Printed::of(&resource, &pod, &managed)?, Vec::new()))
    }
}

fn check(name: &str, check: impl FnOnce(&mut validation::Errors)) -> Result<(), Status> {
    let mut errors = validation::Errors::new();
    check(&mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Binding", name, &errors))
}

fn assign(mut pod: Value, name: &str, binding: &Value) -> Result<Value, Status> {
    let node = meta::string(binding, &["target", "name"]);
    let conflict = |why: &str| Status::conflict("", "pods/binding", name, why);
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(&pod) {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(&pod)
        )));
    }
    let version = meta::resource_version(binding);
    if !matches!(version, "" | "0") && version != meta::resource_version(&pod) {
        return Err(conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            meta::resource_version(&pod)
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
    // A hint for the scheduler that has served its purpose.
    meta::remove(&mut pod, &["status", "nominatedNodeName"]);
    Ok(pod)
}
