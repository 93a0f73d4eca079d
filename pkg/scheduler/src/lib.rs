//! The scheduler: gives each pod without a node the best node for it.
//!
//! One task owns everything: the [`cache`] of nodes and pods, kept from informers' events; the [`queue`] of waiting pods; the selectors that
//! pods are [`spread`] by. It alternates between taking in events and deciding for the next pod ([`cycle`], pure). A decision is assumed in
//! the cache at once and bound in the background, so that the next decision counts on it before the API server has answered.

pub mod cache;
pub mod counts;
pub mod cycle;
pub mod filters;
pub mod info;
pub mod queue;
pub mod resources;
pub mod spread;
mod unsupported;

mod scores;
mod shell;

use kube::Client;
use mk8s_client::{Informers, SeriesRecorder};
use mk8s_supervisor::{OnExit, Supervisor};

/// The scheduler's name: it looks after the pods that name it, and Events say that they come from it.
pub const NAME: &str = "default-scheduler";

/// Starts the scheduler as a supervised task.
pub fn run(client: Client, informers: Informers, recorder: SeriesRecorder, supervisor: &Supervisor) {
    let scope = supervisor.clone();
    supervisor.spawn("scheduler", OnExit::Restart, move |_| {
        let run = shell::run(client.clone(), informers.clone(), recorder.clone(), scope.clone());
        async move {
            run.await;
            Ok(())
        }
    });
}
