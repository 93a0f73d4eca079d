//! What a JSON patch may make of a tree. A few short operations that copy can double it again and again, and double its
//! depth by copying it into its own leaf: each operation is measured before it is applied.

use serde_json::Value;

use super::PatchError;
use crate::codec::MAX_DEPTH;

/// Upstream's limit of what all copies of one patch may add, in bytes of JSON.
const MAX_COPIED: usize = 3 << 20;
/// How many items of arrays all operations of one patch may move up or down: a second's work. No object that can be stored
/// needs as many.
const MAX_SHIFTED: usize = 1 << 27;

/// What the operations so far have used up.
#[derive(Default)]
pub(super) struct Bounds {
    copied: usize,
    /// Moves to a deeper place cost a walk through what is moved: bounded as copies are.
    moved: usize,
    /// An item put into an array, or taken out of it, shifts all that follow.
    shifted: usize,
}

/// Each refuses what makes the result too big or too deep. The tree is within `MAX_DEPTH` before an operation, and after it
/// again.
impl Bounds {
    /// A value that is put at a path.
    pub fn place(&mut self, path: &str, value: &Value) -> Result<(), PatchError> {
        fits(path, measure(value, usize::MAX).depth)
    }

    pub fn copy(&mut self, path: &str, value: &Value) -> Result<(), PatchError> {
        fits(path, charge(&mut self.copied, value)?)
    }

    pub fn r#move(&mut self, from: &str, path: &str, value: &Value) -> Result<(), PatchError> {
        if levels(path) <= levels(from) {
            return Ok(());
        }
        fits(path, charge(&mut self.moved, value)?)
    }

    /// So many items of an array that one more, or one less, moves up or down.
    pub fn shift(&mut self, path: &str, items: usize) -> Result<(), PatchError> {
        self.shifted = self.shifted.saturating_add(items);
        if self.shifted > MAX_SHIFTED {
            return Err(PatchError::Unprocessable(format!(
                "the operations up to {path:?} shift more than {MAX_SHIFTED} items of arrays"
            )));
        }
        Ok(())
    }
}

fn levels(path: &str) -> usize {
    path.matches('/').count()
}

fn fits(path: &str, depth: usize) -> Result<(), PatchError> {
    if levels(path) + depth > usize::from(MAX_DEPTH) {
        return Err(PatchError::Unprocessable(format!(
            "the result at {path:?} would nest deeper than {MAX_DEPTH} levels"
        )));
    }
    Ok(())
}

/// Adds a value's size to what is used up; its depth.
fn charge(used: &mut usize, value: &Value) -> Result<usize, PatchError> {
    let measured = measure(value, MAX_COPIED.saturating_sub(*used));
    *used = used.saturating_add(measured.bytes);
    if *used > MAX_COPIED {
        return Err(PatchError::Unprocessable(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {used}, exceeding the limit {MAX_COPIED}"
        )));
    }
    Ok(measured.depth)
}

#[derive(Default)]
struct Measured {
    /// Of its compact JSON, escapes not counted.
    bytes: usize,
    /// Levels of objects and arrays.
    depth: usize,
}

/// Measures a tree; stops once it is bigger than `enough`.
fn measure(value: &Value, enough: usize) -> Measured {
    let mut measured = Measured::default();
    walk(value, 1, enough, &mut measured);
    measured
}

fn walk(value: &Value, level: usize, enough: usize, measured: &mut Measured) {
    if measured.bytes > enough {
        return;
    }
    match value {
        Value::Null | Value::Bool(_) => measured.bytes += 4,
        Value::Number(number) => measured.bytes += number.to_string().len(),
        Value::String(text) => measured.bytes += text.len() + 2,
        Value::Array(items) => {
            measured.depth = measured.depth.max(level);
            measured.bytes += items.len() + 2;
            items.iter().for_each(|item| walk(item, level + 1, enough, measured));
        }
        Value::Object(fields) => {
            measured.depth = measured.depth.max(level);
            measured.bytes += 2;
            for (key, item) in fields {
                measured.bytes += key.len() + 4;
                walk(item, level + 1, enough, measured);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::super::{PatchError, json};
    use crate::codec::MAX_DEPTH;

    fn refusal(target: Value, patch: &Value) -> String {
        let mut target = target;
        match json(&mut target, patch) {
            Err(PatchError::Unprocessable(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn copies_that_double_end_at_upstreams_limit() {
        let double = |index: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/{index}")});
        let patch: Vec<Value> = (0..60).map(double).collect();
        let target = json!({"a": {"text": "x".repeat(1000)}});
        let text = refusal(target, &patch.into());
        assert!(text.starts_with("Unable to complete the copy, the accumulated size increase of copy is "));
        assert!(text.ends_with("exceeding the limit 3145728"), "{text}");
    }

    #[test]
    fn a_tree_gets_no_deeper_than_its_limit() {
        let mut path = String::new();
        let copies = (0..10).map(|_| {
            let operation = json!({"op": "copy", "from": "/a", "path": format!("/a{path}/b")});
            let inner = path.clone();
            path = format!("{path}/b{inner}");
            operation
        });
        let text = refusal(json!({"a": {}}), &Value::Array(copies.collect()));
        assert!(text.ends_with("would nest deeper than 100 levels"), "{text}");

        let nested = |levels: u8| (0..levels).fold(Value::Null, |inner, _| json!([inner]));
        let mut most = json!({});
        let add = |levels| json!([{"op": "add", "path": "/a", "value": nested(levels)}]);
        assert_eq!(json(&mut most, &add(MAX_DEPTH - 1)), Ok(()));
        refusal(json!({}), &add(MAX_DEPTH));
        let deeper = json!([{"op": "add", "path": "/b", "value": {}}, {"op": "move", "from": "/a", "path": "/b/c"}]);
        refusal(most.clone(), &deeper);
        assert_eq!(
            json(&mut most, &json!([{"op": "move", "from": "/a", "path": "/d"}])),
            Ok(())
        );
    }

    #[test]
    fn moves_cannot_be_made_to_walk_for_ever() {
        let deeper = json!({"op": "move", "from": "/a", "path": "/b/a"});
        let back = json!({"op": "move", "from": "/b/a", "path": "/a"});
        let patch: Vec<Value> = std::iter::repeat_n([deeper, back], 5_000).flatten().collect();
        let big = Value::Array(vec![Value::Object(Map::new()); 100_000]);
        refusal(json!({"a": big, "b": {}}), &patch.into());
    }
}
