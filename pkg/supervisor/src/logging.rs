//! Logging set-up: one line per event on stderr, filtered by `MK8S_LOG` (tracing's directives, default `info`).

use tracing_subscriber::EnvFilter;

/// Installs the process's subscriber. A second call changes nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env("MK8S_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=warn,kube_runtime=warn,sled=warn,hyper=warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let _ = subscriber.try_init();
}
