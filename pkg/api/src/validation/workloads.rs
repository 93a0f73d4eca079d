//! Deployment, ReplicaSet and the other kinds that keep pods of a template running.

use std::collections::BTreeSet;

use serde_json::Value;

use super::claims::claim_spec;
use super::node_selector::selector;
use super::rules::{
    Rules, Scope, among, call, check_spec, format, name, non_negative, object as within, required, structure, told,
    whole,
};
use super::{
    Errors, Path, at_most_100_percent, each, has, immutable, int, int_or_percent, int_or_percent_value, list,
    pod_template, same, spec_of, text,
};
use crate::selectors::LabelSelector;
use crate::status::FieldError;
use crate::{meta as object, names};

const DEPLOYMENT: Rules = &[
    non_negative("replicas"),
    required("selector"),
    call("selector", selector),
    told("selector", not_empty, "deployment"),
    whole(selects_template),
    told("template", always, "ReplicaSet"),
    structure("strategy", &[whole(strategy)]),
    non_negative("minReadySeconds"),
    non_negative("revisionHistoryLimit"),
    non_negative("progressDeadlineSeconds"),
    whole(deadline),
];

const REPLICA_SET: Rules = &[
    non_negative("replicas"),
    non_negative("minReadySeconds"),
    required("selector"),
    call("selector", selector),
    told("selector", not_empty, "deployment"),
    whole(selects_template),
    told("template", always, "ReplicaSet"),
];

const CONTROLLER: Rules = &[
    non_negative("minReadySeconds"),
    whole(required_map),
    non_negative("replicas"),
    required("template"),
    call("template", map_selects),
    told("template", always, "ReplicationController"),
];

const DAEMON_SET: Rules = &[
    call("selector", selector),
    whole(selects_quietly),
    told("selector", not_empty, "daemonset"),
    told("template", always, "DaemonSet"),
    non_negative("minReadySeconds"),
    structure("updateStrategy", &[whole(daemon_strategy)]),
    non_negative("revisionHistoryLimit"),
];

const STATEFUL_SET: Rules = &[
    name("podManagementPolicy", management_policy),
    structure("updateStrategy", &[whole(set_strategy)]),
    within("persistentVolumeClaimRetentionPolicy", RETENTION),
    whole(claim_templates),
    non_negative("replicas"),
    non_negative("minReadySeconds"),
    within("ordinals", &[non_negative("start")]),
    whole(service_name),
    required("selector"),
    call("selector", selector),
    told("selector", not_empty, "statefulset"),
    whole(set_template),
    told("template", restarts_always, "StatefulSet"),
];

const RETENTION: Rules = &[among("whenDeleted", KEPT), among("whenScaled", KEPT)];
const KEPT: &[&str] = &["Retain", "Delete"];
const ROLLING_SET: Rules = &[non_negative("partition"), call("maxUnavailable", some_unavailable)];
const PERCENT: Rules = &[whole(int_or_percent), whole(at_most_100_percent)];
const ROLLING_DAEMONS: Rules = &[
    within("maxUnavailable", PERCENT),
    within("maxSurge", PERCENT),
    whole(one_of_both),
];
const ROLLING: Rules = &[
    call("maxUnavailable", int_or_percent),
    call("maxSurge", int_or_percent),
    whole(progresses),
    call("maxUnavailable", at_most_100_percent),
];

pub fn deployment(deployment: &Value, errors: &mut Errors) {
    check_spec(DEPLOYMENT, deployment, errors);
}

pub fn replica_set(set: &Value, errors: &mut Errors) {
    check_spec(REPLICA_SET, set, errors);
}

pub fn replication_controller(controller: &Value, errors: &mut Errors) {
    check_spec(CONTROLLER, controller, errors);
}

pub fn daemon_set(set: &Value, errors: &mut Errors) {
    check_spec(DAEMON_SET, set, errors);
}

pub fn stateful_set(set: &Value, errors: &mut Errors) {
    check_spec(STATEFUL_SET, set, errors);
}

pub(super) fn template_of(spec: &Value) -> &Value {
    has(spec, "template").unwrap_or(&Value::Null)
}

fn not_empty(selector: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors, kind: &'static str) {
    let terms = object::map_at(selector, &["matchLabels"]).map_or(0, |map| map.len())
        + list(selector, "matchExpressions").len();
    if terms == 0 {
        let why = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(path, selector.clone(), why));
    }
}

/// That `spec.selector` selects the template's own labels.
fn selects_template(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = has(spec, "selector").unwrap_or(&Value::Null);
    if LabelSelector::from_json(own).is_err() {
        let why = "invalid label selector";
        errors.push(FieldError::invalid(path.child("selector"), own.clone(), why));
    }
    selects_quietly(spec, scope, path, errors);
}

/// The same of a selector that others judge.
pub(super) fn selects_quietly(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = has(spec, "selector").unwrap_or(&Value::Null);
    if let Ok(selector) = LabelSelector::from_json(own)
        && !selector.matches_object(template_of(spec))
    {
        not_selected(template_of(spec), &path.child("template"), errors);
    }
}

fn not_selected(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let labels = object::at(template, &["metadata", "labels"]);
    errors.push(FieldError::invalid(
        path.child("metadata").child("labels"),
        labels.cloned().unwrap_or_default(),
        "`selector` does not match template `labels`",
    ));
}

fn required_map(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if object::map_at(spec, &["selector"]).is_none_or(|map| map.is_empty()) {
        errors.push(FieldError::required(path.child("selector"), ""));
    }
}

/// The selector of a controller is a map.
fn map_selects(template: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(selector) = has(spec_of(scope.object), "selector")
        && !LabelSelector::from_map(selector).matches_object(template)
    {
        not_selected(template, path, errors);
    }
}

/// A template whose pods run for ever.
fn always(template: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors, kind: &'static str) {
    pod_template(template, path, errors);
    restarts_always(template, scope, path, errors, kind);
}

fn restarts_always(template: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors, kind: &'static str) {
    let path = path.child("spec");
    let pod = spec_of(template);
    let policy = text(pod, "restartPolicy");
    if policy != "Always" {
        let path = path.child("restartPolicy");
        errors.push(FieldError::not_supported(path, policy, &["Always"]));
    }
    if has(pod, "activeDeadlineSeconds").is_some() {
        errors.push(FieldError::forbidden(
            path.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        ));
    }
}

fn deadline(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(deadline) = int(spec, "progressDeadlineSeconds")
        && deadline <= int(spec, "minReadySeconds").unwrap_or(0)
    {
        let path = path.child("progressDeadlineSeconds");
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(path, deadline, why));
    }
}

fn strategy(strategy: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let rolling = path.child("rollingUpdate");
    match (text(strategy, "type"), has(strategy, "rollingUpdate")) {
        ("Recreate", Some(_)) => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(rolling, why));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            let why = "this should be defaulted and never be nil";
            errors.push(FieldError::required(rolling, why));
        }
        ("RollingUpdate", Some(own)) => super::rules::check(ROLLING, own, scope, &rolling, errors),
        _ => {
            let own = strategy.clone();
            errors.push(FieldError::not_supported(path, own, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn progresses(rolling: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let unavailable = has(rolling, "maxUnavailable");
    if int_or_percent_value(unavailable) == 0 && int_or_percent_value(has(rolling, "maxSurge")) == 0 {
        errors.push(FieldError::invalid(
            path.child("maxUnavailable"),
            unavailable.cloned().unwrap_or_default(),
            "may not be 0 when `maxSurge` is 0",
        ));
    }
}

/// The selector of Deployment, ReplicaSet and DaemonSet never changes.
pub fn selector_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec", "selector"], "spec.selector");
}

fn daemon_strategy(strategy: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = has(strategy, "rollingUpdate").unwrap_or(&Value::Null);
            super::rules::check(ROLLING_DAEMONS, rolling, scope, &path.child("rollingUpdate"), errors);
        }
        _ => {
            let own = strategy.clone();
            errors.push(FieldError::not_supported(path, own, &["RollingUpdate", "OnDelete"]));
        }
    }
}

fn one_of_both(rolling: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let surge = has(rolling, "maxSurge");
    let unavailable = int_or_percent_value(has(rolling, "maxUnavailable"));
    match (unavailable != 0, int_or_percent_value(surge) != 0) {
        (true, true) => errors.push(FieldError::invalid(
            path.child("maxSurge"),
            surge.cloned().unwrap_or_default(),
            "may not be set when maxUnavailable is non-zero",
        )),
        (false, false) => errors.push(FieldError::required(
            path.child("maxUnavailable"),
            "cannot be 0 when maxSurge is 0",
        )),
        _ => {}
    }
}

fn management_policy(policy: &str) -> Vec<String> {
    match policy {
        "OrderedReady" | "Parallel" => Vec::new(),
        _ => vec!["must be 'OrderedReady' or 'Parallel'".into()],
    }
}

fn set_strategy(strategy: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let rolling = path.child("rollingUpdate");
    match (text(strategy, "type"), has(strategy, "rollingUpdate")) {
        ("", _) => errors.push(FieldError::required(path, "")),
        ("OnDelete", Some(own)) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(rolling, own.clone(), why));
        }
        ("RollingUpdate", Some(own)) => super::rules::check(ROLLING_SET, own, scope, &rolling, errors),
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(path, strategy.clone(), why));
        }
    }
}

fn some_unavailable(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    int_or_percent(own, scope, path, errors);
    if int_or_percent_value(Some(own)) == 0 {
        errors.push(FieldError::invalid(path, own.clone(), "cannot be 0"));
    }
    at_most_100_percent(own, scope, path, errors);
}

/// These two never change: what an older version let in stays.
fn claim_templates(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !object::resource_version(scope.object).is_empty() {
        return;
    }
    let path = path.child("volumeClaimTemplates");
    for (index, claim) in each(spec, "volumeClaimTemplates") {
        let path = path.index(index);
        claim_spec(spec_of(claim), &Scope::of(claim), &path.child("spec"), errors);
    }
}

fn service_name(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const NAME: Rules = &[format("serviceName", names::dns_label)];
    if object::resource_version(scope.object).is_empty() {
        super::rules::check(NAME, spec, scope, path, errors);
    }
}

/// The template of a StatefulSet's pods, each of which has a name and volumes of its own.
fn set_template(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = has(spec, "selector").unwrap_or(&Value::Null);
    if LabelSelector::from_json(own).is_err() {
        return errors.push(FieldError::invalid(path.child("selector"), own.clone(), ""));
    }
    selects_template(spec, scope, path, errors);
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
    let path = path.child("template");
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

const REVISION: Rules = &[non_negative("revision")];
const REVISION_DATA: Rules = &[
    super::rules::required_saying("data", "data is mandatory"),
    call("data", json_object),
];

pub fn controller_revision(revision: &Value, errors: &mut Errors) {
    super::rules::check_object(REVISION, revision, errors);
    if object::resource_version(revision).is_empty() {
        super::rules::check_object(REVISION_DATA, revision, errors);
    }
}

fn json_object(data: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !data.is_object() {
        errors.push(FieldError::required(path, "data must be a valid JSON object"));
    }
}

pub fn controller_revision_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["data"], "data");
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
}
