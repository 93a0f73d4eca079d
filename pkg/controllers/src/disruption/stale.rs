//! Takes back that a pod is about to be disrupted, where it was not: condition `DisruptionTarget` of a pod that is still there two
//! minutes later.
//!
//! Watches pods; writes that one condition. Never a node's own word, whose pods may take any time to end, and none of a pod
//! that has ended (KEP-3329).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use mk8s_client::Informer;
use serde_json::json;

use super::status::NOTE;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::pod;

const NAME: &str = "stale-disruption-controller";
const TARGET: &str = "DisruptionTarget";

struct Controller {
    ctx: Context,
    pods: Informer<Pod>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let pods = ctx.informers.of::<Pod>();
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&pods, |event| {
        let pod = event.object();
        let named = left(pod, Timestamp::MIN).is_some();
        named.then(|| Key::of(&**pod)).into_iter().collect()
    });
    driver.run(1, Controller { ctx, pods }).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        match left(&pod, Timestamp::now()) {
            None => return Ok(Next::Done),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let condition = json!({"type": TARGET, "status": "False", "reason": null, "message": null,
            "lastTransitionTime": meta::now(), "observedGeneration": pod.metadata.generation});
        let patch = json!({"metadata": {"uid": meta::uid(&*pod)}, "status": {"conditions": [condition]}});
        let api = self.ctx.api::<Pod>(&key.namespace);
        let done = api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        done.tried_if_exists(|| format!("take back that pod {key} is disrupted"))?;
        Ok(Next::Done)
    }
}

/// How long until it counts as not disrupted; None where nobody says that it is about to be.
fn left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let said = pod::condition(pod, TARGET).filter(|c| c.status == "True")?;
    if meta::deleting(pod) || pod::is_terminal(pod) || said.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = said.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(NOTE.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_said_of_a_pod_that_stays_is_good_for_two_minutes() {
        let now: Timestamp = "2024-01-01T00:02:30Z".parse().unwrap();
        for (status, reason, phase, deleting, since, expected) in [
            ("True", "EvictionByEvictionAPI", "Running", false, "00:01:00", Some(30)),
            ("True", "EvictionByEvictionAPI", "Running", false, "00:00:00", Some(0)),
            ("False", "EvictionByEvictionAPI", "Running", false, "00:00:00", None),
            ("True", "TerminationByKubelet", "Running", false, "00:00:00", None),
            ("True", "PreemptionByScheduler", "Failed", false, "00:00:00", None),
            ("True", "PreemptionByScheduler", "Running", true, "00:00:00", None),
        ] {
            let since = format!("2024-01-01T{since}Z");
            let pod = json!({"metadata": {"deletionTimestamp": deleting.then_some(&since)}, "status": {"phase": phase,
                "conditions": [{"type": TARGET, "status": status, "reason": reason, "lastTransitionTime": since}]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(
                left(&pod, now),
                expected.map(Duration::from_secs),
                "{status} {reason} {phase}"
            );
        }
    }
}
