//! apps/v1.

use super::row::row;
use super::{Resource, Support};

pub(super) fn rows() -> Vec<Resource> {
    let apps = |kind, plural| row("apps", "v1", kind, plural);
    vec![
        apps("ControllerRevision", "controllerrevisions"),
        apps("DaemonSet", "daemonsets")
            .short(&["ds"])
            .category("all")
            .generation()
            .status()
            .support(Support::StoredOnly),
        apps("Deployment", "deployments")
            .short(&["deploy"])
            .category("all")
            .generation()
            .scale()
            .status(),
        apps("ReplicaSet", "replicasets")
            .short(&["rs"])
            .category("all")
            .generation()
            .scale()
            .status()
            .fields(&["status.replicas"]),
        apps("StatefulSet", "statefulsets")
            .short(&["sts"])
            .category("all")
            .generation()
            .scale()
            .status()
            .support(Support::StoredOnly),
    ]
}
