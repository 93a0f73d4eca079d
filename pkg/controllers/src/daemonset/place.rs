//! Which nodes a DaemonSet's pods belong on, and the pods that are made for them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint,
    Toleration,
};
use mk8s_api::taints::tolerates;
use mk8s_client::NodeTerms;

use crate::{meta, pod, replicas};

pub(super) const HASH_LABEL: &str = "controller-revision-hash";
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";
const NODE_NAME: &str = "metadata.name";

/// What becomes of a node's trouble is no reason for a daemon to leave or not to come; what it is for may be that trouble.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Of those that need no pod network.
const TOLERATED_ON_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Where the pods of one DaemonSet belong.
pub(super) struct Placement {
    node_name: Option<String>,
    terms: NodeTerms,
    tolerations: Vec<Toleration>,
}

/// What a node means to a DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// A pod belongs there.
    Runs,
    /// One that is there may stay.
    Stays,
    /// No pod belongs there.
    No,
}

impl Placement {
    pub(super) fn new(set: &DaemonSet) -> Self {
        let mut spec = template_spec(set);
        tolerate(&mut spec);
        let tolerations = spec.tolerations.clone().unwrap_or_default();
        let node_name = spec.node_name.take().filter(|name| !name.is_empty());
        let pod = Pod {
            spec: Some(spec),
            ..Pod::default()
        };
        Placement {
            node_name,
            terms: NodeTerms::required(&pod),
            tolerations,
        }
    }

    pub(super) fn on(&self, node: &Node) -> Fit {
        let name = meta::name(node);
        let named = self.node_name.as_deref().is_none_or(|wanted| wanted == name);
        if !named || !self.terms.matches(name, meta::labels(node)) {
            return Fit::No;
        }
        let untolerated = |effects: &[&str]| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            let accepts = |taint: &Taint| self.tolerations.iter().any(|toleration| tolerates(toleration, taint));
            taints
                .filter(|taint| effects.contains(&taint.effect.as_str()))
                .any(|taint| !accepts(taint))
        };
        if !untolerated(&["NoExecute", "NoSchedule"]) {
            Fit::Runs
        } else if !untolerated(&["NoExecute"]) {
            Fit::Stays
        } else {
            Fit::No
        }
    }
}

fn template_spec(set: &DaemonSet) -> PodSpec {
    let spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    spec.unwrap_or_default()
}

/// Adds what every daemon tolerates; a toleration of the same taint that ends some time no more does.
fn tolerate(spec: &mut PodSpec) {
    let on_host = (spec.host_network == Some(true)).then_some(TOLERATED_ON_HOST);
    let all = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |known: &&mut Toleration| {
            let lasting = Toleration {
                toleration_seconds: None,
                ..(**known).clone()
            };
            lasting == toleration
        };
        match all.iter_mut().find(same) {
            Some(known) => *known = toleration,
            None => all.push(toleration),
        }
    }
}

/// The count of the template's changes, by which pods of versions before apps/v1 were told.
pub(super) fn template_generation(set: &DaemonSet) -> Option<i64> {
    meta::annotation(set, GENERATION)?.parse().ok()
}

/// Is the pod of the present template?
pub(super) fn is_updated(pod: &Pod, hash: &str, generation: Option<i64>) -> bool {
    let labels = meta::labels(pod);
    let generation = generation.map(|generation| generation.to_string());
    labels.get(HASH_LABEL).is_some_and(|label| label == hash)
        || generation.is_some_and(|generation| labels.get(GENERATION_LABEL) == Some(&generation))
}

/// The pod that all of this revision are like, but for their node.
pub(super) fn new_pod(set: &DaemonSet, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = replicas::from_template(&template, meta::name(set), meta::owner_reference(set));
    let labels: &mut BTreeMap<String, String> = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
    }
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    tolerate(pod.spec.get_or_insert_default());
    pod
}

/// Such a pod for a node: the scheduler binds it there and nowhere else.
pub(super) fn for_node(mut pod: Pod, node: &str) -> Pod {
    let term = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
    };
    let affinity: &mut Affinity = pod.spec.get_or_insert_default().affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![term],
    });
    pod
}

/// The node that the pod is on, or was made for.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let bound = pod::node(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find(|field| field.key == NODE_NAME && field.operator == "In")?;
    match named.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: &Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "ds", "uid": "u", "annotations": {GENERATION: "3"}},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}},
        }))
        .unwrap()
    }

    #[test]
    fn nodes_fit_by_name_labels_and_taints() {
        let node = |taints: &[(&str, &str)]| -> Node {
            let taints: Vec<_> = taints
                .iter()
                .map(|(key, effect)| json!({"key": key, "effect": effect}))
                .collect();
            serde_json::from_value(
                json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}}),
            )
            .unwrap()
        };
        let plain = json!({"containers": []});
        let selects = |disk: &str| json!({"containers": [], "nodeSelector": {"disk": disk}});
        let tolerates = json!({"containers": [], "tolerations": [{"operator": "Exists", "effect": "NoExecute"}]});
        let not_ready = ("node.kubernetes.io/not-ready", "NoExecute");
        let cordoned = ("node.kubernetes.io/unschedulable", "NoSchedule");
        let no_network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
        for (spec, taints, expected) in [
            (&plain, &[][..], Fit::Runs),
            (&plain, &[not_ready, cordoned], Fit::Runs),
            (&plain, &[("x", "PreferNoSchedule")], Fit::Runs),
            (&plain, &[("x", "NoSchedule")], Fit::Stays),
            (&plain, &[("x", "NoExecute")], Fit::No),
            (&tolerates, &[("x", "NoExecute")], Fit::Runs),
            (&tolerates, &[("x", "NoExecute"), ("y", "NoSchedule")], Fit::Stays),
            (&plain, &[no_network], Fit::Stays),
            (
                &json!({"containers": [], "hostNetwork": true}),
                &[no_network],
                Fit::Runs,
            ),
            (&selects("ssd"), &[], Fit::Runs),
            (&selects("hdd"), &[], Fit::No),
            (&json!({"containers": [], "nodeName": "n1"}), &[], Fit::Runs),
            (&json!({"containers": [], "nodeName": "n2"}), &[], Fit::No),
        ] {
            assert_eq!(
                Placement::new(&set(spec)).on(&node(taints)),
                expected,
                "{spec} {taints:?}"
            );
        }
    }

    #[test]
    fn a_pod_is_made_for_its_node() {
        let spec = json!({
            "containers": [],
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}, {"key": "x"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}}, "podAffinity": {}},
        });
        let made = for_node(new_pod(&set(&spec), "5b"), "n1");
        assert_eq!(node_of(&made), Some("n1"));
        assert_eq!(node_of(&new_pod(&set(&spec), "5b")), None);
        let pod = serde_json::to_value(&made).unwrap();
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"a": "b", HASH_LABEL: "5b", GENERATION_LABEL: "3"})
        );
        assert_eq!(pod["metadata"]["generateName"], "ds-");
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        assert_eq!(
            pod["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"],
            terms
        );
        assert_eq!(pod["spec"]["affinity"]["podAffinity"], json!({}));
        let tolerations: Vec<Toleration> = serde_json::from_value(pod["spec"]["tolerations"].clone()).unwrap();
        assert_eq!(tolerations.len(), 7);
        assert!(tolerations.iter().all(|t| t.toleration_seconds.is_none()));
        assert!(is_updated(&made, "5b", None) && is_updated(&made, "6c", Some(3)));
        assert!(!is_updated(&made, "6c", Some(4)));
    }
}
