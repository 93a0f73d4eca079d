//! The fields that an object states: what a manager owns who applies it.

use serde_json::Value;

use super::element::Element;
use super::items::{self, ItemError};
use super::node::{Items, Kind, Node};
use super::set::{self, Set};

/// The set of all leaves and items of an object.
///
/// # Errors
/// An item of a list has no identity.
pub fn fields_of(node: Node<'_>, object: &Value) -> Result<Set, ItemError> {
    Ok(at(node, object)?.0)
}

/// What lies below a place, and whether the place is a leaf.
fn at(node: Node<'_>, value: &Value) -> Result<(Set, bool), ItemError> {
    let leaf = (Set::default(), true);
    match node.kind() {
        Kind::Scalar(_) | Kind::Untyped => Ok(leaf),
        Kind::Deduced if !value.is_object() && !value.is_null() => Ok(leaf),
        Kind::Map if node.is_atomic() => Ok(leaf),
        Kind::Map | Kind::Deduced => Ok((fields(node, value)?, false)),
        Kind::List if node.items() == Items::Atomic => Ok(leaf),
        Kind::List => Ok((items(node, value)?, false)),
    }
}

fn fields(node: Node<'_>, value: &Value) -> Result<Set, ItemError> {
    let mut set = Set::default();
    for (key, value) in value.as_object().into_iter().flatten() {
        let Some(child) = node.child(key) else { continue };
        let (below, leaf) = at(child, value)?;
        // A field that the schema names is not owned for what is in it; an item of a map is.
        let holds_nothing = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        set.push(set::Node {
            element: Element::field(key),
            member: leaf || holds_nothing || !node.names(key),
            below,
        });
    }
    Ok(set)
}

fn items(node: Node<'_>, value: &Value) -> Result<Set, ItemError> {
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    let mut set = Set::default();
    let items = items::sorted(node, list)?;
    for same in items.chunk_by(|(one, _), (two, _)| one == two) {
        let (element, value) = &same[0];
        // Items of one identity are one leaf.
        let below = match same.len() {
            1 => at(node.item(), value)?.0,
            _ => Set::default(),
        };
        set.push(set::Node {
            element: element.clone(),
            member: true,
            below,
        });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::fields_v1;
    use super::*;
    use crate::schema;

    #[test]
    fn an_applied_object_owns_its_leaves_and_items() {
        let node = Node::root(schema::by_gvk("", "v1", "Service").unwrap());
        let service = json!({"apiVersion": "v1", "metadata": {"labels": {}, "annotations": {"b": "1", "a": "2"},
            "finalizers": ["x", "y"]}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 443}, {"port": 80, "name": "n"}],
            "externalIPs": ["1.2.3.4"], "clusterIP": null}});
        let set = fields_of(node, &service).unwrap();
        assert_eq!(
            fields_v1::print(&set),
            r#"{"f:apiVersion":{},"f:metadata":{"f:annotations":{"f:a":{},"f:b":{}},"f:finalizers":{"v:\"x\"":{},"v:\"y\"":{}},"f:labels":{}},"f:spec":{"f:clusterIP":{},"f:externalIPs":{},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{}},"k:{\"port\":443,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}},"f:selector":{}}}"#
        );
    }
}
