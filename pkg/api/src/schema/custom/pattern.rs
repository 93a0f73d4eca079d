//! Patterns are Go's (RE2): much the same as this engine's, but that `\d`, `\w`, `\s` and `\b` are of ASCII.

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take.
const LARGEST: usize = 1 << 20;

/// Compiles a pattern; the error is what Go's engine says of it, as far as this one knows.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&of_ascii(pattern))
        .size_limit(LARGEST)
        .dfa_size_limit(LARGEST)
        .build();
    built.map_err(|error| {
        let text = error.to_string();
        let told = [
            ("unclosed group", "missing closing )"),
            ("unopened group", "unexpected )"),
            ("unclosed character class", "missing closing ]"),
            (
                "repetition operator missing expression",
                "missing argument to repetition operator",
            ),
            ("look-around", "invalid or unsupported Perl syntax"),
        ];
        let why = told.iter().find(|(sign, _)| text.contains(sign));
        let why = why.map_or("invalid or unsupported syntax", |(_, why)| why);
        format!("error parsing regexp: {why}: `{pattern}`")
    })
}

fn of_ascii(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let (mut chars, mut in_class) = (pattern.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(chars.next(), in_class, &mut out),
            '[' if in_class && !chars.as_str().starts_with(':') => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                let rest = chars.as_str();
                let negated = usize::from(rest.starts_with('^'));
                out.push_str(&rest[..negated]);
                chars = rest[negated..].chars();
                // A first one is itself.
                if let Some(rest) = chars.as_str().strip_prefix(']') {
                    out.push_str("\\]");
                    chars = rest.chars();
                }
            }
            ']' => {
                in_class = in_class && out.ends_with(':');
                out.push(']');
            }
            // Two of them are operators of this engine's classes.
            '&' | '~' | '-' if in_class && chars.as_str().starts_with(c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn escape(escaped: Option<char>, in_class: bool, out: &mut String) {
    let inner = match escaped {
        Some('d' | 'D') => "0-9",
        Some('w' | 'W') => "0-9A-Za-z_",
        Some('s' | 'S') => "\\t\\n\\x0c\\r ",
        Some(c @ ('b' | 'B')) => {
            out.push_str(&format!("(?-u:\\{c})"));
            return;
        }
        c => {
            out.push('\\');
            out.extend(c);
            return;
        }
    };
    match (escaped.is_some_and(char::is_uppercase), in_class) {
        (true, _) => out.push_str(&format!("[^{inner}]")),
        (false, true) => out.push_str(inner),
        (false, false) => out.push_str(&format!("[{inner}]")),
    }
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn patterns_are_gos() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[]a]+$", "a]", true),
            (r"^[a[]$", "[", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^.{3}$", "éab", true),
        ];
        for (pattern, text, expected) in cases {
            let compiled = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(compiled.is_match(text), expected, "{pattern} {text}");
        }
        assert_eq!(
            compile("(a").map(|_| ()),
            Err("error parsing regexp: missing closing ): `(a`".into())
        );
    }
}
