//! Logging set-up: one line per event on stderr, filtered by `MK8S_LOG`: levels by target, such as `info,mk8s_kubelet=debug`.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const DEFAULT: &str = "info,kube_client=warn,kube_runtime=warn,sled=warn,hyper=warn";

/// Installs the process's subscriber. A second call changes nothing.
pub fn init() {
    let asked = std::env::var("MK8S_LOG").unwrap_or_else(|_| DEFAULT.into());
    let (filter, refused) = match asked.parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (DEFAULT.parse().unwrap_or_default(), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    if let Some(error) = refused {
        tracing::warn!(asked, %error, "MK8S_LOG is no list of levels by target; the default filter is used");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_filter() {
        let filter: Targets = DEFAULT.parse().expect("directives");
        assert!(filter.would_enable("mk8s", &tracing::Level::INFO));
        assert!(!filter.would_enable("sled::pagecache", &tracing::Level::INFO));
    }
}
