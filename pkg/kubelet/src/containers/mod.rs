//! One container's life: its environment, its spec, start, hooks, end.

mod ending;
pub mod env;
pub mod expansion;
pub mod hooks;
mod mounts;
mod security;
mod start;
mod stop;

pub use ending::Ending;
pub use security::sandbox_security;
pub use start::Start;
pub use stop::Stop;

use crate::record::Instance;

/// A start that did not come off. `instance` is there if a container was made.
#[derive(Debug)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
    pub instance: Option<Instance>,
}

impl Failure {
    fn config(message: impl ToString) -> Self {
        Self {
            reason: "CreateContainerConfigError",
            message: message.to_string(),
            instance: None,
        }
    }

    fn create(message: impl ToString) -> Self {
        Self {
            reason: "CreateContainerError",
            message: message.to_string(),
            instance: None,
        }
    }
}
