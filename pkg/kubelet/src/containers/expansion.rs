//! `$(VAR)` in env values, command and args.

use std::collections::BTreeMap;

/// What a process gets of arguments, and of environment: the kernel hands on no more than 6 MiB of both. A variable may
/// name others that name others, twice each: without a bound a few lines of a pod come to more than there is memory.
pub const PROCESS_LIMIT: usize = 6 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} longer than {limit} bytes")]
pub struct TooLong {
    pub what: &'static str,
    pub limit: usize,
}

/// Replaces `$(NAME)` by `lookup(NAME)`; what it doesn't know stays as written, `$$` is a dollar sign. None: it comes to
/// more than `room` bytes.
pub fn expand<'a>(input: &str, room: usize, lookup: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let mut out = String::new();
    let mut rest = input;
    // Looked for once: where it is missing, each `$(` that follows would search all of the rest for it again.
    let last_end = input.rfind(')');
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(named) = after.strip_prefix('(')
            && last_end.is_some_and(|end| end >= input.len() - named.len())
            && let Some((name, tail)) = named.split_once(')')
        {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
        if out.len() > room {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= room).then_some(out)
}

/// A command line, as the environment makes it.
pub fn expand_all(list: &[String], env: &BTreeMap<String, String>) -> Result<Vec<String>, TooLong> {
    let mut room = PROCESS_LIMIT;
    let expanded = list.iter().map(|word| {
        let word = expand(word, room, |name| env.get(name).map(String::as_str))?;
        room -= word.len();
        Some(word)
    });
    expanded.collect::<Option<_>>().ok_or(TooLong {
        what: "command or arguments",
        limit: PROCESS_LIMIT,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn table() {
        let lookup = |name: &str| match name {
            "A" => Some("a"),
            "EMPTY" => Some(""),
            _ => None,
        };
        for (input, expected) in [
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x-$(A)-$(A)", "x-a-a"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$(B)", "$(B)"),
            ("$(EMPTY)|", "|"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$(A)$($$(A", "a$($(A"),
            ("$(A)$(A)$(", "aa$("),
            ("100$", "100$"),
        ] {
            assert_eq!(expand(input, 100, lookup).as_deref(), Some(expected), "{input}");
        }
    }
    #[test]
    fn takes_time_that_grows_with_the_text_alone() {
        for text in [
            "$(".repeat(1_000_000),
            format!("$(A){}", "$(".repeat(1_000_000)),
            format!("{})", "$(".repeat(1_000_000)),
        ] {
            let started = std::time::Instant::now();
            let expanded = expand(&text, text.len(), |_| None);
            assert_eq!(expanded.as_deref(), Some(text.as_str()));
            // Some milliseconds; a search of the rest at each opening takes minutes.
            assert!(
                started.elapsed() < std::time::Duration::from_secs(5),
                "{:?}",
                started.elapsed()
            );
        }
    }

    #[test]
    fn what_comes_of_it_is_bounded() {
        assert_eq!(expand("$(A)bc", 3, |_| Some("a")).as_deref(), Some("abc"));
        assert_eq!(expand("$(A)bc", 2, |_| Some("a")), None);
        let env = BTreeMap::from([("A".to_owned(), "x".repeat(1 << 20))]);
        let words = |count| vec!["$(A)".to_owned(); count];
        assert_eq!(expand_all(&words(6), &env).unwrap().len(), 6);
        assert!(expand_all(&words(7), &env).is_err());
        assert!(expand_all(&["$(A)".repeat(7)], &env).is_err());
    }
}
