//! Selectors of pods in a form that can be compared: many pods name the same one, and what it picks is counted once.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::kin::Kin;
use super::namespaces::Namespaces;
use super::node::Labels;

/// A label selector; without requirements it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector(
    /// None: selects nothing.
    Option<Box<[Requirement]>>,
);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Requirement {
    key: Box<str>,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Test {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    DoesNotExist,
}

impl Requirement {
    fn equal(key: &str, value: &str) -> Self {
        Requirement {
            key: key.into(),
            test: Test::In([value.into()].into()),
        }
    }

    fn new(requirement: &LabelSelectorRequirement) -> Option<Self> {
        let values = || {
            let values = requirement.values.iter().flatten();
            let mut values: Vec<Box<str>> = values.map(|value| value.as_str().into()).collect();
            values.sort_unstable();
            values.dedup();
            values.into()
        };
        let test = match &*requirement.operator {
            "In" => Test::In(values()),
            "NotIn" => Test::NotIn(values()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            _ => return None,
        };
        let key = requirement.key.as_str().into();
        Some(Requirement { key, test })
    }

    fn size(&self) -> usize {
        let values = match &self.test {
            Test::In(values) | Test::NotIn(values) => &**values,
            _ => &[],
        };
        64 + self.key.len() + values.iter().map(|value| 16 + value.len()).sum::<usize>()
    }

    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&*self.key);
        let listed = |values: &[Box<str>], value: &String| values.iter().any(|own| **own == **value);
        match &self.test {
            Test::In(values) => value.is_some_and(|value| listed(values, value)),
            Test::NotIn(values) => value.is_none_or(|value| !listed(values, value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

impl Selector {
    /// Selects nothing.
    pub const NOTHING: Selector = Selector(None);

    /// A selector that is not there selects nothing; nor does one that can't be read (validation lets none through).
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::NOTHING };
        let equal = selector.match_labels.iter().flatten();
        let equal = equal.map(|(key, value)| Some(Requirement::equal(key, value)));
        let others = selector.match_expressions.iter().flatten().map(Requirement::new);
        match equal.chain(others).collect::<Option<Vec<_>>>() {
            Some(requirements) => Self::of(requirements),
            None => Self::NOTHING,
        }
    }

    /// Equal ones are the same, however they were written.
    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_unstable();
        requirements.dedup();
        Selector(Some(requirements.into()))
    }

    /// What has all of these labels.
    pub fn equal<'l>(labels: impl IntoIterator<Item = (&'l String, &'l String)>) -> Self {
        let all = labels.into_iter().map(|(key, value)| Requirement::equal(key, value));
        Self::of(all.collect())
    }

    /// What both select.
    pub fn and(self, other: Selector) -> Self {
        match (self.0, other.0) {
            (Some(own), Some(other)) => Self::of(own.into_iter().chain(other).collect()),
            _ => Self::NOTHING,
        }
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        self.0.iter().flatten().map(Requirement::size).sum()
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(|requirements| requirements.is_empty())
    }

    /// Whether it selects what has these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let requirements = self.0.as_ref();
        requirements.is_some_and(|all| all.iter().all(|requirement| requirement.holds(labels)))
    }

    /// Keys of which something that is selected has one of a few values.
    pub fn equalities(&self) -> impl Iterator<Item = (&str, &[Box<str>])> {
        let requirements = self.0.iter().flatten();
        requirements.filter_map(|requirement| match &requirement.test {
            Test::In(values) => Some((&*requirement.key, &**values)),
            _ => None,
        })
    }
}

/// Which pods a rule is about.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PodSelector {
    /// Of these namespaces.
    pub namespaces: Box<[Box<str>]>,
    /// And of those that this selects by their labels.
    pub of_namespaces: Selector,
    /// Those with such labels.
    pub labels: Selector,
}

static NO_LABELS: Labels = BTreeMap::new();

impl PodSelector {
    /// Pods of one namespace.
    pub fn within(namespace: &str, labels: Selector) -> Self {
        PodSelector {
            namespaces: [namespace.into()].into(),
            of_namespaces: Selector::NOTHING,
            labels,
        }
    }

    /// It picks pods of every namespace: also where it asks for those that lack a label, since upstream looks at the selected
    /// namespaces and then at one without labels.
    pub fn picks_everywhere(&self) -> bool {
        self.of_namespaces.matches(&NO_LABELS)
    }

    /// Another label of a namespace may change whom it picks.
    pub fn goes_by_labels_of_namespaces(&self) -> bool {
        self.of_namespaces != Selector::NOTHING && !self.picks_everywhere()
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let names = self.namespaces.iter().map(|name| 16 + name.len());
        128 + names.sum::<usize>() + self.of_namespaces.size() + self.labels.size()
    }

    fn names(&self, kin: &Kin) -> bool {
        self.namespaces.iter().any(|name| **name == *kin.namespace)
    }

    /// Whether a decision for a pod with this rule counts these pods.
    pub fn picks(&self, kin: &Kin, namespaces: &Namespaces) -> bool {
        let selected = || {
            namespaces
                .labels(&kin.namespace)
                .is_some_and(|labels| self.of_namespaces.matches(labels))
        };
        self.labels.matches(&kin.labels) && (self.names(kin) || self.picks_everywhere() || selected())
    }

    /// Whether the rule, of a pod on a node, is about these pods that come. A namespace that is not known has no labels then.
    pub fn concerns(&self, kin: &Kin, namespaces: &Namespaces) -> bool {
        let labels = || namespaces.labels(&kin.namespace).unwrap_or(&NO_LABELS);
        (self.names(kin) || self.of_namespaces.matches(labels())) && self.labels.matches(&kin.labels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn selector(selector: Value) -> Selector {
        Selector::new(
            serde_json::from_value::<Option<LabelSelector>>(selector)
                .unwrap()
                .as_ref(),
        )
    }

    #[test]
    fn selectors_select_by_labels() {
        let labels = Labels::from([("a".to_owned(), "1".to_owned())]);
        let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (text, expected) in [
            (Value::Null, false),
            (json!({}), true),
            (json!({"matchLabels": {"a": "1"}}), true),
            (json!({"matchLabels": {"a": "1", "b": "1"}}), false),
            (expression("a", "In", json!(["2", "1"])), true),
            (expression("b", "In", json!(["1"])), false),
            (expression("a", "NotIn", json!(["1"])), false),
            (expression("b", "NotIn", json!(["1"])), true),
            (expression("a", "Exists", Value::Null), true),
            (expression("b", "DoesNotExist", Value::Null), true),
            (expression("a", "Near", json!(["1"])), false),
        ] {
            assert_eq!(selector(text.clone()).matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn selectors_are_the_same_however_they_are_written() {
        let one = selector(json!({"matchLabels": {"b": "1", "a": "1"}}));
        let other = json!([{"key": "b", "operator": "In", "values": ["1"]}, {"key": "a", "operator": "In", "values": ["1", "1"]}]);
        assert_eq!(one, selector(json!({"matchExpressions": other})));
        assert_eq!(one.clone().and(one.clone()), one);
        assert_eq!(one.and(Selector::NOTHING), Selector::NOTHING);
    }

    #[test]
    fn rules_are_about_pods_of_namespaces() {
        let mut namespaces = Namespaces::default();
        namespaces.set("dev", Some(Labels::from([("team".to_owned(), "x".to_owned())])));
        let pods = |names: &[&str], of: Value| PodSelector {
            namespaces: names.iter().map(|name| (*name).into()).collect(),
            of_namespaces: selector(of),
            labels: selector(json!({})),
        };
        let absent = json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]});
        for (rule, namespace, picked, concerned) in [
            (pods(&["dev"], Value::Null), "dev", true, true),
            (pods(&["prod"], Value::Null), "dev", false, false),
            (pods(&[], json!({"matchLabels": {"team": "x"}})), "dev", true, true),
            (pods(&[], json!({"matchLabels": {"team": "y"}})), "dev", false, false),
            (pods(&[], json!({})), "unknown", true, true),
            (pods(&[], absent.clone()), "unknown", true, true),
            (pods(&[], absent), "dev", true, false),
            (
                pods(&[], json!({"matchLabels": {"team": "x"}})),
                "unknown",
                false,
                false,
            ),
        ] {
            let kin = Kin::new(namespace, Labels::new());
            assert_eq!(rule.picks(&kin, &namespaces), picked, "{rule:?}");
            assert_eq!(rule.concerns(&kin, &namespaces), concerned, "{rule:?}");
        }
    }
}
