//! Services of type LoadBalancer, where there is no cloud: they are reached at the nodes' own addresses, at which every node's proxy
//! routes their ports.
//!
//! Watches Services, nodes and EndpointSlices; writes `status.loadBalancer` and the clean-up finalizer of Services of that type that
//! name no class, and events. A Service whose port is another's, or the cluster's own, is told so and waits; the status says by which
//! ports a Service is reached, since who has a port keeps it. It never writes to a
//! Service of another class. What else listens on a node, only its proxy knows, which leaves that alone and says so.

mod plan;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use mk8s_client::{Event, EventRecorder, Index, Informer, services_of};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use plan::{Balanced, FINALIZER, balanced, ingress, is_ours, ports, served_part};

const NAME: &str = "service-controller";
const WORKERS: usize = 2;

struct Controller {
    ctx: Context,
    services: Informer<Service>,
    by_port: Index<Service>,
    nodes: Informer<Node>,
    slices: Index<EndpointSlice>,
    recorder: EventRecorder,
    /// Why a Service waits, as far as it was told.
    told: Mutex<HashMap<Key, String>>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    if !ctx.settings.service_lb {
        ctx.scope.token().cancelled().await;
        return Ok(());
    }
    let (services, nodes) = (ctx.informers.of::<Service>(), ctx.informers.of::<Node>());
    let all_slices = ctx.informers.of::<EndpointSlice>();
    let by_port = services.index("balanced port", |service| match is_ours(service) {
        true => ports(service),
        false => Vec::new(),
    });
    let all = services.index("balanced", |service| match is_ours(service) {
        true => vec![String::new()],
        false => Vec::new(),
    });
    let slices = all_slices.index("any service", service_of);
    let mut driver = Driver::new(NAME, &ctx.scope);
    let rivals = by_port.clone();
    driver.watch(&services, move |event| concerned(event, &rivals));
    driver.watch(&nodes, move |event| {
        let changed = match event {
            Event::Applied { old: Some(old), new } => served_part(old) != served_part(new),
            Event::Applied { old: None, .. } | Event::Deleted(_) => true,
        };
        if !changed {
            return Vec::new();
        }
        all.get("").iter().map(|service| Key::of(&**service)).collect()
    });
    let local = services.clone();
    driver.watch(&all_slices, move |event| {
        let keys = services_of(event).into_iter();
        let keys = keys.filter_map(|key| key.split_once('/').map(|(namespace, name)| Key::new(namespace, name)));
        keys.filter(|key| {
            local
                .get(key.ns(), &key.name)
                .is_some_and(|service| is_ours(&service) && is_local(&service))
        })
        .collect()
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        services,
        by_port,
        nodes,
        slices,
        recorder,
        told: Mutex::default(),
    };
    driver.run(WORKERS, controller).await
}

fn service_of(slice: &EndpointSlice) -> Vec<String> {
    let name = meta::labels(slice).get("kubernetes.io/service-name");
    let place = |name| format!("{}/{name}", meta::namespace(slice));
    name.map(place).into_iter().collect()
}

fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local")
}

/// The Service, and those that may get what it had or lose what it takes.
fn concerned(event: &Event<Service>, by_port: &Index<Service>) -> Vec<Key> {
    let own = event.object();
    let old = match event {
        Event::Applied { old, .. } => old.as_ref(),
        Event::Deleted(_) => None,
    };
    let balanced = |service: &&Arc<Service>| is_ours(service) || meta::has_finalizer(&***service, FINALIZER);
    let involved: Vec<_> = old.into_iter().chain([own]).filter(balanced).collect();
    let mut keys = Vec::new();
    if involved.is_empty() {
        return keys;
    }
    keys.push(Key::of(&**own));
    let held = |service: &Service| {
        (
            is_ours(service),
            ports(service),
            ingress(service).first().map(|first| first.ports.clone()),
            meta::has_finalizer(service, FINALIZER),
        )
    };
    if old.is_some_and(|old| held(old) == held(own)) && !matches!(event, Event::Deleted(_)) {
        return keys;
    }
    let contested: BTreeSet<String> = involved.iter().flat_map(|service| ports(service)).collect();
    for port in contested {
        keys.extend(by_port.get(&port).iter().map(|service| Key::of(&**service)));
    }
    keys
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key.ns(), &key.name) else {
            self.told.lock().remove(&key);
            return Ok(Next::Done);
        };
        if !is_ours(&service) || meta::deleting(&*service) {
            self.told.lock().remove(&key);
            if meta::has_finalizer(&*service, FINALIZER) && !has_class(&service) {
                self.clean_up(&key, &service).await?;
            }
            return Ok(Next::Done);
        }
        if !meta::has_finalizer(&*service, FINALIZER) {
            let finalizers: Vec<_> = finalizers(&service).chain([FINALIZER]).collect();
            let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta::revision(&*service)}});
            // The event that this makes brings the key back.
            return self.patch(&key, &service, patch).await.map(|()| Next::Done);
        }
        let (wanted, why) = match self.plan(&key, &service) {
            Balanced::At(ingress) => (ingress, None),
            Balanced::Waits(why) => (Vec::new(), Some(why)),
        };
        let had = ingress(&service);
        if had != wanted.as_slice() {
            let first = had.is_empty() && !wanted.is_empty();
            if first {
                self.tell(&service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer");
            }
            self.patch(&key, &service, json!({"status": {"loadBalancer": {"ingress": wanted}}}))
                .await?;
            if first {
                self.tell(&service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer");
            } else if !wanted.is_empty() && !had.iter().map(|at| &at.ip).eq(wanted.iter().map(|at| &at.ip)) {
                self.tell(
                    &service,
                    "Normal",
                    "UpdatedLoadBalancer",
                    "Updated load balancer with new hosts",
                );
            }
        }
        self.tell_why(&key, &service, why, wanted.is_empty());
        Ok(Next::Done)
    }
}

impl Controller {
    fn plan(&self, key: &Key, service: &Service) -> Balanced {
        let mut rivals = Vec::new();
        for port in ports(service) {
            rivals.extend(self.by_port.get(&port));
        }
        rivals.retain(|rival| meta::uid(&**rival) != meta::uid(service));
        let rivals: Vec<&Service> = rivals.iter().map(|rival| &**rival).collect();
        let nodes = self.nodes.list();
        let nodes: Vec<&Node> = nodes.iter().map(|node| &**node).collect();
        let mut near = BTreeSet::new();
        if is_local(service) {
            for slice in self.slices.get(&key.to_string()) {
                near.extend(ready_nodes(&slice).map(str::to_owned));
            }
        }
        balanced(service, &rivals, &nodes, &near, self.ctx.settings.api_port)
    }

    /// Says why a Service waits, once.
    fn tell_why(&self, key: &Key, service: &Service, why: Option<String>, nowhere: bool) {
        let (reason, text) = match why {
            Some(why) => ("SyncLoadBalancerFailed", format!("Error syncing load balancer: {why}")),
            None if nowhere => (
                "UnAvailableLoadBalancer",
                "There are no available nodes for LoadBalancer".to_owned(),
            ),
            None => {
                self.told.lock().remove(key);
                return;
            }
        };
        let before = self.told.lock().insert(key.clone(), text.clone());
        if before.as_ref() != Some(&text) {
            self.tell(service, "Warning", reason, &text);
        }
    }

    /// Nothing but the status is there to be taken away; then the Service may go.
    async fn clean_up(&self, key: &Key, service: &Service) -> Result<(), Error> {
        self.tell(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer");
        let left: Vec<_> = finalizers(service).filter(|own| *own != FINALIZER).collect();
        let patch = json!({
            "metadata": {"finalizers": left, "resourceVersion": meta::revision(service)},
            "status": {"loadBalancer": {"ingress": null}},
        });
        self.patch(key, service, patch).await?;
        self.tell(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer");
        Ok(())
    }

    async fn patch(&self, key: &Key, service: &Service, mut patch: Value) -> Result<(), Error> {
        patch["metadata"]["uid"] = meta::uid(service).into();
        let api = self.ctx.api::<Service>(&key.namespace);
        let done = api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        done.tried_if_exists(|| format!("write the load balancer of Service {key}"))
            .map(drop)
    }

    fn tell(&self, service: &Service, type_: &'static str, reason: &str, text: &str) {
        self.recorder.event(&meta::reference(service), type_, reason, text);
    }
}

fn has_class(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|s| s.load_balancer_class.as_deref());
    class.is_some_and(|class| !class.is_empty())
}

fn finalizers(service: &Service) -> impl Iterator<Item = &str> {
    service.metadata.finalizers.iter().flatten().map(String::as_str)
}

/// The nodes of a slice's endpoints that are ready.
fn ready_nodes(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    let ready = slice.endpoints.iter().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|c| c.ready) != Some(false)
    });
    ready.filter_map(|endpoint| endpoint.node_name.as_deref())
}
