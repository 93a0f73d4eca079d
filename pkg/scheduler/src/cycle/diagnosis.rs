//! What the nodes said that a decision looked at, and how that is told.

use std::collections::BTreeMap;

use crate::checks::{PreFiltered, Refused};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::Objection;
use crate::profile::{Profile, Rows};

/// What each node that was looked at said.
pub struct Diagnosis<'a> {
    /// How many nodes there are.
    pub all: usize,
    /// None was looked at: so it was said of the pod before.
    pub pre_filter: Option<Refused>,
    pub nodes: Vec<(&'a NodeInfo, Refused)>,
    /// What is said of those that were not looked at: what says which were; none: nothing.
    pub absent: Option<Objection>,
    /// The plugins that said which were.
    pub named: Rows,
}

impl Diagnosis<'_> {
    /// The nodes that the plugin of a row objected to.
    pub(super) fn of(&self, row: usize) -> impl Iterator<Item = (&NodeInfo, &Objection)> {
        let own = self.nodes.iter().filter(move |(_, (of, _))| *of == row);
        own.map(|(node, (_, objection))| (*node, objection))
    }

    /// A plugin had no more time for some node.
    pub(super) fn is_unfinished(&self) -> bool {
        self.nodes.iter().any(|(_, (_, objection))| objection.unfinished)
    }

    /// The plugin that could not tell.
    pub(super) fn failed(&self) -> Option<(&Refused, bool)> {
        let of_pod = self.pre_filter.as_ref().map(|refused| (refused, true));
        let of_node = self.nodes.last().map(|(_, refused)| (refused, false));
        of_pod.or(of_node).filter(|((_, objection), _)| objection.failed)
    }

    /// The same in upstream's words.
    pub(super) fn failure(&self, profile: &Profile) -> Option<String> {
        let ((row, objection), before) = self.failed()?;
        let (name, why) = (profile.rows[*row].plugin.name(), objection.reasons.join(", "));
        Some(match before {
            true => format!("running PreFilter plugin \"{name}\": {why}"),
            false => format!("running \"{name}\" filter plugin: {why}"),
        })
    }

    /// Before nodes are looked at.
    pub(super) fn new(cluster: &Cluster, pre: &PreFiltered<'_>) -> Self {
        Diagnosis {
            all: cluster.order().len(),
            pre_filter: pre.refused.clone(),
            nodes: Vec::new(),
            absent: None,
            named: 0,
        }
    }

    /// The nodes' objections in upstream's words: each reason with the number of nodes that gave it.
    pub fn message(&self) -> String {
        if let Some((_, objection)) = &self.pre_filter {
            return format!("0/{} nodes are available: {}.", self.all, objection.reasons.join(", "));
        }
        let each = self.nodes.iter().map(|(_, (_, objection))| (objection, 1));
        let absent = self
            .absent
            .iter()
            .map(|objection| (objection, self.all - self.nodes.len()));
        counted(self.all, each.chain(absent.filter(|(_, count)| *count > 0)))
    }
}

/// `0/3 nodes are available: 1 …, 2 ….` The reasons are sorted as text, so that "10 …" comes before "2 …".
pub fn counted<'o>(all: usize, objections: impl Iterator<Item = (&'o Objection, usize)>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (objection, nodes) in objections {
        for reason in &objection.reasons {
            *counts.entry(reason).or_default() += nodes;
        }
    }
    let mut reasons: Vec<String> = counts
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.sort();
    match reasons.is_empty() {
        true => format!("0/{all} nodes are available:"),
        false => format!("0/{all} nodes are available: {}.", reasons.join(", ")),
    }
}
