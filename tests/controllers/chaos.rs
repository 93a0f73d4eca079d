//! Controllers that are killed, at whatever they wait for, go on where they were: nothing is made twice, counted twice or forgotten.
//!
//! The scope of controllers and scheduler ends at a request that chance picks, which was carried out or not, and whose answer nobody
//! hears; what runs beside is dropped where it waits. Workloads change all the while, and time passes. At the end the cluster is as
//! the workloads ask, and never was what it must not be ([`witness`]).
//! `MK8S_CHAOS_SECONDS` says how long (hack/chaos.sh: ten minutes), `MK8S_CHAOS_SEED` which course.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use mk8s_controllers::context::Settings;
use mk8s_supervisor::{Clock, Supervisor, job};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, holds, template};
use crate::witness::{self, LIMITED, has_ended};

const NS: &str = "default";
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// What time passes with each change.
const TICK: Duration = Duration::from_secs(5);

/// Burns at the request that it counts down to.
#[derive(Clone)]
struct Fuse {
    left: Arc<AtomicI64>,
    /// Is the last request still carried out?
    carried_out: bool,
    blown: CancellationToken,
}

impl Fuse {
    /// The same client, until the fuse burns: whoever asks then waits for ever.
    fn guard(&self, client: Client) -> Client {
        let fuse = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let (fuse, client) = (fuse.clone(), client.clone());
                async move {
                    let left = fuse.left.fetch_sub(1, Ordering::SeqCst);
                    if left > 1 {
                        let answer: Response<Body> = client.send(request).await.unwrap();
                        return Ok::<_, Infallible>(answer);
                    }
                    if left == 1 {
                        if fuse.carried_out {
                            let _ = client.send(request).await;
                        }
                        fuse.blown.cancel();
                    }
                    std::future::pending().await
                }
            }),
            "default",
        )
    }
}

/// Starts controllers and scheduler again and again, until the token is cancelled; how often.
async fn kill_again_and_again(cluster: Arc<Cluster>, mut chance: StdRng, end: CancellationToken) -> usize {
    let mut killed = 0;
    while !end.is_cancelled() {
        let scope = Supervisor::new(CancellationToken::new());
        let fuse = Fuse {
            left: Arc::new(AtomicI64::new(chance.random_range(20..400))),
            carried_out: chance.random(),
            blown: CancellationToken::new(),
        };
        let (clients, guard) = (cluster.plane.plane.clients(), fuse.clone());
        let clients = Arc::new(move |name: &str| guard.guard(clients(name)));
        cluster.plane.plane.run_components(clients, &scope);
        tokio::select! {
            () = fuse.blown.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
        // Half of it is for those that end by themselves; what waits is dropped then, as soon as there is a processor for it.
        let ended = scope.shutdown(Duration::from_millis(400)).await || scope.shutdown(Duration::from_secs(5)).await;
        assert!(ended, "a part outlives its scope");
        killed += 1;
    }
    killed
}

/// One kind of workload: how it is made and changed, and whether there is what it asks for.
struct Workloads {
    client: Client,
    chance: StdRng,
    clock: Clock,
}

impl Workloads {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NS)
    }

    async fn put<K>(&mut self, name: &str, spec: Value)
    where
        K: mk8s_client::Kind
            + std::fmt::Debug
            + serde::Serialize
            + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let object: K = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        let api = self.api::<K>();
        if self.chance.random_ratio(1, 8) {
            let policy =
                [DeleteParams::background(), DeleteParams::foreground()][self.chance.random_range(0..2)].clone();
            let _ = api.delete(name, &policy).await;
        } else if api.create(&PostParams::default(), &object).await.is_err() {
            let change = json!({"spec": spec});
            let _ = api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        }
    }

    /// Something becomes otherwise.
    async fn change(&mut self) {
        self.clock.set(self.clock.now() + TICK);
        let number = self.chance.random_range(0..3);
        let (replicas, version) = (self.chance.random_range(0..6), self.chance.random_range(0..3));
        let spec = |app: &str| {
            let mut template = template(app, "run");
            template["metadata"]["annotations"]["version"] = json!(version.to_string());
            json!({"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template})
        };
        match self.chance.random_range(0..8) {
            0 => {
                self.put::<Deployment>(&format!("web-{number}"), spec(&format!("web-{number}")))
                    .await
            }
            1 => {
                let name = format!("db-{number}");
                let mut spec = spec(&name);
                spec["serviceName"] = json!(name);
                spec["podManagementPolicy"] = json!(if number == 0 { "Parallel" } else { "OrderedReady" });
                self.put::<StatefulSet>(&name, spec).await;
            }
            2 => {
                let name = format!("old-{number}");
                let mut spec = spec(&name);
                spec["selector"] = json!({"app": name});
                self.put::<ReplicationController>(&name, spec).await;
            }
            3 => {
                let name = format!("agent-{number}");
                let mut spec = spec(&name);
                spec.as_object_mut().unwrap().remove("replicas");
                self.put::<DaemonSet>(&name, spec).await;
            }
            4 => self.job().await,
            5 => self.limited().await,
            6 => self.cron(number).await,
            // Somebody else takes a pod away.
            _ => {
                let all = self.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
                if !all.is_empty() {
                    let name = all[self.chance.random_range(0..all.len())]
                        .metadata
                        .name
                        .clone()
                        .unwrap();
                    let _ = self.api::<Pod>().delete(&name, &DeleteParams::default()).await;
                }
            }
        }
    }

    /// Each Job is made once, and ends.
    async fn job(&mut self) {
        let number: u32 = self.chance.random();
        let name = format!("job-{number:x}");
        let mut template = template(&name, "succeed");
        template["spec"]["restartPolicy"] = json!("Never");
        let mode = if number.is_multiple_of(2) {
            "Indexed"
        } else {
            "NonIndexed"
        };
        let spec = json!({"completions": 5, "parallelism": 2, "completionMode": mode, "backoffLimit": 100, "template": template});
        let job: Job = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.api::<Job>().create(&PostParams::default(), &job).await.unwrap();
    }

    /// One index of it fails for good at once, one in its second try.
    async fn limited(&mut self) {
        let name = format!("{LIMITED}{:x}", self.chance.random::<u32>());
        let mut template = template(&name, "run");
        template["spec"]["restartPolicy"] = json!("Never");
        let script = "case $JOB_COMPLETION_INDEX in 1) exit 42;; 2) exit 1;; esac";
        let container = &mut template["spec"]["containers"][0];
        (container["command"], container["args"]) = (json!(["sh", "-c"]), json!([script]));
        container["name"] = json!("case");
        let codes = json!({"operator": "In", "values": [42]});
        let policy = json!({"rules": [{"action": "FailIndex", "onExitCodes": codes}]});
        let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
            "podFailurePolicy": policy, "template": template});
        let job: Job = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.api::<Job>().create(&PostParams::default(), &job).await.unwrap();
    }

    /// It stays, since its Jobs of a minute would be in the way of another's.
    async fn cron(&mut self, number: usize) {
        let name = format!("cron-{number}");
        let mut template = template(&name, "succeed");
        template["spec"]["restartPolicy"] = json!("Never");
        let policy = ["Allow", "Forbid", "Replace"][number];
        let kept = self.chance.random_range(0..4);
        let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": kept,
            "jobTemplate": {"spec": {"backoffLimit": 100, "template": template}}});
        let cron: CronJob = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        let api = self.api::<CronJob>();
        if api.create(&PostParams::default(), &cron).await.is_err() {
            let change = Patch::Merge(json!({"spec": {"successfulJobsHistoryLimit": kept}}));
            let _ = api.patch(&name, &PatchParams::default(), &change).await;
        }
    }

    /// Which Jobs have not ended as they are to, and which CronJobs have not run when they were due.
    async fn late(&self) -> Vec<String> {
        let mut late = Vec::new();
        for found in self.api::<Job>().list(&ListParams::default()).await.unwrap() {
            let ended = has_ended(&found);
            let (name, status) = (found.metadata.name.unwrap(), found.status.unwrap_or_default());
            let indexes = found.spec.unwrap().completion_mode.as_deref() == Some("Indexed");
            let right = if name.starts_with(LIMITED) {
                // Whose pod was taken away has had a try.
                let failed = status.failed_indexes.as_deref();
                failed.is_some_and(|failed| failed.contains("1") || failed == "0-2" || failed == "0-3")
            } else if name.starts_with("cron-") {
                status.succeeded == Some(1) && status.completion_time.is_some()
            } else {
                let whole = !indexes || status.completed_indexes.as_deref() == Some("0-4");
                status.succeeded == Some(5) && status.completion_time.is_some() && whole
            };
            if !ended || !right {
                late.push(format!("{name}: {status:?}"));
            }
        }
        let now = self
            .clock
            .now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let due = i64::try_from(now / 60 * 60).unwrap();
        for found in self.api::<CronJob>().list(&ListParams::default()).await.unwrap() {
            let status = found.status.unwrap_or_default();
            let last = status.last_schedule_time.as_ref().map(|last| last.0.as_second());
            let made = found.metadata.creation_timestamp.unwrap().0.as_second();
            if status.active.is_some() || made < due && last != Some(due) {
                late.push(format!("{:?}, due at {due}: {status:?}", found.metadata.name));
            }
        }
        late
    }

    /// What is not as it is asked for.
    async fn amiss(&self, nodes: usize) -> Vec<String> {
        let mut amiss = self.late().await;
        let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in self.api::<Pod>().list(&ListParams::default()).await.unwrap().items {
            if pod.metadata.finalizers.iter().flatten().any(|held| held == FINALIZER) {
                amiss.push(format!("{:?} is held, and all Jobs have ended", pod.metadata.name));
            }
            let app = pod.metadata.labels.as_ref().and_then(|l| l.get("app").cloned());
            pods.entry(app.unwrap_or_default()).or_default().push(pod);
        }
        let mut running = |name: &str, wanted: usize, ready: i32| {
            let found = pods.remove(name).unwrap_or_default();
            if found.len() != wanted || usize::try_from(ready) != Ok(wanted) {
                amiss.push(format!(
                    "{name}: {} pods, {ready} ready, {wanted} asked for",
                    found.len()
                ));
            }
        };
        let size = |replicas: Option<i32>| usize::try_from(replicas.unwrap_or(1)).unwrap();
        for found in self.api::<Deployment>().list(&ListParams::default()).await.unwrap() {
            let ready = found.status.and_then(|s| s.available_replicas).unwrap_or(0);
            running(&found.metadata.name.unwrap(), size(found.spec.unwrap().replicas), ready);
        }
        for found in self.api::<StatefulSet>().list(&ListParams::default()).await.unwrap() {
            let ready = found.status.and_then(|s| s.updated_replicas).unwrap_or(0);
            running(&found.metadata.name.unwrap(), size(found.spec.unwrap().replicas), ready);
        }
        for found in self
            .api::<ReplicationController>()
            .list(&ListParams::default())
            .await
            .unwrap()
        {
            let ready = found.status.and_then(|s| s.ready_replicas).unwrap_or(0);
            running(&found.metadata.name.unwrap(), size(found.spec.unwrap().replicas), ready);
        }
        for found in self.api::<DaemonSet>().list(&ListParams::default()).await.unwrap() {
            let ready = found
                .status
                .map_or(0, |s| s.updated_number_scheduled.unwrap_or(0).min(s.number_ready));
            running(&found.metadata.name.unwrap(), nodes, ready);
        }
        for found in self.api::<Job>().list(&ListParams::default()).await.unwrap() {
            pods.remove(&found.spec.unwrap().template.metadata.unwrap().labels.unwrap()["app"]);
        }
        amiss.extend(
            pods.into_iter()
                .map(|(app, pods)| format!("{} pods of {app:?}, which is gone", pods.len())),
        );
        amiss
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_there_however_often_the_controllers_are_killed() {
    let seed = number("MK8S_CHAOS_SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(number("MK8S_CHAOS_SECONDS").unwrap_or(45));
    eprintln!("MK8S_CHAOS_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let clock = Clock::standing(SystemTime::now());
    let settings = Settings {
        clock: clock.clone(),
        ..Settings::default()
    };
    let cluster = Arc::new(Cluster::start_idle(settings).await);
    let seen = CancellationToken::new();
    let witness = witness::look_on(cluster.admin.clone(), NS, seen.clone());
    let witness = job::spawn("witness", witness);
    for node in ["n1", "n2"] {
        cluster.node(node).await;
        cluster.beat(node);
    }
    let (end, killer) = (CancellationToken::new(), StdRng::from_rng(&mut chance));
    let killing = job::spawn("chaos", kill_again_and_again(cluster.clone(), killer, end.clone()));
    cluster.takes_pods(NS).await;
    let mut workloads = Workloads {
        client: cluster.admin.clone(),
        chance,
        clock,
    };
    let (begun, mut changes) = (Instant::now(), 0);
    while begun.elapsed() < time {
        workloads.change().await;
        changes += 1;
        tokio::time::sleep(Duration::from_millis(workloads.chance.random_range(0..150))).await;
    }
    end.cancel();
    let killed = killing.await.unwrap();
    eprintln!("{changes} changes, killed {killed} times");
    assert!(killed > 5, "nothing was shown");

    let scope = Supervisor::new(CancellationToken::new());
    cluster
        .plane
        .plane
        .run_components(cluster.plane.plane.clients(), &scope);
    cluster
        .until("all is as it is asked for", || async {
            let amiss = workloads.amiss(2).await;
            holds(amiss.is_empty(), amiss)
        })
        .await;
    seen.cancel();
    let breaches = witness.await.unwrap();
    assert!(breaches.is_empty(), "{breaches:#?}");
    assert!(scope.shutdown(Duration::from_secs(10)).await);
    cluster.plane.stop().await;
}
