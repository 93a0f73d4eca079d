//! What is wrong with a JSON text, in the words of Go's scanner, which is what people know from upstream. Asked of texts
//! alone that are known to be refused: a second pass in its own words costs nothing then.

use crate::quote::quoted;

/// Where the scanner is within a value.
#[derive(Clone, Copy)]
enum At {
    Value,
    /// After `[`: a value, or the array's end.
    FirstValue,
    Key,
    /// After `{`: a key, or the object's end.
    FirstKey,
    End,
    Text,
    Escape,
    /// So many digits are left of `\u`.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// So much of a literal has been read.
    Literal(&'static str, usize),
}

/// What a value lies in, and which part of it comes.
#[derive(Clone, Copy)]
enum Within {
    Key,
    Member,
    Array,
}

/// The first fault of a text; none where it is one JSON value.
///
/// ```
/// use mk8s_api::codec::syntax;
/// assert_eq!(syntax::fault(br#"{"a":1,}"#).as_deref(), Some("invalid character '}' looking for beginning of object key string"));
/// assert_eq!(syntax::fault(b" [1, 2] "), None);
/// ```
pub fn fault(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner {
        at: At::Value,
        within: Vec::new(),
    };
    for byte in text {
        if let Err(place) = scanner.step(*byte) {
            return Some(said(*byte, &place));
        }
    }
    // A number ends with the text, and a blank shows whether anything else does.
    match scanner.step(b' ') {
        Err(place) => Some(said(b' ', &place)),
        Ok(()) if scanner.within.is_empty() && matches!(scanner.at, At::End) => None,
        Ok(()) => Some("unexpected end of JSON input".into()),
    }
}

/// A text that has no fault with the replacement character for each escaped surrogate that has no other half, as Go's reader
/// takes it, and ours does not; none where there is no such.
///
/// ```
/// use mk8s_api::codec::syntax;
/// assert_eq!(syntax::without_halves(r#"["\ud800","\ud83d\ude00"]"#).as_deref(), Some(r#"["\ufffd","\ud83d\ude00"]"#));
/// assert_eq!(syntax::without_halves(r#"["\\ud800"]"#), None);
/// ```
pub fn without_halves(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(next) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += next;
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                mended.push_str(&text[copied..at]);
                mended.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            (Some(_), _) => 6,
            // What is escaped is one byte, where the text is JSON.
            (None, _) => 2,
        };
    }
    mended.push_str(&text[copied..]);
    (copied > 0).then_some(mended)
}

fn said(byte: u8, place: &str) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_string(),
        b'"' => "\"".to_string(),
        _ => quoted(&char::from(byte).to_string()).trim_matches('"').to_string(),
    };
    format!("invalid character '{shown}' {place}")
}

struct Scanner {
    at: At,
    within: Vec<Within>,
}

impl Scanner {
    /// Reads a byte; an error is the place in which it may not stand.
    fn step(&mut self, byte: u8) -> Result<(), String> {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let digit = byte.is_ascii_digit();
        let exponent = matches!(byte, b'e' | b'E');
        self.at = match (self.at, byte) {
            (At::Value | At::FirstValue | At::Key | At::FirstKey | At::End, _) if blank => self.at,
            (At::FirstValue, b']') | (At::End, _) => return self.end(byte),
            (At::FirstKey, b'}') => {
                self.within.pop();
                At::End
            }
            (At::Value | At::FirstValue, _) => return self.begin(byte),
            (At::Key | At::FirstKey, b'"') => At::Text,
            (At::Key | At::FirstKey, _) => return Err("looking for beginning of object key string".into()),
            (At::Text, b'"') => At::End,
            (At::Text, b'\\') => At::Escape,
            (At::Text, ..=0x1f) => return Err("in string literal".into()),
            (At::Text, _) => At::Text,
            (At::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => At::Text,
            (At::Escape, b'u') => At::Hex(4),
            (At::Escape, _) => return Err("in string escape code".into()),
            (At::Hex(1), _) if byte.is_ascii_hexdigit() => At::Text,
            (At::Hex(left), _) if byte.is_ascii_hexdigit() => At::Hex(left - 1),
            (At::Hex(_), _) => return Err("in \\u hexadecimal character escape".into()),
            (At::Minus, b'0') => At::Zero,
            (At::Minus | At::Digits, _) if digit => At::Digits,
            (At::Minus, _) => return Err("in numeric literal".into()),
            (At::Zero | At::Digits, b'.') => At::Point,
            (At::Zero | At::Digits | At::Fraction, _) if exponent => At::Exponent,
            (At::Point | At::Fraction, _) if digit => At::Fraction,
            (At::Point, _) => return Err("after decimal point in numeric literal".into()),
            (At::Exponent, b'+' | b'-') => At::ExponentSign,
            (At::Exponent | At::ExponentSign | At::ExponentDigits, _) if digit => At::ExponentDigits,
            (At::Exponent | At::ExponentSign, _) => return Err("in exponent of numeric literal".into()),
            (At::Zero | At::Digits | At::Fraction | At::ExponentDigits, _) => return self.end(byte),
            (At::Literal(word, read), _) => match word.as_bytes().get(read) {
                Some(next) if *next == byte && read + 1 == word.len() => At::End,
                Some(next) if *next == byte => At::Literal(word, read + 1),
                next => {
                    let next = char::from(next.copied().unwrap_or_default());
                    return Err(format!("in literal {word} (expecting '{next}')"));
                }
            },
        };
        Ok(())
    }

    fn begin(&mut self, byte: u8) -> Result<(), String> {
        self.at = match byte {
            b'{' => {
                self.within.push(Within::Key);
                At::FirstKey
            }
            b'[' => {
                self.within.push(Within::Array);
                At::FirstValue
            }
            b'"' => At::Text,
            b'-' => At::Minus,
            b'0' => At::Zero,
            b'1'..=b'9' => At::Digits,
            b't' => At::Literal("true", 1),
            b'f' => At::Literal("false", 1),
            b'n' => At::Literal("null", 1),
            _ => return Err("looking for beginning of value".into()),
        };
        Ok(())
    }

    /// Reads what follows a value, a key or an element.
    fn end(&mut self, byte: u8) -> Result<(), String> {
        let within = self.within.last_mut();
        self.at = match (within, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => At::End,
            (None, _) => return Err("after top-level value".into()),
            (Some(within @ Within::Key), b':') => {
                *within = Within::Member;
                At::Value
            }
            (Some(within @ Within::Member), b',') => {
                *within = Within::Key;
                At::Key
            }
            (Some(Within::Array), b',') => At::Value,
            (Some(Within::Member), b'}') | (Some(Within::Array), b']') => {
                self.within.pop();
                At::End
            }
            (Some(Within::Key), _) => return Err("after object key".into()),
            (Some(Within::Member), _) => return Err("after object key:value pair".into()),
            (Some(Within::Array), _) => return Err("after array element".into()),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_as_go_tells_them() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            (r#"{"a""#, "unexpected end of JSON input"),
            (r#"{"a":"abc"#, "unexpected end of JSON input"),
            ("nul", "invalid character ' ' in literal null (expecting 'l')"),
            ("tru3", "invalid character '3' in literal true (expecting 'e')"),
            (r#"{"a":01}"#, "invalid character '1' after object key:value pair"),
            (
                r#"{"a":1.}"#,
                "invalid character '}' after decimal point in numeric literal",
            ),
            (r#"{"a":-}"#, "invalid character '}' in numeric literal"),
            (r#"{"a":1e}"#, "invalid character '}' in exponent of numeric literal"),
            (
                "{'a':1}",
                r"invalid character '\'' looking for beginning of object key string",
            ),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, r#"invalid character '"' after object key:value pair"#),
            ("{\"a\":\"\n\"}", r"invalid character '\n' in string literal"),
            (r#"{"a":"\x"}"#, "invalid character 'x' in string escape code"),
            (
                r#"{"a":"\u12"}"#,
                "invalid character '\"' in \\u hexadecimal character escape",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (r#"{"a":[1,2}"#, "invalid character '}' after array element"),
            (r#"{"a":1}{"#, "invalid character '{' after top-level value"),
            ("é", "invalid character 'Ã' looking for beginning of value"),
            ("]", "invalid character ']' looking for beginning of value"),
            (r"\", r"invalid character '\\' looking for beginning of value"),
        ] {
            assert_eq!(fault(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "[]",
            "{}",
            "-0.5e+1",
            "[[],{},\"\\u00e9\",null]",
            "{\"a\":{\"b\":[1,2]},\"c\":0}",
            " true\n",
        ] {
            assert_eq!(fault(text.as_bytes()), None, "{text}");
        }
    }

    /// Whatever serde_json refuses has a fault, and nothing else.
    #[test]
    fn it_agrees_with_the_reader() {
        let alphabet = b"{}[]:,\"\\ue0-1.+ntrualse x";
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap_or_default() % below
        };
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..next(9)).map(|_| alphabet[next(alphabet.len())]).collect();
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(&text);
            assert_eq!(
                fault(&text).is_none(),
                read.is_ok(),
                "{}",
                String::from_utf8_lossy(&text)
            );
        }
    }
}
