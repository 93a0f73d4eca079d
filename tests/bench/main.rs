//! A load from outside, against mk8s or any other Kubernetes API server: plain HTTP/2 over TLS, so that a figure is the
//! server's and not a client library's.
//!
//!     bench --kubeconfig FILE --pids PID[,PID…] SCENARIO…
//!
//! One line per scenario, tab-separated: name, failed requests, rate per second, median and 99th percentile in
//! milliseconds, CPU that the server's processes spent per unit in microseconds. `hack/bench.sh` makes the table of it,
//! with another server's lines beside.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on says where, and ends")]
#![allow(
    clippy::disallowed_methods,
    reason = "its clients are tasks that nobody else waits for"
)]

mod client;
mod controllers;
mod definitions;
mod fanout;
mod kubelets;
mod objects;
mod paced;
mod pods;
mod process;
mod scenario;
mod scheduling;
mod watch;

use std::{path::PathBuf, time::Duration};

use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Of a cluster administrator.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// All processes of the server: for mk8s its one, for others API server and store.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Of pods that really run; the node has it.
    #[arg(long, default_value = "mk8s.local/busybox:1")]
    image: String,
    /// In this order; later ones read what earlier ones made. `prepare` and `clean` make and remove the namespace.
    #[arg(required = true, value_parser = scenario::find)]
    scenarios: Vec<&'static scenario::Scenario>,
}

/// What one scenario measured.
struct Measured {
    failed: usize,
    elapsed: Duration,
    /// Requests, or events delivered.
    units: usize,
    /// One per request, ascending.
    latencies: Vec<Duration>,
    cpu: Duration,
}

impl Measured {
    fn percentile(&self, share: f64) -> f64 {
        let at = (self.latencies.len().saturating_sub(1) as f64 * share) as usize;
        self.latencies
            .get(at)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    fn line(&self, name: &str) -> String {
        let units = self.units.max(1) as f64;
        format!(
            "{name}\t{}\t{:.1}\t{:.2}\t{:.2}\t{:.1}",
            self.failed,
            units / self.elapsed.as_secs_f64(),
            self.percentile(0.5),
            self.percentile(0.99),
            self.cpu.as_secs_f64() * 1e6 / units,
        )
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let server = client::Server::from_kubeconfig(&args.kubeconfig).await.unwrap();
    for scenario in args.scenarios {
        if let Some(measured) = scenario.run(&server, &args.pids, &args.image).await {
            println!("{}", measured.line(scenario.name));
        }
    }
}
