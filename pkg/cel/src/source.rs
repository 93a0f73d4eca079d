//! Where in an expression something is wrong, and how that is shown: the line itself with a caret under the place, in the
//! words and the shape that people search for.

use std::fmt::Write as _;

/// How many issues are shown; the rest is counted.
const SHOWN: usize = 100;
/// A line longer than this many bytes is not shown.
const LONGEST_SNIPPET: usize = 16_384;

/// How much text of lines is shown for all issues of an expression together.
const SNIPPETS: usize = 4 * LONGEST_SNIPPET;

/// One thing that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The place in code points from the start; `None` where the whole expression is meant.
    pub at: Option<u32>,
    /// What is wrong.
    pub message: String,
}

impl Issue {
    pub(crate) fn at(at: u32, message: impl Into<String>) -> Issue {
        Issue {
            at: Some(at),
            message: message.into(),
        }
    }
}

/// Shows issues in the order of their places, each with the line it is in.
pub(crate) fn display(source: &str, mut issues: Vec<Issue>) -> String {
    issues.sort_by_key(|issue| issue.at.map_or(0, |at| at + 1));
    let more = issues.len().saturating_sub(SHOWN);
    issues.truncate(SHOWN);
    let lines: Vec<&str> = source.split('\n').collect();
    let mut room = SNIPPETS;
    let mut shown: Vec<String> = issues.iter().map(|issue| show(&lines, issue, &mut room)).collect();
    if more > 0 {
        shown.push(format!("{more} more errors were truncated"));
    }
    shown.join("\n")
}

/// The line (from 0) and the column (from 0, in code points) of a place.
fn place(lines: &[&str], at: u32) -> (usize, usize) {
    let mut left = at as usize;
    for (number, line) in lines.iter().enumerate() {
        let length = line.chars().count();
        if left <= length {
            return (number, left);
        }
        left -= length + 1;
    }
    (lines.len() - 1, left)
}

/// `room` is what may still be shown of lines.
fn show(lines: &[&str], issue: &Issue, room: &mut usize) -> String {
    let Some(at) = issue.at else {
        return format!("ERROR: <input>:-1:0: {}", issue.message);
    };
    if lines == [""] {
        return format!("ERROR: <input>:1:0: {}", issue.message);
    }
    let (line, column) = place(lines, at);
    let mut shown = format!("ERROR: <input>:{}:{}: {}", line + 1, column + 1, issue.message);
    let snippet = lines[line].replace('\t', " ");
    let length = snippet.len() + column;
    if snippet.is_empty() || snippet.len() > LONGEST_SNIPPET || length > *room {
        return shown;
    }
    *room -= length;
    let wide = |c: Option<char>| c.is_some_and(|c| c.len_utf8() > 1);
    let _ = write!(shown, "\n | {snippet}\n | ");
    let mut rest = snippet.chars();
    for _ in 0..column {
        let Some(passed) = rest.next() else { break };
        shown.push(if wide(Some(passed)) { '\u{ff0e}' } else { '.' });
    }
    shown.push(if wide(rest.next()) { '\u{ff3e}' } else { '^' });
    shown
}
