//! Counters that cost a request one atomic addition, printed in the Prometheus text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use mk8s_supervisor as supervisor;

use crate::watch_cache::Cache;

const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];
/// The codes that the server answers, each counted by itself; others are counted as the most general one of their class.
const CODES: [u16; 22] = [
    101, 200, 201, 202, 304, 400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415, 422, 429, 500, 503, 504, 507,
];

/// Where a code is counted.
fn place(code: u16) -> usize {
    let general = match code {
        100..200 => 101,
        200..300 => 200,
        300..400 => 304,
        400..500 => 400,
        _ => 500,
    };
    let at = |code| CODES.iter().position(|own| *own == code);
    at(code).or_else(|| at(general)).unwrap_or_default()
}

/// Requests of one row, by verb and code.
#[derive(Default)]
pub struct Requests([[AtomicU64; CODES.len()]; VERBS.len()]);

impl Requests {
    pub fn count(&self, verb: &str, code: u16) {
        let Some(verb) = VERBS.iter().position(|own| *own == verb) else {
            return;
        };
        self.0[verb][place(code)].fetch_add(1, Ordering::Relaxed);
    }
}

/// What is counted for the whole server.
#[derive(Default)]
pub struct Metrics {
    dropped: AtomicU64,
}

impl Metrics {
    /// A request was refused since too many are under way.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// (group, version, plural)
pub type GroupVersionResource<'a> = (&'a str, &'a str, &'a str);

/// Everything, as text.
pub fn print<'a>(
    metrics: &Metrics,
    rows: impl Iterator<Item = (GroupVersionResource<'a>, &'a Requests)>,
    cache: &Cache,
) -> String {
    let mut text = String::with_capacity(16 << 10);
    text.push_str("# HELP apiserver_request_total Requests by verb, resource and code.\n");
    text.push_str("# TYPE apiserver_request_total counter\n");
    for ((group, version, plural), requests) in rows {
        for (verb, codes) in VERBS.iter().zip(&requests.0) {
            for (code, count) in CODES.iter().zip(codes) {
                let count = count.load(Ordering::Relaxed);
                if count == 0 {
                    continue;
                }
                let _ = writeln!(
                    text,
                    "apiserver_request_total{{code=\"{code}\",group=\"{group}\",resource=\"{plural}\",verb=\"{}\",version=\"{version}\"}} {count}",
                    verb.to_uppercase(),
                );
            }
        }
    }
    text.push_str("# HELP apiserver_dropped_requests_total Requests refused because too many were under way.\n");
    text.push_str("# TYPE apiserver_dropped_requests_total counter\n");
    let dropped = metrics.dropped.load(Ordering::Relaxed);
    let _ = writeln!(text, "apiserver_dropped_requests_total {dropped}");
    text.push_str("# HELP apiserver_storage_objects Stored objects by resource.\n");
    text.push_str("# TYPE apiserver_storage_objects gauge\n");
    for cache in cache.resources() {
        let _ = writeln!(
            text,
            "apiserver_storage_objects{{resource=\"{}\"}} {}",
            cache.resource().qualified(),
            cache.len()
        );
    }
    text.push_str("# HELP apiserver_longrunning_requests Watches by resource.\n");
    text.push_str("# TYPE apiserver_longrunning_requests gauge\n");
    for cache in cache.resources() {
        let watchers = cache.watchers();
        if watchers > 0 {
            let _ = writeln!(
                text,
                "apiserver_longrunning_requests{{resource=\"{}\",verb=\"WATCH\"}} {watchers}",
                cache.resource().qualified()
            );
        }
    }
    text.push_str("# HELP mk8s_store_revision The newest revision that is on disk and visible.\n");
    text.push_str("# TYPE mk8s_store_revision gauge\n");
    let _ = writeln!(text, "mk8s_store_revision {}", cache.revision());
    supervisor::metrics::print(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_counted_as_what_it_is() {
        for code in CODES {
            assert_eq!(CODES[place(code)], code);
        }
        for (code, counted) in [(102, 101), (206, 200), (301, 304), (418, 400), (501, 500), (599, 500)] {
            assert_eq!(CODES[place(code)], counted);
        }
    }
}
