//! What a reset of the host asks of the node agent's crate: to find by their names, and remove, all that pods left.

use mk8s_containerd::{Containerd, Result};

use crate::names;
use crate::resources::cgroup::{self, Cgroups};

/// Kills and removes every container and sandbox that mk8s made: first the containers, then what they share.
pub async fn remove_all_pods(containerd: &Containerd) -> Result<()> {
    for kind in [names::CONTAINER, names::SANDBOX] {
        let found = containerd.containers(&[(names::KIND, kind)]).await?;
        let removals = found.iter().map(|container| containerd.delete(&container.id));
        for removed in futures::future::join_all(removals).await {
            removed?;
        }
    }
    Ok(())
}

/// Removes the cgroups of all pods and the tree above them, in every hierarchy. Blocking.
pub fn remove_cgroups() -> std::result::Result<(), cgroup::Error> {
    match Cgroups::detect() {
        Ok(cgroups) => cgroups.remove("/kubepods"),
        Err(cgroup::Error::NotMounted) => Ok(()),
        Err(error) => Err(error),
    }
}
