//! The items of a list that has identities: which path element each of them is.

use serde_json::Value;

use super::element::Element;
use super::node::{Items, Node};

/// Why an item has no identity, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    #[error("associative list with keys may not have a null element")]
    NullInMap,
    #[error("associative list with keys may not have non-map elements")]
    NotAMap,
    #[error(
        "associative list with keys has an element that omits all key fields [{0}] (and doesn't have default values for any key fields)"
    )]
    NoKeys(String),
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
    #[error("invalid indexing of non-associative list")]
    Atomic,
}

/// The path element of an item. A key field that the item lacks has its default, or is no part of the element.
pub(super) fn element(list: Node<'_>, item: &Value) -> Result<Element, ItemError> {
    let keys = match list.items() {
        Items::Map(keys) => keys,
        Items::Set => return set_element(item),
        Items::Atomic => return Err(ItemError::Atomic),
    };
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err(ItemError::NullInMap),
        _ => return Err(ItemError::NotAMap),
    };
    let of = |key: &str| match fields.get(key) {
        Some(value) => Some(value.clone()),
        None => list.item().default_of(key),
    };
    let found = keys.iter().filter_map(|key| Some((Box::from(key), of(key)?)));
    let mut found: Vec<(Box<str>, Value)> = found.collect();
    if found.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(ItemError::NoKeys(quoted.join(" ")));
    }
    found.sort_by(|(one, _), (two, _)| one.cmp(two));
    Ok(Element::Key(found.into()))
}

fn set_element(item: &Value) -> Result<Element, ItemError> {
    match item {
        Value::Object(_) => Err(ItemError::MapInSet),
        Value::Array(_) => Err(ItemError::ListInSet),
        Value::Null => Err(ItemError::NullInSet),
        scalar => Ok(Element::Value(scalar.clone())),
    }
}

/// The items of a list with their elements, sorted by them; equal ones in the list's order.
pub(super) fn sorted<'a>(list: Node<'_>, items: &'a [Value]) -> Result<Vec<(Element, &'a Value)>, ItemError> {
    let elements = items.iter().map(|item| Ok((element(list, item)?, item)));
    let mut elements: Vec<_> = elements.collect::<Result<_, ItemError>>()?;
    if !elements.is_sorted_by(|(one, _), (two, _)| one <= two) {
        elements.sort_by(|(one, _), (two, _)| one.cmp(two));
    }
    Ok(elements)
}
