//! An applied configuration over what there is.

use serde_json::{Map, Value};

use super::compare::{Zip, fields_of};
use super::element::Element;
use super::items::{self, ItemError};
use super::node::{Items, Kind, Node};

/// Why two objects cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("{0}")]
    Item(#[from] ItemError),
    #[error("duplicate entries for key {0}")]
    Double(Element),
}

/// The live object with what the configuration says: nothing is removed, and a leaf that both have is the configuration's.
/// The items of a list stand in the configuration's order as far as it names them.
///
/// # Errors
/// An item of a list has no identity, or the configuration names one twice.
pub fn merge(node: Node<'_>, live: &Value, applied: &Value) -> Result<Value, MergeError> {
    Ok(at(node, Some(live), Some(applied))?.unwrap_or_default())
}

/// None: nothing is left to stand there.
fn at(node: Node<'_>, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, MergeError> {
    match node.kind() {
        Kind::Map if !node.is_atomic() => maps(node, live, applied),
        Kind::Deduced if is_map(live, applied) => maps(node, live, applied),
        Kind::List if node.items() != Items::Atomic => lists(node, live, applied),
        _ => Ok(leaf(live, applied)),
    }
}

/// Whether a value without a schema is merged as a map: what is applied decides, null says nothing.
fn is_map(live: Option<&Value>, applied: Option<&Value>) -> bool {
    match applied {
        Some(Value::Null) | None => live.is_none_or(Value::is_object),
        Some(applied) => applied.is_object(),
    }
}

fn leaf(live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    applied.or(live).cloned()
}

fn maps(node: Node<'_>, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, MergeError> {
    let (old, new) = (fields_of(live), fields_of(applied));
    if old.is_none() && new.is_none() {
        return Ok(leaf(live, applied));
    }
    let mut out = Map::new();
    for (key, live, applied) in Zip::of(old, new) {
        let Some(child) = node.child(key) else { continue };
        if let Some(merged) = at(child, live, applied)? {
            out.insert(key.into(), merged);
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

/// The items of a list by their elements, in the list's order.
struct Indexed<'a> {
    items: Vec<(Element, &'a Value)>,
    /// Places in `items`, sorted by element.
    order: Vec<usize>,
}

impl<'a> Indexed<'a> {
    fn of(node: Node<'_>, list: Option<&'a Value>) -> Result<Indexed<'a>, ItemError> {
        let list = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let items = list.iter().map(|item| Ok((items::element(node, item)?, item)));
        let items: Vec<_> = items.collect::<Result<_, ItemError>>()?;
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by(|&one, &two| items[one].0.cmp(&items[two].0));
        Ok(Indexed { items, order })
    }

    /// An element that comes twice.
    fn double(&self) -> Option<&Element> {
        let mut pairs = self.order.windows(2);
        let found = pairs.find(|pair| self.items[pair[0]].0 == self.items[pair[1]].0)?;
        Some(&self.items[found[0]].0)
    }

    /// Where an element stands; one of its places where there are several.
    fn place(&self, element: &Element) -> Option<usize> {
        let at = self.order.binary_search_by(|&at| self.items[at].0.cmp(element)).ok()?;
        Some(self.order[at])
    }

    /// The item of an element; null where there are several, which are not merged with anything.
    fn get(&self, element: &Element) -> Option<&'a Value> {
        const NULL: &Value = &Value::Null;
        let from = self.order.partition_point(|&at| self.items[at].0 < *element);
        let mut same = self.order[from..]
            .iter()
            .take_while(|&&at| self.items[at].0 == *element);
        match (same.next(), same.next()) {
            (None, _) => None,
            (Some(&only), None) => Some(self.items[only].1),
            _ => Some(NULL),
        }
    }
}

fn lists(node: Node<'_>, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, MergeError> {
    let is_empty = |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if is_empty(live) && is_empty(applied) {
        return Ok(leaf(live, applied));
    }
    let (live, applied) = (Indexed::of(node, live)?, Indexed::of(node, applied)?);
    if let Some(double) = applied.double() {
        return Err(MergeError::Double(double.clone()));
    }
    let mut out = Vec::with_capacity(live.items.len().max(applied.items.len()));
    for place in order(&live, &applied) {
        let merged = match place {
            Place::Live(at) => self::at(node.item(), Some(live.items[at].1), None)?,
            Place::Applied(at) => {
                let (element, item) = &applied.items[at];
                self::at(node.item(), live.get(element), Some(item))?
            }
        };
        out.extend(merged);
    }
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}

/// Where a merged list's next item comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Only the live list has it.
    Live(usize),
    /// The applied list has it, the live one perhaps too.
    Applied(usize),
}

/// The order of a merged list: what both have in the applied order, what only one has beside its neighbours there.
fn order(live: &Indexed<'_>, applied: &Indexed<'_>) -> Vec<Place> {
    let mut shared = applied
        .items
        .iter()
        .filter(|(element, _)| live.place(element).is_some())
        .peekable();
    let mut out = Vec::new();
    let mut placed = vec![false; applied.items.len()];
    let (mut l, mut a) = (0, 0);
    while l < live.items.len() || a < applied.items.len() {
        let here = live.items.get(l).map(|(element, _)| element);
        let next = applied.items.get(a).map(|(element, _)| element);
        if let (Some(here), Some(next)) = (here, next) {
            if here == next {
                placed[a] = true;
                out.push(Place::Applied(a));
                (l, a) = (l + 1, a + 1);
                shared.next();
                continue;
            }
            // Shared, but another one of those is due: it stands where the applied list has it.
            let is_due = shared.peek().is_none_or(|(due, _)| due == here);
            if applied.place(here).is_some() && !is_due {
                l += 1;
                continue;
            }
        }
        if let Some(here) = here {
            match applied.place(here) {
                None => {
                    out.push(Place::Live(l));
                    l += 1;
                    continue;
                }
                Some(at) if placed[at] => l += 1,
                Some(_) => {}
            }
        }
        if let Some(next) = next {
            placed[a] = true;
            out.push(Place::Applied(a));
            a += 1;
            if shared.peek().is_some_and(|(due, _)| due == next) {
                shared.next();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::schema;

    fn pod() -> Node<'static> {
        Node::root(schema::by_gvk("", "v1", "Pod").unwrap())
    }

    #[test]
    fn lists_are_merged_in_the_applied_order() {
        let list = |letters: &str| Value::from(letters.chars().map(String::from).collect::<Vec<_>>());
        // As structured-merge-diff merges these sets: live, applied, merged; some hold a letter twice.
        for row in include_str!("../../tests/fixtures/merge-order.txt").lines() {
            let mut cells = row.split(' ');
            let [live, applied, expected] = [(); 3].map(|()| cells.next().unwrap());
            let of = |letters: &str| json!({"metadata": {"finalizers": list(letters)}});
            let merged = merge(pod(), &of(live), &of(applied)).unwrap();
            let items = merged["metadata"]["finalizers"].as_array();
            let shown: String = items.into_iter().flatten().filter_map(Value::as_str).collect();
            assert_eq!(shown, expected, "{live} {applied}");
        }
    }

    #[test]
    fn what_is_applied_wins_and_nothing_goes() {
        let live = json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"nodeSelector": {"x": "y"},
            "containers": [{"name": "c", "image": "i", "tty": true}]}});
        let applied = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"nodeSelector": {"z": "z"},
            "containers": [{"name": "c", "image": "j"}]}});
        let merged = merge(pod(), &live, &applied).unwrap();
        assert_eq!(
            merged,
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeSelector": {"z": "z"},
                "containers": [{"name": "c", "image": "j", "tty": true}]}})
        );
        let twice = json!({"spec": {"containers": [{"name": "c"}, {"name": "c"}]}});
        let error = merge(pod(), &live, &twice).unwrap_err();
        assert_eq!(error.to_string(), r#"duplicate entries for key [name="c"]"#);
        // Items that the live object has twice stay, until they are applied.
        let doubles =
            json!({"spec": {"containers": [{"name": "c", "image": "1"}, {"name": "c", "image": "2"}, {"name": "d"}]}});
        let none = merge(pod(), &doubles, &json!({"spec": {"hostNetwork": true}})).unwrap();
        assert_eq!(none["spec"]["containers"], doubles["spec"]["containers"]);
        let one = merge(
            pod(),
            &doubles,
            &json!({"spec": {"containers": [{"name": "c", "tty": true}]}}),
        )
        .unwrap();
        assert_eq!(
            one["spec"]["containers"],
            json!([{"name": "c", "tty": true}, {"name": "d"}])
        );
    }

    #[test]
    fn values_without_a_schema_are_merged_by_what_they_are() {
        let node = Node::root(schema::custom());
        let rows = [
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"c": 1}}),
                json!({"a": {"b": 1, "c": 1}}),
            ),
            (json!({"a": {"b": 1}}), json!({"a": 2}), json!({"a": 2})),
            (json!({"a": 2}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": [1]}), json!({"a": [2]}), json!({"a": [2]})),
            (json!({"a": {"b": 1}}), json!({"a": null}), json!({"a": {"b": 1}})),
            (json!({"a": 1}), json!({"a": null}), json!({"a": null})),
        ];
        for (live, applied, expected) in rows {
            assert_eq!(merge(node, &live, &applied).unwrap(), expected, "{live} {applied}");
        }
    }
}
