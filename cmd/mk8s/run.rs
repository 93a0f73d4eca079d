//! `mk8s run`: this host's part of the cluster, in the foreground, until it is told to stop.

use std::sync::Arc;

use mk8s_controlplane::ControlPlane;
use mk8s_pki::issue;
use mk8s_pki::rotation::{self, Holder};
use mk8s_supervisor::{OnExit, Supervisor, until};
use tikv_jemalloc_ctl::{background_thread, max_background_threads};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::failure::{Failure, Result};
use crate::settings::{PID_FILE, Role, Settings};
use crate::{master, node, pidfile, remote};

pub fn run(arguments: &cli::Run) -> Result<()> {
    let settings = Settings::require(arguments.place.data_dir.as_deref())?;
    if arguments.detached {
        nix::unistd::setsid().map_err(|error| Failure::of("start a session of its own", error))?;
    }
    let _held = pidfile::take(PID_FILE.as_ref())?;
    mk8s_supervisor::logging::init(crate::log::limit());
    settings.protect()?;
    give_back_memory();
    // Half of the cores and at least two: what runs in the pods is what the others are for.
    let workers = std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 2).max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::of("start the async runtime", error))?;
    let ended = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

/// Lets a thread of the allocator return what a burst left, when nothing else allocates: it does so on its own only as part
/// of other allocations, of which an idle process makes none.
fn give_back_memory() {
    let started = max_background_threads::write(1).and_then(|()| background_thread::write(true));
    if let Err(error) = started {
        tracing::warn!(%error, "memory that is free again is returned late: the allocator's thread does not start");
    }
}

/// Whatever ends it (a signal, a task that this host can't be without, a start that fails), what was started is ended in order:
/// the tasks, then the control plane with its store.
async fn serve(settings: Settings) -> Result<()> {
    let supervisor = Supervisor::new(CancellationToken::new());
    let signals = |kind| signal(kind).map_err(|error| Failure::of("listen for signals", error));
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    tracing::info!(role = ?settings.role, node = settings.node_name, version = mk8s_apiserver::config::VERSION, "starting");
    let told = supervisor.token().clone();
    drop(mk8s_supervisor::job::spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    }));
    let mut plane = None;
    let started = start(&settings, &supervisor, &mut plane).await;
    let outcome = match started {
        Err(failure) if !supervisor.token().is_cancelled() => Err(failure),
        // A start that was told to stop fails for that alone.
        _ => supervisor
            .ended()
            .await
            .map_or(Ok(()), |cause| Err(Failure::new(cause))),
    };
    tracing::info!("stopping; pods keep running");
    if !supervisor.shutdown(master::SHUTDOWN).await {
        tracing::warn!("some tasks did not end in time");
    }
    if let Some(plane) = plane {
        plane.close().await;
        tracing::info!("the store is closed");
    }
    outcome
}

/// Puts the control plane into `running` as soon as there is one to be closed.
async fn start(settings: &Settings, supervisor: &Supervisor, running: &mut Option<ControlPlane>) -> Result<()> {
    match (settings.role, &settings.master) {
        (Role::Master, Some(own)) => {
            let plane = running.insert(master::start(settings, own, supervisor).await?);
            crate::admin::keep_fresh(settings, &plane.pki.ca, supervisor)?;
            let ca = plane.pki.ca.clone();
            let names = vec![settings.node_name.clone(), settings.node_ip.to_string()];
            let common_name = format!("system:node:{}", settings.node_name);
            let subject = common_name.clone();
            let make = move || issue::server(&ca, &subject, &names, issue::LIFE)?.certified_key();
            let certificate = Holder::new(make().map_err(|error| Failure::new(error.to_string()))?);
            let holder = certificate.clone();
            supervisor.spawn("renew-node-serving-certificate", OnExit::Restart, move |token| {
                let make = make.clone();
                let renew = move || {
                    let made = make();
                    async move { made }
                };
                until(token, rotation::keep_fresh("node serving", holder.clone(), renew))
            });
            // As its node, and no more than a joined one: it reads what a node may, and keeps it whole.
            let identity = node::Identity {
                client: plane.client(&common_name),
                informers: plane.informers(&common_name, supervisor),
                server_certificate: Arc::new(certificate),
                ca_pem: plane.pki.ca.certificate_pem().into(),
            };
            node::start(settings, identity, supervisor)
        }
        (Role::Master, None) => Err(Failure::new("the stored settings of this master are incomplete")),
        (Role::Worker, _) => {
            let identity = remote::identity(settings, supervisor).await?;
            node::start(settings, identity, supervisor)
        }
    }
}
