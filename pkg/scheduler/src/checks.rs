//! What all filters of a profile say of one pod: of nodes as they are, and of a node on which pods come and go for a trial.

use std::sync::Arc;

use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Filter, Objection, PreFilter, Trial};
use crate::pod::PodInfo;
use crate::profile::Profile;

/// A node's first objection, and the place of the plugin's row.
pub type Refused = (usize, Objection);

/// The filters that have something to say of a pod.
pub struct Checks<'a> {
    pod: &'a PodInfo,
    cluster: &'a Cluster,
    filters: Vec<(usize, Box<dyn Filter + 'a>)>,
}

/// What was said of a pod before any node was looked at.
pub struct PreFiltered<'a> {
    pub checks: Checks<'a>,
    /// Only these nodes, by name, may be right: so say the plugins of these rows.
    pub only: Option<(Vec<&'a str>, Vec<usize>)>,
    /// No node is right.
    pub refused: Option<Refused>,
}

impl<'a> PreFiltered<'a> {
    /// Asks each plugin about the pod.
    pub fn new(profile: &'a Profile, pod: &'a PodInfo, cluster: &'a Cluster) -> Self {
        let mut all = PreFiltered {
            checks: Checks {
                pod,
                cluster,
                filters: Vec::with_capacity(8),
            },
            only: None,
            refused: None,
        };
        for (row, plugin) in profile.rows.iter().enumerate().filter(|(_, row)| row.filters) {
            match plugin.plugin.pre_filter(pod, cluster) {
                PreFilter::Skip => {}
                PreFilter::Check(filter) => all.checks.filters.push((row, filter)),
                PreFilter::Refuse(objection) => {
                    let over = objection.unresolvable;
                    all.refused = Some((row, objection));
                    // Where preemption may help, it has to know what else there is to satisfy.
                    if over {
                        return all;
                    }
                }
                PreFilter::Only(names, filter) => {
                    all.checks.filters.push((row, filter));
                    all.only = Some(common(all.only.take(), names, row));
                    if let Some((names, rows)) = &all.only
                        && names.is_empty()
                    {
                        all.refused = Some((row, none_left(profile, rows)));
                        return all;
                    }
                }
            }
        }
        all
    }
}

impl Checks<'_> {
    /// The node's first objection, with the pods counted that a preemption makes room for there.
    pub fn check(&self, node: &NodeInfo) -> Option<Refused> {
        let others = self.cluster.nominated.on(&node.name);
        if others.is_empty() {
            return self.first(node);
        }
        self.trial(node).check_with_nominated()
    }

    fn first(&self, node: &NodeInfo) -> Option<Refused> {
        self.filters
            .iter()
            .find_map(|(row, filter)| Some((*row, filter.check(node)?)))
    }

    /// A trial on a copy of the node.
    pub fn trial(&self, node: &NodeInfo) -> NodeTrial<'_> {
        NodeTrial {
            checks: self,
            node: node.clone(),
            trials: self.filters.iter().map(|(_, filter)| filter.trial()).collect(),
        }
    }
}

fn common<'a>(
    before: Option<(Vec<&'a str>, Vec<usize>)>,
    names: Vec<&'a str>,
    row: usize,
) -> (Vec<&'a str>, Vec<usize>) {
    let Some((mut common, mut rows)) = before else {
        return (names, vec![row]);
    };
    common.retain(|name| names.contains(name));
    rows.push(row);
    (common, rows)
}

fn none_left(profile: &Profile, rows: &[usize]) -> Objection {
    let names = names(profile, rows);
    Objection::unresolvable(match rows {
        [_] => format!("node(s) didn't satisfy plugin {names}"),
        _ => format!("node(s) didn't satisfy plugin(s) [{names}] simultaneously"),
    })
}

/// The names of some plugins, sorted.
pub fn names(profile: &Profile, rows: &[usize]) -> String {
    let mut names: Vec<_> = rows.iter().map(|row| profile.rows[*row].plugin.name()).collect();
    names.sort_unstable();
    names.join(" ")
}

/// A node on which pods come and go without anyone else seeing it.
pub struct NodeTrial<'c> {
    checks: &'c Checks<'c>,
    pub node: NodeInfo,
    /// Beside `checks.filters`.
    trials: Vec<Option<Box<dyn Trial + 'c>>>,
}

impl NodeTrial<'_> {
    /// As if the pod were on the node.
    pub fn add(&mut self, pod: &Arc<PodInfo>) {
        self.node.add(pod.clone());
        self.tell(pod, 1);
    }

    /// As if it were not.
    pub fn remove(&mut self, pod: &Arc<PodInfo>) {
        self.node.remove(&pod.uid);
        self.tell(pod, -1);
    }

    fn tell(&mut self, pod: &PodInfo, by: i64) {
        for trial in self.trials.iter_mut().flatten() {
            trial.change(pod, &self.node, by);
        }
    }

    /// The first objection to the node as it stands in the trial.
    pub fn check(&self) -> Option<Refused> {
        let filters = self.checks.filters.iter().zip(&self.trials);
        filters.into_iter().find_map(|((row, filter), trial)| {
            let objection = match trial {
                Some(trial) => trial.check(&self.node),
                None => filter.check(&self.node),
            };
            Some((*row, objection?))
        })
    }

    /// The same, also with the pods on it that are nominated there and are no less important. They may never come: without
    /// them the pod has to fit as well, since it may need one of them gone.
    pub fn check_with_nominated(&mut self) -> Option<Refused> {
        let pod = self.checks.pod;
        let nominated = self.checks.cluster.nominated.on(&self.node.name);
        let others = nominated
            .iter()
            .filter(|other| other.priority >= pod.priority && other.uid != pod.uid);
        let others: Vec<Arc<PodInfo>> = others.cloned().collect();
        if !others.is_empty() {
            others.iter().for_each(|other| self.add(other));
            let refused = self.check();
            others.iter().for_each(|other| self.remove(other));
            if refused.is_some() {
                return refused;
            }
        }
        self.check()
    }
}
