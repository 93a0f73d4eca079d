//! GET /containerLogs: a container's log file, from where the caller wants it, followed if asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use jiff::Timestamp;
use mk8s_supervisor::job;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::log_lines::Options;
use super::log_reader::Reader;
use super::{upgrade, websocket};
use crate::agent::{Agent, View};
use crate::{names, pod};

/// The log alone, without channels.
const OVER_WEBSOCKET: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];

fn options(query: &HashMap<String, String>, now: Timestamp) -> Result<Options, String> {
    let flag = |name: &str| query.get(name).is_some_and(|v| super::query::is_on(v));
    let number = |name: &str| -> Result<Option<u64>, String> {
        let Some(text) = query.get(name).filter(|t| !t.is_empty()) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| format!("{name}: {text:?} is not a number"))
    };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        since = now.checked_sub(std::time::Duration::from_secs(seconds)).ok();
    }
    if let Some(text) = query.get("sinceTime").filter(|t| !t.is_empty()) {
        since = Some(
            text.parse()
                .map_err(|_| format!("sinceTime: {text:?} is not an RFC 3339 time"))?,
        );
    }
    Ok(Options {
        follow: flag("follow"),
        previous: flag("previous"),
        timestamps: flag("timestamps"),
        tail: number("tailLines")?,
        since,
        limit: number("limitBytes")?,
        stream: match query.get("stream").map(String::as_str) {
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            _ => None,
        },
    })
}

pub async fn handle(
    State(agent): State<Arc<Agent>>,
    UrlPath((namespace, name, container)): UrlPath<(String, String, String)>,
    mut request: Request,
) -> Response {
    let fail = |status: StatusCode, text: String| (status, text).into_response();
    let options = match options(
        &last_of_each(request.uri().query().unwrap_or_default()),
        Timestamp::now(),
    ) {
        Ok(options) => options,
        Err(text) => return fail(StatusCode::BAD_REQUEST, text),
    };
    let Some(view) = super::find(&agent, &namespace, &name) else {
        return fail(StatusCode::NOT_FOUND, format!("pod \"{name}\" does not exist"));
    };
    let file = match log_of(&agent, &view, &container, options.previous) {
        Ok(file) => file,
        Err(text) => return fail(StatusCode::BAD_REQUEST, text),
    };
    let alive = options.follow.then(|| {
        let table = agent.workers.lock();
        table.get(pod::uid(&view.pod)).map(|w| w.view.clone())
    });
    let reader = Reader {
        file: file.path,
        container,
        id: file.id,
        alive: alive.flatten(),
        options,
    };
    let (sender, receiver) = mpsc::channel(16);
    if upgrade::asks(request.headers()) {
        let upgrade = match upgrade::negotiate(&mut request, &OVER_WEBSOCKET, &[]) {
            Ok(upgrade) => upgrade,
            Err(refusal) => return *refusal,
        };
        let base64 = upgrade.protocol.is_some_and(|p| p.starts_with("base64."));
        drop(job::spawn("log-stream", async move {
            if let Ok(connection) = upgrade.connection.await {
                drop(job::spawn("log-reader", reader.run(sender)));
                websocket::send_all(connection, base64, receiver).await;
            }
        }));
        return upgrade.response;
    }
    // Ends with the log, or with the client that drops the receiver.
    drop(job::spawn("log-reader", reader.run(sender)));
    (
        [(header::CONTENT_TYPE, "text/plain")],
        Body::from_stream(ReceiverStream::new(receiver)),
    )
        .into_response()
}

/// Of a repeated key the last counts.
fn last_of_each(query: &str) -> HashMap<String, String> {
    super::query::pairs(query).into_iter().collect()
}

struct LogFile {
    path: PathBuf,
    id: String,
}

fn log_of(agent: &Agent, view: &View, container: &str, previous: bool) -> Result<LogFile, String> {
    let pod = &view.pod;
    let (name, namespace) = (pod::name(pod), pod::namespace(pod));
    if pod::container(pod, container).is_none() {
        return Err(format!("container {container} is not valid for pod {name}"));
    }
    let (current, last) = view.containers.get(container).cloned().unwrap_or_default();
    let chosen = if previous {
        last
    } else {
        current.filter(|i| i.started_at.is_some() || i.exit.is_some())
    };
    match chosen {
        Some(instance) => Ok(LogFile {
            path: names::log_file(&agent.config, pod, container, instance.attempt),
            id: instance.id,
        }),
        None if previous => {
            let text = format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
            Err(text)
        }
        None => Err(match waiting_reason(pod, container) {
            Some(reason) => {
                let why = waiting_words(&reason);
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}")
            }
            None => format!("container \"{container}\" in pod \"{name}\" is not available in namespace {namespace}"),
        }),
    }
}

/// The reasons of a container's status are the API's constants; two of them have words of their own here, as upstream.
fn waiting_words(reason: &str) -> &str {
    match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    }
}

fn waiting_reason(pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> Option<String> {
    let status = pod::status(pod);
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    all.find(|s| s.name == container)?
        .state
        .as_ref()?
        .waiting
        .as_ref()?
        .reason
        .clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_failing_pull_is_told_as_one() {
        for (reason, words) in [
            ("ErrImagePull", "image can't be pulled"),
            ("ImagePullBackOff", "trying and failing to pull image"),
            ("InvalidImageName", "InvalidImageName"),
            ("ErrImageNeverPull", "ErrImageNeverPull"),
            ("ContainerCreating", "ContainerCreating"),
        ] {
            assert_eq!(waiting_words(reason), words);
        }
    }

    #[test]
    fn queries() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let query = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let got = options(
            &query(&[("follow", "true"), ("tailLines", "5"), ("sinceSeconds", "30")]),
            now,
        )
        .unwrap();
        let since = Some("2026-01-01T00:00:30Z".parse().unwrap());
        assert_eq!(
            got,
            Options {
                follow: true,
                tail: Some(5),
                since,
                ..Options::default()
            }
        );
        assert!(options(&query(&[("tailLines", "x")]), now).is_err());
    }
}
