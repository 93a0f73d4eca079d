//! EndpointSlices of services that have a selector.
//!
//! Watches services, pods, slices and nodes (zones); writes slices that carry its mark, no others. [`super::plan`] decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mk8s_client::{Event, Index, Informer, Seen};

use parking_lot::Mutex;

use super::plan::{self, Changes, MANAGER};
use super::topology::{Ratios, SharedOut, is_auto, ratios, share_part, shared_out};
use super::write::write;
use super::{follow, is_managed, selected, selecting, service_of, services_of, trigger};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::error::namespace_terminating;
use crate::index;
use crate::meta::{self, Key};

const NAME: &str = "endpointslice-controller";
/// Nodes come and change together: so long after the first, those whose endpoints are shared out by nodes are looked at.
const GATHER: Duration = Duration::from_millis(500);
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
    seen: Arc<Seen<Key>>,
    /// What the zones are worth; none: not asked for since the nodes changed.
    ratios: Arc<Mutex<Option<Ratios>>>,
    /// What was told of each Service that is shared out among zones.
    told: Mutex<HashMap<Key, SharedOut>>,
    recorder: mk8s_client::EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (services, nodes) = (ctx.informers.of::<Service>(), ctx.informers.of::<Node>());
    let all_slices = ctx.informers.of::<EndpointSlice>();
    let pods = index::published(&ctx.informers.of());
    let slices = all_slices.index("service", |slice| {
        service_of(slice, MANAGER).iter().map(Key::to_string).collect()
    });
    let mut driver = Driver::new(NAME, &ctx.scope);
    follow(&mut driver, &ctx);
    let seen = Arc::<Seen<Key>>::default();
    let written = seen.clone();
    driver.watch(&all_slices, move |event| {
        let before = match event {
            Event::Applied { old: Some(old), .. } => service_of(old, MANAGER),
            _ => None,
        };
        let now = service_of(event.object(), MANAGER);
        if before.is_none() || before == now {
            return now
                .filter(|service| !written.is_echo(service, event))
                .into_iter()
                .collect();
        }
        before.into_iter().chain(now).collect()
    });
    let parts = Arc::<Mutex<Option<Ratios>>>::default();
    follow_nodes(&mut driver, &ctx, &parts);
    let recorder = ctx.recorder("endpoint-slice-controller");
    let controller = Controller {
        ctx,
        services,
        nodes,
        pods,
        slices,
        all_slices,
        seen,
        ratios: parts,
        told: Mutex::default(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

/// A node that comes, goes or moves concerns the Services of its pods; what zones are worth, those that are shared out by it.
fn follow_nodes(driver: &mut Driver, ctx: &Context, parts: &Arc<Mutex<Option<Ratios>>>) {
    let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
    let (on_node, services) = (index::node(&pods), selecting(&ctx.informers.of::<Service>()));
    let auto = ctx
        .informers
        .of::<Service>()
        .index("topology", |service| match is_auto(service) {
            true => vec![String::new()],
            false => Vec::new(),
        });
    let (parts, queue) = (parts.clone(), driver.queue.clone());
    driver.watch(&nodes, move |event| {
        let zone = |node: &Node| meta::labels(node).get(ZONE).cloned();
        let (old, new) = match event {
            Event::Applied { old, new } => (old.as_deref(), Some(&**new)),
            Event::Deleted(old) => (Some(&**old), None),
        };
        let mut keys = Vec::new();
        if old.map(zone) != new.map(zone) {
            let pods = on_node.get(meta::name(&**event.object()));
            keys.extend(pods.iter().flat_map(|pod| services_of(pod, &services)));
        }
        if old.and_then(share_part) != new.and_then(share_part) {
            // Worked out when a Service is looked at: thousands of nodes that come are not looked at for each of them.
            parts.lock().take();
            for service in auto.get("") {
                queue.add_after(Key::of(&*service), GATHER);
            }
        }
        keys
    });
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key.ns(), &key.name) else {
            // Its slices name it as their owner: the garbage collector takes them.
            self.seen.forget(&key);
            self.told.lock().remove(&key);
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
            let node = self.nodes.get(None, node)?;
            Some(meta::labels(&*node).get(ZONE).cloned())
        };
        let pods = selected(&service, &self.pods);
        let mut changes = plan::changes(&service, &pods, &slices, zone);
        if is_auto(&service) {
            changes = self.share_out(&key, &service, changes);
        } else if self
            .told
            .lock()
            .remove(&key)
            .is_some_and(|told| told.iter().any(|(_, done)| done.is_ok()))
        {
            self.tell_of_hints(
                &service,
                "Warning",
                "TopologyAwareHintsDisabled",
                "Topology Aware Hints has been disabled",
            );
        }
        trigger::on_slices(&mut changes, &service, &pods, &slices);
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

impl Controller {
    /// Shares endpoints out among zones, and says whether that could be done, when it is news.
    fn share_out(&self, key: &Key, service: &Service, changes: Changes) -> Changes {
        let (changes, done) = {
            let mut known = self.ratios.lock();
            let worth = known.get_or_insert_with(|| ratios(self.nodes.list().iter().map(|node| &**node)));
            shared_out(changes, worth)
        };
        let before = self.told.lock().insert(key.clone(), done.clone()).unwrap_or_default();
        for (family, done) in done.iter().filter(|own| !before.contains(own)) {
            let (type_, reason, text) = match done {
                Ok(()) => (
                    "Normal",
                    "TopologyAwareHintsEnabled",
                    "Topology Aware Hints has been enabled",
                ),
                Err(why) => ("Warning", "TopologyAwareHintsDisabled", why.as_str()),
            };
            self.tell_of_hints(service, type_, reason, &format!("{text}, addressType: {family}"));
        }
        changes
    }

    fn tell_of_hints(&self, service: &Service, type_: &'static str, reason: &str, text: &str) {
        self.recorder.event(&meta::reference(service), type_, reason, text);
    }
}
