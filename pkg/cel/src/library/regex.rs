//! Regular expressions of the RE2 family. One that an expression says is compiled with it; one that it makes is kept a while.

use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use regex::{Regex, RegexBuilder};

use super::operators::unfit;
use crate::value::{Failure, List, Outcome, Value};

/// Compiled patterns that are kept.
const KEPT: usize = 64;
/// Bytes that a compiled pattern may take.
const LARGEST: usize = 2 << 20;

type Kept = std::collections::HashMap<Box<str>, Arc<Regex>>;
static COMPILED: LazyLock<RwLock<Kept>> = LazyLock::new(RwLock::default);

/// Compiles a pattern of the RE2 family.
///
/// # Errors
/// What is wrong with it, as Go's engine words it as far as this one knows.
pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    let built = RegexBuilder::new(&translated)
        .size_limit(LARGEST)
        .dfa_size_limit(LARGEST)
        .build();
    built.map_err(|error| wording(pattern, &error))
}

/// Compiles a pattern of the RE2 family, or takes it from those that are: the same few stand in hundreds of definitions.
///
/// # Errors
/// What is wrong with it, as Go's engine words it as far as this one knows.
pub fn compile(pattern: &str) -> Result<Arc<Regex>, String> {
    if let Some(regex) = COMPILED.read().get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Arc::new(compile_pattern(pattern)?);
    let mut kept = COMPILED.write();
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(pattern.into(), regex.clone());
    Ok(regex)
}

fn wording(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let why = |sign: &str| text.contains(sign);
    let (problem, shown) = if why("unclosed group") {
        ("missing closing )", pattern)
    } else if why("unopened group") {
        ("unexpected )", pattern)
    } else if why("unclosed character class") {
        ("missing closing ]", &pattern[pattern.rfind('[').unwrap_or(0)..])
    } else if why("repetition operator missing expression") {
        (
            "missing argument to repetition operator",
            &pattern[..pattern.chars().next().map_or(0, char::len_utf8)],
        )
    } else if why("incomplete escape sequence") {
        ("trailing backslash at end of expression", "")
    } else {
        ("invalid or unsupported syntax", pattern)
    };
    format!("error parsing regexp: {problem}: `{shown}`")
}

/// The same pattern for this engine: its classes are of ASCII in RE2, a brace that repeats nothing is itself, and what RE2
/// lacks is refused.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    // Whether a repetition was just read: there is none of it.
    let mut repeated = 0;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        let repeats = !in_class && (matches!(c, '*' | '+' | '?') || (c == '{' && is_repetition(rest)));
        if repeats && (repeated == 2 || (repeated == 1 && c != '?')) {
            return Err(format!(
                "error parsing regexp: invalid nested repetition operator: `{c}`"
            ));
        }
        repeated = if repeats { repeated + 1 } else { 0 };
        match c {
            '{' if repeats => {
                let end = rest.find('}').map_or(1, |end| end + 1);
                out.push_str(&rest[..end]);
                taken = end;
            }
            '\\' => taken += escape(&rest[1..], in_class, &mut out)?,
            '[' if in_class && !rest.starts_with("[:") => out.push_str("\\["),
            '[' => {
                if in_class {
                    let end = rest.find(":]").map_or(1, |end| end + 2);
                    out.push_str(&rest[..end]);
                    taken = end;
                } else {
                    in_class = true;
                    taken += class_start(&rest[1..]);
                    out.push_str(&escaped_start(&rest[..taken]));
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' | '-' if in_class && rest[1..].starts_with(c) => {
                // Two of them are operators of this engine's classes.
                out.push('\\');
                out.push(c);
            }
            '{' if !in_class => out.push_str("\\{"),
            '}' if !in_class => out.push_str("\\}"),
            '(' if !in_class && rest.starts_with("(?") => {
                let lookaround = ["(?=", "(?!", "(?<=", "(?<!"]
                    .iter()
                    .find(|start| rest.starts_with(**start));
                if let Some(start) = lookaround {
                    return Err(format!(
                        "error parsing regexp: invalid or unsupported Perl syntax: `{}`",
                        &start[..start.len().min(3)]
                    ));
                }
                out.push('(');
            }
            _ => out.push(c),
        }
        rest = &rest[taken..];
    }
    Ok(out)
}

/// `^` and a first `]` of a class, which is itself.
fn class_start(rest: &str) -> usize {
    let negated = usize::from(rest.starts_with('^'));
    negated + usize::from(rest[negated..].starts_with(']'))
}

fn escaped_start(start: &str) -> String {
    start.replace(']', "\\]")
}

fn is_repetition(rest: &str) -> bool {
    let Some(end) = rest.find('}') else { return false };
    let (from, to) = rest[1..end].split_once(',').unwrap_or((&rest[1..end], ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}

/// An escape sequence without its backslash; how many bytes it has.
fn escape(rest: &str, in_class: bool, out: &mut String) -> Result<usize, String> {
    let Some(c) = rest.chars().next() else {
        return Err("error parsing regexp: trailing backslash at end of expression: ``".into());
    };
    let class = |inner: &str, negated: bool| match (in_class, negated) {
        (true, false) => inner.to_string(),
        (_, negated) => format!("[{}{inner}]", if negated { "^" } else { "" }),
    };
    match c {
        'd' | 'D' => out.push_str(&class("0-9", c == 'D')),
        'w' | 'W' => out.push_str(&class("0-9A-Za-z_", c == 'W')),
        's' | 'S' => out.push_str(&class("\\t\\n\\x0c\\r ", c == 'S')),
        'b' | 'B' if !in_class => out.push_str(&format!("(?-u:\\{c})")),
        'Q' => {
            let end = rest.find("\\E").unwrap_or(rest.len());
            out.push_str(&regex::escape(&rest[1..end]));
            return Ok(end + if end < rest.len() { 2 } else { 0 });
        }
        'C' | 'Z' | 'G' | 'K' | 'R' | 'X' | 'h' | 'H' | 'N' | 'V' | 'u' | 'U' | '1'..='9' => {
            return Err(format!("error parsing regexp: invalid escape sequence: `\\{c}`"));
        }
        '0' => {
            let digits = rest.bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
            let code = u32::from_str_radix(&rest[..digits], 8).unwrap_or(0);
            out.push_str(&format!("\\x{{{code:x}}}"));
            return Ok(digits);
        }
        'p' | 'P' | 'x' if rest[1..].starts_with('{') => {
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            out.push('\\');
            out.push_str(&rest[..end]);
            return Ok(end);
        }
        'z' => out.push_str("\\z"),
        '_' => return Err("error parsing regexp: invalid escape sequence: `\\_`".into()),
        c if c.is_ascii_punctuation() => out.push_str(&regex::escape(&c.to_string())),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    Ok(c.len_utf8())
}

/// `matches`, `find` and `findAll`; `compiled` where the expression says the pattern.
pub(crate) fn call<'a>(function: &str, args: &[Value<'a>], compiled: Option<&Regex>) -> Outcome<'a> {
    let (text, pattern, most) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, None),
        [Value::String(text), Value::String(pattern), Value::Int(most)] if function == "findAll" => {
            (text, pattern, Some(*most))
        }
        _ if function == "matches" => return Err(unfit(&args[0], "matches", |_| false)),
        _ => return Err(Failure::NoOverload),
    };
    let made;
    let regex = match compiled {
        Some(regex) => regex,
        None => {
            let illegal = if function == "matches" { "" } else { "Illegal regex: " };
            made = compile(pattern).map_err(|error| Failure::new(format!("{illegal}{error}")))?;
            &made
        }
    };
    Ok(match function {
        "matches" => Value::Bool(regex.is_match(text)),
        "find" => Value::text(regex.find(text).map_or("", |found| found.as_str())),
        _ => {
            // A negative number is as good as none.
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let found = regex.find_iter(text).take(most);
            Value::List(List::new(found.map(|found| Value::text(found.as_str())).collect()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::compile_pattern as compile;

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
