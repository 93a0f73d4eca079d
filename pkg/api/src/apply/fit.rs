//! What clients say of managers, in the terms of the types that they name: who claims parts of what is one leaf there has all
//! of it.

use super::element::Element;
use super::managed::Managed;
use super::node::{Items, Kind, Node};
use super::set::{self, Set};
use super::update::Versions;

/// The managers, each with the leaves of its own version.
pub fn fit(managed: &Managed, versions: &dyn Versions) -> Managed {
    let entries = managed.entries().iter().map(|entry| {
        let node = versions.node(&entry.owner().api_version);
        node.map_or_else(|| entry.clone(), |node| entry.with(&fitted(entry.set(), node)))
    });
    Managed::of(entries.collect())
}

fn fitted(set: Set, node: Node<'_>) -> Set {
    let own = set.into_nodes().map(|own| {
        let child = match &own.element {
            Element::Field(name) => node.child(name),
            _ => Some(node.item()),
        };
        match child {
            Some(child) if !own.below.is_empty() && is_leaf(child) => set::Node::leaf(own.element),
            Some(child) => set::Node {
                below: fitted(own.below, child),
                ..own
            },
            None => own,
        }
    });
    Set::of(own.collect())
}

fn is_leaf(node: Node<'_>) -> bool {
    match node.kind() {
        Kind::Map => node.is_atomic(),
        Kind::List => node.items() == Items::Atomic,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fields_v1;
    use super::*;
    use crate::schema::custom;

    #[test]
    fn what_is_one_leaf_is_had_as_one() {
        let object = |extra: serde_json::Value| {
            let mut own = json!({"type": "object", "properties": {"x": {"type": "string"}}});
            own.as_object_mut()
                .into_iter()
                .zip(extra.as_object())
                .for_each(|(own, extra)| own.extend(extra.clone()));
            own
        };
        let atomic = object(json!({"x-kubernetes-map-type": "atomic"}));
        let map = json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]});
        let list = |extra: &serde_json::Value| {
            let item =
                json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "o": atomic}});
            let mut own = json!({"type": "array", "items": item});
            own.as_object_mut()
                .into_iter()
                .zip(extra.as_object())
                .for_each(|(own, extra)| own.extend(extra.clone()));
            own
        };
        let schema = custom::compile(&json!({"type": "object", "properties": {
            "o": object(json!({})), "a": atomic, "l": list(&json!({})), "m": list(&map)}}));
        let schema = schema.expect("a schema");
        for (said, has) in [
            (r#"{"f:o":{"f:x":{}}}"#, r#"{"f:o":{"f:x":{}}}"#),
            (r#"{"f:a":{"f:x":{}}}"#, r#"{"f:a":{}}"#),
            (r#"{"f:l":{"k:{\"k\":\"b\"}":{".":{}}}}"#, r#"{"f:l":{}}"#),
            (
                r#"{"f:m":{"k:{\"k\":\"b\"}":{".":{},"f:o":{"f:x":{}}}}}"#,
                r#"{"f:m":{"k:{\"k\":\"b\"}":{".":{},"f:o":{}}}}"#,
            ),
            (r#"{"f:none":{"f:x":{}}}"#, r#"{"f:none":{"f:x":{}}}"#),
        ] {
            let set = fields_v1::parse(said).expect("fields");
            assert_eq!(fields_v1::print(&fitted(set, Node::root(&schema))), has);
        }
    }
}
