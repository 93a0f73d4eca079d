//! pods/eviction: a delete that a PodDisruptionBudget may refuse
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>).

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::selectors::LabelSelector;
use mk8s_api::status::Status;
use mk8s_api::{meta, time};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::guaranteed_update::{Attempt, Current, Done, Reads, Step, Target, Written, guaranteed_update};
use crate::handlers::decode::{self, Expected};
use crate::handlers::delete::{check_preconditions, delete_object};
use crate::object::Object;
use crate::options::{DeleteOptions, WriteOptions};
use crate::request::Query;
use crate::respond;
use crate::watch_cache::ResourceCache;
use crate::write::Printed;

const MAX_DISRUPTED: usize = 2000;

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let expected = Expected {
        row: None,
        alias: Some("policy/v1beta1"),
        ..Expected::kind("policy", "v1", "policy/v1", "Eviction")
    };
    let eviction = decode::object(call, &body, &expected, options, &mut warnings)?;
    let name = meta::name(&eviction);
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let pod = call.object()?;
    let sent = delete_options(&eviction, options)?;
    let admitted = WriteOptions {
        dry_run: sent.dry_run,
        ..options
    };
    let mut eviction = eviction;
    let attributes = call.attributes(Operation::Create, pod.name(), None, Options::Write(admitted));
    call.admit(&attributes, &mut eviction, &mut warnings).await?;
    let delete = delete_options(&eviction, admitted)?;
    evict(call, pod, &delete).await?;
    let mut response = respond::value(StatusCode::CREATED, call.output, Status::new(201, "", "").to_value())?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Decides about the pod and deletes the one that was decided about: one that changed where that matters is decided
/// about again.
async fn evict(call: &Call, mut pod: Arc<Object>, delete: &DeleteOptions) -> Result<(), Status> {
    loop {
        let value = pod.value()?;
        let permit = match permit_of(&value) {
            Some(permit) => permit,
            None => consult_budget(call, &pod, &value, delete.dry_run).await?,
        };
        let uid = meta::uid(&value);
        let options = guarded(delete, uid, pod.revision, permit);
        let outcome = mark_and_delete(call, &pod, options).await;
        let refused = match outcome {
            Err(status) if status.code == 409 && permit == Permit::AsItIs && delete.resource_version.is_none() => {
                status
            }
            outcome => return outcome,
        };
        let now = call.object()?;
        let in_vain = now.revision == pod.revision || delete.uid.as_deref().is_some_and(|wanted| wanted != uid);
        if in_vain || Instant::now() >= call.deadline {
            return Err(refused);
        }
        pod = now;
    }
}

/// Says of the pod that it is about to be disrupted, which a Job's failure policy asks about, and deletes it.
async fn mark_and_delete(call: &Call, pod: &Object, mut options: DeleteOptions) -> Result<(), Status> {
    let target = call.target(pod.namespace(), pod.name(), options.dry_run)?;
    let mut marking = Marking {
        call,
        options: &options,
    };
    let marked = guaranteed_update(target, &mut marking).await?;
    if let (Some(wanted), Done::Written(Written::Stored(marked))) = (&mut options.resource_version, marked) {
        *wanted = marked.revision.to_string();
    }
    delete_object(call, pod.namespace(), pod.name(), &options).await?;
    Ok(())
}

struct Marking<'a> {
    call: &'a Call,
    options: &'a DeleteOptions,
}

impl Attempt for Marking<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let object = current.object.ok_or_else(|| self.call.not_found())?;
        check_preconditions(self.call, &object, &current.value, self.options)?;
        let mut pod = current.value;
        if !mark(&mut pod) {
            return Ok(Step::Keep);
        }
        let printed = Printed::of(object.resource(), &pod, &object.managed)?;
        Ok(Step::Put(printed, Vec::new()))
    }
}

/// Sets the condition; whether it was another.
fn mark(pod: &mut Value) -> bool {
    const TYPE: &str = "DisruptionTarget";
    let (reason, message) = ("EvictionByEvictionAPI", "Eviction API: evicting");
    let before = meta::condition(pod, TYPE);
    let is_true = before.is_some_and(|before| meta::string(before, &["status"]) == "True");
    let same = |before: &Value| {
        is_true && meta::string(before, &["reason"]) == reason && meta::string(before, &["message"]) == message
    };
    if before.is_some_and(same) {
        return false;
    }
    let since = before
        .filter(|_| is_true)
        .map(|before| before["lastTransitionTime"].clone());
    let condition = json!({
        "type": TYPE, "status": "True", "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or_else(|| time::rfc3339(jiff::Timestamp::now()).into()),
    });
    let conditions = meta::object_mut(pod, &["status"])
        .entry("conditions")
        .or_insert_with(|| json!([]));
    let Value::Array(conditions) = conditions else {
        return false;
    };
    match conditions.iter_mut().find(|own| own["type"] == TYPE) {
        Some(own) => *own = condition,
        None => conditions.push(condition),
    }
    true
}

/// Why a pod may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permit {
    /// It disrupts nothing as it is now: it may become ready meanwhile, and would disrupt something then.
    AsItIs,
    /// Whatever becomes of it: it was counted, has no budget, or has ended.
    Whatever,
}

/// How the pod that was decided about is deleted, and no other.
fn guarded(delete: &DeleteOptions, uid: &str, revision: u64, permit: Permit) -> DeleteOptions {
    let mut options = delete.clone();
    options.uid.get_or_insert_with(|| uid.to_string());
    if permit == Permit::AsItIs {
        options.resource_version.get_or_insert_with(|| revision.to_string());
    }
    options
}

/// How the pod is deleted.
fn delete_options(eviction: &Value, options: WriteOptions) -> Result<DeleteOptions, Status> {
    let mut delete = DeleteOptions::parse(&Query::default(), meta::at(eviction, &["deleteOptions"]))?;
    delete.dry_run |= options.dry_run;
    Ok(delete)
}

/// Pods whose end disrupts nothing; None where a budget is asked.
fn permit_of(pod: &Value) -> Option<Permit> {
    if meta::is_deleting(pod) {
        return Some(Permit::Whatever);
    }
    match meta::string(pod, &["status", "phase"]) {
        "Succeeded" | "Failed" => Some(Permit::Whatever),
        "Pending" => Some(Permit::AsItIs),
        _ => None,
    }
}

async fn consult_budget(call: &Call, pod: &Arc<Object>, value: &Value, dry_run: bool) -> Result<Permit, Status> {
    let budgets = call.server.cache().resource("policy", "poddisruptionbudgets");
    let Some(budgets) = budgets else {
        return Ok(Permit::Whatever);
    };
    let Some(budget) = budget_of(&budgets, pod)? else {
        return Ok(Permit::Whatever);
    };
    let target = Target {
        store: call.server.store(),
        cache: &budgets,
        known_as: None,
        key: budget.key.clone(),
        deadline: call.deadline,
        dry_run,
        reads: Reads::Whole,
        looks: true,
        turn: call.turn.as_ref(),
    };
    let ready = meta::condition_is_true(value, "Ready");
    let mut counting = Counting {
        pod: pod.name(),
        ready,
        permit: Permit::Whatever,
    };
    guaranteed_update(target, &mut counting).await?;
    Ok(counting.permit)
}

/// Takes an eviction from what a budget allows.
struct Counting<'a> {
    pod: &'a str,
    ready: bool,
    /// What the last attempt came to.
    permit: Permit,
}

impl Attempt for Counting<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let Some(budget) = &current.object else {
            return Err(Status::internal(
                "the disruption budget of the pod was deleted meanwhile",
            ));
        };
        let (permit, step) = match decide(&current.value, self.pod, self.ready)? {
            Verdict::Free => (Permit::AsItIs, Step::Keep),
            Verdict::Counted(counted) => {
                let printed = Printed::of(budget.resource(), &counted, &budget.managed)?;
                (Permit::Whatever, Step::Put(printed, Vec::new()))
            }
        };
        self.permit = permit;
        Ok(step)
    }
}

fn budget_of(budgets: &ResourceCache, pod: &Object) -> Result<Option<Arc<Object>>, Status> {
    let mut found = None;
    for object in budgets.list(pod.namespace()).iter() {
        let budget = object.value()?;
        let Some(selector) = meta::at(&budget, &["spec", "selector"]) else {
            continue;
        };
        let matches = LabelSelector::from_json(selector).is_ok_and(|selector| selector.matches(|key| pod.label(key)));
        if !matches {
            continue;
        }
        if found.is_some() {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        found = Some(object.clone());
    }
    Ok(found)
}

#[derive(Debug)]
enum Verdict {
    /// The budget is not touched.
    Free,
    /// The budget with this eviction counted.
    Counted(Value),
}

/// Whether a budget lets a pod go, and the budget's new status.
fn decide(budget: &Value, pod: &str, ready: bool) -> Result<Verdict, Status> {
    let number = |key: &str| meta::i64_at(budget, &["status", key]).unwrap_or(0);
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    if !ready {
        let policy = meta::string(budget, &["spec", "unhealthyPodEvictionPolicy"]);
        if policy == "AlwaysAllow" || (healthy >= desired && desired > 0) {
            return Ok(Verdict::Free);
        }
    }
    let name = meta::name(budget);
    let refused = |why: String, retry: u32| {
        let mut status = Status::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            retry,
        );
        let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
        if retry > 0 {
            details["retryAfterSeconds"] = retry.into();
        } else {
            status.retry_after = None;
        }
        status.details = Some(details);
        status
    };
    if number("observedGeneration") < meta::generation(budget) {
        return Err(refused(
            format!("The disruption budget {name} is still being processed by the server."),
            10,
        ));
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(
            "policy",
            "poddisruptionbudget",
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = meta::map_at(budget, &["status", "disruptedPods"]).map_or(0, |map| map.len());
    if disrupted > MAX_DISRUPTED {
        return Err(Status::forbidden(
            "policy",
            "poddisruptionbudget",
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(refused(
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"),
            0,
        ));
    }
    let mut counted = budget.clone();
    meta::set(&mut counted, &["status", "disruptionsAllowed"], allowed - 1);
    let now = time::rfc3339(jiff::Timestamp::now());
    meta::set(&mut counted, &["status", "disruptedPods", pod], now);
    Ok(Verdict::Counted(counted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_pod_that_was_decided_about_is_deleted() {
        let of = |pod: Value| permit_of(&pod);
        assert_eq!(of(json!({"status": {"phase": "Pending"}})), Some(Permit::AsItIs));
        assert_eq!(of(json!({"status": {"phase": "Failed"}})), Some(Permit::Whatever));
        assert_eq!(of(json!({"status": {"phase": "Running"}})), None);
        let seen = |delete: &DeleteOptions, permit: Permit| {
            let options = guarded(delete, "u", 7, permit);
            (options.uid.unwrap(), options.resource_version)
        };
        let plain = DeleteOptions::default();
        assert_eq!(seen(&plain, Permit::Whatever), ("u".into(), None));
        assert_eq!(seen(&plain, Permit::AsItIs), ("u".into(), Some("7".into())));
        let own = DeleteOptions {
            uid: Some("mine".into()),
            resource_version: Some("3".into()),
            ..DeleteOptions::default()
        };
        assert_eq!(seen(&own, Permit::AsItIs), ("mine".into(), Some("3".into())));
    }

    #[test]
    fn budgets_decide() {
        let budget = |allowed: i64| {
            json!({"metadata": {"name": "b", "generation": 2}, "spec": {},
                   "status": {"observedGeneration": 2, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1}})
        };
        let refused = decide(&budget(0), "p", true).unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(refused.details.unwrap()["causes"][0]["reason"], "DisruptionBudget");
        assert!(matches!(decide(&budget(0), "p", false), Ok(Verdict::Free)));
        let Ok(Verdict::Counted(counted)) = decide(&budget(1), "p", true) else {
            panic!("one may go");
        };
        assert_eq!(counted["status"]["disruptionsAllowed"], 0);
        assert!(counted["status"]["disruptedPods"]["p"].is_string());
        let mut stale = budget(1);
        stale["metadata"]["generation"] = 3.into();
        assert_eq!(decide(&stale, "p", true).unwrap_err().code, 429);
    }
}
