//! One decision: which node gets this pod, or why none does. Pure: reads the cache, writes nothing.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::filters::{self, Objection};
use crate::info::{NodeInfo, PodInfo};
use crate::scores;
use crate::spread::Spread;
use crate::unsupported;

/// Below this many nodes all are looked at, and never fewer than this are.
const MIN_FEASIBLE: usize = 100;
const MIN_PERCENTAGE: usize = 5;

/// Why no node takes the pod.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For people: upstream's counted reasons.
    pub message: String,
    /// Which filters objected.
    pub filters: u32,
}

/// The outcome of a cycle, and where the next one begins looking.
pub struct Decision {
    /// The node's name, or why there is none.
    pub node: Result<String, Refusal>,
    /// So that all nodes have the same chance.
    pub next_start: usize,
}

/// How many nodes that fit are enough to choose from.
fn enough(all: usize) -> usize {
    if all < MIN_FEASIBLE {
        return all;
    }
    let percentage = 50_usize.saturating_sub(all / 125).max(MIN_PERCENTAGE);
    (all * percentage / 100).max(MIN_FEASIBLE)
}

/// Decides for one pod. `pick` chooses among the best (a number below its argument).
pub fn decide(
    pod: &PodInfo,
    cache: &Cache,
    spread: &Spread,
    start: usize,
    pick: impl FnOnce(usize) -> usize,
) -> Decision {
    let nodes = cache.nodes();
    let all = nodes.iter().filter(|n| n.node.is_some()).count();
    if all == 0 {
        let message = "no nodes available to schedule pods".to_owned();
        return Decision {
            node: Err(Refusal {
                message,
                filters: filters::ANY,
            }),
            next_start: 0,
        };
    }
    if let Some(field) = unsupported::field(&pod.pod) {
        let message = format!("0/{all} nodes are available: {all} {field}: not in this version of mk8s.");
        return Decision {
            node: Err(Refusal { message, filters: 0 }),
            next_start: start,
        };
    }
    let wanted = enough(all);
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    let mut objections: Vec<(&NodeInfo, Objection)> = Vec::new();
    let mut looked = 0;
    for node in nodes.iter().cycle().skip(start % nodes.len()).take(nodes.len()) {
        looked += 1;
        if node.node.is_none() {
            continue;
        }
        match filters::check(pod, node) {
            None => feasible.push(node),
            Some(objection) => objections.push((node, objection)),
        }
        if feasible.len() >= wanted {
            break;
        }
    }
    let next_start = (start + looked) % nodes.len();
    let node = match feasible.as_slice() {
        [] => Err(refusal(pod, all, &objections)),
        [only] => Ok(only.name.clone()),
        _ => {
            let totals = scores::totals(pod, &feasible, spread, cache, all);
            let best = totals.iter().copied().max().unwrap_or(0);
            let bests: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == best).collect();
            Ok(feasible[bests[pick(bests.len())]].name.clone())
        }
    };
    Decision { node, next_start }
}

/// Puts the nodes' objections into upstream's words: each reason with the number of nodes that gave it.
fn refusal(pod: &PodInfo, all: usize, objections: &[(&NodeInfo, Objection)]) -> Refusal {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut filters = 0;
    for (_, objection) in objections {
        filters |= objection.filter as u32;
        for reason in &objection.reasons {
            *counts.entry(reason).or_default() += 1;
        }
    }
    let message = format!(
        "0/{all} nodes are available: {}. no new claims to deallocate, {}",
        counted(&counts),
        preemption(pod, all, objections)
    );
    Refusal { message, filters }
}

/// Sorted as text, so that "10 …" comes before "2 …", as upstream has it.
fn counted(counts: &BTreeMap<&str, usize>) -> String {
    let mut all: Vec<String> = counts
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    all.sort();
    all.join(", ")
}

/// What preemption could do: nothing, and why.
fn preemption(pod: &PodInfo, all: usize, objections: &[(&NodeInfo, Objection)]) -> String {
    if pod.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return "preemption: not eligible due to preemptionPolicy=Never.".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (node, objection) in objections {
        let reason = if objection.unresolvable {
            "Preemption is not helpful for scheduling"
        } else if node.pods.values().any(|other| other.priority < pod.priority()) {
            "Preemption is not in this version of mk8s"
        } else {
            "No preemption victims found for incoming pod"
        };
        *counts.entry(reason).or_default() += 1;
    }
    format!("preemption: 0/{all} nodes are available: {}.", counted(&counts))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, cpu: &str) -> PodInfo {
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn cache(nodes: &[(&str, &str, Value)]) -> Cache {
        let mut cache = Cache::default();
        for (name, cpu, spec) in nodes {
            let node = json!({"metadata": {"name": name}, "spec": spec, "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "110"}}});
            cache.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        }
        cache
    }

    fn run(pod: &PodInfo, cache: &Cache) -> Result<String, String> {
        decide(pod, cache, &Spread::default(), 0, |_| 0)
            .node
            .map_err(|r| r.message)
    }

    #[test]
    fn emptiest_node_that_fits_wins() {
        let mut cache = cache(&[("a", "2", json!({})), ("b", "2", json!({})), ("c", "100m", json!({}))]);
        cache.add_pod(&pod("x", "1"), "a");
        assert_eq!(run(&pod("p", "500m"), &cache), Ok("b".to_owned()));
    }

    #[test]
    fn refusal_counts_reasons_as_upstream_does() {
        let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let mut cache = cache(&[("a", "1", json!({})), ("b", "8", tainted.clone()), ("c", "8", tainted)]);
        cache.add_pod(&pod("x", "1"), "a");
        assert_eq!(
            run(&pod("p", "1"), &cache).unwrap_err(),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). no new claims to deallocate, preemption: \
             0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(
            run(&pod("p", "1"), &Cache::default()).unwrap_err(),
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn what_no_decision_can_weigh_waits_and_says_so() {
        let cache = cache(&[("a", "1", json!({})), ("b", "1", json!({}))]);
        let spec = json!({"containers": [{"name": "c"}], "resourceClaims": [{"name": "c"}]});
        let pod = serde_json::from_value(json!({"metadata": {"uid": "p"}, "spec": spec})).unwrap();
        assert_eq!(
            run(&PodInfo::new(Arc::new(pod)), &cache).unwrap_err(),
            "0/2 nodes are available: 2 spec.resourceClaims: not in this version of mk8s."
        );
    }

    #[test]
    fn large_clusters_are_sampled() {
        for (all, expected) in [(3, 3), (99, 99), (100, 100), (1000, 420), (5000, 500), (10_000, 500)] {
            assert_eq!(enough(all), expected, "{all}");
        }
    }
}
