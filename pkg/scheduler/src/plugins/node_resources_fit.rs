//! A node has to have what the pod asks for; of those that do, the one with the most left is best, or with the least, or by a curve of
//! one's own.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::allocation::{Asked, Sums, Weighed, asked, cpu_and_memory};
use crate::change::{Change, Kind};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Filter, MAX_SCORE, Objection, Plugin, PreFilter, Score};
use crate::pod::PodInfo;
use crate::resources::Resources;

/// How much of a resource a node should have given away (`scoringStrategy`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of a broken line: per cent given away and the score for it, 0 to 100.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Upstream's NodeResourcesFit.
#[derive(Debug)]
pub struct NodeResourcesFit {
    pub strategy: Strategy,
    pub resources: Vec<Weighed>,
    /// Extended resources that somebody else looks after: by name, and by what comes before the slash.
    pub ignored: Vec<Box<str>>,
    pub ignored_groups: Vec<Box<str>>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        NodeResourcesFit {
            strategy: Strategy::LeastAllocated,
            resources: cpu_and_memory(),
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
        }
    }
}

struct Room<'a> {
    asked: &'a Resources,
    scalars: SmallVec<[&'a (String, i64); 2]>,
}

impl Filter for Room<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        let (asked, used, all) = (self.asked, &node.requested, &node.allocatable);
        let lacks = |asked: i64, used: i64, all: i64| asked > 0 && asked > all - used;
        let lacking = used.pods + 1 > all.pods
            || lacks(asked.milli_cpu, used.milli_cpu, all.milli_cpu)
            || lacks(asked.memory, used.memory, all.memory)
            || lacks(asked.ephemeral_storage, used.ephemeral_storage, all.ephemeral_storage)
            || self
                .scalars
                .iter()
                .any(|(name, asked)| lacks(*asked, used.scalar(name), all.scalar(name)));
        lacking.then(|| self.objection(node))
    }
}

impl Room<'_> {
    fn objection(&self, node: &NodeInfo) -> Objection {
        let (asked, used, all) = (self.asked, &node.requested, &node.allocatable);
        let mut reasons: SmallVec<[Cow<'static, str>; 1]> = SmallVec::new();
        let mut unresolvable = false;
        if used.pods + 1 > all.pods {
            reasons.push("Too many pods".into());
        }
        let mut lacking = |asked: i64, used: i64, all: i64, reason: &dyn Fn() -> Cow<'static, str>| {
            if asked > 0 && asked > all - used {
                reasons.push(reason());
                unresolvable |= asked > all;
            }
        };
        lacking(asked.milli_cpu, used.milli_cpu, all.milli_cpu, &|| {
            "Insufficient cpu".into()
        });
        lacking(asked.memory, used.memory, all.memory, &|| "Insufficient memory".into());
        lacking(
            asked.ephemeral_storage,
            used.ephemeral_storage,
            all.ephemeral_storage,
            &|| "Insufficient ephemeral-storage".into(),
        );
        for (name, amount) in &self.scalars {
            lacking(*amount, used.scalar(name), all.scalar(name), &|| {
                format!("Insufficient {name}").into()
            });
        }
        Objection {
            reasons,
            unresolvable,
            failed: false,
            unfinished: false,
        }
    }
}

impl NodeResourcesFit {
    fn looks_after(&self, name: &str) -> bool {
        let Some((group, _)) = name.split_once('/') else {
            return true;
        };
        let listed = |list: &[Box<str>], name: &str| list.iter().any(|own| &**own == name);
        !listed(&self.ignored, name) && !listed(&self.ignored_groups, group)
    }

    fn room<'a>(&self, pod: &'a PodInfo) -> Room<'a> {
        let scalars = pod.requests.scalars.iter().filter(|(name, _)| self.looks_after(name));
        Room {
            asked: &pod.requests,
            scalars: scalars.collect(),
        }
    }
}

struct Allocation<'a> {
    strategy: &'a Strategy,
    asked: Vec<(Asked<'a>, i64)>,
}

impl Score for Allocation<'_> {
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores) {
            let (mut sum, mut weights) = (0, 0);
            for (asked, weight) in &self.asked {
                let (used, all) = asked.of(node, Sums::Nonzero);
                if all == 0 {
                    continue;
                }
                let own = self.strategy.score(used, all);
                if own == 0 && matches!(self.strategy, Strategy::RequestedToCapacityRatio(_)) {
                    continue;
                }
                sum += own * weight;
                weights += weight;
            }
            *score = self.strategy.mean(sum, weights);
        }
    }
}

impl Strategy {
    fn score(&self, used: i64, all: i64) -> i64 {
        match self {
            Strategy::LeastAllocated => (all - used).max(0) * MAX_SCORE / all,
            Strategy::MostAllocated => used.min(all) * MAX_SCORE / all,
            Strategy::RequestedToCapacityRatio(line) => on_line(line, if used > all { 100 } else { used * 100 / all }),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "scores are small"
    )]
    fn mean(&self, sum: i64, weights: i64) -> i64 {
        match self {
            _ if weights == 0 => 0,
            Strategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// The height of a broken line; level before its first and after its last point.
fn on_line(line: &[(i64, i64)], at: i64) -> i64 {
    let next = line.iter().position(|(x, _)| at <= *x);
    match next {
        Some(0) => line[0].1,
        Some(next) => {
            let ((x0, y0), (x1, y1)) = (line[next - 1], line[next]);
            y0 + (y1 - y0) * (at - x0) / (x1 - x0)
        }
        None => line.last().map_or(0, |(_, y)| *y),
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster) -> PreFilter<'a> {
        PreFilter::Check(Box::new(self.room(pod)))
    }

    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Allocation {
            strategy: &self.strategy,
            asked: asked(pod, &self.resources, Sums::Nonzero),
        }))
    }

    fn wakes_on(&self) -> u32 {
        Kind::NodeAdded as u32 | Kind::NodeAllocatable as u32 | Kind::PodGone as u32 | Kind::PodChanged as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        let asked = &pod.requests;
        match change {
            Change::Node { before, node } => {
                let empty = NodeInfo {
                    allocatable: node.allocatable.clone(),
                    ..NodeInfo::default()
                };
                let more = |before: &Resources| {
                    asked.asks_where(before, &node.allocatable, |before, now| now > before)
                        || node.allocatable.pods > before.pods
                };
                self.room(pod).check(&empty).is_none() && before.is_none_or(|before| more(&before.allocatable))
            }
            Change::PodChanged { before, now } => {
                asked.asks_where(&before.requests, &now.requests, |before, now| now < before)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_scores_what_is_given_away() {
        let line = Strategy::RequestedToCapacityRatio(vec![(20, 0), (80, 100)]);
        for (strategy, used, expected) in [
            (&Strategy::LeastAllocated, 1, 75),
            (&Strategy::LeastAllocated, 5, 0),
            (&Strategy::MostAllocated, 1, 25),
            (&Strategy::MostAllocated, 5, 100),
            (&line, 0, 0),
            (&line, 1, 8),
            (&line, 2, 50),
            (&line, 4, 100),
            (&line, 9, 100),
        ] {
            assert_eq!(strategy.score(used, 4), expected, "{strategy:?} {used}");
        }
    }

    #[test]
    fn what_others_look_after_is_not_counted() {
        let fit = NodeResourcesFit {
            ignored: vec!["a.b/c".into()],
            ignored_groups: vec!["x.y".into()],
            ..NodeResourcesFit::default()
        };
        for (name, counted) in [
            ("a.b/c", false),
            ("a.b/d", true),
            ("x.y/z", false),
            ("hugepages-2Mi", true),
        ] {
            assert_eq!(fit.looks_after(name), counted, "{name}");
        }
    }
}
