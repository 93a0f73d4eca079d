//! Container records: what containerd keeps about a container whether or not it runs.
//!
//! The record carries all that is needed to run, attach to and adopt the container after a restart of mk8s: its stdio
//! is written down in labels, its snapshot has the container's own id.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::container;
use containerd_client::types::Mount;
use oci_spec::runtime::Spec;
use prost_types::Any;

use crate::client::{Containerd, call, message};
use crate::error::{Error, Result, gone_is_fine};
use crate::image::Image;
use crate::runtimes::Runtime;

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const LABEL_LOG: &str = "mk8s.io/log-path";
const LABEL_STDIN: &str = "mk8s.io/stdin";
const LABEL_TTY: &str = "mk8s.io/tty";

/// What a container's three streams are connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// CRI-format log file; `None`: output goes to /dev/null (the pause container).
    pub log_path: Option<PathBuf>,
    /// Keeps stdin open for `attach`.
    pub stdin: bool,
    pub tty: bool,
}

/// What to create.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    pub id: String,
    pub image: Image,
    pub labels: HashMap<String, String>,
    /// Its config.json, as [`crate::spec`] builds it.
    pub oci: serde_json::Value,
    pub stdio: Stdio,
    /// That of its sandbox, from [`Containerd::runtimes`].
    pub runtime: Runtime,
}

/// A container as containerd has it.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    /// Name of the image record that it was made from.
    pub image: String,
    pub labels: HashMap<String, String>,
    pub stdio: Stdio,
    pub created_at: SystemTime,
    pub(crate) snapshotter: String,
    pub(crate) snapshot_key: String,
    pub(crate) runtime_options: Option<Any>,
    /// Fresh from `create`: the start needs not ask for them.
    pub(crate) mounts: Vec<Mount>,
}

/// A container as it is about to be created.
struct Plan {
    record: api::Container,
    image: Image,
    /// Paths in the image, and the directories that are to hold copies of them.
    volumes: Vec<(String, PathBuf)>,
}

impl Containerd {
    /// Makes the container's writable snapshot and its record. A failure leaves neither.
    pub fn create(&self, spec: ContainerSpec) -> impl Future<Output = Result<Container>> + Send + '_ {
        // Encoded here and now: the future holds the record's bytes, not the spec's tree, which is large.
        let planned = self.plan(spec);
        async move { self.create_planned(planned?).await }
    }

    fn plan(&self, mut spec: ContainerSpec) -> Result<Plan> {
        let volumes = self.plan_image_volumes(&spec.id, &spec.image.config, &mut spec.oci);
        Ok(Plan {
            record: record(&spec, self.snapshotter())?,
            image: spec.image,
            volumes,
        })
    }

    async fn create_planned(&self, plan: Plan) -> Result<Container> {
        let id = plan.record.id.clone();
        let mounts = self.prepare_snapshot(&id, &plan.image).await?;
        match self.create_record(plan, &mounts).await {
            Ok(record) => Ok(Container {
                mounts,
                ..from_record(record)
            }),
            Err(error) => {
                // A record that is already there owns the snapshot.
                if !error.is_already_exists() {
                    let _ = self.remove_snapshot(self.snapshotter(), &id).await;
                    let _ = self.remove_image_volumes(&id).await;
                }
                Err(error)
            }
        }
    }

    async fn create_record(&self, plan: Plan, mounts: &[Mount]) -> Result<api::Container> {
        self.make_image_volumes(plan.volumes, mounts).await?;
        let what = format!("create container {}", plan.record.id);
        let request = api::CreateContainerRequest {
            container: Some(plan.record),
        };
        let answer = call(&what, self.containers_api().create(request)).await?;
        answer
            .container
            .ok_or_else(|| Error::malformed(what, "containerd answered no record"))
    }

    pub async fn container(&self, id: &str) -> Result<Container> {
        let what = format!("get container {id}");
        let request = api::GetContainerRequest { id: id.to_owned() };
        let answer = call(&what, self.containers_api().get(request)).await?;
        answer.container.map(from_record).ok_or(Error::NotFound { what })
    }

    /// The OCI spec that a container was created with. Not kept in [`Container`]: it is tens of kilobytes.
    pub async fn container_spec(&self, id: &str) -> Result<Spec> {
        let what = format!("spec of container {id}");
        let request = api::GetContainerRequest { id: id.to_owned() };
        let answer = call(&what, self.containers_api().get(request)).await?;
        let any = answer.container.and_then(|record| record.spec);
        let any = any.ok_or_else(|| Error::malformed(&what, "the record holds none"))?;
        serde_json::from_slice(&any.value).map_err(|e| Error::malformed(what, e))
    }

    /// Containers that carry all these labels. Streamed: a full node's specs exceed one gRPC message.
    pub async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<Container>> {
        let what = "list containers";
        let request = api::ListContainersRequest {
            filters: label_filter(labels),
        };
        let mut stream = call(what, self.containers_api().list_stream(request)).await?;
        let mut found = Vec::new();
        while let Some(answer) = message(what, &mut stream).await? {
            found.extend(answer.container.map(from_record));
        }
        Ok(found)
    }

    /// Removes everything of a container: a task that still runs is killed, then task, volumes, stdio, snapshot and record
    /// go. The record is the last: what failed or was cut off before it is found by it, and done again.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.delete_task(id).await?;
        let snapshot = match self.container(id).await {
            Ok(container) => Some((container.snapshotter, container.snapshot_key)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        self.remove_image_volumes(id).await?;
        self.remove_stdio(id)?;
        let (snapshotter, key) = snapshot.unwrap_or_else(|| (self.snapshotter().to_owned(), id.to_owned()));
        self.remove_snapshot(&snapshotter, &key).await?;
        let request = api::DeleteContainerRequest { id: id.to_owned() };
        let what = format!("delete container {id}");
        gone_is_fine(call(&what, self.containers_api().delete(request)).await)
    }
}

/// `labels."k"==v,labels."k2"==v2`: comma is AND in containerd's filter language, separate filters are OR.
fn label_filter(labels: &[(&str, &str)]) -> Vec<String> {
    if labels.is_empty() {
        return Vec::new();
    }
    let terms: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("labels.{key:?}=={value:?}"))
        .collect();
    vec![terms.join(",")]
}

fn record(spec: &ContainerSpec, snapshotter: &str) -> Result<api::Container> {
    let what = || format!("encode the spec of container {}", spec.id);
    let value = serde_json::to_vec(&spec.oci).map_err(|e| Error::malformed(what(), e))?;
    let mut labels = spec.labels.clone();
    if let Some(path) = &spec.stdio.log_path {
        labels.insert(LABEL_LOG.to_owned(), path.display().to_string());
    }
    for (key, set) in [(LABEL_STDIN, spec.stdio.stdin), (LABEL_TTY, spec.stdio.tty)] {
        if set {
            labels.insert(key.to_owned(), "true".to_owned());
        }
    }
    Ok(api::Container {
        id: spec.id.clone(),
        labels,
        image: spec.image.name.clone(),
        runtime: Some(container::Runtime {
            name: spec.runtime.name.clone(),
            options: spec.runtime.options.clone(),
        }),
        spec: Some(Any {
            type_url: SPEC_TYPE.to_owned(),
            value,
        }),
        snapshotter: snapshotter.to_owned(),
        snapshot_key: spec.id.clone(),
        ..Default::default()
    })
}

fn from_record(record: api::Container) -> Container {
    let is_set = |key: &str| record.labels.get(key).is_some_and(|value| value == "true");
    let stdio = Stdio {
        log_path: record.labels.get(LABEL_LOG).map(PathBuf::from),
        stdin: is_set(LABEL_STDIN),
        tty: is_set(LABEL_TTY),
    };
    Container {
        stdio,
        created_at: record
            .created_at
            .map_or(SystemTime::UNIX_EPOCH, crate::task::system_time),
        id: record.id,
        image: record.image,
        labels: record.labels,
        snapshotter: record.snapshotter,
        snapshot_key: record.snapshot_key,
        runtime_options: record.runtime.and_then(|runtime| runtime.options),
        mounts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_filters_are_anded_and_quoted() {
        assert!(label_filter(&[]).is_empty());
        let filter = label_filter(&[("io.kubernetes.pod.uid", "a b"), ("k", "v")]);
        assert_eq!(filter, [r#"labels."io.kubernetes.pod.uid"=="a b",labels."k"=="v""#]);
    }
}
