//! GET /containerLogs: a container's log file, from where the caller wants it, followed if asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{upgrade, websocket};
use crate::agent::{Agent, View};
use crate::{names, pod};

/// The log alone, without channels.
const OVER_WEBSOCKET: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    since: Option<Timestamp>,
    limit: Option<u64>,
    /// stdout, stderr or both.
    stream: Option<&'static str>,
}

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
        tokio::spawn(async move {
            if let Ok(connection) = upgrade.connection.await {
                tokio::spawn(reader.run(sender));
                websocket::send_all(connection, base64, receiver).await;
            }
        });
        return upgrade.response;
    }
    // Ends with the log, or with the client that drops the receiver.
    tokio::spawn(reader.run(sender));
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
            Some(reason) if reason.contains("Image") => format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: trying and failing to pull image"
            ),
            Some(reason) => {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
            }
            None => format!("container \"{container}\" in pod \"{name}\" is not available in namespace {namespace}"),
        }),
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

struct Reader {
    file: PathBuf,
    container: String,
    id: String,
    /// Some: follow, until this shows that the container has ended.
    alive: Option<watch::Receiver<Arc<View>>>,
    options: Options,
}

type Out = mpsc::Sender<Result<Bytes, std::io::Error>>;

impl Reader {
    async fn run(self, out: Out) {
        if let Err(error) = self.copy(&out).await {
            tracing::debug!(file = %self.file.display(), %error, "reading a log ended");
        }
    }

    async fn copy(&self, out: &Out) -> std::io::Result<()> {
        // Before the first read, so that nothing written after it is missed.
        let changes = match &self.alive {
            Some(_) => Some(watch_file(&self.file)?),
            None => None,
        };
        let mut lines = Lines::open(&self.file, self.options.tail)?;
        let mut left = self.options.limit;
        let mut alive = self.alive.clone();
        loop {
            let ended = alive.as_ref().is_none_or(|a| !self.is_running(&a.borrow()));
            loop {
                let (batch, more) = lines.batch(&self.options)?;
                if !self.send(out, batch, &mut left).await {
                    return Ok(());
                }
                if !more {
                    break;
                }
            }
            let (false, Some(changes), Some(alive)) = (ended, &changes, alive.as_mut()) else {
                return Ok(());
            };
            tokio::select! {
                () = out.closed() => return Ok(()),
                _ = alive.changed() => {}
                ready = changes.readable() => {
                    let mut ready = ready?;
                    let _ = ready.get_inner().read_events();
                    ready.clear_ready();
                }
            }
        }
    }

    fn is_running(&self, view: &View) -> bool {
        let current = view
            .containers
            .get(&self.container)
            .and_then(|(current, _)| current.as_ref());
        current.is_some_and(|i| i.id == self.id && i.exit.is_none())
    }

    /// False: enough, or nobody listens.
    async fn send(&self, out: &Out, mut batch: Vec<u8>, left: &mut Option<u64>) -> bool {
        if let Some(left) = left {
            batch.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= batch.len() as u64;
        }
        if !batch.is_empty() && out.send(Ok(Bytes::from(batch))).await.is_err() {
            return false;
        }
        *left != Some(0)
    }
}

fn watch_file(file: &Path) -> std::io::Result<AsyncFd<InotifyFd>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(file, AddWatchFlags::IN_MODIFY)?;
    #[allow(
        deprecated,
        reason = "the descriptor is owned by what is registered; the way that replaces it is unsafe"
    )]
    AsyncFd::new(InotifyFd(inotify))
}

struct InotifyFd(Inotify);

impl InotifyFd {
    fn read_events(&self) -> nix::Result<()> {
        self.0.read_events().map(drop)
    }
}

impl AsFd for InotifyFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The lines of a log file from a place on.
struct Lines {
    reader: BufReader<std::fs::File>,
    /// A line that the writer hasn't finished.
    partial: Vec<u8>,
}

const BATCH: usize = 64 * 1024;

impl Lines {
    fn open(path: &Path, tail: Option<u64>) -> std::io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        if let Some(tail) = tail {
            let start = tail_start(&mut file, tail)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Self {
            reader: BufReader::with_capacity(BATCH, file),
            partial: Vec::new(),
        })
    }

    /// What the next lines say, and whether there are more right now.
    fn batch(&mut self, options: &Options) -> std::io::Result<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        while out.len() < BATCH {
            let read = self.reader.read_until(b'\n', &mut self.partial)?;
            if read == 0 || self.partial.last() != Some(&b'\n') {
                return Ok((out, false));
            }
            render(&self.partial, options, &mut out);
            self.partial.clear();
        }
        Ok((out, true))
    }
}

/// `TIME STREAM F|P CONTENT\n`, without what the caller doesn't want. A partial line has no end of its own.
fn render(line: &[u8], options: &Options, out: &mut Vec<u8>) {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let (Some(time), Some(stream), Some(flag), Some(content)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return;
    };
    if options.stream.is_some_and(|s| s.as_bytes() != stream) {
        return;
    }
    if let Some(since) = options.since {
        let at = std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok());
        if at.is_some_and(|at| at < since) {
            return;
        }
    }
    if options.timestamps {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    let content = if flag.starts_with(b"P") {
        content.strip_suffix(b"\n").unwrap_or(content)
    } else {
        content
    };
    out.extend_from_slice(content);
}

/// Where the last `lines` lines begin, read from the end.
fn tail_start(file: &mut std::fs::File, lines: u64) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut at = end;
    let mut found = 0;
    let mut block = vec![0u8; 16 * 1024];
    while at > 0 {
        let size = (block.len() as u64).min(at) as usize;
        at -= size as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block[..size])?;
        for index in (0..size).rev() {
            // The end of the last line doesn't begin another.
            if block[index] == b'\n' && at + (index as u64) + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(at + index as u64 + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n\
                       2026-01-01T00:00:01Z stderr F o\n2026-01-01T00:00:02Z stdout F three\n2026-01-01T00:00:03Z stdout F unfini";

    fn read(options: &Options) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LOG).unwrap();
        let mut lines = Lines::open(file.path(), options.tail).unwrap();
        String::from_utf8(lines.batch(options).unwrap().0).unwrap()
    }

    #[test]
    fn readings() {
        let all = Options::default();
        for (options, expected) in [
            (all.clone(), "one\ntwo\nthree\n"),
            (
                Options {
                    tail: Some(2),
                    ..all.clone()
                },
                "three\n",
            ),
            (
                Options {
                    tail: Some(0),
                    ..all.clone()
                },
                "",
            ),
            (
                Options {
                    tail: Some(100),
                    ..all.clone()
                },
                "one\ntwo\nthree\n",
            ),
            (
                Options {
                    stream: Some("stdout"),
                    ..all.clone()
                },
                "one\nthree\n",
            ),
            (
                Options {
                    since: Some("2026-01-01T00:00:02Z".parse().unwrap()),
                    ..all.clone()
                },
                "three\n",
            ),
            (
                Options {
                    tail: Some(2),
                    timestamps: true,
                    ..all.clone()
                },
                "2026-01-01T00:00:02Z three\n",
            ),
        ] {
            assert_eq!(read(&options), expected, "{options:?}");
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
