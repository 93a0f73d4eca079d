//! Finished Jobs go when their `ttlSecondsAfterFinished` is over.
//!
//! Watches Jobs; deletes them, pods last, at their time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::DeleteParams;
use mk8s_client::{Event, Informer};

use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::job::end;
use crate::meta::{self, Key};

const WORKERS: usize = 2;

struct Expirer {
    ctx: Context,
    jobs: Informer<Job>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let jobs = ctx.informers.of::<Job>();
    let mut driver = Driver::new("ttl-after-finished-controller", &ctx.scope);
    driver.watch(&jobs, |event| match event {
        Event::Applied { new, .. } if expires(new).is_some() => vec![Key::of(&**new)],
        _ => Vec::new(),
    });
    driver.run(WORKERS, Expirer { ctx, jobs }).await
}

impl Reconcile for Expirer {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Expirer { ctx, jobs } = self;
        let known = jobs.get(key.ns(), &key.name);
        let Some(left) = known.as_deref().and_then(expires).map(time_left) else {
            return Ok(Next::Done);
        };
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        // The informer may lag: the TTL may have been raised.
        let api = ctx.api::<Job>(&key.namespace);
        let live = api.get_opt(&key.name).await.tried(|| format!("get Job {key}"))?;
        let Some(live) = live else { return Ok(Next::Done) };
        match expires(&live).map(time_left) {
            None => return Ok(Next::Done),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let params = DeleteParams::foreground().preconditions(meta::this_version(&live));
        delete(&api, &live, params).await.map(|_| Next::Done)
    }
}

/// When the Job is to go, if it is.
fn expires(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if meta::deleting(job) {
        return None;
    }
    let at = end(job)?.last_transition_time.as_ref()?.0.as_second();
    Timestamp::from_second(at.saturating_add(i64::from(ttl))).ok()
}

fn time_left(until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_finished_jobs_with_a_ttl_expire() {
        for (ttl, status, expected) in [
            (Some(5), "True", Some("2024-01-01T00:00:05Z")),
            (Some(5), "False", None),
            (None, "True", None),
        ] {
            let job: Job = serde_json::from_value(json!({"metadata": {}, "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": "Failed", "status": status, "lastTransitionTime": "2024-01-01T00:00:00Z"}]}}))
            .unwrap();
            assert_eq!(expires(&job).map(|t| t.to_string()).as_deref(), expected);
        }
    }
}
