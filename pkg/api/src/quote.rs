//! Texts between quotes, as Go's `fmt` prints them.

use std::fmt::Write as _;

/// A string with `%q`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        // Writing to a string does not fail.
        let _ = match letter {
            '"' | '\\' => write!(out, "\\{letter}"),
            '\x07' => out.write_str("\\a"),
            '\x08' => out.write_str("\\b"),
            '\x0c' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\x0b' => out.write_str("\\v"),
            '\0'..='\x1f' | '\x7f' => write!(out, "\\x{:02x}", u32::from(letter)),
            '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{feff}' => write!(out, "\\u{:04x}", u32::from(letter)),
            _ => out.write_char(letter),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_go_does() {
        for (text, expected) in [
            ("a \"b\" \\", r#""a \"b\" \\""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
            ("\0\u{1}\u{1f}\u{7f}", r#""\x00\x01\x1f\x7f""#),
            ("é日本\u{85}'", r#""é日本\u0085'""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
