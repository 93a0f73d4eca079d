//! Paths by which a definition names a field of its objects: `.spec.replicas`, `['a key']`.

use serde_json::Value;

use super::super::has;
use super::structural::{fields, schema_at};

/// The names on the way, and the schema of the field that the path leads to; or why it leads nowhere. `quoted`: names may
/// stand in brackets.
pub(super) fn resolve<'v>(path: &str, schema: &'v Value, quoted: bool) -> Result<(Vec<String>, &'v Value), String> {
    let (mut schema, mut names, mut rest) = (schema, Vec::new(), path);
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = token(after);
            if name.is_empty() {
                return Err("unexpected end of JSON path".into());
            }
            rest = after;
            name.to_string()
        } else if let Some(after) = rest.strip_prefix('[') {
            if !quoted {
                return Err("array notation is not allowed".into());
            }
            let (name, after) = token(after);
            let inner = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
            let inner = inner.ok_or_else(|| format!("expected single quoted string but got {name}"))?;
            rest = after.strip_prefix(']').ok_or("unexpected end of JSON path")?;
            inner.replace("\\'", "'").replace("\\\\", "\\")
        } else {
            return Err(format!("expected [ or . but got: {}", token(rest).0));
        };
        schema = below(schema, &name).ok_or("does not refer to a valid field")?;
        names.push(name);
    }
    Ok((names, schema))
}

fn below<'v>(schema: &'v Value, name: &str) -> Option<&'v Value> {
    if fields(schema, "properties").next().is_some() {
        return has(schema, "properties")?.get(name);
    }
    schema_at(schema, "additionalProperties")
}

/// Up to the next delimiter; a delimiter itself; or a quoted text.
fn token(text: &str) -> (&str, &str) {
    if let Some(quoted) = text.strip_prefix('\'') {
        let ends = quoted.match_indices('\'').map(|(at, _)| at);
        let end = ends.filter(|&at| !quoted[..at].ends_with('\\')).map(|at| at + 2).next();
        return text.split_at(end.unwrap_or(text.len()));
    }
    match text.find(['.', '[', ']']) {
        Some(0) => text.split_at(1),
        Some(end) => text.split_at(end),
        None => (text, ""),
    }
}
