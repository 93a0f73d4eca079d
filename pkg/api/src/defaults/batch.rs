//! Jobs and CronJobs.

use serde_json::{Map, Value};

use super::{Object, each, get, object, pod_template, text, unset, value};

pub fn job(job: &mut Value) {
    // A job without labels has its template's, with those that the server adds to them.
    let unlabelled = crate::meta::labels(job).is_none_or(Map::is_empty);
    let templates = crate::meta::map_at(job, &["spec", "template", "metadata", "labels"]);
    if unlabelled && templates.is_some_and(|labels| !labels.is_empty()) {
        super::prepare::generated_labels(job);
    }
    let Value::Object(map) = job else { return };
    object(map, "status");
    let labels = object(map, "spec").and_then(|spec| {
        job_spec_of_job(spec);
        spec.get("template")?.get("metadata")?.get("labels").cloned()
    });
    if let Some(labels @ Value::Object(_)) = labels {
        super::apps::labels_from(job, labels);
    }
}

fn job_spec_of_job(spec: &mut Object) {
    job_spec(spec);
    if unset(spec, "completions") && unset(spec, "parallelism") {
        value(spec, "completions", 1);
    }
    value(spec, "parallelism", 1);
    let limit = if unset(spec, "backoffLimitPerIndex") {
        6
    } else {
        i64::from(i32::MAX)
    };
    value(spec, "backoffLimit", limit);
    value(spec, "completionMode", "NonIndexed");
    value(spec, "suspend", false);
    let replacement = if unset(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    value(spec, "podReplacementPolicy", replacement);
    value(spec, "manualSelector", false);
}

/// What a job template shares with a job.
fn job_spec(spec: &mut Object) {
    pod_template(spec);
    if let Some(policy) = get(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                text(pattern, "status", "True");
            }
        }
    }
}

pub fn cron_job(cron_job: &mut Value) {
    let Value::Object(map) = cron_job else { return };
    object(map, "status");
    let Some(spec) = object(map, "spec") else { return };
    text(spec, "concurrencyPolicy", "Allow");
    value(spec, "suspend", false);
    value(spec, "successfulJobsHistoryLimit", 3);
    value(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = object(spec, "jobTemplate") {
        object(template, "metadata");
        if let Some(spec) = object(template, "spec") {
            job_spec(spec);
        }
    }
}
