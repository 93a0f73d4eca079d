//! Strategic merge patch: a merge patch that knows, from the schema, which lists are merged and by which key.
//!
//! Directives: `$patch: replace|delete` in objects and list items, `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`,
//! `$retainKeys`. Semantics, oddities and texts are upstream's, since kubectl computes patches against them.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Node, What};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

const BAD_DELETE_FROM: &str = "invalid patch format of primitive list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_SET_ORDER: &str = "invalid patch format of setElementOrder list";
const LIST_OF_LISTS: &str = "lists of lists are not supported";

type Object = Map<String, Value>;

pub(super) fn apply(target: &mut Value, patch: &Value, ty: &Node) -> Result<(), PatchError> {
    if ty.open() || ty.is_custom() {
        return Err(PatchError::Malformed(
            "strategic merge patch format is not supported".into(),
        ));
    }
    let (Value::Object(original), Value::Object(patch)) = (&mut *target, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".into()));
    };
    let merged = merge_objects(std::mem::take(original), patch.clone(), Some(ty))?;
    *target = Value::Object(merged);
    Ok(())
}

fn field_of<'s>(ty: Option<&'s Node>, name: &str) -> Option<&'s Field> {
    ty.and_then(|ty| ty.field(name))
}

fn merge_objects(mut original: Object, mut patch: Object, ty: Option<&Node>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_patch_type(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    apply_orders(&mut original, &mut patch, ty)?;

    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            let list = list.strip_prefix('/').ok_or_else(|| malformed(BAD_DELETE_FROM))?;
            delete_from(&mut original, list, value, ty)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let field = field_of(ty, &key);
                if field.is_some_and(|field| field.patch_strategy.replace) {
                    Some(Value::Object(new))
                } else {
                    let inner = field.map(|field| &*field.schema);
                    Some(Value::Object(merge_objects(old, new, inner)?))
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => match field_of(ty, &key) {
                Some(field) if field.patch_strategy.merge => Some(Value::Array(merge_lists(old, new, field)?.0)),
                // An atomic list is taken as it is, directives and all.
                _ => Some(Value::Array(new)),
            },
            (_, new) => plain(new),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// A value that has nothing to merge with: without directives and nulls.
fn plain(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .filter_map(|(key, value)| plain(value).map(|value| (key, value)))
                .collect(),
        )),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(plain).collect())),
        other => Some(other),
    }
}

/// `$retainKeys: [a, b]`: the other keys of the object go.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(malformed(BAD_RETAIN_KEYS));
    };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_retained = |key: &str| retained.contains(key);
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !is_retained(key) {
            return Err(malformed(BAD_RETAIN_KEYS));
        }
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

fn delete_from(original: &mut Object, list: &str, value: Value, ty: Option<&Node>) -> Result<(), PatchError> {
    match (original.get_mut(list), value) {
        (None, _) => {}
        (Some(_), Value::Null) => {
            original.remove(list);
        }
        (Some(Value::Array(current)), Value::Array(gone)) => {
            let field = list_field(ty, list)?;
            if are_objects(current, &gone)? {
                // Upstream takes it for a patch of the list then.
                (*current, _) = merge_object_lists(std::mem::take(current), gone, field)?;
                return Ok(());
            }
            let gone: HashSet<Value> = gone.into_iter().collect();
            current.retain(|item| !gone.contains(item));
        }
        _ => {}
    }
    Ok(())
}

/// `$setElementOrder/LIST` together with the patch of that list: merged, then ordered.
fn apply_orders(original: &mut Object, patch: &mut Object, ty: Option<&Node>) -> Result<(), PatchError> {
    let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for key in keys {
        let Some(order) = patch.remove(&key) else { continue };
        let Value::Array(order) = order else {
            return Err(bad_argument("slice", &order));
        };
        let list = key[SET_ORDER.len()..]
            .strip_prefix('/')
            .ok_or_else(|| malformed(BAD_SET_ORDER))?;
        let old = take_list(original, list)?;
        let new = take_list(patch, list)?;
        let field = list_field(ty, list)?;
        let merge_key = field.merge_key();
        check_order(new.as_deref().unwrap_or_default(), &order, merge_key)?;
        let mut server_order = old.clone().unwrap_or_default();
        let objects = are_objects(&server_order, new.as_deref().unwrap_or_default())?;
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(plain).collect(),
            (Some(old), Some(new)) if field.patch_strategy.merge => {
                let (merged, order) = merge_lists(old, new, field)?;
                server_order = order;
                merged
            }
            (Some(_), Some(new)) => new,
        };
        if objects {
            have_keys(merged.iter().chain(&order), merge_key)?;
        }
        let ordered = arrange(merged, &order, &server_order, merge_key)?;
        original.insert(list.to_string(), Value::Array(ordered));
    }
    Ok(())
}

/// The field that a directive for a list names.
fn list_field<'s>(ty: Option<&'s Node>, list: &str) -> Result<&'s Field, PatchError> {
    let Some(ty) = ty.filter(|ty| ty.as_object().is_some()) else {
        let why = "merging an object in json but data type is not struct, instead is: map";
        return Err(PatchError::Other(why.into()));
    };
    let field = ty.field(list).ok_or_else(|| {
        let name = ty.go_name().rsplit('.').next().unwrap_or_default();
        PatchError::Other(format!(
            "unable to find api field in struct {name} for the json field {list:?}"
        ))
    })?;
    match field.schema.what {
        What::List(_) => Ok(field),
        _ => Err(PatchError::Other(
            "expected slice or array type, but got: struct".into(),
        )),
    }
}

/// Whether the items are objects: all of them are, or none is.
fn are_objects(original: &[Value], patch: &[Value]) -> Result<bool, PatchError> {
    let Some(first) = original.first().or(patch.first()) else {
        return Ok(false);
    };
    if first.is_array() {
        return Err(PatchError::Unprocessable(LIST_OF_LISTS.into()));
    }
    let own = std::mem::discriminant(first);
    if original
        .iter()
        .chain(patch)
        .any(|item| std::mem::discriminant(item) != own)
    {
        return Err(PatchError::Other(format!(
            "list element types are not identical: [{} {}]",
            go_list(original),
            go_list(patch)
        )));
    }
    Ok(first.is_object())
}

fn have_keys<'v>(mut items: impl Iterator<Item = &'v Value>, merge_key: &str) -> Result<(), PatchError> {
    items.try_for_each(|item| match item {
        Value::Object(map) if map.contains_key(merge_key) => Ok(()),
        Value::Object(map) => Err(no_merge_key(map, merge_key)),
        other => Err(bad_argument("map", other)),
    })
}

fn take_list(map: &mut Object, key: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match map.remove(key) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        // A list that upstream prints as null is an empty one.
        Some(Value::Null) => Ok(None),
        Some(other) => Err(bad_argument("slice", &other)),
    }
}

/// The items of a patch must come in the order they are to be set to.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in patch {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        let wanted = identity(item, merge_key)?;
        let mut found = false;
        for candidate in rest.by_ref() {
            if identity(candidate, merge_key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            return Err(PatchError::Other(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                go_list(patch),
                go_list(order)
            )));
        }
    }
    Ok(())
}

/// What tells an item apart: the value of its merge key, or itself.
fn identity<'v>(item: &'v Value, merge_key: &str) -> Result<&'v Value, PatchError> {
    if merge_key.is_empty() {
        return Ok(item);
    }
    match item {
        Value::Object(map) => map.get(merge_key).ok_or_else(|| no_merge_key(map, merge_key)),
        other => Err(bad_argument("map", other)),
    }
}

/// The merged list, and the order of the live list as upstream then knows it.
fn merge_lists(original: Vec<Value>, patch: Vec<Value>, field: &Field) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    if are_objects(&original, &patch)? {
        return merge_object_lists(original, patch, field);
    }
    let server_order = original.clone();
    let mut seen = HashSet::new();
    let all = original.into_iter().chain(patch.iter().cloned());
    let merged = all.filter(|item| seen.insert(item.clone())).collect();
    let ordered = arrange(merged, &patch, &server_order, "")?;
    Ok((ordered, server_order))
}

fn merge_object_lists(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: &Field,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let merge_key = field.merge_key();
    if merge_key.is_empty() {
        return Err(PatchError::Other(format!(
            "cannot merge lists without merge key for {}",
            field.schema.element().go_name()
        )));
    }
    let directives = Directives::read(patch, merge_key)?;
    // Upstream deletes and adds in the array that the live list lies in, so that what is added takes the places of what
    // is deleted, also in the order that `$setElementOrder` goes by afterwards. kubectl's users see that order.
    let (mut items, deleted) = without(original, &directives.deleted, merge_key);
    let mut server_order: Vec<Value> = items.iter().cloned().chain(deleted.into_iter().rev()).collect();
    if directives.replace {
        let items = directives.items.into_iter().map(Value::Object).filter_map(plain);
        return Ok((items.collect(), server_order));
    }
    let kept = items.clone();
    let mut places: HashMap<Value, usize> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        if let Some(key) = item.get(merge_key) {
            places.entry(key.clone()).or_insert(place);
        }
    }
    let mut order = Vec::with_capacity(directives.items.len());
    let inner = Some(field.schema.element());
    for map in directives.items {
        let wanted = map.get(merge_key).ok_or_else(|| no_merge_key(&map, merge_key))?.clone();
        let mut key = Object::new();
        key.insert(merge_key.to_string(), wanted.clone());
        order.push(Value::Object(key.clone()));
        match places.get(&wanted).map(|&place| &mut items[place]) {
            Some(Value::Object(old)) => {
                let merged = merge_objects(std::mem::take(old), map, inner)?;
                *old = merged;
            }
            _ => {
                if let Some(place) = server_order.get_mut(items.len()) {
                    *place = Value::Object(key);
                }
                let place = items.len();
                items.extend(plain(Value::Object(map)));
                if !wanted.is_null() {
                    places.insert(wanted, place);
                } else if let Some(Value::Object(added)) = items.get_mut(place) {
                    // None: told as a field that is missing, not as a patch that is wrong.
                    added.insert(merge_key.to_string(), wanted);
                }
            }
        }
    }
    let ordered = arrange(items, &order, &kept, merge_key)?;
    Ok((ordered, server_order))
}

/// What the items of a list's patch say.
#[derive(Default)]
struct Directives {
    /// To be merged or added.
    items: Vec<Object>,
    /// The merge keys of those to be deleted, in order.
    deleted: Vec<Value>,
    /// The list is to be these items alone.
    replace: bool,
}

impl Directives {
    fn read(patch: Vec<Value>, merge_key: &str) -> Result<Directives, PatchError> {
        let mut read = Directives::default();
        for item in patch {
            let Value::Object(map) = item else { continue };
            match map.get(DIRECTIVE) {
                None => read.items.push(map),
                Some(Value::String(word)) if word == "delete" => {
                    let gone = map.get(merge_key).ok_or_else(|| no_merge_key(&map, merge_key))?;
                    read.deleted.push(gone.clone());
                }
                Some(Value::String(word)) if word == "replace" => read.replace = true,
                Some(Value::String(word)) if word == "merge" => {
                    return Err(PatchError::Other(
                        "merging lists cannot yet be specified in the patch".into(),
                    ));
                }
                Some(other) => return Err(bad_patch_type(other, &map)),
            }
        }
        Ok(read)
    }
}

/// The items that stay, and those that go in the order in which their keys are named.
fn without(items: Vec<Value>, gone: &[Value], merge_key: &str) -> (Vec<Value>, Vec<Value>) {
    let mut turns: HashMap<&Value, usize> = HashMap::new();
    for (turn, key) in gone.iter().enumerate() {
        turns.entry(key).or_insert(turn);
    }
    let turn = |item: &Value| item.get(merge_key).and_then(|key| turns.get(key)).copied();
    let (mut deleted, kept): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|item| turn(item).is_some());
    deleted.sort_by_key(turn);
    (kept, deleted)
}

/// Where in a list an item is first to be found, by what tells it apart.
fn places<'v>(list: &'v [Value], merge_key: &str) -> HashMap<&'v Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (place, item) in list.iter().enumerate() {
        if let Ok(key) = identity(item, merge_key) {
            places.entry(key).or_insert(place);
        }
    }
    places
}

/// Upstream's order: items of `order` as it has them, the others in that of the live list, interleaved as the live list has
/// them.
fn arrange(
    items: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>, PatchError> {
    let (in_order, on_server) = (places(order, merge_key), places(server_order, merge_key));
    let (mut patched, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let key = identity(&item, merge_key)?;
        let server = on_server.get(key).copied();
        match in_order.get(key).copied() {
            Some(place) => patched.push((place, server, item)),
            None => others.push((server, item)),
        }
    }
    patched.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(server, _)| server.unwrap_or(usize::MAX));

    let mut all = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    while let (Some((left, _)), Some((_, right, _))) = (others.peek(), patched.peek()) {
        let before = left.zip(*right).is_some_and(|(left, right)| left < right);
        all.extend(if before {
            others.next().map(|(_, item)| item)
        } else {
            patched.next().map(|(.., item)| item)
        });
    }
    all.extend(others.map(|(_, item)| item));
    all.extend(patched.map(|(.., item)| item));
    Ok(all)
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.into())
}

fn no_merge_key(map: &Object, key: &str) -> PatchError {
    PatchError::Other(format!(
        "map: {} does not contain declared merge key: {key}",
        go_object(map)
    ))
}

fn bad_patch_type(directive: &Value, map: &Object) -> PatchError {
    let mut map = map.clone();
    map.insert(DIRECTIVE.into(), directive.clone());
    PatchError::Other(format!(
        "unknown patch type: {} in map: {}",
        go_text(directive),
        go_object(&map)
    ))
}

fn bad_argument(expected: &str, actual: &Value) -> PatchError {
    let actual = match actual {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    };
    PatchError::Other(format!("expected a {expected}, but received a {actual}"))
}

/// As Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => go_list(items),
        Value::Object(map) => go_object(map),
        other => other.to_string(),
    }
}

fn go_list(items: &[Value]) -> String {
    let items: Vec<String> = items.iter().map(go_text).collect();
    format!("[{}]", items.join(" "))
}

fn go_object(map: &Object) -> String {
    let entries: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}:{}", go_text(value)))
        .collect();
    format!("map[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::schema::by_gvk;

    fn patched(mut target: Value, patch: Value) -> Result<Value, PatchError> {
        apply(&mut target, &patch, by_gvk("", "v1", "Pod").unwrap()).map(|()| target)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn directives_and_merge_keys() {
        let container = |name: &str| json!({"name": name, "image": "i"});
        let cases = [
            (
                "items merge by key, new ones are added",
                json!({"spec": {"containers": [container("a"), container("b")]}}),
                json!({"spec": {"containers": [{"name": "b", "image": "j"}, {"name": "c"}]}}),
                json!({"spec": {"containers": [container("a"), {"name": "b", "image": "j"}, {"name": "c"}]}}),
            ),
            (
                "an item goes",
                json!({"spec": {"containers": [container("a"), container("b")]}}),
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                json!({"spec": {"containers": [container("b")]}}),
            ),
            (
                "a list is replaced",
                json!({"spec": {"containers": [container("a"), container("b")]}}),
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
                json!({"spec": {"containers": [{"name": "c"}]}}),
            ),
            (
                "an object is replaced",
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
                json!({"metadata": {"labels": {"b": "2"}}}),
            ),
            (
                "order is set; what only the server has stays before what followed it",
                json!({"spec": {"containers": [container("a"), container("s"), container("b")]}}),
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
                json!({"spec": {"containers": [container("s"), container("b"), container("a")]}}),
            ),
            (
                "a null removes, labels merge",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
                json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
            ),
            (
                "scalars merge as a set, and leave by a parallel list",
                json!({"metadata": {"finalizers": ["a/a", "b/b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"], "finalizers": ["c/c"]}}),
                json!({"metadata": {"finalizers": ["c/c", "b/b"]}}),
            ),
            (
                "retained keys: another volume source takes the place of the old one",
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
                json!({"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
            ),
            (
                "what is added takes the place of what is deleted",
                json!({"spec": {"containers": [container("b"), container("e"), container("c"), container("a")]}}),
                json!({"spec": {"$setElementOrder/containers": [{"name": "d"}],
                    "containers": [{"name": "d"}, {"$patch": "delete", "name": "a"}, {"$patch": "delete", "name": "e"}]}}),
                json!({"spec": {"containers": [container("b"), container("c"), {"name": "d"}]}}),
            ),
            (
                "a key that is null is missing",
                json!({"spec": {"containers": [container("a")]}}),
                json!({"spec": {"containers": [{"name": null, "image": "z"}]}}),
                json!({"spec": {"containers": [{"name": null, "image": "z"}, container("a")]}}),
            ),
            (
                "an atomic list is taken as it is",
                json!({"spec": {"tolerations": [{"key": "a"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
            ),
        ];
        for (name, target, patch, expected) in cases {
            assert_eq!(patched(target, patch).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn refusals_in_upstreams_words() {
        let cases = [
            (
                json!({"spec": {"containers": [{"image": "i"}]}}),
                PatchError::Other("map: map[image:i] does not contain declared merge key: name".into()),
            ),
            (
                json!({"spec": {"$patch": "merge"}}),
                PatchError::Other("unknown patch type: merge in map: map[$patch:merge]".into()),
            ),
            (
                json!({"spec": {"$retainKeys": ["a"], "b": 1}}),
                PatchError::Malformed(BAD_RETAIN_KEYS.into()),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": 3}}),
                PatchError::Other("expected a slice, but received a int64".into()),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": ["a"]}}),
                PatchError::Other("expected a map, but received a string".into()),
            ),
            (
                json!({"spec": {"$setElementOrder/tolerations": [{"key": "a"}]}}),
                PatchError::Other("map: map[key:a] does not contain declared merge key: ".into()),
            ),
            (
                json!({"spec": {"$setElementOrder/zap": ["a"]}}),
                PatchError::Other("unable to find api field in struct PodSpec for the json field \"zap\"".into()),
            ),
            (
                json!({"spec": {"$setElementOrder/nodeName": ["a"]}}),
                PatchError::Other("expected slice or array type, but got: struct".into()),
            ),
            (
                json!({"metadata": {"labels": {"$setElementOrder/a": ["a"]}}}),
                PatchError::Other("merging an object in json but data type is not struct, instead is: map".into()),
            ),
            (
                json!({"spec": {"$deleteFromPrimitiveList/containers": ["a"]}}),
                PatchError::Other("list element types are not identical: [[map[name:a]] [a]]".into()),
            ),
            (
                json!({"spec": {"containers": [["a"]]}}),
                PatchError::Other("list element types are not identical: [[map[name:a]] [[a]]]".into()),
            ),
        ];
        for (patch, expected) in cases {
            let target = json!({"metadata": {"labels": {}},
                "spec": {"containers": [{"name": "a"}], "tolerations": [{"key": "a"}]}});
            assert_eq!(patched(target, patch), Err(expected));
        }
    }
}
