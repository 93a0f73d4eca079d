//! What is mounted into a container: its volumes, and the files by which the pod names itself.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use mk8s_containerd::spec::{Mount, Propagation};

use super::env::Env;
use super::expansion::{TooLong, expand};
use crate::agent::Agent;
use crate::volumes::{self, Paths, PodDir, subpath};
use crate::{pod, sandbox};
use mk8s_dirfd::found;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot find volume \"{0}\" to mount into container \"{1}\"")]
    Volume(String, String),
    #[error("failed to prepare subPath for volumeMount \"{name}\" of container \"{container}\": {source}")]
    SubPath {
        name: String,
        container: String,
        source: volumes::Error,
    },
    #[error(transparent)]
    Dir(#[from] mk8s_dirfd::Error),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The kernel takes no longer path.
const PATH_LIMIT: usize = 4096;

pub const DEFAULT_TERMINATION_PATH: &str = "/dev/termination-log";

pub struct Request {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub attempt: u32,
    pub volumes: Arc<Paths>,
    pub env: Env,
}

impl Request {
    /// Blocking: links are resolved and subPaths bound here.
    pub fn resolve(&self) -> Result<Vec<Mount>, Error> {
        let mut mounts = Vec::new();
        for (index, mount) in self.container.volume_mounts.iter().flatten().enumerate() {
            mounts.push(self.volume_mount(index, mount)?);
        }
        let taken = |mounts: &[Mount], path: &str| mounts.iter().any(|m| m.container_path == path);
        let files = sandbox::Files::of(&self.agent, pod::uid(&self.pod));
        let read_only = self
            .container
            .security_context
            .as_ref()
            .and_then(|s| s.read_only_root_filesystem)
            .unwrap_or(false);
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let hosts = dir.etc_hosts();
        let mut own = vec![
            ("/etc/hosts", hosts, false),
            ("/etc/resolv.conf", files.resolv_conf(), read_only),
        ];
        if !pod::host_network(&self.pod) {
            own.push(("/etc/hostname", files.hostname(), read_only));
        } else if Path::new("/etc/hostname").exists() {
            own.push(("/etc/hostname", PathBuf::from("/etc/hostname"), read_only));
        }
        let shm = if pod::spec(&self.pod).host_ipc.unwrap_or(false) {
            "/dev/shm".into()
        } else {
            files.shm()
        };
        own.push(("/dev/shm", shm, false));
        for (path, host_path, readonly) in own {
            if !taken(&mounts, path) {
                mounts.push(Mount {
                    container_path: path.to_owned(),
                    host_path,
                    readonly,
                    ..Mount::default()
                });
            }
        }
        mounts.push(self.termination_mount()?);
        Ok(mounts)
    }

    fn volume_mount(&self, index: usize, mount: &VolumeMount) -> Result<Mount, Error> {
        let container = &self.container.name;
        let missing = || Error::Volume(mount.name.clone(), container.clone());
        let volume = self.volumes.get(&mount.name).ok_or_else(missing)?;
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) if !expression.is_empty() => Some(self.sub_path_of(expression)?),
            (_, Some(sub)) if !sub.is_empty() => Some(sub.clone()),
            _ => None,
        };
        let host_path = match sub {
            None => fs::canonicalize(volume).unwrap_or_else(|_| volume.clone()),
            Some(sub) => self.sub_path(index, mount, volume, &sub)?,
        };
        Ok(Mount {
            container_path: mount.mount_path.clone(),
            host_path,
            // What comes from the API is only read, whatever the pod says.
            readonly: mount.read_only.unwrap_or(false) || !volumes::is_writable(&self.pod, &mount.name),
            recursive_readonly: false,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        })
    }

    fn sub_path_of(&self, expression: &str) -> Result<String, TooLong> {
        let known = |name: &str| self.env.get(name).map(String::as_str);
        expand(expression, PATH_LIMIT, known).ok_or(TooLong {
            what: "subPathExpr",
            limit: PATH_LIMIT,
        })
    }

    fn sub_path(&self, index: usize, mount: &VolumeMount, volume: &Path, sub: &str) -> Result<PathBuf, Error> {
        let part = subpath::Part {
            volume: &mount.name,
            source: volume,
            sub,
            container: &self.container.name,
            index,
            shared: mount.mount_propagation.as_deref() == Some("Bidirectional"),
        };
        let bound = self.agent.volumes.bind_subpath(pod::uid(&self.pod), &part);
        bound.map_err(|source| Error::SubPath {
            name: mount.name.clone(),
            container: self.container.name.clone(),
            source,
        })
    }

    fn termination_mount(&self) -> Result<Mount, Error> {
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let below = Path::new("containers").join(&self.container.name);
        let (parent, _) = dir.create()?.ensure_dir(&below, 0o750)?;
        // Whatever user the container runs as, it may write here.
        parent.replace_file(&message_file(self.attempt), b"", 0o666, false)?;
        let inside = self
            .container
            .termination_message_path
            .clone()
            .filter(|p| !p.is_empty());
        Ok(Mount {
            container_path: inside.unwrap_or_else(|| DEFAULT_TERMINATION_PATH.to_owned()),
            host_path: parent.path().join(message_file(self.attempt)),
            ..Mount::default()
        })
    }
}

fn message_file(attempt: u32) -> String {
    format!("{attempt}.message")
}

/// Nobody asks any more for the last words of this life.
pub fn forget_message(pod: &PodDir, container: &str, attempt: u32) -> mk8s_dirfd::Result<()> {
    let below = Path::new("containers").join(container);
    let removed = pod
        .open()
        .and_then(|dir| dir.dir(&below)?.remove_file(message_file(attempt)));
    found(removed).map(drop)
}

/// A container's last words: what it wrote to its termination message, up to `limit` bytes.
pub fn termination_message(agent: &Agent, pod: &Pod, container: &str, attempt: u32, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let below = Path::new("containers").join(container).join(message_file(attempt));
    let read = agent.pod_dir(pod::uid(pod)).open().and_then(|dir| dir.file(&below));
    // A container that never began has no file.
    if let Ok(file) = read {
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    bytes
}
