//! A node that exists in memory: it keeps what it is told to make, records each call, and fails, hangs or panics where a
//! test says so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::{Accounts, ContainerSpec, ExecOutput, Exit, Image, Keychain, PullError, Task, TaskStatus};
use mk8s_network::PodAddress;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Attached, Call, Error, Found, Made, Runtime};
use crate::pod;
use crate::resources::qos::{self, Limits};

/// What a call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// containerd is out of reach: the call fails, nothing is done.
    Unavailable,
    /// The answer is lost: the call fails, but its work is done.
    LostAnswer,
    Panic,
    /// None, this time.
    Pass,
    /// It never returns.
    Hang,
}

#[derive(Default)]
struct State {
    calls: Vec<String>,
    /// By the call's name: what its next calls do.
    faults: HashMap<&'static str, Vec<Fault>>,
    /// Every call of containerd's fails until it is back.
    containerd_is_down: bool,
    containers: BTreeMap<String, Found>,
    networks: Vec<String>,
    /// What the cgroup of the pod with this uid has.
    cgroups: HashMap<String, Limits>,
}

pub struct Fake {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    network: watch::Sender<bool>,
}

fn unavailable(what: &str) -> Error {
    Error::Containerd(mk8s_containerd::Error::Connect {
        socket: "/fake".into(),
        message: what.to_owned(),
    })
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            network: watch::Sender::new(true),
        })
    }

    pub fn opens_network(&self, open: bool) {
        self.network.send_replace(open);
    }

    /// The next call of this name has this fault.
    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.state.lock().faults.entry(call).or_default().push(fault);
    }

    pub fn containerd_is_down(&self, down: bool) {
        self.state.lock().containerd_is_down = down;
    }

    /// The calls so far, without their operands.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    pub fn count(&self, call: &str) -> usize {
        self.state.lock().calls.iter().filter(|c| *c == call).count()
    }

    pub fn networks(&self) -> Vec<String> {
        self.state.lock().networks.clone()
    }

    /// The quota of the pod's cgroup, in microseconds of its period.
    pub fn quota(&self, uid: &str) -> Option<i64> {
        self.state.lock().cgroups.get(uid)?.quota
    }

    /// How much that cgroup weighs.
    pub fn shares(&self, uid: &str) -> Option<u64> {
        self.state.lock().cgroups.get(uid)?.shares
    }

    pub fn found(&self) -> Vec<Found> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// Ids of what runs, by the label that tells sandboxes from containers.
    pub fn running(&self, kind: &str) -> Vec<String> {
        let state = self.state.lock();
        let of_kind = |f: &&Found| f.label(crate::names::KIND) == kind && f.runs();
        state
            .containers
            .values()
            .filter(of_kind)
            .map(|f| f.id.clone())
            .collect()
    }

    /// A process ends, without anybody telling the worker.
    pub fn end(&self, id: &str, status: u32) {
        if let Some(task) = self.state.lock().containers.get_mut(id).and_then(|f| f.task.as_mut()) {
            task.status = TaskStatus::Stopped;
            task.exit = Some(Exit {
                status,
                at: SystemTime::now(),
            });
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// Resolves when `holds`.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            while !holds(self) {
                let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
            panic!("waited in vain for {what}; calls: {:?}", self.calls());
        }
    }

    /// One call: recorded, and its work done unless a fault says otherwise.
    async fn call<T>(&self, name: &'static str, work: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let fault = {
            let mut state = self.state.lock();
            state.calls.push(name.to_owned());
            let of_containerd = !matches!(
                name,
                "attach" | "connect" | "detach" | "ensure_cgroup" | "remove_cgroup"
            );
            let next = state
                .faults
                .get_mut(name)
                .filter(|f| !f.is_empty())
                .map(|f| f.remove(0));
            next.or((state.containerd_is_down && of_containerd).then_some(Fault::Unavailable))
        };
        let result = match fault {
            Some(Fault::Unavailable) => Err(unavailable(name)),
            Some(Fault::LostAnswer) => {
                work(&mut self.state.lock());
                Err(unavailable(name))
            }
            Some(Fault::Panic) => panic!("{name} panics"),
            Some(Fault::Hang) => std::future::pending().await,
            None | Some(Fault::Pass) => Ok(work(&mut self.state.lock())),
        };
        self.changes.send_modify(|n| *n += 1);
        result
    }
}

impl State {
    fn set(&mut self, id: &str, status: TaskStatus) {
        if let Some(found) = self.containers.get_mut(id) {
            found.task = Some(Task {
                id: id.to_owned(),
                pid: 1,
                status,
                exit: None,
            });
        }
    }

    fn task(&self, id: &str) -> Option<Task> {
        self.containers.get(id).and_then(|f| f.task.clone())
    }
}

fn image(name: &str) -> Image {
    let mut image = Image::default();
    image.name = name.to_owned();
    image.id = "sha256:fake".to_owned();
    image
}

impl Runtime for Fake {
    fn image<'a>(&'a self, name: &'a str) -> Call<'a, Option<Image>> {
        self.call("image", |_| Some(image(name))).boxed()
    }

    fn pull<'a>(&'a self, name: &'a str, _: &'a Keychain) -> BoxFuture<'a, Result<Image, PullError>> {
        async move { Ok(image(name)) }.boxed()
    }

    fn accounts<'a>(&'a self, _: &'a Image) -> Call<'a, Arc<Accounts>> {
        self.call("accounts", |_| Arc::default()).boxed()
    }

    fn pause_image(&self) -> Call<'_, Image> {
        self.call("pause_image", |_| image("pause")).boxed()
    }

    fn oci_runtime<'a>(&'a self, handler: &'a str) -> Call<'a, Option<mk8s_containerd::Runtime>> {
        let known = matches!(handler, "" | "other");
        self.call("oci_runtime", move |_| known.then(Default::default)).boxed()
    }

    fn create(&self, spec: ContainerSpec) -> Call<'_, Made> {
        let found = Found {
            id: spec.id.clone(),
            labels: spec.labels,
            image: spec.image.name,
            created_at: SystemTime::now(),
            task: None,
        };
        self.call("create", move |state| {
            state.containers.insert(found.id.clone(), found);
            Made {
                id: spec.id,
                container: None,
            }
        })
        .boxed()
    }

    fn create_task<'a>(&'a self, made: &'a Made) -> Call<'a, u32> {
        self.call("create_task", |state| {
            state.set(&made.id, TaskStatus::Created);
            1
        })
        .boxed()
    }

    fn start_task<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        self.call("start_task", |state| state.set(id, TaskStatus::Running))
            .boxed()
    }

    fn kill<'a>(&'a self, id: &'a str, signal: i32, _: bool) -> Call<'a, ()> {
        let name = if signal == 9 { "kill_hard" } else { "kill" };
        async move {
            self.call(name, |_| ()).await?;
            if signal == 9 {
                self.end(id, 137);
            }
            Ok(())
        }
        .boxed()
    }

    fn wait<'a>(&'a self, id: &'a str) -> Call<'a, Option<Exit>> {
        async move {
            self.call("wait", |_| ()).await?;
            let mut changes = self.changes.subscribe();
            loop {
                if self.state.lock().containerd_is_down {
                    return Err(unavailable("wait"));
                }
                let task = self.state.lock().task(id);
                match task {
                    None => return Ok(None),
                    Some(Task { exit: Some(exit), .. }) => return Ok(Some(exit)),
                    Some(_) => changes.changed().await.unwrap_or_default(),
                }
            }
        }
        .boxed()
    }

    fn task<'a>(&'a self, id: &'a str) -> Call<'a, Option<Task>> {
        self.call("task", |state| state.task(id)).boxed()
    }

    fn delete_task<'a>(&'a self, id: &'a str) -> Call<'a, Option<Exit>> {
        self.call("delete_task", |state| state.containers.get_mut(id)?.task.take()?.exit)
            .boxed()
    }

    fn delete<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        self.call("delete", |state| drop(state.containers.remove(id))).boxed()
    }

    fn containers_of<'a>(&'a self, _: &'a str) -> Call<'a, Vec<Found>> {
        self.call("containers_of", |state| state.containers.values().cloned().collect())
            .boxed()
    }

    fn exec<'a>(&'a self, _: &'a str, _: &'a [String], _: Duration) -> Call<'a, ExecOutput> {
        self.call("exec", |_| ExecOutput::default()).boxed()
    }

    fn network_is_open(&self) -> bool {
        *self.network.borrow()
    }

    fn until_network_is_open(&self) -> BoxFuture<'_, ()> {
        let mut open = self.network.subscribe();
        async move { drop(open.wait_for(|open| *open).await) }.boxed()
    }

    /// Called by the worker itself: where it panics, the worker does.
    fn has_network(&self, uid: &str) -> bool {
        let faults = self.state.lock().faults.remove("has_network");
        assert!(faults.is_none(), "has_network panics");
        self.state.lock().networks.iter().any(|n| n == uid)
    }

    fn attach<'a>(&'a self, uid: &'a str) -> Call<'a, Attached> {
        self.call("attach", move |state| {
            // What an earlier sandbox had is given back by it.
            state.networks.retain(|n| n != uid);
            state.networks.push(uid.to_owned());
            let address = PodAddress {
                ip: [10, 244, 0, 2].into(),
                netns: "/run/netns/fake".into(),
            };
            Attached { address, begun: None }
        })
        .boxed()
    }

    fn connect(&self, _: Attached) -> Call<'_, ()> {
        async move {
            let connected = self.call("connect", |_| ()).await;
            if connected.is_err() {
                self.state.lock().networks.clear();
            }
            connected
        }
        .boxed()
    }

    fn detach<'a>(&'a self, uid: &'a str) -> Call<'a, ()> {
        async move {
            if !self.network_is_open() {
                return Err(Error::NetworkNotOpen);
            }
            self.call("detach", |state| state.networks.retain(|n| n != uid)).await
        }
        .boxed()
    }

    fn ensure_cgroup<'a>(&'a self, pod: &'a Arc<Pod>) -> Call<'a, String> {
        self.call("ensure_cgroup", |state| {
            state.cgroups.insert(pod::uid(pod).to_owned(), qos::pod_limits(pod));
            "/kubepods/fake".to_owned()
        })
        .boxed()
    }

    fn remove_cgroup<'a>(&'a self, uid: &'a str) -> Call<'a, ()> {
        self.call("remove_cgroup", |state| {
            state.cgroups.remove(uid);
        })
        .boxed()
    }

    fn oom_killed(&self, _: &str) -> bool {
        false
    }
}
