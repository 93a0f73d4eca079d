//! Workload kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::super::Column;
use super::{age, boolean, containers, int, integer, labels, name, selector, text};
use crate::{meta, time};

const TEMPLATE: &[&str] = &["spec", "template", "spec"];
const JOB_TEMPLATE: &[&str] = &["spec", "jobTemplate", "spec", "template", "spec"];

fn container_columns() -> [Column; 2] {
    [
        text("Containers", "Names of the containers in the template.", |object, _| {
            containers(object, TEMPLATE, "name")
        })
        .wide(),
        text("Images", "Images of the containers in the template.", |object, _| {
            containers(object, TEMPLATE, "image")
        })
        .wide(),
    ]
}

fn selector_column() -> Column {
    text("Selector", "Labels by which it finds its pods.", |object, _| {
        selector(object, &["spec", "selector"])
    })
    .wide()
}

fn of(object: &Value, ready: &[&str]) -> Value {
    let desired = meta::i64_at(object, &["spec", "replicas"]).unwrap_or(0);
    format!("{}/{desired}", meta::i64_at(object, ready).unwrap_or(0)).into()
}

pub fn deployment() -> Vec<Column> {
    let mut columns = vec![
        name(),
        text("Ready", "Pods that are ready, of those wanted.", |object, _| {
            of(object, &["status", "readyReplicas"])
        }),
        text("Up-to-date", "Pods of the newest template.", |object, _| {
            int(object, &["status", "updatedReplicas"])
        }),
        text("Available", "Pods that have been ready long enough.", |object, _| {
            int(object, &["status", "availableReplicas"])
        }),
        age(),
    ];
    columns.extend(container_columns());
    columns.push(
        text("Selector", "Labels by which it finds its pods.", |object, _| {
            let selector = meta::at(object, &["spec", "selector"]).unwrap_or(&Value::Null);
            crate::selectors::LabelSelector::from_json(selector)
                .map_or_else(|_| "<invalid>".into(), |selector| selector.to_string().into())
        })
        .wide(),
    );
    columns
}

pub fn replica_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        integer("Desired", "Pods wanted.", |object, _| {
            int(object, &["spec", "replicas"])
        }),
        integer("Current", "Pods there are.", |object, _| {
            int(object, &["status", "replicas"])
        }),
        integer("Ready", "Pods that are ready.", |object, _| {
            int(object, &["status", "readyReplicas"])
        }),
        age(),
    ];
    columns.extend(container_columns());
    columns.push(selector_column());
    columns
}

pub fn replication_controller() -> Vec<Column> {
    let mut columns = replica_set();
    columns.pop();
    columns.push(
        text("Selector", "Labels by which it finds its pods.", |object, _| {
            labels(object, &["spec", "selector"])
        })
        .wide(),
    );
    columns
}

/// Of a Scale, which is a view of any of these, or of a custom resource.
pub fn scale(is_custom: bool) -> Vec<Column> {
    fn replicas(scale: &Value, part: &str) -> Value {
        meta::i64_at(scale, &[part, "replicas"]).unwrap_or(0).into()
    }
    let plain = Column {
        format: "".into(),
        ..name()
    };
    let mut columns = if is_custom {
        super::custom_default()
    } else {
        vec![plain, age()]
    };
    let replicas = [
        integer("Desired", "How many instances are wanted.", |scale, _| {
            replicas(scale, "spec")
        }),
        integer("Available", "How many instances there are.", |scale, _| {
            replicas(scale, "status")
        }),
    ];
    columns.splice(1..1, replicas);
    columns
}

pub fn stateful_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        text("Ready", "Pods that are ready, of those wanted.", |object, _| {
            of(object, &["status", "readyReplicas"])
        }),
        age(),
    ];
    columns.extend(container_columns());
    columns
}

pub fn daemon_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        integer("Desired", "Nodes that should run its pod.", |object, _| {
            int(object, &["status", "desiredNumberScheduled"])
        }),
        integer("Current", "Nodes that have its pod and should.", |object, _| {
            int(object, &["status", "currentNumberScheduled"])
        }),
        integer("Ready", "Nodes whose pod is ready.", |object, _| {
            int(object, &["status", "numberReady"])
        }),
        integer(
            "Up-to-date",
            "Nodes whose pod is of the newest template.",
            |object, _| int(object, &["status", "updatedNumberScheduled"]),
        ),
        integer(
            "Available",
            "Nodes whose pod has been ready long enough.",
            |object, _| int(object, &["status", "numberAvailable"]),
        ),
        text("Node Selector", "Labels of the nodes it is for.", |object, _| {
            labels(object, &["spec", "template", "spec", "nodeSelector"])
        }),
        age(),
    ];
    columns.extend(container_columns());
    columns.push(selector_column());
    columns
}

pub fn pod_template() -> Vec<Column> {
    vec![
        name(),
        text("Containers", "Names of the containers in the template.", |object, _| {
            containers(object, &["template", "spec"], "name")
        }),
        text("Images", "Images of the containers in the template.", |object, _| {
            containers(object, &["template", "spec"], "image")
        }),
        text("Pod Labels", "Labels of the pods made from it.", |object, _| {
            labels(object, &["template", "metadata", "labels"])
        }),
    ]
}

pub fn job() -> Vec<Column> {
    let mut columns = vec![
        name(),
        text("Status", "Where the job stands.", |job, _| job_status(job).into()),
        text("Completions", "Pods that succeeded, of those needed.", |job, _| {
            completions(job).into()
        }),
        text("Duration", "How long it has run, or ran.", |job, now| {
            job_duration(job, now).into()
        }),
        age(),
    ];
    columns.extend(container_columns());
    columns.push(selector_column());
    columns
}

fn job_status(job: &Value) -> &'static str {
    let has = |type_: &str| meta::condition_is_true(job, type_);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if meta::is_deleting(job) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = meta::i64_at(job, &["status", "succeeded"]).unwrap_or(0);
    if let Some(wanted) = meta::i64_at(job, &["spec", "completions"]) {
        return format!("{succeeded}/{wanted}");
    }
    match meta::i64_at(job, &["spec", "parallelism"]).unwrap_or(0) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let at = |key: &str| meta::str_at(job, &["status", key]).and_then(time::parse);
    match at("startTime") {
        None => String::new(),
        Some(start) => time::human_duration(at("completionTime").unwrap_or(now).duration_since(start)),
    }
}

pub fn cron_job() -> Vec<Column> {
    vec![
        name(),
        text("Schedule", "When it runs, in cron's format.", |object, _| {
            meta::string(object, &["spec", "schedule"]).into()
        }),
        text("Timezone", "Time zone of the schedule.", |object, _| {
            meta::str_at(object, &["spec", "timeZone"]).unwrap_or("<none>").into()
        }),
        boolean(
            "Suspend",
            "Whether further runs are held back.",
            |object, _| match meta::bool_at(object, &["spec", "suspend"]) {
                Some(true) => "True".into(),
                Some(false) => "False".into(),
                None => "<unset>".into(),
            },
        ),
        integer("Active", "Jobs that run now.", |object, _| {
            meta::items(object, &["status", "active"]).len().into()
        }),
        text(
            "Last Schedule",
            "Time since the last run was due.",
            |object, now| match meta::str_at(object, &["status", "lastScheduleTime"]) {
                Some(at) => time::age(Some(at), now).into(),
                None => "<none>".into(),
            },
        ),
        age(),
        text("Containers", "Names of the containers in the template.", |object, _| {
            containers(object, JOB_TEMPLATE, "name")
        })
        .wide(),
        text("Images", "Images of the containers in the template.", |object, _| {
            containers(object, JOB_TEMPLATE, "image")
        })
        .wide(),
        text("Selector", "Labels by which it finds its pods.", |object, _| {
            selector(object, &["spec", "jobTemplate", "spec", "selector"])
        })
        .wide(),
    ]
}

pub fn controller_revision() -> Vec<Column> {
    vec![
        name(),
        text(
            "Controller",
            "Object whose history it is part of.",
            |object, _| match meta::controller_ref(object) {
                None => "<none>".into(),
                Some(owner) => {
                    let (group, _) = meta::split_api_version(meta::string(owner, &["apiVersion"]));
                    let kind = crate::status::qualified(group, meta::string(owner, &["kind"]));
                    format!("{}/{}", kind.to_lowercase(), meta::string(owner, &["name"])).into()
                }
            },
        ),
        text("Revision", "Its number.", |object, _| int(object, &["revision"])),
        age(),
    ]
}

pub fn disruption_budget() -> Vec<Column> {
    vec![
        name(),
        text("Min Available", "Pods that must stay available.", |object, _| {
            budget(object, "minAvailable")
        }),
        text("Max Unavailable", "Pods that may be unavailable.", |object, _| {
            budget(object, "maxUnavailable")
        }),
        integer("Allowed Disruptions", "Pods that may be evicted now.", |object, _| {
            int(object, &["status", "disruptionsAllowed"])
        }),
        age(),
    ]
}

fn budget(object: &Value, key: &str) -> Value {
    meta::at(object, &["spec", key]).map_or_else(|| "N/A".into(), |value| super::scalar(value).into())
}

pub fn autoscaler() -> Vec<Column> {
    vec![
        name(),
        text("Reference", "What it scales.", |object, _| {
            let target = |key: &str| meta::string(object, &["spec", "scaleTargetRef", key]).to_string();
            format!("{}/{}", target("kind"), target("name")).into()
        }),
        text("Targets", "Measured and wanted, per metric.", |object, _| {
            metrics(object).into()
        }),
        text("MinPods", "Fewest pods.", |object, _| {
            meta::at(object, &["spec", "minReplicas"])
                .map_or_else(|| "<unset>".into(), |value| super::scalar(value).into())
        }),
        text("MaxPods", "Most pods.", |object, _| {
            int(object, &["spec", "maxReplicas"])
        }),
        text("Replicas", "Pods there are.", |object, _| {
            int(object, &["status", "currentReplicas"])
        }),
        age(),
    ]
}

fn metrics(object: &Value) -> String {
    const MAX: usize = 2;
    // the form of v1 has one target in a field of its own
    if let Some(target) = meta::i64_at(object, &["spec", "targetCPUUtilizationPercentage"]) {
        let current = meta::i64_at(object, &["status", "currentCPUUtilizationPercentage"])
            .map_or_else(|| "<unknown>".into(), |current| format!("{current}%"));
        return format!("cpu: {current}/{target}%");
    }
    let specs = meta::items(object, &["spec", "metrics"]);
    if specs.is_empty() {
        return "<none>".into();
    }
    let statuses = meta::items(object, &["status", "currentMetrics"]);
    let mut list: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, statuses.get(index)))
        .collect();
    let count = list.len();
    list.truncate(MAX);
    let text = list.join(", ");
    if count > MAX {
        format!("{text} + {} more...", count - MAX)
    } else {
        text
    }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let source = match meta::string(spec, &["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let current = |key: &str| {
        status
            .and_then(|status| meta::at(status, &[source, "current", key]))
            .map(super::scalar)
    };
    let target = |key: &str| meta::at(spec, &[source, "target", key]).map(super::scalar);
    let unknown = || "<unknown>".to_string();
    match source {
        "external" | "object" => match target("averageValue") {
            Some(target) => format!("{}/{target} (avg)", current("averageValue").unwrap_or_else(unknown)),
            None => format!(
                "{}/{}",
                current("value").unwrap_or_else(unknown),
                target("value").unwrap_or_default()
            ),
        },
        "pods" => format!(
            "{}/{}",
            current("averageValue").unwrap_or_else(unknown),
            target("averageValue").unwrap_or_default()
        ),
        _ => {
            let name = meta::string(spec, &[source, "name"]);
            match target("averageValue") {
                Some(target) => format!("{name}: {}/{target}", current("averageValue").unwrap_or_else(unknown)),
                None => {
                    let current = current("averageUtilization").map_or_else(unknown, |value| format!("{value}%"));
                    let target =
                        target("averageUtilization").map_or_else(|| "<auto>".to_string(), |value| format!("{value}%"));
                    format!("{name}: {current}/{target}")
                }
            }
        }
    }
}
