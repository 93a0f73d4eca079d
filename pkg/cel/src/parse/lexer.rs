//! The words of an expression. What is no word is reported as the well-known lexers of the language report it, passed over,
//! and the rest is still read.

use crate::source::Issue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ident,
    /// An identifier in backticks, which Kubernetes does not allow.
    Escaped,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    True,
    False,
    Null,
    In,
    /// An operator or a bracket, by its text.
    Sign(&'static str),
    End,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'s> {
    pub word: Word,
    pub text: &'s str,
    /// The place in code points.
    pub at: u32,
}

/// The longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "=",
];

/// All words of `source`, with `End` as the last.
pub(crate) fn words<'s>(source: &'s str, issues: &mut Vec<Issue>) -> Vec<Token<'s>> {
    let mut words = Vec::new();
    let mut rest = source;
    let mut at = 0;
    while !rest.is_empty() {
        let (length, word) = match next(rest) {
            Next::Word(length, word) => (length, Some(word)),
            Next::Space(length) => (length, None),
            Next::Unknown(length) => {
                let shown = rest[..length]
                    .replace('\n', "\\n")
                    .replace('\t', "\\t")
                    .replace('\r', "\\r");
                issues.push(Issue::at(
                    at,
                    format!("Syntax error: token recognition error at: '{shown}'"),
                ));
                (length, None)
            }
        };
        let (text, after) = rest.split_at(length);
        if let Some(word) = word {
            words.push(Token { word, text, at });
        }
        at += text.chars().count() as u32;
        rest = after;
    }
    words.push(Token {
        word: Word::End,
        text: "<EOF>",
        at,
    });
    words
}

enum Next {
    Word(usize, Word),
    Space(usize),
    /// So many bytes are no word: what was read when it became clear, with the character that made it so.
    Unknown(usize),
}

fn next(rest: &str) -> Next {
    let bytes = rest.as_bytes();
    let first = bytes[0];
    if matches!(first, b' ' | b'\t' | b'\r' | b'\n' | 0x0c) {
        return Next::Space(count(bytes, |b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x0c)));
    }
    if rest.starts_with("//") {
        return Next::Space(rest.find('\n').unwrap_or(rest.len()));
    }
    if let Some(next) = quoted(rest) {
        return next;
    }
    if first.is_ascii_alphabetic() || first == b'_' {
        let length = count(bytes, |b| b.is_ascii_alphanumeric() || b == b'_');
        return Next::Word(length, keyword(&rest[..length]));
    }
    if first.is_ascii_digit() || (first == b'.' && bytes.get(1).is_some_and(u8::is_ascii_digit)) {
        return number(bytes);
    }
    if first == b'`' {
        let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b' ');
        let length = 1 + count(&bytes[1..], inside);
        return if length > 1 && bytes.get(length) == Some(&b'`') {
            Next::Word(length + 1, Word::Escaped)
        } else {
            Next::Unknown(with_next(rest, length))
        };
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(&"=") => Next::Unknown(with_next(rest, 1)),
        Some(sign) => Next::Word(sign.len(), Word::Sign(sign)),
        None if matches!(first, b'&' | b'|') => Next::Unknown(with_next(rest, 1)),
        None => Next::Unknown(with_next(rest, 0)),
    }
}

fn keyword(text: &str) -> Word {
    match text {
        "true" => Word::True,
        "false" => Word::False,
        "null" => Word::Null,
        "in" => Word::In,
        _ => Word::Ident,
    }
}

fn count(bytes: &[u8], of: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|b| of(**b)).count()
}

/// `length` and the character after it, if there is one.
fn with_next(rest: &str, length: usize) -> usize {
    length + rest[length..].chars().next().map_or(0, char::len_utf8)
}

fn number(bytes: &[u8]) -> Next {
    let unsigned = |length: usize| match bytes.get(length) {
        Some(b'u' | b'U') => Next::Word(length + 1, Word::Uint),
        _ => Next::Word(length, Word::Int),
    };
    if bytes.starts_with(b"0x") && bytes.get(2).is_some_and(u8::is_ascii_hexdigit) {
        return unsigned(2 + count(&bytes[2..], |b| b.is_ascii_hexdigit()));
    }
    let whole = count(bytes, |b| b.is_ascii_digit());
    let mut length = whole;
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        length += 1 + count(&bytes[length + 1..], |b| b.is_ascii_digit());
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let digits = count(bytes.get(length + 1 + sign..).unwrap_or_default(), |b| {
            b.is_ascii_digit()
        });
        if digits > 0 {
            length += 1 + sign + digits;
        }
    }
    if length == whole {
        unsigned(whole)
    } else {
        Next::Word(length, Word::Float)
    }
}

/// A string or bytes literal, or what begins as one and ends nowhere; `None` where none begins.
fn quoted(rest: &str) -> Option<Next> {
    let bytes = rest.as_bytes();
    let mut prefix = 0;
    let is_bytes = matches!(bytes.first(), Some(b'b' | b'B'));
    prefix += usize::from(is_bytes);
    let raw = matches!(bytes.get(prefix), Some(b'r' | b'R'));
    prefix += usize::from(raw);
    let quote = *bytes.get(prefix)?;
    if !matches!(quote, b'"' | b'\'') {
        return None;
    }
    let word = if is_bytes { Word::Bytes } else { Word::String };
    let triple = bytes[prefix..].starts_with(&[quote; 3]);
    if triple && let Ok(end) = ending(rest, prefix + 3, quote, true, raw) {
        return Some(Next::Word(end, word));
    }
    Some(match ending(rest, prefix + 1, quote, false, raw) {
        Ok(end) => Next::Word(end, word),
        // What looks like a prefix is a name then.
        Err(_) if prefix > 0 => return None,
        Err(stuck) => Next::Unknown(stuck),
    })
}

/// Where a literal whose inside begins at `from` ends, or where it became clear that it is none.
fn ending(rest: &str, from: usize, quote: u8, triple: bool, raw: bool) -> Result<usize, usize> {
    let bytes = rest.as_bytes();
    let mut i = from;
    loop {
        let Some(&b) = bytes.get(i) else { return Err(rest.len()) };
        if b == quote && (!triple || bytes[i..].starts_with(&[quote; 3])) {
            return Ok(i + if triple { 3 } else { 1 });
        }
        if !triple && matches!(b, b'\n' | b'\r') {
            return Err(i + 1);
        }
        if b == b'\\' && !raw {
            i += escape(&bytes[i..]).map_err(|stuck| with_next(rest, (i + stuck).min(rest.len())))?;
        } else {
            i = with_next(rest, i);
        }
    }
}

/// The length of an escape sequence, or how many bytes of it are good.
fn escape(bytes: &[u8]) -> Result<usize, usize> {
    let hex = |digits: usize| {
        let good = count(bytes[2..].get(..digits.min(bytes.len() - 2)).unwrap_or_default(), |b| {
            b.is_ascii_hexdigit()
        });
        if good == digits { Ok(2 + digits) } else { Err(2 + good) }
    };
    match bytes.get(1) {
        Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`') => Ok(2),
        Some(b'x' | b'X') => hex(2),
        Some(b'u') => hex(4),
        Some(b'U') => hex(8),
        Some(b'0'..=b'3') => {
            let good = count(&bytes[2..bytes.len().min(4)], |b| matches!(b, b'0'..=b'7'));
            if good == 2 { Ok(4) } else { Err(2 + good) }
        }
        _ => Err(1),
    }
}
