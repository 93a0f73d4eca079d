//! What becomes of an object's managers when somebody writes it otherwise than by apply.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::fields_v1::{Overlap, overlap};
use super::gained;
use super::items::ItemError;
use super::managed::{Entry, Managed, Operation, Owner, Time};
use super::node::Node;
use super::set::Set;

/// The versions that managers may have named their fields in.
pub trait Versions {
    /// The schema of a version; none where it is served no more.
    fn node(&self, api_version: &str) -> Option<Node<'_>>;

    /// An object, which says what version it is in, in another version.
    fn convert<'a>(&self, object: &'a Value, api_version: &str) -> Option<Cow<'a, Value>>;

    /// The fields that a write of this kind cannot change, and so nobody owns by it.
    fn ignored(&self, api_version: &str) -> &Set;
}

/// Who writes, when, and how.
#[derive(Clone, Debug)]
pub struct Writer {
    pub owner: Owner,
    pub now: Time,
}

/// So many who updated an object are told apart; older ones are counted together.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// What nobody owns: the server's own.
pub(super) static SERVERS: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// A set without what is the server's.
pub(super) fn strip(mut set: Set) -> Set {
    set.lose(&SERVERS);
    set
}

/// The managers of an object that a write changes from one state to another. Both are in the writer's version.
///
/// # Errors
/// An item of a list has no identity: nobody can say who owns what.
pub fn update(
    before: &Managed,
    old: &Value,
    new: &Value,
    writer: &Writer,
    versions: &dyn Versions,
) -> Result<Managed, ItemError> {
    let own_version = &*writer.owner.api_version;
    if before.is_empty()
        && let Some(managed) = first(old, new, writer, versions)
    {
        return Ok(managed);
    }
    let mut changes = Changes::new(versions, old, new);
    if changes.in_version(own_version)?.is_none() {
        return Ok(before.clone());
    }
    let mut entries = give_up(before.entries(), &writer.owner, &mut changes)?;
    let change = changes.take(own_version);
    let gained = strip(change.modified.joined(change.added));
    if gained.is_empty() {
        cap(&mut entries);
        return Ok(Managed::of(entries));
    }
    match entries.iter_mut().find(|entry| entry.owner().is_same(&writer.owner)) {
        Some(own) => {
            if overlap(&own.fields, &gained) != Overlap::All {
                *own = own.with(&own.set().union(&gained));
            }
            own.time = Some(writer.now);
        }
        None => entries.push(Entry::new(writer.owner.clone(), &gained, Some(writer.now))),
    }
    cap(&mut entries);
    Ok(Managed::of(entries))
}

/// The managers of an object that nobody owned anything of, where there is nothing to be said but what the writer gains.
fn first(old: &Value, new: &Value, writer: &Writer, versions: &dyn Versions) -> Option<Managed> {
    let version = &*writer.owner.api_version;
    let node = versions.node(version)?;
    let (old, new) = (versions.convert(old, version)?, versions.convert(new, version)?);
    let fields = gained::print(node, &old, &new, &SERVERS, versions.ignored(version)).ok()?;
    let entry = Entry::printed(writer.owner.clone(), fields, Some(writer.now));
    Some(Managed::of(vec![entry]))
}

/// What managers keep when fields get other values or go. The writer keeps what he changes.
fn give_up(entries: &[Entry], writer: &Owner, changes: &mut Changes<'_>) -> Result<Vec<Entry>, ItemError> {
    let mut kept = Vec::with_capacity(entries.len() + 1);
    for entry in entries {
        // A version that is served no more has no fields.
        if let Some(change) = changes.in_version(&entry.owner().api_version)? {
            kept.push(match entry.owner().is_same(writer) {
                true => without(entry, &[&change.removed]),
                false => without(entry, &[&change.modified, &change.added, &change.removed]),
            });
        }
    }
    Ok(kept)
}

/// An entry without some fields.
pub(super) fn without(entry: &Entry, sets: &[&Set]) -> Entry {
    let lost = sets
        .iter()
        .any(|set| !set.is_empty() && overlap(&entry.fields, set) != Overlap::None);
    if !lost {
        return entry.clone();
    }
    let mut left = entry.set();
    for set in sets {
        left.lose(set);
    }
    entry.with(&left)
}

/// A change as each version shows it, compared once per version.
pub(super) struct Changes<'a> {
    versions: &'a dyn Versions,
    old: &'a Value,
    new: &'a Value,
    compared: Vec<(Box<str>, Option<Comparison>)>,
}

impl<'a> Changes<'a> {
    pub fn new(versions: &'a dyn Versions, old: &'a Value, new: &'a Value) -> Changes<'a> {
        Changes {
            versions,
            old,
            new,
            compared: Vec::with_capacity(1),
        }
    }

    /// The change in a version; none where it is served no more.
    pub fn in_version(&mut self, api_version: &str) -> Result<Option<&Comparison>, ItemError> {
        let at = match self.compared.iter().position(|(own, _)| **own == *api_version) {
            Some(at) => at,
            // A client may name any number of those.
            None if self.versions.node(api_version).is_none() => return Ok(None),
            None => {
                let comparison = self.compare(api_version)?;
                self.compared.push((api_version.into(), comparison));
                self.compared.len() - 1
            }
        };
        Ok(self.compared[at].1.as_ref())
    }

    /// The change in a version that was asked for before.
    fn take(self, api_version: &str) -> Comparison {
        let mut compared = self.compared.into_iter();
        let found = compared.find(|(own, _)| **own == *api_version);
        found.and_then(|(_, comparison)| comparison).unwrap_or_default()
    }

    fn compare(&self, api_version: &str) -> Result<Option<Comparison>, ItemError> {
        let Some(node) = self.versions.node(api_version) else {
            return Ok(None);
        };
        let converted = |object: &'a Value| self.versions.convert(object, api_version);
        let Some((old, new)) = converted(self.old).zip(converted(self.new)) else {
            return Ok(None);
        };
        let comparison = compare(node, &old, &new)?;
        Ok(Some(comparison.without(self.versions.ignored(api_version))))
    }
}

/// Counts the oldest of too many updaters together, those of each version.
fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> = (0..entries.len())
        .filter(|&at| entries[at].owner().operation == Operation::Update)
        .collect();
    if updaters.len() <= MAX_UPDATERS {
        return;
    }
    updaters.sort_by(|&one, &two| {
        let of = |at: usize| (entries[at].time, identifier(entries[at].owner()));
        of(one).cmp(&of(two))
    });
    let versions = entries.iter().enumerate().map(|(at, entry)| (at, entry.owner()));
    let ancients = versions.filter(|(_, owner)| owner.is_same(&ancient(&owner.api_version)));
    let known: HashMap<&str, usize> = ancients.map(|(at, owner)| (&*owner.api_version, at)).collect();
    // Of each version where they are counted together, then which ones.
    let mut buckets: HashMap<&str, (usize, Vec<usize>)> = HashMap::new();
    let mut left = updaters.len();
    for at in updaters {
        if left <= MAX_UPDATERS {
            break;
        }
        let version = &*entries[at].owner().api_version;
        match buckets.get_mut(version) {
            None => drop(buckets.insert(version, (known.get(version).copied().unwrap_or(at), Vec::new()))),
            Some((_, counted)) => {
                counted.push(at);
                left -= 1;
            }
        }
    }
    let mut gone = vec![false; entries.len()];
    let mut together = Vec::with_capacity(buckets.len());
    for (version, (bucket, counted)) in buckets {
        let Some(last) = counted.last() else { continue };
        let sets = [&bucket].into_iter().chain(&counted).map(|&at| entries[at].set());
        let entry = Entry::new(ancient(version), &Set::of_all(sets.collect()), entries[*last].time);
        together.push((bucket, entry));
        counted.iter().for_each(|&at| gone[at] = at != bucket);
    }
    for (bucket, entry) in together {
        entries[bucket] = entry;
    }
    let mut at = 0;
    entries.retain(|_| {
        at += 1;
        !gone[at - 1]
    });
}

/// Who owns what many did in a version.
fn ancient(api_version: &str) -> Owner {
    Owner {
        manager: ANCIENT.into(),
        operation: Operation::Update,
        api_version: api_version.into(),
        subresource: "".into(),
    }
}

/// What upstream orders managers of one second by.
fn identifier(owner: &Owner) -> (&str, &str, &str) {
    (&owner.manager, &owner.api_version, &owner.subresource)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::schema;

    struct Pods(Set);

    impl Versions for Pods {
        fn node(&self, api_version: &str) -> Option<Node<'_>> {
            schema::by_api_version(api_version, "Pod").map(|schema| Node::root(schema))
        }

        fn convert<'a>(&self, object: &'a Value, _: &str) -> Option<Cow<'a, Value>> {
            Some(Cow::Borrowed(object))
        }

        fn ignored(&self, _: &str) -> &Set {
            &self.0
        }
    }

    fn writer(manager: &str, second: u32) -> Writer {
        Writer {
            owner: Owner {
                manager: manager.into(),
                operation: Operation::Update,
                api_version: "v1".into(),
                subresource: "".into(),
            },
            now: format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60)
                .into_bytes()
                .try_into()
                .unwrap(),
        }
    }

    fn write(before: &Managed, old: &Value, new: &Value, writer: &Writer) -> Managed {
        let ignored = Set::of_fields(&[&["status"]]);
        update(before, old, new, writer, &Pods(ignored)).unwrap()
    }

    fn shown(managed: &Managed) -> Vec<String> {
        let entries = managed.entries().iter();
        let shown = entries.map(|entry| {
            let time = entry
                .time
                .map(|time| String::from_utf8_lossy(&time[14..19]).into_owned());
            format!(
                "{} {} {}",
                entry.owner().manager,
                time.unwrap_or_default(),
                entry.fields
            )
        });
        shown.collect()
    }

    #[test]
    fn who_changes_a_field_owns_it() {
        let empty = json!({"metadata": {}});
        let first = json!({"metadata": {"name": "p", "labels": {"a": "1", "b": "1"}}, "status": {"phase": "Running"}});
        let managed = write(&Managed::default(), &empty, &first, &writer("a", 1));
        assert_eq!(
            shown(&managed),
            [r#"a 00:01 {"f:metadata":{"f:labels":{".":{},"f:a":{},"f:b":{}}}}"#]
        );
        // The same again changes nothing, not even a time.
        assert_eq!(write(&managed, &first, &first, &writer("a", 2)), managed);

        let second = json!({"metadata": {"name": "p", "labels": {"a": "2", "b": "1", "c": "1"}}});
        let both = write(&managed, &first, &second, &writer("b", 3));
        assert_eq!(
            shown(&both),
            [
                r#"a 00:01 {"f:metadata":{"f:labels":{".":{},"f:b":{}}}}"#,
                r#"b 00:03 {"f:metadata":{"f:labels":{"f:a":{},"f:c":{}}}}"#,
            ]
        );
        // One's own field again is a new time alone; what goes belongs to nobody, and who owns nothing goes with it.
        let third = json!({"metadata": {"name": "p", "labels": {"a": "3", "b": "1", "c": "1"}}});
        let own = write(&both, &second, &third, &writer("b", 4));
        assert_eq!(
            shown(&own)[1],
            r#"b 00:04 {"f:metadata":{"f:labels":{"f:a":{},"f:c":{}}}}"#
        );
        let fourth = json!({"metadata": {"name": "p", "labels": {"b": "1"}}});
        let one = write(&own, &third, &fourth, &writer("a", 5));
        assert_eq!(
            shown(&one),
            [r#"a 00:01 {"f:metadata":{"f:labels":{".":{},"f:b":{}}}}"#]
        );
    }

    #[test]
    fn the_oldest_of_many_are_counted_together() {
        let object = |count: u32| {
            let labels: serde_json::Map<String, Value> =
                (0..count).map(|number| (format!("l{number:02}"), "x".into())).collect();
            json!({"metadata": {"labels": labels}})
        };
        let mut managed = Managed::default();
        for number in 0..13 {
            managed = write(
                &managed,
                &object(number),
                &object(number + 1),
                &writer(&format!("m{number:02}"), number),
            );
        }
        let shown = shown(&managed);
        assert_eq!(shown.len(), 10);
        assert_eq!(
            shown[0],
            r#"ancient-changes 00:03 {"f:metadata":{"f:labels":{"f:l00":{},"f:l01":{},"f:l02":{},"f:l03":{}}}}"#
        );
        assert!(shown[1].starts_with("m04 00:04") && shown[9].starts_with("m12 00:12"));
    }

    #[test]
    fn fields_named_in_a_version_that_is_gone_are_nobodys() {
        let list = json!([{"apiVersion": "v0", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}, "manager": "old",
            "operation": "Update"}]);
        let before = Managed::from_value(&list).unwrap();
        let (old, new) = (json!({"metadata": {}}), json!({"metadata": {"labels": {"a": "b"}}}));
        let managed = write(&before, &old, &new, &writer("a", 1));
        assert_eq!(managed.entries().len(), 1);
        assert_eq!(&*managed.entries()[0].owner().manager, "a");
    }
}
