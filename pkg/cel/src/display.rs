//! Values as text: as error messages show them, and as literals of the language.

use std::fmt;

use crate::library::{numbers, time};
use crate::value::{List, Map, Value};

/// In quotes, with what is not printed escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || c == '\u{feff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// As messages show it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(text) => f.write_str(text),
            Value::Double(number) => f.write_str(&numbers::general(*number)),
            Value::Duration(nanos) => f.write_str(&time::duration_text(*nanos)),
            Value::Timestamp(time) => f.write_str(&time.to_text()),
            other => f.write_str(&other.literal()),
        }
    }
}

impl Value<'_> {
    /// As it would be written in an expression.
    pub(crate) fn literal(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Uint(value) => format!("{value}u"),
            Value::Double(value) => double(*value),
            Value::String(text) => quoted(text),
            Value::Bytes(bytes) => format!(
                "b\"{}\"",
                bytes.iter().map(|b| format!("\\{b:03o}")).collect::<String>()
            ),
            Value::Duration(nanos) => format!("duration(\"{}\")", time::duration_text(*nanos)),
            Value::Timestamp(time) => format!("timestamp(\"{}\")", time.utc().to_text()),
            Value::Type(name) => name.to_string(),
            Value::List(list) => self::list(list),
            Value::Map(map) => self::map(map),
            Value::Optional(None) => "optional.none()".into(),
            Value::Optional(Some(value)) => format!("optional.of({})", value.literal()),
            Value::Ip(address) => address.to_string(),
            Value::Cidr(address, bits) => format!("{address}/{bits}"),
            Value::Quantity(_) | Value::Url(_) | Value::Semver(_) | Value::Format(_) => self.type_name().into(),
            Value::Unknown(json) => json.to_string(),
        }
    }
}

fn double(value: f64) -> String {
    if value.is_nan() {
        "double(\"NaN\")".into()
    } else if value.is_infinite() {
        format!("double(\"{}Infinity\")", if value < 0.0 { "-" } else { "" })
    } else {
        let text = numbers::fixed(value);
        if text.contains('.') { text } else { format!("{text}.0") }
    }
}

fn list(list: &List<'_>) -> String {
    let items: Vec<String> = list
        .iter()
        .map(|item| item.map_or_else(|error| error.to_string(), |item| item.literal()))
        .collect();
    format!("[{}]", items.join(", "))
}

fn map(map: &Map<'_>) -> String {
    let entry = |key: &Value<'_>| match map.find(key) {
        Ok(Some(value)) => (key.literal(), value.literal()),
        Ok(None) => (key.literal(), String::new()),
        Err(error) => (key.literal(), error.to_string()),
    };
    let mut entries: Vec<(String, String)> = map.keys().iter().map(entry).collect();
    entries.sort();
    let entries: Vec<String> = entries
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    format!("{{{}}}", entries.join(", "))
}
