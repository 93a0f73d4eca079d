//! Nodes that only say that their pods run: what controllers do is measured, and no container is started. They are the same for each
//! server: a pod is Ready, or has Succeeded, as soon as it is seen, and is gone as soon as it is to go.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    client::{Connection, JSON, Request, Server},
    watch::Watch,
};

/// The name of the node that all of them are one of.
pub const NODE: &str = "bench";

/// Who acts, and over how many connections.
const WORKERS: usize = 48;
const CONNECTIONS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_millis(50);

/// What becomes of the pods.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    Ready,
    Succeeded,
}

/// The pods of the node, as they were seen last.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Created so far.
    pub created: usize,
}

pub struct Kubelets {
    seen: watch::Receiver<Seen>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    type_: String,
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Meta,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    phase: String,
}

/// Makes the node and plays it until what is returned is dropped.
pub async fn play(server: &Server, fate: Fate) -> Kubelets {
    let mut connection = server.connect().await.unwrap();
    make_node(&mut connection).await;
    let (todo, work) = async_channel();
    let mut tasks = Vec::new();
    for at in 0..CONNECTIONS {
        let connection = server.connect().await.unwrap();
        for _ in 0..WORKERS / CONNECTIONS {
            let (mut connection, work) = (connection.clone(), work.clone());
            tasks.push(tokio::spawn(async move {
                while let Some(request) = work.next().await {
                    // A pod that is gone meanwhile is no failure; what else is refused is asked for again.
                    while !matches!(connection.drain(&request).await.unwrap().as_u16(), 200..300 | 404) {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }));
        }
        if at == 0 {
            tasks.push(tokio::spawn(keep_ready(connection)));
        }
    }
    let (tell, seen) = watch::channel(Seen::default());
    let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}");
    let mut events = Watch::open(&mut connection, &path).await;
    tasks.push(tokio::spawn(async move {
        let mut present = HashSet::new();
        loop {
            let Event { type_, object } = events.next().await;
            if type_ == "BOOKMARK" {
                continue;
            }
            let key = (object.metadata.namespace.clone(), object.metadata.name.clone());
            if type_ == "DELETED" {
                present.remove(&key);
            } else {
                let first = present.insert(key);
                let number = tell.borrow().created;
                tell.send_if_modified(|seen| {
                    seen.created += usize::from(first);
                    first
                });
                if object.metadata.deletion_timestamp.is_some() {
                    todo(gone(&object));
                } else if object.status.phase == "Pending" {
                    todo(lives(&object, fate, number));
                }
            }
        }
    }));
    Kubelets { seen, tasks }
}

impl Kubelets {
    pub async fn until(&mut self, is: impl FnMut(&Seen) -> bool) {
        tokio::time::timeout(PATIENCE, self.seen.wait_for(is))
            .await
            .unwrap()
            .unwrap();
    }

    /// How many pods were created before now.
    pub fn created(&self) -> usize {
        self.seen.borrow().created
    }
}

/// A queue that many take from.
fn async_channel() -> (impl Fn(Request) + Send + 'static, Work) {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    let work = Work(Arc::new(tokio::sync::Mutex::new(receive)));
    (move |request| drop(send.send(request)), work)
}

#[derive(Clone)]
struct Work(Arc<tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<Request>>>);

impl Work {
    async fn next(&self) -> Option<Request> {
        self.0.lock().await.recv().await
    }
}

fn path(pod: &Pod) -> String {
    format!(
        "/api/v1/namespaces/{}/pods/{}",
        pod.metadata.namespace, pod.metadata.name
    )
}

fn gone(pod: &Pod) -> Request {
    Request {
        method: "DELETE",
        ..Request::get(&format!("{}?gracePeriodSeconds=0", path(pod)).as_str().into(), JSON)
    }
}

/// What a pod says of itself: `ready`, and its number makes its address.
pub fn status(fate: Fate, ready: bool, number: usize) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let address = format!(
        "10.{}.{}.{}",
        128 + number / 65_536 % 64,
        number / 256 % 256,
        number % 256
    );
    let condition = |type_: &str, is: bool| json!({"type": type_, "status": if is { "True" } else { "False" }, "lastTransitionTime": now});
    let phase = if fate == Fate::Ready { "Running" } else { "Succeeded" };
    json!({"status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.127.0.1", "startTime": now,
        "conditions": [condition("PodScheduled", true), condition("Initialized", true), condition("ContainersReady", ready), condition("Ready", ready)]}})
}

fn lives(pod: &Pod, fate: Fate, number: usize) -> Request {
    change_status(&path(pod), &status(fate, fate == Fate::Ready, number))
}

pub fn change_status(path: &str, status: &Value) -> Request {
    Request {
        method: "PATCH",
        content_type: "application/merge-patch+json",
        body: status.to_string().into(),
        ..Request::get(&format!("{path}/status").as_str().into(), JSON)
    }
}

async fn make_node(connection: &mut Connection) {
    let capacity = json!({"cpu": "1000", "memory": "4Ti", "pods": "100000"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
    let made = connection
        .whole("POST", "/api/v1/nodes", node.to_string().into())
        .await
        .unwrap();
    assert!(
        made.status.is_success() || made.status == 409,
        "{}",
        String::from_utf8_lossy(&made.body)
    );
    // It may have been silent for long: without a heartbeat of now, it is as silent for whoever sees this before its lease.
    let now = format!("{:.0}", jiff::Timestamp::now());
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now});
    let status = json!({"status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready],
        "addresses": [{"type": "InternalIP", "address": "10.127.0.1"}]}});
    let said = connection
        .drain(&change_status(&format!("/api/v1/nodes/{NODE}"), &status))
        .await
        .unwrap();
    assert!(said.is_success(), "{said}");
}

/// By a lease, as nodes do.
async fn keep_ready(mut connection: Connection) {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": {"holderIdentity": NODE}});
    let _ = connection.whole("POST", leases, lease.to_string().into()).await;
    loop {
        let now = jiff::Timestamp::now();
        let renewed = json!({"spec": {"renewTime": format!("{now:.6}")}});
        let request = Request {
            method: "PATCH",
            content_type: "application/merge-patch+json",
            body: Bytes::from(renewed.to_string()),
            ..Request::get(&format!("{leases}/{NODE}").as_str().into(), JSON)
        };
        let _ = connection.drain(&request).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
}
