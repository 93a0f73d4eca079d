//! A decision in two halves, between which extenders are asked: which nodes plugins let through; and, once it is known what the
//! extenders make of those, which of them gets the pod. The cluster may have changed meanwhile: the second half checks again.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Diagnosis, NO_NODES, Refusal, best, nominated, none_but, refuse, search_all, totals};
use crate::checks::PreFiltered;
use crate::cluster::{Cluster, NodeId, NodeInfo};
use crate::extender::{OnNodes, Verdict};
use crate::pod::PodInfo;
use crate::preemption::Victims;
use crate::profile::{EXTENDERS, EXTENDERS_ROW, Profile};

/// What the first half found.
#[derive(Debug)]
pub struct Candidates {
    /// The nodes that plugins let through: there is one at least.
    pub feasible: Vec<Arc<str>>,
    /// All that were looked at.
    looked: Vec<Arc<str>>,
    /// It is the one that room was made on; the others have not been looked at.
    nominated: bool,
    /// Where the next search begins.
    pub next_start: usize,
}

/// What the second half comes to.
pub enum Outcome {
    Node(NodeId),
    /// Not the node that room was made on: the others are to be looked at.
    Others,
    /// What extenders let through went, or filled up, while they were asked: it is to be decided anew.
    Again,
    Refused(Refusal),
}

/// The first half. `others`: not the node that room was made on.
pub fn candidates(
    pod: &PodInfo,
    profile: &Profile,
    cluster: &Cluster,
    start: usize,
    others: bool,
    mut pick: impl FnMut(usize) -> usize,
) -> Result<Candidates, Refusal> {
    let all = cluster.order().len();
    if all == 0 {
        return Err(Refusal::of_all(NO_NODES));
    }
    let pre = PreFiltered::new(profile, pod, cluster);
    if !others && let Some(node) = nominated(pod, cluster, &pre) {
        return Ok(Candidates {
            feasible: vec![node.name.clone()],
            looked: vec![node.name.clone()],
            nominated: true,
            next_start: start % all,
        });
    }
    let (feasible, diagnosis, looked) = search_all(profile, cluster, &pre, start);
    if let Some(failure) = diagnosis.failure(profile) {
        return Err(Refusal::bare(failure, true));
    }
    if feasible.is_empty() {
        return Err(refuse(pod, profile, cluster, &pre.checks, &diagnosis, &mut pick));
    }
    let names = |nodes: &[&NodeInfo]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    let mut all_looked = names(&feasible);
    all_looked.extend(diagnosis.nodes.iter().map(|(node, _)| node.name.clone()));
    Ok(Candidates {
        feasible: names(&feasible),
        looked: all_looked,
        nominated: false,
        next_start: (start + looked) % all,
    })
}

/// The second half.
pub fn decide(
    pod: &PodInfo,
    profile: &Profile,
    cluster: &Cluster,
    candidates: &Candidates,
    verdict: &Verdict,
    mut pick: impl FnMut(usize) -> usize,
) -> Outcome {
    let pre = PreFiltered::new(profile, pod, cluster);
    let (feasible, diagnosis) = judge(profile, cluster, &pre, candidates, verdict);
    if let Some(failure) = diagnosis.failure(profile) {
        return Outcome::Refused(Refusal::bare(failure, true));
    }
    match feasible.as_slice() {
        [] if candidates.nominated && pre.refused.is_none() => Outcome::Others,
        // Who decides without extenders would not have come to this: it would find other nodes, or push away others.
        [] if pre.refused.is_none() && keeps_any(verdict) => Outcome::Again,
        [] => {
            let mut refusal = refuse(pod, profile, cluster, &pre.checks, &diagnosis, &mut pick);
            if verdict.kept.len() != candidates.feasible.len() {
                refusal.rows |= EXTENDERS;
            }
            Outcome::Refused(refusal)
        }
        [only] => Outcome::Node(only.id),
        _ => {
            let mut totals = totals(pod, profile, cluster, &feasible);
            for (node, total) in feasible.iter().zip(&mut totals) {
                let own = verdict.scores.get(&node.name).copied().unwrap_or(0);
                *total = total.saturating_add(own);
            }
            Outcome::Node(feasible[best(&totals, &mut pick)].id)
        }
    }
}

/// Of the victims that extenders chose those that could go by now. None: the pod is to be tried again, since it fits on one of the nodes
/// without, or nothing is any more as it was when they were asked.
pub fn standing(pod: &PodInfo, profile: &Profile, cluster: &Cluster, chosen: OnNodes) -> Option<Vec<Victims>> {
    let pre = PreFiltered::new(profile, pod, cluster);
    let any = !chosen.is_empty();
    let mut found = Vec::new();
    for (name, victims) in chosen {
        let Some(node) = cluster.find(&name).filter(|node| node.exists) else {
            continue;
        };
        if pre.refused.is_none() && pre.checks.check(node).is_none() {
            return None;
        }
        let there = |victim: &Arc<PodInfo>| node.pods.iter().find(|pod| pod.uid == victim.uid).cloned();
        let pods: Option<Vec<_>> = victims.pods.iter().map(there).collect();
        found.extend(pods.map(|pods| Victims::new(node.id, pods, victims.breaks)));
    }
    (!any || !found.is_empty()).then_some(found)
}

/// Whether extenders let a node through.
fn keeps_any(verdict: &Verdict) -> bool {
    verdict.kept.iter().any(|node| !verdict.failed.contains_key(node))
}

/// What plugins, asked again, and extenders say of the nodes that were looked at.
fn judge<'a>(
    profile: &Profile,
    cluster: &'a Cluster,
    pre: &PreFiltered<'_>,
    candidates: &Candidates,
    verdict: &Verdict,
) -> (Vec<&'a NodeInfo>, Diagnosis<'a>) {
    let mut diagnosis = Diagnosis::new(cluster, pre);
    let mut feasible = Vec::new();
    if pre.refused.is_some() {
        return (feasible, diagnosis);
    }
    if let Some((_, rows)) = &pre.only {
        diagnosis.absent = Some(none_but(profile, rows));
        diagnosis.named = super::bits(rows);
    }
    let kept: HashSet<&Arc<str>> = verdict.kept.iter().collect();
    let known = candidates.looked.iter().filter_map(|name| cluster.find(name));
    for node in known.filter(|node| node.exists) {
        if let Some(refused) = pre.checks.check(node) {
            diagnosis.nodes.push((node, refused));
            // Of a plugin that can't tell, nothing is said of the others.
            if diagnosis.failed().is_some() {
                break;
            }
        } else if let Some(objection) = verdict.failed.get(&node.name) {
            diagnosis.nodes.push((node, (EXTENDERS_ROW, objection.clone())));
        } else if kept.contains(&node.name) {
            feasible.push(node);
        }
    }
    (feasible, diagnosis)
}
