//! Certificate requests that are done with go: answered ones after an hour, or with their certificate; those that nobody answered, or
//! signed, after a day.
//!
//! Watches certificate requests; deletes them at their time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::DeleteParams;
use mk8s_client::{Event, Informer};
use mk8s_pki::issue;

use super::is_issued;
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
    let conditions = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let issued = is_issued(csr);
    let limit = |type_: &str| match type_ {
        "Denied" | "Failed" => Some(ANSWERED),
        "Approved" if issued => Some(ANSWERED),
        "Approved" => Some(PENDING),
        _ => None,
    };
    let ends = conditions.filter_map(|condition| {
        let since = condition
            .last_update_time
            .as_ref()
            .map_or_else(|| meta::created(csr), |t| t.0);
        Some(since.as_second().saturating_add(limit(&condition.type_)?))
    });
    let created = meta::created(csr).as_second();
    let end = ends.chain(expiry(csr)).min().unwrap_or(created.saturating_add(PENDING));
    Duration::from_secs(end.saturating_sub(now.as_second()).max(0).unsigned_abs())
}

/// When the certificate that was issued ends.
fn expiry(csr: &CertificateSigningRequest) -> Option<i64> {
    let pem = csr.status.as_ref()?.certificate.as_ref()?;
    let chain = issue::certificates(std::str::from_utf8(&pem.0).ok()?).ok()?;
    Some(issue::validity(chain.first()?).ok()?.1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::ByteString;
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
        let approved = |certificate: Option<&str>| {
            let certificate = certificate.map(|pem| ByteString(pem.as_bytes().to_vec()));
            csr(json!({"certificate": certificate, "conditions": [
                {"type": "Approved", "status": "True", "lastUpdateTime": "2024-01-01T01:30:00Z"}]}))
        };
        assert_eq!(
            left(&approved(None), now),
            Duration::from_secs(24 * 3600 - 1800),
            "nobody signs it"
        );
        let ca = mk8s_pki::ca::create("kubernetes").unwrap();
        let long = issue::client(&ca, "jane", None, i64::from(i32::MAX)).unwrap();
        assert_eq!(
            left(&approved(Some(&long.certificate_pem)), now),
            Duration::from_secs(1800)
        );
    }
}
