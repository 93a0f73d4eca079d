//! Which of the nodes where a pod can go is the best: each score is 0 to 100, weighted as upstream weighs it.

use mk8s_api::taints::tolerates;

use crate::cache::Cache;
use crate::info::{NodeInfo, PodInfo};
use crate::spread::Spread;

const MAX: i64 = 100;

const TAINTS: i64 = 3;
const AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const LEAST_ALLOCATED: i64 = 1;
const BALANCED: i64 = 1;
const IMAGES: i64 = 1;

/// The total of each candidate.
pub fn totals(pod: &PodInfo, nodes: &[&NodeInfo], spread: &Spread, cache: &Cache, all_nodes: usize) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    let each = |score: &dyn Fn(&NodeInfo) -> i64| nodes.iter().map(|node| score(node)).collect::<Vec<_>>();
    add(
        TAINTS,
        normalise(each(&|node| untolerated_preferences(pod, node)), true),
    );
    if !pod.preferred.is_empty() {
        add(AFFINITY, normalise(each(&|node| preferred_affinity(pod, node)), false));
    }
    add(SPREAD, spread.scores(pod, nodes, cache));
    add(LEAST_ALLOCATED, each(&|node| least_allocated(pod, node)));
    add(BALANCED, each(&|node| balanced(pod, node)));
    add(IMAGES, images(pod, nodes, all_nodes));
    totals
}

/// Scales the largest to 100; reversed, the smallest becomes the best.
fn normalise(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let scaled = if max == 0 { 0 } else { *score * MAX / max };
        *score = if reverse { MAX - scaled } else { scaled };
    }
    scores
}

fn untolerated_preferences(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let meant = |effect: Option<&str>| matches!(effect, None | Some("" | "PreferNoSchedule"));
    let untolerated = node.taints().iter().filter(|taint| {
        taint.effect == "PreferNoSchedule"
            && !pod
                .tolerations()
                .iter()
                .any(|t| meant(t.effect.as_deref()) && tolerates(t, taint))
    });
    i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
}

fn preferred_affinity(pod: &PodInfo, node: &NodeInfo) -> i64 {
    pod.preferred
        .iter()
        .filter(|(_, terms)| node.is_one_of(terms))
        .map(|(weight, _)| weight)
        .sum()
}

fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let free = |asked: i64, used: i64, all: i64| {
        if all <= 0 || asked + used > all {
            0
        } else {
            (all - used - asked) * MAX / all
        }
    };
    let (asked, used, all) = (&pod.nonzero, &node.nonzero, &node.allocatable);
    (free(asked.milli_cpu, used.milli_cpu, all.milli_cpu) + free(asked.memory, used.memory, all.memory)) / 2
}

/// Best where CPU and memory would be used to the same share.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn balanced(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let share = |asked: i64, used: i64, all: i64| (all > 0).then(|| ((asked + used) as f64 / all as f64).min(1.0));
    let (asked, used, all) = (&pod.requests, &node.requested, &node.allocatable);
    let shares = (
        share(asked.milli_cpu, used.milli_cpu, all.milli_cpu),
        share(asked.memory, used.memory, all.memory),
    );
    let deviation = match shares {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX as f64) as i64
}

/// Better where large images are there already; an image that many nodes have counts more, so that one node does not draw all pods.
fn images(pod: &PodInfo, nodes: &[&NodeInfo], all_nodes: usize) -> Vec<i64> {
    const MIB: i64 = 1024 * 1024;
    const FLOOR: i64 = 23 * MIB;
    const CEILING_PER_CONTAINER: i64 = 1000 * MIB;
    let Some(spec) = &pod.pod.spec else {
        return vec![0; nodes.len()];
    };
    let wanted: Vec<String> = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .filter_map(|c| c.image.as_deref().map(normalised_image))
        .collect();
    let holders: Vec<i64> = wanted
        .iter()
        .map(|image| i64::try_from(nodes.iter().filter(|n| n.images.contains_key(image)).count()).unwrap_or(0))
        .collect();
    let ceiling = CEILING_PER_CONTAINER * i64::try_from(wanted.len().max(1)).unwrap_or(1);
    let all_nodes = i64::try_from(all_nodes.max(1)).unwrap_or(1);
    let sum = |node: &NodeInfo| -> i64 {
        wanted
            .iter()
            .zip(&holders)
            .map(|(image, holders)| node.images.get(image).map_or(0, |size| size * holders / all_nodes))
            .sum()
    };
    nodes
        .iter()
        .map(|node| MAX * (sum(node).clamp(FLOOR, ceiling) - FLOOR) / (ceiling - FLOOR))
        .collect()
}

/// An image name with the tag that it means when it has none.
fn normalised_image(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn node(cpu: &str, memory: &str) -> NodeInfo {
        let mut info = NodeInfo::named("n");
        let node =
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "10"}}});
        info.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        info
    }

    fn pod(cpu: &str, memory: &str) -> PodInfo {
        let pod = json!({"metadata": {"uid": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn emptier_and_evenly_used_nodes_score_higher() {
        let (small, large) = (node("1", "1Gi"), node("4", "4Gi"));
        let p = pod("500m", "512Mi");
        assert_eq!(least_allocated(&p, &small), 50);
        assert_eq!(least_allocated(&p, &large), 87);
        assert_eq!(balanced(&p, &small), 100);
        assert_eq!(balanced(&pod("1", "0"), &small), 50);
    }

    #[test]
    fn image_names_get_their_tag() {
        for (name, expected) in [
            ("a", "a:latest"),
            ("r:5000/a", "r:5000/a:latest"),
            ("a:1", "a:1"),
            ("a@sha256:0", "a@sha256:0"),
        ] {
            assert_eq!(normalised_image(name), expected);
        }
    }

    #[test]
    fn normalising_scales_to_the_largest() {
        assert_eq!(normalise(vec![0, 5, 10], false), [0, 50, 100]);
        assert_eq!(normalise(vec![0, 5, 10], true), [100, 50, 0]);
        assert_eq!(normalise(vec![0, 0], true), [100, 100]);
    }
}
