//! EndpointSlices of services that have a selector.
//!
//! Watches services, pods, slices and nodes (zones); writes slices that carry its mark, no others. [`super::plan`] decides.

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mk8s_client::{Event, Index, Informer, Seen};

use super::plan::{self, MANAGER};
use super::write::write;
use super::{follow, is_managed, selected, service_of};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::error::namespace_terminating;
use crate::index;
use crate::meta::{self, Key};

const NAME: &str = "endpointslice-controller";
const WORKERS: usize = 5;
const ZONE: &str = "topology.kubernetes.io/zone";

struct Controller {
    ctx: Context,
    services: Informer<Service>,
    nodes: Informer<Node>,
    pods: Index<Pod>,
    slices: Index<EndpointSlice>,
    all_slices: Informer<EndpointSlice>,
    /// Slices that were written.
    seen: Seen<Key>,
    recorder: mk8s_client::EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (services, nodes) = (ctx.informers.of::<Service>(), ctx.informers.of::<Node>());
    let all_slices = ctx.informers.of::<EndpointSlice>();
    let pods = index::labels(&ctx.informers.of());
    let slices = all_slices.index("service", |slice| {
        service_of(slice, MANAGER).iter().map(Key::to_string).collect()
    });
    let mut driver = Driver::new(NAME, &ctx.scope);
    follow(&mut driver, &ctx);
    driver.watch(&all_slices, |event| {
        let before = match event {
            Event::Applied { old: Some(old), .. } => service_of(old, MANAGER),
            _ => None,
        };
        before.into_iter().chain(service_of(event.object(), MANAGER)).collect()
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
    let recorder = ctx.recorder("endpoint-slice-controller");
    let controller = Controller {
        ctx,
        services,
        nodes,
        pods,
        slices,
        all_slices,
        seen: Seen::default(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key.ns(), &key.name) else {
            // Its slices name it as their owner: the garbage collector takes them.
            self.seen.forget(&key);
            return Ok(Next::Done);
        };
        if !is_managed(&service) || meta::deleting(&*service) {
            return Ok(Next::Done);
        }
        // The event that shows the missing write brings the key back. Asked before the slices are read: they must not be older than the answer.
        if let Some(later) = self.seen.missing(&key, &self.all_slices) {
            return Ok(Next::After(later));
        }
        let slices = self.slices.get(&key.to_string());
        let zone = |node: &str| {
            self.nodes
                .get(None, node)
                .and_then(|n| meta::labels(&*n).get(ZONE).cloned())
        };
        let changes = plan::changes(&service, &selected(&service, &self.pods), &slices, zone);
        match write(&self.ctx, &self.seen, &key, changes).await {
            Err(Error::Api { source, .. }) if namespace_terminating(&source) => Ok(Next::Done),
            Err(error) => {
                if !error.is_conflict() && !error.is_not_found() {
                    let text = format!("Error updating Endpoint Slices for Service {key}: {}", error.message());
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
}
