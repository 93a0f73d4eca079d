//! What keeps the process in order: named tasks with an exit policy, jobs whose panics are their owner's to see, shutdown
//! with a deadline, back-off, logging.

pub mod backoff;
pub mod clock;
pub mod job;
pub mod listener;
pub mod logging;
pub mod metrics;
mod tasks;

pub use clock::Clock;
pub use job::{Job, JobError, Jobs};
pub use tasks::{OnExit, Supervisor, TaskError, until};
