//! Numbers of pods by node and by domain of topology keys, for rules about where pods are beside others. Kept as pods and nodes come and
//! go; what is counted is what decisions asked for lately.

use std::sync::{Arc, LazyLock};

use smallvec::SmallVec;

use super::carried::Carried;
use super::inclusions::{Inclusion, InclusionId};
use super::kin::Kin;
use super::namespaces::Namespaces;
use super::node::{NodeId, NodeInfo};
use super::picks::{Pick, Picks};
use super::residents::Residents;
use super::rosters::{Roster, RosterId, Rosters, Scope};
use super::selector::PodSelector;
use super::tally::{Sums, Tally};
use super::topology::{Column, NONE, Topology};
use crate::affinity::Term;
use crate::pod::PodInfo;

/// Which terms of pods on nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Required anti-affinity.
    Anti,
    /// Required affinity.
    Required,
    /// Preferred of either kind, by weight.
    Preferred,
}

static NOBODY: LazyLock<Tally> = LazyLock::new(Tally::default);

/// Pods by the domains of a key.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    pub tally: &'a Tally,
    pub column: &'a Column,
    rosters: &'a Rosters,
    id: RosterId,
    topology: &'a Topology,
}

impl Counted<'_> {
    /// How many domains the nodes have that count.
    pub fn domains(&self) -> usize {
        self.rosters.get(self.id).map_or(0, Roster::len)
    }

    /// Whether a node counts.
    pub fn has(&self, node: NodeId) -> bool {
        self.rosters.domain(self.id, node, self.topology).is_some()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    topology: Topology,
    residents: Residents,
    picks: Picks,
    rosters: Rosters,
    /// By [`Sort`].
    carried: [Carried; 3],
    /// Decisions until now.
    now: u64,
}

impl Counts {
    /// Before a decision.
    pub(super) fn settle(&mut self, namespaces: &Namespaces) {
        self.now += 1;
        self.picks.sweep(&mut self.residents, namespaces);
        let gone = self.rosters.sweep(&mut self.topology);
        self.picks.forget_rosters(&gone);
    }

    /// A pod is on a node that exists.
    pub(super) fn came(&mut self, pod: &PodInfo, node: NodeId, nodes: &[NodeInfo], namespaces: &Namespaces) {
        let (resident, first) = self.residents.add(&pod.kin, node, pod.deleting);
        if first {
            resident.picks = self.picks.of(&pod.kin, namespaces);
        }
        self.picks
            .add(&resident.picks, node, pod.deleting, 1, &self.rosters, &self.topology);
        for (sort, weight, term) in terms(pod) {
            self.carried[sort as usize].add(term, weight, node, nodes, &mut self.topology);
        }
    }

    /// A pod is there no more.
    pub(super) fn went(&mut self, pod: &PodInfo, node: NodeId) {
        let picks = self.residents.remove(&pod.kin, node, pod.deleting);
        self.picks
            .add(&picks, node, pod.deleting, -1, &self.rosters, &self.topology);
        for (sort, weight, term) in terms(pod) {
            self.carried[sort as usize].remove(term, weight, node, &mut self.topology);
        }
    }

    /// A node counts, as it is.
    pub(super) fn node_came(&mut self, node: &NodeInfo) {
        self.topology.join(node.id, &node.facts);
        self.rosters.join(node, &self.topology);
    }

    /// A node, of which no pod is counted any more, does not count.
    pub(super) fn node_went(&mut self, node: &NodeInfo) {
        self.rosters.leave(node.id, &self.topology);
        self.topology.leave(node.id, &node.facts);
    }

    /// Before the labels of a namespace change.
    pub(super) fn change_namespaces(&mut self, namespaces: &Namespaces) {
        self.picks.forget_by_namespaces(&mut self.residents, namespaces);
    }

    /// Has pods counted by node (`live`: without those that are going), and by the domains of each scope. Where no node counts in any
    /// of these there is nothing to count: a pod may name thousands.
    pub(super) fn ask<'s>(
        &mut self,
        pods: &[Arc<PodSelector>],
        live: bool,
        scopes: impl IntoIterator<Item = Scope<'s>>,
        nodes: &[NodeInfo],
        namespaces: &Namespaces,
    ) {
        let now = self.now;
        let scopes = scopes.into_iter();
        let rosters: SmallVec<[RosterId; 2]> = scopes
            .map(|scope| self.rosters.ask(&scope, nodes, &mut self.topology, now))
            .collect();
        if !rosters.is_empty() && rosters.iter().all(|id| self.rosters.is_empty(*id)) {
            return;
        }
        let pick = self.picks.ask(pods, live, &mut self.residents, namespaces, now);
        let Some(pick) = pick else { return };
        for id in rosters {
            pick.count(id, &self.rosters, &self.topology);
        }
    }

    /// Before a decision: the number of what its scopes include.
    pub(super) fn include(&mut self, inclusion: &Inclusion<'_>, nodes: &[NodeInfo]) -> InclusionId {
        self.rosters.include(inclusion, nodes)
    }

    /// The same in the decision. It has to be asked for before.
    pub fn included(&self, inclusion: &Inclusion<'_>) -> InclusionId {
        let id = self.rosters.inclusions.find(inclusion);
        id.unwrap_or_else(|| unreachable!("nobody asked for these nodes"))
    }

    /// Has the domains of a key noted.
    pub(super) fn ask_column(&mut self, scope: &Scope<'_>, nodes: &[NodeInfo]) {
        self.rosters.ask(scope, nodes, &mut self.topology, self.now);
    }

    /// The domains of a key. They have to be asked for before the decision.
    pub fn column(&self, scope: &Scope<'_>) -> &Column {
        let roster = self.rosters.find(scope).and_then(|id| self.rosters.get(id));
        let column = roster.map(|roster| roster.column(&self.topology));
        column.unwrap_or_else(|| unreachable!("nobody asked for the domains of this key"))
    }

    /// The pods by node. They have to be asked for before the decision.
    pub fn pick(&self, pods: &[Arc<PodSelector>], live: bool) -> &Pick {
        let pick = self.picks.find(pods, live);
        pick.unwrap_or_else(|| unreachable!("nobody asked to have these pods counted"))
    }

    /// The pods by the domains of a key. They have to be asked for before the decision.
    pub fn counted(&self, pods: &[Arc<PodSelector>], live: bool, scope: &Scope<'_>) -> Counted<'_> {
        let counted = self.rosters.find(scope).and_then(|id| {
            Some(Counted {
                tally: match self.rosters.is_empty(id) {
                    true => &NOBODY,
                    false => self.picks.find(pods, live)?.tally(id)?,
                },
                column: self.rosters.get(id)?.column(&self.topology),
                rosters: &self.rosters,
                id,
                topology: &self.topology,
            })
        });
        counted.unwrap_or_else(|| unreachable!("nobody asked to have these pods counted so"))
    }

    /// Adds the pods, each `factor` times, by the domains of a key: once, without having them counted from then on.
    pub fn pour(&self, pods: &PodSelector, column: &Column, factor: i64, namespaces: &Namespaces, sums: &mut Sums) {
        for resident in self.residents.picked(pods, namespaces) {
            for (node, number) in &resident.on {
                let domain = column.domain(*node);
                if domain != NONE {
                    *sums.entry(domain).or_default() += factor * i64::from(number.all);
                }
            }
        }
    }

    /// The terms of pods on nodes that are about a pod that comes, each with its key's domains and what is counted by them.
    pub fn about<'a>(
        &'a self,
        sort: Sort,
        kin: &Kin,
        namespaces: &Namespaces,
        mut found: impl FnMut(&'a Column, &'a Sums),
    ) {
        self.carried[sort as usize].about(kin, namespaces, |key, sums| {
            found(self.topology.column(key), sums);
        });
    }
}

/// All terms of a pod, of which sort each, and how much they weigh.
fn terms(pod: &PodInfo) -> impl Iterator<Item = (Sort, i64, &Arc<Term>)> {
    pod.terms.as_deref().into_iter().flat_map(|terms| {
        let anti = terms.anti.iter().map(|term| (Sort::Anti, 1, term));
        let required = terms.required.iter().map(|term| (Sort::Required, 1, term));
        let preferred = terms.preferred.iter();
        let preferred = preferred.map(|(weight, term)| (Sort::Preferred, *weight, term));
        anti.chain(required).chain(preferred)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::{Cluster, Labels, Selector};
    use super::*;
    use crate::framework::{Plugin, PreFilter};
    use crate::plugins::{InterPodAffinity, PodTopologySpread};

    fn pod(cluster: &mut Cluster, uid: usize, label: usize) -> Arc<PodInfo> {
        let term =
            json!({"topologyKey": format!("key-{label}"), "labelSelector": {"matchLabels": {"a": label.to_string()}}});
        let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let pod = json!({"metadata": {"uid": uid.to_string(), "namespace": "d", "labels": {"a": label.to_string(), "b": "1"}},
            "spec": {"containers": [], "affinity": affinity}});
        Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
    }

    fn selector(key: &str, value: usize) -> Arc<PodSelector> {
        let labels = Labels::from([(key.to_owned(), value.to_string())]);
        Arc::new(PodSelector::within("d", Selector::equal(&labels)))
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_and_counted_anew() {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "n", "labels": {"zone": "z"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
        for n in 0..8 {
            let pod = pod(&mut cluster, n, n % 4);
            cluster.place(pod, "n");
        }
        let all = [selector("b", 1)];
        for n in 0..3000 {
            cluster.settle();
            let (key, terms) = (format!("key-{n}"), Scope::of_key("zone"));
            cluster.count(&[selector("a", n)], n % 2 == 0, [terms]);
            cluster.note_domains(&key);
            if n % 1000 == 0 {
                cluster.count(&all, false, [terms]);
                let counted = cluster.counts().counted(&all, false, &terms);
                assert_eq!((counted.tally.total, counted.domains()), (8, 1));
            }
        }
        cluster.settle();
        let counts = &cluster.counts;
        assert!(counts.picks.len() <= 512 && counts.rosters.len() <= 512);
        // Those of rosters, and of the four terms.
        assert!(counts.topology.len() <= 512 + 4);
        (0..8).for_each(|n| drop(cluster.remove(&n.to_string())));
        assert!(cluster.counts.residents.is_empty() && cluster.counts.carried.iter().all(Carried::is_empty));
        let counts = cluster.counts();
        let last = counts.counted(&[selector("a", 2999)], false, &Scope::of_key("zone"));
        assert_eq!(last.tally.total, 0);
        assert!(counts.picks.are_measured());
    }

    #[test]
    fn all_constraints_of_a_pod_share_what_they_include() {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
        let constraint = |n: usize, taints: &str| {
            json!({"topologyKey": format!("key-{n}"), "maxSkew": 1, "nodeTaintsPolicy": taints,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "1"}}})
        };
        let constraints: Vec<_> = (0..700)
            .map(|n| constraint(n, if n % 2 == 0 { "Honor" } else { "Ignore" }))
            .collect();
        let spec = json!({"containers": [], "topologySpreadConstraints": constraints, "nodeSelector": {"disk": "ssd"}});
        let pod = json!({"metadata": {"uid": "u", "namespace": "d"}, "spec": spec});
        let pod = PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins);
        let spread = PodTopologySpread::default();
        for _ in 0..2 {
            spread.prepare(&pod, &mut cluster);
            let rosters = &cluster.counts.rosters;
            assert_eq!((rosters.len(), rosters.inclusions.len()), (700, 2));
            assert_eq!(cluster.counts.picks.len(), 0, "no node has any of the keys");
            assert!(matches!(spread.pre_filter(&pod, &cluster), PreFilter::Check(_)));
        }
        for n in 0..1000 {
            cluster.settle();
            cluster.note_domains(&n.to_string());
        }
        assert_eq!(cluster.counts.rosters.inclusions.len(), 0);
    }

    #[test]
    fn the_larger_the_fewer_are_kept_that_nobody_asks_for() {
        let mut cluster = Cluster::default();
        let large = "x".repeat(1 << 20);
        for n in 0..30 {
            cluster.settle();
            let labels = Labels::from([("a".to_owned(), format!("{n}-{large}"))]);
            let pods = [Arc::new(PodSelector::within("d", Selector::equal(&labels)))];
            let keys = [&*format!("{n}-{large}")];
            let inclusion = Inclusion {
                keys: &keys,
                required: None,
                tolerations: None,
            };
            let included = Some(cluster.include(&inclusion));
            let scope = Scope { key: "zone", included };
            cluster.count(&pods, true, [scope]);
            cluster.count(&pods, true, None);
        }
        let counts = &cluster.counts;
        let known = [
            counts.picks.len(),
            counts.rosters.len(),
            counts.rosters.inclusions.len(),
        ];
        assert!(known.iter().all(|len| (1..=17).contains(len)), "{known:?}");
    }

    fn excluding(value: usize) -> serde_json::Value {
        json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": [value.to_string()]}]})
    }

    #[test]
    fn the_more_nodes_their_pods_are_on_the_fewer_are_kept() {
        const NODES: usize = 4000;
        let mut cluster = Cluster::default();
        for n in 0..NODES {
            let name = n.to_string();
            let node = json!({"metadata": {"name": name, "labels": {"host": name}}});
            cluster.set_node(&serde_json::from_value(node).unwrap());
            let pod = json!({"metadata": {"uid": name, "namespace": "d"}, "spec": {"containers": []}});
            let pod = Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins));
            cluster.place(pod, &name);
        }
        for n in 0..150 {
            cluster.settle();
            let labels = Selector::new(Some(&serde_json::from_value(excluding(n)).unwrap()));
            let pods = Arc::new(PodSelector::within("d", labels));
            cluster.count(&[pods], true, [Scope::of_key("host")]);
        }
        cluster.settle();
        let picks = &cluster.counts.picks;
        // Each has two numbers for each node.
        let most = (16 << 20) / (2 * 24 * NODES);
        assert!((most / 2..=most).contains(&picks.len()), "{} of {most}", picks.len());
        assert!(picks.are_measured());
    }

    #[test]
    fn a_pod_with_many_terms_has_not_each_counted() {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "n", "labels": {"zone": "z"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
        let term = |n: usize| json!({"topologyKey": if n.is_multiple_of(2) { "zone" } else { "none" }, "labelSelector": excluding(n)});
        for (number, most) in [(10, 10), (3000, 0)] {
            let required: Vec<_> = (0..number).map(term).collect();
            let preferred: Vec<_> = required
                .iter()
                .map(|term| json!({"weight": 1, "podAffinityTerm": term}))
                .collect();
            let own = json!({"requiredDuringSchedulingIgnoredDuringExecution": required,
                "preferredDuringSchedulingIgnoredDuringExecution": preferred});
            let spec = json!({"containers": [], "affinity": {"podAntiAffinity": own}});
            let pod = json!({"metadata": {"uid": "u", "namespace": "d"}, "spec": spec});
            let pod = PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins);
            let before = cluster.counts.picks.len();
            let plugin = InterPodAffinity::default();
            plugin.prepare(&pod, &mut cluster);
            assert!(cluster.counts.picks.len() - before <= most, "{number}");
            let PreFilter::Check(filter) = plugin.pre_filter(&pod, &cluster) else {
                panic!("it has terms")
            };
            assert!(filter.check(cluster.find("n").unwrap()).is_none());
        }
    }
}
