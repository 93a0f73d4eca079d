//! What the scheduler does, seen from outside: from pods that are made to pods that have their node. The nodes are objects alone. Nodes that
//! really run take no part.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    Measured,
    client::{Connection, JSON, Request},
    controllers::{MAKERS, PATIENCE, Place, create},
    watch::Watch,
};

/// So many make pods at once: each waits until its own is safe on the disk.
const CLIENTS: usize = 64;
/// Events that are missing so long after the last binding are lost.
const EVENTS: Duration = Duration::from_secs(2);

fn node(number: usize) -> Value {
    let name = format!("bench-{number}");
    let room = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    let now = jiff::Timestamp::now().to_string();
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 4), "bench": "yes"}},
        // Its own: the pod network has shares for fewer nodes.
        "spec": {"podCIDR": format!("100.{}.{}.0/24", 64 + number / 256, number % 256)},
        "status": {"capacity": room, "allocatable": room, "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now}]}})
}

fn pod(name: &str) -> Value {
    // A node agent that is none renews nothing: its node counts as gone after a while.
    let tolerations = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .map(|key| json!({"key": key, "operator": "Exists"}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
        "tolerations": tolerations, "containers": [{"name": "web", "image": "registry.example.com/web:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

impl Place<'_> {
    /// So many pods, all made at once.
    pub(crate) async fn schedule(&mut self, nodes: usize, pods: usize) -> Measured {
        self.prepare_nodes(nodes).await;
        let all = (0..pods).map(|number| pod(&format!("web-{number}"))).collect();
        let mut bound = self.bindings().await;
        let clock = self.clock();
        let (_, ()) = tokio::join!(self.post_by(CLIENTS, "api/v1", "pods", all), async {
            for _ in 0..pods {
                bound.line().await;
            }
        });
        let elapsed = clock.begun.elapsed();
        let mut measured = clock.measured(elapsed, pods);
        tokio::time::sleep(EVENTS).await;
        // An Event that is not there is a failure as well.
        measured.failed = pods.saturating_sub(self.scheduled_events().await);
        self.remove_nodes().await;
        measured
    }

    /// One pod at a time: the latencies are those from its creation to its binding as a watch shows it.
    pub(crate) async fn schedule_one_by_one(&mut self, nodes: usize, pods: usize) -> Measured {
        self.prepare_nodes(nodes).await;
        let mut bound = self.bindings().await;
        let clock = self.clock();
        let mut latencies = Vec::with_capacity(pods);
        for number in 0..pods {
            let begun = Instant::now();
            let object = pod(&format!("web-{number}"));
            self.post("api/v1", "pods", &object).await;
            bound.line().await;
            latencies.push(begun.elapsed());
        }
        let mut measured = clock.stop(pods);
        latencies.sort();
        measured.latencies = latencies;
        self.remove_nodes().await;
        measured
    }

    /// Each pod once, when it has its node.
    async fn bindings(&self) -> Watch {
        let mut connection = self.server.connect().await.unwrap();
        let path = self.path("api/v1", "pods");
        Watch::open(&mut connection, &format!("{path}?fieldSelector=spec.nodeName%21%3D")).await
    }

    async fn scheduled_events(&self) -> usize {
        let mut connection = self.server.connect().await.unwrap();
        let path = format!("{}?fieldSelector=reason%3DScheduled", self.path("api/v1", "events"));
        let list = connection.whole("GET", &path, bytes::Bytes::new()).await.unwrap();
        let list: Value = serde_json::from_slice(&list.body).unwrap();
        list["items"].as_array().unwrap().len()
    }

    /// The nodes, ready and untainted, and a Service that spreads the pods.
    async fn prepare_nodes(&mut self, count: usize) {
        self.cordon(true).await;
        let numbers: Vec<usize> = (0..count).collect();
        let server = self.server;
        let made = numbers.chunks(count.div_ceil(MAKERS)).map(|share| async move {
            let mut connection = server.connect().await.unwrap();
            for number in share {
                let made = create(&mut connection, "/api/v1/nodes", &node(*number)).await;
                let path = format!("/api/v1/nodes/{}/status", made["metadata"]["name"].as_str().unwrap());
                let status = json!({"status": node(*number)["status"]}).to_string();
                patch(&mut connection, &path, status).await;
            }
        });
        futures::future::join_all(made).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        self.post("api/v1", "services", &service).await;
        let mut connection = self.server.connect().await.unwrap();
        let mut watch = Watch::open(&mut connection, "/api/v1/nodes?labelSelector=bench").await;
        let mut untainted = std::collections::HashSet::new();
        let all = watch.until(|event| {
            let node = &event["object"];
            let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match node["spec"]["taints"].is_null() {
                true => untainted.insert(name),
                false => untainted.remove(&name),
            };
            untainted.len() >= count
        });
        tokio::time::timeout(PATIENCE, all).await.unwrap();
        // What controllers make of new nodes is none of the scheduler's.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    async fn remove_nodes(&mut self) {
        let path = "/api/v1/nodes?labelSelector=bench";
        let gone = self
            .connection
            .whole("DELETE", path, bytes::Bytes::new())
            .await
            .unwrap();
        assert!(gone.status.is_success(), "{}", gone.status);
        self.cordon(false).await;
    }

    async fn cordon(&mut self, cordoned: bool) {
        let list = self
            .connection
            .whole("GET", "/api/v1/nodes?labelSelector=%21bench", bytes::Bytes::new())
            .await;
        let list: Value = serde_json::from_slice(&list.unwrap().body).unwrap();
        for node in list["items"].as_array().unwrap() {
            let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap());
            let change = json!({"spec": {"unschedulable": cordoned}}).to_string();
            patch(&mut self.connection, &path, change).await;
        }
    }
}

async fn patch(connection: &mut Connection, path: &str, body: String) {
    let asked = Request {
        method: "PATCH",
        path: path.into(),
        content_type: "application/merge-patch+json",
        body: body.into(),
        accept: JSON,
    };
    let status = connection.drain(&asked).await.unwrap();
    assert!(status.is_success(), "{path}: {status}");
}
