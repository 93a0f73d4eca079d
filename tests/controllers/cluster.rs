//! A whole control plane in this process, on a temporary store, each part under its own identity; and nodes that only pretend to run pods.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mk8s_apiserver::User;
use mk8s_client::{Event, Informers, in_process};
use mk8s_controllers::context::Settings;
use mk8s_pki::issue;
use mk8s_pki::kubeconfig::{Credential, Kubeconfig};
use mk8s_supervisor::{Supervisor, job};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::batch;
use crate::harness::Plane;

pub struct Cluster {
    pub plane: Plane,
    pub admin: Client,
}

/// What a pretended pod does: `run`, `succeed`, `fail`, `hang` (it runs, and is never ready); a script is run, see [`batch::run`].
const OUTCOME: &str = "test/outcome";

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::start_with(Settings::default()).await
    }

    pub async fn start_with(settings: Settings) -> Cluster {
        Cluster::of(Plane::start_with(settled(settings)).await)
    }

    /// Without controllers and scheduler, which the test runs.
    pub async fn start_idle(settings: Settings) -> Cluster {
        Cluster::of(Plane::start_idle(settled(settings)).await)
    }

    fn of(plane: Plane) -> Cluster {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let admin = plane.plane.client("system:apiserver");
        Cluster { plane, admin }
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), namespace)
    }

    /// The administrator's kubeconfig, as kubectl takes it.
    pub fn kubeconfig(&self) -> PathBuf {
        let (plane, name) = (&self.plane.plane, "kubernetes-admin");
        let issued = issue::client(&plane.pki.ca, name, Some("kubeadm:cluster-admins"), issue::LIFE).unwrap();
        let credential = Credential::Certificate {
            certificate_pem: &issued.certificate_pem,
            key_pem: &issued.key_pem,
        };
        let file = Kubeconfig::new(
            &self.plane.url(),
            plane.pki.ca.certificate_pem(),
            "test",
            name,
            credential,
        );
        let path = self.plane.dir.path().join("admin.conf");
        std::fs::write(&path, file.to_yaml().unwrap()).unwrap();
        path
    }

    /// A client that acts as a user of these groups.
    pub fn client(&self, name: &str, groups: &[&str]) -> Client {
        let user = User::authenticated(name, groups.iter().map(|g| (*g).to_owned()));
        in_process(self.plane.plane.server.router_as(user), name)
    }

    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned
            + kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>(namespace)
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    /// A node that pretends to run what is bound to it.
    pub async fn node(&self, name: &str) -> Node {
        let token = play(&self.admin, name).await;
        let ended = self.plane.supervisor.token().clone();
        drop(job::spawn("node's end", async move {
            ended.cancelled().await;
            token.cancel();
        }));
        let nodes: Api<Node> = Api::all(self.admin.clone());
        nodes.get(name).await.unwrap()
    }

    /// Renews the node's lease for as long as the returned token is not cancelled.
    pub fn beat(&self, node: &str) -> CancellationToken {
        let token = CancellationToken::new();
        let (stop, leases, node) = (token.clone(), self.api::<Lease>("kube-node-lease"), node.to_owned());
        drop(job::spawn("heartbeat", async move {
            let lease: Lease = serde_json::from_value(json!({"metadata": {"name": node}, "spec": {}})).unwrap();
            let _ = leases.create(&PostParams::default(), &lease).await;
            while !stop.is_cancelled() {
                let now = jiff::Timestamp::now();
                let patch = json!({"spec": {"renewTime": format!("{now:.6}")}});
                let _ = leases.patch(&node, &PatchParams::default(), &Patch::Merge(patch)).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }));
        token
    }

    /// Asks again after each change of the cluster until it holds; what is found instead is printed when it never does.
    pub async fn until<F: Future<Output = Result<(), String>>>(&self, what: &str, ask: impl FnMut() -> F) {
        self.plane.until(what, ask).await;
    }

    /// Pods can be made in a namespace once it has the service account that they run as.
    pub async fn takes_pods(&self, namespace: &str) {
        self.until("pods may be made", || async {
            let account = self.api::<ServiceAccount>(namespace).get_opt("default").await;
            holds(account.unwrap().is_some(), "no service account")
        })
        .await;
    }

    /// The same store in a new process, as far as it can tell.
    pub async fn restart(self) -> Cluster {
        Cluster::of(self.plane.restart().await)
    }

    pub async fn stop(self) {
        self.plane.stop().await;
    }
}

/// With a pod network.
fn settled(settings: Settings) -> Settings {
    Settings {
        cluster_cidrs: "10.244.0.0/16".parse().into_iter().collect(),
        ..settings
    }
}

/// Makes a node and pretends to run what is bound to it, until what is returned is cancelled.
pub async fn play(client: &Client, name: &str) -> CancellationToken {
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2024-01-01T00:00:00Z"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}, {"type": "Hostname", "address": name}],
        },
    });
    let nodes: Api<Node> = Api::all(client.clone());
    let new: Node = serde_json::from_value(node.clone()).unwrap();
    nodes.create(&PostParams::default(), &new).await.unwrap();
    let status = Patch::Merge(json!({"status": node["status"]}));
    nodes
        .patch_status(name, &PatchParams::default(), &status)
        .await
        .unwrap();
    let token = CancellationToken::new();
    let (client, name, until) = (client.clone(), name.to_owned(), token.clone());
    drop(job::spawn("node", async move { pretend(client, name, until).await }));
    token
}

async fn pretend(client: Client, node: String, token: CancellationToken) {
    static ADDRESS: AtomicU32 = AtomicU32::new(1);
    let informers = Informers::new(client.clone(), &Supervisor::new(token));
    let mut events = informers.of_where::<Pod>(&format!("spec.nodeName={node}")).subscribe();
    loop {
        let Event::Applied { new: pod, .. } = events.next().await else {
            continue;
        };
        let name = pod.metadata.name.clone().unwrap();
        let pods: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            end(&pods, &pod).await;
            let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
            continue;
        }
        if pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_some() {
            continue;
        }
        let address = ADDRESS.fetch_add(1, Ordering::Relaxed);
        let ip = format!("10.244.{}.{}", address / 250, address % 250 + 1);
        let outcome = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(OUTCOME).cloned())
            .unwrap_or_default();
        let ended = batch::run(&pod).await;
        let (phase, ready) = match (outcome.as_str(), &ended) {
            ("succeed", _) | (_, Some((0, _))) => ("Succeeded", "False"),
            ("fail", _) | (_, Some(_)) => ("Failed", "False"),
            ("hang", _) => ("Running", "False"),
            _ => ("Running", "True"),
        };
        let mut status = json!({"status": {
            "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "startTime": "2024-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:00:00Z"}],
        }});
        if let Some((code, message)) = ended {
            status["status"]["containerStatuses"] = batch::terminated(code, &message);
        }
        let _ = pods
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
            .await;
    }
}

/// Says, as a node agent does before a pod that was deleted is gone, how it ended: who counts its tries waits for that.
async fn end(pods: &Api<Pod>, pod: &Pod) {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase)) {
        return;
    }
    let unready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
    let ended = Patch::Strategic(json!({"status": {"phase": "Failed", "conditions": unready}}));
    let name = pod.metadata.name.as_deref().unwrap();
    let _ = pods.patch_status(name, &PatchParams::default(), &ended).await;
}

/// Holds, or tells what was found.
pub fn holds(condition: bool, found: impl std::fmt::Debug) -> Result<(), String> {
    if condition { Ok(()) } else { Err(format!("{found:?}")) }
}

/// A pod template's spec.
pub fn template(app: &str, outcome: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}, "annotations": {OUTCOME: outcome}},
        "spec": {"containers": [{"name": "c", "image": "busybox", "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

/// A Deployment of pods that run, behind the label `app=web`.
pub fn deployment(replicas: i32, version: &str) -> Value {
    let mut template = template("web", "run");
    template["metadata"]["labels"]["version"] = json!(version);
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
}
