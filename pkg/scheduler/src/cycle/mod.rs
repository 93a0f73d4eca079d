//! One decision: which node gets this pod, or why none does, and who would have to go. Pure: reads the cluster, writes nothing.

mod diagnosis;
pub mod extended;

use std::borrow::Cow;

pub use self::diagnosis::{Diagnosis, counted};
use crate::checks::{self, Checks, PreFiltered};
use crate::cluster::{Cluster, NodeId, NodeInfo};
use crate::framework::{Objection, PostFilter, Write};
use crate::pod::PodInfo;
use crate::preemption::{self, Victims};
use crate::profile::{ANY, Profile, Rows};

/// Below this many nodes all are looked at, and never fewer than this are.
const MIN_FEASIBLE: usize = 100;
const MIN_PERCENTAGE: usize = 5;
const NO_NODES: &str = "no nodes available to schedule pods";

/// Why no node takes the pod.
#[derive(Debug)]
pub struct Refusal {
    /// For people: upstream's counted reasons.
    pub message: String,
    /// The plugins that objected.
    pub rows: Rows,
    /// What a preemption would come to; none: it was not tried.
    pub preemption: Option<Preempted>,
    /// What others than preemption say, where that makes room: told only if it comes to nothing.
    pub beside: Vec<Cow<'static, str>>,
    /// What plugins do to make room.
    pub writes: Vec<Write>,
    /// A plugin could not tell: whether a node is right is open.
    pub failed: bool,
    /// A plugin had no more time: the pod is to be tried again, whatever happens.
    pub unfinished: bool,
}

impl Refusal {
    /// Nobody was asked, or who was could not tell.
    fn bare(message: String, failed: bool) -> Self {
        Refusal {
            message,
            rows: ANY,
            preemption: None,
            beside: Vec::new(),
            writes: Vec::new(),
            failed,
            unfinished: false,
        }
    }
}

/// What became of a try to make room.
#[derive(Debug)]
pub enum Preempted {
    /// These go, and the pod is nominated to their node.
    By(Box<Victims>),
    /// It can't help: the pod is nominated nowhere.
    NotHelpful,
    /// The pod is not to try: its nomination stays as it is.
    NotEligible,
}

/// The outcome of a cycle, and where the next one begins looking.
pub struct Decision {
    pub node: Result<NodeId, Refusal>,
    /// So that all nodes have the same chance.
    pub next_start: usize,
}

/// How many nodes that fit are enough to choose from.
fn enough(all: usize, percentage: Option<usize>) -> usize {
    if all < MIN_FEASIBLE {
        return all;
    }
    let percentage = percentage.unwrap_or_else(|| 50_usize.saturating_sub(all / 125).max(MIN_PERCENTAGE));
    (all * percentage / 100).max(MIN_FEASIBLE)
}

/// Has the cluster count what the pod's decision asks for.
pub fn prepare(pod: &PodInfo, profile: &Profile, cluster: &mut Cluster) {
    cluster.settle();
    for row in &profile.rows {
        row.plugin.prepare(pod, cluster);
    }
}

/// Decides for one pod, which [`prepare`] was told of. `pick` chooses among equals (a number below its argument).
pub fn decide(
    pod: &PodInfo,
    profile: &Profile,
    cluster: &Cluster,
    start: usize,
    mut pick: impl FnMut(usize) -> usize,
) -> Decision {
    let all = cluster.order().len();
    if all == 0 {
        return Decision {
            node: Err(Refusal::of_all(NO_NODES)),
            next_start: 0,
        };
    }
    let pre = PreFiltered::new(profile, pod, cluster);
    let (feasible, diagnosis, looked) = search(pod, profile, cluster, &pre, start);
    let node = match feasible.as_slice() {
        _ if diagnosis.failure(profile).is_some() => {
            Err(Refusal::bare(diagnosis.failure(profile).unwrap_or_default(), true))
        }
        [] => Err(refuse(pod, profile, cluster, &pre.checks, &diagnosis, &mut pick)),
        [only] => Ok(only.id),
        _ => {
            let totals = totals(pod, profile, cluster, &feasible);
            Ok(feasible[best(&totals, &mut pick)].id)
        }
    };
    Decision {
        node,
        next_start: (start + looked) % all,
    }
}

impl Refusal {
    /// What no single plugin can tell.
    pub fn of_all(message: &str) -> Self {
        Refusal::bare(message.to_owned(), false)
    }

    /// Says one thing more. The nodes' reasons end with a full stop; commas stand between what is said of them.
    pub fn add(&mut self, said: &str) {
        let between = if self.message.ends_with('.') { " " } else { ", " };
        self.message.push_str(between);
        self.message.push_str(said);
    }
}

/// The place of the best total, one of the best where there are several.
fn best(totals: &[i64], pick: &mut impl FnMut(usize) -> usize) -> usize {
    let best = totals.iter().copied().max().unwrap_or(0);
    let bests: Vec<usize> = (0..totals.len()).filter(|at| totals[*at] == best).collect();
    bests[pick(bests.len())]
}

/// The node that room was made on for the pod, if it is right: it is the one that fits most likely, and the one that others leave
/// to it.
fn nominated<'a>(pod: &PodInfo, cluster: &'a Cluster, pre: &PreFiltered<'_>) -> Option<&'a NodeInfo> {
    let node = cluster
        .nominated
        .node_of(&pod.uid)
        .and_then(|name| cluster.find(name))?;
    let right = pre.refused.is_none() && node.exists && pre.checks.check(node).is_none();
    right.then_some(node)
}

/// The nodes that fit, what the others said, and how many were looked at.
fn search<'a>(
    pod: &PodInfo,
    profile: &Profile,
    cluster: &'a Cluster,
    pre: &PreFiltered<'_>,
    start: usize,
) -> (Vec<&'a NodeInfo>, Diagnosis<'a>, usize) {
    match nominated(pod, cluster, pre) {
        Some(node) => (vec![node], Diagnosis::new(cluster, pre), 0),
        None => search_all(profile, cluster, pre, start),
    }
}

/// The same, whichever node room was made on.
fn search_all<'a>(
    profile: &Profile,
    cluster: &'a Cluster,
    pre: &PreFiltered<'_>,
    start: usize,
) -> (Vec<&'a NodeInfo>, Diagnosis<'a>, usize) {
    let order = cluster.order();
    let mut diagnosis = Diagnosis::new(cluster, pre);
    if pre.refused.is_some() {
        return (Vec::new(), diagnosis, 0);
    }
    if let Some((names, rows)) = &pre.only {
        diagnosis.absent = Some(none_but(profile, rows));
        diagnosis.named = bits(rows);
        let known = names
            .iter()
            .filter_map(|name| cluster.find(name))
            .filter(|node| node.exists);
        let feasible = look(known, pre, usize::MAX, &mut diagnosis).0;
        return (feasible, diagnosis, 0);
    }
    let wanted = enough(order.len(), profile.percentage_of_nodes_to_score);
    let (head, tail) = order.split_at(start % order.len());
    let turn = tail.iter().chain(head).map(|id| cluster.node(*id));
    let (feasible, looked) = look(turn, pre, wanted, &mut diagnosis);
    (feasible, diagnosis, looked)
}

fn bits(rows: &[usize]) -> Rows {
    rows.iter().fold(0, |bits, row| bits | 1 << row)
}

/// What is said of the nodes that these plugins leave out by naming others.
fn none_but(profile: &Profile, rows: &[usize]) -> Objection {
    let names = checks::names(profile, rows);
    Objection::unresolvable(format!("node(s) didn't satisfy plugin(s) [{names}]"))
}

/// The nodes that fit, and how many were looked at: up to the first that there was no time for, so that the next search begins after
/// it. It may be the one that took the time.
fn look<'a>(
    nodes: impl Iterator<Item = &'a NodeInfo>,
    pre: &PreFiltered<'_>,
    wanted: usize,
    diagnosis: &mut Diagnosis<'a>,
) -> (Vec<&'a NodeInfo>, usize) {
    let mut feasible = Vec::new();
    let (mut looked, mut unfinished) = (0, None);
    for node in nodes {
        looked += 1;
        match pre.checks.check(node) {
            None => feasible.push(node),
            Some(refused) => {
                unfinished = unfinished.or(refused.1.unfinished.then_some(looked));
                diagnosis.nodes.push((node, refused));
            }
        }
        if feasible.len() >= wanted || diagnosis.failed().is_some() {
            break;
        }
    }
    (feasible, unfinished.unwrap_or(looked))
}

/// The total of each candidate.
pub fn totals(pod: &PodInfo, profile: &Profile, cluster: &Cluster, feasible: &[&NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; feasible.len()];
    let mut own = Vec::new();
    for (_, weight, scores) in scores(pod, profile, cluster, feasible) {
        own.clear();
        own.resize(feasible.len(), 0);
        scores.score(feasible, &mut own);
        scores.normalise(feasible, &mut own);
        totals
            .iter_mut()
            .zip(&own)
            .for_each(|(total, score)| *total += weight * score);
    }
    totals
}

/// The plugins of a profile that score these nodes for the pod, with their weights.
pub fn scores<'a>(
    pod: &'a PodInfo,
    profile: &'a Profile,
    cluster: &'a Cluster,
    feasible: &[&NodeInfo],
) -> impl Iterator<Item = (&'static str, i64, Box<dyn crate::framework::Score + 'a>)> {
    let rows = profile.rows.iter().filter(|row| row.weight != 0);
    rows.filter_map(move |row| {
        let score = row.plugin.pre_score(pod, cluster, feasible)?;
        Some((row.plugin.name(), row.weight, score))
    })
}

fn refuse(
    pod: &PodInfo,
    profile: &Profile,
    cluster: &Cluster,
    checks: &Checks<'_>,
    diagnosis: &Diagnosis<'_>,
    pick: &mut impl FnMut(usize) -> usize,
) -> Refusal {
    let refused = diagnosis
        .nodes
        .iter()
        .map(|(_, refused)| refused)
        .chain(&diagnosis.pre_filter);
    let rows = refused.fold(diagnosis.named, |rows, (row, _)| rows | 1 << row);
    let (posts, all_asked) = post_filters(pod, profile, cluster, diagnosis);
    let mut said: Vec<Cow<'static, str>> = posts.iter().map(|post| post.words.clone()).collect();
    let writes = posts.into_iter().filter_map(|post| post.write).collect();
    let settings = profile.preemption.filter(|_| all_asked);
    let preemption = settings.map(|settings| {
        let (preempted, why) = preemption::preempt(pod, cluster, checks, diagnosis, settings, pick);
        said.extend(why.map(|why| format!("preemption: {why}").into()));
        preempted
    });
    let beside = match preemption {
        Some(Preempted::By(_)) => std::mem::take(&mut said),
        _ => Vec::new(),
    };
    let message = match said.is_empty() {
        true => diagnosis.message(),
        false => format!("{} {}", diagnosis.message(), said.join(", ")),
    };
    Refusal {
        message,
        rows,
        preemption,
        beside,
        writes,
        failed: false,
        unfinished: diagnosis.is_unfinished(),
    }
}

/// What plugins do about it, and whether all were asked. Upstream's fails where the pod was refused before it could look at it, and
/// nothing after it is done.
fn post_filters(
    pod: &PodInfo,
    profile: &Profile,
    cluster: &Cluster,
    diagnosis: &Diagnosis<'_>,
) -> (Vec<PostFilter>, bool) {
    let stopped_at = diagnosis
        .pre_filter
        .as_ref()
        .filter(|(_, objection)| objection.unresolvable);
    let mut posts = Vec::new();
    for (at, row) in profile.rows.iter().enumerate().filter(|(_, row)| row.post_filters) {
        let Some(post) = row.plugin.post_filter(pod, cluster, &mut diagnosis.of(at)) else {
            continue;
        };
        if stopped_at.is_some_and(|(stopped_at, _)| *stopped_at < at) {
            let words = Cow::Borrowed("not found");
            return (vec![PostFilter { words, write: None }], false);
        }
        posts.push(post);
    }
    (posts, true)
}

#[cfg(test)]
mod tests;
