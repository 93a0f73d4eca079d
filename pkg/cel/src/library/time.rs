//! Times and durations: how they are written, read and taken apart.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::numbers;
use crate::value::{Failure, Outcome, Value};

const NANOS: i64 = 1_000_000_000;
/// The first and the last second that a time can be at: years 1 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time, with the offset it was written with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    seconds: i64,
    nanos: u32,
    offset: i32,
}

impl Hash for Time {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.seconds, self.nanos).hash(state);
    }
}

impl PartialEq for Time {
    fn eq(&self, other: &Time) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Time {
    pub(crate) fn cmp(&self, other: &Time) -> Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }

    pub(crate) fn from_unix(seconds: i64) -> Option<Time> {
        (FIRST..=LAST).contains(&seconds).then_some(Time {
            seconds,
            nanos: 0,
            offset: 0,
        })
    }

    pub(crate) fn unix(&self) -> i64 {
        self.seconds
    }

    /// Reads `2006-01-02T15:04:05.999Z` or with an offset.
    pub(crate) fn parse(text: &str) -> Option<Time> {
        let (time, zone) = parse_local(text)?;
        let offset = match zone.as_bytes() {
            b"Z" => 0,
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let (hours, minutes) = (two(&zone[1..3])?, two(&zone[4..6])?);
                if hours > 24 || minutes > 60 {
                    return None;
                }
                let offset = (hours * 60 + minutes) * 60;
                if *sign == b'-' { -offset } else { offset }
            }
            _ => return None,
        };
        let seconds = time.seconds - i64::from(offset);
        (FIRST..=LAST).contains(&seconds).then_some(Time {
            seconds,
            offset,
            ..time
        })
    }

    /// What a schema's `date-time` may be: also without an offset, or nothing at all.
    pub(crate) fn parse_date_time(text: &str) -> Option<Time> {
        if text.is_empty() {
            return Time::from_unix(0);
        }
        Time::parse(text).or_else(|| {
            parse_local(text)
                .filter(|(_, zone)| zone.is_empty())
                .map(|(time, _)| time)
        })
    }

    pub(crate) fn parse_date(text: &str) -> Option<Time> {
        let (time, rest) = parse_day(text)?;
        rest.is_empty().then_some(time)
    }

    pub(crate) fn to_text(self) -> String {
        let local = self.local(self.offset);
        let mut text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            local.year(),
            local.month(),
            local.day(),
            local.hour(),
            local.minute(),
            local.second()
        );
        if self.nanos != 0 {
            text.push_str(format!(".{:09}", self.nanos).trim_end_matches('0'));
        }
        if self.offset == 0 {
            text.push('Z');
        } else {
            let minutes = self.offset.abs() / 60;
            let sign = if self.offset < 0 { '-' } else { '+' };
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        text
    }

    /// The same in UTC.
    pub(crate) fn utc(self) -> Time {
        Time { offset: 0, ..self }
    }

    fn local(self, offset: i32) -> DateTime {
        let shifted = self.seconds + i64::from(offset);
        let (days, second) = (shifted.div_euclid(86_400), shifted.rem_euclid(86_400));
        let start = DateTime::constant(1970, 1, 1, 0, 0, 0, self.nanos as i32);
        let day = start.checked_add(Span::new().days(days)).unwrap_or(start);
        day.with()
            .hour((second / 3_600) as i8)
            .minute((second / 60 % 60) as i8)
            .second((second % 60) as i8)
            .build()
            .unwrap_or(day)
    }

    pub(crate) fn add(self, nanos: i64) -> Result<Time, Failure> {
        let total = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos) + i128::from(nanos);
        let seconds = total.div_euclid(i128::from(NANOS)) as i64;
        if !(FIRST..=LAST).contains(&seconds) {
            return Err(Failure::new("timestamp overflow"));
        }
        Ok(Time {
            seconds,
            nanos: total.rem_euclid(i128::from(NANOS)) as u32,
            offset: self.offset,
        })
    }

    pub(crate) fn since(self, other: Time) -> Result<i64, Failure> {
        let seconds = self.seconds - other.seconds;
        let nanos = i64::from(self.nanos) - i64::from(other.nanos);
        let total = seconds.checked_mul(NANOS).and_then(|total| total.checked_add(nanos));
        total.ok_or_else(|| Failure::new("integer overflow"))
    }
}

fn two(text: &str) -> Option<i32> {
    number(text, 2).map(|number| number as i32)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The start of a day, and what is after it.
fn parse_day(text: &str) -> Option<(Time, &str)> {
    if !text.is_ascii() {
        return None;
    }
    let (day, rest) = (text.get(..10)?, text.get(10..)?);
    let (year, month, date) = (number(&day[..4], 4)?, number(&day[5..7], 2)?, number(&day[8..], 2)?);
    if &day[4..5] != "-" || &day[7..8] != "-" {
        return None;
    }
    let date = Date::new(year as i16, month as i8, date as i8).ok()?;
    let days = Date::constant(1970, 1, 1).until(date).ok()?.get_days();
    let seconds = i64::from(days) * 86_400;
    Some((
        Time {
            seconds,
            nanos: 0,
            offset: 0,
        },
        rest,
    ))
}

/// A time without its zone, and what is after it.
fn parse_local(text: &str) -> Option<(Time, &str)> {
    let (day, rest) = parse_day(text)?;
    let rest = rest.strip_prefix('T')?;
    let (clock, rest) = (rest.get(..8)?, rest.get(8..)?);
    if &clock[2..3] != ":" || &clock[5..6] != ":" {
        return None;
    }
    let (hour, minute, second) = (
        number(&clock[..2], 2)?,
        number(&clock[3..5], 2)?,
        number(&clock[6..], 2)?,
    );
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = match rest.strip_prefix(['.', ',']) {
        None => (0, rest),
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return None;
            }
            let nine: String = fraction[..digits].chars().chain("000000000".chars()).take(9).collect();
            (nine.parse().ok()?, &fraction[digits..])
        }
    };
    Some((
        Time {
            seconds: day.seconds + (hour * 60 + minute) * 60 + second,
            nanos,
            offset: 0,
        },
        rest,
    ))
}

/// Reads `1h30m5.5s`: nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (amount, after) = rest.split_at(length);
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let unit_length = after.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, after) = after.split_at(unit_length);
        let unit = unit_nanos(unit)?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        if !fraction.is_empty() {
            let digits = &fraction[..fraction.len().min(18)];
            total = total.checked_add(digits.parse::<i128>().ok()? * unit / 10i128.pow(digits.len() as u32))?;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// What a schema's `duration` may be: also `3 days` and the like.
pub(crate) fn parse_schema_duration(text: &str) -> Option<i64> {
    if let Some(duration) = parse_duration(text) {
        return Some(duration);
    }
    let (mut total, mut found, mut rest) = (0i64, false, text);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[start..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (amount, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters: usize = after
            .chars()
            .take_while(|c| c.is_ascii_alphabetic() || *c == 'µ')
            .map(char::len_utf8)
            .sum();
        let (unit, after) = after.split_at(letters);
        rest = after;
        if let Some(unit) = schema_unit(&unit.to_lowercase()) {
            found = true;
            total = total.wrapping_add(amount.parse::<i64>().ok()?.wrapping_mul(unit));
        }
    }
    found.then_some(total)
}

fn schema_unit(unit: &str) -> Option<i64> {
    /// The short names, the beginning of the long ones, and how long it is.
    const UNITS: [(&[&str], &str, i64); 8] = [
        (&["ns"], "nano", 1),
        (&["us", "µs"], "micro", 1_000),
        (&["ms"], "milli", 1_000_000),
        (&["s"], "sec", NANOS),
        (&["m"], "min", 60 * NANOS),
        (&["h", "hr"], "hour", 3_600 * NANOS),
        (&["d"], "day", 86_400 * NANOS),
        (&["w", "wk"], "week", 604_800 * NANOS),
    ];
    UNITS
        .iter()
        .find(|(short, long, _)| short.contains(&unit) || unit.starts_with(long))
        .map(|(_, _, nanos)| *nanos)
}

/// A duration in seconds, as text.
pub(crate) fn duration_text(nanos: i64) -> String {
    let seconds = (nanos / NANOS) as f64 + (nanos % NANOS) as f64 / 1e9;
    format!("{}s", numbers::fixed(seconds))
}

/// `getHours` and its like: of a duration how long it is, of a time what its clock or calendar shows in a zone.
pub(super) fn part<'a>(function: &'static str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(match function {
            "getHours" => nanos / (3_600 * NANOS),
            "getMinutes" => nanos / (60 * NANOS),
            "getSeconds" => nanos / NANOS,
            "getMilliseconds" => nanos / 1_000_000,
            _ => return Err(Failure::NoOverload),
        })),
        [Value::Timestamp(time)] => clock(function, time.local(0)),
        [Value::Timestamp(time), Value::String(zone)] => clock(function, in_zone(*time, zone)?),
        _ => Err(Failure::NoOverload),
    }
}

fn in_zone(time: Time, zone: &str) -> Result<DateTime, Failure> {
    if let Some((hours, minutes)) = zone.split_once(':') {
        let whole = |text: &str| {
            text.parse::<i32>()
                .map_err(|_| Failure::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
        };
        let (hours, minutes) = (whole(hours)?, whole(minutes)?);
        let minutes = if zone.starts_with('-') {
            minutes.saturating_neg()
        } else {
            minutes
        };
        let offset = hours
            .checked_mul(60)
            .and_then(|offset| offset.checked_add(minutes)?.checked_mul(60));
        return Ok(time.local(offset.filter(|offset| offset.unsigned_abs() < 10_000_000).unwrap_or(0)));
    }
    let stamp = Timestamp::new(time.seconds, time.nanos as i32).unwrap_or(Timestamp::UNIX_EPOCH);
    let known = match zone {
        "" | "UTC" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|_| Failure::new(format!("unknown time zone {zone}")))?,
    };
    Ok(Zoned::new(stamp, known).datetime())
}

fn clock<'a>(function: &str, at: DateTime) -> Outcome<'a> {
    Ok(Value::Int(match function {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.subsec_nanosecond() / 1_000_000),
        _ => return Err(Failure::NoOverload),
    }))
}
