//! Node selectors: a pod's nodeSelector and node affinity, parsed once. Scheduler and node agent ask the same: what the one binds,
//! the other must not turn away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

/// A node's labels.
type Labels = BTreeMap<String, String>;

/// Terms of which one has to hold, and labels that all have to.
#[derive(Debug, Default)]
pub struct NodeTerms {
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

impl NodeTerms {
    /// The node that this pod has to have.
    pub fn required(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        Self {
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
                    Self {
                        labels: Vec::new(),
                        terms: Some(terms),
                    },
                )
            })
            .collect()
    }

    /// Does the node fit?
    pub fn matches(&self, node: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node, labels)))
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

    fn matches(&self, node: &str, labels: &Labels) -> bool {
        self.labels
            .iter()
            .all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
            && self
                .fields
                .iter()
                .all(|r| r.matches((r.key == "metadata.name").then_some(node)))
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
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_and_terms() {
        let labels: BTreeMap<String, String> = [("disk", "ssd"), ("cores", "8")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let name = |operator: &str, value: &str| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": [value]}]});
        let both = json!({"matchExpressions": [
            {"key": "disk", "operator": "Exists"}, {"key": "gpu", "operator": "Exists"}]});
        for (selector, terms, expected) in [
            (json!({"disk": "ssd"}), Value::Null, true),
            (json!({"disk": "hdd"}), Value::Null, false),
            (json!({}), json!([expression("disk", "In", &["hdd", "ssd"])]), true),
            (json!({}), json!([expression("disk", "NotIn", &["ssd"])]), false),
            (json!({}), json!([expression("gpu", "NotIn", &["x"])]), true),
            (json!({}), json!([expression("gpu", "Exists", &[])]), false),
            (json!({}), json!([expression("gpu", "DoesNotExist", &[])]), true),
            (json!({}), json!([expression("cores", "Gt", &["4"])]), true),
            (json!({}), json!([expression("cores", "Lt", &["4"])]), false),
            (json!({}), json!([expression("disk", "Gt", &["4"])]), false),
            (json!({}), json!([name("In", "node-a")]), true),
            (json!({}), json!([name("In", "node-b")]), false),
            (json!({}), json!([both]), false),
            (json!({}), json!([both, name("In", "node-a")]), true),
            (json!({}), json!([{}]), false),
            (json!({}), json!([]), false),
            (json!({"disk": "hdd"}), json!([name("In", "node-a")]), false),
        ] {
            let mut spec = json!({"containers": [], "nodeSelector": selector});
            if !terms.is_null() {
                let required = json!({"nodeSelectorTerms": terms});
                spec["affinity"] =
                    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
            }
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(NodeTerms::required(&pod).matches("node-a", &labels), expected, "{spec}");
        }
    }
}
