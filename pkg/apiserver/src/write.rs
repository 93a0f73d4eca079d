//! The last steps of a write: the object printed once by the request's own task, with a hole where the committer puts
//! the revision; then the store's transaction, and the object as the cache now holds it.

use std::sync::{Arc, OnceLock};

use mk8s_api::codec::json;
use mk8s_api::status::Status;
use mk8s_store::{Change, Expect, Op, Store, Txn, TxnError};
use serde_json::{Map, Value};
use smallvec::smallvec;

use crate::object::{Object, Selectable};
use crate::watch_cache::{Note, ResourceCache};

/// Why a write did not come about.
#[derive(Debug)]
pub enum WriteError {
    /// Something else was written to the key since it was read.
    Conflict,
    Status(Status),
}

impl From<Status> for WriteError {
    fn from(status: Status) -> Self {
        WriteError::Status(status)
    }
}

fn translate(error: TxnError) -> WriteError {
    match error {
        TxnError::Conflict { .. } => WriteError::Conflict,
        TxnError::TooLarge(_) => WriteError::Status(Status::too_large(
            "Request entity too large: the object is too large to be stored",
        )),
        other => WriteError::Status(Status::unavailable(format!("the store refused the write: {other}"))),
    }
}

/// An object's JSON text with an empty `metadata.resourceVersion`, and the offset where its digits belong.
pub fn print(object: &Value) -> Result<(Vec<u8>, usize), Status> {
    let Value::Object(map) = object else {
        return Err(Status::internal("an object that is no JSON object"));
    };
    let mut text = Vec::with_capacity(4096);
    let mut hole = None;
    for (key, value) in map {
        text.push(if text.is_empty() { b'{' } else { b',' });
        json::print_key(key, &mut text);
        match value {
            Value::Object(metadata) if key == "metadata" => hole = Some(print_metadata(&mut text, metadata)),
            other => json::print(other, &mut text),
        }
    }
    text.push(b'}');
    match hole {
        Some(hole) => Ok((text, hole)),
        None => Err(Status::internal("an object without metadata")),
    }
}

/// Prints metadata; where the digits of its resourceVersion belong.
fn print_metadata(text: &mut Vec<u8>, metadata: &Map<String, Value>) -> usize {
    const OWN: &str = "resourceVersion";
    let mut separator = b'{';
    let mut key_of = |text: &mut Vec<u8>, key: &str| {
        text.push(std::mem::replace(&mut separator, b','));
        json::print_key(key, text);
    };
    let others = |after: bool| {
        let fields = metadata.iter();
        fields.filter(move |(key, _)| *key != OWN && (key.as_str() > OWN) == after)
    };
    for (key, value) in others(false) {
        key_of(text, key);
        json::print(value, text);
    }
    key_of(text, OWN);
    text.push(b'"');
    let hole = text.len();
    text.push(b'"');
    for (key, value) in others(true) {
        key_of(text, key);
        json::print(value, text);
    }
    text.push(b'}');
    hole
}

/// Stores an object under a key; the object as the cache holds it afterwards.
pub async fn put(
    store: &Store,
    cache: &ResourceCache,
    key: Arc<str>,
    expect: Expect,
    object: &Value,
) -> Result<Arc<Object>, WriteError> {
    let (text, hole) = print(object)?;
    let made = Arc::new(OnceLock::new());
    let note = Note {
        selectable: Selectable::of(cache.resource(), object),
        made: made.clone(),
    };
    let op = Op {
        key,
        expect,
        change: Change::Put {
            value: text,
            revision_at: hole,
            attachment: Some(Box::new(note)),
        },
    };
    let txn = Txn { ops: smallvec![op] };
    store.txn(txn).await.map_err(translate)?;
    let object = made.get().cloned();
    object.ok_or_else(|| WriteError::Status(Status::internal("a committed object did not reach the cache")))
}

/// The attachment of a write whose result nobody waits for.
pub fn note(selectable: Selectable) -> mk8s_store::Attachment {
    Box::new(Note {
        selectable,
        made: Arc::new(OnceLock::new()),
    })
}

/// Removes a key at a revision.
pub async fn remove(store: &Store, key: Arc<str>, revision: u64) -> Result<u64, WriteError> {
    let op = Op {
        key,
        expect: Expect::Revision(revision),
        change: Change::Delete,
    };
    let txn = Txn { ops: smallvec![op] };
    store.txn(txn).await.map_err(translate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hole_is_inside_the_quotes() {
        for metadata in [
            json!({"name": "a", "uid": "u"}),
            json!({"name": "a"}),
            json!({"uid": "u"}),
            json!({}),
            json!({"name": "a", "resourceVersion": "12", "uid": "u"}),
        ] {
            let object = json!({"a": {"resourceVersion": ""}, "kind": "X", "metadata": metadata, "spec": {}});
            let (mut text, hole) = print(&object).unwrap();
            text.splice(hole..hole, *b"77");
            let back: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(back["metadata"]["resourceVersion"], "77");
            assert_eq!(back["a"]["resourceVersion"], "");
            assert_eq!(back["metadata"].get("name"), object["metadata"].get("name"));
        }
    }
}
