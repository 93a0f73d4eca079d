//! The log writer's loop: poll(2) over the container's streams, the attach socket, its clients, and SIGTERM.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::attach::{Client, PATIENCE};
use super::cri::Lines;
use super::file::LogFile;
use super::{Fifos, WriterConfig};

const READ_SIZE: usize = 32 << 10;

/// One of the container's streams, until its end.
struct Source {
    file: File,
    is_stderr: bool,
    lines: Lines,
}

struct Writer {
    log: LogFile,
    sources: Vec<Source>,
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    records: Vec<u8>,
}

pub(super) fn run(config: &WriterConfig) -> io::Result<()> {
    if config.fifos.is_none() {
        // The shim waits for this before it makes the container. First thing, since what comes next goes on meanwhile:
        // the pipes are there, and hold what is written early.
        let _ = nix::unistd::close(5);
    }
    let term = block_signals()?;
    let sources = match &config.fifos {
        Some(fifos) => open_fifos(fifos)?,
        None => vec![inherited(3, false)?, inherited(4, true)?],
    };
    let log = LogFile::open(&config.log, config.max_size, config.max_files)?;
    let _ = fs::remove_file(&config.attach);
    // Without the socket nobody can attach, but the log is the first thing.
    let listener = UnixListener::bind(&config.attach)
        .and_then(|l| l.set_nonblocking(true).map(|()| l))
        .ok();
    let mut writer = Writer {
        log,
        sources,
        listener,
        clients: Vec::new(),
        buffer: vec![0; READ_SIZE],
        records: Vec::with_capacity(READ_SIZE),
    };
    let mut told_to_end = false;
    while !writer.sources.is_empty() && !told_to_end {
        told_to_end = writer.turn(&term)?;
    }
    // The shim sends SIGTERM once it has closed its ends: what is in the pipes now is all there will be.
    while told_to_end && writer.read_all() {}
    writer.finish();
    let _ = fs::remove_file(&config.attach);
    Ok(())
}

/// SIGTERM comes as something to poll. The others stay pending for good: a terminal that went away, or somebody's
/// Ctrl-C in it, is no reason for a container to lose its log.
fn block_signals() -> io::Result<SignalFd> {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        blocked.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    Ok(SignalFd::with_flags(
        &term,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// An own handle on a descriptor that came with the process.
fn inherited(fd: u32, is_stderr: bool) -> io::Result<Source> {
    open_source(Path::new(&format!("/proc/self/fd/{fd}")), is_stderr)
}

fn open_source(path: &Path, is_stderr: bool) -> io::Result<Source> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let lines = Lines::new(if is_stderr { "stderr" } else { "stdout" });
    Ok(Source { file, is_stderr, lines })
}

fn open_fifos(fifos: &Fifos) -> io::Result<Vec<Source>> {
    let mut sources = vec![open_source(&fifos.stdout, false)?];
    if let Some(stderr) = &fifos.stderr {
        sources.push(open_source(stderr, true)?);
    }
    Ok(sources)
}

impl Writer {
    /// Waits for something to do and does it. True: SIGTERM came.
    fn turn(&mut self, term: &SignalFd) -> io::Result<bool> {
        let paused = self.clients.iter().any(Client::is_full);
        let none = PollFlags::empty();
        let mut fds = vec![PollFd::new(term.as_fd(), PollFlags::POLLIN)];
        let listening = if self.listener.is_some() { 1 } else { 0 };
        fds.extend(
            self.listener
                .iter()
                .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)),
        );
        fds.extend(self.clients.iter().map(|client| {
            let writing = if client.has_output() { PollFlags::POLLOUT } else { none };
            PollFd::new(client.as_fd(), PollFlags::POLLIN | writing)
        }));
        if !paused {
            fds.extend(
                self.sources
                    .iter()
                    .map(|source| PollFd::new(source.file.as_fd(), PollFlags::POLLIN)),
            );
        }
        let timeout = if paused {
            PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => return Ok(false),
            other => other?,
        };
        let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(none)).collect();
        drop(fds);
        let (signalled, rest) = (!ready[0].is_empty(), &ready[1..]);
        let (listening, rest) = rest.split_at(listening);
        let (clients, sources) = rest.split_at(self.clients.len());
        let (clients, sources) = (clients.to_vec(), sources.to_vec());
        let connecting = listening.iter().any(|flags| !flags.is_empty());
        self.read_sources(&sources);
        self.serve_clients(&clients);
        if connecting {
            accept(self.listener.as_ref(), &mut self.clients);
        }
        Ok(signalled)
    }

    fn read_sources(&mut self, ready: &[PollFlags]) {
        let due: Vec<usize> = (0..ready.len()).filter(|index| !ready[*index].is_empty()).collect();
        // From the back, since one that ended is taken out.
        for index in due.into_iter().rev() {
            if !self.read(index) {
                self.end_source(index);
            }
        }
    }

    /// Reads once. False: the stream has ended.
    fn read(&mut self, index: usize) -> bool {
        let source = &mut self.sources[index];
        let length = match source.file.read(&mut self.buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        let data = &self.buffer[..length];
        self.records.clear();
        source.lines.push(data, &now(), &mut self.records);
        self.log.append(&self.records);
        // Whoever connected before this was written is to have it, accepted yet or not.
        accept(self.listener.as_ref(), &mut self.clients);
        for client in &mut self.clients {
            client.queue(source.is_stderr, data);
        }
        true
    }

    /// Reads whatever is there without waiting. False: nothing more.
    fn read_all(&mut self) -> bool {
        let mut fds: Vec<PollFd<'_>> = self
            .sources
            .iter()
            .map(|source| PollFd::new(source.file.as_fd(), PollFlags::POLLIN))
            .collect();
        if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(count) if count > 0) {
            return false;
        }
        let ready: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        drop(fds);
        self.read_sources(&ready);
        !self.sources.is_empty()
    }

    fn end_source(&mut self, index: usize) {
        let mut source = self.sources.remove(index);
        self.records.clear();
        source.lines.finish(&now(), &mut self.records);
        self.log.append(&self.records);
    }

    fn serve_clients(&mut self, ready: &[PollFlags]) {
        let mut index = 0;
        self.clients.retain_mut(|client| {
            let flags = ready.get(index).copied().unwrap_or(PollFlags::empty());
            index += 1;
            let hung_up = flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            let readable = flags.contains(PollFlags::POLLIN);
            let gone = hung_up || (readable && client.is_gone());
            !gone && client.write() && !client.is_stuck()
        });
    }

    fn finish(mut self) {
        while !self.sources.is_empty() {
            self.end_source(0);
        }
        for client in self.clients.drain(..) {
            client.finish();
        }
    }
}

fn accept(listener: Option<&UnixListener>, clients: &mut Vec<Client>) {
    while let Some(Ok((socket, _))) = listener.map(UnixListener::accept) {
        clients.extend(Client::new(socket));
    }
}

/// RFC 3339 with nine digits, which sorts as text.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}
