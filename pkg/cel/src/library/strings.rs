//! Functions of strings. Places in them are code points.

use super::LARGEST_TEXT;
use crate::value::{Failure, List, Outcome, Text, Value};

fn out_of_range(index: i64) -> Failure {
    Failure::new(format!("index out of range: {index}"))
}

/// The byte at which a code point begins, or the end.
fn byte_at(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

pub(super) fn char_at<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(index)] = args else {
        return Err(Failure::NoOverload);
    };
    let at = byte_at(text, *index).ok_or_else(|| out_of_range(*index))?;
    Ok(Value::text(
        text[at..].chars().next().map(String::from).unwrap_or_default(),
    ))
}

pub(super) fn contains<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(holds(text, part))),
        _ => Err(Failure::no_overload()),
    }
}

pub(super) fn index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, *offset),
        _ => return Err(Failure::NoOverload),
    };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    let found = byte_at(text, offset).and_then(|from| Some((from, text[from..].find(&**part)?)));
    Ok(Value::Int(
        found.map_or(-1, |(from, at)| text[..from + at].chars().count() as i64),
    ))
}

pub(super) fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, Some(*offset)),
        _ => return Err(Failure::NoOverload),
    };
    let length = text.chars().count() as i64;
    if part.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(length)));
    }
    if offset.is_none() && text.len() < part.len() {
        return Ok(Value::Int(-1));
    }
    let offset = offset.unwrap_or(length - 1);
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    if offset >= length {
        return Ok(Value::Int(-1));
    }
    // The last place at which it may begin, and what it covers there.
    let from = byte_at(text, offset).unwrap_or(text.len());
    let end = text.floor_char_boundary(from + part.len());
    let found = text[..end].rfind(&**part);
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn ascii<'a>(args: &[Value<'a>], change: fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::text(change(text))),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn lower_ascii<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    ascii(args, str::to_ascii_lowercase)
}

pub(super) fn upper_ascii<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    ascii(args, str::to_ascii_uppercase)
}

pub(super) fn trim<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    ascii(args, |text| text.trim().to_string())
}

pub(super) fn replace<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, old, new, most) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [
            Value::String(text),
            Value::String(old),
            Value::String(new),
            Value::Int(most),
        ] => (text, old, new, *most),
        _ => return Err(Failure::NoOverload),
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(&**old).count()
    };
    if count.min(most).saturating_mul(new.len()) > LARGEST_TEXT {
        return Err(Failure::Cost);
    }
    Ok(Value::text(text.replacen(&**old, new, most)))
}

pub(super) fn split<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, most) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(most)] => (text, separator, *most),
        _ => return Err(Failure::NoOverload),
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let parts: Vec<Value<'a>> = if most == 0 {
        Vec::new()
    } else if separator.is_empty() {
        explode(text, most).into_iter().map(Value::text).collect()
    } else {
        text.splitn(most, &**separator).map(Value::text).collect()
    };
    Ok(Value::List(List::new(parts)))
}

/// Each character by itself; what is left in the last.
fn explode(text: &str, most: usize) -> Vec<&str> {
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).take(most).collect();
    let end = |i: usize| starts.get(i + 1).copied().unwrap_or(text.len());
    starts
        .iter()
        .enumerate()
        .map(|(i, start)| &text[*start..end(i)])
        .collect()
}

pub(super) fn substring<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return Err(Failure::NoOverload),
    };
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(Failure::new(format!(
            "invalid substring range. start: {start}, end: {end}"
        )));
    }
    let from = byte_at(text, start).ok_or_else(|| out_of_range(start))?;
    let to = end.map_or(Ok(text.len()), |end| {
        byte_at(text, end).ok_or_else(|| out_of_range(end))
    })?;
    Ok(match text {
        Text::Borrowed(text) => Value::String(Text::Borrowed(&text[from..to])),
        Text::Owned(text) => Value::text(&text[from..to]),
    })
}

pub(super) fn join<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return Err(Failure::NoOverload),
    };
    let mut joined = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            joined.push_str(separator);
        }
        if joined.len() > LARGEST_TEXT {
            return Err(Failure::Cost);
        }
        match item? {
            Value::String(text) => joined.push_str(&text),
            _ if i == 0 => return Err(Failure::NoOverload),
            other => return Err(Failure::new(format!("join: invalid input: {other}"))),
        }
    }
    Ok(Value::text(joined))
}

pub(super) fn quote<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    ascii(args, |text| {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '\u{7}' => quoted.push_str("\\a"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{b}' => quoted.push_str("\\v"),
                '\\' => quoted.push_str("\\\\"),
                '"' => quoted.push_str("\\\""),
                c => quoted.push(c),
            }
        }
        quoted + "\""
    })
}
