//! Leases: what is written under one is not collected until the lease ends (or, if we die, expires).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_client::services::v1 as api;

use crate::client::{Containerd, call};
use crate::error::Result;

const LIFE: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Lease {
    /// Calls through this client are under the lease.
    pub(crate) client: Containerd,
    base: Containerd,
    id: String,
}

impl Containerd {
    pub(crate) async fn lease(&self) -> Result<Lease> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let id = format!("mk8s-{nanos:x}-{count:x}");
        let expires = jiff::Timestamp::now() + LIFE;
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let request = api::CreateRequest { id: id.clone(), labels };
        call(&format!("create lease {id}"), self.leases_api().create(request)).await?;
        Ok(Lease {
            client: self.under_lease(&id)?,
            base: self.clone(),
            id,
        })
    }
}

impl Lease {
    /// Ends it. A lease that can't be deleted expires by itself.
    pub(crate) async fn end(self) {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            sync: false,
        };
        if let Err(error) = call("delete lease", self.base.leases_api().delete(request)).await {
            tracing::debug!(%error, lease = self.id, "a lease is left to expire");
        }
    }
}
