//! apps/v1.

use super::row::row;
use super::{Resource, Support, columns};
use crate::defaults;

pub(super) fn rows() -> Vec<Resource> {
    let apps = |kind, plural| row("apps", "v1", kind, plural);
    vec![
        apps("ControllerRevision", "controllerrevisions").columns(columns::controller_revision()),
        apps("DaemonSet", "daemonsets")
            .columns(columns::daemon_set())
            .short(&["ds"])
            .default(defaults::daemon_set)
            .prepare(defaults::daemon_set_create, defaults::daemon_set_update)
            .category("all")
            .generation()
            .status()
            .support(Support::StoredOnly),
        apps("Deployment", "deployments")
            .columns(columns::deployment())
            .short(&["deploy"])
            .default(defaults::deployment)
            .prepare(defaults::deployment_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .scale()
            .status(),
        apps("ReplicaSet", "replicasets")
            .columns(columns::replica_set())
            .short(&["rs"])
            .default(defaults::replica_set)
            .prepare(defaults::replicas_status_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .scale()
            .status()
            .fields(&["status.replicas"]),
        apps("StatefulSet", "statefulsets")
            .columns(columns::stateful_set())
            .short(&["sts"])
            .default(defaults::stateful_set)
            .prepare(defaults::stateful_set_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .scale()
            .status()
            .support(Support::StoredOnly),
    ]
}
