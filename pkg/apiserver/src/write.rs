//! The last steps of a write: the object printed once by the request's own task, with a hole where the store puts the
//! revision; then the store's transaction.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mk8s_api::apply::Managed;
use mk8s_api::codec::json;
use mk8s_api::meta;
use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use mk8s_store::{Change, Entry, Expect, Op, SPARE, Store, Txn, TxnError};
use serde_json::{Map, Value};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::object::{Noted, Object, Selectable};
use crate::part::Rest;
use crate::watch_cache::Note;
use crate::{crd, managers, stored_form};

/// Why a write did not come about.
#[derive(Debug)]
pub enum WriteError {
    /// Something else was written to one of the transaction's keys since it was read; readers see it by now.
    Conflict,
    /// It may have taken place or not: reading tells.
    Unknown,
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
        TxnError::Unknown(cause) => {
            tracing::warn!(%cause, "a write's outcome is not known");
            WriteError::Unknown
        }
        TxnError::Overloaded => WriteError::Status(Status::too_many_requests(error.to_string(), 1)),
        TxnError::TooLarge(_) => WriteError::Status(Status::too_large(
            "Request entity too large: the object is too large to be stored",
        )),
        other => WriteError::Status(Status::unavailable(format!("the store refused the write: {other}"))),
    }
}

/// Where a put's object is found once it is in the cache.
pub type Made = Arc<OnceLock<Arc<Object>>>;

/// An object as the store takes it: its JSON text with an empty `metadata.resourceVersion`, where in it the digits belong,
/// its managers behind it, and what selectors ask of it.
pub struct Printed {
    value: Vec<u8>,
    /// Bytes of the text.
    text: usize,
    hole: usize,
    noted: Noted,
}

impl Printed {
    pub fn of(resource: &Arc<Resource>, object: &Value, managed: &Managed) -> Result<Printed, Status> {
        let selectable = Selectable::of(resource, object);
        Ok(Printed::new(resource, print(object, None)?, selectable, managed))
    }

    /// Of a part of an object, and the rest as it was.
    pub fn of_part(resource: &Arc<Resource>, part: &Value, rest: &Rest, managed: &Managed) -> Result<Printed, Status> {
        let selectable = rest.selectable(resource, part);
        Ok(Printed::new(resource, print(part, Some(rest))?, selectable, managed))
    }

    /// Of an object of which some fields alone changed: all else as it is stored, where more is read of it than there is
    /// room for.
    pub fn of_fields(
        resource: &Arc<Resource>,
        found: &Object,
        fields: &[&str],
        object: &Value,
        managed: &Managed,
    ) -> Result<Printed, Status> {
        let Some(mut stored) = found.shorter() else {
            return Printed::of(resource, object, managed);
        };
        for &field in fields {
            match object.get(field) {
                Some(value) => stored[field] = value.clone(),
                None => drop(meta::remove(&mut stored, &[field])),
            }
        }
        let mut printed = Printed::of(resource, &stored, managed)?;
        // By the request's own task: the committer's thread, which all writes wait for, puts in the revision alone.
        let read = crd::read(Object::new(resource.clone(), printed.entry(found), None));
        printed.noted.read = read.is_read_otherwise().then(|| Box::new(read));
        Ok(printed)
    }

    /// What the store would have in the place of `found`, were that still its revision.
    fn entry(&self, found: &Object) -> Entry {
        let digits = found.revision.to_string();
        let mut value = Vec::with_capacity(self.value.len() + digits.len());
        value.extend_from_slice(&self.value[..self.hole]);
        value.extend_from_slice(digits.as_bytes());
        value.extend_from_slice(&self.value[self.hole..]);
        Entry {
            key: found.key.clone(),
            value: value.into(),
            revision_at: self.hole,
            create_revision: found.create_revision,
            mod_revision: found.revision,
        }
    }

    fn new(
        resource: &Arc<Resource>,
        (mut value, hole): (Vec<u8>, usize),
        selectable: Selectable,
        managed: &Managed,
    ) -> Printed {
        let text = value.len();
        stored_form::append(&mut value, managed);
        // Of the size in which the object is kept, so that nobody copies it after this task.
        value.shrink_to(value.len() + SPARE);
        let managed = managed.clone();
        Printed {
            value,
            text,
            hole,
            noted: Noted {
                resource: resource.clone(),
                selectable,
                managed,
                read: None,
            },
        }
    }

    /// The operation that stores it, and where the cached object is found afterwards.
    pub fn put(self, key: Arc<str>, expect: Expect) -> (Op, Made) {
        let made = Made::default();
        let note = Note {
            noted: self.noted,
            made: made.clone(),
        };
        let change = Change::Put {
            value: self.value,
            revision_at: self.hole,
            attachment: Some(Box::new(note)),
        };
        (Op { key, expect, change }, made)
    }

    /// The text, with an empty resourceVersion.
    pub fn text(&self) -> &[u8] {
        &self.value[..self.text]
    }

    pub fn managed(&self) -> &Managed {
        &self.noted.managed
    }

    /// The tree that clients would see in the place of `found`, at whose revision it still is.
    pub fn in_place_of(self, found: &Object) -> Result<Value, Status> {
        if let Some(read) = self.noted.read {
            return read.whole();
        }
        let entry = self.entry(found);
        Object::new(self.noted.resource.clone(), entry, Some(self.noted)).whole()
    }

    /// Whether what is read of it goes along, which may be ten times as long.
    pub fn is_read_otherwise(&self) -> bool {
        self.noted.read.is_some()
    }

    /// The tree again (with an empty resourceVersion), as clients see it.
    pub fn whole(&self) -> Result<Value, Status> {
        let value = serde_json::from_slice(self.text());
        let mut value = value.map_err(|error| Status::internal(format!("a printed object: {error}")))?;
        managers::put(&mut value, self.managed());
        Ok(value)
    }
}

/// What stands first in an object's text, so that a list can leave it out.
const FIRST: [&str; 2] = ["apiVersion", "kind"];

/// The text of an object (with `rest`: of a part of it, and the other fields' own text in between), in the order of the
/// fields' names but for the first two.
fn print(object: &Value, rest: Option<&Rest>) -> Result<(Vec<u8>, usize), Status> {
    let Value::Object(map) = object else {
        return Err(Status::internal("an object that is no JSON object"));
    };
    let mut text = Vec::with_capacity(4096);
    let mut hole = None;
    let mut others = rest.into_iter().flat_map(Rest::fields).peekable();
    for key in FIRST {
        if let Some(value) = map.get(key) {
            begin_field(&mut text, key);
            json::print(value, &mut text);
        }
    }
    for (key, value) in map.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
        while let Some((key, raw)) = others.next_if(|(other, _)| *other < key.as_str()) {
            begin_field(&mut text, key);
            text.extend_from_slice(raw);
        }
        begin_field(&mut text, key);
        match value {
            Value::Object(metadata) if key == "metadata" => hole = Some(print_metadata(&mut text, metadata)),
            other => json::print(other, &mut text),
        }
    }
    for (key, raw) in others {
        begin_field(&mut text, key);
        text.extend_from_slice(raw);
    }
    text.push(b'}');
    match hole {
        Some(hole) => Ok((text, hole)),
        None => Err(Status::internal("an object without metadata")),
    }
}

fn begin_field(text: &mut Vec<u8>, key: &str) {
    text.push(if text.is_empty() { b'{' } else { b',' });
    json::print_key(key, text);
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

/// An object as it is stored at a revision.
pub fn object_at(
    resource: Arc<Resource>,
    key: Arc<str>,
    object: &Value,
    revision: u64,
    create_revision: u64,
) -> Result<Object, Status> {
    let (mut text, hole) = print(object, None)?;
    text.splice(hole..hole, revision.to_string().into_bytes());
    let entry = Entry {
        key,
        value: text.into(),
        revision_at: hole,
        create_revision,
        mod_revision: revision,
    };
    Ok(Object::new(resource, entry, None))
}

/// A cached object in another form: with its revision, and its managers.
pub fn in_form(found: &Object, resource: Arc<Resource>, form: &Value) -> Result<Object, Status> {
    let key = found.key.clone();
    let mut shown = object_at(resource, key, form, found.revision, found.create_revision)?;
    shown.managed = found.managed.clone();
    Ok(shown)
}

/// The operation that removes a key.
pub fn removal(key: Arc<str>, expect: Expect) -> Op {
    Op {
        key,
        expect,
        change: Change::Delete,
    }
}

/// How long what has no deadline of its own waits for the store.
const PATIENCE: Duration = Duration::from_secs(34);

/// Does all of it at one revision, or nothing; a deadline for what no request waits for.
pub async fn commit(store: &dyn Store, ops: SmallVec<[Op; 1]>) -> Result<u64, WriteError> {
    commit_until(Instant::now() + PATIENCE, store, ops).await
}

/// The same until a request's deadline. A disk that hangs holds nobody longer: the write may still take place then, and
/// whoever watches sees it.
pub async fn commit_until(deadline: Instant, store: &dyn Store, ops: SmallVec<[Op; 1]>) -> Result<u64, WriteError> {
    let answer = tokio::time::timeout_at(deadline, store.txn(Txn { ops })).await;
    match answer {
        Ok(answer) => answer.map_err(translate),
        Err(_) => Err(WriteError::Status(timed_out())),
    }
}

/// Upstream's answer to a request whose time is over.
pub fn timed_out() -> Status {
    Status::timeout("Timeout: request did not complete within requested timeout - context deadline exceeded")
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
            let (mut text, hole) = print(&object, None).unwrap();
            text.splice(hole..hole, *b"77");
            let back: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(back["metadata"]["resourceVersion"], "77");
            assert_eq!(back["a"]["resourceVersion"], "");
            assert_eq!(back["metadata"].get("name"), object["metadata"].get("name"));
        }
    }
}
