//! Job and CronJob.

use std::collections::HashSet;

use serde_json::Value;

use super::meta::changed_and_standard;
use super::networking::domain_prefixed_path;
use super::node_selector::selector;
use super::rules::{
    Rules, Scope, always, call, check, check_spec, each as each_rule, non_negative, one_of, one_of_if_set,
    one_of_saying, required, required_saying, structure, whole,
};
use super::workloads::{selects_quietly, template_of};
use super::{
    Errors, IMMUTABLE, Path, SPEC, each, flag, has, immutable, indexes, int, list, names, pod_template, same, spec_of,
    text,
};
use crate::cron::{Schedule, zones};
use crate::meta as object;
use crate::status::FieldError;

const INDEXED: &str = "requires indexed completion mode";

/// Of a Job, and of what a CronJob makes Jobs of.
const JOB_SPEC: Rules = &[
    non_negative("parallelism"),
    non_negative("completions"),
    non_negative("activeDeadlineSeconds"),
    non_negative("backoffLimit"),
    non_negative("ttlSecondsAfterFinished"),
    non_negative("backoffLimitPerIndex"),
    non_negative("maxFailedIndexes"),
    whole(failures_per_index),
    call("managedBy", managed_by),
    one_of_if_set("completionMode", &["NonIndexed", "Indexed"]),
    whole(completion_mode),
    whole(failure_policy),
    whole(success_policy),
    whole(replacement_policy),
    whole(job_template),
];

/// With what it selects.
const SELECTING: Rules = &[
    whole(job_spec),
    required("selector"),
    call("selector", selector),
    whole(selects_quietly),
];

const JOB: Rules = &[whole(generated_selector), whole(selecting), whole(host_name)];

const CRON_JOB: Rules = &[
    required("schedule"),
    call("schedule", scheduled),
    non_negative("startingDeadlineSeconds"),
    call("timeZone", time_zone),
    one_of("concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
    structure(
        "jobTemplate",
        &[structure(
            "spec",
            &[
                whole(job_spec),
                call("selector", generated),
                call("manualSelector", not_manual),
            ],
        )],
    ),
    non_negative("successfulJobsHistoryLimit"),
    non_negative("failedJobsHistoryLimit"),
];

const FAILURE_CONDITION: Rules = &[
    always("type", names::qualified_name),
    one_of_saying("status", CONDITION, r#"valid values: ["False" "True" "Unknown"]"#),
];
const CONDITION: &[&str] = &["False", "True", "Unknown"];

const FAILURE_RULE: Rules = &[
    required_saying("action", r#"valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#),
    whole(action),
];
const FAILURE_REASONS: Rules = &[each_rule("onPodConditions", FAILURE_CONDITION), whole(one_reason)];
const OPERATOR: Rules = &[one_of_saying(
    "operator",
    &["In", "NotIn"],
    r#"valid values: ["In" "NotIn"]"#,
)];

pub fn job(job: &Value, errors: &mut Errors) {
    check_spec(JOB, job, errors);
}

pub fn cron_job(cron_job: &Value, errors: &mut Errors) {
    check_spec(CRON_JOB, cron_job, errors);
    if object::name(cron_job).len() > 52 && object::resource_version(cron_job).is_empty() {
        errors.push(FieldError::invalid(
            "metadata.name",
            object::name(cron_job),
            "must be no more than 52 characters",
        ));
    }
}

/// It holds all that its own checks do: one that is run within a table.
fn job_spec(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    check(JOB_SPEC, spec, scope, path, errors);
}

fn selecting(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    check(SELECTING, spec, scope, path, errors);
}

/// The pod of the last index has the longest name, which is its host's.
fn host_name(spec: &Value, scope: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    let completions = int(spec, "completions").filter(|&number| number > 0);
    let Some(completions) = completions.filter(|_| is_indexed(spec)) else {
        return;
    };
    let name = object::name(scope.object);
    let host = format!("{name}-{}", completions - 1);
    if !names::dns_label(&host).is_empty() {
        let why = format!("will not able to create pod with invalid DNS label: {host}");
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
}

/// Labels of a job's template that the server sets.
fn generated_selector(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let job = scope.object;
    let Some(own) = has(spec, "selector").filter(|_| !flag(spec, "manualSelector")) else {
        return;
    };
    let labels = object::at(spec, &["template", "metadata", "labels"]).unwrap_or(&Value::Null);
    let template = path.child("template");
    let metadata = template.child("metadata");
    let path_of_labels = metadata.child("labels");
    if object::uid(job).is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    const OF_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
    const OF_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
    let expected = |key: &str| match key {
        _ if OF_UID.contains(&key) => Some(object::uid(job)),
        _ if OF_NAME.contains(&key) => Some(object::name(job)),
        _ => None,
    };
    // A job that is older than the prefixed ones has neither.
    let prefixed = object::resource_version(job).is_empty()
        || [OF_UID[1], OF_NAME[1]]
            .iter()
            .any(|key| object::str_at(labels, &[key]).is_some());
    let asked = [OF_UID[0], OF_NAME[0], OF_UID[1], OF_NAME[1]];
    for key in &asked[..if prefixed { 4 } else { 2 }] {
        let expected = expected(key).unwrap_or("");
        match object::str_at(labels, &[key]) {
            None => {
                let why = format!("must be '{expected}'");
                errors.push(FieldError::required(path_of_labels.key(key), why));
            }
            Some(own) if own != expected => {
                let why = format!("must be '{expected}'");
                errors.push(FieldError::invalid(path_of_labels, labels.clone(), why));
            }
            Some(_) => {}
        }
    }
    if let Ok(selector) = crate::selectors::LabelSelector::from_json(own)
        && !selector.matches(expected)
    {
        let why = "`selector` not auto-generated";
        errors.push(FieldError::invalid(path.child("selector"), own.clone(), why));
    }
}

fn failures_per_index(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if has(spec, "maxFailedIndexes").is_some() && has(spec, "backoffLimitPerIndex").is_none() {
        let why = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(path.child("backoffLimitPerIndex"), why));
    }
}

fn is_indexed(spec: &Value) -> bool {
    text(spec, "completionMode") == "Indexed"
}

fn completion_mode(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match has(spec, "completionMode").and_then(Value::as_str) {
        Some("Indexed") => indexed(spec, scope, path, errors),
        None | Some("NonIndexed") => {
            for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = int(spec, key) {
                    errors.push(FieldError::invalid(path.child(key), value, INDEXED));
                }
            }
        }
        Some(_) => {}
    }
}

/// What a Job whose pods have numbers must say, and how many there may be.
fn indexed(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MOST: i64 = 100_000;
    const MOST_OF_MANY: i64 = 10_000;
    let max_failed = int(spec, "maxFailedIndexes");
    let above = |field, limit: i64| int(spec, field).filter(|&number| number > limit);
    let many = above("completions", MOST).is_some() && has(spec, "backoffLimitPerIndex").is_some();
    if has(spec, "completions").is_none() {
        let why = "when completion mode is Indexed";
        errors.push(FieldError::required(path.child("completions"), why));
    }
    if let Some(number) = above("parallelism", MOST) {
        let why = "must be less than or equal to 100000 when completion mode is Indexed";
        errors.push(FieldError::invalid(path.child("parallelism"), number, why));
    }
    if let Some(number) = int(spec, "completions").and_then(|completions| above("maxFailedIndexes", completions)) {
        let why = "must be less than or equal to completions";
        errors.push(FieldError::invalid(path.child("maxFailedIndexes"), number, why));
    }
    if let Some(number) = above("maxFailedIndexes", MOST) {
        let why = "must be less than or equal to 100000";
        errors.push(FieldError::invalid(path.child("maxFailedIndexes"), number, why));
    }
    if many && max_failed.is_none() {
        let why = "must be specified when completions is above 100000";
        errors.push(FieldError::required(path.child("maxFailedIndexes"), why));
    }
    for field in ["parallelism", "maxFailedIndexes"] {
        if let Some(number) = above(field, MOST_OF_MANY).filter(|_| many) {
            let why = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
            errors.push(FieldError::invalid(path.child(field), number, why));
        }
    }
}

fn managed_by(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let manager = own.as_str().unwrap_or("");
    domain_prefixed_path(manager, path, errors);
    if manager.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
}

fn replacement_policy(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const FAILED: Rules = &[one_of_if_set("podReplacementPolicy", &["Failed"])];
    const ANY: Rules = &[one_of_if_set(
        "podReplacementPolicy",
        &["Failed", "TerminatingOrFailed"],
    )];
    let rules = has(spec, "podFailurePolicy").map_or(ANY, |_| FAILED);
    check(rules, spec, scope, path, errors);
}

/// A Job's pods end: whoever restarts them for ever is no Job.
fn job_template(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("template");
    pod_template(template_of(spec), &path, errors);
    let path = path.child("spec");
    let path = path.child("restartPolicy");
    match text(spec_of(template_of(spec)), "restartPolicy") {
        "Always" | "" => {
            let why = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(path, why));
        }
        "OnFailure" if has(spec, "podFailurePolicy").is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(path, "OnFailure", why));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(FieldError::not_supported(path, other, &["OnFailure", "Never"])),
    }
}

/// The spec of the Job that a part of it belongs to.
fn spec_around<'a>(scope: &Scope<'a>) -> &'a Value {
    let spec = spec_of(scope.object);
    object::at(spec, &["jobTemplate", "spec"]).unwrap_or(spec)
}

fn failure_policy(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MOST: usize = 20;
    let Some(policy) = has(spec, "podFailurePolicy") else {
        return;
    };
    let path = path.child("podFailurePolicy");
    let count = list(policy, "rules").len();
    if count > MOST {
        errors.push(FieldError::too_many(path.child("rules"), count, MOST));
    }
    // There may be as many rules as containers: they are not looked for in each other.
    let pod = spec_of(template_of(spec));
    let lists = ["containers", "initContainers"].map(|kind| list(pod, kind));
    let containers = lists.into_iter().flatten().map(|container| text(container, "name"));
    let containers: HashSet<&str> = containers.collect();
    let path = path.child("rules");
    for (index, rule) in each(policy, "rules") {
        let path = path.index(index);
        check(FAILURE_RULE, rule, scope, &path, errors);
        if let Some(codes) = has(rule, "onExitCodes") {
            let path = path.child("onExitCodes");
            check(OPERATOR, codes, scope, &path, errors);
            exit_codes(codes, &containers, &path, errors);
        }
        check(FAILURE_REASONS, rule, scope, &path, errors);
    }
}

fn action(rule: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let path = path.child("action");
    match text(rule, "action") {
        "" => {}
        "FailIndex" if has(spec_around(scope), "backoffLimitPerIndex").is_none() => {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(path, "FailIndex", why));
        }
        own if !ACTIONS.contains(&own) => errors.push(FieldError::not_supported(path, own, &ACTIONS)),
        _ => {}
    }
}

fn one_reason(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let why = match (
        has(rule, "onExitCodes").is_some(),
        !list(rule, "onPodConditions").is_empty(),
    ) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid_unshown(path, why));
}

fn exit_codes(codes: &Value, containers: &HashSet<&str>, path: &Path<'_>, errors: &mut Errors) {
    const MOST: usize = 255;
    if let Some(name) = has(codes, "containerName").and_then(Value::as_str)
        && !containers.contains(name)
    {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(path.child("containerName"), name, why));
    }
    let path = path.child("values");
    let shown = || has(codes, "values").cloned().unwrap_or_default();
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.push(FieldError::invalid(path, shown(), "at least one value is required"));
    } else if values.len() > MOST {
        errors.push(FieldError::too_many(path, values.len(), MOST));
    }
    let mut seen: HashSet<i64> = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, "operator") == "In" {
            let why = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(path.index(index), 0, why));
        }
        if !seen.insert(*value) {
            errors.push(FieldError::duplicate(path.index(index), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(path, shown(), "must be ordered"));
    }
}

fn success_policy(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MOST: usize = 20;
    const RULE: Rules = &[each_rule("rules", &[whole(success_rule)])];
    let Some(policy) = has(spec, "successPolicy") else {
        return;
    };
    let path = path.child("successPolicy");
    if !is_indexed(spec) {
        return errors.push(FieldError::invalid(path, policy.clone(), INDEXED));
    }
    let count = list(policy, "rules").len();
    if count == 0 {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(path.child("rules"), why));
    }
    if count > MOST {
        errors.push(FieldError::too_many(path.child("rules"), count, MOST));
    }
    check(RULE, policy, scope, &path, errors);
}

fn success_rule(rule: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const LONGEST: usize = 64 * 1024;
    const COUNT: Rules = &[non_negative("succeededCount")];
    let completions = int(spec_around(scope), "completions").unwrap_or(0);
    let indexes = has(rule, "succeededIndexes").and_then(Value::as_str);
    if indexes.is_none() && has(rule, "succeededCount").is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, why));
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > LONGEST {
            errors.push(FieldError::too_long(path, LONGEST));
        }
        match indexes::count(indexes, completions) {
            Ok(number) => total = number,
            Err(why) => {
                let why = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(path, indexes, why));
            }
        }
    }
    check(COUNT, rule, scope, path, errors);
    let path = path.child("succeededCount");
    let above = |limit| int(rule, "succeededCount").filter(|&count| count > limit);
    if let Some(count) = above(completions) {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(path, count, why));
    }
    if let Some(count) = above(total).filter(|_| indexes.is_some()) {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(path, count, why));
    }
}

pub fn job_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (spec_of(new), spec_of(old));
    // Upstream checks both twice, and tells them twice.
    changed_and_standard(new, old, errors);
    selecting(spec, &Scope::of(new), &SPEC, errors);
    if is_indexed(spec) {
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
                None => drop(object::remove(&mut old_template, path)),
            }
        }
    }
    if !same(Some(template), Some(&old_template)) {
        errors.push(FieldError::invalid("spec.template", template.clone(), IMMUTABLE));
    }
}

fn generated(selector: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let why = "`selector` will be auto-generated";
    errors.push(FieldError::invalid(path, selector.clone(), why));
}

fn not_manual(manual: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if manual == true {
        errors.push(FieldError::not_supported(path, true, &["nil", "false"]));
    }
}

fn scheduled(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let schedule = own.as_str().unwrap_or("");
    if schedule.is_empty() {
        return;
    }
    if let Err(why) = Schedule::parse(schedule) {
        errors.push(FieldError::invalid(path, schedule, why));
    }
    if schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(path, schedule, why));
    }
}

fn time_zone(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const LONGEST: usize = 14;
    let zone = own.as_str().unwrap_or("");
    if zone.is_empty() {
        let why = "timeZone must be nil or non-empty string";
        return errors.push(FieldError::invalid(path, zone, why));
    }
    let odd = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
        matches!(part, "" | "." | "..") || part.len() > LONGEST || part.starts_with('-') || !part.bytes().all(plain)
    };
    if zone.split('/').any(odd) || !zone.eq_ignore_ascii_case("local") && !zones::is_known(zone) {
        errors.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
    } else if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(path, zone, why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs() {
        let mut object = json!({"metadata": {"name": "j", "namespace": "n", "uid": "u", "resourceVersion": "1"}, "spec": {
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
    }
}
