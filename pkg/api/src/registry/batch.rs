//! batch/v1.

use super::row::{COMPLETE, row};
use super::{Resource, columns, gates};
use crate::{defaults, validation};

const ORPHANED: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

pub(super) fn rows() -> Vec<Resource> {
    let batch = |kind, plural| row("batch", "v1", kind, plural);
    vec![
        batch("CronJob", "cronjobs")
            .warnings(validation::cron_job_warnings)
            .gates(gates::CRON_JOB)
            .validate(validation::cron_job)
            .columns(columns::cron_job())
            .short(&["cj"])
            .default(defaults::cron_job)
            .prepare(defaults::reset_status, defaults::nothing_on_update)
            .category("all")
            .generation()
            .status(),
        batch("Job", "jobs")
            .gates(gates::TEMPLATE)
            .metadata_checks(COMPLETE)
            .orphans_with(ORPHANED)
            .validate(validation::job)
            .validate_update(validation::job_update)
            .validate_status(validation::job_status)
            .warnings(validation::job_warnings)
            .columns(columns::job())
            .default(defaults::job)
            .prepare(defaults::job_create, defaults::nothing_on_update)
            .category("all")
            .generation()
            .status()
            .fields(&["status.successful"]),
    ]
}
