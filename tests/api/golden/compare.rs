//! How two answers differ: the places, and what stands there.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::pair::Answer;

/// How warnings end that upstream has not: of fields and kinds that nothing acts on yet.
const OWN: &str = "in this version of mk8s\"";

#[derive(Debug)]
pub struct Difference {
    /// `code`, `header/content-type`, `warning`, `warning/stored/spec.priority`, `text`, `body/spec/x`, `events/0/object/spec/x`.
    pub place: String,
    /// None: nothing stands there.
    pub expected: Option<Value>,
    pub found: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| {
            value
                .as_ref()
                .map_or("nothing".into(), |value| shortened(&value.to_string()))
        };
        write!(f, "{}: {} → {}", self.place, show(&self.expected), show(&self.found))
    }
}

fn shortened(text: &str) -> String {
    const LENGTH: usize = 300;
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

pub fn answers(expected: &Answer, found: &Answer) -> Vec<Difference> {
    let mut differences = Vec::new();
    if expected.code != found.code {
        // All else follows from it.
        let with_message = |answer: &Answer| match answer.body.get("message").and_then(Value::as_str) {
            Some(message) => format!("{} {message}", answer.code),
            None => answer.code.to_string(),
        };
        differences.push(Difference {
            place: "code".into(),
            expected: Some(with_message(expected).into()),
            found: Some(with_message(found).into()),
        });
        return differences;
    }
    let names: BTreeSet<&String> = expected.headers.keys().chain(found.headers.keys()).collect();
    for name in names {
        let value = |answer: &Answer| answer.headers.get(name).map(|value| value.as_str().into());
        one(
            &mut differences,
            format!("header/{name}"),
            value(expected),
            value(found),
        );
    }
    // Kinds and fields that nothing acts on yet say so, each in a place of its own.
    let (stored, warning): (Vec<&String>, Vec<&String>) = found.warning.iter().partition(|text| text.ends_with(OWN));
    for text in stored {
        let what = text.split_once('"').and_then(|(_, text)| text.split_once(": "));
        let place = format!("warning/stored/{}", what.map_or("", |(what, _)| what));
        one(&mut differences, place, None, Some(text.as_str().into()));
    }
    one(
        &mut differences,
        "warning".into(),
        Some(expected.warning.clone().into()),
        Some(serde_json::json!(warning)),
    );
    let events = |answer: &Answer| Value::Array(answer.events.clone());
    let (events, found_events) = (events(expected), events(found));
    trees(&mut differences, "body", &expected.body, &found.body);
    trees(&mut differences, "events", &events, &found_events);
    one(
        &mut differences,
        "text".into(),
        Some((&*expected.text).into()),
        Some((&*found.text).into()),
    );
    differences
}

fn one(differences: &mut Vec<Difference>, place: String, expected: Option<Value>, found: Option<Value>) {
    if expected != found {
        differences.push(Difference { place, expected, found });
    }
}

fn trees(differences: &mut Vec<Difference>, place: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                let place = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
                match (expected.get(key), found.get(key)) {
                    (Some(expected), Some(found)) => trees(differences, &place, expected, found),
                    (expected, found) => one(differences, place, expected.cloned(), found.cloned()),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                trees(differences, &format!("{place}/{index}"), expected, found);
            }
        }
        (Value::Array(expected), Value::Array(found)) if in_order(expected, found) => {
            named(differences, place, expected, found)
        }
        (expected, found) => one(differences, place.into(), Some(expected.clone()), Some(found.clone())),
    }
}

/// By what discovery's lists hold their items apart: groups, versions, resources and parts, in either shape.
fn name(item: &Value) -> Option<&str> {
    let names = [
        "/groupVersion",
        "/version",
        "/resource",
        "/subresource",
        "/name",
        "/metadata/name",
    ];
    names.iter().find_map(|name| item.pointer(name)?.as_str())
}

/// Whether all items have names of their own, and what stands in both lists has one order: then one more is no other list.
fn in_order(expected: &[Value], found: &[Value]) -> bool {
    let both = |list: &[Value], other: &[Value]| -> Vec<String> {
        let names: BTreeSet<&str> = other.iter().filter_map(name).collect();
        let shared = list.iter().filter_map(name).filter(|name| names.contains(name));
        shared.map(str::to_string).collect()
    };
    let is_named = |list: &[Value]| list.iter().filter_map(name).collect::<BTreeSet<_>>().len() == list.len();
    is_named(expected) && is_named(found) && both(expected, found) == both(found, expected)
}

fn named(differences: &mut Vec<Difference>, place: &str, expected: &[Value], found: &[Value]) {
    let names: BTreeSet<&str> = expected.iter().chain(found).filter_map(name).collect();
    for wanted in names {
        let place = format!("{place}/{}", wanted.replace('~', "~0").replace('/', "~1"));
        let of = |list: &'_ [Value]| list.iter().find(|item| name(item) == Some(wanted)).cloned();
        match (of(expected), of(found)) {
            (Some(expected), Some(found)) => trees(differences, &place, &expected, &found),
            (expected, found) => one(differences, place, expected, found),
        }
    }
}
