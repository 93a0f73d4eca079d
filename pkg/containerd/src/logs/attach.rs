//! Attached clients of the log writer: each gets every byte from its connection on, framed by stream.
//!
//! A client that reads too slowly slows the container down (as a terminal would), but not for ever: one that takes
//! nothing for half a minute is let go.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// stream (0 stdout, 1 stderr), then the length, big endian.
pub(crate) const FRAME_HEADER: usize = 5;
/// From here on the container's streams are not read until the client has caught up.
const HIGH_WATER: usize = 256 << 10;
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn frame_of(header: [u8; FRAME_HEADER]) -> (bool, usize) {
    let [stream, a, b, c, d] = header;
    (stream == 1, u32::from_be_bytes([a, b, c, d]) as usize)
}

pub(super) struct Client {
    socket: UnixStream,
    queue: VecDeque<u8>,
    progress: Instant,
}

impl Client {
    pub(super) fn new(socket: UnixStream) -> std::io::Result<Client> {
        socket.set_nonblocking(true)?;
        Ok(Client {
            socket,
            queue: VecDeque::new(),
            progress: Instant::now(),
        })
    }

    pub(super) fn queue(&mut self, is_stderr: bool, data: &[u8]) {
        if self.queue.is_empty() {
            self.progress = Instant::now();
        }
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.queue.push_back(u8::from(is_stderr));
        self.queue.extend(length.to_be_bytes());
        self.queue.extend(data);
    }

    pub(super) fn has_output(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() > HIGH_WATER
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.has_output() && self.progress.elapsed() > PATIENCE
    }

    /// Writes what the socket takes. False: the client has gone.
    pub(super) fn write(&mut self) -> bool {
        while !self.queue.is_empty() {
            match self.socket.write(self.queue.as_slices().0) {
                Ok(0) => return false,
                Ok(written) => {
                    self.queue.drain(..written);
                    self.progress = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The client says nothing; readable means that it went.
    pub(super) fn is_gone(&mut self) -> bool {
        let mut byte = [0u8; 64];
        match self.socket.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// At the end: what is queued goes out even if it has to wait a little.
    pub(super) fn finish(mut self) {
        let _ = self.socket.set_nonblocking(false);
        let _ = self.socket.set_write_timeout(Some(Duration::from_secs(5)));
        let rest: Vec<u8> = self.queue.drain(..).collect();
        let _ = self.socket.write_all(&rest);
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
