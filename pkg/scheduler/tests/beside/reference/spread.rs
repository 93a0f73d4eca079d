//! Spreading over domains.

use std::collections::BTreeMap;

use super::Question;
use crate::model::{Constraint, KEYS, Labels, Node, Pod, Select};

impl Question<'_> {
    fn selects(&self, own: &Constraint, labels: &Labels) -> bool {
        let tier = self.pod.labels.get("tier").filter(|_| own.by_tier);
        own.labels.matches(labels) && tier.is_none_or(|tier| labels.get("tier") == Some(tier))
    }

    fn selects_all(&self, own: &Constraint) -> bool {
        let merged = own.by_tier && self.pod.labels.contains_key("tier");
        matches!(&own.labels, Select(Some(all)) if all.is_empty()) && !merged
    }

    fn counts(&self, own: &Constraint, name: &str, node: &Node, all: &[Constraint]) -> bool {
        (self.each_for_itself() || all.iter().all(|own| node.labels.contains_key(own.key)))
            && (!own.honors_affinity || self.is_wanted(name, node))
            && (!own.honors_taints || !self.is_repelled(node))
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

    fn constraints(&self, hard: bool) -> Vec<Constraint> {
        let defaults = self.defaults();
        let own = match self.pod.spread.is_empty() {
            true => &defaults,
            false => &self.pod.spread,
        };
        own.iter().filter(|own| own.hard == hard).cloned().collect()
    }

    /// Nodes need not have the keys of all of the defaults: without a label is as good as with an empty one.
    fn each_for_itself(&self) -> bool {
        self.pod.spread.is_empty()
    }

    /// Pods that Services select are spread over nodes and zones without asking for it.
    fn defaults(&self) -> Vec<Constraint> {
        let mut labels = Vec::new();
        for ((namespace, _), selected) in &self.model.services {
            if *namespace == self.pod.namespace
                && selected
                    .iter()
                    .all(|own| self.pod.labels.get_key_value(own.0) == Some(own))
            {
                labels.extend(
                    selected
                        .iter()
                        .map(|(key, value)| (key.clone(), "In".to_owned(), vec![value.clone()])),
                );
            }
        }
        let over = |(key, max_skew)| Constraint {
            key,
            hard: false,
            max_skew,
            min_domains: 1,
            labels: Select(Some(labels.clone())),
            by_tier: false,
            honors_affinity: true,
            honors_taints: false,
        };
        let all = [(KEYS[1], 3), (KEYS[0], 5)].map(over);
        all.into_iter().filter(|_| !labels.is_empty()).collect()
    }

    /// The numbers by value of a constraint's key.
    fn domains(&self, own: &Constraint, all: &[Constraint]) -> BTreeMap<String, i64> {
        let mut domains = BTreeMap::new();
        for (name, node) in self
            .model
            .nodes
            .iter()
            .filter(|(name, node)| self.counts(own, name, node, all))
        {
            let number = domains.entry(value_of(own, node).to_owned()).or_insert(0);
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
        let looked_at = |node: &Node| self.each_for_itself() || all.iter().all(|own| node.labels.contains_key(own.key));
        let counted: Vec<_> = nodes.iter().filter(|(_, node)| looked_at(node)).collect();
        let of = |(name, node): &(&str, &Node)| {
            looked_at(node).then(|| {
                let each = all.iter().filter(|own| node.labels.contains_key(own.key)).map(|own| {
                    let mut values: Vec<_> = counted.iter().map(|(_, node)| value_of(own, node)).collect();
                    values.sort();
                    values.dedup();
                    let (size, number) = match own.key == KEYS[1] {
                        true => (counted.len(), self.like(own, name)),
                        false => (
                            values.len(),
                            self.domains(own, &all).get(value_of(own, node)).copied().unwrap_or(0),
                        ),
                    };
                    number as f64 * ((size + 2) as f64).ln() + (own.max_skew - 1) as f64
                });
                each.sum::<f64>().round() as i64
            })
        };
        nodes.iter().map(of).collect()
    }

    /// The same, compared: the fewest get the most; none are spread: nothing.
    pub fn spread_scores(&self, nodes: &[(&str, &Node)]) -> Vec<i64> {
        if self.constraints(false).is_empty() {
            return vec![0; nodes.len()];
        }
        let crowding = self.crowding(nodes);
        let most = crowding.iter().flatten().copied().max().unwrap_or(0);
        let least = crowding.iter().flatten().copied().min().unwrap_or(0);
        let of = |own: &Option<i64>| match own {
            None => 0,
            Some(_) if most == 0 => 100,
            Some(own) => 100 * (most + least - own) / most,
        };
        crowding.iter().map(of).collect()
    }
}

fn value_of<'a>(own: &Constraint, node: &'a Node) -> &'a str {
    node.labels.get(own.key).map_or("", String::as_str)
}
