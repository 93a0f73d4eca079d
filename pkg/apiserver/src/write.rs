//! The last steps of a write: the object printed once by the request's own task, with a hole where the committer puts
//! the revision; then the store's transaction, and the object as the cache now holds it.

use std::sync::{Arc, OnceLock};

use mk8s_api::status::Status;
use mk8s_store::{Change, Expect, Op, Txn, TxnError};
use serde_json::{Map, Value};
use smallvec::smallvec;

use crate::object::{Object, Selectable};
use crate::server::ApiServer;
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
    let failed = |error: serde_json::Error| Status::internal(format!("printing the object: {error}"));
    let Value::Object(map) = object else {
        return Err(Status::internal("an object that is no JSON object"));
    };
    let mut text = Vec::with_capacity(4096);
    let mut hole = None;
    text.push(b'{');
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, key).map_err(failed)?;
        text.push(b':');
        match value {
            Value::Object(metadata) if key == "metadata" => {
                hole = Some(print_metadata(&mut text, metadata).map_err(failed)?);
            }
            other => serde_json::to_writer(&mut text, other).map_err(failed)?,
        }
    }
    text.push(b'}');
    match hole {
        Some(hole) => Ok((text, hole)),
        None => Err(Status::internal("an object without metadata")),
    }
}

fn print_metadata(text: &mut Vec<u8>, metadata: &Map<String, Value>) -> Result<usize, serde_json::Error> {
    text.extend_from_slice(b"{");
    let mut hole = 0;
    let mut first = true;
    let mut put_hole = |text: &mut Vec<u8>, first: bool| {
        if !first {
            text.push(b',');
        }
        text.extend_from_slice(b"\"resourceVersion\":\"");
        hole = text.len();
        text.push(b'"');
    };
    let mut pending = true;
    for (key, value) in metadata {
        if key == "resourceVersion" {
            continue;
        }
        if pending && key.as_str() > "resourceVersion" {
            put_hole(text, first);
            (pending, first) = (false, false);
        }
        if !first {
            text.push(b',');
        }
        first = false;
        serde_json::to_writer(&mut *text, key)?;
        text.push(b':');
        serde_json::to_writer(&mut *text, value)?;
    }
    if pending {
        put_hole(text, first);
    }
    text.push(b'}');
    Ok(hole)
}

/// Stores an object under a key; the object as the cache holds it afterwards.
pub async fn put(
    server: &ApiServer,
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
    server.store().txn(txn).await.map_err(translate)?;
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
pub async fn remove(server: &ApiServer, key: Arc<str>, revision: u64) -> Result<u64, WriteError> {
    let op = Op {
        key,
        expect: Expect::Revision(revision),
        change: Change::Delete,
    };
    let txn = Txn { ops: smallvec![op] };
    server.store().txn(txn).await.map_err(translate)
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
