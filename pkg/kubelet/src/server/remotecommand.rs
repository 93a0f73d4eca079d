//! GET and POST /exec and /attach: which container, which streams, and the upgrade; then [`super::session`] runs it.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mk8s_containerd::Container;
use mk8s_supervisor::job;

use super::query;
use super::session::{self, Job};
use super::upgrade::{self, Kind};
use super::{spdy_channels, websocket};
use crate::agent::Agent;
use crate::pod;

const OVER_WEBSOCKET: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
const OVER_SPDY: [&str; 4] = [
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// What the client wants of the command's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

fn options(query: &str) -> Result<Options, String> {
    let mut options = Options::default();
    for (key, value) in query::pairs(query) {
        let on = query::is_on(&value);
        match key.as_str() {
            "command" => options.command.push(value),
            "stdin" | "input" => options.stdin |= on,
            "stdout" | "output" => options.stdout |= on,
            "stderr" | "error" => options.stderr |= on,
            "tty" => options.tty |= on,
            _ => {}
        }
    }
    // A terminal is one stream.
    options.stderr &= !options.tty;
    if !options.stdin && !options.stdout && !options.stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
    }
    Ok(options)
}

type Refusal = (StatusCode, String);

/// The running container of that name, as containerd has it.
async fn running(agent: &Agent, view: &crate::agent::View, name: &str) -> Result<Container, Refusal> {
    let internal = |text: String| (StatusCode::INTERNAL_SERVER_ERROR, text);
    let (current, _) = view.containers.get(name).cloned().unwrap_or_default();
    let instance = current.ok_or_else(|| internal(format!("container not found ({name:?})")))?;
    if !instance.running() {
        let state = if instance.exit.is_some() {
            "CONTAINER_EXITED"
        } else {
            "CONTAINER_CREATED"
        };
        return Err(internal(format!("container {name:?} is in {state} state")));
    }
    let found = agent.containerd.container(&instance.id).await;
    found.map_err(|error| internal(error.to_string()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Exec,
    Attach,
}

pub async fn exec(state: State<Arc<Agent>>, path: Path<(String, String, String)>, request: Request) -> Response {
    begin(Verb::Exec, state, path, request).await
}

pub async fn attach(state: State<Arc<Agent>>, path: Path<(String, String, String)>, request: Request) -> Response {
    begin(Verb::Attach, state, path, request).await
}

async fn begin(
    verb: Verb,
    State(agent): State<Arc<Agent>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    mut request: Request,
) -> Response {
    let options = match options(request.uri().query().unwrap_or_default()) {
        Ok(options) => options,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    let Some(view) = super::find(&agent, &namespace, &name) else {
        return (StatusCode::NOT_FOUND, "pod does not exist").into_response();
    };
    let running = match running(&agent, &view, &container).await {
        Ok(running) => running,
        Err(refusal) => return refusal.into_response(),
    };
    let job = match verb {
        Verb::Exec if options.command.is_empty() => {
            return (StatusCode::BAD_REQUEST, "you must specify a command").into_response();
        }
        Verb::Exec => Job::Exec {
            containerd: agent.containerd.clone(),
            container: running,
        },
        Verb::Attach => Job::Attach {
            stdin_once: pod::container(&view.pod, &container).is_some_and(|c| c.stdin_once == Some(true)),
            containerd: agent.containerd.clone(),
            container: running,
        },
    };
    let upgrade = match upgrade::negotiate(&mut request, &OVER_WEBSOCKET, &OVER_SPDY) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return *refusal,
    };
    let serving = job::spawn("remotecommand", async move {
        let connection = match upgrade.connection.await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not come about");
                return;
            }
        };
        let (for_job, stdin) = (options.clone(), options.stdin);
        let run = |client| Box::pin(session::run(job, for_job, client));
        match upgrade.kind {
            Kind::WebSocket => {
                let lowest = if options.stdout {
                    session::STDOUT
                } else if options.stderr {
                    session::STDERR
                } else {
                    session::ERROR
                };
                let dialect = websocket::Dialect::of(upgrade.protocol);
                websocket::serve(connection, dialect, stdin, lowest, run).await;
            }
            Kind::Spdy => spdy_channels::serve(connection, upgrade.protocol, &options, run).await,
        }
    });
    drop(serving);
    upgrade.response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn queries() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        for (query, expected) in [
            (
                "command=sh&command=-c&command=echo+%26%20x&stdout=true&stderr=true",
                Ok(Options {
                    command: words(&["sh", "-c", "echo & x"]),
                    stdout: true,
                    stderr: true,
                    ..Options::default()
                }),
            ),
            (
                "input=1&output=1&error=1&tty=1",
                Ok(Options {
                    stdin: true,
                    stdout: true,
                    tty: true,
                    ..Options::default()
                }),
            ),
            ("stdin=false&tty=true", Err(())),
        ] {
            assert_eq!(options(query).map_err(drop), expected, "{query}");
        }
    }
}
