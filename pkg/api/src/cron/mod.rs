//! A CronJob's schedule, as upstream's parser reads it, with its words; [`next`](Schedule::next) says when it falls due.

mod next;
pub mod zones;

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

/// What stands for five fields.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The numbers that a field lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    /// One bit for each.
    bits: u64,
    /// `*`: the field says nothing. (`*/2` does.)
    any: bool,
}

impl Listed {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    /// So many seconds after the last time.
    Every(i64),
    /// Minute, hour, day of the month, month, day of the week.
    Fields([Listed; 5]),
}

/// A schedule that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The time zone that the text itself names (`TZ=…`); such are refused where CronJobs are validated.
    pub zone: Option<String>,
    when: When,
}

impl Schedule {
    /// Reads it, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let zoned = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
        let (zone, text) = match zoned.map(|zoned| zoned.split_once(' ')) {
            Some(Some((zone, rest))) => (Some(zone.to_owned()), rest.trim()),
            Some(None) => return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".into()),
            None => (None, text),
        };
        let when = if text.starts_with('@') {
            named(text)
        } else {
            fields(text)
        }?;
        Ok(Schedule { zone, when })
    }
}

fn fields(text: &str) -> Result<When, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        let found = format!("found {}: [{}]", parts.len(), parts.join(" "));
        return Err(format!("expected exactly {} fields, {found}", FIELDS.len()));
    }
    let mut all = [Listed { bits: 0, any: false }; FIELDS.len()];
    for ((part, field), listed) in parts.iter().zip(&FIELDS).zip(&mut all) {
        for range in part.split(',').filter(|range| !range.is_empty()) {
            let more = field.read(range)?;
            listed.bits |= more.bits;
            listed.any |= more.any;
        }
    }
    Ok(When::Fields(all))
}

fn named(text: &str) -> Result<When, String> {
    if let Some(every) = text.strip_prefix("@every ") {
        let positive = every.strip_prefix('-').unwrap_or(every);
        let Some(duration) = crate::time::parse_go_duration(positive) else {
            return Err(format!(
                "failed to parse duration {every}: time: invalid duration {every:?}"
            ));
        };
        // Whole seconds, and never less than one.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        return Ok(When::Every(if every.starts_with('-') { 1 } else { seconds.max(1) }));
    }
    match NAMED.iter().find(|(name, _)| *name == text) {
        Some((_, meaning)) => fields(meaning),
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

impl Field {
    /// `*`, `a`, `a-b`, each with `/step` or without.
    fn read(&self, range: &str) -> Result<Listed, String> {
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
        self.check(range, start, end, step_size)?;
        let numbers = (start..=end).step_by(usize::try_from(step_size).unwrap_or(usize::MAX));
        Ok(Listed {
            bits: numbers.fold(0, |bits, number| bits | (1 << number)),
            any: matches!(ends[0], "*" | "?") && step_size == 1,
        })
    }

    fn check(&self, range: &str, start: i64, end: i64, step: i64) -> Result<(), String> {
        let (low, high) = (self.low, self.high);
        if start < low {
            return Err(format!("beginning of range ({start}) below minimum ({low}): {range}"));
        }
        if end > high {
            return Err(format!("end of range ({end}) above maximum ({high}): {range}"));
        }
        if start > end {
            return Err(format!(
                "beginning of range ({start}) beyond end of range ({end}): {range}"
            ));
        }
        if step == 0 {
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
            assert!(Schedule::parse(good).is_ok(), "{good}");
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
            assert_eq!(Schedule::parse(bad), Err(why.into()));
        }
    }
}
