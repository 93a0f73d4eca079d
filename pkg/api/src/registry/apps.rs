//! apps/v1.

use super::row::{CHANGED_COMPLETE, row};
use super::{ChangeOrder, NameRule, Resource, columns, gates};
use crate::{defaults, validation};

#[expect(clippy::too_many_lines, reason = "a table: one row a kind")]
pub(super) fn rows() -> Vec<Resource> {
    let apps = |kind, plural| row("apps", "v1", kind, plural);
    vec![
        apps("ControllerRevision", "controllerrevisions")
            .metadata_checks(CHANGED_COMPLETE)
            .validate(validation::controller_revision)
            .validate_update(validation::controller_revision_update)
            .columns(columns::controller_revision()),
        apps("DaemonSet", "daemonsets")
            .gates(gates::TEMPLATE)
            .validate(validation::daemon_set)
            .validate_status(validation::daemon_set_status)
            .preparing_status(defaults::daemon_set_status)
            .validate_update(validation::selector_update)
            .change_order(ChangeOrder::ChangeFirst)
            .warnings(validation::pod_template_warnings)
            .columns(columns::daemon_set())
            .short(&["ds"])
            .default(defaults::daemon_set)
            .prepare(defaults::daemon_set_create, defaults::daemon_set_update)
            .category("all")
            .generation()
            .status(),
        apps("Deployment", "deployments")
            .gates(gates::TEMPLATE)
            .validate(validation::deployment)
            .validate_status(validation::deployment_status)
            .validate_update(validation::selector_update)
            .warnings(validation::named_template_warnings)
            .columns(columns::deployment())
            .short(&["deploy"])
            .default(defaults::deployment)
            .prepare(defaults::reset_status, defaults::deployment_update)
            .category("all")
            .generation()
            .scale()
            .status(),
        apps("ReplicaSet", "replicasets")
            .gates(gates::TEMPLATE)
            .validate(validation::replica_set)
            .validate_status(validation::replicas_status)
            .validate_update(validation::selector_update)
            .warnings(validation::named_template_warnings)
            .columns(columns::replica_set())
            .short(&["rs"])
            .default(defaults::replica_set)
            .prepare(defaults::replicas_status_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .scale()
            .status(),
        apps("StatefulSet", "statefulsets")
            .named(NameRule::DnsLabel)
            .gates(gates::STATEFUL)
            .validate(validation::stateful_set)
            .validate_status(validation::stateful_set_status)
            .validate_update(validation::stateful_set_update)
            .warnings(validation::stateful_set_warnings)
            .columns(columns::stateful_set())
            .short(&["sts"])
            .default(defaults::stateful_set)
            .prepare(defaults::stateful_set_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .scale()
            .status(),
    ]
}
