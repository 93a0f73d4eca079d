//! Who would have to go so that a pod that fits nowhere fits somewhere: less important pods, as few and as unimportant as may be
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>). Each node is tried on a copy of it.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::checks::{Checks, NodeTrial};
use crate::cluster::{Cluster, NodeId, NodeInfo};
use crate::cycle::{Diagnosis, Preempted, counted};
use crate::framework::Objection;
use crate::pod::PodInfo;
use crate::profile::Preemption;

/// The pods that go, the most important first, and where.
#[derive(Debug, Clone)]
pub struct Victims {
    pub node: NodeId,
    pub pods: Vec<Arc<PodInfo>>,
    /// Less important pods that room was made for there before: they may not fit there any more, and are better off looking
    /// elsewhere.
    pub displaced: Vec<Arc<PodInfo>>,
    /// So many of `pods` break a budget by going.
    pub breaks: usize,
    /// What would go elsewhere instead, if extenders don't want these to go.
    pub others: Vec<Victims>,
}

/// The choice of which the least is lost for a pod.
pub fn best(mut found: Vec<Victims>, pod: &PodInfo, cluster: &Cluster) -> Option<Victims> {
    let at = (0..found.len()).min_by_key(|at| found[*at].cost())?;
    let mut best = found.swap_remove(at);
    let nominated = cluster.nominated.on(&cluster.node(best.node).name).iter();
    let lesser = nominated.filter(|other| other.priority < pod.priority);
    best.displaced = lesser.cloned().collect();
    best.others = found;
    Some(best)
}

impl Victims {
    /// Pods that go from a node.
    pub fn new(node: NodeId, pods: Vec<Arc<PodInfo>>, breaks: usize) -> Self {
        Victims {
            node,
            pods,
            displaced: Vec::new(),
            breaks,
            others: Vec::new(),
        }
    }

    /// The smaller, the less is lost (upstream's order of rules): budgets broken; the priority of the most important victim; the
    /// sum of all, and so their number; their number; and the youngest of the most important are worth least.
    fn cost(&self) -> (usize, i64, i64, usize, Reverse<i64>) {
        let highest = self.pods.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
        let each = self
            .pods
            .iter()
            .map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1);
        let most_important = self.pods.iter().filter(|pod| pod.priority == highest);
        let oldest = most_important.map(|pod| started(pod)).min().unwrap_or(i64::MAX);
        (
            self.breaks,
            i64::from(highest),
            each.sum(),
            self.pods.len(),
            Reverse(oldest),
        )
    }
}

/// A pod that did not start yet is as young as can be.
fn started(pod: &PodInfo) -> i64 {
    pod.started.unwrap_or(i64::MAX)
}

fn most_important_first(pods: &mut [Arc<PodInfo>]) {
    pods.sort_by_key(|pod| (Reverse(pod.priority), started(pod)));
}

/// Makes room for a pod that the diagnosis is about; what is said of it where there is none to make. `pick` chooses where to begin.
pub fn preempt(
    pod: &PodInfo,
    cluster: &Cluster,
    checks: &Checks<'_>,
    diagnosis: &Diagnosis<'_>,
    settings: Preemption,
    pick: &mut impl FnMut(usize) -> usize,
) -> (Preempted, Option<String>) {
    if let Some(why) = not_eligible(pod, cluster, diagnosis) {
        return (Preempted::NotEligible, Some(format!("not eligible due to {why}.")));
    }
    let nodes = diagnosis.resolvable(cluster);
    let mut said = Vec::new();
    let found = match nodes.is_empty() {
        true => Vec::new(),
        false => {
            let first = pick(nodes.len());
            let enough = settings.candidates(nodes.len());
            let (head, tail) = nodes.split_at(first);
            candidates(
                pod,
                cluster,
                checks,
                tail.iter().chain(head).copied(),
                enough,
                &mut said,
            )
        }
    };
    match best(found, pod, cluster) {
        Some(victims) => (Preempted::By(Box::new(victims)), None),
        None => {
            let unhelpful = Objection::unresolvable("Preemption is not helpful for scheduling");
            let others = diagnosis.all - said.len();
            let each = said.iter().map(|objection| (objection, 1));
            let all = each.chain((others > 0).then_some((&unhelpful, others)));
            (Preempted::NotHelpful, Some(counted(diagnosis.all, all)))
        }
    }
}

impl Preemption {
    fn candidates(&self, nodes: usize) -> usize {
        let part = nodes * self.min_candidates_percentage / 100;
        part.max(self.min_candidates).min(nodes)
    }
}

/// Why a pod may not push others away: it does not want to, or some that it pushed away are still going.
fn not_eligible(pod: &PodInfo, cluster: &Cluster, diagnosis: &Diagnosis<'_>) -> Option<&'static str> {
    if pod.wishes().never_preempts {
        return Some("preemptionPolicy=Never");
    }
    let node = cluster
        .nominated
        .node_of(&pod.uid)
        .and_then(|name| cluster.find(name))?;
    if diagnosis.is_unresolvable(node) {
        return None;
    }
    let mut lesser = node.pods.iter().filter(|other| other.priority < pod.priority);
    lesser
        .any(|other| other.preempted)
        .then_some("a terminating pod on the nominated node")
}

impl<'a> Diagnosis<'a> {
    fn is_unresolvable(&self, node: &NodeInfo) -> bool {
        let own = self.nodes.iter().find(|(other, _)| other.id == node.id);
        match (own, &self.pre_filter) {
            (Some((_, (_, objection))), _) | (None, Some((_, objection))) => objection.unresolvable,
            (None, None) => true,
        }
    }

    /// The nodes whose objection others' going may lift.
    fn resolvable(&self, cluster: &'a Cluster) -> Vec<&'a NodeInfo> {
        match &self.pre_filter {
            Some((_, objection)) if objection.unresolvable => Vec::new(),
            Some(_) => cluster.order().iter().map(|id| cluster.node(*id)).collect(),
            None => {
                let own = self.nodes.iter().filter(|(_, (_, objection))| !objection.unresolvable);
                own.map(|(node, _)| *node).collect()
            }
        }
    }
}

/// What would go on each of these nodes, for as many as are enough; the objections of those where nothing helps go to `said`.
fn candidates<'a>(
    pod: &PodInfo,
    cluster: &Cluster,
    checks: &Checks<'_>,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    enough: usize,
    said: &mut Vec<Objection>,
) -> Vec<Victims> {
    let mut found: Vec<Victims> = Vec::new();
    for node in nodes {
        match victims(pod, cluster, checks, node) {
            Ok(victims) => found.push(victims),
            Err(objection) => said.push(objection),
        }
        if found.len() >= enough && found.iter().any(|victims| victims.breaks == 0) {
            break;
        }
    }
    found
}

/// The fewest pods of a node without which the pod fits there: all that are less important are taken off, and put back one by one,
/// first those that a budget protects, then the more important ones.
fn victims(pod: &PodInfo, cluster: &Cluster, checks: &Checks<'_>, node: &NodeInfo) -> Result<Victims, Objection> {
    let mut lesser: Vec<Arc<PodInfo>> = node
        .pods
        .iter()
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect();
    if lesser.is_empty() {
        return Err(Objection::unresolvable("No preemption victims found for incoming pod"));
    }
    let mut trial = checks.trial(node);
    lesser.iter().for_each(|other| trial.remove(other));
    if let Some((_, objection)) = trial.check_with_nominated() {
        return Err(objection);
    }
    most_important_first(&mut lesser);
    let breaks = cluster.budgets.broken_by(&lesser);
    let (protected, others): (Vec<_>, Vec<_>) = lesser.iter().zip(breaks).partition(|(_, breaks)| *breaks);
    let stay = |trial: &mut NodeTrial<'_>, other: &Arc<PodInfo>| {
        trial.add(other);
        let fits = trial.check_with_nominated().is_none();
        if !fits {
            trial.remove(other);
        }
        fits
    };
    let mut pods = Vec::new();
    let mut broken = 0;
    for (other, breaks) in protected.into_iter().chain(others) {
        if !stay(&mut trial, other) {
            pods.push(other.clone());
            broken += usize::from(breaks);
        }
    }
    most_important_first(&mut pods);
    Ok(Victims::new(node.id, pods, broken))
}

#[cfg(test)]
mod tests;
