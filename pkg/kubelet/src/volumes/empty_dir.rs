//! emptyDir: a directory (or a tmpfs) that begins empty and goes with the pod.

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::driver::{Driver, Request};
use super::record::{Record, Step};
use super::{Error, PodDir, folder, fs_group, tmpfs};
use crate::pod;

pub struct EmptyDir;

fn in_memory(volume: &Volume) -> bool {
    let medium = volume.empty_dir.as_ref().and_then(|e| e.medium.as_deref());
    medium == Some("Memory")
}

impl Driver for EmptyDir {
    fn plugin(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn claims(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn is_durable(&self, volume: &Volume) -> bool {
        !in_memory(volume)
    }

    fn ensure(&self, step: Step, request: &Request<'_>, record: &mut Record) -> Result<(), Error> {
        let name = &request.volume.name;
        let parent = folder::ensure(request.dir, self.plugin())?;
        let (mut root, made) = parent.ensure_dir(name, 0o777)?;
        let mut new_life = made || !record.is_done(step);
        if in_memory(request.volume) {
            let mounted = tmpfs::ensure(&parent, name, size(request), record)?;
            root = parent.dir(name)?;
            new_life |= mounted;
        }
        // Once in its life: what the pod's containers made of it since is theirs.
        if new_life {
            root.chmod(0o777)?;
            if let Some(group) = fs_group(request.pod) {
                root.chown_group(group)?;
                root.chmod(0o2777)?;
            }
        }
        Ok(())
    }

    fn undo(&self, _step: Step, dir: &PodDir, volume: &str, record: &Record) -> Result<(), Error> {
        let Some(parent) = folder::find(dir, self.plugin())? else {
            return Ok(());
        };
        let was_mounted = tmpfs::remove(&parent, volume, record)?;
        folder::remove(&parent, volume, was_mounted)
    }
}

fn size(request: &Request<'_>) -> Option<i64> {
    let limit = request.volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
    let limit = limit.map(crate::resources::value).filter(|size| *size > 0);
    limit.or_else(|| memory_limit(request.pod))
}

/// A memory volume can't hold more than the pod may use: the sum of its containers' limits, if all have one.
fn memory_limit(pod: &Pod) -> Option<i64> {
    let limits: Option<Vec<i64>> = pod::containers(pod)
        .iter()
        .map(|c| crate::resources::limit(c, "memory").filter(|m| *m > 0))
        .collect();
    Some(limits?.iter().sum())
}
