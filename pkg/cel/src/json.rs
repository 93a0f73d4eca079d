//! JSON as values, by what its schema says of it.

use base64::Engine as _;
use serde_json::{Map as Object, Value as Json};

use crate::decl::{Decl, RAW, What};
use crate::device;
use crate::library::time::{self, Time};
use crate::names;
use crate::value::{Failure, Items, List, Map, Outcome, Text, Value};

/// The value of JSON that `decl` declares.
pub(crate) fn read<'a>(json: &'a Json, decl: &'a Decl) -> Outcome<'a> {
    if json.is_null() {
        return if decl.nullable {
            Ok(Value::Null)
        } else {
            Err(Failure::new("invalid data, got null for schema with nullable=false"))
        };
    }
    match &decl.what {
        What::IntOrString => match json {
            Json::String(text) => Ok(Value::String(Text::Borrowed(text))),
            Json::Number(number) if number.as_i64().is_some() => Ok(Value::Int(number.as_i64().unwrap_or(0))),
            _ => Err(Failure::new(
                "invalid data, expected XIntOrString value to be either a string or integer",
            )),
        },
        What::Map(_) | What::ByDomain(_) | What::Object(_) => match json {
            Json::Object(object) => Ok(Value::Map(Map::Json(object, decl))),
            _ => Err(Failure::new(
                "invalid data, expected a map for the provided schema with type=object",
            )),
        },
        What::List { items, .. } => match json {
            Json::Array(array) => Ok(Value::List(List {
                items: Items::Json(array, items),
                declared: Some(decl),
            })),
            _ => Err(Failure::new(
                "invalid data, expected an array for the provided schema with type=array",
            )),
        },
        What::String | What::Bytes | What::Duration | What::Date | What::DateTime => match json {
            Json::String(text) => string(text, &decl.what),
            _ => Err(unfit("string", json)),
        },
        What::Double => json.as_f64().map(Value::Double).ok_or_else(|| unfit("float", json)),
        What::Int => json.as_i64().map(Value::Int).ok_or_else(|| unfit("int", json)),
        What::Bool => json.as_bool().map(Value::Bool).ok_or_else(|| unfit("bool", json)),
        What::Quantity => device::quantity(json),
        What::Attribute => device::attribute(json),
        What::Unknown => Ok(Value::Unknown(json)),
        What::Raw => Ok(raw(json)),
        What::Invalid if &*decl.schema_type == "array" => Err(Failure::new(
            "invalid array type, expected Items with a non-empty Schema",
        )),
        What::Invalid => Err(Failure::new(format!(
            "invalid type, expected object, array, number, integer, boolean or string, or no type with x-kubernetes-int-or-string or x-kubernetes-preserve-unknown-fields is true, got {}",
            decl.schema_type
        ))),
    }
}

/// The value of JSON that nothing is said of.
fn raw(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List {
            items: Items::Json(items, &RAW),
            declared: None,
        }),
        Json::Object(object) => Value::Map(Map::Json(object, &RAW)),
    }
}

/// A value as an optional holds it: without what a schema says of it.
pub(crate) fn plain(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Map(Map::Json(object, decl)) if !decl.is_of_device() => Value::Map(Map::Json(object, &RAW)),
        Value::List(List {
            items: Items::Json(items, _),
            ..
        }) => Value::List(List {
            items: Items::Json(items, &RAW),
            declared: None,
        }),
        Value::List(List { items, .. }) => Value::List(List { items, declared: None }),
        Value::Optional(Some(inner)) => plain((*inner).clone()),
        Value::Optional(None) => Value::Null,
        value => value,
    }
}

fn unfit(expected: &str, json: &Json) -> Failure {
    Failure::new(format!("invalid data, expected {expected}, got {}", kind(json)))
}

/// The kind of JSON in the words of the language that these errors come from.
fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_i64() => "int64",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

fn string<'a>(text: &'a str, what: &What) -> Outcome<'a> {
    let invalid = |what: &str| Failure::new(format!("Invalid {what} {text}: unable to parse {text} as {what}"));
    match what {
        What::Duration => time::parse_schema_duration(text)
            .map(Value::Duration)
            .ok_or_else(|| invalid("duration")),
        What::Date => Time::parse_date(text)
            .map(Value::Timestamp)
            .ok_or_else(|| invalid("date formatted string")),
        What::DateTime => Time::parse_date_time(text)
            .map(Value::Timestamp)
            .ok_or_else(|| invalid("date-time formatted string")),
        What::Bytes => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(error) => {
                let at = if let base64::DecodeError::InvalidByte(at, _) = error {
                    at
                } else {
                    text.len()
                };
                Err(Failure::new(format!(
                    "Invalid byte formatted string {text}: illegal base64 data at input byte {at}"
                )))
            }
        },
        _ => Ok(Value::String(Text::Borrowed(text))),
    }
}

/// The declaration of a property of an object or a map.
fn declared<'a>(decl: &'a Decl, property: &str) -> Option<&'a Decl> {
    match &decl.what {
        What::Map(values) | What::ByDomain(values) => Some(values),
        What::Raw => Some(decl),
        What::Object(object) => object.property(property).map(|field| &*field.decl),
        _ => None,
    }
}

fn is_structured(decl: &Decl) -> bool {
    matches!(&decl.what, What::Object(object) if object.structured)
}

/// The value of what an expression calls `name`.
pub(crate) fn property<'a>(
    object: &'a Object<String, Json>,
    decl: &'a Decl,
    name: &str,
) -> Result<Option<Value<'a>>, Failure> {
    let structured = is_structured(decl);
    let unescaped;
    let property = if structured && name.contains("__") {
        match names::unescape(name) {
            Some(property) => {
                unescaped = property;
                &*unescaped
            }
            None => return Ok(None),
        }
    } else {
        name
    };
    match object.get(property) {
        Some(value) if !(structured && value.is_null()) => {
            declared(decl, property).map(|decl| read(value, decl)).transpose()
        }
        _ => Ok(device::default(decl)),
    }
}

/// The names of an object's properties in expressions.
pub(crate) fn names<'a>(object: &'a Object<String, Json>, decl: &'a Decl) -> Vec<Value<'a>> {
    let structured = is_structured(decl);
    let declared = object.keys().filter(|property| declared(decl, property).is_some());
    let name = |property: &'a String| match structured.then(|| names::escape(property)).flatten() {
        Some(name) if name != *property => Value::text(name),
        _ => Value::String(Text::Borrowed(property)),
    };
    declared.map(name).collect()
}

/// Whether an object has what another map has. Properties that no schema describes can only be compared with those of
/// another object.
pub(crate) fn equals<'a>(object: &'a Object<String, Json>, decl: &'a Decl, other: &Map<'a>) -> Result<bool, Failure> {
    for (property, value) in object {
        if declared(decl, property).is_some() {
            let name = Value::String(Text::Borrowed(property));
            let (own, found) = (self::property(object, decl, property)?, other.find(&name)?);
            match (own, found) {
                (Some(own), Some(found)) if own.equals(&found)? => {}
                (None, None) => {}
                _ => return Ok(false),
            }
        } else {
            let other = match other {
                Map::Json(found, _) if other.is_declared() => found,
                _ => return Err(Failure::no_overload()),
            };
            if other.get(property).is_some_and(|found| found != value) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether JSON that nobody describes is what a value holds.
pub(crate) fn is_same(json: &Json, other: &Value<'_>) -> bool {
    match (json, other) {
        (json, Value::Unknown(other)) => json == *other,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::String(a), Value::String(b)) => **a == **b,
        (Json::Number(a), Value::Int(b)) => a.as_i64() == Some(*b),
        (Json::Number(a), Value::Double(b)) => !a.is_i64() && a.as_f64() == Some(*b),
        (Json::Object(a), Value::Map(Map::Json(b, _))) => a == *b,
        (
            Json::Array(a),
            Value::List(List {
                items: Items::Json(b, _),
                ..
            }),
        ) => a == b,
        _ => false,
    }
}
