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
    model::{Node, Part},
    rules::{Dest, Key, Pick, Proto, Value, Verdict, rebuild, transaction},
};

/// Services go before pods: a NodePort is the whole cluster's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// NAMESPACE/NAME
    Service(Arc<str>),
    /// NAMESPACE/NAME
    Pod(Arc<str>),
}

#[derive(Default)]
pub struct Book {
    parts: HashMap<Owner, Part>,
    /// By key, its owners in order.
    wanted: HashMap<Key, Vec<(Owner, Value)>>,
    /// What changed since the last [`Book::take`]: the value that the kernel has.
    touched: BTreeMap<Key, Option<Value>>,
    chains: BTreeSet<Pick>,
    stale: BTreeSet<Stale>,
}

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

impl Book {
    /// The owner now wants this; nothing if it is gone.
    pub fn set(&mut self, owner: Owner, part: Part) {
        let old = self.parts.get(&owner).cloned().unwrap_or_default();
        if old == part {
            return;
        }
        self.note_stale(&old, &part);
        for (key, _) in old.iter().filter(|(key, _)| !part.contains_key(key)) {
            self.change(*key, &owner, None);
        }
        for (key, value) in part.iter().filter(|(key, value)| old.get(key) != Some(value)) {
            self.change(*key, &owner, Some(*value));
        }
        if part.is_empty() {
            self.parts.remove(&owner);
        } else {
            self.parts.insert(owner, part);
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

    fn note_stale(&mut self, old: &Part, new: &Part) {
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
        let (mut removed, mut added) = (Part::new(), Part::new());
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
        let fresh: BTreeSet<Pick> = added
            .values()
            .filter_map(|value| match value {
                Value::Verdict(Verdict::Pick(pick)) => Some(*pick),
                _ => None,
            })
            .filter(|pick| self.chains.insert(*pick))
            .collect();
        Changes {
            elements: crate::rules::elements(&removed, &fresh, &added),
            text: transaction(node, &removed, fresh, &added),
            stale,
            truth: None,
        }
    }

    /// The whole table, for a start or after a transaction that failed: what flows the kernel kept from before is not known
    /// then, so all are compared.
    pub fn take_all(&mut self, node: &Node) -> Changes {
        self.touched.clear();
        let all: Part = self
            .wanted
            .keys()
            .filter_map(|key| Some((*key, self.effective(key)?)))
            .collect();
        self.chains = crate::rules::picks(all.values());
        self.chains.extend(crate::rules::common());
        Changes {
            text: rebuild(node, all.iter()),
            elements: None,
            stale: std::mem::take(&mut self.stale),
            truth: Some(truth(node, &all)),
        }
    }
}

fn truth(node: &Node, all: &Part) -> Truth {
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
        services: node.service_cidr,
    }
}

fn udp_targets(part: &Part) -> BTreeSet<(Dest, (Ipv4Addr, u16))> {
    part.iter()
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
            name: "n1".into(),
            zone: None,
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            dns: None,
        }
    }

    fn part(proto: Proto, endpoints: &[u8]) -> Part {
        let dest = Dest {
            ip: Some([10, 96, 0, 5].into()),
            proto,
            port: 80,
        };
        let mut part: Part = endpoints
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
            let pick = Pick::new(&dest, Masquerade::Foreign, endpoints.len(), false, None);
            part.insert(Key::Entry(dest), Value::Verdict(Verdict::Pick(pick)));
        }
        part
    }

    fn web() -> Owner {
        Owner::Service("app/web".into())
    }

    #[test]
    fn a_change_is_what_differs() {
        let mut book = Book::default();
        book.set(web(), part(Proto::Tcp, &[5, 6]));
        assert!(book.take_all(&node()).text.contains("add chain ip mk8s ip-foreign-2"));
        assert_eq!(book.take(&node()), Changes::default());

        book.set(web(), part(Proto::Tcp, &[5, 7]));
        assert_eq!(
            book.take(&node()).text,
            "delete element ip mk8s ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 1 }\n\
             add element ip mk8s ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 1 : 10.244.1.7 . 8080 }\n"
        );
        let nine: Vec<u8> = (1..10).collect();
        book.set(web(), part(Proto::Tcp, &nine));
        let changes = book.take(&node());
        assert!(changes.text.starts_with("add chain ip mk8s ip-foreign-9\n") && changes.elements.is_none());
        assert!(changes.text.contains("delete element ip mk8s ip-entry"));
        book.set(web(), part(Proto::Tcp, &[5]));
        assert!(book.take(&node()).elements.is_some());
        // There and back between two syncs is nothing.
        book.set(web(), part(Proto::Tcp, &[9]));
        book.set(web(), part(Proto::Tcp, &[5]));
        assert_eq!(book.take(&node()).text, "");
        book.set(web(), Part::new());
        assert!(!book.take(&node()).text.contains("add"));
        assert!(book.wanted.is_empty() && book.parts.is_empty());
    }

    #[test]
    fn the_next_owner_follows() {
        let mut book = Book::default();
        book.set(Owner::Service("b/b".into()), part(Proto::Tcp, &[6]));
        book.set(Owner::Service("a/a".into()), part(Proto::Tcp, &[5]));
        assert!(book.take(&node()).text.contains(": 10.244.1.5 . 8080"));
        book.set(Owner::Service("a/a".into()), Part::new());
        assert!(book.take(&node()).text.contains(": 10.244.1.6 . 8080"));
    }

    #[test]
    fn a_new_table_says_where_every_flow_may_lead() {
        let mut book = Book::default();
        book.set(web(), part(Proto::Udp, &[5, 6]));
        let other = Dest {
            ip: None,
            proto: Proto::Udp,
            port: 30053,
        };
        book.set(
            Owner::Service("app/none".into()),
            Part::from([(Key::Refused(other), Value::Member)]),
        );
        book.set(
            Owner::Service("app/tcp".into()),
            Part::from([(
                Key::Refused(Dest {
                    proto: Proto::Tcp,
                    ..other
                }),
                Value::Member,
            )]),
        );
        let truth = book.take_all(&node()).truth.unwrap();
        let served = BTreeSet::from([([10, 244, 1, 5].into(), 8080), ([10, 244, 1, 6].into(), 8080)]);
        assert_eq!(
            truth.destinations,
            BTreeMap::from([
                ((Some([10, 96, 0, 5].into()), 80), served),
                ((None, 30053), BTreeSet::new())
            ])
        );
        assert_eq!(book.take(&node()).truth, None);
    }

    #[test]
    fn udp_flows_are_forgotten() {
        let mut book = Book::default();
        book.set(web(), part(Proto::Udp, &[5, 6]));
        let first: Vec<_> = book
            .take(&node())
            .stale
            .into_iter()
            .map(|stale| stale.endpoint)
            .collect();
        assert_eq!(first, [None]);
        book.set(web(), part(Proto::Udp, &[6]));
        let gone: Vec<_> = book
            .take(&node())
            .stale
            .into_iter()
            .map(|stale| stale.endpoint)
            .collect();
        assert_eq!(gone, [Some(([10, 244, 1, 5].into(), 8080))]);
        book.set(web(), part(Proto::Tcp, &[6]));
        assert_eq!(book.take(&node()).stale.len(), 1);
    }
}
