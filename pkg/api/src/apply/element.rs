//! One step of a field path: how a member of an object or of a list is told from the others.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

use crate::bounded;
use crate::codec::json;
use crate::go;
use crate::quote::quoted;

/// A step of a path. Ordered as clients see sets printed: fields, keys, values, indices.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of an object, or a key of a map.
    Field(Box<str>),
    /// The item of a list that has these key fields, sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// The item of a set.
    Value(Value),
    /// A place in a list whose items have no identity. Nothing makes these; clients may send them.
    Index(i64),
}

impl Element {
    pub fn field(name: &str) -> Element {
        Element::Field(name.into())
    }

    /// Reads `f:name`, `k:{"name":"a"}`, `v:"a"` or `i:0`.
    ///
    /// # Errors
    /// What is wrong with it; [`Unknown`](ElementError::Unknown) for a letter that a later version may know.
    pub fn parse(text: &str) -> Result<Element, ElementError> {
        let Some((letter, rest)) = text.split_at_checked(2) else {
            return Err(ElementError::Malformed);
        };
        match letter {
            "f:" => Ok(Element::field(rest)),
            "v:" => serde_json::from_str(rest)
                .map(Element::Value)
                .map_err(|_| ElementError::Malformed),
            "k:" => match serde_json::from_str(rest) {
                Ok(Value::Object(fields)) => Ok(Element::Key(
                    fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
                )),
                _ => Err(ElementError::Malformed),
            },
            "i:" => rest.parse().map(Element::Index).map_err(|_| ElementError::Malformed),
            _ if letter.ends_with(':') => Err(ElementError::Unknown),
            _ => Err(ElementError::Malformed),
        }
    }

    /// Appends the form that [`parse`](Element::parse) reads.
    pub fn print(&self, into: &mut String) {
        match self {
            Element::Field(name) => {
                into.push_str("f:");
                into.push_str(name);
            }
            Element::Key(fields) => {
                into.push_str("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        into.push(',');
                    }
                    print_json(&Value::String(name.to_string()), false, into);
                    into.push(':');
                    print_json(value, true, into);
                }
                into.push('}');
            }
            Element::Value(value) => {
                into.push_str("v:");
                print_json(value, true, into);
            }
            Element::Index(at) => {
                into.push_str("i:");
                into.push_str(itoa::Buffer::new().format(*at));
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

/// Why a text is no step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    #[error("not a path element")]
    Malformed,
    #[error("unknown path element type")]
    Unknown,
}

/// Values as upstream prints them here: whole floats without a fraction, and in values HTML's letters escaped.
fn print_json(value: &Value, escape: bool, into: &mut String) {
    let mut text = Vec::new();
    match value {
        Value::Number(number) => print_number(number, into),
        _ => json::print(value, &mut text),
    }
    let text = String::from_utf8_lossy(&text);
    into.push_str(&if escape { go::for_html(&text) } else { text });
}

fn print_number(number: &Number, into: &mut String) {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => {
            into.push_str(&format!("{float:.0}"));
        }
        _ => into.push_str(&number.to_string()),
    }
}

/// As conflicts name it: `.spec`, `[name="a"]`, `[="a"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                f.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", Shown(value))?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={}]", Shown(value)),
            Element::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// A path as conflicts name it: `.spec.containers[name="a"]`.
pub(super) fn told_path(path: &[Element]) -> String {
    let mut told = String::new();
    // Writing to a string does not fail.
    let _ = bounded::path(&mut told, |to| {
        path.iter().try_for_each(|element| write!(to, "{element}"))
    });
    told
}

/// A value inside a path: strings quoted as Go quotes them.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::String(text) => f.write_str(&quoted(bounded::step(text))),
            Value::Number(number) => {
                let mut text = String::new();
                print_number(number, &mut text);
                f.write_str(&text)
            }
            other => write!(f, "{other}"),
        }
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        match (self, other) {
            (Element::Field(one), Element::Field(two)) => one.cmp(two),
            (Element::Key(one), Element::Key(two)) => {
                for ((name, value), (other_name, other_value)) in one.iter().zip(two) {
                    let order = name.cmp(other_name).then_with(|| order(value, other_value));
                    if order.is_ne() {
                        return order;
                    }
                }
                one.len().cmp(&two.len())
            }
            (Element::Value(one), Element::Value(two)) => order(one, two),
            (Element::Index(one), Element::Index(two)) => one.cmp(two),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// A total order of values: numbers by their size, then strings, booleans, lists, maps, null.
pub(super) fn order(one: &Value, two: &Value) -> Ordering {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => match (one.as_i64(), two.as_i64()) {
            (Some(one), Some(two)) => one.cmp(&two),
            _ => {
                let float = |number: &Number| number.as_f64().unwrap_or(f64::MAX);
                float(one).total_cmp(&float(two))
            }
        },
        (Value::String(one), Value::String(two)) => one.cmp(two),
        (Value::Bool(one), Value::Bool(two)) => one.cmp(two),
        (Value::Array(one), Value::Array(two)) => {
            let different = one
                .iter()
                .zip(two)
                .map(|(one, two)| order(one, two))
                .find(|order| order.is_ne());
            different.unwrap_or_else(|| one.len().cmp(&two.len()))
        }
        (Value::Object(one), Value::Object(two)) => {
            let pairs = one.iter().zip(two);
            let different = pairs
                .map(|((key, value), (other_key, other))| key.cmp(other_key).then_with(|| order(value, other)))
                .find(|order| order.is_ne());
            different.unwrap_or_else(|| one.len().cmp(&two.len()))
        }
        _ => rank(one).cmp(&rank(two)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Whether two values are the same to apply: numbers by their size, whatever their form.
pub(super) fn equal(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| equal(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            let same = |((key, value), (other_key, other)): ((&String, &Value), (&String, &Value))| {
                key == other_key && equal(value, other)
            };
            one.len() == two.len() && one.iter().zip(two).all(same)
        }
        (Value::Number(_), Value::Number(_)) => order(one, two).is_eq(),
        _ => one == two,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn elements_are_read_and_printed() {
        for (text, path) in [
            ("f:spec", ".spec"),
            ("f:a/b.c", ".a/b.c"),
            (
                r#"k:{"containerPort":80,"protocol":"TCP"}"#,
                r#"[containerPort=80,protocol="TCP"]"#,
            ),
            (r#"v:"a\"b""#, r#"[="a\"b"]"#),
            ("v:1", "[=1]"),
            ("v:true", "[=true]"),
            ("i:3", "[3]"),
        ] {
            let element = Element::parse(text).unwrap();
            let mut printed = String::new();
            element.print(&mut printed);
            assert_eq!(printed, text);
            assert_eq!(element.to_string(), path);
        }
        for (text, expected) in [
            ("v:1.0", "v:1"),
            (r#"k:{"b":1,"a":"<&>"}"#, r#"k:{"a":"\u003c\u0026\u003e","b":1}"#),
        ] {
            let mut printed = String::new();
            Element::parse(text).unwrap().print(&mut printed);
            assert_eq!(printed, expected);
        }
        assert_eq!(Element::parse("x:1"), Err(ElementError::Unknown));
        for text in ["", "f", "fo", "k:1", "k:{", "v:{", "i:a", "日本"] {
            assert_eq!(Element::parse(text), Err(ElementError::Malformed), "{text}");
        }
    }

    #[test]
    fn elements_are_ordered() {
        let sorted = [
            "f:a",
            "f:b",
            r#"k:{"port":80}"#,
            r#"k:{"port":80,"protocol":"TCP"}"#,
            r#"k:{"port":443}"#,
            r#"k:{"port":"a"}"#,
            r#"k:{"q":1}"#,
            "v:2",
            "v:10",
            r#"v:"a""#,
            "v:false",
            "i:2",
            "i:10",
        ];
        let elements: Vec<Element> = sorted.iter().map(|text| Element::parse(text).unwrap()).collect();
        for (at, one) in elements.iter().enumerate() {
            for (other_at, other) in elements.iter().enumerate() {
                assert_eq!(one.cmp(other), at.cmp(&other_at), "{one} {other}");
            }
        }
    }
}
