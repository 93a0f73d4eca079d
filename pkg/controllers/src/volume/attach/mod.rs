//! Volumes of drivers come to the nodes whose pods need them, and leave them afterwards.
//!
//! Watches pods with claims, claims, volumes, VolumeAttachments, drivers and nodes. Makes and deletes VolumeAttachments, which
//! the drivers' attachers act on, and says in a node's status which volumes are attached, which its kubelet waits for. Never
//! takes a volume from a node that uses it, unless the node is silent for six minutes or known to be out of service; never
//! gives one that only one node may have to a second.
//!
//! By node, one at a time: two nodes that want one volume are told apart by what was made for the first, which is waited for.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use mk8s_api::meta as object;
use mk8s_client::{Event, EventRecorder, Index, Informer, Raw, Seen};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use self::plan::{Handle, Place, Plan, Wanted, Word};
use super::{CLAIMS, VOLUMES, claim_of, phase, volume_name};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::rest::Rest;
use crate::{index, pod};

const NAME: &str = "attachdetach-controller";
/// One: see the top of the file.
const WORKERS: usize = 1;

const ATTACHMENTS: Rest = Rest {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
};

const DRIVERS: Rest = Rest {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
};

/// What was used on nodes that are gone, as they said last.
type Gone = Arc<Mutex<HashMap<String, Vec<String>>>>;

#[derive(Clone)]
struct Indexes {
    /// Pods that use claims and have a node, by it.
    pods: Index<Pod>,
    /// Pods by the claims that they use.
    users: Index<Pod>,
    /// VolumeAttachments by node.
    held: Index<Raw>,
    /// VolumeAttachments by volume.
    places: Index<Raw>,
    /// Volumes by their driver.
    driven: Index<Raw>,
}

impl Indexes {
    fn over(pods: &Informer<Pod>, volumes: &Informer<Raw>, attachments: &Informer<Raw>) -> Indexes {
        Indexes {
            pods: pods.index("node of claims", |pod| placed(pod).into_iter().collect()),
            users: index::claims(pods),
            held: attachments.index("node", |held| vec![node_of(held).to_owned()]),
            places: attachments.index("volume", |held| vec![volume_of(held).to_owned()]),
            driven: volumes.index("driver", |volume| {
                Handle::of(volume).map(|handle| handle.driver).into_iter().collect()
            }),
        }
    }
}

struct Controller {
    ctx: Context,
    nodes: Informer<Node>,
    claims: Informer<Raw>,
    volumes: Informer<Raw>,
    attachments: Informer<Raw>,
    drivers: Informer<Raw>,
    by: Indexes,
    gone: Gone,
    /// VolumeAttachments that were made, by the volume.
    seen: Seen<String>,
    /// By node, which of its VolumeAttachments are to be deleted, and since when.
    waiting: Mutex<HashMap<String, HashMap<String, Instant>>>,
    /// By node, what was told last of volumes that are not attached.
    told: Mutex<HashMap<String, Vec<Word>>>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
    let kinds = [&CLAIMS, &VOLUMES, &ATTACHMENTS, &DRIVERS];
    let [claims, volumes, attachments, drivers] = kinds.map(|kind| kind.informer(&ctx.informers));
    let by = Indexes::over(&pods, &volumes, &attachments);
    let gone = Gone::default();
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&pods, pod_event);
    driver.watch(&nodes, {
        let gone = gone.clone();
        move |event| node_event(event, &gone)
    });
    driver.watch(&claims, {
        let by = by.clone();
        move |event| match event {
            Event::Applied { old: Some(old), new } if binding_of(old) == binding_of(new) => Vec::new(),
            event => users(&by, &Key::of(&**event.object())),
        }
    });
    driver.watch(&volumes, {
        let by = by.clone();
        move |event| around(&by, event.object())
    });
    driver.watch(&attachments, {
        let (by, volumes) = (by.clone(), volumes.clone());
        move |event| {
            let held = event.object();
            let mut nodes = vec![Key::new("", node_of(held))];
            // Who waits for it.
            let volume = volumes.get(None, volume_of(held));
            nodes.extend(volume.iter().flat_map(|volume| around(&by, volume)));
            nodes
        }
    });
    driver.watch(&drivers, {
        let by = by.clone();
        move |event| {
            let driven = by.driven.get(meta::name(&**event.object()));
            driven.iter().flat_map(|volume| around(&by, volume)).collect()
        }
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        nodes,
        claims,
        volumes,
        attachments,
        drivers,
        by,
        gone,
        seen: Seen::default(),
        waiting: Mutex::default(),
        told: Mutex::default(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn node_of(attachment: &Raw) -> &str {
    object::string(&attachment.value, &["spec", "nodeName"])
}

fn volume_of(attachment: &Raw) -> &str {
    object::string(&attachment.value, &["spec", "source", "persistentVolumeName"])
}

/// The node of a pod that uses claims and has not ended.
fn placed(pod: &Pod) -> Option<String> {
    let node = pod::node(pod);
    let needs = !node.is_empty() && !has_stopped(pod) && index::claims_of(pod).next().is_some();
    needs.then(|| node.to_owned())
}

/// It has ended, or is to go and nothing of it runs: then its volumes may leave.
fn has_stopped(pod: &Pod) -> bool {
    let mut statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut runs = || {
        statuses.any(|status| {
            let state = status.state.as_ref();
            state.is_none_or(|state| state.terminated.is_none() && state.waiting.is_none())
        })
    };
    pod::is_terminal(pod) || (meta::deleting(pod) && !runs())
}

fn pod_event(event: &Event<Pod>) -> Vec<Key> {
    let (before, now) = match event {
        Event::Applied { old, new } => (old.as_deref().and_then(placed), placed(new)),
        Event::Deleted(last) => (placed(last), None),
    };
    if before == now {
        return Vec::new();
    }
    before.into_iter().chain(now).map(|node| Key::new("", &node)).collect()
}

fn node_event(event: &Event<Node>, gone: &Gone) -> Vec<Key> {
    let key = || vec![Key::of(&**event.object())];
    match event {
        Event::Deleted(last) => {
            gone.lock()
                .insert(meta::name(&**last).to_owned(), Place::of(last).in_use);
            key()
        }
        Event::Applied { old, new } => {
            gone.lock().remove(meta::name(&**new));
            let seen = |node: &Node| {
                let place = Place::of(node);
                (
                    place.managed,
                    place.in_use,
                    place.reported,
                    place.ready,
                    place.out_of_service,
                )
            };
            match old {
                Some(old) if seen(old) == seen(new) => Vec::new(),
                _ => key(),
            }
        }
    }
}

/// What of a claim says which volume a pod gets by it.
fn binding_of(claim: &Raw) -> impl PartialEq + use<'_> {
    let owners = &claim.metadata.owner_references;
    (meta::uid(claim), phase(claim), volume_name(claim), owners)
}

/// The nodes whose pods use a claim.
fn users(by: &Indexes, claim: &Key) -> Vec<Key> {
    let pods = by.users.get(&claim.to_string());
    pods.iter()
        .filter_map(|pod| placed(pod))
        .map(|node| Key::new("", &node))
        .collect()
}

/// The nodes that have a volume, and those whose pods use it.
fn around(by: &Indexes, volume: &Raw) -> Vec<Key> {
    let held = by.places.get(meta::name(volume));
    let mut nodes: Vec<Key> = held.iter().map(|held| Key::new("", node_of(held))).collect();
    nodes.extend(claim_of(volume).into_iter().flat_map(|(claim, _)| users(by, &claim)));
    nodes
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let node = self.nodes.get(None, &key.name);
        let place = match &node {
            Some(node) => Place::of(node),
            None => self.gone_place(&key.name),
        };
        let held = self.by.held.get(&key.name);
        if node.is_none() && held.is_empty() {
            self.forget(&key.name);
            return Ok(Next::Done);
        }
        let wanted = if node.is_some() {
            self.wanted(&key.name)
        } else {
            Vec::new()
        };
        let unseen = wanted.iter().filter_map(|want| {
            let volume = meta::name(&*want.volume).to_owned();
            self.seen.missing(&volume, &self.attachments)
        });
        if let Some(wait) = unseen.max() {
            return Ok(Next::After(wait));
        }
        let plan = self.plan(&place, &wanted, &held);
        self.act(&place, &wanted, plan).await
    }
}

impl Controller {
    /// A node that is not there may have all that it was given, unless it said otherwise last.
    fn gone_place(&self, name: &str) -> Place {
        let last = self.gone.lock().get(name).cloned();
        Place {
            name: name.to_owned(),
            managed: true,
            unknown: last.is_none(),
            in_use: last.unwrap_or_default(),
            ..Place::default()
        }
    }

    fn forget(&self, node: &str) {
        self.gone.lock().remove(node);
        self.waiting.lock().remove(node);
        self.told.lock().remove(node);
    }

    /// What the node's pods need of drivers that attach.
    fn wanted(&self, node: &str) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = Vec::new();
        for pod in self.by.pods.get(node) {
            for claim in index::claims_of(&pod) {
                let Some((volume, handle)) = self.attachable(&pod, &claim) else {
                    continue;
                };
                match all.iter_mut().find(|want| want.handle == handle) {
                    Some(want) => want.pods.push(pod.clone()),
                    None => all.push(self.want(node, &claim, volume, handle, pod.clone())),
                }
            }
        }
        all
    }

    fn want(&self, node: &str, claim: &Key, volume: Arc<Raw>, handle: Handle, pod: Arc<Pod>) -> Wanted {
        let places = self.by.places.get(meta::name(&*volume));
        let users = self.by.users.get(&claim.to_string());
        let others = users
            .into_iter()
            .filter(|pod| placed(pod).is_some_and(|other| other != node));
        Wanted {
            elsewhere: places.iter().any(|held| node_of(held) != node),
            others: others.collect(),
            pods: vec![pod],
            volume,
            handle,
        }
    }

    /// The volume of a claim that is bound, where its driver has it attached. A claim that is made for a pod is that pod's.
    fn attachable(&self, pod: &Pod, claim: &Key) -> Option<(Arc<Raw>, Handle)> {
        let found = self.claims.get(claim.ns(), &claim.name)?;
        let named = pod::volumes(pod).any(|volume| {
            let source = volume.persistent_volume_claim.as_ref();
            source.is_some_and(|source| source.claim_name == claim.name)
        });
        if phase(&found) != "Bound" || !(named || meta::controlled_by(&*found, meta::uid(pod))) {
            return None;
        }
        let volume = self.volumes.get(None, volume_name(&found))?;
        let handle = Handle::of(&volume)?;
        let bound = claim_of(&volume).is_some_and(|(_, uid)| uid == meta::uid(&*found));
        let driver = self.drivers.get(None, &handle.driver);
        let skipped =
            driver.is_some_and(|driver| object::bool_at(&driver.value, &["spec", "attachRequired"]) == Some(false));
        (bound && !skipped).then_some((volume, handle))
    }

    fn plan(&self, place: &Place, wanted: &[Wanted], held: &[Arc<Raw>]) -> Plan {
        let handle_of = |held: &Raw| Handle::of(&*self.volumes.get(None, volume_of(held))?);
        let waiting = self.waiting.lock().remove(&place.name).unwrap_or_default();
        let since = |name: &str| waiting.get(name).map_or(Duration::ZERO, Instant::elapsed);
        let now = Timestamp::now();
        let age = |held: &Raw| Duration::try_from(now.duration_since(meta::created(held))).unwrap_or_default();
        let plan = plan::plan(place, wanted, held, handle_of, since, age);
        let still = plan.waiting.iter().map(|name| {
            let since = waiting.get(name).copied().unwrap_or_else(Instant::now);
            (name.clone(), since)
        });
        self.waiting.lock().insert(place.name.clone(), still.collect());
        plan
    }

    /// What fails keeps nothing else from being done, but for one thing: no volume leaves before its node was told.
    async fn act(&self, place: &Place, wanted: &[Wanted], plan: Plan) -> Result<Next, Error> {
        let attached = self.attach(&plan).await;
        let reported = match self.nodes.get(None, &place.name) {
            Some(node) => self.report(&node, place, &plan.report).await,
            None => Ok(()),
        };
        for word in &plan.attached {
            self.tell(wanted, word, "Normal", "SuccessfulAttachVolume");
        }
        let before = self.told.lock().insert(place.name.clone(), plan.failed.clone());
        let before = before.unwrap_or_default();
        for word in plan.failed.iter().filter(|word| !before.contains(word)) {
            self.tell(wanted, word, "Warning", "FailedAttachVolume");
        }
        let detached = match reported {
            Ok(()) => self.detach(place, plan.detach).await,
            failed => failed,
        };
        attached.and(detached)?;
        Ok(plan.next.map_or(Next::Done, Next::After))
    }

    /// The first failure, when all was tried.
    async fn attach(&self, plan: &Plan) -> Result<(), Error> {
        let mut result = Ok(());
        for attachment in &plan.attach {
            let volume = object::string(attachment, &["spec", "source", "persistentVolumeName"]);
            match ATTACHMENTS.create(&self.ctx.client, attachment).await {
                Ok(made) => self.seen.wrote(&volume.to_owned(), meta::revision_number(&made)),
                // The name says what it is for: it is there.
                Err(error) if error.is_conflict() => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// The same.
    async fn detach(&self, place: &Place, leaving: Vec<(Arc<Raw>, bool)>) -> Result<(), Error> {
        let mut result = Ok(());
        for (held, ask) in leaving {
            let left = async {
                if !ask || !self.still_uses(place, &held).await? {
                    ATTACHMENTS.delete(&self.ctx.client, &held).await?;
                }
                Ok(())
            };
            result = result.and(left.await);
        }
        result
    }

    /// Asked of the API server itself: a kubelet says that it uses a volume before it does.
    async fn still_uses(&self, place: &Place, held: &Raw) -> Result<bool, Error> {
        let node = self.ctx.all::<Node>().get_opt(&place.name).await;
        let node = node.tried(|| format!("get node {}", place.name))?;
        let in_use = node.map(|node| Place::of(&node).in_use).unwrap_or_default();
        let handle = self
            .volumes
            .get(None, volume_of(held))
            .and_then(|volume| Handle::of(&volume));
        Ok(handle.is_some_and(|handle| in_use.contains(&handle.unique_name())))
    }

    async fn report(&self, node: &Node, place: &Place, names: &[String]) -> Result<(), Error> {
        let mut before = place.reported.clone();
        before.sort();
        if before == names {
            return Ok(());
        }
        let known = node
            .status
            .iter()
            .flat_map(|status| status.volumes_attached.iter().flatten());
        let paths: HashMap<&str, &str> = known.map(|own| (&*own.name, &*own.device_path)).collect();
        let path = |name: &String| paths.get(&**name).copied().unwrap_or_default();
        let attached: Vec<_> = names
            .iter()
            .map(|name| json!({"name": name, "devicePath": path(name)}))
            .collect();
        let patch = Patch::Merge(json!({"status": {"volumesAttached": attached}}));
        let nodes = self.ctx.all::<Node>();
        let written = nodes.patch_status(&place.name, &PatchParams::default(), &patch).await;
        written
            .tried_if_exists(|| format!("report volumes of node {}", place.name))
            .map(drop)
    }

    fn tell(&self, wanted: &[Wanted], word: &Word, type_: &'static str, reason: &str) {
        let of = wanted.iter().filter(|want| meta::name(&*want.volume) == word.volume);
        for pod in of.flat_map(|want| &want.pods) {
            self.recorder
                .event(&meta::reference(&**pod), type_, reason, &word.message);
        }
    }
}
