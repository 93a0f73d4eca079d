//! What `init` and `join` have in common: one of them at a time, going on where an earlier one was interrupted, and a later
//! one that finds the host set up.

use nix::fcntl::Flock;

use crate::cli::NodeFlags;
use crate::failure::{Failure, Result};
use crate::lifecycle::{self, Started};
use crate::settings::{self, Settings};
use crate::{preflight, status};

/// No other verb sets this host up or resets it while this is held.
pub type Turn = Flock<std::fs::File>;

/// Before the first write of a set-up whose checks were judged: waits for its turn. None: another set this host up
/// meanwhile, as `standing` says.
pub async fn begin(judged: Result<()>, standing: impl Fn() -> Result<Option<Settings>>) -> Result<Option<Turn>> {
    let judged = judged.and_then(|()| preflight::not_running());
    // What another set-up does at this moment fails the checks of this one, which is told what came of it instead.
    if !lifecycle::someone_sets_up() {
        judged?;
        return turn(standing).await;
    }
    let turn = turn(standing).await?;
    if turn.is_some() {
        judged?;
    }
    Ok(turn)
}

async fn turn(standing: impl Fn() -> Result<Option<Settings>>) -> Result<Option<Turn>> {
    let turn = lifecycle::turn().await?;
    Ok(standing()?.is_none().then_some(turn))
}

/// Starts what is set up, or takes over what runs already.
pub fn start(settings: &Settings) -> Result<Started> {
    lifecycle::install()?;
    match lifecycle::running()? {
        Some(_) => Ok(Started::Before),
        None => lifecycle::launch(settings),
    }
}

/// Starts what is set up here if it is down; says what it found.
pub async fn start_again(settings: &Settings) -> Result<()> {
    let _turn = lifecycle::turn().await?;
    if let Some(pid) = lifecycle::running()? {
        println!("This host is set up already, and mk8s runs (pid {pid}).");
        return Ok(());
    }
    println!("This host is set up already; starting mk8s");
    let mut started = start(settings)?;
    status::wait_ready(settings, &mut started).await?;
    println!("mk8s is started; node {} is Ready", settings.node_name);
    Ok(())
}

/// Refuses flags of the node that say otherwise than its settings.
pub fn node_contradictions(settings: &Settings, given: &NodeFlags) -> Result<()> {
    contradiction("--node-name", given.node_name.as_ref(), &&settings.node_name)?;
    contradiction("--node-ip", given.node_ip, &settings.node_ip)?;
    let socket = given.cri_socket.as_deref();
    contradiction(
        "--cri-socket",
        socket.map(|given| settings::cri_socket(Some(given)).display().to_string()),
        &settings.cri_socket.display().to_string(),
    )?;
    contradiction(
        "--register-with-taints",
        list(&given.register_with_taints),
        &settings.register_with_taints.join(","),
    )?;
    let eviction = settings.eviction_hard.as_deref();
    contradiction(
        "--eviction-hard",
        given.eviction_hard.as_deref(),
        &eviction.unwrap_or(mk8s_kubelet::DEFAULT_EVICTION_HARD),
    )
}

/// A flag of several values, if it was given.
pub fn list(given: &[String]) -> Option<String> {
    (!given.is_empty()).then(|| given.join(","))
}

pub fn contradiction<T: PartialEq + std::fmt::Display>(flag: &str, given: Option<T>, stored: &T) -> Result<()> {
    match given {
        Some(given) if given != *stored => Err(Failure::new(format!(
            "{flag}={given} contradicts what this cluster was made with, {stored}"
        ))),
        _ => Ok(()),
    }
}
