//! Kubernetes protobuf, both ways, for every type of the schema table: the magic `k8s\0`, runtime.Unknown around a
//! message, and the messages themselves by the table's field numbers. No message is generated code.
//!
//! A list is not encoded as a whole: each object keeps its item's bytes (`item_from_json`), and a list is its head
//! (`list_head`), the items as they are, and `TAIL`.

mod decode;
mod encode;
mod managers;
mod wire;

use super::DecodeError;

pub use decode::{Envelope, Kind, decode};
pub use encode::{
    ListMeta, TAIL, encode, encode_raw, envelope, envelope_head, item_from_json, item_raw, list_head, raw_from_json,
    watch_frame,
};

/// What a protobuf body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The media type of objects, lists and, with `;stream=watch`, watches.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Why bytes or a tree cannot be converted.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// There is nothing behind the magic.
    #[error("empty body")]
    Empty,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: {message}: illegal tag or wire type {number}")]
    Wire { message: &'static str, number: u32 },
    #[error("{}", DecodeError::TooDeep)]
    TooDeep,
    #[error("unable to decode an object without its kind")]
    NoKind,
    /// Custom resources have no protobuf form.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("proto: {0}")]
    Value(String),
}

impl From<ProtobufError> for DecodeError {
    fn from(error: ProtobufError) -> DecodeError {
        match error {
            ProtobufError::TooDeep => DecodeError::TooDeep,
            other => DecodeError::Syntax(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::schema::by_gvk;

    #[test]
    fn a_list_is_its_head_its_items_and_the_tail() {
        let ty = by_gvk("", "v1", "ConfigMap").unwrap();
        let texts = [
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}"#.to_string(),
            json!({"metadata": {"name": "b"}, "data": {"k": "x".repeat(20_000)}}).to_string(),
        ];
        let items: Vec<Vec<u8>> = texts
            .iter()
            .map(|text| item_from_json(ty, text.as_bytes(), &crate::apply::Managed::NOBODY).unwrap())
            .collect();
        let meta = ListMeta {
            resource_version: "7",
            continue_token: "",
            remaining_item_count: Some(3),
        };
        let mut list = list_head("v1", "ConfigMapList", &meta, items.iter().map(Vec::len).sum());
        list.extend(items.iter().flatten());
        list.extend_from_slice(TAIL);
        let decoded = decode(&list).unwrap();
        assert_eq!(
            decoded,
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7", "remainingItemCount": 3},
                "items": [{"metadata": {"name": "a"}, "data": {"k": "v"}},
                    {"metadata": {"name": "b"}, "data": {"k": "x".repeat(20_000)}}]})
        );
    }

    #[test]
    fn a_watch_frame_is_a_length_and_an_event() {
        let ty = by_gvk("", "v1", "ConfigMap").unwrap();
        let raw = encode_raw(ty, &json!({"metadata": {"name": "a"}})).unwrap();
        let frame = watch_frame("ADDED", "v1", "ConfigMap", &raw);
        assert_eq!(
            u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize,
            frame.len() - 4
        );
        let event = decode(&envelope("v1", "WatchEvent", &frame[4..])).unwrap();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        assert_eq!(event["object"], object);
        assert_eq!(event["type"], "ADDED");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let whole = encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})).unwrap();
        for end in 0..whole.len() {
            // Cut anywhere it is refused, or read as a shorter whole; it never panics.
            let _ = decode(&whole[..end]);
        }
        assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
        assert_eq!(decode(b"k8s\0"), Err(ProtobufError::Empty));
        assert_eq!(decode(b"k8s\0\x12\0"), Err(ProtobufError::NoKind));
        let custom = envelope("example.com/v1", "Thing", b"");
        assert!(matches!(decode(&custom), Err(ProtobufError::UnknownKind { .. })));
    }
}
