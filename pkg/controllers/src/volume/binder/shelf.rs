//! Volumes that anybody may have, and claims that would take any: each by what the other asks for, so that a claim finds the
//! smallest volume that fits, and a volume the claim that has waited longest, however many there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use mk8s_api::meta as object;
use mk8s_api::selectors::LabelSelector;
use mk8s_client::Raw;

use super::super::{
    BIND_COMPLETED, CAPACITY, REQUEST, access_modes, attributes_class, claim_of, class, has_annotation, is_block,
    is_for, phase, size, volume_name,
};
use crate::meta::{self, Key};

/// What has to be equal on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub class: String,
    attributes: String,
    block: bool,
}

impl Slot {
    fn of(owner: &Raw) -> Slot {
        Slot {
            class: class(owner).unwrap_or_default().to_owned(),
            attributes: attributes_class(owner).to_owned(),
            block: is_block(owner),
        }
    }
}

/// Access modes as a set; the fewest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Modes {
    count: u32,
    bits: u8,
}

impl Modes {
    fn of(owner: &Raw) -> Modes {
        let bits = access_modes(owner).fold(0, |bits, mode| {
            bits | match mode {
                "ReadWriteOnce" => 1,
                "ReadOnlyMany" => 2,
                "ReadWriteMany" => 4,
                "ReadWriteOncePod" => 8,
                _ => 16,
            }
        });
        Modes {
            count: u32::count_ones(u32::from(bits)),
            bits,
        }
    }

    fn contain(self, asked: Modes) -> bool {
        self.bits & asked.bits == asked.bits
    }
}

/// In billionths of a byte, so that all that quantities can say compares.
fn bytes(owner: &Raw, path: &[&str]) -> i128 {
    size(owner, path).map_or(0, |size| size.nanos())
}

type Labels = BTreeMap<String, String>;

/// What a claim asks for, beside its slot.
#[derive(Clone, Debug)]
struct Want {
    modes: Modes,
    size: i128,
    selector: Option<LabelSelector>,
}

impl Want {
    fn of(claim: &Raw) -> Result<Want, String> {
        let selector = object::at(&claim.value, &["spec", "selector"]).map(LabelSelector::from_json);
        Ok(Want {
            modes: Modes::of(claim),
            size: bytes(claim, &REQUEST),
            selector: selector.transpose().map_err(|error| error.to_string())?,
        })
    }

    fn takes(&self, labels: &Labels) -> bool {
        let selector = self.selector.as_ref();
        selector.is_none_or(|selector| selector.matches(|key| labels.get(key).map(String::as_str)))
    }
}

/// By how long they have waited.
type Waiting = BTreeMap<(Timestamp, String), (Key, Want)>;

/// By their size.
type Sized = BTreeMap<(i128, String), Labels>;

/// See the top of the file. What it holds follows events; the event handlers alone change it, but for volumes that were taken.
#[derive(Default)]
pub struct Shelf {
    volumes: HashMap<Slot, BTreeMap<Modes, Sized>>,
    places: HashMap<String, (Slot, Modes, i128)>,
    claims: HashMap<Slot, Waiting>,
    waiting: HashMap<Key, (Slot, Timestamp)>,
}

impl Shelf {
    /// A volume came or changed: whether it is to be had now.
    pub fn put_volume(&mut self, volume: &Raw) -> bool {
        let name = meta::name(volume);
        self.take(name);
        if phase(volume) != "Available" || claim_of(volume).is_some() || meta::deleting(volume) {
            return false;
        }
        let (slot, modes, size) = (Slot::of(volume), Modes::of(volume), bytes(volume, &CAPACITY));
        let sized = self.volumes.entry(slot.clone()).or_default().entry(modes).or_default();
        sized.insert((size, name.to_owned()), meta::labels(volume).clone());
        self.places.insert(name.to_owned(), (slot, modes, size));
        true
    }

    /// A volume is gone, or somebody's: false if it was not there to be had.
    pub fn take(&mut self, name: &str) -> bool {
        let Some((slot, modes, size)) = self.places.remove(name) else {
            return false;
        };
        if let Some(all) = self.volumes.get_mut(&slot) {
            if let Some(sized) = all.get_mut(&modes) {
                sized.remove(&(size, name.to_owned()));
                if sized.is_empty() {
                    all.remove(&modes);
                }
            }
            if all.is_empty() {
                self.volumes.remove(&slot);
            }
        }
        true
    }

    /// A claim came or changed: where it waited, if it does no more.
    pub fn put_claim(&mut self, claim: &Raw) -> Option<Slot> {
        let key = Key::of(claim);
        let before = self.drop_claim(&key);
        if !volume_name(claim).is_empty() || has_annotation(claim, BIND_COMPLETED) {
            return before;
        }
        let Ok(want) = Want::of(claim) else { return before };
        let (slot, created) = (Slot::of(claim), meta::created(claim));
        let before = before.filter(|before| *before != slot);
        let all = self.claims.entry(slot.clone()).or_default();
        all.insert((created, key.to_string()), (key.clone(), want));
        self.waiting.insert(key, (slot, created));
        before
    }

    /// A claim is gone: where it waited.
    pub fn drop_claim(&mut self, key: &Key) -> Option<Slot> {
        let (slot, created) = self.waiting.remove(key)?;
        if let Some(all) = self.claims.get_mut(&slot) {
            all.remove(&(created, key.to_string()));
            if all.is_empty() {
                self.claims.remove(&slot);
            }
        }
        Some(slot)
    }

    /// The claims that a volume would do for, at most so many, those that have waited longest.
    pub fn claims_for(&self, volume: &Raw, at_most: usize) -> Vec<Key> {
        let (modes, size) = (Modes::of(volume), bytes(volume, &CAPACITY));
        let all = self.claims.get(&Slot::of(volume)).into_iter().flatten();
        let fitting = all.filter(|(_, (_, want))| {
            modes.contain(want.modes) && want.size <= size && want.takes(meta::labels(volume))
        });
        fitting.take(at_most).map(|(_, (key, _))| key.clone()).collect()
    }

    /// The claims for which there is a volume, at most so many, those that have waited longest.
    pub fn claims_in(&self, slot: &Slot, at_most: usize) -> Vec<Key> {
        let Some(volumes) = self.volumes.get(slot) else {
            return Vec::new();
        };
        let all = self.claims.get(slot).into_iter().flatten();
        let fitting = all.filter(|(_, (_, want))| smallest(volumes, want, None).is_some());
        fitting.take(at_most).map(|(_, (key, _))| key.clone()).collect()
    }

    /// The volume for a claim: of the fewest access modes that do, the one that waits for this claim, or else the smallest.
    /// Who waits for its first consumer (`delayed`) gets none but what waits for it.
    ///
    /// # Errors
    /// The claim's selector does not read.
    pub fn find(&self, claim: &Raw, named: &[Arc<Raw>], delayed: bool) -> Result<Option<String>, String> {
        let want = Want::of(claim)?;
        let own = waiting_for(claim, named, &want);
        let all = self.volumes.get(&Slot::of(claim)).filter(|_| !delayed);
        let free = all.and_then(|all| smallest(all, &want, own.as_ref().map(|(own, _)| *own)));
        Ok(free
            .cloned()
            .or_else(|| own.map(|(_, volume)| meta::name(&*volume).to_owned())))
    }
}

/// The smallest volume that does, of the fewest access modes, which are fewer than `before`.
fn smallest<'a>(volumes: &'a BTreeMap<Modes, Sized>, want: &Want, before: Option<Modes>) -> Option<&'a String> {
    let fewer = volumes
        .iter()
        .take_while(|(modes, _)| before.is_none_or(|before| **modes < before));
    let mut fitting = fewer.filter(|(modes, _)| modes.contain(want.modes));
    fitting.find_map(|(_, sized)| {
        let large = sized.range((want.size, String::new())..);
        let mut taken = large.filter(|(_, labels)| want.takes(labels));
        taken.next().map(|((_, name), _)| name)
    })
}

/// Of the volumes that name a claim the one it gets.
fn waiting_for(claim: &Raw, named: &[Arc<Raw>], want: &Want) -> Option<(Modes, Arc<Raw>)> {
    let fits = |volume: &&Arc<Raw>| {
        is_for(volume, claim)
            && Modes::of(volume).contain(want.modes)
            && bytes(volume, &CAPACITY) >= want.size
            && is_block(volume) == is_block(claim)
            && attributes_class(volume) == attributes_class(claim)
            && !meta::deleting(&***volume)
    };
    let fitting = named.iter().filter(fits);
    let first = fitting.min_by_key(|volume| (Modes::of(volume), meta::name(&***volume).to_owned()))?;
    Some((Modes::of(first), first.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::super::tests::raw;
    use super::*;

    fn volume(name: &str, size: &str, more: Value) -> Arc<Raw> {
        let mut volume = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a"}});
        mk8s_api::patch::merge(&mut volume, &more).unwrap();
        Arc::new(raw(volume))
    }

    fn claim(name: &str, size: &str, more: Value) -> Raw {
        let mut claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a"}});
        mk8s_api::patch::merge(&mut claim, &more).unwrap();
        raw(claim)
    }

    fn shelf(volumes: &[Arc<Raw>]) -> Shelf {
        let mut shelf = Shelf::default();
        for volume in volumes {
            shelf.put_volume(volume);
        }
        shelf
    }

    fn all_kinds() -> Shelf {
        let of = |spec: Value| json!({"spec": spec});
        shelf(&[
            volume("small", "1Gi", json!({})),
            volume("large", "10Gi", json!({})),
            volume("middle", "5Gi", json!({})),
            volume("labelled", "20Gi", json!({"metadata": {"labels": {"disk": "fast"}}})),
            volume(
                "shared",
                "2Gi",
                of(json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})),
            ),
            volume("block", "2Gi", of(json!({"volumeMode": "Block"}))),
            volume("classless", "2Gi", of(json!({"storageClassName": null}))),
            volume("attributed", "2Gi", of(json!({"volumeAttributesClassName": "gold"}))),
            volume(
                "going",
                "2Gi",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ),
            volume("bound", "2Gi", json!({"status": {"phase": "Bound"}})),
            volume(
                "another's",
                "2Gi",
                of(json!({"claimRef": {"namespace": "n", "name": "x"}})),
            ),
        ])
    }

    #[test]
    fn the_smallest_that_fits_is_found() {
        let shelf = all_kinds();
        let labelled = |disk: &str| json!({"selector": {"matchLabels": {"disk": disk}}});
        for (size, spec, expected) in [
            ("500Mi", json!({}), Some("small")),
            ("1Gi", json!({}), Some("small")),
            // Fewer access modes come before a better size.
            ("2Gi", json!({}), Some("middle")),
            ("6Gi", json!({}), Some("large")),
            ("30Gi", json!({}), None),
            ("1Gi", json!({"accessModes": ["ReadWriteMany"]}), Some("shared")),
            ("1Gi", json!({"accessModes": ["ReadOnlyMany"]}), None),
            ("1Gi", labelled("fast"), Some("labelled")),
            ("1Gi", labelled("slow"), None),
            ("1Gi", json!({"selector": {}}), Some("small")),
            ("1Gi", json!({"volumeMode": "Block"}), Some("block")),
            ("1Gi", json!({"storageClassName": ""}), Some("classless")),
            ("1Gi", json!({"storageClassName": null}), Some("classless")),
            ("1Gi", json!({"storageClassName": "b"}), None),
            ("1Gi", json!({"volumeAttributesClassName": "gold"}), Some("attributed")),
            ("1Gi", json!({"volumeAttributesClassName": "lead"}), None),
        ] {
            let claim = claim("c", size, json!({"spec": spec}));
            let found = |delayed| shelf.find(&claim, &[], delayed).unwrap();
            assert_eq!(found(false).as_deref(), expected, "{size} {spec}");
            assert_eq!(found(true), None, "{size} {spec}");
        }
        let unreadable = json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}});
        assert!(shelf.find(&claim("c", "1Gi", unreadable), &[], false).is_err());
    }

    #[test]
    fn what_waits_for_a_claim_comes_before_what_is_free() {
        let own = json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}});
        let wider = json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}});
        let other = json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "before"}}});
        let shelf = shelf(&[volume("free", "1Gi", json!({}))]);
        let claim = claim("c", "1Gi", json!({}));
        for (named, delayed, expected) in [
            (vec![volume("own", "9Gi", own.clone())], false, Some("own")),
            (vec![volume("own", "9Gi", own.clone())], true, Some("own")),
            (vec![volume("too small", "1Mi", own)], false, Some("free")),
            // The fewest access modes that do, as upstream looks.
            (vec![volume("wider", "1Gi", wider.clone())], false, Some("free")),
            (vec![volume("wider", "1Gi", wider)], true, Some("wider")),
            (vec![volume("other", "1Gi", other)], false, Some("free")),
        ] {
            assert_eq!(
                shelf.find(&claim, &named, delayed).unwrap().as_deref(),
                expected,
                "{named:?}"
            );
        }
    }

    #[test]
    fn what_is_taken_is_not_found_again_until_it_comes_back() {
        let only = volume("only", "1Gi", json!({}));
        let mut shelf = shelf(std::slice::from_ref(&only));
        let claim = claim("c", "1Gi", json!({}));
        assert!(shelf.take("only") && !shelf.take("only"));
        assert_eq!(shelf.find(&claim, &[], false).unwrap(), None);
        shelf.put_volume(&only);
        assert_eq!(shelf.find(&claim, &[], false).unwrap().as_deref(), Some("only"));
    }

    #[test]
    fn a_volume_finds_the_claims_that_have_waited_longest() {
        let mut shelf = Shelf::default();
        let at = |created: &str| json!({"metadata": {"creationTimestamp": created}});
        shelf.put_claim(&claim("second", "1Gi", at("2026-01-02T00:00:00Z")));
        shelf.put_claim(&claim("first", "1Gi", at("2026-01-01T00:00:00Z")));
        shelf.put_claim(&claim("third", "1Gi", at("2026-01-03T00:00:00Z")));
        shelf.put_claim(&claim("large", "5Gi", at("2025-01-03T00:00:00Z")));
        shelf.put_claim(&claim("bound", "1Gi", json!({"spec": {"volumeName": "v"}})));
        let volume = volume("v", "2Gi", json!({}));
        let names = |shelf: &Shelf| {
            shelf
                .claims_for(&volume, 2)
                .into_iter()
                .map(|key| key.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&shelf), ["first", "second"]);
        shelf.drop_claim(&Key::new("n", "first"));
        assert_eq!(names(&shelf), ["second", "third"]);
    }

    #[test]
    fn who_leaves_says_where_volumes_and_claims_are_left() {
        let mut shelf = shelf(&[volume("small", "1Gi", json!({})), volume("large", "2Gi", json!({}))]);
        for name in ["a", "b", "c"] {
            assert_eq!(shelf.put_claim(&claim(name, "2Gi", json!({}))), None);
        }
        shelf.put_claim(&claim("0-huge", "3Gi", json!({})));
        shelf.put_claim(&claim("elsewhere", "1Gi", json!({"spec": {"storageClassName": "b"}})));
        let left = shelf.put_claim(&claim("a", "2Gi", json!({"spec": {"volumeName": "another"}})));
        let names = |shelf: &Shelf, slot: &Slot| -> Vec<String> {
            shelf.claims_in(slot, 4).into_iter().map(|key| key.name).collect()
        };
        let slot = left.unwrap();
        assert_eq!(names(&shelf, &slot), ["b", "c"]);
        let moved = shelf.put_claim(&claim("b", "2Gi", json!({"spec": {"storageClassName": "b"}})));
        assert_eq!(
            (moved.as_ref(), names(&shelf, &slot)),
            (Some(&slot), vec!["c".to_owned()])
        );
        assert_eq!(shelf.drop_claim(&Key::new("n", "unknown")), None);
        assert!(shelf.take("large"));
        assert_eq!(shelf.drop_claim(&Key::new("n", "c")), Some(slot.clone()));
        assert!(names(&shelf, &slot).is_empty());
    }
}
