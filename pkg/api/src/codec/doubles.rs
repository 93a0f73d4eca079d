//! Keys that a mapping of a YAML text has twice, as upstream's reader tells of them: with the lines of their values. Asked
//! only of texts in which there are some.

use std::collections::HashSet;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// More are not told.
const MOST: usize = 100;

/// A list or mapping that is read.
struct Open {
    /// Where it began.
    line: usize,
    /// None: a list.
    mapping: Option<Mapping>,
}

#[derive(Default)]
struct Mapping {
    keys: HashSet<String>,
    /// The key whose value comes next.
    key: Option<String>,
}

/// Each key that a mapping of the text has twice, and where.
pub(super) fn of(text: &str) -> Vec<String> {
    let mut told = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let line = span.start.line();
        let (at, scalar) = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                let mapping = matches!(event, Event::MappingStart(..)).then(Mapping::default);
                open.push(Open { line, mapping });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(ended) => (ended.line, String::new()),
                None => break,
            },
            Event::Scalar(text, style, ..) => (line, shown(&text, style)),
            Event::Alias(_) => (line, String::new()),
            _ => continue,
        };
        let Some(mapping) = open.last_mut().and_then(|open| open.mapping.as_mut()) else {
            continue;
        };
        match mapping.key.take() {
            None => mapping.key = Some(scalar),
            // What is merged in, and keys that are no scalars, are not compared.
            Some(key) if key.is_empty() || key == MERGE || mapping.keys.insert(key.clone()) => {}
            Some(key) if told.len() < MOST => told.push(format!("line {at}: key {key} already set in map")),
            Some(_) => {}
        }
    }
    told
}

const MERGE: &str = "\"<<\"";

/// A key as Go shows it.
fn shown(text: &str, style: ScalarStyle) -> String {
    match style {
        ScalarStyle::Plain if text.parse::<i64>().is_ok() => text.to_string(),
        _ => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_told_with_their_lines_inner_ones_first() {
        let text = "\na: 1\nb:\n  c: 1\n  c:\n    d: 2\nb: [{e: 1, e: 2}]\n9: x\n9: y\n\"a\": 3\n";
        let lines = [
            "line 6: key \"c\" already set in map",
            "line 7: key \"e\" already set in map",
            "line 7: key \"b\" already set in map",
            "line 9: key 9 already set in map",
            "line 10: key \"a\" already set in map",
        ];
        assert_eq!(of(text), lines);
        assert!(of("a: {b: 1}\nc: {b: 1}\n").is_empty());
    }
}
