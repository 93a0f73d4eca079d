//! A CronJob's schedule, as upstream's parser reads it, with its words.

/// What a field may hold: the least, the most, and names that stand for numbers from the least on.
struct Field {
    low: i64,
    high: i64,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn field(low: i64, high: i64, names: &'static [&'static str]) -> Field {
    Field { low, high, names }
}

/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Field; 5] = [
    field(0, 59, &[]),
    field(0, 23, &[]),
    field(1, 31, &[]),
    field(1, 12, MONTHS),
    field(0, 6, DAYS),
];

const NAMED: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// What is wrong with a schedule, if anything.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let zoned = schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=");
    let schedule = match schedule.split_once(' ') {
        Some((_, rest)) if zoned => rest.trim(),
        None if zoned => return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".into()),
        _ => schedule,
    };
    if schedule.starts_with('@') {
        return named(schedule);
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        let found = format!("found {}: [{}]", parts.len(), parts.join(" "));
        return Err(format!("expected exactly {} fields, {found}", FIELDS.len()));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for range in part.split(',').filter(|range| !range.is_empty()) {
            field.check(range)?;
        }
    }
    Ok(())
}

fn named(schedule: &str) -> Result<(), String> {
    if let Some(every) = schedule.strip_prefix("@every ") {
        let positive = every.strip_prefix('-').unwrap_or(every);
        return match crate::time::parse_go_duration(positive) {
            Some(_) => Ok(()),
            None => Err(format!(
                "failed to parse duration {every}: time: invalid duration {every:?}"
            )),
        };
    }
    if NAMED.contains(&schedule) {
        return Ok(());
    }
    Err(format!("unrecognized descriptor: {schedule}"))
}

impl Field {
    /// `*`, `a`, `a-b`, each with `/step` or without.
    fn check(&self, range: &str) -> Result<(), String> {
        let mut halves = range.split('/');
        let (ends, step, more) = (halves.next().unwrap_or(""), halves.next(), halves.next());
        let ends: Vec<&str> = ends.split('-').collect();
        let (start, mut end) = match ends[..] {
            ["*" | "?", ..] => (self.low, self.high),
            [only] => (self.number(only)?, self.number(only)?),
            [start, end] => (self.number(start)?, self.number(end)?),
            _ => {
                self.number(ends[0])?;
                return Err(format!("too many hyphens: {range}"));
            }
        };
        if more.is_some() {
            return Err(format!("too many slashes: {range}"));
        }
        let step_size = step.map_or(Ok(1), number)?;
        if step.is_some() && ends.len() == 1 {
            end = self.high;
        }
        if start < self.low {
            let low = self.low;
            return Err(format!("beginning of range ({start}) below minimum ({low}): {range}"));
        }
        if end > self.high {
            let high = self.high;
            return Err(format!("end of range ({end}) above maximum ({high}): {range}"));
        }
        if start > end {
            return Err(format!(
                "beginning of range ({start}) beyond end of range ({end}): {range}"
            ));
        }
        if step_size == 0 {
            return Err(format!("step of range should be a positive number: {range}"));
        }
        Ok(())
    }

    fn number(&self, text: &str) -> Result<i64, String> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        match named.and_then(|at| i64::try_from(at).ok()) {
            Some(at) => Ok(self.low + at),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number),
        Err(error) => {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(format!(
                "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-23/2 1,15 JAN-dec sun",
            "0 0 ? * 1-5",
            "@daily",
            "@every 1h30m",
            "TZ=UTC 0 0 1 1 *",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("99 * * * *", "end of range (99) above maximum (59): 99"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(check(bad), Err(why.into()));
        }
    }
}
