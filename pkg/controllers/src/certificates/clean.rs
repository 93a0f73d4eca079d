//! Certificate requests that are done with go: answered ones after an hour, those that nobody answered after a day.
//!
//! Watches certificate requests; deletes them at their time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::DeleteParams;
use mk8s_client::{Event, Informer};

use super::{holds, is_issued};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::meta::{self, Key};

const ANSWERED: i64 = 3600;
const PENDING: i64 = 24 * 3600;

struct Cleaner {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let requests = ctx.informers.of::<CertificateSigningRequest>();
    let mut driver = Driver::new("csrcleaner", &ctx.scope);
    driver.watch(&requests, |event| match event {
        Event::Applied { new, .. } => vec![Key::of(&**new)],
        Event::Deleted(_) => Vec::new(),
    });
    driver.run(1, Cleaner { ctx, requests }).await
}

impl Reconcile for Cleaner {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Cleaner { ctx, requests } = self;
        let Some(csr) = requests.get(None, &key.name) else {
            return Ok(Next::Done);
        };
        let left = left(&csr, Timestamp::now());
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let api = ctx.all::<CertificateSigningRequest>();
        // As it was read: an answer that comes now gives it more time.
        let params = DeleteParams::default().preconditions(meta::this_version(&*csr));
        delete(&api, &*csr, params).await.map(|_| Next::Done)
    }
}

fn left(csr: &CertificateSigningRequest, now: Timestamp) -> Duration {
    let answered = is_issued(csr) || holds(csr, "Denied") || holds(csr, "Failed");
    let conditions = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let since = conditions
        .filter_map(|c| c.last_update_time.as_ref())
        .map(|t| t.0)
        .max();
    let since = since.filter(|_| answered).unwrap_or_else(|| meta::created(csr));
    let age = now.as_second().saturating_sub(since.as_second());
    let limit = if answered { ANSWERED } else { PENDING };
    Duration::from_secs((limit - age).max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn answered_requests_go_sooner() {
        let now: Timestamp = "2024-01-01T02:00:00Z".parse().unwrap();
        let csr = |status| -> CertificateSigningRequest {
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "x"}, "status": status}))
            .unwrap()
        };
        assert_eq!(left(&csr(json!({})), now), Duration::from_secs(22 * 3600));
        let denied =
            json!({"conditions": [{"type": "Denied", "status": "True", "lastUpdateTime": "2024-01-01T01:30:00Z"}]});
        assert_eq!(left(&csr(denied), now), Duration::from_secs(1800));
    }
}
