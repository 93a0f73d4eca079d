//! Node selectors: a pod's nodeSelector and node affinity, parsed once.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::info::NodeInfo;

/// Terms of which one has to hold, and labels that all have to.
#[derive(Debug, Default)]
pub struct Terms {
    labels: Vec<(String, String)>,
    /// None: no affinity asked for. Empty: no node fits.
    terms: Option<Vec<Term>>,
}

#[derive(Debug)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// Can't be read (validation lets none through): holds nowhere.
    Never,
}

impl Terms {
    /// The node that this pod has to have.
    pub fn required(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Terms::default() };
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        Terms {
            labels: spec
                .node_selector
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            terms: affinity
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .map(|selector| selector.node_selector_terms.iter().filter_map(Term::new).collect()),
        }
    }

    /// The nodes that this pod would like, with weights.
    pub fn preferred(pod: &Pod) -> Vec<(i64, Self)> {
        let affinity = pod
            .spec
            .as_ref()
            .and_then(|s| s.affinity.as_ref())
            .and_then(|a| a.node_affinity.as_ref());
        affinity
            .iter()
            .flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
            .filter(|p| p.weight != 0)
            .map(|p| {
                let terms = Term::new(&p.preference).into_iter().collect();
                (
                    i64::from(p.weight),
                    Terms {
                        labels: Vec::new(),
                        terms: Some(terms),
                    },
                )
            })
            .collect()
    }

    /// Does the node fit?
    pub fn matches(&self, node: &NodeInfo) -> bool {
        self.labels.iter().all(|(key, value)| node.label(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }
}

impl Term {
    /// A term without requirements holds nowhere.
    fn new(term: &NodeSelectorTerm) -> Option<Self> {
        let parse =
            |all: &Option<Vec<NodeSelectorRequirement>>| all.iter().flatten().map(Requirement::new).collect::<Vec<_>>();
        let term = Term {
            labels: parse(&term.match_expressions),
            fields: parse(&term.match_fields),
        };
        (!term.labels.is_empty() || !term.fields.is_empty()).then_some(term)
    }

    fn matches(&self, node: &NodeInfo) -> bool {
        self.labels.iter().all(|r| r.matches(node.label(&r.key)))
            && self
                .fields
                .iter()
                .all(|r| r.matches((r.key == "metadata.name").then_some(node.name.as_str())))
    }
}

impl Requirement {
    fn new(requirement: &NodeSelectorRequirement) -> Self {
        let values = || requirement.values.clone().unwrap_or_default();
        let number = || {
            requirement
                .values
                .as_ref()
                .and_then(|v| v.first())
                .and_then(|v| v.parse().ok())
        };
        let test = match requirement.operator.as_str() {
            "In" => Test::In(values()),
            "NotIn" => Test::NotIn(values()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => number().map_or(Test::Never, Test::Gt),
            "Lt" => number().map_or(Test::Never, Test::Lt),
            _ => Test::Never,
        };
        Requirement {
            key: requirement.key.clone(),
            test,
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Gt(bound) => number().is_some_and(|n| n > *bound),
            Test::Lt(bound) => number().is_some_and(|n| n < *bound),
            Test::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[test]
    fn requirements_hold_as_their_operator_says() {
        let mut node = NodeInfo::named("n1");
        node.set_node(Arc::new(
            serde_json::from_value(
                serde_json::json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}}),
            )
            .unwrap(),
        ));
        for (key, operator, values, expected) in [
            ("zone", "In", vec!["a", "b"], true),
            ("zone", "NotIn", vec!["a"], false),
            ("disk", "NotIn", vec!["a"], true),
            ("disk", "DoesNotExist", vec![], true),
            ("zone", "Exists", vec![], true),
            ("cores", "Gt", vec!["4"], true),
            ("cores", "Lt", vec!["4"], false),
            ("zone", "Gt", vec!["4"], false),
        ] {
            let pod = serde_json::from_value(
                serde_json::json!({"metadata": {}, "spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}}}}),
            )
            .unwrap();
            assert_eq!(Terms::required(&pod).matches(&node), expected, "{key} {operator}");
        }
    }

    #[test]
    fn terms_are_alternatives_an_empty_one_never_holds_and_fields_name_the_node() {
        let node = NodeInfo::named("n1");
        let matches = |terms: serde_json::Value| {
            let pod = serde_json::from_value(
                serde_json::json!({"metadata": {}, "spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}}),
            )
            .unwrap();
            Terms::required(&pod).matches(&node)
        };
        let named = |name: &str| serde_json::json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        assert!(!matches(serde_json::json!([{}])));
        assert!(matches(serde_json::json!([named("n2"), named("n1")])));
        assert!(!matches(serde_json::json!([named("n2")])));
    }
}
