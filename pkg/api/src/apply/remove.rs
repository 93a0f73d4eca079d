//! An object without some of its fields and items; and the sets that say which.

use serde_json::{Map, Value};

use super::items;
use super::node::{Items, Kind, Node};
use super::set::{self, Set};

/// An object without what a set names. What had something below it taken away, and is empty by that, is gone too.
pub fn remove(node: Node<'_>, object: &Value, items: &Set) -> Value {
    if items.is_empty() {
        return object.clone();
    }
    at(node, object, items)
}

fn at(node: Node<'_>, value: &Value, set: &Set) -> Value {
    match (node.kind(), value) {
        (Kind::Scalar(_), _) => value.clone(),
        (Kind::Deduced, Value::Object(_)) => fields(node, value, set),
        (Kind::Deduced | Kind::Untyped, Value::Object(_) | Value::Array(_) | Value::Null) => Value::Null,
        (Kind::Deduced | Kind::Untyped, _) => value.clone(),
        // What is below a leaf cannot be taken away alone.
        (Kind::Map, _) if node.is_atomic() => Value::Null,
        (Kind::Map, _) => fields(node, value, set),
        (Kind::List, _) if node.items() == Items::Atomic => Value::Null,
        (Kind::List, _) => list(node, value, set),
    }
}

fn fields(node: Node<'_>, value: &Value, set: &Set) -> Value {
    let mut out = Map::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let kept = match (set.field(key), node.child(key)) {
            (Some(named), _) if named.member => continue,
            (Some(named), Some(child)) if !named.below.is_empty() => at(child, value, &named.below),
            _ => value.clone(),
        };
        out.insert(key.clone(), kept);
    }
    if out.is_empty() {
        Value::Null
    } else {
        Value::Object(out)
    }
}

fn list(node: Node<'_>, value: &Value, set: &Set) -> Value {
    let mut out = Vec::new();
    for item in value.as_array().into_iter().flatten() {
        let element = items::element(node, item).ok();
        let kept = match element.and_then(|element| set.get(&element)) {
            Some(named) if named.member => continue,
            Some(named) if !named.below.is_empty() => at(node.item(), item, &named.below),
            _ => item.clone(),
        };
        out.push(kept);
    }
    if out.is_empty() { Value::Null } else { Value::Array(out) }
}

/// A set with the fields that its paths lead through, as far as the schema names them.
pub fn with_named_fields(node: Option<Node<'_>>, set: &Set) -> Set {
    let mut out = Set::default();
    for own in set.nodes() {
        let (named, child) = match (&own.element, node.map(|node| (node, node.kind()))) {
            (super::Element::Field(key), Some((node, Kind::Map | Kind::Deduced))) => (node.names(key), node.child(key)),
            (super::Element::Key(_), Some((node, Kind::List))) => (false, Some(node.item())),
            _ => (false, None),
        };
        out.push(set::Node {
            element: own.element.clone(),
            member: own.member || (named && !own.below.is_empty()),
            below: with_named_fields(child, &own.below),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::fields_v1;
    use super::*;
    use crate::schema;

    #[test]
    fn fields_and_items_go() {
        let node = Node::root(schema::by_gvk("", "v1", "Pod").unwrap());
        let pod = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x", "y"]}, "spec": {"hostNetwork": true,
            "containers": [{"name": "c", "image": "i"}, {"name": "d"}]}});
        let set = fields_v1::parse(
            r#"{"f:metadata":{"f:labels":{"f:a":{}},"f:finalizers":{"v:\"y\"":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:image":{}},"k:{\"name\":\"d\"}":{".":{},"f:name":{}}}}}"#,
        );
        assert_eq!(
            remove(node, &pod, &set.unwrap()),
            json!({"metadata": {"labels": null, "finalizers": ["x"]}, "spec": {"hostNetwork": true,
                "containers": [{"name": "c"}]}})
        );
    }

    #[test]
    fn named_fields_are_those_of_structs() {
        let node = Node::root(schema::by_gvk("", "v1", "Pod").unwrap());
        let set = fields_v1::parse(
            r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:resources":{"f:limits":{"f:cpu":{}}}}}}}"#,
        );
        assert_eq!(
            fields_v1::print(&with_named_fields(Some(node), &set.unwrap())),
            r#"{"f:metadata":{".":{},"f:labels":{".":{},"f:a":{}}},"f:spec":{".":{},"f:containers":{".":{},"k:{\"name\":\"c\"}":{"f:resources":{".":{},"f:limits":{".":{},"f:cpu":{}}}}}}}"#
        );
    }
}
