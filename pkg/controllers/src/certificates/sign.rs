//! Signs approved certificate requests with the cluster's CA.
//!
//! Watches certificate requests; writes `status.certificate`, or condition Failed where the request is not what its signer signs.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::api::PostParams;
use mk8s_client::{Event, Informer};
use mk8s_pki::ca::Authority;
use mk8s_pki::csr;

use super::{CLIENT, LEGACY_UNKNOWN, NODE_CLIENT, NODE_SERVING, holds, is_issued, recognise};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const WORKERS: usize = 2;

struct Signer {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
    signer: Arc<Authority>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let Some(signer) = ctx.settings.signer.clone() else {
        ctx.scope.token().cancelled().await;
        return Ok(());
    };
    let requests = ctx.informers.of::<CertificateSigningRequest>();
    let mut driver = Driver::new("csrsigning", &ctx.scope);
    driver.watch(&requests, |event| match event {
        Event::Applied { new, .. } if is_due(new) => vec![Key::of(&**new)],
        _ => Vec::new(),
    });
    driver.run(WORKERS, Signer { ctx, requests, signer }).await
}

impl Reconcile for Signer {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Signer { ctx, requests, signer } = self;
        let Some(csr) = requests.get(None, &key.name).filter(|csr| is_due(csr)) else {
            return Ok(Next::Done);
        };
        let mut next = (*csr).clone();
        let status = next.status.get_or_insert_default();
        let usages = csr.spec.usages.clone().unwrap_or_default();
        let signed = csr::parse(&csr.spec.request.0)
            .map_err(|e| e.to_string())
            .and_then(|request| {
                recognise(&csr.spec.signer_name, &request, &usages).map_err(|e| e.to_string())?;
                let seconds = csr.spec.expiration_seconds.map(i64::from);
                let signed = csr::sign(signer, &request, &usages, seconds, mk8s_pki::unix_now());
                signed.map_err(|e| e.to_string())
            });
        match signed {
            Ok(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
            Err(message) => status.conditions.get_or_insert_default().push(failed(&message)),
        }
        let api = ctx.all::<CertificateSigningRequest>();
        let done = api.replace_status(&key.name, &PostParams::default(), &next).await;
        done.tried_if_exists(|| format!("sign certificate request {key}"))?;
        Ok(Next::Done)
    }
}

fn is_due(csr: &CertificateSigningRequest) -> bool {
    let signer = csr.spec.signer_name.as_str();
    matches!(signer, CLIENT | NODE_CLIENT | NODE_SERVING | LEGACY_UNKNOWN)
        && holds(csr, "Approved")
        && !holds(csr, "Denied")
        && !holds(csr, "Failed")
        && !is_issued(csr)
}

fn failed(message: &str) -> CertificateSigningRequestCondition {
    let now = meta::now();
    CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}
