//! One container's life: its environment, its spec, start, hooks, end.

mod ending;
pub mod env;
mod env_file;
pub mod expansion;
pub mod hooks;
mod mounts;
mod security;
mod start;
mod stop;

pub use ending::Ending;
pub use security::sandbox_security;
pub use start::Start;
pub use stop::{Error as StopError, Stop, Stopped};

use crate::record::Instance;

/// At which step a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// What the pod asks for can't be put together: a ConfigMap is missing, say.
    Config,
    Create,
    Run,
    PostStartHook,
}

impl FailureKind {
    /// As the container's status shows it.
    pub fn reason(self) -> &'static str {
        match self {
            FailureKind::Config => "CreateContainerConfigError",
            FailureKind::Create => "CreateContainerError",
            FailureKind::Run => "RunContainerError",
            FailureKind::PostStartHook => "PostStartHookError",
        }
    }
}

/// A start that did not come off. `instance` is there if a container was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub instance: Option<Instance>,
    /// The container's id where containerd may yet have or run it: it did not answer, or the job was lost.
    pub doubtful: Option<String>,
}

impl Failure {
    fn new(kind: FailureKind, message: impl ToString) -> Self {
        Self {
            kind,
            message: message.to_string(),
            instance: None,
            doubtful: None,
        }
    }

    fn config(message: impl ToString) -> Self {
        Self::new(FailureKind::Config, message)
    }

    fn create(message: impl ToString) -> Self {
        Self::new(FailureKind::Create, message)
    }

    /// The job that was to start `id` did not come to its end.
    pub fn lost(id: String, cause: impl ToString) -> Self {
        Self {
            doubtful: Some(id),
            ..Self::new(FailureKind::Run, cause)
        }
    }
}
