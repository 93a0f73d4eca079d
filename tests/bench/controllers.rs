//! What controllers do: from what is asked for to what is there. The clock runs from the first request until the cluster is as it is to
//! be; the CPU is that of all of the server's processes until then, so that nothing can be put off.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Measured,
    client::{Connection, JSON, Request, Server},
    kubelets::{self, Fate, Kubelets, NODE},
    process,
    watch::Watch,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(900);
/// How many ask at once where many objects are made.
pub(crate) const MAKERS: usize = 16;

/// What is asked for.
#[derive(Clone, Copy)]
pub enum Work {
    /// One Deployment of so many.
    Deployment(usize),
    /// So many Deployments of one.
    Deployments(usize),
    /// Another template, of one Deployment of so many.
    Rollout(usize),
    /// The end of a namespace with so many objects.
    Namespace(usize),
    /// So many Jobs of so many indexes.
    Jobs(usize, usize),
    /// So many Services over the same so many pods, one of which becomes ready and unready so many times.
    Services(usize, usize, usize),
    /// So many nodes, and so many pods for them at once.
    Schedule(usize, usize),
    /// The same, each when the one before has its node.
    ScheduleOneByOne(usize, usize),
}

pub async fn run(server: &Server, pids: &[u32], work: Work) -> Measured {
    let mut place = Place::make(server, pids).await;
    let measured = match work {
        Work::Deployment(replicas) => place.deployment(replicas).await,
        Work::Deployments(count) => place.deployments(count).await,
        Work::Rollout(replicas) => place.rollout(replicas).await,
        Work::Namespace(count) => return place.namespace(count).await,
        Work::Jobs(jobs, indexes) => place.jobs(jobs, indexes).await,
        Work::Services(services, pods, flips) => place.services(services, pods, flips).await,
        Work::Schedule(nodes, pods) => place.schedule(nodes, pods).await,
        Work::ScheduleOneByOne(nodes, pods) => place.schedule_one_by_one(nodes, pods).await,
    };
    place.clean().await;
    measured
}

/// A namespace of its own.
pub(crate) struct Place<'a> {
    pub(crate) server: &'a Server,
    pids: &'a [u32],
    pub(crate) connection: Connection,
    namespace: String,
}

/// When it began, and what the server had spent by then.
pub(crate) struct Clock<'a> {
    pub(crate) begun: Instant,
    before: Duration,
    pids: &'a [u32],
}

impl Clock<'_> {
    pub(crate) fn stop(&self, units: usize) -> Measured {
        let elapsed = self.begun.elapsed();
        self.measured(elapsed, units)
    }

    pub(crate) fn measured(&self, elapsed: Duration, units: usize) -> Measured {
        Measured {
            failed: 0,
            elapsed,
            units,
            latencies: vec![elapsed],
            cpu: process::cpu(self.pids) - self.before,
        }
    }
}

fn template(app: &str, version: usize) -> Value {
    json!({"metadata": {"labels": {"app": app, "version": version.to_string()}}, "spec": {
        // The node's own, whom the scheduler has nothing to say of, and who goes when he is told to.
        "nodeName": NODE, "terminationGracePeriodSeconds": 1, "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "web", "image": "registry.example.com/web:1", "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]}})
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, 1)}})
}

impl<'a> Place<'a> {
    async fn make(server: &'a Server, pids: &'a [u32]) -> Self {
        let mut connection = server.connect().await.unwrap();
        let new = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "bench-"}});
        let made = create(&mut connection, "/api/v1/namespaces", &new).await;
        let namespace = made["metadata"]["name"].as_str().unwrap().to_owned();
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts?fieldSelector=metadata.name%3Ddefault");
        Watch::open(&mut connection, &accounts)
            .await
            .until(|event| event["type"] == "ADDED")
            .await;
        Self {
            server,
            pids,
            connection,
            namespace,
        }
    }

    pub(crate) fn path(&self, api: &str, plural: &str) -> String {
        format!("/{api}/namespaces/{}/{plural}", self.namespace)
    }

    pub(crate) fn clock(&self) -> Clock<'a> {
        Clock {
            before: process::cpu(self.pids),
            begun: Instant::now(),
            pids: self.pids,
        }
    }

    pub(crate) async fn post(&mut self, api: &str, plural: &str, object: &Value) -> Value {
        let path = self.path(api, plural);
        create(&mut self.connection, &path, object).await
    }

    /// By several clients.
    pub(crate) async fn post_all(&self, api: &str, plural: &str, objects: Vec<Value>) {
        self.post_by(MAKERS, api, plural, objects).await;
    }

    /// By so many clients.
    pub(crate) async fn post_by(&self, clients: usize, api: &str, plural: &str, objects: Vec<Value>) {
        let path = self.path(api, plural);
        let share = objects.len().div_ceil(clients);
        let made = objects.chunks(share).map(|objects| {
            let path = path.clone();
            async move {
                let mut connection = self.server.connect().await.unwrap();
                for object in objects {
                    create(&mut connection, &path, object).await;
                }
            }
        });
        futures::future::join_all(made).await;
    }

    /// Until the objects of a kind, by their names, are as they are to be: so many of them.
    async fn until(&self, api: &str, plural: &str, count: usize, is: impl Fn(&Value) -> bool) {
        let mut connection = self.server.connect().await.unwrap();
        let mut watch = Watch::open(&mut connection, &format!("{}?", self.path(api, plural))).await;
        let mut done = std::collections::HashSet::new();
        let all = watch.until(|event| {
            let (object, name) = (&event["object"], event["object"]["metadata"]["name"].as_str());
            match name.filter(|_| event["type"] != "DELETED") {
                Some(name) if is(object) => drop(done.insert(name.to_owned())),
                Some(name) => drop(done.remove(name)),
                None => {}
            }
            done.len() >= count
        });
        tokio::time::timeout(PATIENCE, all).await.unwrap();
    }

    async fn available(&self, count: usize, replicas: usize) {
        let is = |deployment: &Value| {
            let status = &deployment["status"];
            let all = ["replicas", "updatedReplicas", "availableReplicas"];
            status["observedGeneration"] == deployment["metadata"]["generation"]
                && all.iter().all(|of| status[of] == replicas)
        };
        self.until("apis/apps/v1", "deployments", count, is).await;
    }

    async fn deployment(&mut self, replicas: usize) -> Measured {
        let mut kubelets = kubelets::play(self.server, Fate::Ready).await;
        let (clock, before) = (self.clock(), kubelets.created());
        self.post("apis/apps/v1", "deployments", &deployment("web", replicas))
            .await;
        kubelets.until(|seen| seen.created - before >= replicas).await;
        let elapsed = clock.begun.elapsed();
        self.available(1, replicas).await;
        clock.measured(elapsed, replicas)
    }

    async fn deployments(&mut self, count: usize) -> Measured {
        let mut kubelets = kubelets::play(self.server, Fate::Ready).await;
        let (clock, before) = (self.clock(), kubelets.created());
        let all = (0..count)
            .map(|number| deployment(&format!("web-{number}"), 1))
            .collect();
        self.post_all("apis/apps/v1", "deployments", all).await;
        kubelets.until(|seen| seen.created - before >= count).await;
        let elapsed = clock.begun.elapsed();
        self.available(count, 1).await;
        clock.measured(elapsed, count)
    }

    async fn rollout(&mut self, replicas: usize) -> Measured {
        let _kubelets = kubelets::play(self.server, Fate::Ready).await;
        self.post("apis/apps/v1", "deployments", &deployment("web", replicas))
            .await;
        self.available(1, replicas).await;
        let clock = self.clock();
        let patch = Request {
            method: "PATCH",
            content_type: "application/merge-patch+json",
            body: json!({"spec": {"template": template("web", 2)}}).to_string().into(),
            ..Request::get(&self.path("apis/apps/v1", "deployments/web").as_str().into(), JSON)
        };
        assert!(self.connection.drain(&patch).await.unwrap().is_success());
        self.available(1, replicas).await;
        clock.stop(replicas)
    }

    /// A tenth of them pods, the others ConfigMaps and Secrets.
    async fn namespace(self, count: usize) -> Measured {
        let kubelets = kubelets::play(self.server, Fate::Ready).await;
        let number_of = |tenths: usize| 0..count * tenths / 10;
        let meta = |number: usize| json!({"name": format!("object-{number}")});
        let pods = number_of(1).map(|number| {
            let mut pod = template("web", 1);
            pod["metadata"]["name"] = json!(format!("pod-{number}"));
            pod
        });
        self.post_all("api/v1", "pods", pods.collect()).await;
        let maps = number_of(6).map(|number| json!({"metadata": meta(number), "data": {"key": "x".repeat(100)}}));
        self.post_all("api/v1", "configmaps", maps.collect()).await;
        let secrets =
            number_of(3).map(|number| json!({"metadata": meta(number), "stringData": {"key": "x".repeat(100)}}));
        self.post_all("api/v1", "secrets", secrets.collect()).await;
        let clock = self.clock();
        self.delete(kubelets).await;
        clock.stop(count)
    }

    async fn jobs(&mut self, jobs: usize, indexes: usize) -> Measured {
        let _kubelets = kubelets::play(self.server, Fate::Succeeded).await;
        let job = |number: usize| {
            let name = format!("job-{number}");
            let mut template = template(&name, 1);
            template["spec"]["restartPolicy"] = json!("Never");
            json!({"metadata": {"name": name}, "spec": {"completions": indexes, "parallelism": indexes, "completionMode": "Indexed", "template": template}})
        };
        let clock = self.clock();
        self.post_all("apis/batch/v1", "jobs", (0..jobs).map(job).collect())
            .await;
        let complete = |job: &Value| {
            let conditions = job["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Complete" && c["status"] == "True")
        };
        self.until("apis/batch/v1", "jobs", jobs, complete).await;
        clock.stop(jobs * indexes)
    }

    async fn services(&mut self, services: usize, pods: usize, flips: usize) -> Measured {
        let _kubelets = kubelets::play(self.server, Fate::Ready).await;
        self.post("apis/apps/v1", "deployments", &deployment("web", pods)).await;
        self.available(1, pods).await;
        // No node routes to them: what is measured is what controllers and server do.
        let labels = json!({"service.kubernetes.io/service-proxy-name": "bench"});
        let service = |number: usize| json!({"metadata": {"name": format!("web-{number}"), "labels": labels}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
        self.post_all("api/v1", "services", (0..services).map(service).collect())
            .await;
        let slices = self.path("apis/discovery.k8s.io/v1", "endpointslices");
        let mut slices = Slices::open(&mut self.connection, &slices).await;
        slices.until(services, pods).await;
        let list = self
            .connection
            .whole("GET", &self.path("api/v1", "pods?limit=1"), Bytes::new())
            .await
            .unwrap();
        let list: Value = serde_json::from_slice(&list.body).unwrap();
        let pod = &list["items"][0];
        let path = self.path("api/v1", &format!("pods/{}", pod["metadata"]["name"].as_str().unwrap()));
        let clock = self.clock();
        for flip in 0..flips {
            let ready = flip % 2 == 1;
            let mut status = kubelets::status(Fate::Ready, ready, 0);
            // Its address stays.
            for field in ["podIP", "podIPs"] {
                status["status"][field] = pod["status"][field].clone();
            }
            assert!(
                self.connection
                    .drain(&kubelets::change_status(&path, &status))
                    .await
                    .unwrap()
                    .is_success()
            );
            slices.until(services, pods - usize::from(!ready)).await;
        }
        clock.stop(services * flips)
    }

    async fn clean(self) {
        let kubelets = kubelets::play(self.server, Fate::Ready).await;
        self.delete(kubelets).await;
    }

    /// Until it is gone.
    async fn delete(mut self, _kubelets: Kubelets) {
        let one = format!("/api/v1/namespaces?fieldSelector=metadata.name%3D{}", self.namespace);
        let mut watch = Watch::open(&mut self.connection, &one).await;
        let deleted = self
            .connection
            .whole(
                "DELETE",
                &format!("/api/v1/namespaces/{}", self.namespace),
                Bytes::new(),
            )
            .await;
        assert!(deleted.unwrap().status.is_success());
        let gone = watch.until(|event| event["type"] == "DELETED");
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }
}

/// How many endpoints of each slice are ready, read off the texts: thousands of long ones, and their reader is to cost little.
struct Slices {
    watch: Watch,
    ready: HashMap<Vec<u8>, usize>,
}

impl Slices {
    async fn open(connection: &mut Connection, path: &str) -> Self {
        Self {
            watch: Watch::open(connection, &format!("{path}?")).await,
            ready: HashMap::new(),
        }
    }

    async fn until(&mut self, slices: usize, ready: usize) {
        let all = async {
            while self.ready.len() < slices || self.ready.values().any(|of| *of != ready) {
                let line = self.watch.line().await;
                // One slice of each Service; the names in it are its pods' too, this one is its own alone.
                let name = memchr::memmem::find(line, br#""generateName":""#).map(|at| &line[at + 16..]);
                let name = name.and_then(|rest| rest.split(|byte| *byte == b'"').next());
                let ready = memchr::memmem::find_iter(line, br#""ready":true"#).count();
                self.ready.insert(name.unwrap().to_vec(), ready);
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap();
    }
}

pub(crate) async fn create(connection: &mut Connection, path: &str, object: &Value) -> Value {
    let made = connection.whole("POST", path, object.to_string().into()).await.unwrap();
    assert!(
        made.status.is_success(),
        "{path}: {}",
        String::from_utf8_lossy(&made.body)
    );
    serde_json::from_slice(&made.body).unwrap()
}
