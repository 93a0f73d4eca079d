//! Who wants what, what the kernel was given, and so what a change comes to. Pure.
//!
//! An element can be wanted by several owners (two Services with one external address; a pod's hairpin entry): the first
//! owner by name has it, and when it goes, the next one does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::Ipv4Addr,
    sync::Arc,
};

use mk8s_network::{conntrack::Truth, elements::Element};

use crate::{
    model::{Entries, Node},
    rules::{Balancer, Dest, Key, Proto, Value, Verdict, rebuild, transaction},
};

/// Services go before pods: a NodePort is the whole cluster's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// What nobody takes over.
    Cluster,
    /// NAMESPACE/NAME
    Service(Arc<str>),
    /// NAMESPACE/NAME
    Pod(Arc<str>),
}

#[derive(Default)]
pub struct ChangeTracker {
    by_owner: HashMap<Owner, Entries>,
    /// By key, its owners in order.
    wanted: HashMap<Key, Vec<(Owner, Value)>>,
    /// What changed since the last [`ChangeTracker::take`]: the value that the kernel has.
    touched: BTreeMap<Key, Option<Value>>,
    chains: BTreeSet<Balancer>,
    /// With how many chains those that nothing leads to are looked for.
    sweep_at: usize,
    stale: BTreeSet<Stale>,
}

/// Chains that may be there though no element leads to them.
const UNUSED_CHAINS: usize = 256;

/// UDP "connections" that the kernel would keep sending where they went before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stale {
    pub dest: Dest,
    /// Those that lead to this endpoint; without one those that lead nowhere yet.
    pub endpoint: Option<(Ipv4Addr, u16)>,
}

/// What is to be done in the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// For `nft -f -`; empty when nothing changed.
    pub text: String,
    /// The same for the kernel itself, where it takes elements alone.
    pub elements: Option<Vec<Element>>,
    pub stale: BTreeSet<Stale>,
    /// With a new table: all that UDP flows may lead to.
    pub truth: Option<Truth>,
}

impl ChangeTracker {
    /// The owner now wants this; nothing if it is gone.
    pub fn set(&mut self, owner: Owner, entries: Entries) {
        let old = self.by_owner.get(&owner).cloned().unwrap_or_default();
        if old == entries {
            return;
        }
        self.note_stale(&old, &entries);
        for (key, _) in old.iter().filter(|(key, _)| !entries.contains_key(key)) {
            self.change(*key, &owner, None);
        }
        for (key, value) in entries.iter().filter(|(key, value)| old.get(key) != Some(value)) {
            self.change(*key, &owner, Some(*value));
        }
        if entries.is_empty() {
            self.by_owner.remove(&owner);
        } else {
            self.by_owner.insert(owner, entries);
        }
    }

    fn change(&mut self, key: Key, owner: &Owner, value: Option<Value>) {
        let mut entry = match self.wanted.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(Vec::new()),
        };
        let owners = entry.get_mut();
        let before = owners.first().map(|(_, value)| *value);
        self.touched.entry(key).or_insert(before);
        owners.retain(|(other, _)| other != owner);
        if let Some(value) = value {
            let at = owners.partition_point(|(other, _)| other < owner);
            owners.insert(at, (owner.clone(), value));
        }
        if owners.is_empty() {
            entry.remove();
        }
    }

    fn note_stale(&mut self, old: &Entries, new: &Entries) {
        let (had, have) = (udp_targets(old), udp_targets(new));
        for (dest, target) in had.difference(&have) {
            self.stale.insert(Stale {
                dest: *dest,
                endpoint: Some(*target),
            });
        }
        let served = |targets: &BTreeSet<(Dest, (Ipv4Addr, u16))>| -> BTreeSet<Dest> {
            targets.iter().map(|(dest, _)| *dest).collect()
        };
        for dest in served(&have).difference(&served(&had)) {
            self.stale.insert(Stale {
                dest: *dest,
                endpoint: None,
            });
        }
    }

    fn effective(&self, key: &Key) -> Option<Value> {
        self.wanted.get(key)?.first().map(|(_, value)| *value)
    }

    /// What changed since the last call, as one transaction.
    pub fn take(&mut self, node: &Node) -> Changes {
        let stale = std::mem::take(&mut self.stale);
        let (mut removed, mut added) = (Entries::new(), Entries::new());
        for (key, before) in std::mem::take(&mut self.touched) {
            let now = self.effective(&key);
            if before == now {
                continue;
            }
            removed.extend(before.map(|value| (key, value)));
            added.extend(now.map(|value| (key, value)));
        }
        if removed.is_empty() && added.is_empty() {
            return Changes {
                stale,
                ..Changes::default()
            };
        }
        let fresh: BTreeSet<Balancer> = added
            .values()
            .filter_map(|value| match value {
                Value::Verdict(Verdict::Balancer(balancer)) => Some(*balancer),
                _ => None,
            })
            .filter(|balancer| self.chains.insert(*balancer))
            .collect();
        let elements = crate::rules::elements(&removed, &fresh, &added);
        let mut text = transaction(node, &removed, fresh, &added);
        let unused = self.sweep();
        crate::rules::delete_chains(&mut text, node, &unused);
        Changes {
            elements: elements.filter(|_| unused.is_empty()),
            text,
            stale,
            truth: None,
        }
    }

    /// The chains that go. A user can have them made without end, by a Service whose session affinity is now so many
    /// seconds and now so many; most serve again, so that a few are kept.
    fn sweep(&mut self) -> BTreeSet<Balancer> {
        if self.chains.len() <= self.sweep_at {
            return BTreeSet::new();
        }
        let wanted: Vec<Value> = self.wanted.keys().filter_map(|key| self.effective(key)).collect();
        let mut kept = crate::rules::balancers(&wanted);
        kept.extend(crate::rules::common());
        let unused = self.chains.difference(&kept).copied().collect();
        self.chains.retain(|balancer| kept.contains(balancer));
        self.sweep_at = self.chains.len() + UNUSED_CHAINS;
        unused
    }

    /// The whole table, for a start or after a transaction that failed: what flows the kernel kept from before is not known
    /// then, so all are compared.
    pub fn take_all(&mut self, node: &Node) -> Changes {
        self.touched.clear();
        let all: Entries = self
            .wanted
            .keys()
            .filter_map(|key| Some((*key, self.effective(key)?)))
            .collect();
        self.chains = crate::rules::balancers(all.values());
        self.chains.extend(crate::rules::common());
        self.sweep_at = self.chains.len() + UNUSED_CHAINS;
        Changes {
            text: rebuild(node, all.iter()),
            elements: None,
            stale: std::mem::take(&mut self.stale),
            truth: Some(truth(node, &all)),
        }
    }
}

fn truth(node: &Node, all: &Entries) -> Truth {
    let mut destinations: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (key, value) in all {
        let Some(dest) = key.dest().filter(|dest| dest.proto == Proto::Udp) else {
            continue;
        };
        let endpoints = destinations.entry((dest.ip, dest.port)).or_default();
        if let Value::Endpoint(ip, port) = value {
            endpoints.insert((*ip, *port));
        }
    }
    Truth {
        destinations,
        pods: node.cluster_cidr,
        services: node.service_cidrs.clone(),
    }
}

fn udp_targets(entries: &Entries) -> BTreeSet<(Dest, (Ipv4Addr, u16))> {
    entries
        .iter()
        .filter_map(|(key, value)| match (key, value) {
            (Key::Endpoint(dest, _) | Key::ById(dest, _), Value::Endpoint(ip, port)) if dest.proto == Proto::Udp => {
                Some((*dest, (*ip, *port)))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rules::Masquerade;

    fn node() -> Node {
        Node {
            dns: None,
            ..Node::example()
        }
    }

    fn entries(proto: Proto, endpoints: &[u8]) -> Entries {
        let dest = Dest {
            ip: Some([10, 96, 0, 5].into()),
            proto,
            port: 80,
        };
        let mut entries: Entries = endpoints
            .iter()
            .enumerate()
            .map(|(index, last)| {
                (
                    Key::endpoint(dest, index, false),
                    Value::Endpoint([10, 244, 1, *last].into(), 8080),
                )
            })
            .collect();
        if !endpoints.is_empty() {
            let balancer = Balancer::new(&dest, Masquerade::Foreign, endpoints.len(), false, None);
            entries.insert(Key::Entry(dest), Value::Verdict(Verdict::Balancer(balancer)));
        }
        entries
    }

    fn web() -> Owner {
        Owner::Service("app/web".into())
    }

    #[test]
    fn a_change_is_what_differs() {
        let mut tracker = ChangeTracker::default();
        tracker.set(web(), entries(Proto::Tcp, &[5, 6]));
        assert!(
            tracker
                .take_all(&node())
                .text
                .contains("add chain ip mk8s ip-foreign-2")
        );
        assert_eq!(tracker.take(&node()), Changes::default());

        tracker.set(web(), entries(Proto::Tcp, &[5, 7]));
        assert_eq!(
            tracker.take(&node()).text,
            "delete element ip mk8s ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 1 }\n\
             add element ip mk8s ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 1 : 10.244.1.7 . 8080 }\n"
        );
        let nine: Vec<u8> = (1..10).collect();
        tracker.set(web(), entries(Proto::Tcp, &nine));
        let changes = tracker.take(&node());
        assert!(changes.text.starts_with("add chain ip mk8s ip-foreign-9\n") && changes.elements.is_none());
        assert!(changes.text.contains("delete element ip mk8s ip-entry"));
        tracker.set(web(), entries(Proto::Tcp, &[5]));
        assert!(tracker.take(&node()).elements.is_some());
        // There and back between two syncs is nothing.
        tracker.set(web(), entries(Proto::Tcp, &[9]));
        tracker.set(web(), entries(Proto::Tcp, &[5]));
        assert_eq!(tracker.take(&node()).text, "");
        tracker.set(web(), Entries::new());
        assert!(!tracker.take(&node()).text.contains("add"));
        assert!(tracker.wanted.is_empty() && tracker.by_owner.is_empty());
    }

    #[test]
    fn chains_that_nothing_leads_to_go() {
        let mut tracker = ChangeTracker::default();
        tracker.take_all(&node());
        let dest = Dest {
            ip: Some([10, 96, 0, 5].into()),
            proto: Proto::Tcp,
            port: 80,
        };
        let mut there = BTreeSet::new();
        for seconds in 1..=1000 {
            let balancer = Balancer::new(&dest, Masquerade::Foreign, 1, false, Some(seconds));
            let sticky = Value::Verdict(Verdict::Balancer(balancer));
            tracker.set(web(), Entries::from([(Key::Entry(dest), sticky)]));
            let changes = tracker.take(&node());
            for line in changes.text.lines() {
                if let Some(name) = line.strip_prefix("add chain ip mk8s ") {
                    there.insert(name.to_owned());
                } else if let Some(name) = line.strip_prefix("delete chain ip mk8s ") {
                    assert!(changes.elements.is_none() && there.remove(name), "{name}");
                }
            }
            // Two chains for each.
            assert!(there.len() <= 2 * (UNUSED_CHAINS + 1), "{}", there.len());
            assert!(there.contains(&format!("ip-foreign-1-sticky-{seconds}")));
        }
    }

    #[test]
    fn the_next_owner_follows() {
        let mut tracker = ChangeTracker::default();
        tracker.set(Owner::Service("b/b".into()), entries(Proto::Tcp, &[6]));
        tracker.set(Owner::Service("a/a".into()), entries(Proto::Tcp, &[5]));
        assert!(tracker.take(&node()).text.contains(": 10.244.1.5 . 8080"));
        tracker.set(Owner::Service("a/a".into()), Entries::new());
        assert!(tracker.take(&node()).text.contains(": 10.244.1.6 . 8080"));
    }

    #[test]
    fn a_new_table_says_where_every_flow_may_lead() {
        let mut tracker = ChangeTracker::default();
        tracker.set(web(), entries(Proto::Udp, &[5, 6]));
        let other = Dest {
            ip: None,
            proto: Proto::Udp,
            port: 30053,
        };
        tracker.set(
            Owner::Service("app/none".into()),
            Entries::from([(Key::Refused(other), Value::Member)]),
        );
        tracker.set(
            Owner::Service("app/tcp".into()),
            Entries::from([(
                Key::Refused(Dest {
                    proto: Proto::Tcp,
                    ..other
                }),
                Value::Member,
            )]),
        );
        let truth = tracker.take_all(&node()).truth.unwrap();
        let served = BTreeSet::from([([10, 244, 1, 5].into(), 8080), ([10, 244, 1, 6].into(), 8080)]);
        assert_eq!(
            truth.destinations,
            BTreeMap::from([
                ((Some([10, 96, 0, 5].into()), 80), served),
                ((None, 30053), BTreeSet::new())
            ])
        );
        assert_eq!(tracker.take(&node()).truth, None);
    }

    #[test]
    fn udp_flows_are_forgotten() {
        let mut tracker = ChangeTracker::default();
        tracker.set(web(), entries(Proto::Udp, &[5, 6]));
        let first: Vec<_> = tracker
            .take(&node())
            .stale
            .into_iter()
            .map(|stale| stale.endpoint)
            .collect();
        assert_eq!(first, [None]);
        tracker.set(web(), entries(Proto::Udp, &[6]));
        let gone: Vec<_> = tracker
            .take(&node())
            .stale
            .into_iter()
            .map(|stale| stale.endpoint)
            .collect();
        assert_eq!(gone, [Some(([10, 244, 1, 5].into(), 8080))]);
        tracker.set(web(), entries(Proto::Tcp, &[6]));
        assert_eq!(tracker.take(&node()).stale.len(), 1);
    }
}
