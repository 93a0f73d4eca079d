//! A container's stdin, stdout and stderr, and attaching to them.
//!
//! | container            | streams                                   | who writes the log               |
//! |----------------------|-------------------------------------------|----------------------------------|
//! | no log (pause)       | /dev/null                                 | nobody                           |
//! | plain                | pipes that the shim makes (`binary://`)   | the log writer, the shim's child |
//! | stdin or a terminal  | FIFOs in the container's io directory     | the log writer, detached from us |
//!
//! (containerd 1.6 gives a container with a `binary://` log no stdin, hence the FIFOs.) Either way the log writer is
//! the same program ([`crate::logs`]), outlives this process, and serves what it reads to attached clients on a socket
//! in the io directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio as Redirect;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::client::Containerd;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::logs::{self, Fifos, WriterConfig};

/// How long an attach waits for a log writer that is only just starting.
const ATTACH_TRIES: u32 = 60;
const ATTACH_PAUSE: Duration = Duration::from_millis(50);

/// What a task request carries.
#[derive(Default)]
pub(crate) struct TaskStdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A piece of output, and which stream it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A connection to a running container's streams.
pub struct Attached {
    /// Present where the container keeps its stdin open.
    pub stdin: Option<Stdin>,
    socket: UnixStream,
    received: BytesMut,
}

impl Attached {
    /// The next piece of output since the attach; `None` once the container has closed its streams. Cancel-safe: a call
    /// that is dropped loses nothing.
    pub async fn next(&mut self) -> io::Result<Option<Output>> {
        loop {
            if let Some(output) = self.frame() {
                return Ok(Some(output));
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes the first frame off what was received, if it is all there.
    fn frame(&mut self) -> Option<Output> {
        let header = *self.received.first_chunk::<{ logs::FRAME_HEADER }>()?;
        let (is_stderr, length) = logs::frame_of(header);
        if self.received.len() < logs::FRAME_HEADER + length {
            return None;
        }
        self.received.advance(logs::FRAME_HEADER);
        let data = self.received.split_to(length).freeze();
        Some(if is_stderr {
            Output::Stderr(data)
        } else {
            Output::Stdout(data)
        })
    }

    /// Takes stdin out, to be written by another task.
    pub fn take_stdin(&mut self) -> Option<Stdin> {
        self.stdin.take()
    }
}

/// The writing end of a stdin FIFO.
pub struct Stdin(pipe::Sender);

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Containerd {
    /// Sets up the streams of a task that is about to be created.
    pub(crate) async fn open_stdio(&self, container: &Container) -> Result<TaskStdio> {
        let stdio = &container.stdio;
        let Some(log) = &stdio.log_path else {
            return Ok(TaskStdio::default());
        };
        let directory = self.io_dir(&container.id);
        make_private_dir(&directory)?;
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::path("create", parent, e))?;
        }
        let mut config = WriterConfig::new(log.clone(), directory.join(logs::ATTACH_SOCKET));
        if !stdio.stdin && !stdio.tty {
            let uri = binary_uri(&self.shared.options.log_writer, &config)?;
            return Ok(TaskStdio {
                stdin: String::new(),
                stdout: uri.clone(),
                stderr: uri,
            });
        }
        let fifos = make_fifos(&directory, stdio.stdin, !stdio.tty)?;
        let text = |path: &Option<PathBuf>| path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        let streams = TaskStdio {
            stdin: text(&fifos.stdin),
            stdout: text(&Some(fifos.stdout.clone())),
            stderr: text(&fifos.stderr),
        };
        config.fifos = Some(fifos);
        spawn_writer(&self.shared.options.log_writer, &config)?;
        Ok(streams)
    }

    /// Connects to a container's streams: all output from now on, and its stdin where it keeps one.
    pub async fn attach(&self, container: &Container) -> Result<Attached> {
        let directory = self.io_dir(&container.id);
        let path = directory.join(logs::ATTACH_SOCKET);
        let mut tries = 0;
        let socket = loop {
            match UnixStream::connect(&path).await {
                Ok(socket) => break socket,
                Err(error) if tries >= ATTACH_TRIES => return Err(Error::path("attach to", &path, error)),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(ATTACH_PAUSE).await;
        };
        let stdin = if container.stdio.stdin {
            Some(open_stdin(&directory.join("stdin"))?)
        } else {
            None
        };
        Ok(Attached {
            stdin,
            socket,
            received: BytesMut::new(),
        })
    }

    pub(crate) fn io_dir(&self, id: &str) -> PathBuf {
        self.shared.options.io_dir.join(id)
    }

    pub(crate) fn remove_stdio(&self, id: &str) -> Result<()> {
        let directory = self.io_dir(id);
        release_fifos(&directory);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path("remove", &directory, error)),
            _ => Ok(()),
        }
    }
}

pub(crate) fn make_private_dir(directory: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| Error::path("create", directory, e))
}

/// FIFOs as the shim wants them: with a terminal there is no stderr.
pub(crate) fn make_fifos(directory: &Path, stdin: bool, stderr: bool) -> Result<Fifos> {
    let make = |name: &str| {
        let path = directory.join(name);
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| Error::path("create FIFO", &path, e.into()))?;
        Ok::<PathBuf, Error>(path)
    };
    Ok(Fifos {
        stdin: stdin.then(|| make("stdin")).transpose()?,
        stdout: make("stdout")?,
        stderr: stderr.then(|| make("stderr")).transpose()?,
    })
}

pub(crate) fn open_stdin(path: &Path) -> Result<Stdin> {
    // Read-write, so that opening succeeds before the shim has opened its end.
    let sender = pipe::OpenOptions::new().read_write(true).open_sender(path);
    sender.map(Stdin).map_err(|e| Error::path("open", path, e))
}

/// Opens and closes the writing ends: a log writer whose container never came to be reads end of file, and leaves.
fn release_fifos(directory: &Path) {
    for name in ["stdout", "stderr"] {
        let options = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let _ = nix::fcntl::open(&directory.join(name), options, Mode::empty());
    }
}

/// What a path in an URL holds as it is.
const PATH: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// `binary:///usr/local/bin/mk8s?container-log=…`: containerd makes `container-log …` the arguments.
fn binary_uri(writer: &Path, config: &WriterConfig) -> Result<String> {
    let argument = config.to_argument()?;
    let path = writer.display().to_string();
    let encode = |text| utf8_percent_encode(text, &PATH);
    Ok(format!(
        "binary://{}?{}={}",
        encode(&path),
        logs::VERB,
        encode(&argument)
    ))
}

/// Starts a log writer that is nobody's child for long: in a session of its own, to survive this process.
fn spawn_writer(writer: &Path, config: &WriterConfig) -> Result<()> {
    let mut command = tokio::process::Command::new(writer);
    command.arg(logs::VERB).arg(config.to_argument()?);
    command
        .stdin(Redirect::null())
        .stdout(Redirect::null())
        .stderr(Redirect::null());
    command.current_dir("/").process_group(0);
    // Dropped, not waited for: tokio reaps it in the background when it ends.
    command
        .spawn()
        .map(drop)
        .map_err(|e| Error::path("start log writer", writer, e))
}
