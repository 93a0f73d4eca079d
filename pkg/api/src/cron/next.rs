//! When a schedule falls due next. What a day on which the clocks change has too little or too much of is treated as upstream's
//! parser and Go's calendar do: an hour that is left out counts for none (what was due in it is not run that day), and one that comes
//! twice comes twice.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

use super::{Listed, Schedule, When};

/// Who finds nothing in so many years never will.
const YEARS: i16 = 5;

impl Schedule {
    /// The first time after `after` that the schedule names, by the clocks of `zone`; none: it names none in the next years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.when {
            When::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            When::Fields(fields) => next(fields, after, zone),
        }
    }
}

fn next(fields: &[Listed; 5], after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    // A comma alone lists nothing; who looks for it minute by minute looks for seconds.
    let [minutes, hours, _, months, _] = fields;
    if [minutes, hours, months].into_iter().any(|listed| listed.bits == 0) {
        return None;
    }
    let mut hands = Hands::at(zone, after.as_second().checked_add(1)?)?;
    let last = hands.shown.year().checked_add(YEARS)?;
    while hands.shown.year() <= last {
        let begun_again = hands.seek_month(fields[3])?
            || hands.seek_day(fields[2], fields[4])?
            || hands.seek_hour(fields[1])?
            || hands.seek_minute(fields[0])?
            || hands.seek_full_minute()?;
        if !begun_again {
            return Timestamp::from_second(hands.second).ok();
        }
    }
    None
}

/// A clock that is put forward until it shows what a schedule names. Its steps tell whether they went past the end of the larger
/// unit, so that this has to be looked at again; none: there are no such times.
struct Hands<'z> {
    zone: &'z TimeZone,
    second: i64,
    shown: DateTime,
    /// The smaller units are at their beginning, since one was put forward.
    moved: bool,
}

impl<'z> Hands<'z> {
    fn at(zone: &'z TimeZone, second: i64) -> Option<Self> {
        let shown = zone.to_datetime(Timestamp::from_second(second).ok()?);
        Some(Hands {
            zone,
            second,
            shown,
            moved: false,
        })
    }

    fn put(&mut self, second: i64) -> Option<()> {
        self.second = second;
        self.shown = self.zone.to_datetime(Timestamp::from_second(second).ok()?);
        Some(())
    }

    /// To what the clock is to show. Where it never does, or twice, Go's calendar takes the offset that was right that many
    /// hours from there.
    fn show(&mut self, wanted: DateTime) -> Option<()> {
        let as_utc = Offset::UTC.to_timestamp(wanted).ok()?.as_second();
        let offset = |second| {
            Some(i64::from(
                self.zone.to_offset(Timestamp::from_second(second).ok()?).seconds(),
            ))
        };
        let guess = as_utc.checked_sub(offset(as_utc)?)?;
        self.put(as_utc.checked_sub(offset(guess)?)?)
    }

    fn seek_month(&mut self, months: Listed) -> Option<bool> {
        while !months.has(self.shown.month()) {
            if !self.moved {
                self.moved = true;
                self.show(self.shown.date().first_of_month().at(0, 0, 0, 0))?;
            }
            // A day that the next month has not is one of the month after that.
            let days = i64::from(self.shown.day()) - 1;
            let month = self.shown.date().first_of_month();
            let next = month.checked_add(Span::new().months(1).days(days)).ok()?;
            self.show(next.to_datetime(self.shown.time()))?;
            if self.shown.month() == 1 {
                return Some(true);
            }
        }
        Some(false)
    }

    fn seek_day(&mut self, of_month: Listed, of_week: Listed) -> Option<bool> {
        while !is_day(of_month, of_week, self.shown.date()) {
            if !self.moved {
                self.moved = true;
                self.show(self.shown.date().at(0, 0, 0, 0))?;
            }
            self.show(self.shown.checked_add(Span::new().days(1)).ok()?)?;
            // A day may begin at one o'clock, or what was to be its midnight be in the day before.
            match i64::from(self.shown.hour()) {
                0 => {}
                late @ 13.. => self.put(self.second + (24 - late) * 3600)?,
                early => self.put(self.second - early * 3600)?,
            }
            if self.shown.day() == 1 {
                return Some(true);
            }
        }
        Some(false)
    }

    fn seek_hour(&mut self, hours: Listed) -> Option<bool> {
        while !hours.has(self.shown.hour()) {
            if !self.moved {
                self.moved = true;
                self.show(self.shown.date().at(self.shown.hour(), 0, 0, 0))?;
            }
            self.put(self.second + 3600)?;
            if self.shown.hour() == 0 {
                return Some(true);
            }
        }
        Some(false)
    }

    fn seek_minute(&mut self, minutes: Listed) -> Option<bool> {
        while !minutes.has(self.shown.minute()) {
            if !self.moved {
                self.moved = true;
                self.put(self.second - self.second.rem_euclid(60))?;
            }
            self.put(self.second + 60)?;
            if self.shown.minute() == 0 {
                return Some(true);
            }
        }
        Some(false)
    }

    fn seek_full_minute(&mut self) -> Option<bool> {
        let past = i64::from(self.shown.second());
        if past == 0 {
            return Some(false);
        }
        self.moved = true;
        self.put(self.second + 60 - past)?;
        Some(true)
    }
}

/// Both must name the day; where neither field says `*`, one is enough.
fn is_day(of_month: Listed, of_week: Listed, date: Date) -> bool {
    let day = of_month.has(date.day());
    let weekday = of_week.has(date.weekday().to_sunday_zero_offset());
    if of_month.any || of_week.any {
        day && weekday
    } else {
        day || weekday
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::zones;
    use super::*;

    /// The next times in a zone, as its clocks show them.
    fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let zone = zones::bundled(zone).unwrap();
        let schedule = Schedule::parse(schedule).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        (0..count)
            .map(|_| {
                at = schedule.next(at, &zone).unwrap();
                at.display_with_offset(zone.to_offset(at)).to_string()
            })
            .collect()
    }

    #[test]
    fn schedules_name_times() {
        let after = "2025-01-31T10:07:30.5Z";
        for (schedule, expected) in [
            ("* * * * *", ["2025-01-31T10:08:00", "2025-01-31T10:09:00"]),
            ("5/15 * * * *", ["2025-01-31T10:20:00", "2025-01-31T10:35:00"]),
            ("*/20 9-17/4 * * *", ["2025-01-31T13:00:00", "2025-01-31T13:20:00"]),
            ("7 10 * * *", ["2025-02-01T10:07:00", "2025-02-02T10:07:00"]),
            ("@hourly", ["2025-01-31T11:00:00", "2025-01-31T12:00:00"]),
            ("@daily", ["2025-02-01T00:00:00", "2025-02-02T00:00:00"]),
            ("@weekly", ["2025-02-02T00:00:00", "2025-02-09T00:00:00"]),
            ("@monthly", ["2025-02-01T00:00:00", "2025-03-01T00:00:00"]),
            ("@yearly", ["2026-01-01T00:00:00", "2027-01-01T00:00:00"]),
            ("@every 90m", ["2025-01-31T11:37:30", "2025-01-31T13:07:30"]),
            ("@every 10ms", ["2025-01-31T10:07:31", "2025-01-31T10:07:32"]),
            ("0 0 31 * *", ["2025-03-31T00:00:00", "2025-05-31T00:00:00"]),
            ("0 0 29 2 *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
            ("30 4 ? JAN,jul mon-wed", ["2025-07-01T04:30:00", "2025-07-02T04:30:00"]),
            // Both days say something: either is enough. With `*` or `?` in one of them, both must hold; `*/2` says something.
            ("0 0 13 * 5", ["2025-02-07T00:00:00", "2025-02-13T00:00:00"]),
            ("0 0 */2 * 5", ["2025-02-01T00:00:00", "2025-02-03T00:00:00"]),
            ("0 0 ? * 5", ["2025-02-07T00:00:00", "2025-02-14T00:00:00"]),
        ] {
            let found = times(schedule, "UTC", after, 2);
            let found: Vec<&str> = found.iter().map(|at| at.strip_suffix("+00:00").unwrap()).collect();
            assert_eq!(found, expected, "{schedule}");
        }
    }

    #[test]
    fn what_never_comes_is_none() {
        let now: Timestamp = "2025-01-31T10:07:30Z".parse().unwrap();
        for never in ["59 23 31 2 *", "0 0 30 2 ?", "0 0 , * *", "0 0 ? * ,"] {
            let never = Schedule::parse(never).unwrap();
            assert_eq!(never.next(now, &TimeZone::UTC), None, "{never:?}");
        }
        // At once: this would take an hour.
        for nothing in [", * * * *", "* , * * *", "0 0 1 ,, *"] {
            let nothing = Schedule::parse(nothing).unwrap();
            for _ in 0..10_000 {
                assert_eq!(nothing.next(now, &TimeZone::UTC), None, "{nothing:?}");
            }
        }
    }

    #[test]
    fn clocks_that_change() {
        let (berlin, new_york) = ("Europe/Berlin", "America/New_York");
        // Half past two is left out in the night to 30 March: nothing is run that day.
        let night = times("30 2 * * *", berlin, "2025-03-28T12:00:00Z", 3);
        assert_eq!(
            night,
            [
                "2025-03-29T02:30:00+01:00",
                "2025-03-31T02:30:00+02:00",
                "2025-04-01T02:30:00+02:00"
            ]
        );
        // Every hour: one fewer.
        let hours = times("0 * * * *", berlin, "2025-03-30T00:00:00Z", 2);
        assert_eq!(hours, ["2025-03-30T03:00:00+02:00", "2025-03-30T04:00:00+02:00"]);
        // Half past two comes twice in the night to 26 October.
        let night = times("30 2 * * *", berlin, "2025-10-25T12:00:00Z", 3);
        assert_eq!(
            night,
            [
                "2025-10-26T02:30:00+02:00",
                "2025-10-26T02:30:00+01:00",
                "2025-10-27T02:30:00+01:00"
            ]
        );
        let hours = times("0 * * * *", new_york, "2025-11-02T04:30:00Z", 3);
        assert_eq!(
            hours,
            [
                "2025-11-02T01:00:00-04:00",
                "2025-11-02T01:00:00-05:00",
                "2025-11-02T02:00:00-05:00"
            ]
        );
        // A day that began at one o'clock: its midnight is left out.
        let days = times("0 0 * * *", "America/Sao_Paulo", "2018-11-02T12:00:00Z", 2);
        assert_eq!(days, ["2018-11-03T00:00:00-03:00", "2018-11-05T00:00:00-02:00"]);
        let noon = times("0 12 4 11 *", "America/Sao_Paulo", "2018-11-02T12:00:00Z", 1);
        assert_eq!(noon, ["2018-11-04T12:00:00-02:00"]);
        // Offsets that are no whole hours.
        assert_eq!(
            times("0 0 * * *", "Asia/Kolkata", "2025-01-01T00:00:00Z", 1),
            ["2025-01-02T00:00:00+05:30"]
        );
    }
}
