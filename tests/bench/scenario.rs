//! The loads, as data. All work in a namespace of their own; the pods have no scheduler, so that nobody acts on them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Measured,
    client::{JSON, PROTOBUF, Server},
    fanout, pods, process,
};

pub struct Scenario {
    pub name: &'static str,
    load: Load,
}

enum Load {
    Prepare,
    Clean,
    Create {
        what: What,
        clients: usize,
        count: usize,
    },
    /// Of the pods that were created, always the same.
    GetPod {
        clients: usize,
        count: usize,
    },
    /// One client; `query` follows the path.
    ListPods {
        accept: &'static str,
        query: &'static str,
        count: usize,
    },
    /// Pods that really run, see [`pods::run`].
    StartPods {
        rounds: usize,
        at_once: usize,
    },
    /// Each watcher sees each of so many ConfigMaps created.
    FanOut {
        watchers: usize,
        writes: usize,
    },
}

#[derive(Clone, Copy)]
enum What {
    ConfigMap,
    Pod,
}

const NAMESPACE: &str = "bench";

static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "prepare",
        load: Load::Prepare,
    },
    Scenario {
        name: "create-configmap",
        load: Load::Create {
            what: What::ConfigMap,
            clients: 64,
            count: 10_000,
        },
    },
    Scenario {
        name: "create-configmap-1",
        load: Load::Create {
            what: What::ConfigMap,
            clients: 1,
            count: 1_500,
        },
    },
    Scenario {
        name: "create-pod",
        load: Load::Create {
            what: What::Pod,
            clients: 64,
            count: 16_000,
        },
    },
    Scenario {
        name: "get-pod",
        load: Load::GetPod {
            clients: 64,
            count: 20_000,
        },
    },
    Scenario {
        name: "list-json",
        load: Load::ListPods {
            accept: JSON,
            query: "",
            count: 10,
        },
    },
    Scenario {
        name: "list-protobuf",
        load: Load::ListPods {
            accept: PROTOBUF,
            query: "",
            count: 10,
        },
    },
    Scenario {
        name: "list-page",
        load: Load::ListPods {
            accept: JSON,
            query: "?limit=500",
            count: 100,
        },
    },
    Scenario {
        name: "fan-out",
        load: Load::FanOut {
            watchers: 1_000,
            writes: 500,
        },
    },
    Scenario {
        name: "start-first-pod",
        load: Load::StartPods { rounds: 1, at_once: 1 },
    },
    Scenario {
        name: "start-pod",
        load: Load::StartPods { rounds: 11, at_once: 1 },
    },
    Scenario {
        name: "start-30-pods",
        load: Load::StartPods { rounds: 5, at_once: 30 },
    },
    Scenario {
        name: "clean",
        load: Load::Clean,
    },
];

/// By name; an unknown one is answered with all there are.
pub fn find(name: &str) -> Result<&'static Scenario, String> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("one of {}", names.join(", "))
    })
}

impl Scenario {
    /// Nothing where there is nothing to measure.
    pub async fn run(&self, server: &Server, pids: &[u32], image: &str) -> Option<Measured> {
        match self.load {
            Load::Prepare => prepare(server).await,
            Load::Clean => clean(server).await,
            Load::Create { what, clients, count } => {
                let body = Bytes::from(what.body().to_string());
                return Some(requests(server, pids, "POST", what.path(), JSON, body, clients, count).await);
            }
            Load::GetPod { clients, count } => {
                let mut connection = server.connect().await.unwrap();
                let first = format!("{}?limit=1", What::Pod.path());
                let listed = connection.whole("GET", &first, Bytes::new()).await.unwrap();
                let listed: Value = serde_json::from_slice(&listed.body).unwrap();
                let name = listed["items"][0]["metadata"]["name"].as_str().unwrap();
                let path = format!("{}/{name}", What::Pod.path());
                return Some(requests(server, pids, "GET", path, JSON, Bytes::new(), clients, count).await);
            }
            Load::ListPods { accept, query, count } => {
                let path = format!("{}{query}", What::Pod.path());
                return Some(requests(server, pids, "GET", path, accept, Bytes::new(), 1, count).await);
            }
            Load::StartPods { rounds, at_once } => return Some(pods::run(server, pids, image, rounds, at_once).await),
            Load::FanOut { watchers, writes } => {
                let body = Bytes::from(What::ConfigMap.body().to_string());
                return Some(fanout::run(server, pids, &What::ConfigMap.path(), body, watchers, writes).await);
            }
        }
        None
    }
}

impl What {
    fn path(self) -> String {
        let plural = match self {
            Self::ConfigMap => "configmaps",
            Self::Pod => "pods",
        };
        format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
    }

    fn body(self) -> Value {
        match self {
            Self::ConfigMap => json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"generateName": "bench-", "labels": {"app": "bench"}},
                "data": {"key": "value", "more": "x".repeat(100)},
            }),
            Self::Pod => json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "generateName": "bench-",
                    "labels": {"app": "bench", "tier": "web", "pod-template-hash": "5d4f8c7b9"},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
                },
                "spec": {
                    "schedulerName": "none",
                    "containers": [{
                        "name": "web", "image": "registry.example.com/web:1.2.3",
                        "args": ["--listen=:8080", "--log=info"],
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        ],
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "resources": {
                            "requests": {"cpu": "100m", "memory": "64Mi"},
                            "limits": {"cpu": "500m", "memory": "128Mi"},
                        },
                        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "web"}}],
                },
            }),
        }
    }
}

/// `count` requests by so many clients, each with a connection that stands before the clock runs.
#[allow(clippy::too_many_arguments, reason = "a request, a load, and whom it meets")]
pub async fn requests(
    server: &Server,
    pids: &[u32],
    method: &'static str,
    path: String,
    accept: &'static str,
    body: Bytes,
    clients: usize,
    count: usize,
) -> Measured {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(server.connect().await.unwrap());
    }
    let (taken, path): (Arc<AtomicUsize>, Arc<str>) = (Arc::default(), path.into());
    let before = process::cpu(pids);
    let begun = Instant::now();
    let clients: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (taken, path, body) = (taken.clone(), path.clone(), body.clone());
            tokio::spawn(async move {
                let (mut latencies, mut failed) = (Vec::new(), 0);
                while taken.fetch_add(1, Ordering::Relaxed) < count {
                    let sent = Instant::now();
                    match connection.drain(method, &path, accept, body.clone()).await {
                        Ok(status) if status.is_success() => latencies.push(sent.elapsed()),
                        _ => failed += 1,
                    }
                }
                (latencies, failed)
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::with_capacity(count), 0);
    for client in clients {
        let (of_client, failed_of_client) = client.await.unwrap();
        latencies.extend(of_client);
        failed += failed_of_client;
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    Measured {
        failed,
        elapsed,
        units: count,
        latencies,
        cpu: process::cpu(pids) - before,
    }
}

/// Pods need the namespace's ServiceAccount, which a controller makes.
async fn prepare(server: &Server) {
    let mut connection = server.connect().await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let made = connection
        .whole("POST", "/api/v1/namespaces", namespace.to_string().into())
        .await
        .unwrap();
    assert!(made.status.is_success(), "{}", String::from_utf8_lossy(&made.body));
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
    for _ in 0..1_000 {
        if connection
            .drain("GET", &account, JSON, Bytes::new())
            .await
            .unwrap()
            .is_success()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{account} does not appear");
}

/// The figures are taken by then, and a server that is slow at it (upstream takes minutes for 16 000 pods) may end the
/// connection: it goes on deleting.
async fn clean(server: &Server) {
    for path in [
        format!("{}?gracePeriodSeconds=0", What::Pod.path()),
        format!("/api/v1/namespaces/{NAMESPACE}"),
    ] {
        let mut connection = server.connect().await.unwrap();
        match connection.whole("DELETE", &path, Bytes::new()).await {
            Ok(deleted) => assert!(
                deleted.status.is_success(),
                "{}",
                String::from_utf8_lossy(&deleted.body)
            ),
            Err(error) => eprintln!("DELETE {path}: {error}"),
        }
    }
}
