//! What a reset of the host asks of the node agent's crate: to find by their names, and remove, all that pods left.

use futures::future::join_all;
use mk8s_containerd::Containerd;

use crate::names;
use crate::resources::cgroup::{self, Cgroups};

/// Why containers of mk8s's may be left.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error(transparent)]
    Containerd(#[from] mk8s_containerd::Error),
    /// The others are removed.
    #[error("{left} of {all} containers stay: {source}")]
    Left {
        left: usize,
        all: usize,
        /// Of the first one.
        source: mk8s_containerd::Error,
    },
}

/// Kills and removes every container and sandbox that mk8s made: first the containers, then what they share. One that can't
/// be removed keeps none of the others.
pub async fn remove_all_pods(containerd: &Containerd) -> Result<(), RemoveError> {
    let mut outcomes = Vec::new();
    for kind in [names::CONTAINER, names::SANDBOX] {
        let found = containerd.containers(&[(names::KIND, kind)]).await?;
        outcomes.extend(join_all(found.iter().map(|container| containerd.delete(&container.id))).await);
    }
    let all = outcomes.len();
    let mut failed = outcomes.into_iter().filter_map(Result::err);
    let Some(source) = failed.next() else { return Ok(()) };
    let left = 1 + failed.count();
    Err(RemoveError::Left { left, all, source })
}

/// Removes the cgroups of all pods and the tree above them, in every hierarchy. Blocking.
pub fn remove_cgroups() -> Result<(), cgroup::Error> {
    match Cgroups::detect() {
        Ok(cgroups) => cgroups.remove("/kubepods"),
        Err(cgroup::Error::NotMounted) => Ok(()),
        Err(error) => Err(error),
    }
}
