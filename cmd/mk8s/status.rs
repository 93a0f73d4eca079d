//! `mk8s status` and `mk8s version`, and waiting for what a start promises.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use mk8s_client::Api;
use mk8s_client::{Event, Informer, Informers, Kind};
use mk8s_supervisor::Supervisor;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::{self, Where};
use crate::failure::{Failure, Result};
use crate::lifecycle::{self, Started};
use crate::settings::{ADMIN_CONF, LOG_FILE, Role, Settings};
use crate::{remote, token};

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries to connect to a process that is just starting: nothing there can tell when it listens.
const RETRY: Duration = Duration::from_millis(20);

/// How long status waits for the API server.
const ANSWER: Duration = Duration::from_secs(10);

pub fn version(arguments: &cli::Version) -> Result<()> {
    let version = mk8s_apiserver::config::VERSION;
    match arguments.output.as_deref() {
        None => println!("mk8s {} (Kubernetes {version})", env!("CARGO_PKG_VERSION")),
        Some("short") => println!("{version}"),
        Some("json") => println!("{}", json!({"gitVersion": version, "mk8s": env!("CARGO_PKG_VERSION")})),
        Some("yaml") => println!("gitVersion: {version}\nmk8s: {}", env!("CARGO_PKG_VERSION")),
        Some(other) => return Err(Failure::new(format!("{other:?} is not an output: short, yaml or json"))),
    }
    Ok(())
}

/// A client with the rights that this host has: the administrator's on a master, the node's on a worker.
fn client(settings: &Settings) -> Result<kube::Client> {
    match settings.role {
        Role::Master => token::client(ADMIN_CONF.as_ref()),
        Role::Worker => remote::node_client(settings),
    }
}

/// What a start promises, unless what was started ends before.
async fn while_it_runs<T>(started: &mut Started, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        failure = started.end() => Err(failure),
    }
}

/// Resolves when the API server answers that it is ready.
pub async fn wait_for_api(settings: &Settings, started: &mut Started) -> Result<kube::Client> {
    let client = client(settings)?;
    let answer = async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let cause = match client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if tokio::time::Instant::now() >= deadline {
                let what = format!(
                    "reach {} within {} s (see {LOG_FILE})",
                    settings.server(),
                    PATIENCE.as_secs()
                );
                return Err(Failure::of(what, cause));
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    while_it_runs(started, answer).await?;
    Ok(client)
}

/// Resolves when the node is Ready and, on a master, ServiceAccount default exists.
pub async fn wait_ready(settings: &Settings, started: &mut Started) -> Result<()> {
    let client = wait_for_api(settings, started).await?;
    let ready = async {
        let token = CancellationToken::new();
        let informers = Informers::new(client, &Supervisor::new(token.clone()));
        let _ends_them = token.drop_guard();
        let own = format!("metadata.name={}", settings.node_name);
        wait_for(&informers.of_where(&own), is_ready).await;
        if settings.role == Role::Master {
            let account = informers.in_namespace::<ServiceAccount>("default", "metadata.name=default");
            wait_for(&account, |_| true).await;
        }
    };
    let node = &settings.node_name;
    let in_time = async {
        tokio::time::timeout(PATIENCE, ready).await.map_err(|_| {
            Failure::new(format!(
                "node {node} is not Ready after {} s: see {LOG_FILE}",
                PATIENCE.as_secs()
            ))
        })
    };
    while_it_runs(started, in_time).await
}

async fn wait_for<K: Kind>(informer: &Informer<K>, holds: impl Fn(&K) -> bool) {
    let mut events = informer.subscribe();
    while !matches!(events.next().await, Event::Applied { new, .. } if holds(&new)) {}
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub async fn status(arguments: &Where) -> Result<()> {
    let settings = Settings::require(arguments.data_dir.as_deref())?;
    let role = match settings.role {
        Role::Master => "control plane and node",
        Role::Worker => "node",
    };
    println!("role:      {role}");
    println!("node:      {} ({})", settings.node_name, settings.node_ip);
    println!("server:    {}", settings.server());
    println!("data:      {}", settings.data_dir().display());
    match lifecycle::running()? {
        Some(pid) => println!("process:   running, pid {pid}"),
        None => {
            println!("process:   not running (`mk8s start`)");
            return Err(Failure::new("mk8s does not run"));
        }
    }
    match mk8s_containerd_version(&settings).await {
        Ok(version) => println!("containerd: {version}"),
        Err(failure) => println!("containerd: {failure}"),
    }
    match tokio::time::timeout(ANSWER, not_ready(&settings)).await {
        Ok(cause) => match cause? {
            None => println!("ready:     yes"),
            Some(cause) => {
                println!("ready:     no ({cause})");
                return Err(Failure::new("mk8s is not ready"));
            }
        },
        Err(_) => return Err(Failure::new(format!("{} does not answer", settings.server()))),
    }
    Ok(())
}

/// What keeps the API server or the node from being ready.
async fn not_ready(settings: &Settings) -> Result<Option<String>> {
    let client = client(settings)?;
    let ask = |what: &str| format!("ask {} {what}", settings.server());
    let request = http::Request::get("/readyz").body(Vec::new())?;
    match client.request_text(request).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 500 => return Ok(Some(failed_checks(&answer.message))),
        Err(error) => return Err(Failure::of(ask("whether it is ready"), error)),
    }
    let nodes: Api<Node> = Api::all(client);
    let node = nodes.get(&settings.node_name).await;
    let node = node.map_err(|error| Failure::of(ask("for the node"), error))?;
    Ok((!is_ready(&node)).then(|| format!("`kubectl describe node {}`", settings.node_name)))
}

/// The checks that failed, of an answer of /readyz with a line for each: `[-]store failed: no space left`.
fn failed_checks(answer: &str) -> String {
    let failed: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("[-]")).collect();
    match failed.is_empty() {
        true => answer.trim().into(),
        false => failed.join("; "),
    }
}

async fn mk8s_containerd_version(settings: &Settings) -> Result<String> {
    let containerd = crate::node::containerd(settings).await?;
    Ok(containerd.version().await?.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_in_one_line() {
        let answer =
            "[+]ping ok\n[-]store failed: cannot write: No space left on device\n[+]shutdown ok\nreadyz check failed\n";
        assert_eq!(
            failed_checks(answer),
            "store failed: cannot write: No space left on device"
        );
        assert_eq!(failed_checks("proxy says no\n"), "proxy says no");
    }
}
