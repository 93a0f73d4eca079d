//! Two control planes at one store: one of them works at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::client::Body;
use mk8s_client::lease::{Election, lead};
use mk8s_supervisor::{OnExit, Supervisor};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{holds, until};
use crate::harness::Plane;

const LEASE: Duration = Duration::from_secs(3);

fn election(identity: &str) -> Election {
    Election {
        lease_duration: LEASE,
        renew_deadline: Duration::from_secs(2),
        retry_period: Duration::from_millis(100),
        ..Election::new("kube-system", "kube-controller-manager", identity)
    }
}

/// One who would lead: what its tasks did, and a switch that cuts it off from the API server.
struct Candidate {
    supervisor: Supervisor,
    cut: Arc<AtomicBool>,
    /// (when its tasks began or ended, whether they began)
    log: Arc<Mutex<Vec<(Instant, bool)>>>,
}

impl Candidate {
    fn start(plane: &Plane, identity: &'static str) -> Candidate {
        let supervisor = plane.supervisor.scope();
        let (cut, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let client = unreliable(plane.plane.client("system:kube-controller-manager"), cut.clone());
        let (owner, told) = (supervisor.clone(), log.clone());
        supervisor.spawn(identity, OnExit::Fatal, move |token| {
            let told = told.clone();
            lead(client.clone(), election(identity), owner.clone(), token, move |scope| {
                let told = told.clone();
                scope.spawn("work", OnExit::Restart, move |token| work(token, told.clone()));
            })
        });
        Candidate { supervisor, cut, log }
    }

    fn works(&self) -> bool {
        self.log.lock().last().is_some_and(|(_, began)| *began)
    }
}

/// A task that takes a while to end.
async fn work(
    token: CancellationToken,
    log: Arc<Mutex<Vec<(Instant, bool)>>>,
) -> Result<(), mk8s_supervisor::TaskError> {
    log.lock().push((Instant::now(), true));
    token.cancelled().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    log.lock().push((Instant::now(), false));
    Ok(())
}

fn unreliable(client: kube::Client, cut: Arc<AtomicBool>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, cut) = (client.clone(), cut.clone());
        async move {
            if cut.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let answer = client.send(request).await?;
            Ok::<Response<Body>, kube::Error>(answer)
        }
    });
    kube::Client::new(service, "default")
}

async fn working(candidate: &Candidate, expected: bool) {
    until("a candidate begins or ends", || async {
        holds(candidate.works() == expected, candidate.log.lock().clone())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_lease_has_stopped_before_another_begins() {
    let plane = Plane::start().await;
    let first = Candidate::start(&plane, "first");
    working(&first, true).await;
    let second = Candidate::start(&plane, "second");
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    assert!(first.works() && !second.works(), "the lease is renewed");

    let cut = Instant::now();
    first.cut.store(true, Ordering::SeqCst);
    working(&second, true).await;
    let (ended, _) = *first.log.lock().last().unwrap();
    let (began, _) = *second.log.lock().last().unwrap();
    assert!(!first.works());
    assert!(ended < cut + LEASE, "{:?} after the last renewal", ended - cut);
    assert!(ended < began, "both were at work for {:?}", ended - began);

    // Back again, it waits; and has its turn when the other gives the lease back, without waiting for it to expire.
    first.cut.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!first.works());
    let stopped = Instant::now();
    assert!(second.supervisor.shutdown(Duration::from_secs(5)).await);
    working(&first, true).await;
    assert!(stopped.elapsed() < LEASE, "{:?}", stopped.elapsed());
    assert_eq!(first.log.lock().len(), 3);

    let leases: Api<Lease> = Api::namespaced(plane.plane.client("system:apiserver"), "kube-system");
    let spec = leases.get("kube-controller-manager").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("first"));
    assert_eq!(spec.lease_transitions, Some(2));
    plane.stop().await;
}

async fn share_of(plane: &Plane, name: &str) -> String {
    let nodes: Api<Node> = Api::all(plane.plane.client("system:apiserver"));
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let share = Mutex::new(None);
    until("a node gets its share of the pod network", || async {
        let node = nodes.get(name).await.unwrap();
        *share.lock() = node.spec.and_then(|spec| spec.pod_cidr);
        holds(share.lock().is_some(), name)
    })
    .await;
    share.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_again_knows_what_others_gave_out_meanwhile() {
    let plane = Plane::start_elected(election("first")).await;
    let mut shares = vec![share_of(&plane, "a").await];
    let client = plane.plane.client("system:apiserver");
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    // Another takes the lease for a second, and gives the next share to a node.
    let stolen = json!({"spec": {"holderIdentity": "third", "leaseDurationSeconds": 1}});
    leases
        .patch(
            "kube-controller-manager",
            &PatchParams::default(),
            &Patch::Merge(stolen),
        )
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let given = "10.244.1.0/24";
    assert_ne!(shares[0], given);
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": {"podCIDR": given, "podCIDRs": [given]}}))
            .unwrap();
    let nodes: Api<Node> = Api::all(client);
    nodes.create(&PostParams::default(), &node).await.unwrap();
    shares.push(given.into());
    shares.push(share_of(&plane, "c").await);
    let held = leases.get("kube-controller-manager").await.unwrap().spec.unwrap();
    assert_eq!(held.holder_identity.as_deref(), Some("first"));
    shares.sort();
    shares.dedup();
    assert_eq!(shares.len(), 3, "{shares:?}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_at_the_store_means_no_lease() {
    let plane = Plane::start().await;
    let leases: Api<Lease> = Api::all(plane.plane.client("system:apiserver"));
    assert_eq!(leases.list(&Default::default()).await.unwrap().items.len(), 0);
    plane.stop().await;
}
