//! What the store keeps of an object: its text as it is cached, and behind it its managers' list with its length. The text
//! alone is what readers in this process parse and what is kept in memory; the managers are packed (`apply::Managed`), and
//! put into the text when it is sent. A value of a text alone has no managers.

use std::ops::Range;

use mk8s_api::apply::Managed;

/// Bytes of the list's length at the end. Its last byte is never the brace that a text ends with.
const LENGTH: usize = size_of::<u32>();

/// Appends managers to an object's text.
pub fn append(text: &mut Vec<u8>, managed: &Managed) {
    if managed.is_empty() {
        return;
    }
    let from = text.len();
    managed.print(text);
    // A value is at most some MiB.
    let length = u32::try_from(text.len() - from).unwrap_or(u32::MAX);
    text.extend_from_slice(&length.to_le_bytes());
}

/// Where a value's text ends, and its managers' list is.
pub fn split(value: &[u8]) -> (usize, Range<usize>) {
    let whole = (value.len(), value.len()..value.len());
    let Some((rest, length)) = value.split_last_chunk::<LENGTH>() else {
        return whole;
    };
    if length[LENGTH - 1] != 0 {
        return whole;
    }
    let length = u32::from_le_bytes(*length) as usize;
    match rest.len().checked_sub(length) {
        Some(text) => (text, text..rest.len()),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn managers_lie_behind_the_text() {
        let list = json!([{"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}, "manager": "m",
            "operation": "Update"}]);
        for managed in [Managed::default(), Managed::from_value(&list).unwrap()] {
            let mut value = b"{}".to_vec();
            append(&mut value, &managed);
            let (text, list) = split(&value);
            assert_eq!(&value[..text], b"{}");
            assert_eq!(list.is_empty(), managed.is_empty());
            if !list.is_empty() {
                assert_eq!(Managed::parse(&value[list]).unwrap(), managed);
            }
        }
        // What is damaged is not read beyond.
        for value in [&b""[..], b"}", b"\0\0\0\0", b"a\xff\0\0\0"] {
            let (text, list) = split(value);
            assert!(text <= value.len() && list.end <= value.len());
        }
    }
}
