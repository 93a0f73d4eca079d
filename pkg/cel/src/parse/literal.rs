//! What a literal's text stands for.

use std::sync::Arc;

use crate::ast::Literal;

/// A string or bytes literal with its quotes and prefix; the error is worded for the user.
pub(super) fn text(text: &str, is_bytes: bool) -> Result<Literal, &'static str> {
    let inside = if is_bytes { &text[1..] } else { text };
    let decoded = unescape(inside, is_bytes)?;
    Ok(if is_bytes {
        Literal::Bytes(Arc::from(decoded))
    } else {
        Literal::String(Arc::from(
            String::from_utf8(decoded).map_err(|_| "unable to unescape string")?,
        ))
    })
}

pub(super) fn int(text: &str, negative: bool) -> Result<Literal, &'static str> {
    let (digits, radix) = radix(text);
    let magnitude = i128::from(u64::from_str_radix(digits, radix).map_err(|_| "invalid int literal")?);
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value)
        .map(Literal::Int)
        .map_err(|_| "invalid int literal")
}

pub(super) fn uint(text: &str) -> Result<Literal, &'static str> {
    let (digits, radix) = radix(&text[..text.len() - 1]);
    u64::from_str_radix(digits, radix)
        .map(Literal::Uint)
        .map_err(|_| "invalid uint literal")
}

pub(super) fn double(text: &str, negative: bool) -> Result<Literal, &'static str> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Literal::Double(if negative { -value } else { value })),
        _ => Err("invalid double literal"),
    }
}

fn radix(text: &str) -> (&str, u32) {
    text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16))
}

fn unescape(text: &str, is_bytes: bool) -> Result<Vec<u8>, &'static str> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let raw = text.starts_with(['r', 'R']);
    let text = &text[usize::from(raw)..];
    let quotes = if text.len() >= 6 && (text.starts_with("'''") || text.starts_with("\"\"\"")) {
        3
    } else {
        1
    };
    let mut rest = &text[quotes..text.len() - quotes];
    if raw {
        return Ok(rest.as_bytes().to_vec());
    }
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some(backslash) = rest.find('\\') {
        decoded.extend_from_slice(&rest.as_bytes()[..backslash]);
        rest = &rest[backslash + 1..];
        rest = escape(rest, is_bytes, &mut decoded)?;
    }
    decoded.extend_from_slice(rest.as_bytes());
    Ok(decoded)
}

/// Decodes the sequence whose backslash is read already, and returns what is after it.
fn escape<'s>(rest: &'s str, is_bytes: bool, decoded: &mut Vec<u8>) -> Result<&'s str, &'static str> {
    const UNABLE: &str = "unable to unescape string";
    let kind = *rest.as_bytes().first().ok_or(UNABLE)?;
    let simple = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'\'' | b'"' | b'`' | b'?' => kind,
        _ => 0,
    };
    if simple != 0 {
        decoded.push(simple);
        return Ok(&rest[1..]);
    }
    let (from, length, radix) = match kind {
        b'x' | b'X' => (1, 2, 16),
        b'u' if !is_bytes => (1, 4, 16),
        b'U' if !is_bytes => (1, 8, 16),
        b'0'..=b'3' => (0, 3, 8),
        _ => return Err(UNABLE),
    };
    let digits = rest.get(from..from + length).ok_or(UNABLE)?;
    let code = u32::from_str_radix(digits, radix).map_err(|_| UNABLE)?;
    if is_bytes {
        decoded.push(u8::try_from(code).map_err(|_| UNABLE)?);
    } else {
        let c = char::from_u32(code).ok_or("invalid unicode code point")?;
        decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&rest[from + length..])
}
