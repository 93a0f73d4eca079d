//! What the scheduler hears of: one subscription a kind, and what a change of an object of that kind does to the scheduler's state.

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use mk8s_client::{Event, Informer, Informers, Kind, Raw, Subscription};

use super::Scheduler;
use crate::cluster::Selector;

/// Group, kind and plural.
type Names = (&'static str, &'static str, &'static str);

const STORAGE: &str = "storage.k8s.io";
const CLASSES: Names = (STORAGE, "StorageClass", "storageclasses");
const DRIVERS: Names = (STORAGE, "CSIDriver", "csidrivers");
const CSI_NODES: Names = (STORAGE, "CSINode", "csinodes");
const ROOM: Names = (STORAGE, "CSIStorageCapacity", "csistoragecapacities");
const ATTACHMENTS: Names = (STORAGE, "VolumeAttachment", "volumeattachments");
const VOLUMES: Names = ("", "PersistentVolume", "persistentvolumes");
const CLAIMS: Names = ("", "PersistentVolumeClaim", "persistentvolumeclaims");

/// One kind of objects, whichever it is.
trait Feed: Send {
    /// Takes in a change that waits; false: none does.
    fn take(&mut self, state: &mut Scheduler) -> bool;

    /// Ends when a change waits.
    fn arrival(&mut self) -> BoxFuture<'_, ()>;
}

struct Of<K> {
    changes: Subscription<K>,
    next: Option<Event<K>>,
    told: fn(&mut Scheduler, Event<K>),
}

impl<K: Kind> Feed for Of<K> {
    fn take(&mut self, state: &mut Scheduler) -> bool {
        let Some(event) = self.next.take().or_else(|| self.changes.try_next()) else {
            return false;
        };
        (self.told)(state, event);
        true
    }

    fn arrival(&mut self) -> BoxFuture<'_, ()> {
        async {
            if self.next.is_none() {
                self.next = Some(self.changes.next().await);
            }
        }
        .boxed()
    }
}

/// All feeds. What decides where pods may go comes before the pods themselves.
pub struct Feeds(Vec<Box<dyn Feed>>);

async fn feed<K: Kind>(informers: &Informers, told: fn(&mut Scheduler, Event<K>)) -> Box<dyn Feed> {
    subscribed(informers.of::<K>(), told).await
}

/// Of storage, which is read in part: the informers that its controllers have.
async fn storage(
    informers: &Informers,
    (group, kind, plural): Names,
    told: fn(&mut Scheduler, Event<Raw>),
) -> Box<dyn Feed> {
    subscribed(Raw::informer(informers, group, kind, plural), told).await
}

async fn subscribed<K: Kind>(informer: Informer<K>, told: fn(&mut Scheduler, Event<K>)) -> Box<dyn Feed> {
    informer.wait_synced().await;
    Box::new(Of {
        changes: informer.subscribe(),
        next: None,
        told,
    })
}

impl Feeds {
    /// Subscribes, when all is known that there is.
    pub async fn open(informers: &Informers) -> Self {
        Feeds(vec![
            feed::<Node>(informers, Scheduler::node_event).await,
            feed::<Namespace>(informers, Scheduler::namespace_event).await,
            feed::<Service>(informers, Scheduler::service_event).await,
            feed::<ReplicationController>(informers, |state, event| owner(state, &event, of_controller)).await,
            feed::<ReplicaSet>(informers, |state, event| owner(state, &event, of_replica_set)).await,
            feed::<StatefulSet>(informers, |state, event| owner(state, &event, of_stateful_set)).await,
            feed::<PodDisruptionBudget>(informers, Scheduler::budget_event).await,
            storage(informers, CLASSES, Scheduler::class_event).await,
            storage(informers, DRIVERS, Scheduler::csi_driver_event).await,
            storage(informers, CSI_NODES, Scheduler::csi_node_event).await,
            storage(informers, ROOM, Scheduler::room_event).await,
            storage(informers, VOLUMES, Scheduler::volume_event).await,
            storage(informers, ATTACHMENTS, Scheduler::attachment_event).await,
            storage(informers, CLAIMS, Scheduler::claim_event).await,
            feed::<DeviceClass>(informers, Scheduler::device_class_event).await,
            feed::<ResourceSlice>(informers, Scheduler::resource_slice_event).await,
            feed::<ResourceClaim>(informers, Scheduler::resource_claim_event).await,
            feed::<Pod>(informers, Scheduler::pod_event).await,
        ])
    }

    /// Takes in changes that wait, at most so many of each kind; true: there may be more.
    pub fn take_in(&mut self, state: &mut Scheduler, most: usize) -> bool {
        let mut more = false;
        for feed in &mut self.0 {
            more |= (0..most).all(|_| feed.take(state));
        }
        more
    }

    /// Ends when a change waits.
    pub async fn arrival(&mut self) {
        let _ = select_all(self.0.iter_mut().map(|feed| feed.arrival())).await;
    }
}

fn owner<K: kube::Resource>(state: &mut Scheduler, event: &Event<K>, selector: fn(&K) -> Option<Selector>) {
    let uid = event.object().meta().uid.as_deref().unwrap_or_default();
    let selector = match event {
        Event::Applied { new, .. } => selector(new),
        Event::Deleted(_) => None,
    };
    state.cluster.groups.set_owner(uid, selector);
}

fn of_replica_set(set: &ReplicaSet) -> Option<Selector> {
    Some(Selector::new(Some(&set.spec.as_ref()?.selector)))
}

fn of_stateful_set(set: &StatefulSet) -> Option<Selector> {
    Some(Selector::new(Some(&set.spec.as_ref()?.selector)))
}

fn of_controller(set: &ReplicationController) -> Option<Selector> {
    Some(Selector::equal(set.spec.as_ref()?.selector.as_ref()?))
}
