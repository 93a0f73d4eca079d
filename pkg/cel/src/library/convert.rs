//! Conversions between types.

use std::sync::Arc;

use super::numbers;
use super::time::{self, Time};
use crate::value::{Failure, Outcome, Value};

fn unable(value: &Value<'_>, to: &str) -> Failure {
    Failure::new(format!("type conversion error from '{}' to '{to}'", value.type_name()))
}

pub(super) fn to_int<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    Ok(Value::Int(match value {
        Value::Int(number) => *number,
        Value::Uint(number) => i64::try_from(*number).map_err(|_| Failure::new("integer overflow"))?,
        Value::Double(number) if *number > i64::MIN as f64 && *number < i64::MAX as f64 => *number as i64,
        Value::Double(_) => return Err(Failure::new("integer overflow")),
        Value::String(text) => go_integer(text).ok_or_else(|| unable(value, "int"))?,
        Value::Timestamp(time) => time.unix(),
        Value::Duration(nanos) => *nanos,
        _ => return Err(Failure::NoOverload),
    }))
}

fn go_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

pub(super) fn to_uint<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    let overflow = || Failure::new("unsigned integer overflow");
    Ok(Value::Uint(match value {
        Value::Uint(number) => *number,
        Value::Int(number) => u64::try_from(*number).map_err(|_| overflow())?,
        Value::Double(number) if *number >= 0.0 && *number < u64::MAX as f64 => *number as u64,
        Value::Double(_) => return Err(overflow()),
        Value::String(text) if !text.starts_with('+') => text.parse().map_err(|_| unable(value, "uint"))?,
        Value::String(_) => return Err(unable(value, "uint")),
        _ => return Err(Failure::NoOverload),
    }))
}

pub(super) fn to_double<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    Ok(Value::Double(match value {
        Value::Double(number) => *number,
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() || !text.bytes().any(|b| b.is_ascii_digit()) => number,
            _ => return Err(unable(value, "double")),
        },
        _ => return Err(Failure::NoOverload),
    }))
}

pub(super) fn to_bool<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    Ok(Value::Bool(match value {
        Value::Bool(set) => *set,
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return Err(unable(value, "bool")),
        },
        _ => return Err(Failure::NoOverload),
    }))
}

pub(super) fn to_bytes<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => Ok(Value::Bytes(Arc::from(text.as_bytes()))),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn to_text<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    Ok(match value {
        Value::String(text) => Value::String(text.clone()),
        Value::Bool(set) => Value::text(set.to_string()),
        Value::Int(number) => Value::text(number.to_string()),
        Value::Uint(number) => Value::text(number.to_string()),
        Value::Double(number) => Value::text(numbers::general(*number)),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return Err(Failure::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Duration(nanos) => Value::text(time::duration_text(*nanos)),
        Value::Timestamp(time) => Value::text(time.to_text()),
        Value::Ip(_) | Value::Cidr(..) => Value::text(value.literal()),
        _ => return Err(Failure::NoOverload),
    })
}

pub(super) fn to_duration<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    match value {
        Value::Duration(nanos) => Ok(Value::Duration(*nanos)),
        Value::String(text) => {
            let nanos = time::parse_duration(text);
            nanos
                .map(Value::Duration)
                .ok_or_else(|| unable(value, "google.protobuf.Duration"))
        }
        Value::Int(_) => Err(unable(value, "google.protobuf.Duration")),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn to_timestamp<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    match value {
        Value::Timestamp(time) => Ok(Value::Timestamp(*time)),
        Value::String(text) => {
            let time = Time::parse(text);
            time.map(Value::Timestamp)
                .ok_or_else(|| unable(value, "google.protobuf.Timestamp"))
        }
        Value::Int(seconds) => Time::from_unix(*seconds)
            .map(Value::Timestamp)
            .ok_or_else(|| Failure::new("timestamp overflow")),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn type_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::Type(value.type_name().into())),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn to_dyn<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(value.clone()),
        _ => Err(Failure::NoOverload),
    }
}
