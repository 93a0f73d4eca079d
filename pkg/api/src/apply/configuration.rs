//! Apply: a configuration over what there is, and who owns what by it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::compare::compare;
use super::conflict::Conflicts;
use super::element::equal;
use super::extract::fields_of;
use super::fields_v1::{Overlap, overlap};
use super::items::ItemError;
use super::managed::{Entry, Managed, Operation, Owner};
use super::merge::{MergeError, merge};
use super::node::Node;
use super::remove::{remove, with_named_fields};
use super::set::Set;
use super::update::{Changes, Versions, Writer, strip, update, without};

/// What an apply comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object, in the version that was applied; none where it stays as it is.
    pub object: Option<Value>,
    pub managed: Managed,
}

/// Why a configuration is not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Conflicts(Conflicts),
    #[error("failed to merge config: {0}")]
    Merge(#[from] MergeError),
    #[error("failed to compare objects: {0}")]
    Item(#[from] ItemError),
    /// The version that is applied is not served.
    #[error("no such version")]
    NoSuchVersion,
}

/// Who owned the fields of an object that nobody was known to own.
const BEFORE: &str = "before-first-apply";

/// What is applied, to what.
pub struct Configuration<'a> {
    /// The managers of what there is.
    pub before: &'a Managed,
    /// What there is, in the version that is applied; an object that does not exist yet is its type's empty one.
    pub live: &'a Value,
    /// An object of the type without a field: what is there from the start.
    pub empty: &'a Value,
    pub applied: &'a Value,
    pub writer: &'a Writer,
    /// Others' fields are taken over.
    pub force: bool,
}

impl Configuration<'_> {
    /// # Errors
    /// Somebody else owns a field that gets another value, or lists without identities are in the way.
    pub fn apply(&self, versions: &dyn Versions) -> Result<Applied, ApplyError> {
        let version = &*self.writer.owner.api_version;
        let node = versions.node(version).ok_or(ApplyError::NoSuchVersion)?;
        let before = match self.before.is_empty() {
            true => Cow::Owned(self.first_owner(versions)?),
            false => Cow::Borrowed(self.before),
        };
        let mut set = fields_of(node, self.applied)?;
        set.lose_all(versions.ignored(version));
        let is_own = |entry: &Entry| entry.owner().is_same(&self.writer.owner);
        let last = before.entries().iter().find(|entry| is_own(entry));
        let others: Vec<Entry> = before
            .entries()
            .iter()
            .filter(|entry| !is_own(entry))
            .cloned()
            .collect();

        let mut object = merge(node, self.live, self.applied)?;
        if let Some(last) = last {
            let pruning = Pruning {
                versions,
                last,
                version,
            };
            object = pruning.prune(object, &set, &others)?;
        }
        let mut entries = self.take_over(&others, &object, versions)?;
        let changed = !equal(self.live, &object);
        let time = match changed {
            true => Some(self.writer.now),
            false => last.and_then(|last| last.time),
        };
        let owned = strip(set);
        if !owned.is_empty() {
            entries.push(Entry::new(self.writer.owner.clone(), &owned, time));
        }
        Ok(Applied {
            object: changed.then_some(object),
            managed: Managed::of(entries),
        })
    }

    /// Whoever made what is there, where nobody is known.
    fn first_owner(&self, versions: &dyn Versions) -> Result<Managed, ItemError> {
        let owner = Owner {
            manager: BEFORE.into(),
            operation: Operation::Update,
            ..self.writer.owner.clone()
        };
        let writer = Writer {
            owner,
            now: self.writer.now,
        };
        update(&Managed::default(), self.empty, self.live, &writer, versions)
    }

    /// What others keep; that they keep all of it where nothing is forced.
    fn take_over(&self, others: &[Entry], object: &Value, versions: &dyn Versions) -> Result<Vec<Entry>, ApplyError> {
        let mut changes = Changes::new(versions, self.live, object);
        let (mut kept, mut lost) = (Vec::with_capacity(others.len() + 1), Vec::new());
        for entry in others {
            let Some(change) = changes.in_version(&entry.owner().api_version)? else {
                continue;
            };
            let taken = change.modified.union(&change.added);
            if !self.force && overlap(&entry.fields, &taken) != Overlap::None {
                lost.push((entry.owner(), entry.set().intersection(&taken)));
            }
            kept.push(without(entry, &[&taken, &change.removed]));
        }
        match Conflicts::of(lost) {
            None => Ok(kept),
            Some(conflicts) => Err(ApplyError::Conflicts(conflicts)),
        }
    }
}

/// Takes away what a manager applied last time, does not apply any more, and nobody else owns.
struct Pruning<'a> {
    versions: &'a dyn Versions,
    last: &'a Entry,
    /// The version that is applied now.
    version: &'a str,
}

impl Pruning<'_> {
    fn prune(&self, merged: Value, own: &Set, others: &[Entry]) -> Result<Value, ItemError> {
        let last_version = &*self.last.owner().api_version;
        let last = self.last.set();
        // Most of the time everything is applied again: nothing goes.
        if last_version == self.version && last.difference(own).is_empty() {
            return Ok(merged);
        }
        let Some((node, start)) = self.at(&merged, last_version) else {
            return Ok(merged);
        };
        let named = with_named_fields(Some(node), &last);
        let mut pruned = remove(node, &start, &named);
        for (version, owned) in self.owned(own, others) {
            if let Some(back) = self.add_back(&start, &pruned, &version, &owned)? {
                pruned = back;
            }
        }
        let Some((_, pruned)) = self.at(&pruned, last_version) else {
            return Ok(merged);
        };
        // Only what was applied last time may go.
        let without = with_named_fields(Some(node), &fields_of(node, &pruned)?);
        let with = with_named_fields(Some(node), &fields_of(node, &start)?);
        let gone = with.difference(&without).intersection(&named);
        let left = remove(node, &start, &gone);
        Ok(self
            .at(&left, self.version)
            .map_or(merged, |(_, left)| left.into_owned()))
    }

    fn at<'v>(&self, object: &'v Value, version: &str) -> Option<(Node<'_>, Cow<'v, Value>)> {
        let node = self.versions.node(version)?;
        Some((node, self.versions.convert(object, version)?))
    }

    /// What is owned in each version, that of the last apply first.
    fn owned(&self, own: &Set, others: &[Entry]) -> Vec<(Box<str>, Set)> {
        let last = &*self.last.owner().api_version;
        let mut places = HashMap::from([(last, 0)]);
        let mut owned: Vec<(Box<str>, Vec<Set>)> = vec![(last.into(), Vec::new())];
        let all = others
            .iter()
            .map(|entry| (&*entry.owner().api_version, Cow::Owned(entry.set())));
        for (version, set) in all.chain([(self.version, Cow::Borrowed(own))]) {
            let place = *places.entry(version).or_insert(owned.len());
            if place == owned.len() {
                owned.push((version.into(), Vec::new()));
            }
            owned[place].1.push(set.into_owned());
        }
        let owned = owned.into_iter();
        owned.map(|(version, sets)| (version, Set::of_all(sets))).collect()
    }

    /// What was taken away and somebody owns in a version.
    fn add_back(&self, merged: &Value, pruned: &Value, version: &str, owned: &Set) -> Result<Option<Value>, ItemError> {
        let Some(((node, merged), (_, pruned))) = self.at(merged, version).zip(self.at(pruned, version)) else {
            return Ok(None);
        };
        let named = |set: &Set| with_named_fields(Some(node), set);
        let kept = named(&fields_of(node, &pruned)?).union(&named(owned));
        let gone = named(&fields_of(node, &merged)?).difference(&kept);
        Ok(Some(remove(node, &merged, &gone)))
    }
}

/// The fields of an object that its last client-side apply left as they are: kubectl may take them over without force.
pub(super) fn of_last_applied(node: Node<'_>, last: &Value, live: &Value) -> Result<Set, ItemError> {
    let comparison = compare(node, last, live)?;
    let set = fields_of(node, last)?;
    let same = set.difference(&comparison.modified).difference(&comparison.added);
    Ok(same.difference(&comparison.removed))
}
