//! What every part of the agent needs: its configuration, the API, containerd, the network, and the few things that all
//! pods of the node share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, ObjectReference, Pod, Secret, Service};
use mk8s_client::{EventRecorder, Informer};
use mk8s_containerd::{Containerd, spec::Host};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::admission::{Admission, Pressure};
use crate::cache::{Held, Objects};
use crate::downward::RuntimeValues;
use crate::pod_worker::Message;
use crate::resources::cgroup::Cgroups;
use crate::runtime::Runtime;
use crate::volumes::{PodDir, Volumes};
use crate::{Config, containers, netns, pod};

pub struct Agent {
    pub config: Config,
    pub client: kube::Client,
    pub services: Informer<Service>,
    pub nodes: Informer<Node>,
    pub objects: Objects,
    pub recorder: EventRecorder,
    /// What pods are made of, for their workers alone.
    pub runtime: Arc<dyn Runtime>,
    /// For what is asked from outside: exec, logs, the node's status.
    pub containerd: Containerd,
    pub host: Host,
    pub network: netns::Handle,
    pub cgroups: Cgroups,
    pub admission: Admission,
    /// What the node was last found to be short of.
    pub pressure: Mutex<Pressure>,
    pub volumes: Arc<Volumes>,
    pub machine: crate::node::Machine,
    /// Starts in flight: more at once only make each slower.
    pub starts: Arc<Semaphore>,
    /// The workers by pod uid.
    pub workers: Mutex<HashMap<String, Worker>>,
    /// Container id → pod uid, for containerd's events.
    pub owners: Mutex<HashMap<String, String>>,
}

#[derive(Clone)]
pub struct Worker {
    pub mailbox: mpsc::UnboundedSender<Message>,
    /// What the server needs to know of the pod without asking its task.
    pub view: tokio::sync::watch::Receiver<Arc<View>>,
}

/// A pod as the node's server shows it.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub pod: Arc<Pod>,
    /// Container → (present, previous) life.
    pub containers: BTreeMap<String, (Option<crate::record::Instance>, Option<crate::record::Instance>)>,
}

impl Agent {
    pub fn event(&self, object: &ObjectReference, type_: &'static str, reason: &str, message: impl Into<String>) {
        self.recorder.event(object, type_, reason, message);
    }

    pub fn pod_event(&self, pod: &Pod, type_: &'static str, reason: &str, message: impl Into<String>) {
        self.event(&pod::reference(pod), type_, reason, message);
    }

    pub fn container_event(
        &self,
        pod: &Pod,
        container: &str,
        type_: &'static str,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(&pod::container_reference(pod, container), type_, reason, message);
    }

    pub fn send(&self, uid: &str, message: Message) {
        if let Some(worker) = self.workers.lock().get(uid) {
            // A worker that has ended has nothing left to hear.
            let _ = worker.mailbox.send(message);
        }
    }

    /// A pod that the API has no more. What it had is another's at once, as the scheduler sees it, while it is still taken down.
    pub fn gone(&self, uid: &str) {
        self.admission.release(self, uid);
        self.send(uid, Message::Gone);
    }

    pub fn pod_dir(&self, uid: &str) -> PodDir {
        self.volumes.pod_dir(uid)
    }

    pub fn node(&self) -> Option<Arc<Node>> {
        self.nodes.get(None, &self.config.node_name)
    }

    pub fn runtime_values(&self, pod_ips: Vec<String>) -> RuntimeValues {
        RuntimeValues {
            host_ip: self.config.node_ip.to_string(),
            pod_ips,
            allocatable: self.machine.allocatable_amounts(),
        }
    }
}

/// The ConfigMaps and Secrets that a pod names.
#[derive(Default)]
pub struct Names {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

impl Names {
    pub fn of(pod: &Pod) -> Self {
        let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
        for container in pod::all_containers(pod) {
            let (maps, more) = containers::env::references(container);
            config_maps.extend(maps);
            secrets.extend(more);
        }
        let spec = pod::spec(pod);
        for volume in spec.volumes.iter().flatten() {
            config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
            secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
            for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
                config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
                secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            }
        }
        secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
        Self { config_maps, secrets }
    }

    pub fn len(&self) -> usize {
        self.config_maps.len() + self.secrets.len()
    }
}

/// All objects that a pod names, held while it is here: their watches are up before they are needed.
#[derive(Default)]
pub struct ReferencedObjects {
    pub config_maps: BTreeMap<String, Arc<Held<ConfigMap>>>,
    pub secrets: BTreeMap<String, Arc<Held<Secret>>>,
}

impl ReferencedObjects {
    pub fn of(agent: &Agent, pod: &Pod) -> Self {
        let mut held = Self::default();
        let namespace = pod::namespace(pod);
        let Names { config_maps, secrets } = Names::of(pod);
        for name in config_maps {
            let object = agent.objects.config_map(namespace, &name);
            held.config_maps.insert(name, object);
        }
        for name in secrets {
            let object = agent.objects.secret(namespace, &name);
            held.secrets.insert(name, object);
        }
        held
    }

    /// One counter of changes per object.
    pub fn changes(&self) -> Vec<tokio::sync::watch::Receiver<u64>> {
        let maps = self.config_maps.values().map(|h| h.changes());
        maps.chain(self.secrets.values().map(|h| h.changes())).collect()
    }

    /// What a container's environment names, as it is now.
    pub async fn for_env(&self, container: &k8s_openapi::api::core::v1::Container) -> containers::env::Objects {
        let (config_maps, secrets) = containers::env::references(container);
        let mut objects = containers::env::Objects::default();
        for name in config_maps {
            if let Some(held) = self.config_maps.get(&name) {
                objects.config_maps.insert(name, held.get().await);
            }
        }
        for name in secrets {
            if let Some(held) = self.secrets.get(&name) {
                objects.secrets.insert(name, held.get().await);
            }
        }
        objects
    }
}
