//! Paths by which a definition names a field of its objects: `.spec.name`, `.labels['a.b']`.

use mk8s_cel::Source;

/// Where a path leads to.
pub(crate) struct Found<'s> {
    pub(crate) names: Vec<String>,
    /// The path as errors show it.
    pub(crate) shown: String,
    pub(crate) schema: &'s dyn Source,
}

const ENDED: &str = "unexpected end of JSON path";

/// Follows a path from a schema; why it leads nowhere. `brackets`: names may stand in them.
pub(crate) fn resolve<'s>(path: &str, schema: &'s dyn Source, brackets: bool) -> Result<Found<'s>, String> {
    const NOWHERE: &str = "does not refer to a valid field";
    let mut rest = path;
    let mut found = Found {
        names: Vec::new(),
        shown: String::new(),
        schema,
    };
    while !rest.is_empty() {
        let name;
        (name, rest) = step(rest, brackets)?;
        match (found.schema.properties(), found.schema.values()) {
            (Some(properties), _) => {
                let field = properties.into_iter().find(|(own, _)| *own == name);
                if !found.shown.is_empty() {
                    found.shown.push('.');
                }
                found.shown.push_str(&name);
                found.schema = field.ok_or(NOWHERE)?.1;
            }
            (None, Some(values)) => {
                found.shown.push_str(&format!("[{name}]"));
                found.schema = values;
            }
            (None, None) => return Err(NOWHERE.into()),
        }
        found.names.push(name);
    }
    Ok(found)
}

/// The first step of a path, and what is after it.
fn step(path: &str, brackets: bool) -> Result<(String, &str), String> {
    if let Some(rest) = path.strip_prefix('.') {
        return match token(rest) {
            ("", _) => Err(ENDED.into()),
            (name, rest) => Ok((name.to_string(), rest)),
        };
    }
    let Some(inside) = path.strip_prefix('[') else {
        return Err(format!("expected [ or . but got: {}", token(path).0));
    };
    if !brackets {
        return Err("array notation is not allowed".into());
    }
    let (name, rest) = token(inside);
    let text = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
    let text = match text {
        Some(text) => unescaped(text)?,
        None if name.is_empty() => return Err(ENDED.into()),
        None => return Err(format!("expected single quoted string but got {name}")),
    };
    match token(rest) {
        ("]", rest) => Ok((text, rest)),
        ("", _) => Err(ENDED.into()),
        (other, _) => Err(format!("expected ] but got {other}")),
    }
}

/// Up to the next delimiter; a delimiter itself; or a quoted text.
fn token(text: &str) -> (&str, &str) {
    if let Some(quoted) = text.strip_prefix('\'') {
        let mut ends = quoted.match_indices('\'').map(|(at, _)| at);
        let end = ends.find(|&at| !quoted[..at].ends_with('\\')).map(|at| at + 2);
        return text.split_at(end.unwrap_or(text.len()));
    }
    match text.find(['.', '[', ']']) {
        Some(0) => text.split_at(1),
        Some(end) => text.split_at(end),
        None => (text, ""),
    }
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(c @ ('\'' | '\\')) => c,
                _ => return Err("invalid string literal".into()),
            },
            c => c,
        });
    }
    Ok(out)
}
