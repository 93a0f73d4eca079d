//! EndpointSlices of services that have a selector.
//!
//! Watches services, pods, slices and nodes (zones); writes slices that carry its mark, no others. [`super::plan`] decides.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use mk8s_client::{Event, Informer};
use parking_lot::Mutex;

use super::plan::{self, MANAGED_BY, MANAGER, SERVICE_NAME};
use super::{by_namespace, follow, is_managed, selected};
use crate::context::Context;
use crate::driver::{Driver, Index, Next};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::replicaset::{message, namespace_terminating};

const NAME: &str = "endpointslice-controller";
const WORKERS: usize = 5;
const ZONE: &str = "topology.kubernetes.io/zone";

/// Our writes that the informer may not have shown yet: by service, then by slice, the revision written; None for a deletion.
#[derive(Default)]
struct Written(Mutex<HashMap<Key, HashMap<String, Option<u64>>>>);

impl Written {
    fn note(&self, service: &Key, slice: &str, revision: Option<u64>) {
        self.0
            .lock()
            .entry(service.clone())
            .or_default()
            .insert(slice.to_owned(), revision);
    }

    /// Has the informer shown every write? Those it has are forgotten.
    fn seen(&self, service: &Key, slices: &[Arc<EndpointSlice>]) -> bool {
        let mut all = self.0.lock();
        let Some(written) = all.get_mut(service) else {
            return true;
        };
        let shown: HashMap<&str, u64> = slices.iter().map(|s| (meta::name(&**s), revision(s))).collect();
        written.retain(|name, revision| match (shown.get(name.as_str()), revision) {
            (Some(shown), Some(written)) => *shown < *written,
            (None, Some(_)) | (Some(_), None) => true,
            (None, None) => false,
        });
        let seen = written.is_empty();
        if seen {
            all.remove(service);
        }
        seen
    }

    /// A slice went, by whomever.
    fn deleted(&self, service: &Key, slice: &str) {
        if let Some(written) = self.0.lock().get_mut(service) {
            written.remove(slice);
        }
    }

    fn forget(&self, service: &Key) {
        self.0.lock().remove(service);
    }
}

fn revision(slice: &EndpointSlice) -> u64 {
    meta::revision(slice).parse().unwrap_or(0)
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = meta::labels(slice);
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        return None;
    }
    labels
        .get(SERVICE_NAME)
        .map(|name| Key::new(meta::namespace(slice), name))
}

fn by_service(slice: &EndpointSlice) -> Vec<String> {
    service_of(slice).map(|key| key.to_string()).into_iter().collect()
}

struct Controller {
    ctx: Context,
    services: Informer<Service>,
    nodes: Informer<Node>,
    pods: Index<Pod>,
    slices: Index<EndpointSlice>,
    written: Arc<Written>,
    recorder: mk8s_client::EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (services, nodes) = (ctx.informers.of::<Service>(), ctx.informers.of::<Node>());
    let (by_ns, pods, slices) = (
        Index::new(by_namespace::<Service>),
        Index::new(by_namespace::<Pod>),
        Index::new(by_service),
    );
    let written = Arc::new(Written::default());
    let mut driver = Driver::new(NAME);
    follow(&mut driver, &ctx, &by_ns, &pods);
    driver.watch(&ctx.informers.of::<EndpointSlice>(), {
        let (slices, written) = (slices.clone(), written.clone());
        move |event| {
            slices.observe(event);
            if let Event::Deleted(old) = event
                && let Some(service) = service_of(old)
            {
                written.deleted(&service, meta::name(&**old));
            }
            let before = match event {
                Event::Applied { old: Some(old), .. } => service_of(old),
                _ => None,
            };
            before.into_iter().chain(service_of(event.object())).collect()
        }
    });
    driver.watch(&nodes, {
        let services = services.clone();
        move |event| {
            let zone = |n: &Node| meta::labels(n).get(ZONE).cloned();
            let moved = match event {
                Event::Applied { old, new } => old.as_deref().and_then(zone) != zone(new),
                Event::Deleted(old) => zone(old).is_some(),
            };
            if moved {
                services.list().iter().map(|s| Key::of(&**s)).collect()
            } else {
                Vec::new()
            }
        }
    });
    let recorder = ctx.recorder(NAME);
    let controller = Arc::new(Controller {
        ctx,
        services,
        nodes,
        pods,
        slices,
        written,
        recorder,
    });
    driver
        .run(WORKERS, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(key).await }
        })
        .await
}

impl Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key.ns(), &key.name) else {
            // Its slices name it as their owner: the garbage collector takes them.
            self.written.forget(&key);
            return Ok(Next::Done);
        };
        if !is_managed(&service) || meta::deleting(&*service) {
            return Ok(Next::Done);
        }
        let slices = self.slices.get(&key.to_string());
        if !self.written.seen(&key, &slices) {
            // The event that shows the missing write brings the key back.
            return Ok(Next::Done);
        }
        let zone = |node: &str| {
            self.nodes
                .get(None, node)
                .and_then(|n| meta::labels(&*n).get(ZONE).cloned())
        };
        let changes = plan::changes(&service, &selected(&service, &self.pods), &slices, zone);
        match self.write(&key, changes).await {
            Err(Error::Api { source, .. }) if namespace_terminating(&source) => Ok(Next::Done),
            Err(error) => {
                if !error.is_conflict() && !error.is_not_found() {
                    let text = match &error {
                        Error::Api { source, .. } => message(source),
                        Error::Invalid(text) => text.clone(),
                    };
                    let text = format!("Error updating Endpoint Slices for Service {key}: {text}");
                    self.recorder.event(
                        &meta::reference(&*service),
                        "Warning",
                        "FailedToUpdateEndpointSlices",
                        text,
                    );
                }
                Err(error)
            }
            Ok(()) => Ok(Next::Done),
        }
    }

    async fn write(&self, service: &Key, changes: plan::Changes) -> Result<(), Error> {
        let api = self.ctx.api::<EndpointSlice>(&service.namespace);
        // New ones before old ones go: no moment in which a pod is in none.
        for slice in changes.create {
            let made = api
                .create(&PostParams::default(), &slice)
                .await
                .tried(|| format!("create EndpointSlice of {service}"))?;
            self.written.note(service, meta::name(&made), Some(revision(&made)));
        }
        for slice in changes.update {
            let name = meta::name(&slice);
            let made = api.replace(name, &PostParams::default(), &slice).await;
            let made = made.tried(|| format!("update EndpointSlice {}/{name}", service.namespace))?;
            self.written.note(service, name, Some(revision(&made)));
        }
        for name in changes.delete {
            let done = api.delete(&name, &DeleteParams::default()).await;
            if done
                .tried_if_exists(|| format!("delete EndpointSlice {}/{name}", service.namespace))?
                .is_some()
            {
                self.written.note(service, &name, None);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn writes_count_as_seen_when_the_informer_has_them() {
        let (written, key) = (Written::default(), Key::new("d", "web"));
        let slice = |name: &str, revision: u64| {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: Some(revision.to_string()),
                ..ObjectMeta::default()
            };
            Arc::new(EndpointSlice {
                metadata,
                ..EndpointSlice::default()
            })
        };
        written.note(&key, "a", Some(7));
        written.note(&key, "b", None);
        assert!(!written.seen(&key, &[slice("b", 3)]));
        assert!(!written.seen(&key, &[slice("a", 6)]));
        assert!(written.seen(&key, &[slice("a", 7)]));
        written.note(&key, "c", Some(9));
        written.deleted(&key, "c");
        assert!(written.seen(&key, &[]));
    }
}
