//! The clocks that schedules go by.

use std::path::{Component, Path};

use jiff::tz::TimeZone;
use mk8s_api::cron::zones;

const HOST: &str = "/usr/share/zoneinfo";

/// The time zone of this name: the host's rules for it, which may be newer than those that the binary has.
pub fn find(name: &str) -> Option<TimeZone> {
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let of_host = inside.then(|| read(name, &Path::new(HOST).join(name))).flatten();
    of_host.or_else(|| zones::bundled(name))
}

/// The host's own, for schedules that name none. As Go has it, `TZ` goes before what the host is set to, and UTC is for want of either.
pub fn local() -> TimeZone {
    let found = match std::env::var("TZ") {
        Err(_) => read("Local", Path::new("/etc/localtime")),
        Ok(name) => match name.strip_prefix(':').unwrap_or(&name) {
            "" => None,
            path if path.starts_with('/') => read("Local", Path::new(path)),
            name => find(name),
        },
    };
    found.unwrap_or(TimeZone::UTC)
}

fn read(name: &str, path: &Path) -> Option<TimeZone> {
    TimeZone::tzif(name, &std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_without_leaving_their_folder() {
        assert!(find("Europe/Berlin").is_some());
        assert!(find("UTC").is_some());
        for none in [
            "",
            "Mars/Olympus",
            "../zoneinfo/UTC",
            "/usr/share/zoneinfo/UTC",
            "Europe",
        ] {
            assert!(find(none).is_none(), "{none}");
        }
    }
}
