//! What differs from one run to the next, masked: the same rules as hack/update-golden/mask.go has for upstream's answers.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
        (r"20[2-9][0-9]-[01][0-9]-[0-3][0-9]T[0-9:]{8}\.[0-9]{6}Z", "<microtime>"),
        (r"20[2-9][0-9]-[01][0-9]-[0-3][0-9]T[0-9:]{8}Z", "<time>"),
        (r"kube-api-access-[a-z0-9]{5}\b", "kube-api-access-<5>"),
        (r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", "<token>"),
        (r"\bsome-[a-z0-9]{5}\b", "some-<5>"),
        (
            r"(resourceVersion\W{1,8}|in object meta: |current: |in record \()[0-9]+",
            "${1}<revision>",
        ),
        (r"Key: /registry/[^,]*", "Key: <key>"),
        (r"192\.0\.2\.1:[0-9]+", "192.0.2.1:<port>"),
        (r"\n(?:@@ [^\n]*\n(?:[-+ ][^\n]*\n)*)+", "\n<what differs>\n"),
        (r"\?hash=[0-9A-F]+", "?hash=<hash>"),
        (r"\b10\.96\.[1-9][0-9]*\.[0-9]+\b", "<address>"),
    ]
    .map(|(pattern, mask)| (Regex::new(pattern).unwrap(), mask))
    .into()
});

static AGE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^([0-9]+(ms|[smhdy]))+$").unwrap());

pub fn text(text: &str) -> String {
    let mut masked = Cow::Borrowed(text);
    for (pattern, mask) in PATTERNS.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&masked, *mask) {
            masked = Cow::Owned(replaced);
        }
    }
    masked.into_owned()
}

pub fn tree(value: Value) -> Value {
    match value {
        Value::Object(document) if document.contains_key("swagger") || document.contains_key("openapi") => {
            digested(document)
        }
        Value::Object(object) => Value::Object(self::object(object)),
        Value::Array(items) => items.into_iter().map(tree).collect(),
        Value::String(string) => Value::String(text(&string)),
        other => other,
    }
}

fn object(object: Map<String, Value>) -> Map<String, Value> {
    let mut masked = Map::new();
    for (key, value) in object {
        let is_text = value.as_str().unwrap_or_default();
        // Of a part that was picked, the key is the pointer to it.
        let value = match key.rsplit('/').next().unwrap_or_default() {
            "resourceVersion" if is_text != "0" && is_text.parse::<u64>().is_ok() => json!("<revision>"),
            "continue" if !is_text.is_empty() => json!("<continue>"),
            "nodePort" if value.as_u64().is_some_and(|port| port >= 30_086) => json!("<port>"),
            // Some of them come out of a set.
            "finalizers" => sorted(tree(value), |finalizer| finalizer.as_str().unwrap_or_default().into()),
            "managedFields" => sorted(tree(value), manager),
            "cells" => cells(tree(value)),
            "columnDefinitions" => without_descriptions(value),
            _ => tree(value),
        };
        masked.insert(key, value);
    }
    masked
}

/// What no two entries of managedFields share; their order is that of time, in seconds.
fn manager(entry: &Value) -> String {
    let fields = ["manager", "operation", "apiVersion", "subresource"];
    fields.map(|field| entry[field].as_str().unwrap_or_default()).join("\n")
}

fn sorted(mut list: Value, key: fn(&Value) -> String) -> Value {
    if let Some(items) = list.as_array_mut() {
        items.sort_by_cached_key(key);
    }
    list
}

/// An OpenAPI document, too long to be kept, with a digest in each item's place: of its JSON without prose.
fn digested(mut document: Map<String, Value>) -> Value {
    for place in ["definitions", "paths", "parameters"] {
        if let Some(items) = document.get_mut(place) {
            digests(items);
        }
    }
    if let Some(items) = document
        .get_mut("components")
        .and_then(|components| components.get_mut("schemas"))
    {
        digests(items);
    }
    Value::Object(document)
}

fn digests(items: &mut Value) {
    for item in items.as_object_mut().into_iter().flat_map(Map::values_mut) {
        drop_prose(item);
        let digest = ring::digest::digest(&ring::digest::SHA256, item.to_string().as_bytes());
        let hex: String = digest
            .as_ref()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        *item = hex.into();
    }
}

/// The places of a document that pointers point at; null where there is nothing.
pub fn picked(tree: &Value, pointers: &[String]) -> Value {
    let part = |pointer: &String| {
        let mut part = tree.pointer(pointer).cloned().unwrap_or_default();
        drop_prose(&mut part);
        (pointer.clone(), part)
    };
    Value::Object(pointers.iter().map(part).collect())
}

fn drop_prose(tree: &mut Value) {
    match tree {
        Value::Object(object) => {
            object.retain(|key, value| key != "description" || !value.is_string());
            object.values_mut().for_each(drop_prose);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_prose),
        _ => {}
    }
}

fn cells(mut cells: Value) -> Value {
    for cell in cells.as_array_mut().into_iter().flatten() {
        if cell.as_str().is_some_and(|text| AGE.is_match(text)) {
            *cell = json!("<age>");
        }
    }
    cells
}

fn without_descriptions(mut columns: Value) -> Value {
    for column in columns.as_array_mut().into_iter().flatten() {
        if let Some(column) = column.as_object_mut() {
            column.remove("description");
        }
    }
    columns
}
