//! The rules, read off upstream's sources and asked of plain lists: every decision looks at every pod.

use std::collections::BTreeMap;

use super::model::{Constraint, KEYS, Labels, Model, Node, Pod, Select, Term};

/// A change that a trial makes: the pod comes (1) or goes (-1).
pub type Change<'a> = (&'a Pod, i64);

type Numbers<'a> = BTreeMap<(&'a str, String), i64>;

/// What is asked of one pod that waits, with what a trial changes on one node.
pub struct Question<'a> {
    pub model: &'a Model,
    pub pod: &'a Pod,
    pub node: Option<&'a str>,
    pub changes: &'a [Change<'a>],
}

fn none() -> Labels {
    Labels::new()
}

impl Question<'_> {
    fn labels_of(&self, namespace: &str) -> Option<&Labels> {
        self.model.namespaces.get(namespace)
    }

    /// A term of the pod that waits, about another.
    fn own(&self, term: &Term, other: &Pod) -> bool {
        let own = term.names.is_empty() && term.of_namespaces.0.is_none() && self.pod.namespace == other.namespace;
        let selected = self
            .labels_of(other.namespace)
            .is_some_and(|labels| term.of_namespaces.matches(labels));
        let named = own || term.names.contains(&other.namespace) || selected || term.of_namespaces.matches(&none());
        named && term.labels.matches(&other.labels)
    }

    fn own_all(&self, other: &Pod) -> bool {
        !self.pod.near.is_empty() && self.pod.near.iter().all(|term| self.own(term, other))
    }

    /// A term of another, about the pod that waits.
    fn theirs(&self, term: &Term, other: &Pod) -> bool {
        let own = term.names.is_empty() && term.of_namespaces.0.is_none() && self.pod.namespace == other.namespace;
        let labels = self.labels_of(self.pod.namespace).cloned().unwrap_or_default();
        let named = own || term.names.contains(&self.pod.namespace) || term.of_namespaces.matches(&labels);
        named && term.labels.matches(&self.pod.labels)
    }

    fn each(&self, mut found: impl FnMut(&Node, &Pod, i64)) {
        for (name, node) in &self.model.nodes {
            self.model.on(name).for_each(|pod| found(node, pod, 1));
            if self.node == Some(name) {
                self.changes.iter().for_each(|(pod, by)| found(node, pod, *by));
            }
        }
    }

    /// Numbers of pods by key and value, for each term and pod for which there is one.
    fn count<'m>(&'m self, terms: impl Fn(&Pod) -> Vec<(&'m str, i64)>) -> Numbers<'m> {
        let mut counts = BTreeMap::new();
        self.each(|node, pod, by| {
            for (key, weight) in terms(pod) {
                if let Some(value) = node.labels.get(key) {
                    *counts.entry((key, value.clone())).or_default() += by * weight;
                }
            }
        });
        counts.retain(|_, count| *count != 0);
        counts
    }

    /// What inter-pod affinity says of a node.
    pub fn affinity(&self, node: &Node) -> Option<&'static str> {
        let near = self.count(|pod| {
            let all = self.own_all(pod);
            self.pod.near.iter().filter(|_| all).map(|term| (term.key, 1)).collect()
        });
        let away = self.count(|pod| {
            let own = self.pod.away.iter().filter(|term| self.own(term, pod));
            own.map(|term| (term.key, 1)).collect()
        });
        let at = |counts: &Numbers<'_>, key: &'static str| {
            let value = node.labels.get(key)?;
            Some(counts.get(&(key, value.clone())).copied().unwrap_or(0))
        };
        let all_keys = self.pod.near.iter().all(|term| node.labels.contains_key(term.key));
        let together = self.pod.near.iter().all(|term| at(&near, term.key) > Some(0));
        let first = || near.is_empty() && self.own_all(self.pod);
        if !(all_keys && (together || first())) {
            return Some("node(s) didn't match pod affinity rules");
        }
        if self.pod.away.iter().any(|term| at(&away, term.key) > Some(0)) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        let hated = KEYS.iter().any(|key| at(&self.hate(), key) > Some(0));
        hated.then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }

    fn hate(&self) -> Numbers<'_> {
        self.count(|pod| {
            let theirs = pod.away.iter().filter(|term| self.theirs(term, pod));
            theirs.map(|term| (term.key, 1)).collect()
        })
    }

    /// What affinity adds to the score of each node, before they are compared.
    pub fn liking(&self, nodes: &[&Node]) -> Vec<i64> {
        let weigh = |all: &[(usize, Term)], sign: i64, is: &dyn Fn(&Term) -> bool| -> Vec<(&'static str, i64)> {
            let all = all.iter().filter(|(_, term)| is(term));
            all.map(|(weight, term)| (term.key, sign * i64::try_from(*weight).unwrap()))
                .collect()
        };
        let sums = self.count(|pod| {
            let mut all = weigh(&self.pod.preferred, 1, &|term| self.own(term, pod));
            all.extend(weigh(&self.pod.disliked, -1, &|term| self.own(term, pod)));
            all.extend(weigh(&pod.preferred, 1, &|term| self.theirs(term, pod)));
            all.extend(weigh(&pod.disliked, -1, &|term| self.theirs(term, pod)));
            let hard = pod.near.iter().filter(|term| self.theirs(term, pod));
            all.extend(hard.map(|term| (term.key, 1)));
            all
        });
        let at = |node: &Node, key: &'static str| {
            let value = node.labels.get(key)?;
            sums.get(&(key, value.clone())).copied()
        };
        let of = |node: &&Node| KEYS.iter().filter_map(|key| at(node, key)).sum();
        nodes.iter().map(of).collect()
    }

    fn selects(&self, own: &Constraint, labels: &Labels) -> bool {
        let tier = self.pod.labels.get("tier").filter(|_| own.by_tier);
        own.labels.matches(labels) && tier.is_none_or(|tier| labels.get("tier") == Some(tier))
    }

    fn selects_all(&self, own: &Constraint) -> bool {
        let merged = own.by_tier && self.pod.labels.contains_key("tier");
        matches!(&own.labels, Select(Some(all)) if all.is_empty()) && !merged
    }

    fn counts(&self, own: &Constraint, node: &Node, all: &[&Constraint]) -> bool {
        let zone = self
            .pod
            .zone
            .is_none_or(|zone| node.labels.get(KEYS[0]).is_some_and(|own| own == zone));
        all.iter().all(|own| node.labels.contains_key(own.key))
            && (!own.honors_affinity || zone)
            && (!own.honors_taints || !node.tainted || self.pod.tolerates)
    }

    fn like(&self, own: &Constraint, node: &str) -> i64 {
        let like = |pod: &&Pod| !pod.going && pod.namespace == self.pod.namespace && self.selects(own, &pod.labels);
        let count = self.model.on(node).filter(like).count();
        if self.selects_all(own) {
            0
        } else {
            i64::try_from(count).unwrap()
        }
    }

    fn constraints(&self, hard: bool) -> Vec<&Constraint> {
        self.pod.spread.iter().filter(|own| own.hard == hard).collect()
    }

    /// The numbers by value of a constraint's key.
    fn domains(&self, own: &Constraint, all: &[&Constraint]) -> BTreeMap<String, i64> {
        let mut domains = BTreeMap::new();
        for (name, node) in self.model.nodes.iter().filter(|(_, node)| self.counts(own, node, all)) {
            let number = domains.entry(node.labels[own.key].clone()).or_insert(0);
            *number += self.like(own, name);
            if self.node == Some(name) {
                let ours = |pod: &Pod| pod.namespace == self.pod.namespace && self.selects(own, &pod.labels);
                *number += self
                    .changes
                    .iter()
                    .filter(|(pod, _)| ours(pod))
                    .map(|(_, by)| by)
                    .sum::<i64>();
            }
        }
        domains
    }

    /// What spreading says of a node.
    pub fn spread(&self, node: &Node) -> Option<&'static str> {
        let all = self.constraints(true);
        all.iter().find_map(|own| {
            let Some(value) = node.labels.get(own.key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let domains = self.domains(own, &all);
            let least = domains
                .values()
                .copied()
                .min()
                .filter(|_| domains.len() >= own.min_domains)
                .unwrap_or(0);
            let skew =
                domains.get(value).copied().unwrap_or(0) + i64::from(self.selects(own, &self.pod.labels)) - least;
            (skew > i64::try_from(own.max_skew).unwrap())
                .then_some("node(s) didn't match pod topology spread constraints")
        })
    }

    /// What spreading makes of each node before they are compared; none: it is not looked at.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn crowding(&self, nodes: &[(&str, &Node)]) -> Vec<Option<i64>> {
        let all = self.constraints(false);
        let looked_at = |node: &Node| all.iter().all(|own| node.labels.contains_key(own.key));
        let counted: Vec<_> = nodes.iter().filter(|(_, node)| looked_at(node)).collect();
        let of = |(name, node): &(&str, &Node)| {
            looked_at(node).then(|| {
                let each = all.iter().map(|own| {
                    let mut values: Vec<_> = counted.iter().map(|(_, node)| &node.labels[own.key]).collect();
                    values.sort();
                    values.dedup();
                    let (size, number) = match own.key == KEYS[1] {
                        true => (counted.len(), self.like(own, name)),
                        false => (
                            values.len(),
                            self.domains(own, &all).get(&node.labels[own.key]).copied().unwrap_or(0),
                        ),
                    };
                    number as f64 * ((size + 2) as f64).ln() + (own.max_skew - 1) as f64
                });
                each.sum::<f64>().round() as i64
            })
        };
        nodes.iter().map(of).collect()
    }
}
