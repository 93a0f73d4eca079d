//! JSON patch (RFC 6902) as upstream applies it, whose library takes more than the standard does: `replace` of a field that
//! is not there adds it, what is missing equals null and is copied as such, indices may be signed or begin with zeros, and
//! what stands before a path's first slash counts for nothing.

use serde_json::{Map, Value};

use super::PatchError;
use super::bounds::Bounds;

/// Upstream's limit of operations in one patch.
const MAX_OPERATIONS: usize = 10_000;

/// A tree whose patch fails is to be thrown away: it holds what the operations before the failed one did.
///
/// # Errors
/// [`PatchError`], but `Other`.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(malformed());
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    if !operations.iter().all(|one| one.is_object() || one.is_null()) {
        return Err(malformed());
    }
    let mut bounds = Bounds::default();
    for operation in operations {
        // What is no operation is found out when it is its turn.
        let operation = operation.as_object().ok_or_else(|| missing("op"))?;
        apply(target, operation, &mut bounds)?;
    }
    Ok(())
}

fn malformed() -> PatchError {
    PatchError::Malformed("error decoding patch: a list of operations is wanted".into())
}

fn missing(place: &str) -> PatchError {
    PatchError::Unprocessable(format!("nothing is at {place:?}"))
}

fn apply(target: &mut Value, operation: &Map<String, Value>, bounds: &mut Bounds) -> Result<(), PatchError> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).ok_or_else(|| missing(key));
    let value = || operation.get("value").unwrap_or(&Value::Null);
    match text("op")? {
        "add" => {
            let path = text("path")?;
            bounds.place(path, value())?;
            add(target, path, value().clone(), bounds)
        }
        "remove" => remove(target, text("path")?, bounds).map(drop),
        "replace" => {
            let path = text("path")?;
            bounds.place(path, value())?;
            replace(target, path, value().clone())
        }
        "move" => {
            let (from, path) = (text("from")?, text("path")?);
            let taken = remove(target, from, bounds)?;
            bounds.r#move(from, path, &taken)?;
            add(target, path, taken, bounds)
        }
        "copy" => {
            let (from, path) = (text("from")?, text("path")?);
            let found = get(target, from)?.unwrap_or(&Value::Null);
            bounds.copy(path, found)?;
            let found = found.clone();
            add(target, path, found, bounds)
        }
        "test" => {
            let path = text("path")?;
            let found = match path {
                "" => Some(&*target),
                _ => get(target, path)?,
            };
            match found.unwrap_or(&Value::Null) == value() {
                true => Ok(()),
                false => Err(PatchError::Unprocessable(format!(
                    "testing value {path} failed: test failed"
                ))),
            }
        }
        other => Err(PatchError::Unprocessable(format!("Unexpected kind: {other}"))),
    }
}

/// A path's keys but the last, and the last. The first slash and what stands before it is none of them.
fn split(path: &str) -> Result<(impl Iterator<Item = String>, String), PatchError> {
    let (_, keys) = path.split_once('/').ok_or_else(|| missing(path))?;
    let (within, last) = keys
        .rsplit_once('/')
        .map_or((None, keys), |(within, last)| (Some(within), last));
    Ok((
        within.into_iter().flat_map(|keys| keys.split('/')).map(unescaped),
        unescaped(last),
    ))
}

/// Whether an operation names a place, what lies in it, or what it lies in.
pub fn reaches(patch: &Value, place: &[&str]) -> bool {
    let operations = patch.as_array().into_iter().flatten();
    let mut paths = operations.flat_map(|operation| ["path", "from"].map(|key| operation.get(key)?.as_str()));
    paths.any(|path| match path.map(|path| path.split_once('/').ok_or(path)) {
        None => false,
        Some(Err(path)) => path.is_empty(),
        Some(Ok((_, keys))) => keys.split('/').map(unescaped).zip(place).all(|(key, own)| key == *own),
    })
}

fn unescaped(key: &str) -> String {
    // In this order, so that "~01" is "~1".
    key.replace("~1", "/").replace("~0", "~")
}

/// The place that a key names in an array of so many items, of which negative ones count from the end.
fn index(key: &str, items: usize) -> Option<usize> {
    let index: isize = key.parse().ok()?;
    let index = match index < 0 {
        true => items.checked_sub(index.unsigned_abs())?,
        false => index.unsigned_abs(),
    };
    (index < items).then_some(index)
}

fn child<'a>(within: &'a Value, key: &str) -> Option<&'a Value> {
    match within {
        Value::Object(fields) => fields.get(key),
        Value::Array(items) => items.get(index(key, items.len())?),
        _ => None,
    }
}

/// What stands at a path: None in an object that lacks its last key, which is no error.
fn get<'a>(target: &'a Value, path: &str) -> Result<Option<&'a Value>, PatchError> {
    let (mut keys, last) = split(path)?;
    let within = keys.try_fold(target, |within, key| child(within, &key));
    match within.ok_or_else(|| missing(path))? {
        Value::Object(fields) => Ok(fields.get(&last)),
        within => child(within, &last).map(Some).ok_or_else(|| missing(path)),
    }
}

/// The object or array that a path ends in, and its last key there.
fn container<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), PatchError> {
    let (mut keys, last) = split(path)?;
    let within = keys.try_fold(target, |within, key| match within {
        Value::Object(fields) => fields.get_mut(&key),
        Value::Array(items) => {
            let index = index(&key, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    });
    Ok((within.ok_or_else(|| missing(path))?, last))
}

fn add(target: &mut Value, path: &str, value: Value, bounds: &mut Bounds) -> Result<(), PatchError> {
    match container(target, path)? {
        (Value::Object(fields), key) => _ = fields.insert(key, value),
        (Value::Array(items), key) if key == "-" => items.push(value),
        (Value::Array(items), key) => {
            let index = index(&key, items.len() + 1).ok_or_else(|| missing(path))?;
            bounds.shift(path, items.len() - index)?;
            items.insert(index, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str, bounds: &mut Bounds) -> Result<Value, PatchError> {
    match container(target, path)? {
        (Value::Object(fields), key) => fields.remove(&key).ok_or_else(|| missing(path)),
        (Value::Array(items), key) => {
            let index = index(&key, items.len()).ok_or_else(|| missing(path))?;
            bounds.shift(path, items.len() - index)?;
            Ok(items.remove(index))
        }
        _ => Err(missing(path)),
    }
}

fn replace(target: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            let text = "replace operation value must be object or array";
            return Err(PatchError::Unprocessable(text.into()));
        }
        *target = value;
        return Ok(());
    }
    match container(target, path)? {
        (Value::Object(fields), key) => _ = fields.insert(key, value),
        (Value::Array(items), key) => {
            let index = index(&key, items.len()).ok_or_else(|| missing(path))?;
            items[index] = value;
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn patched(patch: Value) -> Result<Value, PatchError> {
        let mut target = json!({"a": {"b": 1, "n": null}, "l": ["x", "y"]});
        json(&mut target, &Value::Array(vec![patch]))?;
        Ok(target)
    }

    #[test]
    fn as_the_standard_has_it() {
        let cases = [
            (
                json!({"op": "add", "path": "/a/c", "value": 2}),
                "/a",
                json!({"b": 1, "n": null, "c": 2}),
            ),
            (
                json!({"op": "add", "path": "/l/1", "value": "z"}),
                "/l",
                json!(["x", "z", "y"]),
            ),
            (
                json!({"op": "add", "path": "/l/-", "value": "z"}),
                "/l",
                json!(["x", "y", "z"]),
            ),
            (json!({"op": "remove", "path": "/l/0"}), "/l", json!(["y"])),
            (
                json!({"op": "replace", "path": "/l/1", "value": {}}),
                "/l",
                json!(["x", {}]),
            ),
            (
                json!({"op": "move", "from": "/a/b", "path": "/l/0"}),
                "/l",
                json!([1, "x", "y"]),
            ),
            (
                json!({"op": "copy", "from": "/l", "path": "/a/l"}),
                "/a/l",
                json!(["x", "y"]),
            ),
            (json!({"op": "test", "path": "/a/b", "value": 1}), "/a/b", json!(1)),
            (json!({"op": "add", "path": "/~01~1", "value": 2}), "/~01~1", json!(2)),
        ];
        for (patch, place, expected) in cases {
            let target = patched(patch.clone()).unwrap();
            assert_eq!(target.pointer(place), Some(&expected), "{patch}");
        }
    }

    #[test]
    fn a_path_says_what_it_reaches() {
        let reaches = |operation: Value| reaches(&json!([{"op": "test", "path": "/other"}, operation]), &["a", "b/c"]);
        for path in ["", "/a", "x/a", "/a/b~1c", "x/a/b~1c/0"] {
            assert!(reaches(json!({"op": "test", "path": path})), "{path}");
            assert!(reaches(json!({"op": "copy", "path": "/x", "from": path})), "{path}");
        }
        for path in ["a", "/a/b", "/ab", "/x/a", "//a", "/a/b~1c2"] {
            assert!(!reaches(json!({"op": "test", "path": path})), "{path}");
        }
        assert!(!reaches(json!(1)));
    }

    /// All asked of v1.35.4.
    #[test]
    fn what_upstream_takes_beside_it() {
        let cases = [
            (
                json!({"op": "replace", "path": "/a/new", "value": 2}),
                "/a/new",
                json!(2),
            ),
            (json!({"op": "replace", "path": "/a/b"}), "/a/b", json!(null)),
            (json!({"op": "add", "path": "/a/b"}), "/a/b", json!(null)),
            (
                json!({"op": "copy", "from": "/a/none", "path": "/a/b"}),
                "/a/b",
                json!(null),
            ),
            (
                json!({"op": "test", "path": "/a/none", "value": null}),
                "/a/b",
                json!(1),
            ),
            (json!({"op": "test", "path": "/a/none"}), "/a/b", json!(1)),
            (json!({"op": "add", "path": "what/a/b", "value": 2}), "/a/b", json!(2)),
            (json!({"op": "remove", "path": "/l/-1"}), "/l", json!(["x"])),
            (json!({"op": "remove", "path": "/l/+0"}), "/l", json!(["y"])),
            (
                json!({"op": "add", "path": "/l/-1", "value": "z"}),
                "/l",
                json!(["x", "y", "z"]),
            ),
            (
                json!({"op": "replace", "path": "/l/01", "value": "z"}),
                "/l",
                json!(["x", "z"]),
            ),
            (
                json!({"op": "move", "from": "/l/-1", "path": "/l/0"}),
                "/l",
                json!(["y", "x"]),
            ),
            (json!({"op": "add", "path": "/a~2", "value": 2}), "/a~2", json!(2)),
        ];
        for (patch, place, expected) in cases {
            let target = patched(patch.clone()).unwrap();
            // A tilde that escapes nothing is no pointer of the standard's.
            let found = target.pointer(place).or_else(|| target.get(&place[1..]));
            assert_eq!(found, Some(&expected), "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit() {
        let cases = [
            json!(null),
            json!({"path": "/a"}),
            json!({"op": "foo", "path": "/a"}),
            json!({"op": "add", "value": 1}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "add", "path": "a", "value": 1}),
            json!({"op": "add", "path": "/a/b/c", "value": 1}),
            json!({"op": "add", "path": "/a/n/c", "value": 1}),
            json!({"op": "add", "path": "/l/3", "value": 1}),
            json!({"op": "add", "path": "/l/x", "value": 1}),
            json!({"op": "remove", "path": "/a/none"}),
            json!({"op": "remove", "path": "/l/2"}),
            json!({"op": "remove", "path": "/l/-3"}),
            json!({"op": "replace", "path": "", "value": null}),
            json!({"op": "replace", "path": "/l/-", "value": 1}),
            json!({"op": "replace", "path": "/none/b", "value": 1}),
            json!({"op": "move", "from": "/a/none", "path": "/a/b"}),
            json!({"op": "move", "from": "/a", "path": "/a/c"}),
            json!({"op": "copy", "from": "", "path": "/a/c"}),
            json!({"op": "copy", "from": "/l/2", "path": "/a/c"}),
            json!({"op": "test", "path": "/a/b", "value": 3}),
            json!({"op": "test", "path": "/a/none", "value": 3}),
            json!({"op": "test", "path": "/l/2", "value": null}),
        ];
        for patch in cases {
            let refused = patched(patch.clone());
            assert!(
                matches!(refused, Err(PatchError::Unprocessable(_))),
                "{patch}: {refused:?}"
            );
        }
        for patch in [json!(1), json!([]), json!("add")] {
            assert!(matches!(patched(patch), Err(PatchError::Malformed(_))));
        }
    }
}
