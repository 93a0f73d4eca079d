//! The annotations by which a Deployment remembers revisions and sizes on its ReplicaSets.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta;

/// The number of the rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a template that came back.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the set was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods there might have been then.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Upstream's bound on the history's length.
const HISTORY_CHARS: usize = 2000;

/// Annotations that are the Deployment's or the set's alone.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    mk8s_api::meta::DEPLOYMENT_ROLLBACK,
];

/// Gives a Deployment that goes back to a set's template that set's annotations, or the set would get the Deployment's.
pub fn restore(deployment: &mut ObjectMeta, set: &ObjectMeta) {
    let annotations = deployment.annotations.get_or_insert_default();
    annotations.retain(|key, _| NOT_COPIED.contains(&key.as_str()));
    let of_set = set.annotations.iter().flatten();
    let copied = of_set.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    annotations.extend(copied.map(|(key, value)| (key.clone(), value.clone())));
}

/// Brings the set's annotations up to date with the Deployment's and with the revision; true when that changed something.
pub fn annotate(deployment: &Deployment, set: &mut ObjectMeta, revision: i64, exists: bool) -> bool {
    let mut changed = false;
    let annotations = set.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) && annotations.get(key) != Some(value) {
            annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    let before = annotations.get(REVISION).cloned();
    let older = before.as_deref().and_then(|r| r.parse::<i64>().ok()).unwrap_or(0);
    if older < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        changed = true;
        if let (true, Some(before)) = (exists, before) {
            remember(annotations.entry(HISTORY.to_owned()).or_default(), &before);
        }
    }
    changed
}

fn remember(history: &mut String, revision: &str) {
    let mut all: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    all.push(revision);
    while all.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_CHARS {
        all.remove(0);
    }
    *history = all.join(",");
}

/// Notes the Deployment's sizes; true when that changed something.
pub fn set_sizes(set: &mut ObjectMeta, desired: i32, max: i32) -> bool {
    let annotations = set.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED, desired.to_string()), (MAX, max.to_string())] {
        if annotations.get(key) != Some(&value) {
            annotations.insert(key.to_owned(), value);
            changed = true;
        }
    }
    changed
}

/// A number kept in an annotation.
pub fn number<K: kube::Resource, N: std::str::FromStr>(object: &K, key: &str) -> Option<N> {
    meta::annotation(object, key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_follow_the_deployment_and_keep_the_history() {
        let deployment: Deployment = serde_json::from_value(json!({"metadata": {"annotations": {
            "kubernetes.io/change-cause": "x", REVISION: "7", "kubectl.kubernetes.io/last-applied-configuration": "{}"}}}))
        .unwrap();
        let mut set = ObjectMeta::default();
        assert!(annotate(&deployment, &mut set, 1, false));
        assert!(!annotate(&deployment, &mut set, 1, true));
        assert!(annotate(&deployment, &mut set, 3, true));
        assert!(annotate(&deployment, &mut set, 5, true));
        let found = set.annotations.unwrap();
        assert_eq!(found.get(REVISION).unwrap(), "5");
        assert_eq!(found.get(HISTORY).unwrap(), "1,3");
        assert_eq!(found.get("kubernetes.io/change-cause").unwrap(), "x");
        assert_eq!(found.len(), 3);
    }
}
