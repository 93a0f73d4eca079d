//! The log writer: `mk8s container-log …`, one small process per container.
//!
//! containerd's shim starts it with the container's stdout on fd 3, stderr on fd 4 and a pipe on fd 5 that it closes
//! when it is ready; for containers with stdin or a terminal mk8s starts it with FIFOs instead. It writes the container's
//! log in CRI format, rotates it, and hands what it reads to attached clients. It lives as long as the streams are
//! open, whatever becomes of mk8s and containerd; so it is single-threaded, without tokio, and small.

mod attach;
mod cri;
mod file;
mod writer;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use attach::{FRAME_HEADER, frame_of};

use crate::error::{Error, Result};

/// First argument of the log writer.
pub const VERB: &str = "container-log";
pub(crate) const ATTACH_SOCKET: &str = "attach.sock";

/// Upstream kubelet's containerLogMaxSize and containerLogMaxFiles.
const MAX_SIZE: u64 = 10 << 20;
const MAX_FILES: usize = 5;

/// All that the writer is told, as one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriterConfig {
    log: PathBuf,
    attach: PathBuf,
    max_size: u64,
    max_files: usize,
    /// Absent: fds 3, 4 and 5 as containerd passes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fifos: Option<Fifos>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fifos {
    /// Not the writer's business: the shim itself holds it open between attaches.
    #[serde(skip)]
    pub(crate) stdin: Option<PathBuf>,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: Option<PathBuf>,
}

impl WriterConfig {
    pub(crate) fn new(log: PathBuf, attach: PathBuf) -> WriterConfig {
        WriterConfig {
            log,
            attach,
            max_size: MAX_SIZE,
            max_files: MAX_FILES,
            fifos: None,
        }
    }

    pub(crate) fn to_argument(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::malformed("log writer's argument", e))
    }
}

/// Called first thing in `main`: runs the log writer to its end if that is what this process was started as.
pub fn run_if_writer() -> Option<std::process::ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(VERB) {
        return None;
    }
    Some(log_main(&args.next().unwrap_or_default()))
}

/// The log writer; `argument` is what followed [`VERB`].
pub fn log_main(argument: &str) -> std::process::ExitCode {
    let config: WriterConfig = match serde_json::from_str(argument) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mk8s {VERB}: {error}: started by containerd's shim, not by hand");
            return std::process::ExitCode::from(2);
        }
    };
    match writer::run(&config) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mk8s {VERB}: {}: {error}", config.log.display());
            std::process::ExitCode::FAILURE
        }
    }
}
