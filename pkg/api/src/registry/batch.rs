//! batch/v1.

use super::row::row;
use super::{Resource, Support};

pub(super) fn rows() -> Vec<Resource> {
    let batch = |kind, plural| row("batch", "v1", kind, plural);
    vec![
        batch("CronJob", "cronjobs")
            .short(&["cj"])
            .category("all")
            .generation()
            .status()
            .support(Support::StoredOnly),
        batch("Job", "jobs")
            .category("all")
            .generation()
            .status()
            .fields(&["status.successful"]),
    ]
}
