//! Finds selectors by the labels that they select, and the other way round, without asking each: by hashes of namespace, key and value.
//! What is found has to be asked still, since a hash says no more than "maybe".

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use nohash_hasher::{IntMap, IntSet};
use smallvec::SmallVec;

use super::kin::Kin;
use super::selector::{PodSelector, Selector};

/// A selector with more values for a key than so many is not looked for by them.
const VALUES: usize = 16;
/// In place of the name of a namespace: all of them.
const EVERY: &str = "*";

/// The ids of what has one hash: mostly one or two, sometimes very many.
#[derive(Debug)]
enum Bucket {
    Few(SmallVec<[u32; 4]>),
    Many(IntSet<u32>),
}

impl Bucket {
    fn len(&self) -> usize {
        match self {
            Bucket::Few(ids) => ids.len(),
            Bucket::Many(ids) => ids.len(),
        }
    }

    fn insert(&mut self, id: u32) {
        match self {
            Bucket::Few(ids) if ids.contains(&id) => {}
            Bucket::Few(ids) if ids.len() < 4 => ids.push(id),
            Bucket::Few(ids) => *self = Bucket::Many(ids.drain(..).chain([id]).collect()),
            Bucket::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    fn remove(&mut self, id: u32) {
        match self {
            Bucket::Few(ids) => ids.retain(|own| *own != id),
            Bucket::Many(ids) => {
                ids.remove(&id);
            }
        }
    }

    fn each(&self, found: &mut impl FnMut(u32)) {
        match self {
            Bucket::Few(ids) => ids.iter().copied().for_each(found),
            Bucket::Many(ids) => ids.iter().copied().for_each(found),
        }
    }
}

/// Where something stands in an index.
pub type Places = SmallVec<[u64; 1]>;

/// See the module. An id is put in either as a kin or as a selector, never both in one index.
#[derive(Debug, Default)]
pub struct Index {
    hashes: RandomState,
    buckets: IntMap<u64, Bucket>,
}

impl Index {
    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn place(&self, namespace: &str, label: Option<(&str, &str)>) -> u64 {
        self.hashes.hash_one((namespace, label))
    }

    fn len(&self, place: u64) -> usize {
        self.buckets.get(&place).map_or(0, Bucket::len)
    }

    fn put(&mut self, id: u32, place: u64) {
        let bucket = self.buckets.entry(place);
        bucket.or_insert_with(|| Bucket::Few(SmallVec::new())).insert(id);
    }

    fn take(&mut self, id: u32, place: u64) {
        if let Some(bucket) = self.buckets.get_mut(&place) {
            bucket.remove(id);
            if bucket.len() == 0 {
                self.buckets.remove(&place);
            }
        }
    }

    fn each(&self, place: u64, found: &mut impl FnMut(u32)) {
        if let Some(bucket) = self.buckets.get(&place) {
            bucket.each(found);
        }
    }

    fn places_of_kin(&self, namespace: &str, kin: &Kin) -> impl Iterator<Item = u64> {
        let labels = kin.labels.iter();
        let labels = labels.map(|(key, value)| Some((key.as_str(), value.as_str())));
        [None]
            .into_iter()
            .chain(labels)
            .map(move |label| self.place(namespace, label))
    }

    /// Where to look for what a selector selects in these namespaces: where the fewest stand.
    fn places_of_selector<'n>(&self, names: impl Iterator<Item = &'n str> + Clone, labels: &Selector) -> Places {
        let by_values = labels.equalities().filter(|(_, values)| values.len() <= VALUES);
        let by_values = by_values.map(|(key, values)| -> Places {
            let each = |name| values.iter().map(move |value| self.place(name, Some((key, value))));
            names.clone().flat_map(each).collect()
        });
        let narrowest = by_values.min_by_key(|places| places.iter().map(|place| self.len(*place)).sum::<usize>());
        narrowest.unwrap_or_else(|| names.clone().map(|name| self.place(name, None)).collect())
    }

    /// Puts in a kin, so that selectors find it.
    pub fn insert_kin(&mut self, id: u32, kin: &Kin) {
        let places: Vec<u64> = self.places_of_kin(&kin.namespace, kin).collect();
        places.into_iter().for_each(|place| self.put(id, place));
    }

    /// Takes it out.
    pub fn remove_kin(&mut self, id: u32, kin: &Kin) {
        let places: Vec<u64> = self.places_of_kin(&kin.namespace, kin).collect();
        places.into_iter().for_each(|place| self.take(id, place));
    }

    /// The kins of these namespaces that a selector may select.
    pub fn kins<'n>(
        &self,
        names: impl Iterator<Item = &'n str> + Clone,
        labels: &Selector,
        mut found: impl FnMut(u32),
    ) {
        for place in self.places_of_selector(names, labels) {
            self.each(place, &mut found);
        }
    }

    /// Puts in a selector, so that kins find it. Where it stands.
    pub fn insert_selector(&mut self, id: u32, pods: &PodSelector) -> Places {
        let places = if pods.of_namespaces == Selector::NOTHING {
            self.places_of_selector(pods.namespaces.iter().map(|name| &**name), &pods.labels)
        } else {
            self.places_of_selector([EVERY].into_iter(), &pods.labels)
        };
        places.iter().for_each(|place| self.put(id, *place));
        places
    }

    /// Takes it out.
    pub fn remove_selector(&mut self, id: u32, places: &Places) {
        places.iter().for_each(|place| self.take(id, *place));
    }

    /// The selectors that may select a kin, each once.
    pub fn selectors(&self, kin: &Kin, mut found: impl FnMut(u32)) {
        if self.is_empty() {
            return;
        }
        for namespace in [&*kin.namespace, EVERY] {
            for place in self.places_of_kin(namespace, kin) {
                self.each(place, &mut found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Labels;

    fn labels(all: &[(&str, &str)]) -> Labels {
        let all = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        all.collect()
    }

    #[test]
    fn selectors_and_kins_find_each_other_by_the_rarest_label() {
        let mut index = Index::default();
        let kins: Vec<Kin> = (0..100)
            .map(|n| Kin::new("d", labels(&[("app", &n.to_string()), ("env", "prod")])))
            .collect();
        for (id, kin) in (0..).zip(&kins) {
            index.insert_kin(id, kin);
        }
        let mut found = Vec::new();
        let seven = labels(&[("env", "prod"), ("app", "7")]);
        index.kins(["d", "e"].into_iter(), &Selector::equal(&seven), |id| found.push(id));
        assert_eq!(found, [7]);
        for (id, kin) in (0..).zip(&kins) {
            index.remove_kin(id, kin);
        }
        assert!(index.is_empty());
        let places: Vec<Places> = (0..)
            .zip(&kins)
            .map(|(id, kin)| index.insert_selector(id, &PodSelector::within("d", Selector::equal(&kin.labels))))
            .collect();
        let mut found = Vec::new();
        index.selectors(&kins[7], |id| found.push(id));
        // The first one stands under either label.
        assert!(found.contains(&7) && found.len() <= 2, "{found:?}");
        for (id, places) in (0..).zip(&places) {
            index.remove_selector(id, places);
        }
        assert!(index.is_empty());
    }
}
