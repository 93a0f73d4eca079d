//! A remote command, whatever protocol its streams come by: exec in a container, or attach to one.
//!
//! The transport hands in a [`Client`] and gets the outcome back; everything the command said has been queued by then,
//! so what the transport queues after it (the status) arrives after it.

use std::future::{Future, pending};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use mk8s_containerd::{Container, Containerd, ExecOptions, Output, Stdin, TaskStatus};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::remotecommand::Options;
use super::status::Outcome;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;

/// A terminal's size, as it comes on the resize stream.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// The client's end of the streams.
pub struct Client {
    /// Ends where the client closes its stdin.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub sizes: mpsc::Receiver<Size>,
    /// Pieces of output; each begins with its channel's number, which is how they go out over a WebSocket.
    pub out: mpsc::Sender<Bytes>,
    /// The connection is no more.
    pub gone: CancellationToken,
}

pub enum Job {
    Exec {
        containerd: Containerd,
        container: Container,
    },
    Attach {
        containerd: Containerd,
        container: Container,
        stdin_once: bool,
    },
}

/// None: the client went away first. A command that it started is ended then: nobody could ever end it otherwise.
pub async fn run(job: Job, options: Options, client: Client) -> Option<Outcome> {
    let gone = client.gone.clone();
    let work = async {
        match job {
            Job::Exec { containerd, container } => Box::pin(exec(&containerd, &container, options, client)).await,
            Job::Attach {
                containerd,
                container,
                stdin_once,
            } => attach(&containerd, &container, stdin_once, &options, client).await,
        }
    };
    tokio::select! {
        outcome = work => Some(outcome),
        () = gone.cancelled() => None,
    }
}

/// A process left behind may hold the streams open: once the command has ended and they are quiet for this long, they
/// are taken for ended.
const DRAIN: Duration = Duration::from_secs(2);

async fn exec(containerd: &Containerd, container: &Container, options: Options, client: Client) -> Outcome {
    let failed = |error: mk8s_containerd::Error| {
        Outcome::Failed(format!(
            "error executing command in container: failed to exec in container: {error}"
        ))
    };
    let wanted = ExecOptions {
        command: options.command,
        tty: options.tty,
        stdin: client.stdin.is_some(),
    };
    let mut exec = match containerd.exec(container, &wanted).await {
        Ok(exec) => exec,
        Err(error) => return failed(error),
    };
    let id = exec.id().to_owned();
    let exited = CancellationToken::new();
    let stdout = pump(exec.stdout.take(), STDOUT, options.stdout, &client.out, &exited);
    let stderr = pump(exec.stderr.take(), STDERR, options.stderr, &client.out, &exited);
    let (stdin, from) = (exec.stdin.take(), client.stdin);
    let input = async {
        if let (Some(stdin), Some(from)) = (stdin, from) {
            feed(stdin, from).await;
            close_stdin(containerd, &container.id, &id).await;
        }
    };
    let sizes = resize(containerd, &container.id, &id, options.tty, client.sizes);
    let exit = {
        let ending = async {
            let exit = exec.exited().await;
            exited.cancel();
            exit
        };
        let output = futures::future::join3(stdout, stderr, ending);
        tokio::select! {
            ((), (), exit) = output => exit,
            () = never_after(futures::future::join(input, sizes)) => return Outcome::SUCCESS,
        }
    };
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => return failed(error),
    };
    if let Err(error) = exec.remove().await {
        tracing::debug!(%error, exec = id, "an exec that has ended is left behind");
    }
    Outcome::Exit {
        code: exit.status,
        command: wanted.command,
    }
}

async fn attach(
    containerd: &Containerd,
    container: &Container,
    stdin_once: bool,
    options: &Options,
    client: Client,
) -> Outcome {
    // An ended container has nothing more to say, and the client then shows its log instead: kubectl run relies on it.
    match containerd.task(&container.id).await {
        Ok(task) if task.status != TaskStatus::Stopped => {}
        Ok(_) => return Outcome::Failed("error attaching to container: container is in CONTAINER_EXITED state".into()),
        Err(error) => return Outcome::Failed(format!("error attaching to container: {error}")),
    }
    let mut attached = match containerd.attach(container).await {
        Ok(attached) => attached,
        Err(error) => return Outcome::Failed(format!("error attaching to container: {error}")),
    };
    let tty = container.stdio.tty;
    let (stdin, from) = (attached.take_stdin(), client.stdin);
    let input = async {
        let (Some(stdin), Some(from)) = (stdin, from) else {
            return pending().await;
        };
        feed(stdin, from).await;
        // The container was to read one client's stdin to the end: it goes on, and so does its output. Otherwise the
        // client's end of file is its leave.
        if stdin_once && !tty {
            close_stdin(containerd, &container.id, "").await;
            pending::<()>().await;
        }
    };
    let output = async {
        loop {
            let (channel, wanted, data) = match attached.next().await {
                Ok(Some(Output::Stdout(data))) => (STDOUT, options.stdout, data),
                Ok(Some(Output::Stderr(data))) => (STDERR, options.stderr, data),
                Ok(None) => return Outcome::SUCCESS,
                Err(error) => return Outcome::Failed(format!("error attaching to container: {error}")),
            };
            if wanted {
                // Nobody listening is seen by `gone`.
                let _ = client.out.send(piece(channel, &data)).await;
            }
        }
    };
    let sizes = resize(containerd, &container.id, "", tty, client.sizes);
    tokio::select! {
        outcome = output => outcome,
        () = input => Outcome::SUCCESS,
        () = never_after(sizes) => Outcome::SUCCESS,
    }
}

/// Runs what alone ends nothing.
async fn never_after(work: impl Future) {
    work.await;
    pending::<()>().await;
}

pub fn piece(channel: u8, data: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(data.len() + 1);
    piece.put_u8(channel);
    piece.extend_from_slice(data);
    piece.freeze()
}

const BUFFER: usize = 64 << 10;
/// Less room than this in the buffer is not worth a read.
const ROOM: usize = 8 << 10;

/// From the command to the client. What nobody asked for is read too, lest the command block.
async fn pump(
    from: Option<pipe::Receiver>,
    channel: u8,
    wanted: bool,
    out: &mpsc::Sender<Bytes>,
    exited: &CancellationToken,
) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        buffer.clear();
        buffer.reserve(ROOM);
        buffer.put_u8(channel);
        let quiet = async {
            exited.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read,
            () = quiet => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(_) if wanted => {
                if out.send(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
        }
    }
}

/// From the client to the command, until the one ends or the other no longer reads.
async fn feed(mut stdin: Stdin, mut from: mpsc::Receiver<Bytes>) {
    while let Some(data) = from.recv().await {
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
}

async fn close_stdin(containerd: &Containerd, container: &str, exec: &str) {
    if let Err(error) = containerd.close_stdin(container, exec).await {
        tracing::debug!(%error, container, exec, "stdin is not closed");
    }
}

async fn resize(containerd: &Containerd, container: &str, exec: &str, tty: bool, mut sizes: mpsc::Receiver<Size>) {
    if !tty {
        return;
    }
    while let Some(size) = sizes.recv().await {
        if size.width == 0 || size.height == 0 {
            continue;
        }
        if let Err(error) = containerd.resize(container, exec, size.width, size.height).await {
            tracing::debug!(%error, container, exec, "a terminal keeps its size");
        }
    }
}
