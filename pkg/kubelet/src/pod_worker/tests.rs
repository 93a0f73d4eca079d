//! A worker on a node in memory (`runtime::fake`) and an API that records: orders of failures that a real containerd can't
//! be made to show.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::{Node, Service};
use mk8s_client::{Event, EventRecorder, Informers};
use mk8s_containerd::{Containerd, Options};
use mk8s_supervisor::Supervisor;
use mk8s_supervisor::job::{self, AbortOnDrop};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::pods::{Inventory, Pods};
use crate::runtime::fake::{Fake, Fault};
use crate::{Config, NetworkMode, NetworkSettings, clock, names, persist};

const UID: &str = "0f6d9f2e-uid";

/// An API server that has one pod, of which it keeps the status, and tells what it was asked.
#[derive(Default)]
struct Api {
    pod: Mutex<Value>,
    asked: Mutex<Vec<String>>,
}

impl Api {
    fn client(self: &Arc<Self>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        if head.uri.query().unwrap_or_default().contains("watch=true") {
            let never = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            return Response::new(BodyExt::boxed(StreamBody::new(never)));
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let kind = path.rsplit('/').next().unwrap_or_default();
        let answer = match head.method {
            Method::GET if kind == "pods" => json!({"kind": "PodList", "apiVersion": "v1",
                "metadata": {"resourceVersion": "1"}, "items": [*self.pod.lock()]}),
            Method::GET => {
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})
            }
            Method::PATCH if kind == "status" => {
                let mut pod = self.pod.lock();
                merge(&mut pod["status"], &body["status"]);
                pod.clone()
            }
            Method::DELETE => {
                self.asked.lock().push("delete".to_owned());
                json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})
            }
            // Refused: there is no token in it.
            Method::POST if kind == "token" => {
                self.asked.lock().push("token".to_owned());
                assert!(self.asked.lock().len() < 1000, "a storm of requests");
                body
            }
            _ => {
                let reason = body["reason"].as_str().unwrap_or_default();
                self.asked.lock().push(format!("event {reason}"));
                body
            }
        };
        Response::new(Full::new(Bytes::from(answer.to_string())).boxed())
    }

    fn was_asked(&self, what: &str) -> bool {
        self.asked.lock().iter().any(|a| a == what)
    }
}

/// As much of a strategic merge as a pod's status needs: conditions go by type, null takes away.
fn merge(status: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        if value.is_null() {
            status.as_object_mut().unwrap().remove(key);
        } else if key == "conditions" {
            let mut all = status[key].as_array().cloned().unwrap_or_default();
            for condition in value.as_array().unwrap() {
                all.retain(|c| c["type"] != condition["type"]);
                if condition["$patch"] == "delete" {
                    continue;
                }
                let mut condition = condition.clone();
                condition.as_object_mut().unwrap().retain(|_, v| !v.is_null());
                all.push(condition);
            }
            status[key] = Value::Array(all);
        } else {
            status[key] = value.clone();
        }
    }
}

/// A worker with all that it stands on.
struct Scene {
    runtime: Arc<Fake>,
    api: Arc<Api>,
    agent: Arc<Agent>,
    pod: Pod,
    _dir: tempfile::TempDir,
    _informers: DropGuard,
    tx: Option<mpsc::UnboundedSender<Message>>,
    worker: Option<AbortOnDrop<()>>,
}

fn config(dir: &std::path::Path) -> Config {
    Config {
        node_name: "node-a".into(),
        node_ip: [10, 0, 0, 1].into(),
        root_dir: dir.join("kubelet"),
        data_dir: dir.join("node"),
        pod_log_dir: dir.join("logs/pods"),
        container_log_dir: dir.join("logs/containers"),
        volumes_dir: dir.join("volumes"),
        cluster_dns: vec![],
        cluster_domain: "cluster.local".into(),
        register_taints: vec![],
        labels: BTreeMap::new(),
        max_pods: 110,
        eviction_hard: "memory.available<1Mi".parse().unwrap(),
        version: "v1".into(),
        pause_image: None,
        network: NetworkSettings {
            mode: NetworkMode::Vxlan,
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            dns: None,
            mtu: None,
            api: tokio::sync::watch::channel(std::collections::BTreeSet::new()).1,
            state_dir: dir.join("node"),
        },
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        server_certificate: Arc::new(NoCertificate),
        client_ca: Arc::new(rustls::RootCertStore::empty()),
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

impl Scene {
    fn new() -> Self {
        Self::of(json!({}))
    }

    /// `spec`: what differs from a pod of one container without grace. It shares the host's IPC, so that nothing is mounted.
    fn of(spec: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let api = Arc::new(Api::default());
        let client = api.client();
        let token = CancellationToken::new();
        let informers = Informers::new(client.clone(), &Supervisor::new(token.clone()));
        let runtime = Fake::new();
        let config = config(dir.path());
        for path in [&config.root_dir, &config.pod_log_dir, &config.container_log_dir] {
            std::fs::create_dir_all(path).unwrap();
        }
        let agent = Agent {
            recorder: EventRecorder::new(client.clone(), "kubelet", "node-a", informers.owner()),
            services: informers.of::<Service>(),
            nodes: informers.of::<Node>(),
            objects: crate::cache::Objects::new(informers.clone()),
            client,
            runtime: runtime.clone(),
            containerd: Containerd::unconnected(Options::default()).unwrap(),
            host: mk8s_containerd::spec::Host::detect(),
            network: crate::netns::channel().1,
            cgroups: crate::resources::cgroup::Cgroups::detect().unwrap(),
            admission: crate::admission::Admission::default(),
            pressure: Mutex::default(),
            volumes: Arc::new(volumes::Volumes::open(&config.root_dir).unwrap()),
            machine: crate::node::Machine::detect(&config),
            starts: Arc::new(tokio::sync::Semaphore::new(4)),
            workers: Mutex::default(),
            owners: Mutex::default(),
            config,
        };
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": UID, "resourceVersion": "1"},
            "spec": {"hostIPC": true, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "c", "image": "i:1", "command": ["sleep"]},
            ]},
            "status": {"phase": "Pending"},
        });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        *api.pod.lock() = pod.clone();
        let mut scene = Self {
            runtime,
            api,
            agent: Arc::new(agent),
            pod: serde_json::from_value(pod).unwrap(),
            _dir: dir,
            _informers: token.drop_guard(),
            tx: None,
            worker: None,
        };
        scene.start(scene.pod.clone(), false);
        scene
    }

    fn start(&mut self, pod: Pod, gone: bool) {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(tracing::Level::WARN)
            .try_init();
        let (tx, mailbox) = mpsc::unbounded_channel();
        let (view, _) = watch::channel(Arc::new(View::default()));
        let wiring = Wiring {
            mailbox,
            tx: tx.clone(),
            view,
        };
        let worker = PodWorker::new(self.agent.clone(), Arc::new(pod), wiring);
        let running = job::spawn("worker", worker.run(self.runtime.found(), gone));
        (self.tx, self.worker) = (Some(tx), Some(running.abort_on_drop()));
    }

    /// The agent dies here and now.
    fn crash(&mut self) {
        (self.tx, self.worker) = (None, None);
    }

    fn tell(&self, message: Message) {
        self.tx.as_ref().unwrap().send(message).unwrap();
    }

    /// Deleted through the API, with its grace.
    fn delete(&mut self, grace: i64) {
        let at = clock::now().checked_add(Duration::from_secs(grace as u64)).unwrap();
        self.pod.metadata.deletion_timestamp = Some(pod::time(at));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.pod.metadata.resource_version = Some("2".into());
        self.pod.status = serde_json::from_value(self.api.pod.lock()["status"].clone()).unwrap();
        self.tell(Message::Update(Arc::new(self.pod.clone())));
    }

    fn reconnect(&self) {
        self.runtime.containerd_is_down(false);
        let tasks = self.runtime.found().into_iter().filter_map(|f| f.task);
        let tasks = tasks.map(|t| (t.id.clone(), t)).collect();
        self.tell(Message::Reconcile(Arc::new(tasks)));
    }

    fn containers(&self) -> Vec<String> {
        self.runtime.running(names::CONTAINER)
    }

    async fn runs(&self) -> String {
        let status = || self.api.pod.lock()["status"]["phase"] == "Running";
        self.runtime
            .until("a running pod", |r| {
                r.running(names::CONTAINER).len() == 1 && r.running(names::SANDBOX).len() == 1 && status()
            })
            .await;
        self.containers().remove(0)
    }

    /// What failed on the way to a pod that runs has left nothing beside it: one sandbox, one network, and of its container
    /// no more than the life before, which people may ask for.
    fn has_no_leftovers(&self, of: &str) {
        let found = self.runtime.found();
        let (sandboxes, containers): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.is_sandbox());
        assert_eq!(sandboxes.len(), 1, "{of}: {sandboxes:?}");
        assert!(containers.len() <= 2, "{of}: {containers:?}");
        assert_eq!(self.runtime.networks(), [UID], "{of}");
        let running = [self.runtime.running(names::SANDBOX), self.containers()].concat();
        let owners: Vec<String> = self.agent.owners.lock().keys().cloned().collect();
        assert!(
            owners.iter().all(|id| running.contains(id)),
            "{of}: {owners:?} of {running:?}"
        );
    }

    async fn leaves_the_api(&self) {
        self.runtime
            .until("its removal from the API", |_| self.api.was_asked("delete"))
            .await;
    }

    /// The API has forgotten it: so must the node.
    async fn is_forgotten(&mut self) {
        self.tell(Message::Gone);
        self.ends().await;
    }

    async fn ends(&mut self) {
        let worker = self.worker.take().unwrap();
        tokio::time::timeout(Duration::from_secs(30), worker)
            .await
            .unwrap_or_else(|_| panic!("the worker goes on: {:?}", self.runtime.calls()))
            .unwrap();
        assert!(self.runtime.found().is_empty(), "{:?}", self.runtime.found());
        assert_eq!(self.runtime.networks(), Vec::<String>::new());
        assert!(!self.agent.pod_dir(UID).path().exists());
    }

    /// Where in the calls the last of a name stands.
    fn last(&self, call: &str) -> usize {
        let calls = self.runtime.calls();
        calls
            .iter()
            .rposition(|c| c == call)
            .unwrap_or_else(|| panic!("no {call} in {calls:?}"))
    }
}

/// By the tests' clock, which is paused: it goes on when nobody has anything to do.
async fn rest(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_begins_and_ends_in_order() {
    let mut scene = Scene::new();
    let id = scene.runs().await;
    scene.delete(5);
    scene.runtime.until("a signal", |r| r.count("kill") == 1).await;
    scene.runtime.end(&id, 143);
    scene.tell(Message::Exit {
        id,
        code: 143,
        at: clock::now(),
    });
    scene.leaves_the_api().await;
    assert_eq!(scene.runtime.count("kill_hard"), 0, "it ended by itself");
    let order = ["start_task", "containers_of", "detach", "remove_cgroup"].map(|call| scene.last(call));
    assert!(order.is_sorted(), "{:?}", scene.runtime.calls());
    scene.is_forgotten().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_stays_until_containerd_confirms_its_end() {
    let mut scene = Scene::new();
    scene.runs().await;
    scene.runtime.containerd_is_down(true);
    scene.delete(1);
    rest(5.0).await;
    assert_eq!(scene.containers().len(), 1);
    assert!(!scene.api.was_asked("delete"), "it left the API while it ran");
    assert_eq!(scene.runtime.networks(), [UID], "its address is not for others");
    assert_eq!(scene.runtime.count("remove_cgroup"), 0);
    scene.reconnect();
    scene.leaves_the_api().await;
    assert!(scene.containers().is_empty());
    scene.is_forgotten().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_removed_is_held_until_its_end_is_confirmed_by_this_agent_or_the_next() {
    let mut scene = Scene::new();
    scene.runs().await;
    scene.runtime.containerd_is_down(true);
    scene.tell(Message::Gone);
    rest(4.0).await;
    assert_eq!(
        (scene.runtime.networks(), scene.runtime.count("remove_cgroup")),
        (vec![UID.to_owned()], 0)
    );
    scene.crash();
    let left = persist::load_pod(&scene.agent.pod_dir(UID)).expect("a record outlives the agent");
    assert!(left.metadata.deletion_timestamp.is_some());
    scene.start(left, true);
    rest(2.0).await;
    assert_eq!(scene.runtime.networks(), [UID]);
    scene.reconnect();
    scene.ends().await;
    assert!(!scene.api.was_asked("delete"), "there was nothing to remove in the API");
}

#[tokio::test(start_paused = true)]
async fn each_step_of_the_end_is_tried_again() {
    let calls = [
        "kill",
        "kill_hard",
        "wait",
        "containers_of",
        "delete_task",
        "delete",
        "detach",
        "remove_cgroup",
    ];
    let faults = [Fault::Unavailable, Fault::LostAnswer, Fault::Panic];
    let cases = calls.into_iter().flat_map(|call| faults.map(|fault| (call, fault)));
    let one = async |(call, fault)| {
        let mut scene = Scene::new();
        scene.runs().await;
        scene.runtime.fail(call, fault);
        scene.delete(0);
        scene.leaves_the_api().await;
        assert!(scene.containers().is_empty(), "{call} {fault:?}");
        assert_eq!(scene.runtime.networks(), Vec::<String>::new(), "{call} {fault:?}");
        scene.is_forgotten().await;
    };
    futures::stream::iter(cases).for_each_concurrent(None, one).await;
}

#[tokio::test(start_paused = true)]
async fn each_step_of_the_beginning_is_tried_again() {
    let calls = [
        "ensure_cgroup",
        "attach",
        "connect",
        "create",
        "create_task",
        "start_task",
        "image",
        "accounts",
    ];
    let faults = [Fault::Unavailable, Fault::LostAnswer, Fault::Panic];
    let cases = calls.into_iter().flat_map(|call| faults.map(|fault| (call, fault)));
    let one = async |(call, fault)| {
        let mut scene = Scene::new();
        scene.runtime.fail(call, fault);
        scene.runs().await;
        // What is undone beside the pod's start.
        rest(60.0).await;
        scene.has_no_leftovers(&format!("{call} {fault:?}"));
        scene.delete(0);
        scene.leaves_the_api().await;
        scene.is_forgotten().await;
    };
    futures::stream::iter(cases).for_each_concurrent(None, one).await;
}

/// Not only by the next one, which would find it by its labels.
#[tokio::test(start_paused = true)]
async fn a_sandbox_that_failed_is_taken_back_at_once() {
    for call in ["connect", "create_task"] {
        let scene = Scene::new();
        scene.runtime.fail(call, Fault::Unavailable);
        scene.runtime.until("a failure", |r| r.count(call) == 1).await;
        rest(0.1).await;
        assert_eq!(scene.runtime.count("attach"), 1, "{call}: the next has not begun");
        assert_eq!(scene.runtime.count("create"), 1, "{call}");
        assert!(scene.runtime.found().is_empty(), "{call}: {:?}", scene.runtime.found());
        assert!(scene.agent.owners.lock().is_empty(), "{call}");
    }
}

/// The pause process is made meanwhile, but nobody else is.
#[tokio::test(start_paused = true)]
async fn no_container_starts_before_something_leads_to_its_pod() {
    let scene = Scene::of(json!({"hostIPC": true, "hostNetwork": false}));
    scene.runtime.fail("connect", Fault::Hang);
    let made = |r: &Fake| r.count("create_task") == 1;
    scene.runtime.until("a sandbox", made).await;
    rest(5.0).await;
    assert_eq!(scene.runtime.count("create"), 1, "{:?}", scene.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_start_without_an_answer_is_taken_back_before_the_next() {
    let scene = Scene::new();
    let first = scene.runs().await;
    scene.runtime.fail("start_task", Fault::LostAnswer);
    for _ in 0..2 {
        scene.runtime.fail("delete_task", Fault::Unavailable);
    }
    // Its end is looked into: that takes the first of the failing deletions, the start's own the second.
    scene.runtime.end(&first, 1);
    scene.tell(Message::Exit {
        id: first,
        code: 1,
        at: clock::now(),
    });
    scene
        .runtime
        .until("a second start", |r| r.count("start_task") == 3)
        .await;
    scene
        .runtime
        .until("a third start", |r| {
            assert!(r.running(names::CONTAINER).len() < 2, "two copies run");
            r.count("start_task") == 4
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_only_created_is_not_taken_for_running() {
    let mut scene = Scene::new();
    // The pause process begins, the container's does not.
    scene.runtime.fail("start_task", Fault::Pass);
    scene.runtime.fail("start_task", Fault::Hang);
    scene
        .runtime
        .until("a start that hangs", |r| r.count("start_task") == 2)
        .await;
    scene.crash();
    let created: Vec<String> = scene
        .runtime
        .found()
        .iter()
        .filter(|f| f.only_created())
        .map(|f| f.id.clone())
        .collect();
    assert_eq!(created.len(), 1);
    scene.start(scene.pod.clone(), false);
    let id = scene.runs().await;
    assert_ne!(id, created[0]);
    scene
        .runtime
        .until("the other to go", |r| r.found().iter().all(|f| f.id != created[0]))
        .await;
    assert_eq!(scene.runtime.running(names::SANDBOX).len(), 1, "the sandbox is kept");
    assert_eq!(scene.runtime.count("attach"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_list_of_tasks_does_not_name_is_looked_at() {
    let scene = Scene::new();
    let id = scene.runs().await;
    // As if it had been made before the start.
    scene.tell(Message::Reconcile(Arc::default()));
    scene.runtime.until("a look", |r| r.count("task") >= 2).await;
    rest(0.2).await;
    assert_eq!(scene.containers(), std::slice::from_ref(&id), "it goes on");
    assert_eq!(scene.runtime.count("delete_task"), 0);
    // Its end's event was lost.
    scene.runtime.end(&id, 3);
    scene.reconnect();
    scene
        .runtime
        .until("its next life", |r| {
            let running = r.running(names::CONTAINER);
            running.len() == 1 && running[0] != id
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_heard_before_the_agent_started_is_looked_for() {
    let mut scene = Scene::new();
    let id = scene.runs().await;
    scene.crash();
    let (list, pod) = (scene.runtime.found(), scene.pod.clone());
    // After the list, before anybody listened.
    scene.runtime.end(&id, 1);
    let (tx, mailbox) = mpsc::unbounded_channel();
    let (view, _) = watch::channel(Arc::new(View::default()));
    let wiring = Wiring {
        mailbox,
        tx: tx.clone(),
        view,
    };
    let worker = PodWorker::new(scene.agent.clone(), Arc::new(pod), wiring);
    let _running = job::spawn("worker", worker.run(list, false)).abort_on_drop();
    scene
        .runtime
        .until("its next life", |r| r.running(names::CONTAINER).len() == 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_wait_for_the_network() {
    let mut scene = Scene::new();
    scene.runtime.opens_network(false);
    scene
        .runtime
        .until("a wait", |_| scene.api.was_asked("event NetworkNotReady"))
        .await;
    scene.delete(30);
    scene.leaves_the_api().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_nothing_was_written_of_is_given_back() {
    let mut scene = Scene::new();
    scene.runtime.fail("pause_image", Fault::Hang);
    scene
        .runtime
        .until("an attached pod", |r| r.count("pause_image") == 1)
        .await;
    scene.crash();
    // The next agent learns of the deletion before its network is open.
    scene.runtime.opens_network(false);
    scene.start(scene.pod.clone(), false);
    scene.delete(0);
    scene
        .runtime
        .until("an end to the tasks", |r| r.count("containers_of") > 0)
        .await;
    scene.runtime.opens_network(true);
    scene.leaves_the_api().await;
    assert_eq!(scene.runtime.networks(), Vec::<String>::new());
    scene.is_forgotten().await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_dies_at_once_backs_off() {
    let scene = Scene::new();
    for _ in 0..10 {
        scene.runtime.fail("start_task", Fault::Unavailable);
    }
    scene
        .runtime
        .until("a second sandbox", |r| r.count("attach") == 2)
        .await;
    rest(4.0).await;
    assert_eq!(scene.runtime.count("attach"), 2, "the third waits");
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_made_backs_off_until_containerd_is_back() {
    let scene = Scene::new();
    for _ in 0..10 {
        scene.runtime.fail("attach", Fault::Unavailable);
    }
    scene.runtime.until("a try", |r| r.count("attach") == 1).await;
    rest(7.0).await;
    assert_eq!(scene.runtime.count("attach"), 1, "the second waits");
    scene.reconnect();
    scene.runtime.until("the next try", |r| r.count("attach") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn failed_starts_leave_no_more_than_two_containers() {
    let made = |r: &Fake| r.found().iter().filter(|f| !f.is_sandbox()).count();
    let scene = Scene::new();
    // The sandbox's goes well.
    scene.runtime.fail("start_task", Fault::Pass);
    for _ in 0..3 {
        scene.runtime.fail("start_task", Fault::Unavailable);
    }
    scene
        .runtime
        .until("the fourth start", |r| {
            r.count("start_task") == 4 && r.count("delete") == 1
        })
        .await;
    rest(0.2).await;
    assert_eq!(made(&scene.runtime), 2);
    assert_eq!(scene.agent.owners.lock().len(), 1, "the sandbox's alone");
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_creation_was_not_answered_is_removed() {
    let scene = Scene::new();
    scene.runtime.fail("create", Fault::Pass);
    for _ in 0..2 {
        scene.runtime.fail("create", Fault::LostAnswer);
    }
    scene.runtime.fail("delete", Fault::Unavailable);
    let id = scene.runs().await;
    let left = scene.runtime.found().into_iter().filter(|f| !f.is_sandbox());
    assert_eq!(left.map(|f| f.id).collect::<Vec<_>>(), [id]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_workers_pod_is_not_started_a_second_time() {
    let mut scene = Scene::new();
    let id = scene.runs().await;
    scene.crash();
    scene.runtime.fail("has_network", Fault::Panic);
    let made = scene.runtime.count("create");
    let informers = Informers::new(scene.api.client(), &Supervisor::new(CancellationToken::new()));
    let pods = informers.of_where::<Pod>("spec.nodeName=node-a");
    let inventory = [(UID.to_owned(), scene.runtime.found())].into();
    let token = CancellationToken::new();
    let looks = scene.runtime.count("containers_of");
    scene.runtime.containerd_is_down(true);
    let run = crate::pods::run(scene.agent.clone(), pods, inventory, token.clone());
    let _running = job::spawn("pods", run).abort_on_drop();
    // The worker panics as it takes over; the next one is not let loose without knowing what there is.
    scene
        .runtime
        .until("a look for what is left", |r| r.count("containers_of") > looks)
        .await;
    rest(0.5).await;
    assert_eq!(scene.runtime.count("create"), made);
    scene.runtime.containerd_is_down(false);
    let adopted = scene.runtime.count("task");
    scene
        .runtime
        .until("a worker that takes over", |r| r.count("task") > adopted)
        .await;
    rest(0.5).await;
    assert_eq!((scene.containers(), scene.runtime.count("create")), (vec![id], made));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_renewed_is_not_asked_for_without_pause() {
    let scene = Scene::new();
    scene.runs().await;
    let mut pod = scene.pod.clone();
    let token = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
    pod.spec.as_mut().unwrap().volumes = serde_json::from_value(token).unwrap();
    let tokens = Arc::new(volumes::live::Tokens::default());
    let old = volumes::atomic::File {
        data: b"old".to_vec(),
        mode: 0o644,
        owner: None,
    };
    tokens.remember("t", "token", old, clock::now());
    let held = Arc::new(ReferencedObjects::of(&scene.agent, &pod));
    let (_told, pod) = watch::channel(Arc::new(pod));
    let upkeep = volumes::live::keep_fresh(scene.agent.clone(), pod, held, tokens, vec![]);
    let _upkeep = job::spawn("upkeep", upkeep).abort_on_drop();
    rest(95.0).await;
    let requests = scene.api.asked.lock().iter().filter(|a| *a == "token").count();
    assert_eq!(requests, 10, "at once, and every ten seconds");
}

/// A worker that nobody runs, for what one step comes to.
fn still(scene: &Scene) -> PodWorker {
    let (tx, mailbox) = mpsc::unbounded_channel();
    let (view, _) = watch::channel(Arc::new(View::default()));
    PodWorker::new(
        scene.agent.clone(),
        Arc::new(scene.pod.clone()),
        Wiring { mailbox, tx, view },
    )
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_will_try_again_wakes_nobody() {
    let scene = Scene::new();
    for (gone, in_flight, wakes) in [(false, false, true), (true, false, false), (false, true, false)] {
        let mut worker = still(&scene);
        worker.record.gone = gone;
        worker.observe_written(Err(crate::status::writer::Error::Gone));
        worker.write_in_flight = in_flight;
        let woken = tokio::time::timeout(Duration::from_secs(60), worker.observe_next(None)).await;
        assert_eq!(woken.is_ok(), wakes, "gone: {gone}, in flight: {in_flight}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_a_running_pod_is_held_and_said() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let container = json!({"name": "c", "image": "i:1", "command": ["sleep"], "resources": resources("1")});
    let mut scene = Scene::of(json!({"containers": [container]}));
    scene.runs().await;
    let mut revision = 1;
    let mut change = |scene: &mut Scene, cpu: &str, ephemeral: Value| {
        revision += 1;
        let mut pod = serde_json::to_value(&scene.pod).unwrap();
        pod["metadata"]["generation"] = revision.into();
        pod["metadata"]["resourceVersion"] = (100 + revision).to_string().into();
        pod["spec"]["containers"][0]["resources"] = resources(cpu);
        pod["spec"]["ephemeralContainers"] = ephemeral;
        pod["status"] = scene.api.pod.lock()["status"].clone();
        scene.pod = serde_json::from_value(pod).unwrap();
        scene.tell(Message::Update(Arc::new(scene.pod.clone())));
    };
    let shown = |scene: &Scene, what: &'static str, cpu: Option<&'static str>| {
        let (api, what) = (scene.api.clone(), what.to_owned());
        let runtime = scene.runtime.clone();
        async move {
            let holds = |_: &Fake| {
                let status = api.pod.lock()["status"].clone();
                let mut conditions = status["conditions"].as_array().into_iter().flatten();
                let pending = conditions.find(|c| c["type"] == "PodResizePending");
                let told = pending.map(|c| c["reason"].as_str().unwrap_or_default().to_owned());
                status["containerStatuses"][0]["resources"] == json!({"requests": {"cpu": "1"}})
                    && told.as_deref() == cpu
            };
            runtime.until(&what, holds).await;
        }
    };
    change(&mut scene, "2", Value::Null);
    shown(&scene, "a resize that is pending", Some("Infeasible")).await;
    assert!(scene.api.was_asked("event ResizeInfeasible"));
    // Another agent knows what the container has by what was said of it.
    scene.crash();
    scene.pod.status = serde_json::from_value(scene.api.pod.lock()["status"].clone()).unwrap();
    scene.start(scene.pod.clone(), false);
    rest(1.0).await;
    shown(&scene, "still pending", Some("Infeasible")).await;
    change(&mut scene, "1", Value::Null);
    shown(&scene, "what it has is what it asks for", None).await;

    let debugger = json!([{"name": "debugger", "image": "i", "targetContainerName": "c"}]);
    change(&mut scene, "1", debugger);
    let api = scene.api.clone();
    let waits = move |_: &Fake| {
        let status = &api.pod.lock()["status"]["ephemeralContainerStatuses"][0];
        status["name"] == "debugger" && status["state"]["waiting"]["message"].is_string()
    };
    scene.runtime.until("an ephemeral container that waits", waits).await;
    assert!(scene.api.was_asked("event FailedValidation"));
    assert_eq!(scene.containers().len(), 1);
}

#[tokio::test]
async fn what_has_not_begun_is_resized_where_there_is_room() {
    let pod = |cpu: &str| {
        let container = |name: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({"containers": [container("begun"), container("waits")]});
        let pod = json!({"metadata": {"uid": "u", "name": "p", "namespace": "n"}, "spec": spec});
        Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    let scene = Scene::new();
    let mut worker = still(&scene);
    worker.pod = pod("10m");
    worker.record.admitted = true;
    worker.container("begun").activity = crate::record::Activity::Starting;
    let cpus = |pod: &Pod| -> Vec<String> {
        let containers = pod::containers(pod).iter();
        let requests = containers.filter_map(|own| own.resources.as_ref()?.requests.as_ref()?.get("cpu"));
        requests.map(|cpu| cpu.0.clone()).collect()
    };
    for (cpu, has, refused) in [
        ("20m", ["10m", "20m"], vec!["begun"]),
        ("99999", ["10m", "20m"], vec!["begun", "waits"]),
        ("10m", ["10m", "10m"], vec![]),
    ] {
        let held = worker.hold_resize(pod(cpu));
        assert_eq!(cpus(&held), has, "{cpu}");
        let told: Vec<&String> = worker.record.resize_held.keys().collect();
        assert_eq!(told, refused, "{cpu}");
        worker.pod = held;
    }
}

#[tokio::test]
async fn a_resize_takes_what_is_free_and_one_that_is_refused_gives_nothing_up() {
    let scene = Scene::new();
    let (agent, whole) = (&scene.agent, scene.agent.machine.allocatable_amounts()["cpu"]);
    let pod = |uid: &str, milli: i64| -> Pod {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": format!("{milli}m")}}});
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [container]}})).unwrap()
    };
    let admit = |uid: &str, milli| agent.admission.admit(agent, &pod(uid, milli), None, false).is_ok();
    let resize = |uid: &str, milli| agent.admission.resize(agent, &pod(uid, milli), None).is_ok();
    assert!(admit("one", 100) && admit("other", whole - 200));
    for (milli, fits) in [(200, true), (201, false), (150, true), (99_999, false)] {
        assert_eq!(resize("one", milli), fits, "{milli}");
    }
    // What was refused last has left it what it had, which nobody else gets.
    assert!(!admit("next", 51), "its room is given away");
    assert!(admit("next", 50));
    // The pods' own size was right when they came; what they may be for has nothing to do with it.
    agent.pressure.lock().disk = true;
    assert!(resize("one", 100) && !resize("one", 151), "under pressure");
    // More than there is: it runs, whatever it takes, and weighs what it asks for. Less of it is better.
    let others = agent.admission.weight();
    agent
        .admission
        .admit(agent, &pod("adopted", 2 * whole), None, true)
        .unwrap();
    assert_eq!(agent.admission.weight(), others + 2 * whole);
    assert!(resize("adopted", whole) && !resize("adopted", whole + 1));
    assert_eq!(agent.admission.weight(), others + whole);
    agent.admission.release(agent, "adopted");
    assert_eq!(agent.admission.weight(), others);
}

#[tokio::test(start_paused = true)]
async fn a_cgroup_has_the_size_that_came_while_its_sandbox_was_made() {
    let container = |cpu: &str| {
        let list = json!({"cpu": cpu, "memory": "64Mi"});
        json!([{"name": "c", "image": "i:1", "command": ["sleep"], "resources": {"requests": list, "limits": list}}])
    };
    let mut scene = Scene::of(json!({"containers": container("10m"), "hostNetwork": false}));
    scene.runtime.opens_network(false);
    let asked = |_: &Fake| scene.api.was_asked("event NetworkNotReady");
    scene.runtime.until("a sandbox that waits", asked).await;
    for (revision, cpu) in [("2", "20m"), ("3", "30m")] {
        let mut pod = serde_json::to_value(&scene.pod).unwrap();
        pod["metadata"]["resourceVersion"] = revision.into();
        pod["spec"]["containers"] = container(cpu);
        scene.pod = serde_json::from_value(pod).unwrap();
        scene.tell(Message::Update(Arc::new(scene.pod.clone())));
    }
    rest(0.1).await;
    for fault in [Fault::Pass, Fault::Unavailable] {
        scene.runtime.fail("ensure_cgroup", fault);
    }
    scene.runtime.opens_network(true);
    scene.runs().await;
    rest(2.0).await;
    assert_eq!(scene.runtime.quota(UID), Some(3000), "{:?}", scene.runtime.calls());
    assert_eq!(scene.runtime.count("ensure_cgroup"), 3);
    // The next agent does not know what this one has written.
    scene.crash();
    scene.start(scene.pod.clone(), false);
    scene
        .runtime
        .until("its size once more", |r| r.count("ensure_cgroup") == 4)
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_tells_the_size_it_keeps_and_the_next_agent_keeps_it_too() {
    let container = |cpu: &str| json!([{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": cpu}}}]);
    let mut scene = Scene::of(json!({"containers": container("10m")}));
    for _ in 0..3 {
        scene.runtime.fail("image", Fault::Hang);
    }
    let sandbox = |r: &Fake| r.running(names::SANDBOX).len() == 1;
    scene.runtime.until("a sandbox", sandbox).await;
    let told = |scene: &Scene| {
        let status = scene.api.pod.lock()["status"].clone();
        (
            status["phase"].clone(),
            status["containerStatuses"][0]["resources"].clone(),
        )
    };
    assert_eq!(told(&scene), (json!("Pending"), Value::Null), "as upstream's agent");
    let mut pod = serde_json::to_value(&scene.pod).unwrap();
    pod["metadata"]["resourceVersion"] = "2".into();
    pod["spec"]["containers"] = container("99999");
    scene.pod = serde_json::from_value(pod).unwrap();
    scene.tell(Message::Update(Arc::new(scene.pod.clone())));
    rest(1.0).await;
    let keeps = (json!("Pending"), json!({"requests": {"cpu": "10m"}}));
    assert_eq!(told(&scene), keeps);
    scene.crash();
    scene.pod.status = serde_json::from_value(scene.api.pod.lock()["status"].clone()).unwrap();
    scene.start(scene.pod.clone(), false);
    rest(1.0).await;
    assert_eq!(told(&scene), keeps, "by another agent");
    scene.crash();
    let mut pod = serde_json::to_value(&scene.pod).unwrap();
    pod["spec"]["containers"] = container("20m");
    pod["status"] = scene.api.pod.lock()["status"].clone();
    scene.pod = serde_json::from_value(pod).unwrap();
    scene.start(scene.pod.clone(), false);
    rest(1.0).await;
    assert_eq!(
        told(&scene),
        (json!("Pending"), Value::Null),
        "while no agent was there, less was asked for"
    );
    assert_eq!(scene.runtime.shares(UID), Some(crate::resources::qos::shares(20)));
}

#[tokio::test]
async fn what_the_api_has_no_more_takes_nothing_from_the_next() {
    let scene = Scene::new();
    let agent = &scene.agent;
    let cpus = format!("{}m", agent.machine.allocatable_amounts()["cpu"]);
    let pod = |uid: &str| -> Pod {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpus}}});
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [container]}})).unwrap()
    };
    let admitted = |pod: &Pod| agent.admission.admit(agent, pod, None, false).is_ok();
    assert!(admitted(&pod("old")) && !admitted(&pod("next")), "both have room");
    let token = CancellationToken::new();
    let informers = Informers::new(scene.api.client(), &Supervisor::new(token.clone()));
    let mut node = Pods::new(agent.clone(), informers.of::<Pod>(), Inventory::new());
    node.observe(Event::Deleted(Arc::new(pod("old"))));
    assert!(admitted(&pod("next")), "what is gone has its room still");
    // As one that was made anew under the same name tells it.
    let (old, mut new) = (Some(Arc::new(pod("next"))), pod("other"));
    new.spec = None;
    node.observe(Event::Applied {
        old,
        new: Arc::new(new),
    });
    assert!(admitted(&pod("last")), "what is gone has its room still");
    token.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_the_api_had_no_more_when_the_agent_began_takes_nothing_either() {
    let container =
        json!({"name": "c", "image": "i:1", "command": ["sleep"], "ports": [{"containerPort": 80, "hostPort": 80}]});
    let mut scene = Scene::of(json!({"containers": [container]}));
    scene.runs().await;
    scene.runtime.containerd_is_down(true);
    scene.crash();
    let mut left = scene.pod.clone();
    left.metadata.deletion_timestamp = Some(pod::time(clock::now()));
    scene.start(left, true);
    rest(2.0).await;
    assert_eq!(scene.runtime.networks(), [UID], "it is not taken down yet");
    let mut next = scene.pod.clone();
    next.metadata.uid = Some("next".into());
    let admitted = scene.agent.admission.admit(&scene.agent, &next, None, false);
    assert!(admitted.is_ok(), "its port is held");
}

#[tokio::test(start_paused = true)]
async fn what_ended_leaves_its_room_before_anybody_reads_so() {
    let container =
        json!({"name": "c", "image": "i:1", "command": ["sleep"], "ports": [{"containerPort": 80, "hostPort": 80}]});
    let scene = Scene::of(json!({"containers": [container], "restartPolicy": "Never"}));
    let id = scene.runs().await;
    scene.runtime.fail("detach", Fault::Hang);
    scene.runtime.end(&id, 0);
    let at = clock::now();
    scene.tell(Message::Exit { id, code: 0, at });
    let over = || scene.api.pod.lock()["status"]["phase"] == "Succeeded";
    scene.runtime.until("a pod that succeeded", |_| over()).await;
    assert_eq!(scene.runtime.networks(), [UID], "its sandbox is there still");
    let mut next = scene.pod.clone();
    next.metadata.uid = Some("next".into());
    let admitted = scene.agent.admission.admit(&scene.agent, &next, None, false);
    assert!(admitted.is_ok(), "its port is held");
}

/// As an eviction does it.
#[tokio::test(start_paused = true)]
async fn what_somebody_else_says_is_over_has_its_room_while_it_runs() {
    let container =
        json!({"name": "c", "image": "i:1", "command": ["sleep"], "ports": [{"containerPort": 80, "hostPort": 80}]});
    let scene = Scene::of(json!({"containers": [container]}));
    let id = scene.runs().await;
    for call in ["kill", "kill_hard"] {
        scene.runtime.fail(call, Fault::Hang);
    }
    let mut over = serde_json::to_value(&scene.pod).unwrap();
    over["metadata"]["resourceVersion"] = "2".into();
    over["status"] = scene.api.pod.lock()["status"].clone();
    over["status"]["phase"] = "Failed".into();
    scene.tell(Message::Update(Arc::new(serde_json::from_value(over).unwrap())));
    let asked = |r: &Fake| r.count("kill") + r.count("kill_hard") > 0;
    scene.runtime.until("an end that hangs", asked).await;
    rest(1.0).await;
    let mut next = scene.pod.clone();
    next.metadata.uid = Some("next".into());
    let admitted = || scene.agent.admission.admit(&scene.agent, &next, None, false);
    assert!(admitted().is_err(), "its port is given away while it is there");
    scene.runtime.end(&id, 137);
    let at = clock::now();
    scene.tell(Message::Exit { id, code: 137, at });
    rest(1.0).await;
    assert!(admitted().is_ok(), "its port is held");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_watched_for_a_pod_that_is_not_admitted() {
    let env: Vec<Value> = (0..50_000)
        .map(|i| json!({"secretRef": {"name": format!("s{i}")}}))
        .collect();
    let container = json!({"name": "c", "image": "i:1", "envFrom": env});
    let scene = Scene::of(json!({"containers": [container]}));
    assert!(still(&scene).held.secrets.is_empty(), "a worker begins without them");
    let told = |_: &Fake| scene.api.was_asked("event FailedValidation");
    scene.runtime.until("an event that it is held", told).await;
    assert_eq!(scene.agent.objects.count(), 0);
}
