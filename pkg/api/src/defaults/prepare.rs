//! What upstream's strategies do to an object before it is validated: the status a new object starts with, fields that
//! only the server sets. Name, uid and times are set before these run; status is restored on update generically.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use crate::meta;

/// A new object starts with an empty status.
pub fn reset_status(object: &mut Value) {
    if let Value::Object(map) = object {
        map.insert("status".into(), Value::Object(Map::new()));
    }
}

fn now() -> String {
    crate::time::rfc3339(jiff::Timestamp::now())
}

pub fn nothing(_object: &mut Value) {}

/// Of the secrets that an account names only the names count.
pub fn service_account(account: &mut Value) {
    for secret in meta::items_mut(account, &["secrets"]) {
        if let Value::Object(reference) = secret {
            reference.retain(|field, _| field == "name");
        }
    }
}

pub fn service_account_update(account: &mut Value, _old: &Value) {
    service_account(account);
}

pub fn nothing_on_update(_new: &mut Value, _old: &Value) {}

pub fn pod_create(pod: &mut Value) {
    let qos = super::qos_class(pod);
    let mut status = json!({"phase": "Pending", "qosClass": qos});
    if !meta::items(pod, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": now(),
        }]);
    }
    meta::set(pod, &["status"], status);
    label_keys_to_selectors(pod);
    app_armor_fields(pod);
}

/// A status that leaves out the class and which generations it is of keeps them.
pub fn pod_status(new: &mut Value, old: &Value) {
    let keep = |new: &mut Value, old: &Value, field: &str| {
        let unset = matches!(new.get(field), None | Some(Value::Null)) || new[field] == "" || new[field] == 0;
        if let (true, Value::Object(map), Some(before)) = (unset, new, old.get(field)) {
            map.insert(field.into(), before.clone());
        }
    };
    let Some(status) = new.get_mut("status") else { return };
    let before = &old["status"];
    keep(status, before, "qosClass");
    keep(status, before, "observedGeneration");
    // There may be several of a type: each takes the next.
    let mut earlier: HashMap<&str, VecDeque<&Value>> = HashMap::new();
    for condition in meta::items(before, &["conditions"]) {
        let of_type = earlier.entry(meta::string(condition, &["type"])).or_default();
        of_type.push_back(condition);
    }
    for own in meta::items_mut(status, &["conditions"]) {
        let of_type = earlier.get_mut(meta::string(own, &["type"]));
        if let Some(next) = of_type.and_then(VecDeque::pop_front) {
            keep(own, next, "observedGeneration");
        }
    }
}

/// The annotation that came before the field is copied into it.
fn app_armor_fields(pod: &mut Value) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    const FIELD: [&str; 2] = ["securityContext", "appArmorProfile"];
    let of_pod = meta::at(pod, &["spec", FIELD[0], FIELD[1]]);
    let named = |(key, value): (&String, &Value)| {
        let profile = app_armor_profile(value.as_str()?).filter(|profile| of_pod != Some(profile))?;
        Some((key.strip_prefix(PREFIX)?.to_string(), profile))
    };
    let profiles: HashMap<String, Value> = meta::annotations(pod).into_iter().flatten().filter_map(named).collect();
    if profiles.is_empty() || meta::string(pod, &["spec", "os", "name"]) == "windows" {
        return;
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in meta::items_mut(pod, &["spec", list]) {
            let profile = profiles.get(meta::string(container, &["name"]));
            if let Some(profile) = profile.filter(|_| meta::at(container, &FIELD).is_none()) {
                meta::set(container, &FIELD, profile.clone());
            }
        }
    }
}

/// The field for what an annotation says.
fn app_armor_profile(annotation: &str) -> Option<Value> {
    match (annotation, annotation.strip_prefix("localhost/")) {
        ("unconfined", _) => Some(json!({"type": "Unconfined"})),
        ("runtime/default", _) => Some(json!({"type": "RuntimeDefault"})),
        (_, Some(file)) if !file.is_empty() && file.trim() == file => {
            Some(json!({"type": "Localhost", "localhostProfile": file}))
        }
        _ => None,
    }
}

/// The older field for an endpoint's place is not written through this version.
pub fn slice_create(slice: &mut Value) {
    for endpoint in meta::items_mut(slice, &["endpoints"]) {
        meta::remove(endpoint, &["deprecatedTopology"]);
    }
}

pub fn slice_update(slice: &mut Value, old: &Value) {
    let endpoints = |slice| meta::items(slice, &["endpoints"]);
    let differ = endpoints(slice) != endpoints(old);
    let labels = |slice| meta::labels(slice).filter(|labels| !labels.is_empty());
    // As upstream compares them: labels count, and what is dropped next.
    if differ || labels(slice) != labels(old) {
        meta::set(slice, &["metadata", "generation"], meta::generation(old) + 1);
    }
    if differ {
        slice_create(slice);
    }
}

/// Generations of a driver are counted from its first change on.
pub fn csi_driver_update(driver: &mut Value, old: &Value) {
    if driver.get("spec") != old.get("spec") {
        meta::set(driver, &["metadata", "generation"], meta::generation(old) + 1);
    }
}

/// What `matchLabelKeys` and `mismatchLabelKeys` mean for this pod becomes a part of the selectors beside them.
fn label_keys_to_selectors(pod: &mut Value) {
    const TERMS: [&str; 2] = [
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    ];
    let labels = meta::labels(pod).cloned().unwrap_or_default();
    for kind in ["podAffinity", "podAntiAffinity"] {
        for terms in TERMS {
            for term in meta::items_mut(pod, &["spec", "affinity", kind, terms]) {
                let weighted = term.get("podAffinityTerm").is_some();
                let term = if weighted { &mut term["podAffinityTerm"] } else { term };
                add_label_keys(term, &labels);
            }
        }
    }
    for constraint in meta::items_mut(pod, &["spec", "topologySpreadConstraints"]) {
        add_label_keys(constraint, &labels);
    }
}

/// A selector that is not there selects nothing, and goes on doing so.
fn add_label_keys(term: &mut Value, labels: &Map<String, Value>) {
    let mut added: Vec<Value> = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in meta::items(term, &[list]).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if added.is_empty() {
        return;
    }
    if let Some(Value::Object(selector)) = meta::at_mut(term, &["labelSelector"]) {
        let own = selector.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Value::Array(own) = own {
            own.extend(added);
        }
    }
}

/// The server keeps the finalizer that makes deletion empty the namespace first, and its name as a label, which may have been
/// made up since its defaults.
pub fn namespace_create(namespace: &mut Value) {
    super::namespace(namespace);
    meta::set(namespace, &["status"], json!({"phase": "Active"}));
    let mut finalizers = meta::items(namespace, &["spec", "finalizers"]).to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
        finalizers.push("kubernetes".into());
    }
    meta::set(namespace, &["spec", "finalizers"], finalizers);
}

/// Only `/finalize` changes them.
pub fn namespace_update(namespace: &mut Value, old: &Value) {
    match meta::at(old, &["spec", "finalizers"]) {
        Some(finalizers) => meta::set(namespace, &["spec", "finalizers"], finalizers.clone()),
        None => {
            meta::remove(namespace, &["spec", "finalizers"]);
        }
    }
}

/// A job without a selector of its own selects by its uid.
pub fn job_create(job: &mut Value) {
    reset_status(job);
    if meta::bool_at(job, &["spec", "manualSelector"]) == Some(true) {
        return;
    }
    generated_labels(job);
    let uid = meta::uid(job).to_string();
    meta::set_default(
        job,
        &["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"],
        uid,
    );
    let labels = meta::at(job, &["spec", "template", "metadata", "labels"]).cloned();
    super::apps::labels_from(job, labels.unwrap_or_default());
}

/// The labels by which the server finds a job's pods, unless it selects them by others.
pub(super) fn generated_labels(job: &mut Value) {
    let (name, uid) = (meta::name(job).to_string(), meta::uid(job).to_string());
    if uid.is_empty() || meta::bool_at(job, &["spec", "manualSelector"]) == Some(true) {
        return;
    }
    let labels = meta::object_mut(job, &["spec", "template", "metadata", "labels"]);
    for (key, value) in [
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
    ] {
        labels.entry(key).or_insert_with(|| value.as_str().into());
    }
}

/// A change of annotations alone is a new generation of a Deployment too.
pub fn deployment_update(new: &mut Value, old: &Value) {
    let generation = meta::generation(old);
    if generation > 0
        && meta::annotations(new).filter(|map| !map.is_empty()) != meta::annotations(old).filter(|map| !map.is_empty())
    {
        meta::set(new, &["metadata", "generation"], generation + 1);
    }
}

pub fn replicas_status_create(object: &mut Value) {
    meta::set(object, &["status"], json!({"replicas": 0}));
}

pub fn stateful_set_create(object: &mut Value) {
    meta::set(object, &["status"], json!({"replicas": 0, "availableReplicas": 0}));
}

pub fn daemon_set_create(object: &mut Value) {
    const KEY: &str = super::apps::TEMPLATE_GENERATION;
    let status =
        json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
    meta::set(object, &["status"], status);
    let annotations = meta::object_mut(object, &["metadata", "annotations"]);
    let sent = annotations.get(KEY).and_then(Value::as_str);
    if sent
        .and_then(|text| text.parse::<i64>().ok())
        .is_none_or(|generation| generation < 1)
    {
        annotations.insert(KEY.into(), "1".into());
    }
}

/// A write of the status changes no template.
pub fn daemon_set_status(new: &mut Value, old: &Value) {
    const KEY: &str = super::apps::TEMPLATE_GENERATION;
    if let Some(generation) = meta::annotation(old, KEY) {
        meta::object_mut(new, &["metadata", "annotations"]).insert(KEY.into(), generation.into());
    }
}

/// The annotation counts changes of the template.
pub fn daemon_set_update(new: &mut Value, old: &Value) {
    const KEY: &str = super::apps::TEMPLATE_GENERATION;
    let before: i64 = meta::annotation(old, KEY)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let changed = meta::at(new, &["spec", "template"]) != meta::at(old, &["spec", "template"]);
    let generation = before + i64::from(changed);
    meta::object_mut(new, &["metadata", "annotations"]).insert(KEY.into(), generation.to_string().into());
}

pub fn disruption_budget_create(budget: &mut Value) {
    let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    meta::set(budget, &["status"], status);
}

pub fn autoscaler_create(autoscaler: &mut Value) {
    meta::set(
        autoscaler,
        &["status"],
        json!({"currentMetrics": null, "desiredReplicas": 0}),
    );
}

pub fn ingress_create(ingress: &mut Value) {
    meta::set(ingress, &["status"], json!({"loadBalancer": {}}));
}

pub fn claim_create(claim: &mut Value) {
    meta::set(claim, &["status"], json!({"phase": "Pending"}));
    claim_sources(claim, &Value::Null);
}

pub fn claim_update(claim: &mut Value, old: &Value) {
    claim_sources(claim, old);
}

/// What a claim is filled from, in both of its fields. The older one drops silently what it never knew, and a source in
/// another namespace is behind a gate that is off.
fn claim_sources(claim: &mut Value, old: &Value) {
    let had = |field| meta::at(old, &["spec", field]).is_some();
    let far = !meta::string(claim, &["spec", "dataSourceRef", "namespace"]).is_empty();
    if far && !had("dataSourceRef") {
        meta::remove(claim, &["spec", "dataSourceRef"]);
    }
    if !had("dataSource") && meta::at(claim, &["spec", "dataSourceRef"]).is_none() {
        let source = |field| meta::string(claim, &["spec", "dataSource", field]);
        let known = matches!(
            (source("apiGroup"), source("kind")),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        );
        if !known {
            meta::remove(claim, &["spec", "dataSource"]);
        }
    }
    for (from, to) in [("dataSource", "dataSourceRef"), ("dataSourceRef", "dataSource")] {
        let far = !meta::string(claim, &["spec", from, "namespace"]).is_empty();
        if let Some(source) = meta::at(claim, &["spec", from]).cloned().filter(|_| !far) {
            meta::set_default(claim, &["spec", to], source);
        }
    }
}

pub fn volume_create(volume: &mut Value) {
    meta::set(
        volume,
        &["status"],
        json!({"phase": "Pending", "lastPhaseTransitionTime": now()}),
    );
}

/// When a volume came into its phase; who says so himself is believed.
pub fn volume_status(new: &mut Value, old: &Value) {
    const SINCE: [&str; 2] = ["status", "lastPhaseTransitionTime"];
    let phase = |volume| meta::string(volume, &["status", "phase"]);
    let since = meta::at(new, &SINCE);
    if phase(new) != phase(old) && (since.is_none() || since == meta::at(old, &SINCE)) {
        meta::set(new, &SINCE, now());
    }
}

pub fn volume_attachment_create(attachment: &mut Value) {
    meta::set(attachment, &["status"], json!({"attached": false}));
}

/// The requestor's name and groups are set by admission; a new request carries no decision.
pub fn signing_request_create(request: &mut Value) {
    reset_status(request);
}

/// The decision is not the signer's to change.
pub fn signing_request_status(new: &mut Value, old: &Value) {
    for decision in ["Approved", "Denied"] {
        let decides = |condition: &&Value| meta::string(condition, &["type"]) == decision;
        let before = meta::items(old, &["status", "conditions"]).iter().filter(decides);
        let own = meta::items_mut(new, &["status", "conditions"]);
        let own: Vec<&mut Value> = own.iter_mut().filter(|own| decides(&&**own)).collect();
        if own.len() == before.clone().count() {
            own.into_iter()
                .zip(before)
                .for_each(|(own, before)| own.clone_from(before));
        }
    }
    signing_request_approval(new, old);
}

/// When a condition came about, where nobody says.
pub fn signing_request_approval(new: &mut Value, old: &Value) {
    fn states(condition: &Value) -> [&str; 2] {
        ["type", "status"].map(|field| meta::string(condition, &[field]))
    }
    let now = now();
    let before = meta::items(old, &["status", "conditions"]).iter().rev();
    let before = before.filter_map(|own| Some((states(own), meta::str_at(own, &["lastTransitionTime"])?)));
    let before: HashMap<[&str; 2], &str> = before.collect();
    for own in meta::items_mut(new, &["status", "conditions"]) {
        let since = before.get(&states(own)).copied().unwrap_or(&now).to_string();
        meta::set_default(own, &["lastUpdateTime"], now.as_str());
        meta::set_default(own, &["lastTransitionTime"], since);
    }
}

/// The request itself never changes.
pub fn signing_request_update(new: &mut Value, old: &Value) {
    if let Some(spec) = meta::at(old, &["spec"]) {
        meta::set(new, &["spec"], spec.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_by_its_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"metadata": {}}}});
        job_create(&mut job);
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        assert_eq!(job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]);
    }

    #[test]
    fn gated_pods_say_so() {
        let mut pod = json!({"spec": {"schedulingGates": [{"name": "g"}]}, "status": {"phase": "Running"}});
        pod_create(&mut pod);
        assert_eq!(pod["status"]["phase"], "Pending");
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
    }
}
