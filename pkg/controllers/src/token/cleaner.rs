//! Bootstrap tokens go when they expire.
//!
//! Watches the tokens; deletes each at its time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use mk8s_client::{Event, Informer};

use super::{NAMESPACE, expiration};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::meta::{self, Key};

struct Cleaner {
    ctx: Context,
    secrets: Informer<Secret>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let secrets = ctx
        .informers
        .in_namespace::<Secret>(NAMESPACE, &format!("type={}", mk8s_pki::bootstrap::SECRET_TYPE));
    let mut driver = Driver::new("token-cleaner-controller", &ctx.scope);
    driver.watch(&secrets, |event| match event {
        Event::Applied { new, .. } => vec![Key::of(&**new)],
        Event::Deleted(_) => Vec::new(),
    });
    driver.run(1, Cleaner { ctx, secrets }).await
}

impl Reconcile for Cleaner {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Cleaner { ctx, secrets } = self;
        let Some(secret) = secrets.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        let Some(end) = expiration(&secret) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        if end > now {
            return Ok(Next::After(
                Duration::try_from(end.duration_since(now)).unwrap_or_default(),
            ));
        }
        let params = DeleteParams::default().preconditions(meta::this_version(&*secret));
        let api = ctx.api::<Secret>(&key.namespace);
        delete(&api, &*secret, params).await.map(|_| Next::Done)
    }
}
