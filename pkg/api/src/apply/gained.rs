//! What a write makes its writer own of an object that nobody owned before, printed straight from the two states. A creation
//! is the write there is most of, and a set of its paths would be made only to be printed. The words are those that
//! `compare` and the printer of sets come to; what needs more than one look (an item twice, one without an identity) is
//! left to them.

use serde_json::{Map, Value};

use super::compare::fields_of;
use super::element::equal;
use super::fields_v1::{MEMBER, print_key};
use super::items;
use super::node::{Items, Kind, Node};
use super::set::Set;

/// Left to the general way.
pub(super) struct Undecided;

/// The canonical FieldsV1 of what a change adds or gives another value: without the paths in `exempt`, and without those in
/// `ignored` and all that is below them.
pub(super) fn print(
    node: Node<'_>,
    old: &Value,
    new: &Value,
    exempt: &Set,
    ignored: &Set,
) -> Result<String, Undecided> {
    let mut printer = Printer {
        text: String::with_capacity(2048),
        scratch: String::with_capacity(64),
    };
    let place = Place {
        node,
        old: Some(old),
        new,
        exempt: Some(exempt),
        ignored: Some(ignored),
    };
    printer.text.push('{');
    let (_, below) = place.look()?;
    printer.below(place, below)?;
    printer.text.push('}');
    Ok(printer.text)
}

/// One place in both states.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: Node<'a>,
    old: Option<&'a Value>,
    new: &'a Value,
    /// What lies below it in the two sets.
    exempt: Option<&'a Set>,
    ignored: Option<&'a Set>,
}

/// What a place has below it now.
enum Below<'a> {
    Nothing,
    Map(&'a Map<String, Value>),
    List(&'a [Value]),
}

impl<'a> Place<'a> {
    /// Whether the place itself is gained, and what may be below it.
    fn look(&self) -> Result<(bool, Below<'a>), Undecided> {
        let leaf = || (self.old.is_none_or(|old| !equal(old, self.new)), Below::Nothing);
        let is_new = self.old.is_none();
        let is_map = |value: &Value| value.is_object() || value.is_null();
        match self.node.kind() {
            Kind::Deduced if !is_map(self.new) => return Ok(leaf()),
            Kind::Deduced if !self.old.is_none_or(is_map) => return Err(Undecided),
            Kind::Map if self.node.is_atomic() => return Ok(leaf()),
            Kind::Deduced | Kind::Map => {}
            Kind::List if self.node.items() != Items::Atomic => {
                let items = |value: &'a Value| value.as_array().map_or(&[][..], Vec::as_slice);
                return match (self.old.map_or(&[][..], items), items(self.new)) {
                    ([], []) => Ok(leaf()),
                    ([], new) => Ok((is_new, Below::List(new))),
                    _ => Err(Undecided),
                };
            }
            _ => return Ok(leaf()),
        }
        match (fields_of(self.old), fields_of(Some(self.new))) {
            (None, None) => Ok(leaf()),
            (_, None) => Ok((is_new, Below::Nothing)),
            (_, Some(map)) => Ok((is_new, Below::Map(map))),
        }
    }
}

struct Printer {
    text: String,
    scratch: String,
}

impl Printer {
    fn below(&mut self, place: Place<'_>, below: Below<'_>) -> Result<(), Undecided> {
        match below {
            Below::Nothing => Ok(()),
            Below::Map(map) => self.fields(place, map),
            Below::List(items) => self.items(place, items),
        }
    }

    fn fields(&mut self, place: Place<'_>, map: &Map<String, Value>) -> Result<(), Undecided> {
        let old = fields_of(place.old);
        for (key, new) in map {
            // What the schema does not know is nobody's.
            let Some(node) = place.node.child(key) else { continue };
            let exempt = place.exempt.and_then(|set| set.field(key));
            let ignored = place.ignored.and_then(|set| set.field(key));
            if ignored.is_some_and(|node| node.member) {
                continue;
            }
            let child = Place {
                node,
                old: old.and_then(|old| old.get(key)),
                new,
                exempt: exempt.map(|node| &node.below),
                ignored: ignored.map(|node| &node.below),
            };
            self.scratch.clear();
            self.scratch.push_str("f:");
            self.scratch.push_str(key);
            self.step(child, exempt.is_some_and(|node| node.member))?;
        }
        Ok(())
    }

    fn items(&mut self, place: Place<'_>, items: &[Value]) -> Result<(), Undecided> {
        let sorted = items::sorted(place.node, items).map_err(|_| Undecided)?;
        if sorted.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(Undecided);
        }
        for (element, new) in &sorted {
            let item = Place {
                node: place.node.item(),
                old: None,
                new,
                // Neither set has a path through a list.
                exempt: None,
                ignored: None,
            };
            self.scratch.clear();
            element.print(&mut self.scratch);
            self.step(item, false)?;
        }
        Ok(())
    }

    /// The step whose words are in `scratch`, where it or something below it is gained.
    fn step(&mut self, place: Place<'_>, exempt: bool) -> Result<(), Undecided> {
        let (gained, below) = place.look()?;
        let gained = gained && !exempt;
        let before = self.text.len();
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        print_key(&self.scratch, &mut self.text);
        self.text.push('{');
        let inside = self.text.len();
        if gained {
            self.text.push_str(MEMBER);
        }
        let members = self.text.len();
        self.below(place, below)?;
        if self.text.len() > members {
            self.text.push('}');
        } else if gained {
            // Of a path with nothing below it nothing says that it is one.
            self.text.truncate(inside);
            self.text.push('}');
        } else {
            self.text.truncate(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::compare::compare;
    use super::super::fields_v1;
    use super::super::update::{SERVERS, strip};
    use super::*;
    use crate::schema;

    fn generally(node: Node<'_>, old: &Value, new: &Value, ignored: &Set) -> Option<String> {
        let change = compare(node, old, new).ok()?.without(ignored);
        Some(fields_v1::print(&strip(change.modified.joined(change.added))))
    }

    /// The states that differ from an object in one place, a few levels deep.
    fn without_one(object: &Value, each: &mut dyn FnMut(&Value)) {
        let paths: Vec<String> = paths(object, String::new(), 4);
        // Neighbours are alike.
        for path in paths.iter().step_by(9) {
            let (parent, key) = path.rsplit_once('/').unwrap();
            let mut changed = object.clone();
            match changed.pointer_mut(parent).unwrap() {
                Value::Object(map) => {
                    map.remove(&key.replace("~1", "/"));
                }
                Value::Array(items) => drop(items.remove(key.parse().unwrap())),
                _ => continue,
            }
            each(&changed);
            *changed.pointer_mut(parent).unwrap() = Value::Null;
            each(&changed);
        }
    }

    fn paths(value: &Value, path: String, depth: usize) -> Vec<String> {
        let mut all = Vec::new();
        let mut add = |key: &str, below: &Value| {
            let path = format!("{path}/{}", key.replace('/', "~1"));
            if depth > 0 {
                all.extend(paths(below, path.clone(), depth - 1));
            }
            all.push(path);
        };
        match value {
            Value::Object(map) => map.iter().for_each(|(key, below)| add(key, below)),
            Value::Array(items) => (0..items.len()).for_each(|at| add(&at.to_string(), &items[at])),
            _ => {}
        }
        all
    }

    #[test]
    fn every_kind_is_printed_as_the_set_would_be() {
        let ignored = [Set::default(), Set::of_fields(&[&["status"], &["metadata", "labels"]])];
        let (mut decided, mut left) = (0, 0);
        for line in include_str!("../../tests/fixtures/objects.tsv").lines() {
            let cells: Vec<&str> = line.split('\t').collect();
            let node = Node::root(schema::by_api_version(cells[0], cells[1]).unwrap());
            let object: Value = serde_json::from_str(cells[2]).unwrap();
            let empty = json!({"apiVersion": cells[0], "kind": cells[1], "metadata": {}, "spec": {}, "status": {}});
            let mut same = |old: &Value, new: &Value| {
                for ignored in &ignored {
                    match print(node, old, new, &SERVERS, ignored) {
                        Ok(text) => {
                            // What goes is not looked at here: what nobody could name of it is nobody's loss.
                            let Some(expected) = generally(node, old, new, ignored) else {
                                continue;
                            };
                            assert_eq!(text, expected, "{} of {old} and {new}", cells[1]);
                            decided += 1;
                        }
                        Err(Undecided) => left += 1,
                    }
                }
            };
            same(&empty, &object);
            assert!(
                print(node, &empty, &object, &SERVERS, &ignored[0]).is_ok(),
                "{}",
                cells[1]
            );
            without_one(&object, &mut |changed| {
                same(&empty, changed);
                same(changed, &object);
                same(&object, changed);
            });
        }
        assert!(decided > 1_000 && left > 100, "{decided} were decided, {left} left");
    }

    #[test]
    fn doubles_are_left_to_the_general_way() {
        let node = Node::root(schema::by_api_version("v1", "Pod").unwrap());
        let pod = |containers: Value| json!({"metadata": {}, "spec": {"containers": containers}});
        let none = Set::default();
        let new = pod(json!([{"name": "a\"b"}, {"name": "a\"b"}]));
        assert!(print(node, &pod(json!(null)), &new, &SERVERS, &none).is_err());
        let new = pod(json!([{"name": "a\"b"}, {"name": "c"}]));
        let text = print(node, &pod(json!(null)), &new, &SERVERS, &none);
        assert_eq!(text.ok(), generally(node, &pod(json!(null)), &new, &none));
    }
}
