//! What the process counts of itself: one registry, to which each component adds its own and which `/metrics` prints. Names
//! are upstream's where upstream counts the same.

use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| Mutex::new(Registry::default()));

/// Adds metrics to what [`print`] prints. To be called once for each name: a component keeps its metrics in a `LazyLock`.
pub fn register(add: impl FnOnce(&mut Registry)) {
    add(&mut REGISTRY.lock());
}

/// Everything that was registered, and the panics that were caught, in the text format of Prometheus.
pub fn print(text: &mut String) {
    let panics = crate::job::panics();
    if !panics.is_empty() {
        text.push_str("# HELP mk8s_panics_total Panics that were caught, by the work that they ended.\n");
        text.push_str("# TYPE mk8s_panics_total counter\n");
    }
    for (name, count) in panics {
        text.push_str(&format!("mk8s_panics_total{{task=\"{name}\"}} {count}\n"));
    }
    // Writing to a string does not fail.
    let _ = encode(text, &REGISTRY.lock());
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn what_is_registered_and_what_panicked_is_printed() {
        let counter: Counter = Counter::default();
        super::register(|registry| registry.register("of_a_test", "Counted by a test", counter.clone()));
        counter.inc();
        crate::job::record_panic("metrics-test", &"gone");
        let mut text = String::new();
        super::print(&mut text);
        assert!(text.contains("\nof_a_test_total 1\n"), "{text}");
        assert!(text.contains("mk8s_panics_total{task=\"metrics-test\"} 1\n"), "{text}");
    }
}
