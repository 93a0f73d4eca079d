//! Two control planes at one store: one of them works at a time, and knows what the other did before.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use mk8s_client::lease::Election;
use mk8s_store::{Answer, Follower, Loaded, SledStore, Store, StoreError, Txn, TxnError};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::holds;
use crate::harness::Plane;

const LEASE: Duration = Duration::from_secs(6);
const NAME: &str = "kube-controller-manager";

fn election(identity: &str) -> Election {
    Election {
        lease_duration: LEASE,
        renew_deadline: Duration::from_secs(4),
        retry_period: Duration::from_millis(100),
        ..Election::new("kube-system", NAME, identity)
    }
}

/// One control plane's way to the store: it can be cut, and says when nodes were written through it, or would have been.
struct Way {
    store: Arc<dyn Store>,
    cut: Mutex<bool>,
    nodes: Mutex<Vec<(Instant, String)>>,
}

impl Way {
    fn to(store: &Arc<dyn Store>) -> Arc<Way> {
        Arc::new(Way {
            store: store.clone(),
            cut: Mutex::new(false),
            nodes: Mutex::default(),
        })
    }

    fn cut(&self, cut: bool) {
        *self.cut.lock() = cut;
    }

    /// When nodes of this prefix were written.
    fn written(&self, prefix: &str) -> Vec<Instant> {
        let nodes = self.nodes.lock();
        let named = nodes.iter().filter(|(_, key)| key.contains(prefix));
        named.map(|(at, _)| *at).collect()
    }

    /// When a node was written first that had been written before.
    fn rewritten(&self, prefix: &str) -> Option<Instant> {
        let nodes = self.nodes.lock();
        let mut known = HashSet::new();
        let mut named = nodes.iter().filter(|(_, key)| key.contains(prefix));
        named.find(|(_, key)| !known.insert(key)).map(|(at, _)| *at)
    }
}

impl Store for Way {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.store.load()
    }

    fn follow(&self, after: u64, follower: Box<dyn Follower>) -> Result<(), StoreError> {
        self.store.follow(after, follower)
    }

    fn txn(&self, txn: Txn) -> Answer {
        let nodes = txn.ops.iter().filter(|op| op.key.contains("/nodes/"));
        let at = Instant::now();
        self.nodes.lock().extend(nodes.map(|op| (at, op.key.to_string())));
        match *self.cut.lock() {
            true => Answer::now(Err(TxnError::Unavailable("it is cut off".into()))),
            false => self.store.txn(txn),
        }
    }

    fn current_revision(&self) -> u64 {
        self.store.current_revision()
    }

    fn health(&self) -> Result<(), Arc<str>> {
        self.store.health()
    }

    /// The other one still needs it.
    fn close(&self) {}
}

async fn join(plane: &Plane, name: &str) {
    let nodes: Api<Node> = Api::all(plane.plane.client("system:apiserver"));
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
}

async fn share_of(plane: &Plane, name: &str) -> String {
    let nodes: Api<Node> = Api::all(plane.plane.client("system:apiserver"));
    let share = Mutex::new(None);
    plane
        .until("a node gets its share of the pod network", || async {
            let node = nodes.get(name).await.unwrap();
            *share.lock() = node.spec.and_then(|spec| spec.pod_cidr);
            holds(share.lock().is_some(), name)
        })
        .await;
    share.into_inner().unwrap()
}

async fn lease(plane: &Plane) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(plane.plane.client("system:apiserver"), "kube-system");
    leases.get(NAME).await.unwrap().spec.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_lease_has_stopped_before_another_begins_with_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(dir.path()).unwrap());
    let (first_way, second_way) = (Way::to(&store), Way::to(&store));
    let first = Plane::start_elected(first_way.clone(), election("first")).await;
    join(&first, "a").await;
    let mut shares = vec![share_of(&first, "a").await];
    let second = Plane::start_elected(second_way.clone(), election("second")).await;
    // The one that waits serves the API all the same; the other one works for both.
    join(&second, "b").await;
    shares.push(share_of(&second, "b").await);
    tokio::time::sleep(LEASE).await;
    assert_eq!(lease(&second).await.holder_identity.as_deref(), Some("first"));
    assert_eq!(second_way.rewritten("/nodes/b"), None, "only one works");

    // Cut off, the first goes on trying while it may still think that it leads: new nodes ask for shares all the time.
    let cut = Instant::now();
    first_way.cut(true);
    let joined = AtomicU32::new(0);
    second
        .until("the other one leads", || async {
            // One after the other, not each for the change that the last one is.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let node = joined.fetch_add(1, Ordering::Relaxed);
            join(&second, &format!("c-{node}")).await;
            let held = lease(&second).await;
            holds(held.holder_identity.as_deref() == Some("second"), held)
        })
        .await;
    for node in 0..joined.into_inner() {
        shares.push(share_of(&second, &format!("c-{node}")).await);
    }
    let ended = *first_way
        .written("/nodes/c-")
        .last()
        .expect("it tries to give them shares");
    let began = second_way
        .rewritten("/nodes/c-")
        .expect("the other one gives them shares");
    assert!(ended < cut + LEASE, "{:?} after the cut", ended - cut);
    assert!(ended < began, "both were at work for {:?}", ended - began);

    // Back again it waits, for as long as the other one renews.
    first_way.cut(false);
    tokio::time::sleep(LEASE).await;
    assert_eq!(lease(&first).await.holder_identity.as_deref(), Some("second"));
    // Its turn comes when the other gives the lease back, without waiting for it to expire.
    let stopped = Instant::now();
    second.stop().await;
    join(&first, "d").await;
    shares.push(share_of(&first, "d").await);
    assert!(stopped.elapsed() < LEASE, "{:?}", stopped.elapsed());
    let held = lease(&first).await;
    assert_eq!(held.holder_identity.as_deref(), Some("first"));
    assert_eq!(held.lease_transitions, Some(2));

    // What the other gave out meanwhile is not given out again.
    let given = shares.len();
    shares.sort();
    shares.dedup();
    assert_eq!(shares.len(), given, "{shares:?}");
    first.stop().await;
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_at_the_store_means_no_lease() {
    let plane = Plane::start().await;
    let leases: Api<Lease> = Api::all(plane.plane.client("system:apiserver"));
    assert_eq!(leases.list(&Default::default()).await.unwrap().items.len(), 0);
    plane.stop().await;
}
