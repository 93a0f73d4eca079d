//! Protobuf → the tree of a type, in the form in which upstream would print the object.

use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value};

use super::{MAGIC, ProtobufError, wire};
use crate::codec::typed::{Context, fill, kept};
use crate::codec::{DecodeError, MAX_DEPTH, Validation, scalar};
use crate::schema::{self, Base, FieldInfo, SCHEMA, Shape, TypeInfo, TypeRef, Wire};

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
        message(ty, self.raw, &mut map, levels)?;
        map.insert("apiVersion".into(), api_version.into());
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
        Err(ProtobufError::Truncated(self.message))
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
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(ProtobufError::Truncated(self.message))?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'b [u8], ProtobufError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn text(&mut self) -> Result<String, ProtobufError> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
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
fn message(ty: TypeRef, data: &[u8], map: &mut Map<String, Value>, levels: u8) -> Result<(), ProtobufError> {
    fields(ty.info(), data, map, below(levels)?)?;
    fill(ty.info(), map);
    Ok(())
}

fn fields(info: &'static TypeInfo, data: &[u8], map: &mut Map<String, Value>, levels: u8) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(data, info.go_name);
    while let Some((number, wire_type)) = reader.key()? {
        match info.wire(number) {
            None => reader.skip(number, wire_type)?,
            // An inlined struct's fields are the outer object's.
            Some(Wire::Inline(inner)) => fields(inner.info(), reader.bytes()?, map, levels)?,
            Some(Wire::Field(at)) => {
                let field = &info.fields[usize::from(at)];
                match field.shape {
                    Shape::One => one(field, wire_type, &mut reader, map, levels)?,
                    Shape::List => list(field, wire_type, &mut reader, map, levels)?,
                    Shape::Map => entry(field, &mut reader, map, levels)?,
                }
            }
        }
    }
    Ok(())
}

fn one(
    field: &'static FieldInfo,
    wire_type: u8,
    reader: &mut Reader<'_>,
    map: &mut Map<String, Value>,
    levels: u8,
) -> Result<(), ProtobufError> {
    if let (Base::Struct(ty), Some(Value::Object(inner))) = (field.base, map.get_mut(field.name)) {
        // A message that comes in several occurrences.
        return message(ty, reader.bytes()?, inner, levels);
    }
    let value = item(field.base, wire_type, reader, levels)?;
    if kept(field, &value) {
        map.insert(field.name.to_string(), value);
    }
    Ok(())
}

fn list(
    field: &'static FieldInfo,
    wire_type: u8,
    reader: &mut Reader<'_>,
    map: &mut Map<String, Value>,
    levels: u8,
) -> Result<(), ProtobufError> {
    let levels = below(levels)?;
    let packed = wire_type == wire::BYTES && matches!(field.base, Base::Int32 | Base::Int64 | Base::Bool);
    let mut values = Vec::new();
    if packed {
        let mut inner = Reader::new(reader.bytes()?, reader.message);
        while !inner.rest.is_empty() {
            values.push(item(field.base, wire::VARINT, &mut inner, levels)?);
        }
    } else {
        let value = item(field.base, wire_type, reader, levels)?;
        if let Some(Value::Array(items)) = map.get_mut(field.name) {
            items.push(value);
            return Ok(());
        }
        values.push(value);
    }
    match map.get_mut(field.name) {
        Some(Value::Array(items)) => items.append(&mut values),
        _ => {
            map.insert(field.name.to_string(), Value::Array(values));
        }
    }
    Ok(())
}

fn entry(
    field: &'static FieldInfo,
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
            (2, _) => value = Some(item(field.base, wire_type, &mut inner, levels)?),
            _ => inner.skip(number, wire_type)?,
        }
    }
    let value = value.unwrap_or_else(|| match field.base {
        Base::Struct(ty) => {
            let mut empty = Map::new();
            fill(ty.info(), &mut empty);
            Value::Object(empty)
        }
        Base::Quantity => "0".into(),
        Base::String | Base::Bytes => "".into(),
        Base::Bool => false.into(),
        Base::Int32 | Base::Int64 => 0.into(),
        _ => Value::Null,
    });
    match map.get_mut(field.name) {
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
fn item(base: Base, wire_type: u8, reader: &mut Reader<'_>, levels: u8) -> Result<Value, ProtobufError> {
    let expected = match base {
        Base::Bool | Base::Int32 | Base::Int64 => wire::VARINT,
        Base::Double => wire::FIXED64,
        _ => wire::BYTES,
    };
    if wire_type != expected {
        return Err(reader.illegal(u32::from(wire_type)));
    }
    Ok(match base {
        Base::Bool => Value::Bool(reader.varint()? != 0),
        Base::Int32 => Value::from(reader.varint()? as i32),
        Base::Int64 => Value::from(reader.varint()? as i64),
        Base::Double => Value::from(reader.double()?),
        Base::String => Value::String(reader.text()?),
        Base::Bytes => Value::String(scalar::encode_base64(reader.bytes()?)),
        Base::Struct(ty) => {
            let mut inner = Map::new();
            message(ty, reader.bytes()?, &mut inner, levels)?;
            Value::Object(inner)
        }
        Base::Time | Base::MicroTime => time(base, reader.bytes()?)?,
        Base::Quantity => {
            let text = first_text(reader.bytes()?)?;
            match scalar::quantity(&text) {
                Ok(Some(canonical)) => canonical,
                // An empty message is the zero quantity.
                _ if text.is_empty() => Value::from("0"),
                _ => Value::String(text),
            }
        }
        Base::IntOrString => int_or_string(reader.bytes()?)?,
        Base::FieldsV1 | Base::RawExtension | Base::Json => raw(first_bytes(reader.bytes()?)?, levels)?,
        Base::Strings => {
            below(levels)?;
            let mut inner = Reader::new(reader.bytes()?, "ExtraValue");
            let mut items = Vec::new();
            while let Some((number, wire_type)) = inner.key()? {
                match (number, wire_type) {
                    (1, wire::BYTES) => items.push(Value::String(inner.text()?)),
                    _ => inner.skip(number, wire_type)?,
                }
            }
            Value::Array(items)
        }
        Base::SchemaOrBool | Base::SchemaOrArray | Base::SchemaOrStrings => schema_or(base, reader.bytes()?, levels)?,
        Base::Any => return Err(reader.illegal(u32::from(wire_type))),
    })
}

fn time(base: Base, data: &[u8]) -> Result<Value, ProtobufError> {
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
    Ok(match base {
        Base::MicroTime => scalar::print_micro_time(seconds, (nanos / 1000).clamp(0, 999_999)).into(),
        _ => scalar::print_time(seconds).into(),
    })
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
    Ok(String::from_utf8_lossy(first_bytes(data)?).into_owned())
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

fn schema_or(base: Base, data: &[u8], levels: u8) -> Result<Value, ProtobufError> {
    let Some(ty) = SCHEMA.json_schema else {
        return Ok(Value::Null);
    };
    let (mut allows, mut one, mut items) = (false, None, Vec::new());
    let mut reader = Reader::new(data, "JSONSchemaPropsOr");
    let schema_number = if base == Base::SchemaOrBool { 2 } else { 1 };
    while let Some((number, wire_type)) = reader.key()? {
        match (number, wire_type) {
            (1, wire::VARINT) => allows = reader.varint()? != 0,
            (number, wire::BYTES) if number == schema_number => {
                one = Some(item(Base::Struct(ty), wire_type, &mut reader, levels)?);
            }
            (2, wire::BYTES) => {
                let inner = if base == Base::SchemaOrArray {
                    Base::Struct(ty)
                } else {
                    Base::String
                };
                items.push(item(inner, wire_type, &mut reader, below(levels)?)?);
            }
            _ => reader.skip(number, wire_type)?,
        }
    }
    Ok(match (one, base) {
        (Some(schema), _) => schema,
        (None, Base::SchemaOrBool) => Value::Bool(allows),
        (None, _) if items.is_empty() => Value::Null,
        (None, _) => Value::Array(items),
    })
}
