//! Data of format 1, converted where it stands. There a record held the text with its revision spliced in (so it has to be
//! searched for, here for the last time), under other keys: `o` + key, and `p` + key + NUL + number for what did not fit.
//!
//! All objects are read first: where one can't be converted nothing is touched, and the version before still has its data.
//! Then the mark of format 2 is written, so that a version that knows only format 1 refuses the data from then on, and
//! records move in batches, each durable as a whole: whenever the power goes, each object is there in one of the two ways,
//! and the next start goes on with those that are left.

use std::sync::Arc;

use super::sled::{SledEngine, Trailer, chunks, numbered};
use super::{EngineError, Revisions};
use crate::value::SPARE;

pub(super) const OBJECT: u8 = b'o';
const CHUNK: u8 = b'p';
/// create revision, mod revision, number of further chunks; before the text.
const HEADER: usize = 8 + 8 + 2;
/// A batch is so many bytes of text, or the object that goes over it.
const BATCH_BYTES: usize = 256 * 1024;

/// Where a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Marked,
    /// So many objects were moved.
    Moved(usize),
}

/// Converts what is left of format 1; `watch` hears of each step when it is on disk.
pub(super) fn convert(engine: &mut SledEngine, watch: &mut dyn FnMut(Step)) -> Result<(), EngineError> {
    if engine.db().scan_prefix([OBJECT]).next().is_none() {
        return Ok(());
    }
    tracing::info!("store: converting the data to format 2");
    for record in engine.db().scan_prefix([OBJECT]) {
        let (key, value) = record.map_err(engine.failed("read"))?;
        old_object(engine, &key, &value)?;
    }
    engine.mark_format()?;
    watch(Step::Marked);
    loop {
        let moved = convert_batch(engine)?;
        if moved == 0 {
            return Ok(());
        }
        watch(Step::Moved(moved));
    }
}

/// Moves the first objects that are left; how many.
fn convert_batch(engine: &mut SledEngine) -> Result<usize, EngineError> {
    let mut records = ::sled::Batch::default();
    let (mut moved, mut bytes) = (0, 0);
    for record in engine.db().clone().scan_prefix([OBJECT]) {
        let (key, value) = record.map_err(engine.failed("read"))?;
        let OldObject {
            name,
            revisions: old,
            mut text,
            hole,
        } = old_object(engine, &key, &value)?;
        records.remove(&key);
        for number in 0..old.chunks {
            records.remove(numbered(CHUNK, &name, number));
        }
        let revisions = Revisions {
            chunks: chunks(text.len()),
            ..old
        };
        bytes += text.len();
        engine.put(&mut records, &name, &mut text, Trailer { revisions, hole })?;
        moved += 1;
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    if moved > 0 {
        engine.write(records)?;
    }
    Ok(moved)
}

/// An object as format 1 held it, its text without the revision.
struct OldObject {
    name: Arc<str>,
    revisions: Revisions,
    text: Vec<u8>,
    /// Where the revision stood.
    hole: u32,
}

/// Puts an object together from its first record and the chunks.
fn old_object(engine: &SledEngine, key: &[u8], value: &[u8]) -> Result<OldObject, EngineError> {
    let name = engine.name(key)?;
    let revisions = old_record(value).ok_or_else(|| engine.damaged(key, "its header is short"))?;
    let mut text = Vec::with_capacity(value.len() + SPARE);
    text.extend_from_slice(&value[HEADER..]);
    for number in 0..revisions.chunks {
        let chunk = engine.db().get(numbered(CHUNK, &name, number));
        let chunk = chunk.map_err(engine.failed("read"))?;
        text.extend_from_slice(&chunk.ok_or_else(|| engine.damaged(key, "a chunk is missing"))?);
    }
    let digits = revisions.modified.to_string();
    let hole = find_hole(&text, &digits).ok_or_else(|| engine.damaged(key, "it has no resourceVersion"))?;
    text.drain(hole..hole + digits.len());
    Ok(OldObject {
        name,
        revisions,
        text,
        hole: u32::try_from(hole).unwrap_or(u32::MAX),
    })
}

fn old_record(value: &[u8]) -> Option<Revisions> {
    Some(Revisions {
        create: u64::from_be_bytes(value.get(..8)?.try_into().ok()?),
        modified: u64::from_be_bytes(value.get(8..16)?.try_into().ok()?),
        chunks: u16::from_be_bytes(value.get(16..HEADER)?.try_into().ok()?),
    })
}

/// Where the digits of the object's own `metadata.resourceVersion` stand. Texts of that look inside of strings and in other
/// fields do not count.
fn find_hole(text: &[u8], digits: &str) -> Option<usize> {
    let metadata = member(text, 0, b"metadata")?;
    let value = member(text, metadata, b"resourceVersion")?;
    let expected = text.get(value + 1..value + 1 + digits.len())?;
    let closed = text.get(value + 1 + digits.len()) == Some(&b'"');
    (text[value] == b'"' && expected == digits.as_bytes() && closed).then_some(value + 1)
}

/// Where the value of a member begins, in the object that begins at `at`. The text is compact, as format 1 printed it.
fn member(text: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    if text.get(at) != Some(&b'{') {
        return None;
    }
    let mut at = at + 1;
    while text.get(at) == Some(&b'"') {
        let colon = end_of_string(text, at)?;
        if text.get(colon) != Some(&b':') {
            return None;
        }
        if &text[at + 1..colon - 1] == name {
            return Some(colon + 1);
        }
        let end = end_of_value(text, colon + 1)?;
        if text.get(end) != Some(&b',') {
            return None;
        }
        at = end + 1;
    }
    None
}

/// The position after a string that begins at `at`.
fn end_of_string(text: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let next = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[next] == b'"' {
            return Some(next + 1);
        }
        from = next + 2;
    }
}

/// The position after a value that begins at `at`.
fn end_of_value(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match text.get(at)? {
            b'"' => {
                at = end_of_string(text, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return Some(if depth == 1 { at + 1 } else { at }),
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests;
