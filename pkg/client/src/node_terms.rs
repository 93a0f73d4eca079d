//! Node selectors: a pod's nodeSelector and node affinity, parsed once. Scheduler and node agent ask the same: what the one binds,
//! the other must not turn away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};

/// A node's labels.
type Labels = BTreeMap<String, String>;

/// Terms of which one has to hold, and labels that all have to.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct NodeTerms {
    labels: Vec<(String, String)>,
    /// None: no affinity asked for. Empty: no node fits.
    terms: Option<Vec<Term>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// Which nodes terms name by name.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeNames<'a> {
    /// Not every term does.
    Any,
    /// No node can have all the names that a term asks for, whichever term it is.
    None,
    /// No others can fit.
    These(Vec<&'a str>),
}

/// A label that every node that fits has.
#[derive(Debug, PartialEq, Eq)]
pub struct NodePin<'a> {
    /// The label.
    pub key: &'a str,
    /// It has one of these values.
    pub values: Vec<&'a str>,
    /// Nothing else is asked for.
    pub whole: bool,
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
                .map(|selector| selector.node_selector_terms.iter().map(Term::new).collect()),
        }
    }

    /// The nodes that this pod would like, with weights.
    pub fn preferred(pod: &Pod) -> Vec<(i64, Self)> {
        let affinity = pod
            .spec
            .as_ref()
            .and_then(|s| s.affinity.as_ref())
            .and_then(|a| a.node_affinity.as_ref());
        let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        Self::weighed(terms.into_iter().flatten())
    }

    /// Terms with weights, which need be no pod's own.
    pub fn weighed<'t>(terms: impl Iterator<Item = &'t PreferredSchedulingTerm>) -> Vec<(i64, Self)> {
        let weighed = terms.filter(|term| term.weight != 0).map(|term| {
            let own = Self {
                labels: Vec::new(),
                terms: Some(vec![Term::new(&term.preference)]),
            };
            (i64::from(term.weight), own)
        });
        weighed.collect()
    }

    /// The terms of a selector that is no pod's own; none: no node has to fit it.
    pub fn of_selector(selector: Option<&NodeSelector>) -> Self {
        Self {
            labels: Vec::new(),
            terms: selector.map(|selector| selector.node_selector_terms.iter().map(Term::new).collect()),
        }
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let labels = self.labels.iter().map(|(key, value)| 48 + key.len() + value.len());
        let terms = self.terms.iter().flatten();
        let requirements = terms.flat_map(|term| term.labels.iter().chain(&term.fields));
        labels.sum::<usize>() + requirements.map(Requirement::size).sum::<usize>()
    }

    /// Every node fits.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    /// The nodes that are named, where each term names some.
    pub fn node_names(&self) -> NodeNames<'_> {
        let Some(terms) = self.terms.as_ref().filter(|terms| !terms.is_empty()) else {
            return NodeNames::Any;
        };
        let mut names = Vec::new();
        for term in terms {
            let Some(own) = term.node_names() else {
                return NodeNames::Any;
            };
            names.extend(own);
        }
        names.sort_unstable();
        names.dedup();
        match names.is_empty() {
            true => NodeNames::None,
            false => NodeNames::These(names),
        }
    }

    /// By what the few nodes that fit are found among many.
    pub fn pin(&self) -> Option<NodePin<'_>> {
        let terms = self.terms.as_ref()?;
        let (first, others) = terms.split_first()?;
        let pins = first.lists().filter_map(|(key, values)| {
            let mut all: Vec<&str> = values.iter().map(String::as_str).collect();
            for term in others {
                let (_, values) = term.lists().find(|(other, _)| *other == key)?;
                all.extend(values.iter().map(String::as_str));
            }
            all.sort_unstable();
            all.dedup();
            Some((key, all))
        });
        let (key, values) = pins.min_by_key(|(_, values)| values.len())?;
        let alone = |term: &Term| term.labels.len() == 1 && term.fields.is_empty();
        let whole = self.labels.is_empty() && terms.iter().all(alone);
        Some(NodePin { key, values, whole })
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
    fn new(term: &NodeSelectorTerm) -> Self {
        let parse =
            |all: &Option<Vec<NodeSelectorRequirement>>| all.iter().flatten().map(Requirement::new).collect::<Vec<_>>();
        Term {
            labels: parse(&term.match_expressions),
            fields: parse(&term.match_fields),
        }
    }

    /// Those that each of its requirements on the name allows; none: it has no such requirement.
    fn node_names(&self) -> Option<Vec<&str>> {
        let lists = self.fields.iter().filter_map(|field| match &field.test {
            Test::In(names) if field.key == "metadata.name" => Some(names),
            _ => None,
        });
        lists.fold(None, |common: Option<Vec<&str>>, names| {
            let own = names.iter().map(String::as_str);
            Some(match common {
                None => own.collect(),
                Some(common) => own.filter(|name| common.contains(name)).collect(),
            })
        })
    }

    /// The labels of which it lists the values.
    fn lists(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.labels.iter().filter_map(|label| match &label.test {
            Test::In(values) => Some((label.key.as_str(), values.as_slice())),
            _ => None,
        })
    }

    /// A term without requirements holds nowhere.
    fn matches(&self, node: &str, labels: &Labels) -> bool {
        let asks = !self.labels.is_empty() || !self.fields.is_empty();
        asks && self
            .labels
            .iter()
            .all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
            && self
                .fields
                .iter()
                .all(|r| r.matches((r.key == "metadata.name").then_some(node)))
    }
}

impl Requirement {
    fn size(&self) -> usize {
        let values = match &self.test {
            Test::In(values) | Test::NotIn(values) => values.as_slice(),
            _ => &[],
        };
        96 + self.key.len() + values.iter().map(|value| 24 + value.len()).sum::<usize>()
    }

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
    fn names_are_known_where_every_term_has_them() {
        let named = |names: Value| json!({"key": "metadata.name", "operator": "In", "values": names});
        let fields = |all: Value| json!({"matchFields": all});
        let label = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        let (ab, bc, c) = (named(json!(["a", "b"])), named(json!(["b", "c"])), named(json!(["c"])));
        for (terms, expected) in [
            (json!([fields(json!([ab]))]), NodeNames::These(vec!["a", "b"])),
            (json!([fields(json!([ab, bc]))]), NodeNames::These(vec!["b"])),
            (
                json!([fields(json!([ab])), fields(json!([c]))]),
                NodeNames::These(vec!["a", "b", "c"]),
            ),
            (json!([fields(json!([ab, c]))]), NodeNames::None),
            (json!([fields(json!([ab])), label]), NodeNames::Any),
            // It holds nowhere, but names nobody either.
            (json!([fields(json!([ab])), {}]), NodeNames::Any),
            (json!([]), NodeNames::Any),
        ] {
            let selector = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
            assert_eq!(
                NodeTerms::of_selector(Some(&selector)).node_names(),
                expected,
                "{terms}"
            );
        }
        assert!(NodeTerms::of_selector(None).is_empty());
    }

    #[test]
    fn a_pin_is_what_every_term_lists() {
        let list = |key: &str, values: &[&str]| json!({"key": key, "operator": "In", "values": values});
        let term = |all: &[Value]| json!({"matchExpressions": all});
        let (zone, host) = (list("zone", &["a", "b"]), list("host", &["n"]));
        let exists = json!({"key": "zone", "operator": "Exists"});
        for (terms, expected) in [
            (json!([]), None),
            (json!([term(std::slice::from_ref(&exists))]), None),
            (
                json!([term(std::slice::from_ref(&zone))]),
                Some(("zone", vec!["a", "b"], true)),
            ),
            (
                json!([term(&[zone.clone(), host.clone()])]),
                Some(("host", vec!["n"], false)),
            ),
            (
                json!([term(&[zone.clone(), host]), term(&[list("zone", &["c", "b"])])]),
                Some(("zone", vec!["a", "b", "c"], false)),
            ),
            (json!([term(&[zone]), term(&[exists])]), None),
        ] {
            let selector = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
            let expected = expected.map(|(key, values, whole)| NodePin { key, values, whole });
            assert_eq!(NodeTerms::of_selector(Some(&selector)).pin(), expected, "{terms}");
        }
    }

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
