//! Deployment, ReplicaSet, Job and the other kinds that hold a pod template.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::networking::domain_prefixed_path;
use super::persistent::claim_spec;
use super::rules::Scope;
use super::{
    Errors, NEGATIVE, Path, at_most_100_percent, each, flag, has, immutable, int, int_or_percent, int_or_percent_value,
    label_selector, list, non_negative, one_of, one_of_if_set, pod_template, same, text,
};
use crate::selectors::LabelSelector;
use crate::status::FieldError;
use crate::{meta as object, names};

const SPEC: Path<'static> = Path::new("spec");

fn template_of(spec: &Value) -> &Value {
    has(spec, "template").unwrap_or(&Value::Null)
}

fn template_labels(spec: &Value) -> Value {
    object::at(spec, &["template", "metadata", "labels"])
        .cloned()
        .unwrap_or(Value::Null)
}

/// `spec.selector` and that it selects the template's own labels.
fn selector(spec: &Value, kind: &str, required: bool, path: &Path<'_>, errors: &mut Errors) {
    match has(spec, "selector") {
        None if required => errors.push(FieldError::required(path.child("selector"), "")),
        None => {}
        Some(selector) => {
            label_selector(selector, &path.child("selector"), errors);
            let terms = object::map_at(selector, &["matchLabels"]).map_or(0, |map| map.len())
                + list(selector, "matchExpressions").len();
            if terms == 0 && !kind.is_empty() {
                errors.push(FieldError::invalid(
                    path.child("selector"),
                    selector.clone(),
                    format!("empty selector is invalid for {kind}"),
                ));
            }
        }
    }
}

fn selects_template(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let own = has(spec, "selector").unwrap_or(&Value::Null);
    match LabelSelector::from_json(own) {
        Err(_) => errors.push(FieldError::invalid(
            path.child("selector"),
            own.clone(),
            "invalid label selector",
        )),
        Ok(selector) => {
            if !selector.is_everything() && !selector.matches_object(template_of(spec)) {
                let template = path.child("template");
                errors.push(FieldError::invalid(
                    template.child("metadata").child("labels"),
                    template_labels(spec),
                    "`selector` does not match template `labels`",
                ));
            }
        }
    }
}

/// A template whose pods run for ever.
fn always_template(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let template = path.child("template");
    pod_template(template_of(spec), &template, errors);
    restarts_always(spec, kind, path, errors);
}

fn restarts_always(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let template = path.child("template");
    let pod_path = template.child("spec");
    let pod = has(template_of(spec), "spec").unwrap_or(&Value::Null);
    let policy = text(pod, "restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(
            pod_path.child("restartPolicy"),
            policy,
            &["Always"],
        ));
    }
    if has(pod, "activeDeadlineSeconds").is_some() {
        errors.push(FieldError::forbidden(
            pod_path.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        ));
    }
}

fn spec_of(object: &Value) -> &Value {
    has(object, "spec").unwrap_or(&Value::Null)
}

pub fn deployment(deployment: &Value, errors: &mut Errors) {
    let spec = spec_of(deployment);
    non_negative(errors, spec, "replicas", &SPEC);
    selector(spec, "deployment", true, &SPEC, errors);
    selects_template(spec, &SPEC, errors);
    always_template(spec, "ReplicaSet", &SPEC, errors);
    strategy(spec, &SPEC.child("strategy"), errors);
    non_negative(errors, spec, "minReadySeconds", &SPEC);
    non_negative(errors, spec, "revisionHistoryLimit", &SPEC);
    non_negative(errors, spec, "progressDeadlineSeconds", &SPEC);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds")
        && deadline <= int(spec, "minReadySeconds").unwrap_or(0)
    {
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        ));
    }
}

fn strategy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let strategy = has(spec, "strategy").unwrap_or(&Value::Null);
    let rolling = has(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                errors.push(FieldError::forbidden(
                    rolling_path,
                    "may not be specified when strategy `type` is 'Recreate'",
                ));
            }
        }
        "RollingUpdate" => match rolling {
            None => errors.push(FieldError::required(
                rolling_path,
                "this should be defaulted and never be nil",
            )),
            Some(rolling) => {
                let unavailable = has(rolling, "maxUnavailable");
                for key in ["maxUnavailable", "maxSurge"] {
                    if let Some(value) = has(rolling, key) {
                        int_or_percent(errors, value, &rolling_path.child(key));
                    }
                }
                if int_or_percent_value(unavailable) == 0 && int_or_percent_value(has(rolling, "maxSurge")) == 0 {
                    errors.push(FieldError::invalid(
                        rolling_path.child("maxUnavailable"),
                        unavailable.cloned().unwrap_or(Value::Null),
                        "may not be 0 when `maxSurge` is 0",
                    ));
                }
                if let Some(value) = unavailable {
                    at_most_100_percent(errors, value, &rolling_path.child("maxUnavailable"));
                }
            }
        },
        _ => errors.push(FieldError::not_supported(
            path,
            strategy.clone(),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

/// The selector of Deployment, ReplicaSet and DaemonSet never changes.
pub fn selector_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec", "selector"], "spec.selector");
}

pub fn replica_set(replica_set: &Value, errors: &mut Errors) {
    let spec = spec_of(replica_set);
    non_negative(errors, spec, "replicas", &SPEC);
    non_negative(errors, spec, "minReadySeconds", &SPEC);
    selector(spec, "deployment", true, &SPEC, errors);
    selects_template(spec, &SPEC, errors);
    always_template(spec, "ReplicaSet", &SPEC, errors);
}

pub fn replication_controller(controller: &Value, errors: &mut Errors) {
    let spec = spec_of(controller);
    non_negative(errors, spec, "minReadySeconds", &SPEC);
    let selector = object::map_at(spec, &["selector"]);
    if selector.is_none_or(|map| map.is_empty()) {
        errors.push(FieldError::required("spec.selector", ""));
    }
    non_negative(errors, spec, "replicas", &SPEC);
    if has(spec, "template").is_none() {
        errors.push(FieldError::required("spec.template", ""));
        return;
    }
    if let Some(selector) = has(spec, "selector")
        && !LabelSelector::from_map(selector).matches_object(template_of(spec))
    {
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            template_labels(spec),
            "`selector` does not match template `labels`",
        ));
    }
    always_template(spec, "ReplicationController", &SPEC, errors);
}

pub fn daemon_set(daemon_set: &Value, errors: &mut Errors) {
    let spec = spec_of(daemon_set);
    selector(spec, "daemonset", false, &SPEC, errors);
    selects_template(spec, &SPEC, errors);
    always_template(spec, "DaemonSet", &SPEC, errors);
    non_negative(errors, spec, "minReadySeconds", &SPEC);
    let path = SPEC.child("updateStrategy");
    let strategy = has(spec, "updateStrategy").unwrap_or(&Value::Null);
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = has(strategy, "rollingUpdate").unwrap_or(&Value::Null);
            let path = path.child("rollingUpdate");
            for key in ["maxUnavailable", "maxSurge"] {
                if let Some(value) = has(rolling, key) {
                    int_or_percent(errors, value, &path.child(key));
                    at_most_100_percent(errors, value, &path.child(key));
                }
            }
            let unavailable = int_or_percent_value(has(rolling, "maxUnavailable"));
            match (unavailable != 0, int_or_percent_value(has(rolling, "maxSurge")) != 0) {
                (true, true) => errors.push(FieldError::invalid(
                    path.child("maxSurge"),
                    has(rolling, "maxSurge").cloned().unwrap_or(Value::Null),
                    "may not be set when maxUnavailable is non-zero",
                )),
                (false, false) => errors.push(FieldError::required(
                    path.child("maxUnavailable"),
                    "cannot be 0 when maxSurge is 0",
                )),
                _ => {}
            }
        }
        _ => errors.push(FieldError::not_supported(
            path,
            strategy.clone(),
            &["RollingUpdate", "OnDelete"],
        )),
    }
    non_negative(errors, spec, "revisionHistoryLimit", &SPEC);
}

pub fn stateful_set(stateful_set: &Value, errors: &mut Errors) {
    let spec = spec_of(stateful_set);
    match text(spec, "podManagementPolicy") {
        "" => errors.push(FieldError::required("spec.podManagementPolicy", "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(FieldError::invalid(
            "spec.podManagementPolicy",
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
    let strategy = has(spec, "updateStrategy").unwrap_or(&Value::Null);
    match (text(strategy, "type"), has(strategy, "rollingUpdate")) {
        ("", _) => errors.push(FieldError::required("spec.updateStrategy", "")),
        ("OnDelete", Some(rolling)) => errors.push(FieldError::invalid(
            "spec.updateStrategy.rollingUpdate",
            rolling.clone(),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        ("RollingUpdate", Some(rolling)) => {
            let path = SPEC.child("updateStrategy");
            non_negative(errors, rolling, "partition", &path.child("rollingUpdate"));
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.push(FieldError::invalid(
            "spec.updateStrategy",
            strategy.clone(),
            "must be 'RollingUpdate' or 'OnDelete'",
        )),
    }
    // These never change: what an older version let in stays.
    let new = object::string(stateful_set, &["metadata", "resourceVersion"]).is_empty();
    if let Some(policy) = has(spec, "persistentVolumeClaimRetentionPolicy") {
        let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            let own = text(policy, key);
            if !matches!(own, "Retain" | "Delete") {
                errors.push(FieldError::not_supported(path.child(key), own, &["Retain", "Delete"]));
            }
        }
    }
    if new {
        let path = SPEC.child("volumeClaimTemplates");
        for (index, claim) in each(spec, "volumeClaimTemplates") {
            let path = path.index(index);
            claim_spec(spec_of(claim), &Scope::of(claim), &path.child("spec"), errors);
        }
    }
    non_negative(errors, spec, "replicas", &SPEC);
    non_negative(errors, spec, "minReadySeconds", &SPEC);
    if let Some(ordinals) = has(spec, "ordinals") {
        non_negative(errors, ordinals, "start", &SPEC.child("ordinals"));
    }
    if new {
        super::name_if_set(errors, spec, "serviceName", &SPEC, names::dns_label);
    }
    selector(spec, "statefulset", true, &SPEC, errors);
    set_template(spec, errors);
    restarts_always(spec, "StatefulSet", &SPEC, errors);
}

/// The template of a StatefulSet's pods, each of which has a name and volumes of its own.
fn set_template(spec: &Value, errors: &mut Errors) {
    let own = has(spec, "selector").unwrap_or(&Value::Null);
    if LabelSelector::from_json(own).is_err() {
        return errors.push(FieldError::invalid("spec.selector", own.clone(), ""));
    }
    selects_template(spec, &SPEC, errors);
    let mut template = template_of(spec).clone();
    object::remove(&mut template, &["spec", "subdomain"]);
    object::remove(&mut template, &["spec", "hostname"]);
    let claims = list(spec, "volumeClaimTemplates");
    if !claims.is_empty() {
        let names: BTreeSet<&str> = claims.iter().map(object::name).collect();
        let of_claim = |name: &&str| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        let mut volumes: Vec<Value> = names.iter().map(of_claim).collect();
        let others = object::items(&template, &["spec", "volumes"]).iter();
        volumes.extend(others.filter(|volume| !names.contains(text(volume, "name"))).cloned());
        object::set(&mut template, &["spec", "volumes"], volumes);
    }
    let path = SPEC.child("template");
    pod_template(&template, &path, errors);
    let metadata = has(&template, "metadata").unwrap_or(&Value::Null);
    super::labels(has(metadata, "labels"), &path.child("labels"), errors);
    let path = path.child("annotations");
    super::annotations(has(metadata, "annotations"), &path, errors);
    super::pod_annotations::check(metadata, spec_of(&template), &path, errors);
}

pub fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "template",
        "updateStrategy",
        "minReadySeconds",
        "ordinals",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
    ];
    let strip = |object: &Value| {
        let mut spec = spec_of(object).clone();
        for key in MUTABLE {
            object::remove(&mut spec, &[key]);
        }
        // the status inside of a claim template is nobody's
        for claim in object::items_mut(&mut spec, &["volumeClaimTemplates"]) {
            object::remove(claim, &["status"]);
        }
        spec
    };
    if !same(Some(&strip(new)), Some(&strip(old))) {
        errors.push(FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

pub fn controller_revision(revision: &Value, errors: &mut Errors) {
    if let Some(number) = int(revision, "revision").filter(|&number| number < 0) {
        errors.push(FieldError::invalid("revision", number, NEGATIVE));
    }
    match has(revision, "data") {
        None => errors.push(FieldError::required("data", "data is mandatory")),
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(FieldError::required("data", "data must be a valid JSON object")),
    }
}

pub fn controller_revision_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["data"], "data");
}

pub fn job(job: &Value, errors: &mut Errors) {
    let spec = spec_of(job);
    generated_selector(job, spec, errors);
    selecting_job(spec, errors);
    if text(spec, "completionMode") == "Indexed"
        && let Some(completions) = int(spec, "completions").filter(|&number| number > 0)
    {
        let host = format!("{}-{}", object::name(job), completions - 1);
        if !names::dns_label(&host).is_empty() {
            errors.push(FieldError::invalid(
                "metadata.name",
                object::name(job),
                format!("will not able to create pod with invalid DNS label: {host}"),
            ));
        }
    }
}

/// A job's spec with what it selects.
fn selecting_job(spec: &Value, errors: &mut Errors) {
    job_spec(spec, &SPEC, errors);
    selector(spec, "", true, &SPEC, errors);
    if let Ok(selector) = LabelSelector::from_json(has(spec, "selector").unwrap_or(&Value::Null))
        && !selector.matches_object(template_of(spec))
    {
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            template_labels(spec),
            "`selector` does not match template `labels`",
        ));
    }
}

/// Labels of a job's template that the server sets.
fn generated_selector(job: &Value, spec: &Value, errors: &mut Errors) {
    if flag(spec, "manualSelector") || has(spec, "selector").is_none() {
        return;
    }
    let labels = object::at(spec, &["template", "metadata", "labels"]).unwrap_or(&Value::Null);
    for (key, expected) in [
        ("controller-uid", object::uid(job)),
        ("job-name", object::name(job)),
        ("batch.kubernetes.io/controller-uid", object::uid(job)),
        ("batch.kubernetes.io/job-name", object::name(job)),
    ] {
        let path = format!("spec.template.metadata.labels[{key}]");
        match object::str_at(labels, &[key]) {
            None => errors.push(FieldError::required(path, format!("must be '{expected}'"))),
            Some(own) if own != expected => errors.push(FieldError::invalid(
                "spec.template.metadata.labels",
                labels.clone(),
                format!("must be '{expected}'"),
            )),
            Some(_) => {}
        }
    }
    if let Ok(selector) = LabelSelector::from_json(has(spec, "selector").unwrap_or(&Value::Null)) {
        let expected = |key: &str| match key {
            "controller-uid" | "batch.kubernetes.io/controller-uid" => Some(object::uid(job)),
            "job-name" | "batch.kubernetes.io/job-name" => Some(object::name(job)),
            _ => None,
        };
        if !selector.matches(expected) {
            errors.push(FieldError::invalid(
                "spec.selector",
                has(spec, "selector").cloned().unwrap_or(Value::Null),
                "`selector` not auto-generated",
            ));
        }
    }
}

fn job_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(errors, spec, key, path);
    }
    let completions = int(spec, "completions");
    let max_failed = int(spec, "maxFailedIndexes");
    let per_index = int(spec, "backoffLimitPerIndex");
    if max_failed.is_some() && per_index.is_none() {
        errors.push(FieldError::required(
            path.child("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        ));
    }
    managed_by(spec, path, errors);
    one_of_if_set(errors, spec, "completionMode", path, &["NonIndexed", "Indexed"]);
    let indexed = text(spec, "completionMode") == "Indexed";
    if indexed {
        indexed_job(spec, path, errors);
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = int(spec, key) {
                errors.push(FieldError::invalid(
                    path.child(key),
                    value,
                    "requires indexed completion mode",
                ));
            }
        }
    }
    if let Some(policy) = has(spec, "podFailurePolicy") {
        let policy_path = path.child("podFailurePolicy");
        failure_policy(spec, policy, &policy_path.child("rules"), errors);
    }
    if let Some(policy) = has(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if indexed {
            success_policy(policy, completions.unwrap_or(0), &path.child("rules"), errors);
        } else {
            errors.push(FieldError::invalid(
                path,
                policy.clone(),
                "requires indexed completion mode",
            ));
        }
    }
    let replaced_when: &[&str] = match has(spec, "podFailurePolicy") {
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    one_of_if_set(errors, spec, "podReplacementPolicy", path, replaced_when);
    job_template(spec, &path.child("template"), errors);
}

/// What a Job whose pods have numbers must say, and how many there may be.
fn indexed_job(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let completions = int(spec, "completions");
    let parallelism = int(spec, "parallelism");
    let max_failed = int(spec, "maxFailedIndexes");
    if completions.is_none() {
        errors.push(FieldError::required(
            path.child("completions"),
            "when completion mode is Indexed",
        ));
    }
    if let Some(number) = parallelism.filter(|&number| number > 100_000) {
        errors.push(FieldError::invalid(
            path.child("parallelism"),
            number,
            "must be less than or equal to 100000 when completion mode is Indexed",
        ));
    }
    if let (Some(number), Some(completions)) = (max_failed, completions)
        && number > completions
    {
        errors.push(FieldError::invalid(
            path.child("maxFailedIndexes"),
            number,
            "must be less than or equal to completions",
        ));
    }
    if let Some(number) = max_failed.filter(|&number| number > 100_000) {
        errors.push(FieldError::invalid(
            path.child("maxFailedIndexes"),
            number,
            "must be less than or equal to 100000",
        ));
    }
}

fn managed_by(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(manager) = has(spec, "managedBy").and_then(Value::as_str) {
        domain_prefixed_path(manager, &path.child("managedBy"), errors);
        if manager.len() > 63 {
            errors.push(FieldError::too_long(path.child("managedBy"), 63));
        }
    }
}

/// A Job's pods end: whoever restarts them for ever is no Job.
fn job_template(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    pod_template(template_of(spec), path, errors);
    let policy = object::string(spec, &["template", "spec", "restartPolicy"]);
    let template_spec = path.child("spec");
    let policy_path = template_spec.child("restartPolicy");
    match policy {
        "Always" | "" => errors.push(FieldError::required(
            policy_path,
            "valid values: \"OnFailure\", \"Never\"",
        )),
        "OnFailure" if has(spec, "podFailurePolicy").is_some() => errors.push(FieldError::invalid(
            policy_path,
            policy,
            "only \"Never\" is supported when podFailurePolicy is specified",
        )),
        "OnFailure" | "Never" => {}
        other => errors.push(FieldError::not_supported(policy_path, other, &["OnFailure", "Never"])),
    }
}

fn failure_policy(spec: &Value, policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = list(policy, "rules");
    if rules.len() > 20 {
        errors.push(FieldError::too_many(path, rules.len(), 20));
    }
    let lists = ["containers", "initContainers"].map(|kind| object::items(spec, &["template", "spec", kind]));
    let containers: HashSet<&str> = lists
        .into_iter()
        .flatten()
        .map(|container| text(container, "name"))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        match text(rule, "action") {
            "" => errors.push(FieldError::required(
                path.child("action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            )),
            "FailIndex" if has(spec, "backoffLimitPerIndex").is_none() => errors.push(FieldError::invalid(
                path.child("action"),
                "FailIndex",
                "requires the backoffLimitPerIndex to be set",
            )),
            action if !ACTIONS.contains(&action) => {
                errors.push(FieldError::not_supported(path.child("action"), action, &ACTIONS));
            }
            _ => {}
        }
        let codes = has(rule, "onExitCodes");
        if let Some(codes) = codes {
            exit_codes(&containers, codes, &path.child("onExitCodes"), errors);
        }
        let conditions = path.child("onPodConditions");
        for (index, pattern) in each(rule, "onPodConditions") {
            let path = conditions.index(index);
            let type_ = text(pattern, "type");
            super::invalid_each(errors, &path.child("type"), type_, names::qualified_name(type_));
            one_of(errors, pattern, "status", &path, &["False", "True", "Unknown"]);
        }
        let both = match (codes.is_some(), !list(rule, "onPodConditions").is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        let mut error = FieldError::invalid(path, Value::Null, both);
        error.value = None;
        errors.push(error);
    }
}

fn exit_codes(containers: &HashSet<&str>, codes: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(codes, "operator").is_empty() {
        errors.push(FieldError::required(
            path.child("operator"),
            "valid values: [\"In\" \"NotIn\"]",
        ));
    } else {
        one_of(errors, codes, "operator", path, &["In", "NotIn"]);
    }
    if let Some(name) = has(codes, "containerName").and_then(Value::as_str)
        && !containers.contains(name)
    {
        errors.push(FieldError::invalid(
            path.child("containerName"),
            name,
            "must be one of the container or initContainer names in the pod template",
        ));
    }
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    let values_path = path.child("values");
    let shown = || Value::Array(list(codes, "values").to_vec());
    if values.is_empty() {
        errors.push(FieldError::invalid(
            values_path,
            shown(),
            "at least one value is required",
        ));
    } else if values.len() > 255 {
        errors.push(FieldError::too_many(values_path, values.len(), 255));
    }
    let mut seen: HashSet<i64> = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, "operator") == "In" {
            errors.push(FieldError::invalid(
                values_path.index(index),
                0,
                "must not be 0 for the In operator",
            ));
        }
        if !seen.insert(*value) {
            errors.push(FieldError::duplicate(values_path.index(index), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(values_path, shown(), "must be ordered"));
    }
}

fn success_policy(policy: &Value, completions: i64, path: &Path<'_>, errors: &mut Errors) {
    let rules = list(policy, "rules");
    if rules.is_empty() {
        errors.push(FieldError::required(
            path,
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if rules.len() > 20 {
        errors.push(FieldError::too_many(path, rules.len(), 20));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let indexes = has(rule, "succeededIndexes").and_then(Value::as_str);
        let count = int(rule, "succeededCount");
        if indexes.is_none() && count.is_none() {
            errors.push(FieldError::required(
                path,
                "at least one of succeededCount or succeededIndexes must be specified",
            ));
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            match count_indexes(indexes, completions) {
                Ok(number) => total = number,
                Err(why) => errors.push(FieldError::invalid(
                    path.child("succeededIndexes"),
                    indexes,
                    format!("error parsing succeededIndexes: {why}"),
                )),
            }
        }
        non_negative(errors, rule, "succeededCount", &path);
        if let Some(count) = count {
            if count > completions {
                errors.push(FieldError::invalid(
                    path.child("succeededCount"),
                    count,
                    format!("must be less than or equal to {completions} (the number of specified completions)"),
                ));
            }
            if indexes.is_some() && count > total {
                errors.push(FieldError::invalid(
                    path.child("succeededCount"),
                    count,
                    format!(
                        "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                    ),
                ));
            }
        }
    }
}

/// How many indexes a text like `1,3-5,7` names.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    if text.is_empty() {
        return Ok(0);
    }
    for interval in text.split(',') {
        let mut ends = interval.split('-');
        let (first, second, third) = (ends.next().unwrap_or(""), ends.next(), ends.next());
        if third.is_some() {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let parse = |part: &str| {
            part.parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: {part:?}"))
        };
        let x = parse(first)?;
        let y = second.map_or(Ok(x), parse)?;
        for index in [x, y] {
            if index >= completions {
                return Err(format!("too large index: \"{index}\""));
            }
        }
        if x > y || (second.is_some() && x == y) {
            return Err(format!("non-increasing order, previous: {x}, current: {y}"));
        }
        if let Some(last) = last.filter(|&last| last >= x) {
            return Err(format!("non-increasing order, previous: {last}, current: {x}"));
        }
        total += y - x + 1;
        last = Some(y);
    }
    Ok(total)
}

pub fn job_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (spec_of(new), spec_of(old));
    // Upstream checks it twice, and tells it twice.
    selecting_job(spec, errors);
    if text(spec, "completionMode") == "Indexed" {
        let completions = int(spec, "completions");
        if completions != int(before, "completions") && completions.is_some() && completions != int(spec, "parallelism")
        {
            errors.push(FieldError::invalid(
                "spec.completions",
                completions,
                "can only be modified in tandem with spec.parallelism",
            ));
        }
    } else {
        immutable(errors, spec, before, &["completions"], "spec.completions");
    }
    immutable(errors, spec, before, &["selector"], "spec.selector");
    job_template_update(old, spec, before, errors);
    for (key, path) in [
        ("completionMode", "spec.completionMode"),
        ("podFailurePolicy", "spec.podFailurePolicy"),
        ("backoffLimitPerIndex", "spec.backoffLimitPerIndex"),
        ("managedBy", "spec.managedBy"),
        ("successPolicy", "spec.successPolicy"),
    ] {
        immutable(errors, spec, before, &[key], path);
    }
}

/// Where a suspended job that never started will run may still change.
fn job_template_update(old: &Value, spec: &Value, before: &Value, errors: &mut Errors) {
    let mut old_template = template_of(before).clone();
    let template = template_of(spec);
    if flag(before, "suspend") && object::at(old, &["status", "startTime"]).is_none() {
        for path in [
            &["spec", "affinity", "nodeAffinity"][..],
            &["spec", "nodeSelector"],
            &["spec", "tolerations"],
            &["metadata", "annotations"],
            &["metadata", "labels"],
            &["spec", "schedulingGates"],
        ] {
            match object::at(template, path) {
                Some(value) => object::set(&mut old_template, path, value.clone()),
                None => {
                    object::remove(&mut old_template, path);
                }
            }
        }
    }
    if !same(Some(template), Some(&old_template)) {
        errors.push(FieldError::invalid(
            "spec.template",
            template.clone(),
            "field is immutable",
        ));
    }
}

pub fn cron_job(cron_job: &Value, errors: &mut Errors) {
    let spec = spec_of(cron_job);
    schedule(spec, errors);
    non_negative(errors, spec, "startingDeadlineSeconds", &SPEC);
    time_zone(spec, errors);
    one_of(
        errors,
        spec,
        "concurrencyPolicy",
        &SPEC,
        &["Allow", "Forbid", "Replace"],
    );
    let template_path = SPEC.child("jobTemplate");
    let path = template_path.child("spec");
    let job = object::at(spec, &["jobTemplate", "spec"]).unwrap_or(&Value::Null);
    job_spec(job, &path, errors);
    if let Some(selector) = has(job, "selector") {
        errors.push(FieldError::invalid(
            path.child("selector"),
            selector.clone(),
            "`selector` will be auto-generated",
        ));
    }
    if flag(job, "manualSelector") {
        errors.push(FieldError::not_supported(
            path.child("manualSelector"),
            true,
            &["nil", "false"],
        ));
    }
    non_negative(errors, spec, "successfulJobsHistoryLimit", &SPEC);
    non_negative(errors, spec, "failedJobsHistoryLimit", &SPEC);
    if object::name(cron_job).len() > 52 && object::resource_version(cron_job).is_empty() {
        errors.push(FieldError::invalid(
            "metadata.name",
            object::name(cron_job),
            "must be no more than 52 characters",
        ));
    }
}

fn schedule(spec: &Value, errors: &mut Errors) {
    match text(spec, "schedule") {
        "" => errors.push(FieldError::required("spec.schedule", "")),
        schedule => {
            let fields = schedule.split_whitespace().count();
            if !schedule.starts_with('@') && !schedule.contains("TZ") && fields != 5 {
                errors.push(FieldError::invalid(
                    "spec.schedule",
                    schedule,
                    format!(
                        "expected exactly 5 fields, found {fields}: [{}]",
                        schedule.split_whitespace().collect::<Vec<_>>().join(" ")
                    ),
                ));
            }
            if schedule.contains("TZ") {
                errors.push(FieldError::invalid(
                    "spec.schedule",
                    schedule,
                    "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ));
            }
        }
    }
}

fn time_zone(spec: &Value, errors: &mut Errors) {
    if let Some(zone) = has(spec, "timeZone").and_then(Value::as_str) {
        if zone.is_empty() {
            errors.push(FieldError::invalid(
                "spec.timeZone",
                zone,
                "timeZone must be nil or non-empty string",
            ));
        } else if zone.eq_ignore_ascii_case("local") {
            errors.push(FieldError::invalid(
                "spec.timeZone",
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        let mut object = json!({"metadata": {"name": "d", "namespace": "n", "uid": "u"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        crate::defaults::deployment(&mut object);
        object
    }

    fn problems(change: fn(&mut Value)) -> Vec<String> {
        let mut object = base();
        change(&mut object["spec"]);
        let mut errors = Errors::new();
        deployment(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn deployments() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(
            problems(|spec| spec["replicas"] = (-1).into()),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            problems(|spec| spec["template"]["metadata"]["labels"] = json!({"a": "c"})),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            problems(|spec| spec["template"]["spec"]["restartPolicy"] = "Never".into()),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        assert_eq!(
            problems(
                |spec| spec["template"]["spec"]["volumes"] = json!([{"name": "a", "glusterfs": {"endpoints": "e"}}])
            ),
            ["spec.template.spec.volumes[0].glusterfs.path: Required value"]
        );
        let old = base();
        let mut new = base();
        new["spec"]["selector"] = json!({"matchLabels": {"a": "c"}});
        let mut errors = Errors::new();
        selector_update(&new, &old, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"
        );
    }

    #[test]
    fn jobs() {
        let mut object = json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        crate::defaults::job(&mut object);
        crate::defaults::job_create(&mut object);
        let mut errors = Errors::new();
        job(&object, &mut errors);
        assert_eq!(errors, []);
        let mut always = object.clone();
        always["spec"]["template"]["spec"]["restartPolicy"] = "Always".into();
        job(&always, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
        );
        errors.clear();
        job_update(&always, &object, &mut errors);
        assert_eq!(errors[1].field, "spec.template");
        assert!(errors[1].detail.contains("field is immutable"));
        assert_eq!(count_indexes("1,3-5", 6), Ok(4));
        assert!(count_indexes("3,1", 6).is_err());
    }
}
