//! JSON (text or tree) → protobuf, streaming: each value is written as it is read, no tree is built.
//!
//! Fields come in the order of the JSON, each field of an inlined struct in an occurrence of its own of that struct's
//! message: readers of protobuf take any order and merge occurrences. Lengths are one byte until they turn out longer.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::wire::{bytes, close, key, moment, open, varint, varint_length};
use super::{MAGIC, ProtobufError, managers, wire};
use crate::apply::Managed;
use crate::codec::scalar as text;
use crate::codec::typed::{FieldName, Name, STRING};
use crate::schema::{self, Any, Field, Node, Or, Scalar, Schema, What};

/// runtime.Unknown's contentEncoding and contentType, which end every envelope: both empty.
pub const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// An object with its envelope; the kind comes from the object.
pub fn encode(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let ty = schema::by_api_version(api_version, kind).ok_or_else(|| ProtobufError::UnknownKind {
        api_version: api_version.into(),
        kind: kind.into(),
    })?;
    Ok(envelope(api_version, kind, &encode_raw(ty, object)?))
}

/// The message alone, from a tree.
pub fn encode_raw(ty: &Schema, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::with_capacity(1024);
    message(&mut out, ty, object)?;
    Ok(out)
}

/// The message alone, from JSON text without managers, and these.
pub fn raw_from_json(ty: &Schema, json: &[u8], managed: &Managed) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::with_capacity(json.len() + managed.printed_len());
    json_message(&mut out, ty, json)?;
    managers::put(&mut out, 0, managed);
    Ok(out)
}

/// The same as an item of its kind's list: what an object keeps for lists. `item_raw` is the message.
pub fn item_from_json(ty: &Schema, json: &[u8], managed: &Managed) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::with_capacity(json.len() + managed.printed_len());
    key(&mut out, 2, wire::BYTES);
    let start = open(&mut out);
    json_message(&mut out, ty, json)?;
    managers::put(&mut out, start, managed);
    close(&mut out, start);
    out.shrink_to_fit();
    Ok(out)
}

/// The message inside a list item's bytes.
pub fn item_raw(item: &[u8]) -> &[u8] {
    // The field's key, then the length: its last byte has the high bit clear.
    let length = item.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    item.get(1 + length..).unwrap_or_default()
}

/// A whole envelope around a message.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = envelope_head(api_version, kind, raw.len());
    out.reserve_exact(raw.len() + TAIL.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(TAIL);
    out
}

/// What comes before a message of `raw` bytes; `TAIL` comes after it.
pub fn envelope_head(api_version: &str, kind: &str, raw: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + api_version.len() + kind.len());
    out.extend_from_slice(MAGIC);
    unknown_head(&mut out, api_version, kind, raw);
    out
}

fn unknown_head(out: &mut Vec<u8>, api_version: &str, kind: &str, raw: usize) {
    key(out, 1, wire::BYTES);
    let start = open(out);
    bytes(out, 1, api_version.as_bytes());
    bytes(out, 2, kind.as_bytes());
    close(out, start);
    key(out, 2, wire::BYTES);
    varint(out, raw as u64);
}

/// metav1.ListMeta of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListMeta<'a> {
    pub resource_version: &'a str,
    pub continue_token: &'a str,
    pub remaining_item_count: Option<i64>,
}

/// What comes before the items of a list whose items take `items` bytes together (each as `item_from_json` made it).
pub fn list_head(api_version: &str, list_kind: &str, meta: &ListMeta<'_>, items: usize) -> Vec<u8> {
    let mut metadata = Vec::with_capacity(64);
    key(&mut metadata, 1, wire::BYTES);
    let start = open(&mut metadata);
    // selfLink and the others are not optional in upstream's message.
    bytes(&mut metadata, 1, b"");
    bytes(&mut metadata, 2, meta.resource_version.as_bytes());
    bytes(&mut metadata, 3, meta.continue_token.as_bytes());
    if let Some(count) = meta.remaining_item_count {
        key(&mut metadata, 4, wire::VARINT);
        varint(&mut metadata, count as u64);
    }
    close(&mut metadata, start);
    let mut out = envelope_head(api_version, list_kind, metadata.len() + items);
    out.extend_from_slice(&metadata);
    out
}

/// A frame of a watch: its length in four bytes, then a WatchEvent around the object with its envelope.
pub fn watch_frame(event: &str, api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 96);
    out.extend_from_slice(&[0; 4]);
    bytes(&mut out, 1, event.as_bytes());
    let head = envelope_head(api_version, kind, raw.len());
    let object = head.len() + raw.len() + TAIL.len();
    key(&mut out, 2, wire::BYTES);
    varint(&mut out, (1 + varint_length(object as u64) + object) as u64);
    key(&mut out, 1, wire::BYTES);
    varint(&mut out, object as u64);
    out.extend_from_slice(&head);
    out.extend_from_slice(raw);
    out.extend_from_slice(TAIL);
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn json_message(out: &mut Vec<u8>, ty: &Schema, json: &[u8]) -> Result<(), ProtobufError> {
    let text = std::str::from_utf8(json).map_err(|error| ProtobufError::Value(error.to_string()))?;
    message(out, ty, &mut serde_json::Deserializer::from_str(text))
}

fn message<'de, D: Deserializer<'de>>(out: &mut Vec<u8>, ty: &Schema, object: D) -> Result<(), ProtobufError>
where
    D::Error: fmt::Display,
{
    Content { out, node: ty }
        .deserialize(object)
        .map_err(|error| ProtobufError::Value(error.to_string()))
}

/// A field of a message: written with its number, once per item of a list or entry of a map.
struct Numbered<'o> {
    out: &'o mut Vec<u8>,
    field: &'o Field,
}

impl<'de> DeserializeSeed<'de> for Numbered<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Numbered { out, field } = self;
        let before = out.len();
        let mut starts = [0; 2];
        let depth = field.outer.iter().take_while(|number| **number != 0).count();
        for (start, number) in starts.iter_mut().zip(&field.outer[..depth]) {
            key(out, u16::from(*number), wire::BYTES);
            *start = open(out);
        }
        let inside = out.len();
        let number = field.tag;
        match &field.schema.what {
            What::List(list) if !list.wrapped => deserializer.deserialize_any(Items {
                out,
                number,
                node: &list.items,
            })?,
            What::Map(map) => deserializer.deserialize_any(Entries {
                out,
                number,
                node: &map.values,
            })?,
            _ => Item {
                out,
                number,
                node: &field.schema,
                element: false,
            }
            .deserialize(deserializer)?,
        }
        if out.len() == inside {
            out.truncate(before);
        } else {
            for start in starts[..depth].iter().rev() {
                close(out, *start);
            }
        }
        Ok(())
    }
}

/// The items of a list field.
struct Items<'o> {
    out: &'o mut Vec<u8>,
    number: u16,
    node: &'o Node,
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.node.go_name())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let (number, node) = (self.number, self.node);
        while access
            .next_element_seed(Item {
                out: &mut *self.out,
                number,
                node,
                element: true,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// The entries of a map field: messages of key 1 and value 2.
struct Entries<'o> {
    out: &'o mut Vec<u8>,
    number: u16,
    node: &'o Node,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of {}", self.node.go_name())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let out = self.out;
        loop {
            let entry = out.len();
            key(out, self.number, wire::BYTES);
            let start = open(out);
            let name = Item {
                out: &mut *out,
                number: 1,
                node: &STRING,
                element: true,
            };
            if access.next_key_seed(name)?.is_none() {
                out.truncate(entry);
                return Ok(());
            }
            access.next_value_seed(Item {
                out: &mut *out,
                number: 2,
                node: self.node,
                element: true,
            })?;
            close(out, start);
        }
    }
}

/// One value with its number.
struct Item<'o> {
    out: &'o mut Vec<u8>,
    number: u16,
    node: &'o Node,
    /// Of a list or map: a null is written as the zero value, not left out.
    element: bool,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if matches!(self.node.what, What::Any(Any::FieldsV1 | Any::RawExtension | Any::Json)) {
            return self.raw(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

impl Item<'_> {
    /// Any JSON, kept as text in a message of one field.
    fn raw<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let value: Value = serde::Deserialize::deserialize(deserializer)?;
        if value.is_null() && !self.element {
            return Ok(());
        }
        key(self.out, self.number, wire::BYTES);
        let start = open(self.out);
        let text = value.to_string();
        bytes(self.out, 1, text.as_bytes());
        close(self.out, start);
        Ok(())
    }

    fn content<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        key(self.out, self.number, wire::BYTES);
        let start = open(self.out);
        let content = Content {
            out: &mut *self.out,
            node: self.node,
        };
        content.deserialize(deserializer)?;
        close(self.out, start);
        Ok(())
    }

    fn misplaced<E: serde::de::Error>(&self, what: &str) -> E {
        misplaced(self.node, what)
    }

    fn integer<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let What::Scalar(scalar) = self.node.what else {
            return Err(self.misplaced("a number"));
        };
        match scalar {
            Scalar::Int32 | Scalar::Int64 => {
                key(self.out, self.number, wire::VARINT);
                varint(self.out, value as u64);
            }
            Scalar::Double => return self.visit_f64(value as f64),
            Scalar::IntOrString => {
                key(self.out, self.number, wire::BYTES);
                let start = open(self.out);
                key(self.out, 1, wire::VARINT);
                varint(self.out, 0);
                key(self.out, 2, wire::VARINT);
                varint(self.out, value as u64);
                close(self.out, start);
            }
            Scalar::Quantity => return self.visit_str(&value.to_string()),
            _ => return Err(self.misplaced("a number")),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node.go_name())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.element {
            match self.node.what {
                What::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64) => {
                    key(self.out, self.number, wire::VARINT);
                    self.out.push(0);
                }
                What::Scalar(Scalar::Double) => {
                    key(self.out, self.number, wire::FIXED64);
                    self.out.extend_from_slice(&[0; 8]);
                }
                _ => bytes(self.out, self.number, b""),
            }
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.node.what {
            What::Scalar(Scalar::Bool) => {
                key(self.out, self.number, wire::VARINT);
                self.out.push(value.into());
            }
            What::SchemaOr(Or::Bool, _) => {
                key(self.out, self.number, wire::BYTES);
                let start = open(self.out);
                key(self.out, 1, wire::VARINT);
                self.out.push(value.into());
                close(self.out, start);
            }
            _ => return Err(self.misplaced("a boolean")),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(value as i64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let What::Scalar(Scalar::Double) = self.node.what else {
            return Err(self.misplaced("a decimal"));
        };
        key(self.out, self.number, wire::FIXED64);
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let What::Scalar(scalar) = self.node.what else {
            return Err(self.misplaced("a string"));
        };
        let out = &mut *self.out;
        match scalar {
            Scalar::String => bytes(out, self.number, value.as_bytes()),
            Scalar::Bytes => {
                let decoded = text::decode_base64(value)
                    .map_err(|at| E::custom(format!("illegal base64 data at input byte {at}")))?;
                bytes(out, self.number, &decoded);
            }
            Scalar::Time | Scalar::MicroTime => {
                let (seconds, nanos) =
                    text::time_parts(value).ok_or_else(|| E::custom(format!("{value:?} is no time")))?;
                moment(out, self.number, (seconds, nanos));
            }
            Scalar::Quantity => {
                key(out, self.number, wire::BYTES);
                let start = open(out);
                bytes(out, 1, value.as_bytes());
                close(out, start);
            }
            Scalar::IntOrString => {
                key(out, self.number, wire::BYTES);
                let start = open(out);
                key(out, 1, wire::VARINT);
                varint(out, 1);
                key(out, 2, wire::VARINT);
                varint(out, 0);
                bytes(out, 3, value.as_bytes());
                close(out, start);
            }
            _ => return Err(self.misplaced("a string")),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        self.content(serde::de::value::MapAccessDeserializer::new(access))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        self.content(serde::de::value::SeqAccessDeserializer::new(access))
    }
}

fn misplaced<E: serde::de::Error>(node: &Node, what: &str) -> E {
    E::custom(format!("{what} where {} belongs", node.go_name()))
}

/// What is inside a message, for objects and lists.
struct Content<'o> {
    out: &'o mut Vec<u8>,
    node: &'o Node,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node.go_name())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let out = self.out;
        let known = match &self.node.what {
            What::Object(object) => object.known(),
            What::SchemaOr(or, schema) => {
                let number = if *or == Or::Bool {
                    key(out, 1, wire::VARINT);
                    out.push(1);
                    2
                } else {
                    1
                };
                key(out, number, wire::BYTES);
                let start = open(out);
                let content = Content {
                    out: &mut *out,
                    node: schema,
                };
                content.visit_map(access)?;
                close(out, start);
                return Ok(());
            }
            _ => return Err(misplaced(self.node, "an object")),
        };
        let fields = known.all();
        while let Some(name) = access.next_key_seed(FieldName(known))? {
            match name {
                Name::Known(at) if fields[at].tag != 0 => {
                    let field = &fields[at];
                    access.next_value_seed(Numbered { out: &mut *out, field })?;
                }
                _ => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let (number, node) = match &self.node.what {
            What::List(list) => (1, &*list.items),
            What::SchemaOr(Or::Strings, _) => (2, &STRING),
            What::SchemaOr(Or::Array, schema) => (2, &**schema),
            _ => return Err(misplaced(self.node, "a list")),
        };
        while access
            .next_element_seed(Item {
                out: &mut *self.out,
                number,
                node,
                element: true,
            })?
            .is_some()
        {}
        Ok(())
    }
}
