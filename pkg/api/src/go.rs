//! Texts as Go's `fmt` prints them, where clients see them in upstream's words.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::codec::json;
use crate::float;

/// A tree with `%v`, as Go's maps and slices of anything are printed.
pub fn printed(value: &Value) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<String>>().join(" ");
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", list(&mut items.iter().map(printed))),
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let mut fields = fields.iter().map(|(name, value)| format!("{name}:{}", printed(value)));
            format!("map[{}]", list(&mut fields))
        }
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float::plain(float),
            _ => number.to_string(),
        },
        Value::Bool(_) => value.to_string(),
    }
}

/// A tree's type with `%T`.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A tree as JSON of Go's own package, which minds who might read it as HTML.
pub fn json(value: &Value) -> String {
    let mut text = Vec::new();
    json::print(value, &mut text);
    for_html(&String::from_utf8_lossy(&text)).into_owned()
}

/// A text of JSON with the letters escaped that Go escapes for HTML.
pub fn for_html(text: &str) -> Cow<'_, str> {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            other => out.push(other),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_minds_html() {
        let tree = serde_json::json!({"<a>": [2.0, "&\u{2028}"]});
        assert_eq!(json(&tree), "{\"\\u003ca\\u003e\":[2,\"\\u0026\\u2028\"]}");
    }

    #[test]
    fn trees_are_printed_as_go_does() {
        let tree = serde_json::json!({"b": [1, 2.5, null, true, 2.0, 1e30, 123456789.5], "a": {"x": "y z", "e": {}}});
        assert_eq!(
            printed(&tree),
            "map[a:map[e:map[] x:y z] b:[1 2.5 <nil> true 2 1e+30 1.234567895e+08]]"
        );
    }
}
