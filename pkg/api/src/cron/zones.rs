//! The time zones that the binary brings along: a host need not have any.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::DeflateDecoder;
use jiff::tz::TimeZone;
use parking_lot::Mutex;

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zones.deflate"));

/// Those that were asked for; their names are those of the table, so there are never many.
static FOUND: LazyLock<Mutex<BTreeMap<String, TimeZone>>> = LazyLock::new(Mutex::default);

/// Is there a time zone of this name? (`Europe/Berlin`; names are told apart by case.)
pub fn is_known(name: &str) -> bool {
    bundled(name).is_some()
}

/// The time zone of this name.
pub fn bundled(name: &str) -> Option<TimeZone> {
    let mut found = FOUND.lock();
    if let Some(zone) = found.get(name) {
        return Some(zone.clone());
    }
    let zone = TimeZone::tzif(name, &rules(name)?).ok()?;
    found.insert(name.to_owned(), zone.clone());
    Some(zone)
}

fn rules(name: &str) -> Option<Vec<u8>> {
    // Unpacked anew each time: few of them are ever asked for.
    let mut all = Vec::new();
    DeflateDecoder::new(PACKED).read_to_end(&mut all).ok()?;
    let names = all.windows(2).position(|two| two == b"\n\n")?;
    let mut lines = std::str::from_utf8(&all[..names]).ok()?.lines();
    let (start, end) = lines.find_map(|line| {
        let (start, end) = line.strip_prefix(name)?.strip_prefix(' ')?.split_once(' ')?;
        Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?))
    })?;
    all.get(names + 2..)?.get(start..end).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn zones_are_found_by_their_names() {
        let offset = |zone: &str, at: &str| {
            let at: Timestamp = at.parse().ok()?;
            Some(bundled(zone)?.to_offset(at).seconds())
        };
        for (zone, at, expected) in [
            ("Europe/Berlin", "2025-01-01T00:00:00Z", Some(3600)),
            ("Europe/Berlin", "2025-07-01T00:00:00Z", Some(7200)),
            ("Asia/Kolkata", "2025-07-01T00:00:00Z", Some(19800)),
            ("US/Pacific", "2090-01-01T00:00:00Z", Some(-28800)),
            ("UTC", "2025-07-01T00:00:00Z", Some(0)),
            ("europe/berlin", "2025-07-01T00:00:00Z", None),
            ("Europe", "2025-07-01T00:00:00Z", None),
            ("", "2025-07-01T00:00:00Z", None),
            ("Mars/Olympus", "2025-07-01T00:00:00Z", None),
        ] {
            assert_eq!(offset(zone, at), expected, "{zone} {at}");
        }
    }
}
