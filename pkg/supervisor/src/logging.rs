//! Logging set-up: one line per event on stderr, filtered by `MK8S_LOG`: levels by target, such as `info,mk8s_kubelet=debug`.

use std::io::Write;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const DEFAULT: &str = "info,kube_client=warn,kube_runtime=warn,sled=warn,hyper=warn";

/// Installs the process's subscriber; a second call changes nothing. `written` is told the length of each line in bytes,
/// after it was written: what the file behind stderr is limited by.
pub fn init(written: impl Fn(usize) + Send + Sync + 'static) {
    let asked = std::env::var("MK8S_LOG").unwrap_or_else(|_| DEFAULT.into());
    let (filter, refused) = match asked.parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (DEFAULT.parse().unwrap_or_default(), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines(written))
        .with_ansi(false);
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    if let Some(error) = refused {
        tracing::warn!(asked, %error, "MK8S_LOG is no list of levels by target; the default filter is used");
    }
}

/// Makes the writer of each line: stderr, and then `written`.
struct Lines<F>(F);

struct Line<'a, F: Fn(usize)> {
    written: &'a F,
    length: usize,
}

impl<'a, F: Fn(usize) + 'a> MakeWriter<'a> for Lines<F> {
    type Writer = Line<'a, F>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            written: &self.0,
            length: 0,
        }
    }
}

impl<F: Fn(usize)> Write for Line<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = std::io::stderr().write(bytes)?;
        self.length += length;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<F: Fn(usize)> Drop for Line<'_, F> {
    fn drop(&mut self) {
        (self.written)(self.length);
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
