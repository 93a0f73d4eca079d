//! What nodes say of pods, and pods of nodes: cordons, taints and node affinity.

use super::Question;
use crate::model::{KEYS, Need, Node, NodeTerm, Taint, Toleration};

fn tolerates(own: &Toleration, taint: &Taint) -> bool {
    let value = own.operator == "Exists" || own.value == taint.value;
    (own.key.is_empty() || own.key == taint.key) && (own.effect.is_empty() || own.effect == taint.effect) && value
}

fn meets(need: &Need, value: Option<&str>) -> bool {
    let (_, operator, values) = need;
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match *operator {
        "In" => value.is_some_and(|value| values.contains(&value)),
        "NotIn" => value.is_none_or(|value| !values.contains(&value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        other => unreachable!("{other}"),
    }
}

fn meets_all(term: &NodeTerm, name: &str, node: &Node) -> bool {
    let label = |need: &Need| meets(need, node.labels.get(need.0).map(String::as_str));
    let says = !term.labels.is_empty() || !term.fields.is_empty();
    says && term.labels.iter().all(label) && term.fields.iter().all(|need| meets(need, Some(name)))
}

/// The names that a term allows, of those that are named at all; none: it names none.
fn named(term: &NodeTerm) -> Option<Vec<&'static str>> {
    let lists: Vec<_> = term
        .fields
        .iter()
        .filter(|(_, operator, _)| *operator == "In")
        .collect();
    let (_, _, first) = lists.first()?;
    let in_all = |name: &&&str| lists.iter().all(|(_, _, names)| names.contains(name));
    Some(first.iter().filter(in_all).copied().collect())
}

/// Scales the largest to 100.
pub fn scaled(scores: &[i64]) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    let of = |score: &i64| if most == 0 { 0 } else { score * 100 / most };
    scores.iter().map(of).collect()
}

impl Question<'_> {
    fn tolerated(&self, taint: &Taint) -> bool {
        self.pod.tolerations.iter().any(|own| tolerates(own, taint))
    }

    pub fn is_repelled(&self, node: &Node) -> bool {
        let hard = |taint: &&Taint| taint.effect != "PreferNoSchedule";
        node.taints.iter().filter(hard).any(|taint| !self.tolerated(taint))
    }

    pub fn is_cordoned(&self, node: &Node) -> bool {
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable",
            value: "",
            effect: "NoSchedule",
        };
        node.cordoned && !self.tolerated(&cordon)
    }

    /// By its nodeSelector and its node affinity.
    pub fn is_wanted(&self, name: &str, node: &Node) -> bool {
        let zone = self
            .pod
            .zone
            .is_none_or(|zone| node.labels.get(KEYS[0]).is_some_and(|own| own == zone));
        let required = &self.pod.required;
        zone && (required.is_empty() || required.iter().any(|term| meets_all(term, name, node)))
    }

    /// The names of all terms, where each term names some.
    pub fn only(&self) -> Option<Vec<&'static str>> {
        let names: Option<Vec<_>> = self.pod.required.iter().map(named).collect();
        names.filter(|names| !names.is_empty()).map(|names| names.concat())
    }

    /// The fewer taints that would rather have no pod, the better.
    pub fn taint_scores(&self, nodes: &[(&str, &Node)]) -> Vec<i64> {
        let soft = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !self.tolerated(taint);
        let counts = nodes.iter().map(|(_, node)| node.taints.iter().filter(soft).count());
        let counts: Vec<i64> = counts.map(|count| i64::try_from(count).unwrap()).collect();
        scaled(&counts).iter().map(|score| 100 - score).collect()
    }

    pub fn node_affinity_scores(&self, nodes: &[(&str, &Node)]) -> Vec<i64> {
        let of = |(name, node): &(&str, &Node)| {
            let met = self.pod.liked.iter().filter(|(_, term)| meets_all(term, name, node));
            met.map(|(weight, _)| weight).sum()
        };
        scaled(&nodes.iter().map(of).collect::<Vec<_>>())
    }
}
