//! Protobuf → the tree of a type, in the form in which upstream would print the object.

use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value};

use super::{MAGIC, ProtobufError, wire};
use crate::codec::scalar as text;
use crate::codec::typed::{Context, fill, kept, zero_element};
use crate::codec::{DecodeError, MAX_DEPTH, Validation};
use crate::schema::{self, Any, Field, Fields, Node, Object, Or, Scalar, What, WireField};

/// What an envelope says of its object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    pub api_version: String,
    pub kind: String,
}

/// An envelope that has been opened and its object not yet: whether the kind is one that is wanted is asked first.
#[derive(Clone, Debug)]
pub struct Envelope<'b> {
    pub kind: Kind,
    raw: &'b [u8],
}

/// Decodes an object with its envelope; `apiVersion` and `kind` are put into the tree.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    Envelope::open(bytes)?.decode()
}

impl<'b> Envelope<'b> {
    /// Reads what an envelope says of its object; the fields of `kind` are empty where it names none.
    pub fn open(bytes: &'b [u8]) -> Result<Envelope<'b>, ProtobufError> {
        let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
        if unknown.is_empty() {
            return Err(ProtobufError::Empty);
        }
        let mut reader = Reader::new(unknown, "Unknown");
        let (mut kind, mut raw) = (Kind::default(), &[][..]);
        while let Some((number, wire_type)) = reader.key()? {
            match (number, wire_type) {
                (1, wire::BYTES) => {
                    let mut meta = Reader::new(reader.bytes()?, "TypeMeta");
                    while let Some((number, wire_type)) = meta.key()? {
                        match (number, wire_type) {
                            (1, wire::BYTES) => kind.api_version = meta.text()?,
                            (2, wire::BYTES) => kind.kind = meta.text()?,
                            _ => meta.skip(number, wire_type)?,
                        }
                    }
                }
                (2, wire::BYTES) => raw = reader.bytes()?,
                _ => reader.skip(number, wire_type)?,
            }
        }
        Ok(Envelope { kind, raw })
    }

    /// Decodes the object as the kind that the envelope names.
    pub fn decode(self) -> Result<Value, ProtobufError> {
        self.decode_within(MAX_DEPTH)
    }

    /// The same within the levels that a tree around it leaves.
    fn decode_within(self, levels: u8) -> Result<Value, ProtobufError> {
        let Kind { api_version, kind } = self.kind;
        if kind.is_empty() {
            return Err(ProtobufError::NoKind);
        }
        let Some(ty) = schema::by_api_version(&api_version, &kind) else {
            return Err(ProtobufError::UnknownKind { api_version, kind });
        };
        let mut map = Map::new();
        if let Some(object) = ty.as_object() {
            message(object, self.raw, &mut map, levels)?;
        }
        if !api_version.is_empty() {
            map.insert("apiVersion".into(), api_version.into());
        }
        map.insert("kind".into(), kind.into());
        Ok(Value::Object(map))
    }
}

/// Reads the parts of one message.
struct Reader<'b> {
    rest: &'b [u8],
    message: &'static str,
}

impl<'b> Reader<'b> {
    fn new(rest: &'b [u8], message: &'static str) -> Self {
        Reader { rest, message }
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    /// The next field's number and wire type; None at the end.
    fn key(&mut self) -> Result<Option<(u32, u8)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = (key >> 3) as u32;
        if number == 0 {
            return Err(self.illegal(number));
        }
        Ok(Some((number, (key & 7) as u8)))
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'b [u8], ProtobufError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn text(&mut self) -> Result<String, ProtobufError> {
        Ok(text::mended(self.bytes()?).into_owned())
    }

    fn double(&mut self) -> Result<f64, ProtobufError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(f64::from_le_bytes(bytes))
    }

    fn illegal(&self, number: u32) -> ProtobufError {
        ProtobufError::Wire {
            message: self.message,
            number,
        }
    }

    fn skip(&mut self, number: u32, wire_type: u8) -> Result<(), ProtobufError> {
        match wire_type {
            wire::VARINT => self.varint().map(drop),
            wire::FIXED64 => self.take(8).map(drop),
            wire::BYTES => self.bytes().map(drop),
            wire::FIXED32 => self.take(4).map(drop),
            _ => Err(self.illegal(number)),
        }
    }
}

/// The levels left inside an object or an array.
fn below(levels: u8) -> Result<u8, ProtobufError> {
    levels.checked_sub(1).ok_or(ProtobufError::TooDeep)
}

/// A message and what Go prints besides.
fn message(object: &Object, data: &[u8], map: &mut Map<String, Value>, levels: u8) -> Result<(), ProtobufError> {
    let known = object.known();
    fields(known, object.go_name(), data, map, below(levels)?)?;
    fill(known, map);
    Ok(())
}

fn fields(
    known: &Fields,
    message: &'static str,
    data: &[u8],
    map: &mut Map<String, Value>,
    levels: u8,
) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(data, message);
    while let Some((number, wire_type)) = reader.key()? {
        match known.wire(number) {
            None => reader.skip(number, wire_type)?,
            // An inlined struct's fields are the outer object's.
            Some(WireField::Inline(inner)) => match inner.as_object() {
                Some(inner) => fields(inner.known(), inner.go_name(), reader.bytes()?, map, levels)?,
                None => reader.skip(number, wire_type)?,
            },
            Some(WireField::Field(field)) => match &field.schema.what {
                What::List(items) if !items.wrapped => {
                    list(field, &items.items, wire_type, &mut reader, map, levels)?;
                }
                What::Map(entries) => entry(field, &entries.values, &mut reader, map, levels)?,
                _ => one(field, wire_type, &mut reader, map, levels)?,
            },
        }
    }
    Ok(())
}

fn one(
    field: &Field,
    wire_type: u8,
    reader: &mut Reader<'_>,
    map: &mut Map<String, Value>,
    levels: u8,
) -> Result<(), ProtobufError> {
    if let (What::Object(object), Some(Value::Object(inner))) = (&field.schema.what, map.get_mut(&*field.name)) {
        // A message that comes in several occurrences.
        return message(object, reader.bytes()?, inner, levels);
    }
    let value = item(&field.schema, wire_type, reader, levels)?;
    if kept(field, &value) {
        map.insert(field.name.to_string(), value);
    }
    Ok(())
}

fn list(
    field: &Field,
    items: &Node,
    wire_type: u8,
    reader: &mut Reader<'_>,
    map: &mut Map<String, Value>,
    levels: u8,
) -> Result<(), ProtobufError> {
    let levels = below(levels)?;
    let packed =
        wire_type == wire::BYTES && matches!(items.what, What::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool));
    let mut values = Vec::new();
    if packed {
        let mut inner = Reader::new(reader.bytes()?, reader.message);
        while !inner.rest.is_empty() {
            values.push(item(items, wire::VARINT, &mut inner, levels)?);
        }
    } else {
        let value = item(items, wire_type, reader, levels)?;
        if let Some(Value::Array(known)) = map.get_mut(&*field.name) {
            known.push(value);
            return Ok(());
        }
        values.push(value);
    }
    match map.get_mut(&*field.name) {
        Some(Value::Array(known)) => known.append(&mut values),
        _ => {
            map.insert(field.name.to_string(), Value::Array(values));
        }
    }
    Ok(())
}

fn entry(
    field: &Field,
    values: &Node,
    reader: &mut Reader<'_>,
    map: &mut Map<String, Value>,
    levels: u8,
) -> Result<(), ProtobufError> {
    let levels = below(levels)?;
    let mut inner = Reader::new(reader.bytes()?, reader.message);
    let (mut name, mut value) = (String::new(), None);
    while let Some((number, wire_type)) = inner.key()? {
        match (number, wire_type) {
            (1, wire::BYTES) => name = inner.text()?,
            (2, _) => value = Some(item(values, wire_type, &mut inner, levels)?),
            _ => inner.skip(number, wire_type)?,
        }
    }
    let value = value.unwrap_or_else(|| zero_element(values));
    match map.get_mut(&*field.name) {
        Some(Value::Object(entries)) => {
            entries.insert(name, value);
        }
        _ => {
            let mut entries = Map::new();
            entries.insert(name, value);
            map.insert(field.name.to_string(), Value::Object(entries));
        }
    }
    Ok(())
}

/// One value of a field, item of its list or value of its map.
fn item(node: &Node, wire_type: u8, reader: &mut Reader<'_>, levels: u8) -> Result<Value, ProtobufError> {
    let expected = match node.what {
        What::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64) => wire::VARINT,
        What::Scalar(Scalar::Double) => wire::FIXED64,
        _ => wire::BYTES,
    };
    if wire_type != expected {
        return Err(reader.illegal(u32::from(wire_type)));
    }
    match &node.what {
        What::Scalar(kind) => scalar(*kind, reader),
        What::Object(object) => {
            let mut inner = Map::new();
            message(object, reader.bytes()?, &mut inner, levels)?;
            Ok(Value::Object(inner))
        }
        What::Any(Any::Value) | What::Map(_) => Err(reader.illegal(u32::from(wire_type))),
        What::Any(_) => raw(first_bytes(reader.bytes()?)?, levels),
        What::List(list) => {
            let levels = below(levels)?;
            let mut inner = Reader::new(reader.bytes()?, "ExtraValue");
            let mut items = Vec::new();
            while let Some((number, wire_type)) = inner.key()? {
                match (number, wire_type) {
                    (1, wire::BYTES) => items.push(item(&list.items, wire_type, &mut inner, levels)?),
                    _ => inner.skip(number, wire_type)?,
                }
            }
            Ok(Value::Array(items))
        }
        What::SchemaOr(or, schema) => schema_or(*or, schema, reader.bytes()?, levels),
    }
}

/// A whole number is printed without a fraction, as Go prints it.
fn printed_double(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn scalar(kind: Scalar, reader: &mut Reader<'_>) -> Result<Value, ProtobufError> {
    Ok(match kind {
        Scalar::Bool => Value::Bool(reader.varint()? != 0),
        Scalar::Int32 => Value::from(reader.varint()? as i32),
        Scalar::Int64 => Value::from(reader.varint()? as i64),
        Scalar::Double => printed_double(reader.double()?),
        Scalar::String => Value::String(reader.text()?),
        Scalar::Bytes => Value::String(text::encode_base64(reader.bytes()?)),
        Scalar::Time => time(reader.bytes()?, |seconds, _| text::print_time(seconds))?,
        Scalar::MicroTime => time(reader.bytes()?, |seconds, nanos| {
            text::print_micro_time(seconds, (nanos / 1000).clamp(0, 999_999))
        })?,
        Scalar::Quantity => {
            let quantity = first_text(reader.bytes()?)?;
            match text::quantity(&quantity) {
                Ok(Some(canonical)) => canonical,
                // An empty message is the zero quantity.
                _ if quantity.is_empty() => Value::from("0"),
                _ => Value::String(quantity),
            }
        }
        Scalar::IntOrString => int_or_string(reader.bytes()?)?,
    })
}

fn time(data: &[u8], print: impl FnOnce(i64, i64) -> String) -> Result<Value, ProtobufError> {
    if data.is_empty() {
        return Ok(Value::Null);
    }
    let mut reader = Reader::new(data, "Timestamp");
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((number, wire_type)) = reader.key()? {
        match (number, wire_type) {
            (1, wire::VARINT) => seconds = reader.varint()? as i64,
            (2, wire::VARINT) => nanos = reader.varint()? as i64,
            _ => reader.skip(number, wire_type)?,
        }
    }
    Ok(print(seconds, nanos).into())
}

/// Field 1 of a message that has only that.
fn first_bytes(data: &[u8]) -> Result<&[u8], ProtobufError> {
    let mut reader = Reader::new(data, "value");
    let mut first = &[][..];
    while let Some((number, wire_type)) = reader.key()? {
        match (number, wire_type) {
            (1, wire::BYTES) => first = reader.bytes()?,
            _ => reader.skip(number, wire_type)?,
        }
    }
    Ok(first)
}

fn first_text(data: &[u8]) -> Result<String, ProtobufError> {
    Ok(text::mended(first_bytes(data)?).into_owned())
}

/// Embedded objects come as JSON, or with an envelope of their own. They lie in the same tree, and within its depth.
fn raw(bytes: &[u8], levels: u8) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(MAGIC) {
        return Envelope::open(bytes)?.decode_within(levels);
    }
    let mut context = Context::new(Validation::Ignore);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = context.seed_within(None, levels).deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| match context.error(&error) {
            DecodeError::TooDeep => ProtobufError::TooDeep,
            other => ProtobufError::Value(format!("embedded JSON: {other}")),
        })
}

fn int_or_string(data: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(data, "IntOrString");
    let (mut kind, mut number_value, mut text) = (0, 0, String::new());
    while let Some((number, wire_type)) = reader.key()? {
        match (number, wire_type) {
            (1, wire::VARINT) => kind = reader.varint()?,
            (2, wire::VARINT) => number_value = reader.varint()? as i32,
            (3, wire::BYTES) => text = reader.text()?,
            _ => reader.skip(number, wire_type)?,
        }
    }
    Ok(if kind == 0 { number_value.into() } else { text.into() })
}

fn schema_or(or: Or, ty: &Node, data: &[u8], levels: u8) -> Result<Value, ProtobufError> {
    let (mut allows, mut one, mut items) = (false, None, Vec::new());
    let mut reader = Reader::new(data, "JSONSchemaPropsOr");
    let schema_number = if or == Or::Bool { 2 } else { 1 };
    while let Some((number, wire_type)) = reader.key()? {
        match (number, wire_type) {
            (1, wire::VARINT) => allows = reader.varint()? != 0,
            (number, wire::BYTES) if number == schema_number => {
                one = Some(item(ty, wire_type, &mut reader, levels)?);
            }
            (2, wire::BYTES) if or == Or::Array => items.push(item(ty, wire_type, &mut reader, below(levels)?)?),
            (2, wire::BYTES) => {
                below(levels)?;
                items.push(Value::String(reader.text()?));
            }
            _ => reader.skip(number, wire_type)?,
        }
    }
    Ok(match (one, or) {
        (Some(schema), _) => schema,
        (None, Or::Bool) => Value::Bool(allows),
        (None, _) if items.is_empty() => Value::Null,
        (None, _) => Value::Array(items),
    })
}
