//! `metadata.managedFields` in protobuf, straight from the form in which an object keeps them: they are a third of it, and
//! making JSON of them only to read that again took longer than all the rest.

use super::wire::{self, bytes, close, key, moment, open, varint, varint_length};
use crate::apply::{Entry, Managed};
use crate::codec::scalar;

/// Numbers of fields: of ObjectMeta in every kind, and in it, and in metav1.ManagedFieldsEntry.
const METADATA: u16 = 1;
const MANAGED_FIELDS: u16 = 17;
const MANAGER: u16 = 1;
const OPERATION: u16 = 2;
const API_VERSION: u16 = 3;
const TIME: u16 = 4;
const FIELDS_TYPE: u16 = 6;
const FIELDS_V1: u16 = 7;
const SUBRESOURCE: u16 = 8;

/// Puts managers at the end of the metadata that the message at `start` begins with; in front of one that begins otherwise,
/// in an occurrence of metadata of their own, which readers merge with the other.
pub(super) fn put(out: &mut Vec<u8>, start: usize, managed: &Managed) {
    if managed.is_empty() {
        return;
    }
    let mut list = Vec::with_capacity(managed.printed_len());
    for entry in managed.entries() {
        put_entry(&mut list, entry);
    }
    if out
        .get(start)
        .is_none_or(|first| u16::from(*first) != METADATA << 3 | u16::from(wire::BYTES))
    {
        insert(out, start, &[(METADATA << 3) as u8 | wire::BYTES, 0]);
    }
    let (length, taken) = length_at(&out[start + 1..]);
    let from = start + 1 + taken;
    insert(out, from + length, &list);
    let mut head = Vec::with_capacity(10);
    varint(&mut head, (length + list.len()) as u64);
    insert(out, from, &head[taken.min(head.len())..]);
    out[start + 1..][..head.len()].copy_from_slice(&head);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let owner = entry.owner();
    key(out, MANAGED_FIELDS, wire::BYTES);
    let start = open(out);
    bytes(out, MANAGER, owner.manager.as_bytes());
    bytes(out, OPERATION, owner.operation.as_str().as_bytes());
    bytes(out, API_VERSION, owner.api_version.as_bytes());
    let time = entry.time().and_then(scalar::time_parts);
    if let Some(parts) = time {
        moment(out, TIME, parts);
    }
    bytes(out, FIELDS_TYPE, b"FieldsV1");
    let fields = entry.fields().as_bytes();
    key(out, FIELDS_V1, wire::BYTES);
    varint(out, (1 + varint_length(fields.len() as u64) + fields.len()) as u64);
    bytes(out, 1, fields);
    if !owner.subresource.is_empty() {
        bytes(out, SUBRESOURCE, owner.subresource.as_bytes());
    }
    close(out, start);
}

/// A length, and how many bytes it takes.
fn length_at(encoded: &[u8]) -> (usize, usize) {
    let mut length = 0;
    for (at, byte) in encoded.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (length, at + 1);
        }
    }
    (length, encoded.len())
}

fn insert(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = out.len();
    out.resize(end + bytes.len(), 0);
    out.copy_within(at..end, at + bytes.len());
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::{decode, envelope, item_from_json, item_raw, raw_from_json};
    use super::*;
    use crate::schema::by_gvk;

    fn managed(fields: usize) -> Managed {
        let fields: serde_json::Map<String, serde_json::Value> =
            (0..fields).map(|at| (format!("f:k{at:03}\"é"), json!({}))).collect();
        let list = json!([
            {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": fields.clone()}, "manager": "a",
             "operation": "Apply", "time": "2026-01-02T03:04:05Z"},
            {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": fields}}, "manager": "b",
             "operation": "Update", "subresource": "status"}]);
        Managed::from_value(&list).unwrap()
    }

    /// As if they had been in the text, whichever lengths take one byte more by them.
    #[test]
    fn managers_are_encoded_as_their_text_is() {
        let ty = by_gvk("", "v1", "ConfigMap").unwrap();
        for (fields, name) in [(1, 3), (1, 100), (1, 200), (40, 3), (3000, 20), (1, 20_000)] {
            let managed = managed(fields);
            for mut object in [
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n".repeat(name)}, "data": {"a": "b"}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "x".repeat(name)}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap"}),
            ] {
                let text = object.to_string();
                let raw = raw_from_json(ty, text.as_bytes(), &managed).unwrap();
                let item = item_from_json(ty, text.as_bytes(), &managed).unwrap();
                assert_eq!(item_raw(&item), raw);
                object["metadata"]["managedFields"] = managed.to_value();
                assert_eq!(decode(&envelope("v1", "ConfigMap", &raw)).unwrap(), object);
                let whole = raw_from_json(ty, object.to_string().as_bytes(), &Managed::NOBODY).unwrap();
                // No longer than an occurrence of its own makes it.
                assert!(
                    (0..=4).contains(&(raw.len() - whole.len())),
                    "{} and {}",
                    raw.len(),
                    whole.len()
                );
            }
        }
    }
}
