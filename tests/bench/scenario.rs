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
    client::{JSON, PROTOBUF, Request, Server},
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
    /// Each client its own pod's status, by merge patch, as a node agent's heartbeat changes it.
    PatchStatus {
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
        name: "patch-status",
        load: Load::PatchStatus {
            clients: 64,
            count: 6_000,
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
                let path: Arc<str> = what.path().into();
                return Some(requests(server, pids, clients, count, move |_, _| Request::create(&path, &body)).await);
            }
            Load::GetPod { clients, count } => {
                let path: Arc<str> = pod_paths(server, 1).await.remove(0).into();
                return Some(requests(server, pids, clients, count, move |_, _| Request::get(&path, JSON)).await);
            }
            Load::PatchStatus { clients, count } => {
                let paths: Arc<[String]> = pod_paths(server, clients).await.into();
                let patch = move |client: usize, number: usize| {
                    let body = json!({"status": {"phase": "Pending", "message": format!("beat {number}")}});
                    Request {
                        method: "PATCH",
                        path: format!("{}/status", paths[client]).into(),
                        content_type: "application/merge-patch+json",
                        body: body.to_string().into(),
                        accept: JSON,
                    }
                };
                return Some(requests(server, pids, clients, count, patch).await);
            }
            Load::ListPods { accept, query, count } => {
                let path: Arc<str> = format!("{}{query}", What::Pod.path()).into();
                return Some(requests(server, pids, 1, count, move |_, _| Request::get(&path, accept)).await);
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

/// The paths of pods that were created.
async fn pod_paths(server: &Server, count: usize) -> Vec<String> {
    let mut connection = server.connect().await.unwrap();
    let first = format!("{}?limit={count}", What::Pod.path());
    let listed = connection.whole("GET", &first, Bytes::new()).await.unwrap();
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    let names = listed["items"].as_array().unwrap().iter();
    names
        .map(|pod| format!("{}/{}", What::Pod.path(), pod["metadata"]["name"].as_str().unwrap()))
        .collect()
}

/// `count` requests by so many clients, each with a connection that stands before the clock runs. `request` gets the
/// client's number and the request's.
pub async fn requests(
    server: &Server,
    pids: &[u32],
    clients: usize,
    count: usize,
    request: impl Fn(usize, usize) -> Request + Send + Sync + 'static,
) -> Measured {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(server.connect().await.unwrap());
    }
    let (taken, request): (Arc<AtomicUsize>, _) = (Arc::default(), Arc::new(request));
    let before = process::cpu(pids);
    let begun = Instant::now();
    let clients: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(client, mut connection)| {
            let (taken, request) = (taken.clone(), request.clone());
            tokio::spawn(async move {
                let (mut latencies, mut failed) = (Vec::new(), 0);
                loop {
                    let number = taken.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let (sent, request) = (Instant::now(), request(client, number));
                    match connection.drain(&request).await {
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
    let account: Arc<str> = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default").into();
    for _ in 0..1_000 {
        if connection
            .drain(&Request::get(&account, JSON))
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
