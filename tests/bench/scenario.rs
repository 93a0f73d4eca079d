//! The loads, as data. All work in a namespace of their own; the pods have no scheduler, so that nobody acts on them.
//! A load's figures are those of its requests alone: what they need is made before the clock runs.

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
    controllers::{self, Work},
    definitions, fanout,
    objects::{self, NAMESPACE, What},
    paced, pods, process,
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
    /// Each client its own object, which exists: `request` gets its path and the request's number.
    Change {
        what: What,
        request: fn(&str, usize) -> Request,
        clients: usize,
        count: usize,
    },
    /// So many objects that exist, each once.
    Delete {
        what: What,
        clients: usize,
        count: usize,
    },
    /// At half of the rate that the server reaches; see [`paced`].
    Paced {
        beside_lists: bool,
    },
    /// CustomResourceDefinitions, until all of them are served.
    Define {
        clients: usize,
        count: usize,
    },
    OpenApi,
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
    /// What controllers make of what is asked for, see [`controllers`].
    Controllers(Work),
    /// Each watcher sees each of so many ConfigMaps created.
    FanOut {
        watchers: usize,
        writes: usize,
    },
}

/// How many clients make what a load needs.
const MAKERS: usize = 16;

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
        name: "apply-deployment",
        load: Load::Change {
            what: What::Deployment,
            request: objects::apply,
            clients: 64,
            count: 6_000,
        },
    },
    Scenario {
        name: "renew-lease",
        load: Load::Change {
            what: What::Lease,
            request: objects::renew,
            clients: 64,
            count: 10_000,
        },
    },
    Scenario {
        name: "delete-pod",
        load: Load::Delete {
            what: What::Pod,
            clients: 64,
            count: 6_000,
        },
    },
    Scenario {
        name: "create-custom",
        load: Load::Create {
            what: What::Custom,
            clients: 64,
            count: 6_000,
        },
    },
    Scenario {
        name: "paced",
        load: Load::Paced { beside_lists: false },
    },
    Scenario {
        name: "paced-beside-lists",
        load: Load::Paced { beside_lists: true },
    },
    Scenario {
        name: "define-500",
        load: Load::Define { clients: 8, count: 500 },
    },
    Scenario {
        name: "openapi",
        load: Load::OpenApi,
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
        name: "deployment-1000",
        load: Load::Controllers(Work::Deployment(1_000)),
    },
    Scenario {
        name: "1000-deployments",
        load: Load::Controllers(Work::Deployments(1_000)),
    },
    Scenario {
        name: "rollout-1000",
        load: Load::Controllers(Work::Rollout(1_000)),
    },
    Scenario {
        name: "namespace-10000",
        load: Load::Controllers(Work::Namespace(10_000)),
    },
    Scenario {
        name: "jobs-200x50",
        load: Load::Controllers(Work::Jobs(200, 50)),
    },
    Scenario {
        name: "services-500x100",
        load: Load::Controllers(Work::Services(500, 100, 4)),
    },
    Scenario {
        name: "schedule-10000",
        load: Load::Controllers(Work::Schedule(5_000, 10_000)),
    },
    Scenario {
        name: "schedule-one",
        load: Load::Controllers(Work::ScheduleOneByOne(5_000, 1_000)),
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
                definitions::ensure(server, what).await;
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
            Load::Change {
                what,
                request,
                clients,
                count,
            } => {
                let paths = make(server, what, clients).await;
                let request = move |client: usize, number: usize| request(&paths[client], number);
                return Some(requests(server, pids, clients, count, request).await);
            }
            Load::Delete { what, clients, count } => {
                let paths = make(server, what, count).await;
                let request = move |_, number: usize| objects::delete(&paths[number]);
                return Some(requests(server, pids, clients, count, request).await);
            }
            Load::Paced { beside_lists } => return Some(paced::run(server, pids, beside_lists).await),
            Load::Define { clients, count } => return Some(definitions::run(server, pids, clients, count).await),
            Load::OpenApi => return Some(definitions::openapi(server, pids).await),
            Load::ListPods { accept, query, count } => {
                let path: Arc<str> = format!("{}{query}", What::Pod.path()).into();
                return Some(requests(server, pids, 1, count, move |_, _| Request::get(&path, accept)).await);
            }
            Load::StartPods { rounds, at_once } => return Some(pods::run(server, pids, image, rounds, at_once).await),
            Load::Controllers(work) => return Some(controllers::run(server, pids, work).await),
            Load::FanOut { watchers, writes } => {
                let body = Bytes::from(What::ConfigMap.body().to_string());
                return Some(fanout::run(server, pids, &What::ConfigMap.path(), body, watchers, writes).await);
            }
        }
        None
    }
}

/// Makes so many objects, by several clients, and says where they are.
pub async fn make(server: &Server, what: What, count: usize) -> Arc<[String]> {
    let path: Arc<str> = what.path().into();
    let body = Bytes::from(what.body().to_string());
    let share = |client: usize| count / MAKERS + usize::from(client < count % MAKERS);
    let made = (0..MAKERS).map(|client| {
        let (path, body) = (path.clone(), body.clone());
        async move {
            let mut connection = server.connect().await.unwrap();
            let mut paths = Vec::with_capacity(share(client));
            for _ in 0..share(client) {
                let made = connection.whole("POST", &path, body.clone()).await.unwrap();
                assert!(made.status.is_success(), "{}", String::from_utf8_lossy(&made.body));
                let made: Value = serde_json::from_slice(&made.body).unwrap();
                paths.push(format!("{path}/{}", made["metadata"]["name"].as_str().unwrap()));
            }
            paths
        }
    });
    futures::future::join_all(made).await.concat().into()
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

/// `count` requests by so many clients, each as soon as its client is free. `request` gets the client's number and the
/// request's.
pub async fn requests(
    server: &Server,
    pids: &[u32],
    clients: usize,
    count: usize,
    request: impl Fn(usize, usize) -> Request + Send + Sync + 'static,
) -> Measured {
    requests_at(server, pids, clients, count, None, request).await
}

/// The same, each client with a connection that stands before the clock runs. With a `rate` so many are sent a second, whether
/// or not the ones before were answered: what one waits for a free client counts as its own.
pub async fn requests_at(
    server: &Server,
    pids: &[u32],
    clients: usize,
    count: usize,
    rate: Option<f64>,
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
                    let mut sent = Instant::now();
                    if let Some(rate) = rate {
                        sent = begun + Duration::from_secs_f64(number as f64 / rate);
                        tokio::time::sleep_until(sent.into()).await;
                    }
                    let request = request(client, number);
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
