//! The crate's one error type: what was tried, on what, and containerd's own words.

use std::io;
use std::path::{Path, PathBuf};

use containerd_client::tonic::{Code, Status};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect to containerd at {}: {message}", socket.display())]
    Connect { socket: PathBuf, message: String },
    /// A call that containerd answered with an error, or did not answer.
    #[error("{what}: {}", status.message())]
    Rpc { what: String, status: Box<Status> },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Something in the store is not what its type says (image manifest, stored spec, …).
    #[error("{what}: {message}")]
    Malformed { what: String, message: String },
    #[error("{what}: no answer within {seconds} s")]
    Timeout { what: String, seconds: u64 },
    #[error("{what}: not found")]
    NotFound { what: String },
    /// It has to be made again, and can't: something that mk8s may not remove stands on it.
    #[error("{what} may have been damaged by a power cut and can't be made again while {by} stands on it: remove that")]
    InUse { what: String, by: String },
}

impl Error {
    pub(crate) fn rpc(what: impl Into<String>, status: Status) -> Self {
        Error::Rpc {
            what: what.into(),
            status: Box::new(status),
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Error::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn path(verb: &str, path: &Path, source: io::Error) -> Self {
        Error::Io {
            what: format!("{verb} {}", path.display()),
            source,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, message: impl ToString) -> Self {
        Error::Malformed {
            what: what.into(),
            message: message.to_string(),
        }
    }

    fn code(&self) -> Option<Code> {
        match self {
            Error::Rpc { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. }) || self.code() == Some(Code::NotFound)
    }

    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }

    /// containerd itself can't be reached (it is restarting, or gone).
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Connect { .. }) || self.code() == Some(Code::Unavailable)
    }

    /// containerd has no such service.
    pub(crate) fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }

    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }
}

/// Deleting what is already gone has done its work.
pub(crate) fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
