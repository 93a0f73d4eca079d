//! Starting and stopping what a host was set up for: a systemd unit where systemd runs, else a background process.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mk8s_supervisor::job;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::failure::{Failure, Result};
use crate::pidfile;
use crate::settings::{BINARY, LOG_FILE, PID_FILE, Role, Settings, UNIT_FILE};

const UNIT: &str = include_str!("../../deploy/mk8s.service");
/// How long a stop may take before it is reported as failed: the drain's own deadline and something.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The process id of the running mk8s.
pub fn running() -> Result<Option<Pid>> {
    pidfile::holder(PID_FILE.as_ref())
}

/// Held by the verb that sets this host up, starts it or resets it.
const TURN_FILE: &str = "/run/mk8s/turn";

fn turn_file() -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(TURN_FILE)
}

/// Whether another verb sets this host up at this moment; makes no file to find it out.
pub fn someone_sets_up() -> bool {
    std::fs::File::open(TURN_FILE).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

/// Waits until no other verb sets this host up; none begins while the answer is held.
pub async fn turn() -> Result<Flock<std::fs::File>> {
    let what = format!("lock {TURN_FILE}");
    loop {
        if let Some(parent) = Path::new(TURN_FILE).parent() {
            std::fs::create_dir_all(parent).map_err(|error| Failure::of(&what, error))?;
        }
        let file = turn_file().map_err(|error| Failure::of(&what, error))?;
        let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                println!("Another mk8s is setting this host up or starting it: waiting for its end");
                let waiting = job::blocking("wait-for-turn", || Flock::lock(file, FlockArg::LockExclusive));
                let held = waiting.await.map_err(|error| Failure::of(&what, error))?;
                held.map_err(|(_, error)| Failure::of(&what, error))?
            }
            Err((_, error)) => return Err(Failure::of(&what, error)),
        };
        // A reset removes the file while it holds it: who waited holds what nobody else will find.
        if is_at(&held, Path::new(TURN_FILE)) {
            return Ok(held);
        }
    }
}

/// Whether an open file is the one that stands there now.
fn is_at(file: &std::fs::File, path: &Path) -> bool {
    let same = |one: std::fs::Metadata, other: std::fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    file.metadata()
        .is_ok_and(|open| std::fs::metadata(path).is_ok_and(|there| same(open, there)))
}

/// Copies this program to its place when another version, or none, is there.
pub fn install() -> Result<()> {
    let own = std::env::current_exe().map_err(|error| Failure::of("find this program's file", error))?;
    let place = Path::new(BINARY);
    if own == place || same(&own, place) {
        return Ok(());
    }
    let fresh = half_installed();
    let what = format!("install {}", place.display());
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).map_err(|error| Failure::of(&what, error))?;
    }
    // On disk before it takes its name: after a power cut the service starts what stands there.
    let copied = std::fs::copy(&own, &fresh).and_then(|_| std::fs::File::open(&fresh)?.sync_all());
    copied
        .and_then(|()| std::fs::rename(&fresh, place))
        .map_err(|error| Failure::of(&what, error))
}

/// What an [`install`] leaves that is interrupted.
pub fn half_installed() -> PathBuf {
    Path::new(BINARY).with_extension("fresh")
}

fn same(one: &Path, other: &Path) -> bool {
    let (Ok(one_meta), Ok(other_meta)) = (std::fs::metadata(one), std::fs::metadata(other)) else {
        return false;
    };
    one_meta.len() == other_meta.len()
        && matches!((std::fs::read(one), std::fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// A process that was started here, or a unit that systemd looks after.
pub enum Started {
    Process(Child),
    Unit,
    /// One that ran before.
    Before,
}

/// Between two looks at whether what was started still runs.
const LOOK: Duration = Duration::from_millis(250);

impl Started {
    /// Resolves, with what the log says last, when it has ended.
    pub async fn end(&mut self) -> Failure {
        loop {
            tokio::time::sleep(LOOK).await;
            let ended = match self {
                Started::Process(child) => child.try_wait().ok().flatten().is_some(),
                Started::Unit => unit_ended(),
                Started::Before => matches!(running(), Ok(None)),
            };
            if ended {
                let log = std::fs::read_to_string(LOG_FILE).unwrap_or_default();
                return Failure::new(format!("mk8s ended at once: {} (see {LOG_FILE})", last_words(&log)));
            }
        }
    }
}

/// The last error of a log, or its last line.
fn last_words(log: &str) -> &str {
    let error = log.lines().rev().find(|line| line.starts_with("error: "));
    error.or_else(|| log.lines().last()).unwrap_or("without a word")
}

/// Whether the unit's process has ended since the unit was started.
fn unit_ended() -> bool {
    let shown = Command::new("systemctl")
        .args(["show", "--property=ActiveState,NRestarts", "mk8s"])
        .output();
    shown.is_ok_and(|shown| says_ended(&String::from_utf8_lossy(&shown.stdout)))
}

/// A unit that is to be restarted always has never failed as far as `systemctl is-failed` knows: it waits for its next
/// start, or runs once more. But systemd counts the restarts since the start that somebody asked for.
fn says_ended(shown: &str) -> bool {
    shown.lines().any(|line| match line.split_once('=') {
        Some(("NRestarts", count)) => count != "0",
        Some(("ActiveState", state)) => state == "failed" || state == "inactive",
        _ => false,
    })
}

/// Starts the installed binary, detached from this process.
pub fn launch(settings: &Settings) -> Result<Started> {
    if settings.role == Role::Master {
        mk8s_pki::layout::require(&settings.pki_dir())?;
        // What waits for the start asks with this file.
        crate::admin::refresh(settings, &mk8s_pki::ca::load(&settings.pki_dir(), "ca")?)?;
    }
    if has_systemd() {
        std::fs::write(UNIT_FILE, UNIT).map_err(|error| Failure::of(format!("write {UNIT_FILE}"), error))?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--quiet", "mk8s"])?;
        systemctl(&["restart", "mk8s"])?;
        return Ok(Started::Unit);
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(LOG_FILE);
    let log = log.map_err(|error| Failure::of(format!("write {LOG_FILE}"), error))?;
    let errors = log
        .try_clone()
        .map_err(|error| Failure::of(format!("write {LOG_FILE}"), error))?;
    let child = Command::new(BINARY)
        .args(["run", "--detached", "--data-dir"])
        .arg(settings.data_dir())
        .current_dir("/")
        .env_clear()
        .envs(std::env::vars().filter(|(key, _)| key == "PATH" || key == "MK8S_LOG"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::of(format!("start {BINARY}"), error))?;
    Ok(Started::Process(child))
}

/// What it printed.
fn systemctl(arguments: &[&str]) -> Result<String> {
    let what = format!("run systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl")
        .args(arguments)
        .output()
        .map_err(|error| Failure::of(&what, error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::of(what, said.trim().to_string()))
}

/// Ends the running mk8s, whoever started it; false when there was none.
pub async fn halt() -> Result<bool> {
    // The unit first: while systemd starts one that ends again and again, nobody runs between two of its starts.
    let stopped = stop_unit()?;
    let Some(pid) = running()? else { return Ok(stopped) };
    match kill(pid, Signal::SIGTERM) {
        // It has ended meanwhile.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(Failure::of(format!("stop process {pid}"), error)),
    }
    let gone = job::blocking("wait-for-end", || pidfile::wait_until_free(PID_FILE.as_ref()));
    let waited = tokio::time::timeout(STOP_DEADLINE, gone).await.map_err(|_| {
        let seconds = STOP_DEADLINE.as_secs();
        Failure::new(format!(
            "process {pid} did not end within {seconds} s: `kill -9 {pid}`, then again"
        ))
    })?;
    let what = format!("wait for the end of process {pid}");
    waited
        .map_err(|error| Failure::of(&what, error))?
        .map_err(|error| Failure::of(&what, error))?;
    Ok(true)
}

/// Stops the unit, if there is one that runs, is being started or waits for its next start.
fn stop_unit() -> Result<bool> {
    if !has_systemd() || !Path::new(UNIT_FILE).exists() {
        return Ok(false);
    }
    let state = systemctl(&["show", "--property=ActiveState", "mk8s"])?;
    if ["ActiveState=inactive", "ActiveState=failed"].contains(&state.trim()) {
        return Ok(false);
    }
    systemctl(&["stop", "mk8s"]).map(|_| true)
}

/// Removes the unit that [`launch`] made, and the pid file; nothing of either runs any more.
pub fn remove_unit() -> Result<()> {
    if Path::new(UNIT_FILE).exists() {
        // What systemd itself notes of the unit: in a rescue system, where it does not run, that may fail.
        let noted = systemctl(&["disable", "--quiet", "mk8s"]);
        remove_file(UNIT_FILE.as_ref())?;
        let noted = noted.and_then(|_| systemctl(&["daemon-reload"]));
        if let Err(failure) = noted {
            eprintln!("[reset] {failure}");
        }
        // Else a unit that has failed stays in its list of those; it refuses to forget one that is not there.
        let _ = systemctl(&["reset-failed", "mk8s"]);
    }
    remove_file(PID_FILE.as_ref())
}

/// Removes a single file; one that is not there is removed already.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::of(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_is_started_again_and_again_has_ended() {
        for (shown, ended) in [
            ("ActiveState=active\nNRestarts=0\n", false),
            ("ActiveState=activating\nNRestarts=0\n", false),
            // Between its end and its next start, and after that.
            ("ActiveState=activating\nNRestarts=1\n", true),
            ("ActiveState=active\nNRestarts=2\n", true),
            ("ActiveState=failed\nNRestarts=0\n", true),
            ("", false),
        ] {
            assert_eq!(says_ended(shown), ended, "{shown:?}");
        }
    }

    #[test]
    fn the_last_error_of_a_log_is_told() {
        assert_eq!(last_words("a\nerror: no\nb\n"), "error: no");
        assert_eq!(last_words("a\nb\n"), "b");
        assert_eq!(last_words(""), "without a word");
    }
}
