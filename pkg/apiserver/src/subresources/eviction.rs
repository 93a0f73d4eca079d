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

use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::guaranteed_update::{Attempt, Current, Reads, Step, Target, guaranteed_update};
use crate::handlers::decode::{self, Expected};
use crate::handlers::delete::delete_object;
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
    let expected = Expected::kind("policy", "v1", "policy/v1", "Eviction");
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
    let value = pod.value()?;
    if !ignores_budget(&value) {
        consult_budget(call, &pod, &value, delete.dry_run).await?;
    }
    delete_object(call, pod.namespace(), pod.name(), &delete).await?;
    let mut response = respond::value(StatusCode::CREATED, call.output, Status::new(201, "", "").to_value())?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// How the pod is deleted.
fn delete_options(eviction: &Value, options: WriteOptions) -> Result<DeleteOptions, Status> {
    let mut delete = DeleteOptions::parse(&Query::default(), meta::at(eviction, &["deleteOptions"]))?;
    delete.dry_run |= options.dry_run;
    Ok(delete)
}

/// Pods whose end disrupts nothing.
fn ignores_budget(pod: &Value) -> bool {
    meta::is_deleting(pod)
        || matches!(
            meta::string(pod, &["status", "phase"]),
            "Succeeded" | "Failed" | "Pending"
        )
}

async fn consult_budget(call: &Call, pod: &Arc<Object>, value: &Value, dry_run: bool) -> Result<(), Status> {
    let budgets = call.server.cache().resource("policy", "poddisruptionbudgets");
    let Some(budgets) = budgets else { return Ok(()) };
    let Some(budget) = budget_of(budgets, pod)? else {
        return Ok(());
    };
    let target = Target {
        store: call.server.store(),
        cache: budgets,
        key: budget.key.clone(),
        deadline: call.deadline,
        dry_run,
        reads: Reads::Whole,
    };
    let ready = meta::condition_is_true(value, "Ready");
    let mut counting = Counting { pod: pod.name(), ready };
    guaranteed_update(target, &mut counting).await.map(drop)
}

/// Takes an eviction from what a budget allows.
struct Counting<'a> {
    pod: &'a str,
    ready: bool,
}

impl Attempt for Counting<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let Some(budget) = &current.object else {
            return Err(Status::internal(
                "the disruption budget of the pod was deleted meanwhile",
            ));
        };
        Ok(match decide(&current.value, self.pod, self.ready)? {
            Verdict::Free => Step::Keep,
            Verdict::Counted(counted) => Step::Put(Printed::of(budget.resource(), &counted)?, Vec::new()),
        })
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
