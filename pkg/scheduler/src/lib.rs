//! The scheduler: gives each pod without a node the best node for it.
//!
//! One task owns everything ([`shell`]): the [`cluster`] as informers' events show it, and the [`queue`] of waiting pods. It alternates
//! between taking in events and deciding for the next pod ([`cycle`], pure), by the [`plugins`] of the pod's [`profile`]. A decision is
//! assumed in the cluster at once and bound in the background, so that the next decision counts on it before the API server has answered.

pub mod affinity;
pub mod change;
pub mod checks;
pub mod cluster;
pub mod config;
pub mod cycle;
pub mod extender;
pub mod framework;
pub mod plugins;
pub mod pod;
pub mod pod_volumes;
pub mod preemption;
pub mod profile;
pub mod queue;
pub mod resources;
pub mod spread;

mod shell;

use kube::Client;
use mk8s_client::Informers;
use mk8s_supervisor::{OnExit, Supervisor};

use crate::config::Config;

/// The scheduler's name where its configuration gives it no other: it looks after the pods that name it, and Events say that they
/// come from it.
pub const NAME: &str = "default-scheduler";

/// Starts the scheduler, on this host, as a supervised task.
pub fn run(client: Client, informers: Informers, config: Config, host: &str, supervisor: &Supervisor) {
    let recorders = shell::Recorders::new(&client, &config.profiles, host, supervisor);
    let scope = supervisor.clone();
    supervisor.spawn("scheduler", OnExit::Restart, move |_| {
        let run = shell::run(
            client.clone(),
            informers.clone(),
            config.clone(),
            recorders.clone(),
            scope.clone(),
        );
        async move {
            run.await;
            Ok(())
        }
    });
}
