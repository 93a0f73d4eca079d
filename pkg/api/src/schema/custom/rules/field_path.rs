//! `fieldPath`: the field that a rule's error is about, relative to the rule's own: `.spec.name`, `.labels['a.b']`.

use mk8s_cel::Source;

/// The path as errors show it; what is wrong with it where it leads to no field of the schema.
pub(super) fn normalized(path: &str, schema: &dyn Source) -> Result<String, &'static str> {
    const NOWHERE: &str = "does not refer to a valid field";
    let mut rest = path;
    let mut shown = String::new();
    let mut at = schema;
    while !rest.is_empty() {
        let (name, after) = step(rest)?;
        rest = after;
        match (at.properties(), at.values()) {
            (Some(properties), _) => {
                let found = properties.into_iter().find(|(own, _)| *own == name);
                if !shown.is_empty() {
                    shown.push('.');
                }
                shown.push_str(&name);
                at = found.ok_or(NOWHERE)?.1;
            }
            (None, Some(values)) => {
                shown.push_str(&format!("[{name}]"));
                at = values;
            }
            (None, None) => return Err(NOWHERE),
        }
    }
    Ok(shown)
}

/// The first step of a path, and what is after it.
fn step(path: &str) -> Result<(String, &str), &'static str> {
    const ENDED: &str = "unexpected end of JSON path";
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        return if end == 0 {
            Err(ENDED)
        } else {
            Ok((rest[..end].to_string(), &rest[end..]))
        };
    }
    let quoted = path.strip_prefix('[').ok_or("expected [ or .")?;
    let inside = quoted.strip_prefix('\'').ok_or("expected single quoted string")?;
    let mut name = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                let rest = inside[at + 1..].strip_prefix(']').ok_or("expected ]")?;
                return Ok((name, rest));
            }
            '\\' => name.push(match chars.next().ok_or(ENDED)?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c @ ('\'' | '\\') => c,
                _ => return Err("invalid string literal"),
            }),
            c => name.push(c),
        }
    }
    Err(ENDED)
}
