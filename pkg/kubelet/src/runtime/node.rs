//! The node as it is.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::{Accounts, ContainerSpec, Containerd, ExecOutput, Exit, Image, Keychain, PullError, Task};
use mk8s_supervisor::job;
use tokio::sync::OnceCell;

use super::{Attached, Call, Error, Found, Made, Runtime};
use crate::resources::cgroup::{self, Cgroups};
use crate::resources::qos::Class;
use crate::{names, netns};

pub struct Node {
    containerd: Containerd,
    network: netns::Handle,
    cgroups: Cgroups,
    /// The pause image that replaces the one in the binary.
    pause_name: Option<String>,
    pause: OnceCell<Image>,
}

impl Node {
    pub fn new(containerd: Containerd, network: netns::Handle, cgroups: Cgroups, pause_name: Option<String>) -> Self {
        Self {
            containerd,
            network,
            cgroups,
            pause_name,
            pause: OnceCell::new(),
        }
    }

    async fn make_pause_image(&self) -> Result<Image, Error> {
        let Some(name) = &self.pause_name else {
            return Ok(self.containerd.ensure_pause_image().await?);
        };
        if let Some(image) = self.containerd.image(name).await? {
            return Ok(image);
        }
        Ok(self.containerd.pull(name, &Keychain::default()).await?)
    }
}

/// What containerd does not have is an answer.
fn if_there<T>(result: Result<T, mk8s_containerd::Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Runtime for Node {
    fn image<'a>(&'a self, name: &'a str) -> Call<'a, Option<Image>> {
        async move { Ok(self.containerd.image(name).await?) }.boxed()
    }

    fn pull<'a>(&'a self, name: &'a str, keychain: &'a Keychain) -> BoxFuture<'a, Result<Image, PullError>> {
        self.containerd.pull(name, keychain).boxed()
    }

    fn accounts<'a>(&'a self, image: &'a Image) -> Call<'a, Arc<Accounts>> {
        async move { Ok(self.containerd.accounts(image).await?) }.boxed()
    }

    /// Made once, when the first pod needs it.
    fn pause_image(&self) -> Call<'_, Image> {
        async move { self.pause.get_or_try_init(|| self.make_pause_image()).await.cloned() }.boxed()
    }

    fn oci_runtime<'a>(&'a self, handler: &'a str) -> Call<'a, Option<mk8s_containerd::Runtime>> {
        async move { Ok(self.containerd.runtimes().await?.get(handler).cloned()) }.boxed()
    }

    fn create(&self, spec: ContainerSpec) -> Call<'_, Made> {
        let creating = self.containerd.create(spec);
        async move {
            let container = creating.await?;
            Ok(Made {
                id: container.id.clone(),
                container: Some(container),
            })
        }
        .boxed()
    }

    fn create_task<'a>(&'a self, made: &'a Made) -> Call<'a, u32> {
        async move {
            let pid = match &made.container {
                Some(container) => self.containerd.create_task(container).await?,
                None => {
                    let container = self.containerd.container(&made.id).await?;
                    self.containerd.create_task(&container).await?
                }
            };
            Ok(pid)
        }
        .boxed()
    }

    fn start_task<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        async move { Ok(self.containerd.start_task(id).await?) }.boxed()
    }

    fn kill<'a>(&'a self, id: &'a str, signal: i32, all: bool) -> Call<'a, ()> {
        async move { Ok(self.containerd.kill(id, signal, all).await?) }.boxed()
    }

    fn wait<'a>(&'a self, id: &'a str) -> Call<'a, Option<Exit>> {
        async move { if_there(self.containerd.wait(id).await) }.boxed()
    }

    fn task<'a>(&'a self, id: &'a str) -> Call<'a, Option<Task>> {
        async move { if_there(self.containerd.task(id).await) }.boxed()
    }

    fn delete_task<'a>(&'a self, id: &'a str) -> Call<'a, Option<Exit>> {
        async move { Ok(self.containerd.delete_task(id).await?) }.boxed()
    }

    fn delete<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        async move { Ok(self.containerd.delete(id).await?) }.boxed()
    }

    fn containers_of<'a>(&'a self, uid: &'a str) -> Call<'a, Vec<Found>> {
        async move {
            let containers = self.containerd.containers(&[(names::POD_UID, uid)]).await?;
            let with_tasks = containers.into_iter().map(async |container| {
                let task = if_there(self.containerd.task(&container.id).await)?;
                Ok(Found::new(container, task))
            });
            futures::future::try_join_all(with_tasks).await
        }
        .boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, command: &'a [String], limit: Duration) -> Call<'a, ExecOutput> {
        async move {
            let container = self.containerd.container(id).await?;
            Ok(self.containerd.exec_sync(&container, command, limit).await?)
        }
        .boxed()
    }

    fn network_is_open(&self) -> bool {
        self.network.ready()
    }

    fn until_network_is_open(&self) -> BoxFuture<'_, ()> {
        async move {
            if self.network.get().await.is_none() {
                // The agent shuts down, and whoever waits here with it.
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn has_network(&self, uid: &str) -> bool {
        match self.network.now() {
            Some(network) => network.address(uid).is_some(),
            None => mk8s_network::netns::exists(uid),
        }
    }

    fn attach<'a>(&'a self, uid: &'a str) -> Call<'a, Attached> {
        async move {
            let network = self.network.now().ok_or(Error::NetworkNotOpen)?;
            let begun = network.begin(uid).await?;
            Ok(Attached {
                address: begun.address().clone(),
                begun: Some(begun),
            })
        }
        .boxed()
    }

    fn connect(&self, attached: Attached) -> Call<'_, ()> {
        async move {
            let begun = attached.begun.ok_or(Error::NotBegun)?;
            Ok(begun.connect().await?)
        }
        .boxed()
    }

    fn detach<'a>(&'a self, uid: &'a str) -> Call<'a, ()> {
        async move {
            let network = self.network.now().ok_or(Error::NetworkNotOpen)?;
            Ok(network.detach(uid).await?)
        }
        .boxed()
    }

    fn ensure_cgroup<'a>(&'a self, pod: &'a Arc<Pod>) -> Call<'a, String> {
        let (cgroups, pod) = (self.cgroups.clone(), pod.clone());
        async move { Ok(job::blocking("pod-cgroup", move || cgroups.ensure_pod(&pod)).await??) }.boxed()
    }

    fn remove_cgroup<'a>(&'a self, uid: &'a str) -> Call<'a, ()> {
        let (cgroups, uid) = (self.cgroups.clone(), uid.to_owned());
        let remove = move || {
            let classes = [Class::Guaranteed, Class::Burstable, Class::BestEffort];
            classes
                .into_iter()
                .try_for_each(|class| cgroups.remove(&cgroup::pod_path(class, &uid)))
        };
        async move { Ok(job::blocking("pod-cgroup", remove).await??) }.boxed()
    }

    fn oom_killed(&self, cgroup: &str) -> bool {
        self.cgroups.oom_killed(cgroup)
    }
}
