//! Inter-pod affinity, both ways.

use std::collections::BTreeMap;

use super::{Question, none};
use crate::model::{KEYS, Node, Pod, Term};

type Numbers<'a> = BTreeMap<(&'a str, String), i64>;

impl Question<'_> {
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

    /// The same, compared: from the least to the most.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn affinity_scores(&self, nodes: &[&Node]) -> Vec<i64> {
        let liking = self.liking(nodes);
        let least = liking.iter().copied().min().unwrap_or(0);
        let range = liking.iter().copied().max().unwrap_or(0) - least;
        let of = |own: &i64| match range {
            0 => 0,
            _ => (100.0 * ((own - least) as f64 / range as f64)) as i64,
        };
        liking.iter().map(of).collect()
    }
}
