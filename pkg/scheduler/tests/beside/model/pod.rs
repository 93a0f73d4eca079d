//! Pods, and where they want to go.

use serde_json::{Value, json};

use super::{Constraint, Container, KEYS, Labels, Term, Toleration};

/// A key, an operator and values.
pub type Need = (&'static str, &'static str, Vec<&'static str>);

/// A term of node affinity: all needs have to be met, of the labels and of the name; without needs no node meets it.
#[derive(Debug, Clone, Default)]
pub struct NodeTerm {
    pub labels: Vec<Need>,
    pub fields: Vec<Need>,
}

impl NodeTerm {
    fn json(&self) -> Value {
        let json = |needs: &[Need]| -> Vec<Value> {
            let json = |(key, operator, values): &Need| json!({"key": key, "operator": operator, "values": values});
            needs.iter().map(json).collect()
        };
        json!({"matchExpressions": json(&self.labels), "matchFields": json(&self.fields)})
    }
}

#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub namespace: &'static str,
    pub labels: Labels,
    pub going: bool,
    pub near: Vec<Term>,
    pub away: Vec<Term>,
    pub preferred: Vec<(usize, Term)>,
    pub disliked: Vec<(usize, Term)>,
    pub spread: Vec<Constraint>,
    /// nodeSelector.
    pub zone: Option<&'static str>,
    /// Node affinity: one of these; empty: none is asked for.
    pub required: Vec<NodeTerm>,
    pub liked: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    pub containers: Vec<Container>,
}

impl Pod {
    pub fn json(&self, uid: &str, node: Option<&str>) -> Value {
        let selector = self.zone.map(|zone| json!({KEYS[0]: zone}));
        let going = self.going.then_some("2024-01-01T00:00:00Z");
        json!({"metadata": {"uid": uid, "name": uid, "namespace": self.namespace, "labels": self.labels, "deletionTimestamp": going},
            "spec": {"containers": self.containers.iter().map(Container::json).collect::<Vec<_>>(),
                "nodeName": node, "affinity": self.affinity(), "nodeSelector": selector,
                "tolerations": self.tolerations.iter().map(Toleration::json).collect::<Vec<_>>(),
                "topologySpreadConstraints": self.spread.iter().map(Constraint::json).collect::<Vec<_>>()}})
    }

    fn affinity(&self) -> Value {
        let kind = |hard: &[Term], soft: &[(usize, Term)]| {
            let soft = soft
                .iter()
                .map(|(weight, term)| json!({"weight": weight, "podAffinityTerm": term.json()}));
            json!({"requiredDuringSchedulingIgnoredDuringExecution": hard.iter().map(Term::json).collect::<Vec<_>>(),
                "preferredDuringSchedulingIgnoredDuringExecution": soft.collect::<Vec<_>>()})
        };
        let required = self.required.iter().map(NodeTerm::json).collect::<Vec<_>>();
        let required = (!required.is_empty()).then(|| json!({"nodeSelectorTerms": required}));
        let liked = self
            .liked
            .iter()
            .map(|(weight, term)| json!({"weight": weight, "preference": term.json()}));
        json!({"podAffinity": kind(&self.near, &self.preferred), "podAntiAffinity": kind(&self.away, &self.disliked),
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required,
                "preferredDuringSchedulingIgnoredDuringExecution": liked.collect::<Vec<_>>()}})
    }
}
