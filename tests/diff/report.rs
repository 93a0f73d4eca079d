//! Differences in classes: by status and reason, then by content type, then by the words. Those that are meant to be are in
//! known.tsv, with a reason each.

use std::collections::BTreeMap;

use base64::Engine as _;
use regex::Regex;
use serde_json::json;

use crate::client::{Answer, Case};
use crate::world::REFUSED;

pub struct Report {
    total: usize,
    /// By level and class: numbers and texts of its cases.
    classes: BTreeMap<(Level, String), Vec<(u64, String)>>,
    /// By upstream's answer, the number of one request to which both answer alike, and that answer.
    alike: BTreeMap<String, (u64, Answer)>,
    masks: Option<Masks>,
    known: Vec<Known>,
}

struct Masks {
    number: Regex,
    quoted: Regex,
}

/// A line of known.tsv, and how many were of it.
struct Known {
    pattern: Regex,
    reason: &'static str,
    met: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Status,
    ContentType,
    Words,
}

impl Report {
    pub fn new() -> Report {
        Report {
            total: 0,
            classes: BTreeMap::new(),
            alike: BTreeMap::new(),
            masks: None,
            known: known(),
        }
    }

    /// Whether a difference in status or reason is meant to be.
    fn is_known(&mut self, number: u64, case: &Case, answers: &[Answer; 2]) -> bool {
        let [upstream, own] = answers
            .each_ref()
            .map(|answer| format!("{} {} | {}", answer.code, answer.reason, answer.message));
        let line = format!("{} {} {upstream} → {own}", case.method, case.target).replace('\n', " ");
        let known = self.known.iter_mut().find(|known| known.pattern.is_match(&line));
        known.is_some_and(|known| {
            known.met.push(number);
            true
        })
    }

    pub fn add(&mut self, number: u64, case: &Case, answers: &[Answer; 2], changes: bool) {
        self.total += 1;
        let masks = self.masks.get_or_insert_with(|| Masks {
            number: Regex::new("[0-9]+").unwrap(),
            quoted: Regex::new(r#""[^"]*"|\([^)]*\)"#).unwrap(),
        });
        let [upstream, own] = answers;
        let said = answers
            .each_ref()
            .map(|answer| masks.number.replace_all(&answer.message, "#").into_owned());
        let classed = said.each_ref().map(|text| {
            let masked = masks.quoted.replace_all(text, "…");
            masked.chars().take(110).collect::<String>()
        });
        let kind = |answer: &Answer| answer.content_type.replace(' ', "");
        // A connection that ended without an answer is like no other.
        let is_silent = answers.iter().any(|answer| answer.code == 0);
        let level = if is_silent || (upstream.code, &upstream.reason) != (own.code, &own.reason) {
            if !is_silent && self.is_known(number, case, answers) {
                return;
            }
            Level::Status
        } else if upstream.code >= 300 && case.method != "HEAD" && said[0] != said[1] {
            Level::Words
        } else if kind(upstream) != kind(own) {
            Level::ContentType
        } else {
            if upstream.code >= 400 || !changes {
                let class = format!("{} {} {}", case.method, upstream.code, classed[0]);
                self.alike.entry(class).or_insert_with(|| (number, upstream.clone()));
            }
            return;
        };
        let class = match level {
            Level::Status => format!(
                "{} {} {} | {}  →  {} {} | {}",
                case.method, upstream.code, upstream.reason, classed[0], own.code, own.reason, classed[1]
            ),
            Level::ContentType => format!("{} {} → {}", upstream.code, upstream.content_type, own.content_type),
            Level::Words => format!(
                "{} {} | {}  →  {}",
                upstream.code, upstream.reason, classed[0], classed[1]
            ),
        };
        let body: String = String::from_utf8_lossy(&case.body).chars().take(300).collect();
        let headers = case.headers.iter().filter(|(name, value)| {
            !matches!(
                (&**name, &**value),
                ("user-agent", "diff") | ("accept", "application/json")
            )
        });
        let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
        let example = format!(
            "{} {} [{}] {body}\n         upstream: {}\n         mk8s:     {}",
            case.method,
            case.target,
            headers.join(", "),
            cut(&upstream.message),
            cut(&own.message)
        );
        self.classes.entry((level, class)).or_default().push((number, example));
    }

    /// Tells all classes, with so many examples of each; answers how many differ in status or reason that nobody knows of,
    /// in percent.
    pub fn print(&self, show: usize) -> f64 {
        for level in [Level::Status, Level::ContentType, Level::Words] {
            let of_level = self.classes.iter().filter(|((own, _), _)| *own == level);
            let mut classes: Vec<_> = of_level.map(|((_, class), cases)| (class, cases)).collect();
            classes.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
            let differ = self.differ(level);
            println!(
                "\n== {level:?}: {differ} of {} differ, {:.2} %",
                self.total,
                self.percent(differ)
            );
            for (class, cases) in classes {
                println!("{:5}  {class}", cases.len());
                for (number, example) in cases.iter().take(show) {
                    println!("       #{number} {example}");
                }
            }
        }
        let met: usize = self.known.iter().map(|known| known.met.len()).sum();
        println!(
            "\n== Known: {met} more differ in status or reason, {:.2} %",
            self.percent(met)
        );
        for Known { pattern, reason, met } in &self.known {
            match met.first() {
                Some(first) => println!("{:5}  as #{first}: {reason}", met.len()),
                None => println!("    0  not met: {pattern}"),
            }
        }
        self.percent(self.differ(Level::Status))
    }

    pub fn sent(&self) -> usize {
        self.total
    }

    /// The lines of known.tsv that nothing was of.
    pub fn not_met(&self) -> Vec<&str> {
        let lines = self.known.iter().filter(|known| known.met.is_empty());
        lines.map(|known| known.pattern.as_str()).collect()
    }

    fn differ(&self, level: Level) -> usize {
        let of_level = self.classes.iter().filter(|((own, _), _)| *own == level);
        of_level.map(|(_, cases)| cases.len()).sum()
    }

    fn percent(&self, count: usize) -> f64 {
        count as f64 * 100.0 / self.total.max(1) as f64
    }

    /// One request of each class to which both answer alike, by number, and upstream's answer.
    pub fn alike(&self) -> impl Iterator<Item = &(u64, Answer)> {
        self.alike.values()
    }
}

fn known() -> Vec<Known> {
    let refused = format!("({})", REFUSED.join("|"));
    let lines = include_str!("known.tsv").lines().filter(|line| !line.starts_with('#'));
    let read = lines.map(|line| {
        let (pattern, reason) = line.split_once('\t').unwrap();
        Known {
            pattern: Regex::new(&pattern.replace("REFUSED", &refused)).unwrap(),
            reason,
            met: Vec::new(),
        }
    });
    read.collect()
}

fn cut(text: &str) -> String {
    text.chars().take(400).collect::<String>().replace('\n', "\\n")
}

/// Whether an answer is told of again, of a request that was sent before.
pub fn same(one: &Answer, other: &Answer) -> bool {
    (one.code, &one.reason) == (other.code, &other.reason)
}

/// A request and its answer as data. Bodies that are no text are in base64.
pub fn recorded(case: &Case, answer: &Answer) -> serde_json::Value {
    let mut line = json!({
        "method": case.method, "target": case.target, "headers": case.headers,
        "code": answer.code, "reason": answer.reason,
    });
    match std::str::from_utf8(&case.body) {
        Ok("") => {}
        Ok(text) => line["body"] = text.into(),
        Err(_) => line["base64"] = base64::engine::general_purpose::STANDARD.encode(&case.body).into(),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_kinds_that_are_refused_by_mistake_are_differences() {
        let answer = |code: u16, message: &str| Answer {
            code,
            reason: if code == 403 { "Forbidden" } else { "" }.into(),
            message: message.into(),
            ..Answer::default()
        };
        let refusal = "pods is forbidden: X: not in this version of mk8s";
        for (target, upstream, own, differs) in [
            ("/api/v1/pods", answer(200, ""), answer(200, ""), false),
            ("/api/v1/pods", answer(0, ""), answer(0, ""), true),
            ("/api/v1/pods", answer(201, ""), answer(403, refusal), true),
            (
                "/api/v1/namespaces/a/limitranges",
                answer(201, ""),
                answer(403, refusal),
                false,
            ),
            ("/api/v1/namespaces/a/limitranges", answer(201, ""), answer(0, ""), true),
            (
                "/api/v1/namespaces/a/limitrangesx",
                answer(201, ""),
                answer(403, refusal),
                true,
            ),
        ] {
            let mut report = Report::new();
            let case = Case {
                method: "POST".into(),
                target: target.into(),
                headers: Vec::new(),
                body: Default::default(),
            };
            report.add(1, &case, &[upstream, own], false);
            assert_eq!(report.differ(Level::Status) == 1, differs, "{target}");
        }
    }
}
