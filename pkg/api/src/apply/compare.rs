//! What differs between two states of an object, as sets of paths.

use serde_json::{Map, Value};

use super::element::{Element, equal};
use super::items::{self, ItemError};
use super::node::{Items, Kind, Node};
use super::set::{self, Set};

/// The paths that a change adds, removes, and gives other values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Leaves out paths and all that is below them.
    pub fn without(mut self, ignored: &Set) -> Comparison {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.lose_all(ignored);
        }
        self
    }

    /// Adds what comes after all that is there.
    fn append(&mut self, later: Comparison) {
        let pairs = [
            (&mut self.added, later.added),
            (&mut self.modified, later.modified),
            (&mut self.removed, later.removed),
        ];
        for (set, later) in pairs {
            for node in later.into_nodes() {
                set.push(node);
            }
        }
    }

    /// Adds what lies below a step, and what became of the step itself.
    fn push(&mut self, element: impl Fn() -> Element, below: Comparison, own: Own) {
        let parts = [
            (&mut self.added, below.added, Own::Added),
            (&mut self.modified, below.modified, Own::Modified),
            (&mut self.removed, below.removed, Own::Removed),
        ];
        for (set, below, what) in parts {
            if own == what || !below.is_empty() {
                set.push(set::Node {
                    element: element(),
                    member: own == what,
                    below,
                });
            }
        }
    }
}

/// What became of one path itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Same,
    Added,
    Modified,
    Removed,
}

impl Own {
    fn of_leaf(old: Option<&Value>, new: Option<&Value>) -> Own {
        match (old, new) {
            (Some(old), Some(new)) if equal(old, new) => Own::Same,
            (Some(_), Some(_)) => Own::Modified,
            _ => Own::of_presence(old, new),
        }
    }

    fn of_presence(old: Option<&Value>, new: Option<&Value>) -> Own {
        match (old, new) {
            (None, Some(_)) => Own::Added,
            (Some(_), None) => Own::Removed,
            _ => Own::Same,
        }
    }
}

/// Compares two states of an object. Lists that hold an item twice are compared as upstream compares them.
///
/// # Errors
/// An item of a list has no identity.
pub fn compare(node: Node<'_>, old: &Value, new: &Value) -> Result<Comparison, ItemError> {
    Ok(at(node, Some(old), Some(new))?.0)
}

fn at(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(Comparison, Own), ItemError> {
    match node.kind() {
        Kind::Map if !node.is_atomic() => maps(node, old, new),
        Kind::List if node.items() != Items::Atomic => lists(node, old, new),
        Kind::Deduced => deduced(node, old, new),
        _ => Ok((Comparison::default(), Own::of_leaf(old, new))),
    }
}

fn maps(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(Comparison, Own), ItemError> {
    let (old_fields, new_fields) = (fields_of(old), fields_of(new));
    if old_fields.is_none() && new_fields.is_none() {
        // So that null and empty are told apart.
        return Ok((Comparison::default(), Own::of_leaf(old, new)));
    }
    let mut out = Comparison::default();
    for (key, old, new) in Zip::of(old_fields, new_fields) {
        // What the schema does not know is nobody's.
        let Some(child) = node.child(key) else { continue };
        let (below, own) = at(child, old, new)?;
        out.push(|| Element::field(key), below, own);
    }
    Ok((out, Own::of_presence(old, new)))
}

/// The fields of a map that has any.
pub(super) fn fields_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object).filter(|map| !map.is_empty())
}

/// Two maps' keys side by side, each once, in order.
pub(super) struct Zip<'a> {
    old: std::iter::Peekable<Entries<'a>>,
    new: std::iter::Peekable<Entries<'a>>,
}

type Entries<'a> = std::iter::Flatten<std::option::IntoIter<&'a Map<String, Value>>>;

impl<'a> Zip<'a> {
    pub fn of(old: Option<&'a Map<String, Value>>, new: Option<&'a Map<String, Value>>) -> Zip<'a> {
        Zip {
            old: old.into_iter().flatten().peekable(),
            new: new.into_iter().flatten().peekable(),
        }
    }
}

impl<'a> Iterator for Zip<'a> {
    type Item = (&'a str, Option<&'a Value>, Option<&'a Value>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = match (self.old.peek(), self.new.peek()) {
            (Some((old, _)), Some((new, _))) => (*old).min(*new),
            (Some((only, _)), None) | (None, Some((only, _))) => *only,
            (None, None) => return None,
        };
        let old = self.old.next_if(|(own, _)| *own == key).map(|(_, value)| value);
        let new = self.new.next_if(|(own, _)| *own == key).map(|(_, value)| value);
        Some((key, old, new))
    }
}

fn lists(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(Comparison, Own), ItemError> {
    let old_items = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let new_items = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if old_items.is_empty() && new_items.is_empty() {
        return Ok((Comparison::default(), Own::of_leaf(old, new)));
    }
    // The identities of what did not change need not be found out.
    if old_items == new_items {
        return Ok((Comparison::default(), Own::Same));
    }
    let (olds, news) = (items::sorted(node, old_items)?, items::sorted(node, new_items)?);
    let (mut olds, mut news) = (&olds[..], &news[..]);
    let mut out = Comparison::default();
    while let Some(element) = first(olds, news) {
        let (old, new) = (take(&mut olds, element), take(&mut news, element));
        item(node, element, old, new, &mut out)?;
    }
    Ok((out, Own::of_presence(old, new)))
}

type Item<'a> = (Element, &'a Value);

fn first<'a>(olds: &'a [Item<'_>], news: &'a [Item<'_>]) -> Option<&'a Element> {
    match (olds.first(), news.first()) {
        (Some((old, _)), Some((new, _))) => Some(old.min(new)),
        (Some((only, _)), None) | (None, Some((only, _))) => Some(only),
        (None, None) => None,
    }
}

/// Takes the items of an element from the front.
fn take<'a, 'v>(items: &mut &'a [Item<'v>], element: &Element) -> &'a [Item<'v>] {
    let count = items.iter().take_while(|(own, _)| own == element).count();
    let (taken, rest) = items.split_at(count);
    *items = rest;
    taken
}

/// All items of one identity, before and after.
fn item(
    node: Node<'_>,
    element: &Element,
    old: &[Item<'_>],
    new: &[Item<'_>],
    out: &mut Comparison,
) -> Result<(), ItemError> {
    let element_of = || element.clone();
    let (first_old, first_new) = (
        old.first().map(|(_, value)| *value),
        new.first().map(|(_, value)| *value),
    );
    match (old.len(), new.len()) {
        (0 | 1, 0 | 1) => {
            let (below, own) = at(node.item(), first_old, first_new)?;
            out.push(element_of, below, own);
        }
        // Doubles before and after are one leaf.
        (2.., 2..) => {
            let same = old.len() == new.len() && old.iter().zip(new).all(|((_, old), (_, new))| equal(old, new));
            let own = if same { Own::Same } else { Own::Modified };
            out.push(element_of, Comparison::default(), own);
        }
        // No doubles any more: what is left is new.
        (2.., _) => {
            let mut both = Comparison::default();
            if first_new.is_some() {
                let (below, own) = at(node.item(), None, first_new)?;
                both.push(element_of, below, own);
            }
            both.removed.add(set::Node::leaf(element.clone()));
            out.append(both);
        }
        (_, _) => {
            let mut both = Comparison::default();
            if first_old.is_some() {
                let (below, own) = at(node.item(), first_old, None)?;
                both.push(element_of, below, own);
            }
            both.added.add(set::Node::leaf(element.clone()));
            out.append(both);
        }
    }
    Ok(())
}

/// A value without a schema: maps have members, all else is a leaf. Null is a map without any beside another map.
fn deduced(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(Comparison, Own), ItemError> {
    let is_map = |value: Option<&Value>| value.is_none_or(|value| value.is_object() || value.is_null());
    if is_map(old) && is_map(new) {
        return maps(node, old, new);
    }
    let (mut below, _) = maps(node, old, new)?;
    let own = Own::of_leaf(old, new);
    if !old.is_some_and(Value::is_object) && !new.is_some_and(Value::is_object) {
        below = Comparison::default();
    }
    Ok((below, own))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::fields_v1;
    use super::*;
    use crate::schema;

    fn node(kind: &str) -> Node<'static> {
        Node::root(schema::by_gvk("", "v1", kind).unwrap())
    }

    fn shown(node: Node<'_>, old: &Value, new: &Value) -> [String; 3] {
        let comparison = compare(node, old, new).unwrap();
        let sets = [&comparison.added, &comparison.modified, &comparison.removed];
        sets.map(fields_v1::print)
    }

    #[test]
    fn fields_and_items_are_told_apart() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}, {"name": "d"}]}});
        let new = json!({"metadata": {"labels": {"a": "2", "c": "1"}}, "spec": {"containers": [
            {"name": "d"}, {"name": "c", "ports": [{"containerPort": 80, "protocol": "UDP"}], "tty": true}]}});
        let [added, modified, removed] = shown(node("Pod"), &old, &new);
        assert_eq!(
            added,
            r#"{"f:metadata":{"f:labels":{"f:c":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"UDP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:tty":{}}}}}"#
        );
        assert_eq!(modified, r#"{"f:metadata":{"f:labels":{"f:a":{}}}}"#);
        assert_eq!(
            removed,
            r#"{"f:metadata":{"f:labels":{"f:b":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:image":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}"#
        );
    }

    #[test]
    fn containers_that_come_and_go_are_paths_themselves() {
        let none = json!({"spec": {"containers": null}});
        let some =
            json!({"metadata": {"labels": {}}, "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c"}]}});
        let [added, ..] = shown(node("Pod"), &none, &some);
        assert_eq!(
            added,
            r#"{"f:metadata":{".":{},"f:labels":{}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{}}},"f:nodeSelector":{}}}"#
        );
        let [.., removed] = shown(node("Pod"), &some, &none);
        assert_eq!(removed, added);
    }

    #[test]
    fn doubles_are_one_leaf() {
        let of = |envs: Value| json!({"spec": {"containers": [{"name": "c", "env": envs}]}});
        let (one, two) = (json!({"name": "A", "value": "1"}), json!({"name": "A", "value": "2"}));
        let under = |inner: &str| {
            format!(
                r#"{{"f:spec":{{"f:containers":{{"k:{{\"name\":\"c\"}}":{{"f:env":{{"k:{{\"name\":\"A\"}}":{inner}}}}}}}}}}}"#
            )
        };
        let item = under(r#"{".":{},"f:name":{},"f:value":{}}"#);
        let rows = [
            (
                json!([one, two]),
                json!([two, one]),
                ["{}".into(), under("{}"), "{}".into()],
            ),
            (
                json!([one, two]),
                json!([one, two]),
                ["{}".into(), "{}".into(), "{}".into()],
            ),
            (
                json!([one, two]),
                json!([one]),
                [item.clone(), "{}".into(), under("{}")],
            ),
            (json!([one]), json!([one, two]), [under("{}"), "{}".into(), item]),
        ];
        for (old, new, expected) in rows {
            assert_eq!(shown(node("Pod"), &of(old), &of(new)), expected);
        }
    }

    #[test]
    fn values_without_a_schema_are_told_by_what_they_are() {
        let node = Node::root(schema::custom());
        let rows = [
            (json!({"a": 1}), json!({"a": 1.0}), ["{}", "{}", "{}"]),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"c": 1}}),
                [r#"{"f:a":{"f:c":{}}}"#, "{}", r#"{"f:a":{"f:b":{}}}"#],
            ),
            (json!({"a": [1]}), json!({"a": [2]}), ["{}", r#"{"f:a":{}}"#, "{}"]),
            (
                json!({"a": {"b": 1}}),
                json!({"a": 2}),
                ["{}", r#"{"f:a":{}}"#, r#"{"f:a":{"f:b":{}}}"#],
            ),
            (
                json!({"a": null}),
                json!({"a": {"b": 1}}),
                [r#"{"f:a":{"f:b":{}}}"#, "{}", "{}"],
            ),
        ];
        for (old, new, expected) in rows {
            assert_eq!(shown(node, &old, &new), expected, "{old} {new}");
        }
    }
}
