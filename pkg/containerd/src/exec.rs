//! Exec: another process in a running container, with its streams on FIFOs that this process holds.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use containerd_client::services::v1 as api;
use mk8s_supervisor::job;
use oci_spec::runtime::{Process, Spec};
use prost_types::Any;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::client::{Containerd, call};
use crate::container::Container;
use crate::error::{Error, Result, gone_is_fine};
use crate::stdio::{Stdin, make_fifos, make_private_dir, open_stdin};
use crate::task::Exit;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// What is kept of what a probe or hook says, of each stream: upstream shows 10 KiB of it.
const OUTPUT_LIMIT: u64 = 10 << 10;
/// A process that exec left behind may hold the streams open: its output is waited for no longer than this.
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
}

/// What a finished command said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: u32,
}

/// A started exec. Dropped before it has ended, its process is killed.
pub struct Exec {
    client: Containerd,
    container: String,
    id: String,
    directory: PathBuf,
    ended: bool,
    pub pid: u32,
    pub stdin: Option<Stdin>,
    /// With a terminal, everything.
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
}

impl Containerd {
    /// Starts a command in a running container, as the container's user and in its environment.
    pub async fn exec(&self, container: &Container, options: &ExecOptions) -> Result<Exec> {
        let id = exec_id();
        let what = format!("exec {id} in container {}", container.id);
        let process = process(&container.id, &self.container_spec(&container.id).await?, options)?;
        let value = serde_json::to_vec(&process).map_err(|e| Error::malformed(&what, e))?;
        let directory = self.io_dir(&id);
        make_private_dir(&directory)?;
        let fifos = make_fifos(&directory, options.stdin, !options.tty)?;
        // Opened before the process exists, so that not a byte and not the end of file can be missed.
        let receiver = |path: &PathBuf| {
            let opened = pipe::OpenOptions::new().open_receiver(path);
            opened.map_err(|e| Error::path("open", path, e))
        };
        let mut exec = Exec {
            client: self.clone(),
            container: container.id.clone(),
            id: id.clone(),
            ended: false,
            pid: 0,
            stdin: fifos.stdin.as_ref().map(|path| open_stdin(path)).transpose()?,
            stdout: Some(receiver(&fifos.stdout)?),
            stderr: fifos.stderr.as_ref().map(receiver).transpose()?,
            directory,
        };
        let text = |path: &Option<PathBuf>| path.as_ref().map_or_else(String::new, |p| p.display().to_string());
        let request = api::ExecProcessRequest {
            container_id: container.id.clone(),
            stdin: text(&fifos.stdin),
            stdout: text(&Some(fifos.stdout.clone())),
            stderr: text(&fifos.stderr),
            terminal: options.tty,
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_owned(),
                value,
            }),
            exec_id: id.clone(),
        };
        call(&what, self.tasks_api().exec(request)).await?;
        let request = api::StartRequest {
            container_id: container.id.clone(),
            exec_id: id,
        };
        exec.pid = call(&what, self.tasks_api().start(request)).await?.pid;
        Ok(exec)
    }

    /// Runs a command to its end and collects the first 10 KiB of what it says. On timeout it is killed and the error says so.
    pub async fn exec_sync(&self, container: &Container, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        let options = ExecOptions {
            command: command.to_vec(),
            ..Default::default()
        };
        let run = async {
            let mut exec = self.exec(container, &options).await?;
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let (out, err) = (exec.stdout.take(), exec.stderr.take());
            let exit = {
                let reading = futures::future::join(read_all(out, &mut stdout), read_all(err, &mut stderr));
                tokio::pin!(reading);
                let waiting = exec.wait();
                tokio::pin!(waiting);
                tokio::select! {
                    exit = &mut waiting => {
                        let _ = tokio::time::timeout(DRAIN, reading).await;
                        exit?
                    }
                    _ = &mut reading => waiting.await?,
                }
            };
            Ok(ExecOutput {
                stdout,
                stderr,
                exit_code: exit.status,
            })
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                what: format!("command {command:?}"),
                seconds: timeout.as_secs(),
            }),
        }
    }
}

impl Exec {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Resolves when the process has ended, and cleans up after it.
    pub async fn wait(&mut self) -> Result<Exit> {
        let exit = self.exited().await?;
        self.remove().await?;
        Ok(exit)
    }

    /// Resolves when the process has ended. What it said may still be in the shim: it is dropped on [`Self::remove`] if
    /// a slow reader leaves it there for long.
    pub async fn exited(&self) -> Result<Exit> {
        self.client.wait_process(&self.container, &self.id).await
    }

    /// Cleans up after a process that has ended.
    pub async fn remove(&mut self) -> Result<()> {
        self.ended = true;
        // What is open stays readable; only the names go.
        let _ = fs::remove_dir_all(&self.directory);
        delete_process(&self.client, &self.container, &self.id).await
    }

    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.client.resize(&self.container, &self.id, width, height).await
    }

    /// Drops our writing end and tells the shim: the process reads end of file.
    pub async fn close_stdin(&mut self) -> Result<()> {
        self.stdin = None;
        self.client.close_stdin(&self.container, &self.id).await
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        if self.ended {
            return;
        }
        let (client, container, id) = (self.client.clone(), self.container.clone(), self.id.clone());
        if tokio::runtime::Handle::try_current().is_ok() {
            let ending = job::spawn("exec-abandoned", async move {
                let signal = u32::try_from(nix::libc::SIGKILL).unwrap_or_default();
                let request = api::KillRequest {
                    container_id: container.clone(),
                    exec_id: id.clone(),
                    signal,
                    all: false,
                };
                let killed = call("kill exec", client.tasks_api().kill(request)).await;
                if killed.is_ok() {
                    let _ = client.wait_process(&container, &id).await;
                }
                if let Err(error) = delete_process(&client, &container, &id).await {
                    tracing::debug!(%error, container, exec = id, "an abandoned exec is left behind");
                }
            });
            drop(ending);
        }
    }
}

async fn delete_process(client: &Containerd, container: &str, id: &str) -> Result<()> {
    let request = api::DeleteProcessRequest {
        container_id: container.to_owned(),
        exec_id: id.to_owned(),
    };
    let what = format!("delete exec {id} of {container}");
    gone_is_fine(
        call(&what, client.tasks_api().delete_process(request))
            .await
            .map(|_| ()),
    )
}

async fn read_all(stream: Option<pipe::Receiver>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut limited = stream.take(OUTPUT_LIMIT);
    limited.read_to_end(into).await?;
    // Beyond the limit it is read on and thrown away, so that the command does not block.
    tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink())
        .await
        .map(drop)
}

/// The container's own process with another command line.
fn process(container: &str, spec: &Spec, options: &ExecOptions) -> Result<Process> {
    let what = || format!("spec of container {container}");
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| Error::malformed(what(), "no process in it"))?;
    process.set_args(Some(options.command.clone()));
    process.set_terminal(Some(options.tty));
    if options.tty {
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|entry| entry.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
            process.set_env(Some(env));
        }
    }
    Ok(process)
}

pub(crate) fn exec_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = jiff::Timestamp::now().as_nanosecond();
    format!("exec-{nanos:x}-{count:x}")
}
