//! The ComponentStatuses: what the control plane is made of, each asked when somebody asks for it. Nothing of them is stored.
//! They have upstream's names, which people and scripts look for; `etcd-0` is the store, whichever it is.

use std::sync::Arc;

use bytes::Bytes;
use mk8s_api::{meta, time};
use mk8s_store::Entry;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::object::Object;
use crate::state::State;

/// Where controllers and scheduler run.
#[derive(Default)]
pub struct Components {
    /// Alive while they run in this process.
    here: Mutex<Option<CancellationToken>>,
    /// Namespace and name of the Lease that says who runs them.
    lease: Mutex<Option<(String, String)>>,
}

impl Components {
    /// They run in this process, until the token is cancelled.
    pub fn run_here(&self, until: CancellationToken) {
        *self.here.lock() = Some(until);
    }

    /// They run wherever this Lease is held.
    pub fn run_by_lease(&self, namespace: &str, name: &str) {
        *self.lease.lock() = Some((namespace.into(), name.into()));
    }

    fn health(&self, state: &State) -> Result<(), String> {
        if self.here.lock().as_ref().is_some_and(|token| !token.is_cancelled()) {
            return Ok(());
        }
        let Some((namespace, name)) = self.lease.lock().clone() else {
            return Err("it does not run".into());
        };
        let leases = state.cache().resource("coordination.k8s.io", "leases");
        let lease = leases.and_then(|leases| leases.get(&namespace, &name)?.value().ok());
        let spec = lease.as_ref().and_then(|lease| lease.get("spec"));
        let renewed = spec.and_then(|spec| time::parse(meta::str_at(spec, &["renewTime"])?));
        let seconds = spec.and_then(|spec| meta::i64_at(spec, &["leaseDurationSeconds"]));
        match (renewed, seconds) {
            (Some(at), Some(seconds)) if jiff::Timestamp::now().as_second() <= at.as_second() + seconds => Ok(()),
            _ => Err(format!("nobody holds the lease {namespace}/{name}")),
        }
    }
}

/// All of them, as objects of the call's row.
pub fn all(call: &Call) -> Vec<Arc<Object>> {
    let state = &call.server;
    let store = state.store().health().map_err(|cause| cause.to_string());
    let others = state.components.health(state);
    let all = [
        ("controller-manager", others.clone()),
        ("etcd-0", store),
        ("scheduler", others),
    ];
    all.map(|(name, health)| Arc::new(object(call, name, health))).into()
}

fn object(call: &Call, name: &str, health: Result<(), String>) -> Object {
    let status = if health.is_ok() { "True" } else { "False" };
    let message = health.err().unwrap_or_else(|| "ok".into());
    let tree = json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": status, "message": message}]});
    let entry = Entry {
        key: format!("/registry/core/{}/{name}", call.row.plural()).into(),
        value: Bytes::from(tree.to_string()),
        revision_at: 0,
        create_revision: 0,
        mod_revision: 0,
    };
    Object::new(call.row.resource.clone(), entry, None)
}
