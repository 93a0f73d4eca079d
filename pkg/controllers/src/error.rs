//! What can go wrong in a controller: almost always a request that was refused.

pub use mk8s_client::words as message;
use std::time::Duration;

use crate::driver::Next;

/// A failed step, with what was tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("{action}: {source}")]
    Api {
        /// What was tried, on what.
        action: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object can't be acted upon as it is.
    #[error("{0}")]
    Invalid(String),
    /// A reconciliation panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// A step failed, and its key is to be looked at within this time even if the step is tried again later than that.
    #[error("{failure}")]
    Due {
        /// At the latest.
        within: Duration,
        /// What failed.
        failure: Box<Error>,
    },
    /// A part of a controller that runs as long as it is gone.
    #[error("its {part} ended: {}", ended.as_ref().map_or("it returned".into(), ToString::to_string))]
    Ended {
        /// Which.
        part: &'static str,
        /// How.
        #[source]
        ended: Option<mk8s_supervisor::JobError>,
    },
}

impl Error {
    /// The same, of a key that is to be looked at by `next` in any case.
    pub fn due(self, next: Next) -> Error {
        let (failure, before) = self.apart();
        match before.sooner(next) {
            Next::Done => failure,
            Next::After(within) => Error::Due {
                within,
                failure: Box::new(failure),
            },
        }
    }

    /// What failed, and by when its key is to be looked at in any case.
    pub fn apart(self) -> (Error, Next) {
        match self {
            Error::Due { within, failure } => (*failure, Next::After(within)),
            other => (other, Next::Done),
        }
    }

    /// The request that failed.
    fn request(&self) -> Option<&kube::Error> {
        match self {
            Error::Api { source, .. } => Some(source),
            Error::Due { failure, .. } => failure.request(),
            _ => None,
        }
    }

    /// The HTTP status of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        self.request().and_then(code)
    }

    /// Someone else wrote first: read again and decide anew.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Does the answer name an object? One to a path that is not served does not.
    pub fn names_object(&self) -> bool {
        self.request().is_some_and(names_object)
    }

    /// What the API server said, without what was tried: the words that upstream's events and conditions quote.
    pub fn message(&self) -> String {
        self.request().map_or_else(|| self.to_string(), message)
    }

    /// The reason of the answer's Status.
    pub fn reason(&self) -> &str {
        self.request().map_or("", reason)
    }
}

/// The HTTP status of a failed request.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Does the answer of a failed request name an object?
pub fn names_object(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// The Status reason of a failed request.
pub fn reason(error: &kube::Error) -> &str {
    match error {
        kube::Error::Api(status) => &status.reason,
        _ => "",
    }
}

/// Was it refused because the namespace is being deleted? (Admission's NamespaceLifecycle says so by a cause.)
pub fn namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Says of a request's failure what was tried.
pub trait Tried<T> {
    /// Adds the action to the error.
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, Error>;
    /// The same, where an object that is not there (any more) is no failure.
    fn tried_if_exists(self, action: impl FnOnce() -> String) -> Result<Option<T>, Error>;
}

impl<T> Tried<T> for Result<T, kube::Error> {
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::Api {
            action: action(),
            source: Box::new(e),
        })
    }

    fn tried_if_exists(self, action: impl FnOnce() -> String) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(e) if code(&e) == Some(404) => Ok(None),
            Err(e) => Err(Error::Api {
                action: action(),
                source: Box::new(e),
            }),
        }
    }
}
