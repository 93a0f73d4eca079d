//! Whole decisions: what all rules together say.

use std::collections::BTreeMap;

use super::Question;
use crate::model::Node;

/// What is right.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// These nodes are right, each with its total: one with the most gets the pod.
    Right(Vec<(String, i64)>),
    /// No node is right, in the words for people.
    Refused(String),
}

impl Question<'_> {
    /// Why a node is not right: the reasons of the first rule that it breaks.
    fn objection(&self, name: &str, node: &Node) -> Vec<&'static str> {
        let lacking = self.lacking(name, node);
        if self.is_cordoned(node) {
            vec!["node(s) were unschedulable"]
        } else if self.is_repelled(node) {
            vec!["node(s) had untolerated taint(s)"]
        } else if !self.is_wanted(name, node) {
            vec!["node(s) didn't match Pod's node affinity/selector"]
        } else if self.ports_are_taken(name) {
            vec!["node(s) didn't have free ports for the requested pod ports"]
        } else if !lacking.is_empty() {
            lacking
        } else {
            self.spread(node).or_else(|| self.affinity(node)).into_iter().collect()
        }
    }

    /// Why not, of each node: where every term of the pod names nodes, the others are not looked at.
    fn objections(&self, only: Option<&[&str]>) -> Vec<Vec<&'static str>> {
        let of = |(name, node): (&String, &Node)| match only {
            Some(names) if !names.contains(&&**name) => vec!["node(s) didn't satisfy plugin(s) [NodeAffinity]"],
            _ => self.objection(name, node),
        };
        self.model.nodes.iter().map(of).collect()
    }

    /// The decision.
    pub fn answer(&self) -> Answer {
        let all = &self.model.nodes;
        if all.is_empty() {
            return Answer::Refused("no nodes available to schedule pods".to_owned());
        }
        let refused =
            |why: &str, after: &str| Answer::Refused(format!("0/{} nodes are available: {why}. {after}", all.len()));
        let only = self.only();
        if only.as_ref().is_some_and(Vec::is_empty) {
            return refused("pod affinity terms conflict", "not found");
        }
        let objections = self.objections(only.as_deref());
        let right = all.iter().zip(&objections).filter(|(_, reasons)| reasons.is_empty());
        let right: Vec<(&str, &Node)> = right.map(|((name, node), _)| (&**name, node)).collect();
        if right.is_empty() {
            return refused(&counted(&objections), "no new claims to deallocate");
        }
        let totals = self.totals(&right);
        let named = right.iter().map(|(name, _)| (*name).to_owned());
        Answer::Right(named.zip(totals).collect())
    }

    fn totals(&self, nodes: &[(&str, &Node)]) -> Vec<i64> {
        let each =
            |of: &dyn Fn(&str, &Node) -> i64| nodes.iter().map(|(name, node)| of(name, node)).collect::<Vec<_>>();
        let only: Vec<&Node> = nodes.iter().map(|(_, node)| *node).collect();
        let weighed = [
            (3, self.taint_scores(nodes)),
            (2, self.node_affinity_scores(nodes)),
            (1, each(&|name, node| self.room_score(name, node))),
            (2, self.spread_scores(nodes)),
            (2, self.affinity_scores(&only)),
            (1, each(&|name, node| self.balance_score(name, node))),
            (1, each(&|_, node| self.image_score(node))),
        ];
        let total = |at: usize| weighed.iter().map(|(weight, scores)| weight * scores[at]).sum();
        (0..nodes.len()).map(total).collect()
    }
}

/// Each reason with the number of nodes that it is of, sorted as text.
fn counted(objections: &[Vec<&str>]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in objections.iter().flatten() {
        *counts.entry(reason).or_default() += 1;
    }
    let counted = counts.iter().map(|(reason, count)| format!("{count} {reason}"));
    let mut counted: Vec<String> = counted.collect();
    counted.sort();
    counted.join(", ")
}
