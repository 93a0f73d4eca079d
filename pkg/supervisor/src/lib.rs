//! What keeps the process in order: named tasks with an exit policy, shutdown with a deadline, back-off, logging.

pub mod backoff;
pub mod logging;
mod tasks;

pub use tasks::{OnExit, Supervisor, TaskError};
