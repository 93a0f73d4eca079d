//! Tasks: the running side of a container. Start, signal, wait, delete.

use std::time::{Duration, SystemTime};

use containerd_client::services::v1 as api;
use containerd_client::types::v1::{Process, Status};
use prost_types::Timestamp;

use crate::client::{Containerd, call};
use crate::container::Container;
use crate::error::{Error, Result, gone_is_fine};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    Created,
    Running,
    Stopped,
    Paused,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + signal where a signal ended it.
    pub status: u32,
    pub at: SystemTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: String,
    pub pid: u32,
    pub status: TaskStatus,
    /// Set once the status is Stopped.
    pub exit: Option<Exit>,
}

impl Containerd {
    /// Creates the task and starts it; answers the pid of its first process. A failure leaves no task behind.
    pub async fn start(&self, container: &Container) -> Result<u32> {
        let pid = self.create_task(container).await?;
        match self.start_task(&container.id).await {
            Ok(()) => Ok(pid),
            Err(error) => {
                let _ = self.delete_task(&container.id).await;
                Err(error)
            }
        }
    }

    /// First half of [`Self::start`]: namespaces, cgroup and mounts are made, the process waits before its exec.
    pub async fn create_task(&self, container: &Container) -> Result<u32> {
        let id = &container.id;
        let what = format!("create task {id}");
        let rootfs = match container.mounts.as_slice() {
            [] => {
                self.snapshot_mounts(&container.snapshotter, &container.snapshot_key)
                    .await?
            }
            mounts => mounts.to_vec(),
        };
        let stdio = self.open_stdio(container).await?;
        let request = api::CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: container.stdio.tty,
            // In the record as well: both are looked at.
            options: container.runtime_options.clone(),
            ..Default::default()
        };
        match call(&what, self.tasks_api().create(request)).await {
            Ok(answer) => Ok(answer.pid),
            Err(error) => {
                let _ = self.remove_stdio(id);
                Err(error)
            }
        }
    }

    /// Second half of [`Self::start`]: the process execs.
    pub async fn start_task(&self, id: &str) -> Result<()> {
        let request = api::StartRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        call(&format!("start task {id}"), self.tasks_api().start(request))
            .await
            .map(|_| ())
    }

    /// Signals the first process (`all`: every process of the container). A task that has ended already is fine.
    pub async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let signal = u32::try_from(signal).unwrap_or_default();
        let request = api::KillRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
            signal,
            all,
        };
        gone_is_fine(call(&format!("kill task {id}"), self.tasks_api().kill(request)).await)
    }

    /// Resolves when the task has ended; at once for one that ended before, until it is deleted.
    pub async fn wait(&self, id: &str) -> Result<Exit> {
        self.wait_process(id, "").await
    }

    pub(crate) async fn wait_process(&self, id: &str, exec_id: &str) -> Result<Exit> {
        let request = api::WaitRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
        };
        // No time limit: a container may run for years.
        let answer = self.tasks_api().wait(request).await;
        let answer = answer
            .map_err(|e| Error::rpc(format!("wait for task {id} {exec_id}"), e))?
            .into_inner();
        Ok(exit(answer.exit_status, answer.exited_at))
    }

    pub async fn task(&self, id: &str) -> Result<Task> {
        let what = format!("get task {id}");
        let request = api::GetRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let answer = call(&what, self.tasks_api().get(request)).await?;
        answer.process.map(from_process).ok_or(Error::NotFound { what })
    }

    /// Every task of the namespace, running or ended.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        let request = api::ListTasksRequest { filter: String::new() };
        let answer = call("list tasks", self.tasks_api().list(request)).await?;
        Ok(answer.tasks.into_iter().map(from_process).collect())
    }

    /// Process ids inside the container, as the host sees them.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let request = api::ListPidsRequest {
            container_id: id.to_owned(),
        };
        let answer = call(&format!("list processes of {id}"), self.tasks_api().list_pids(request)).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Deletes the task, killing it first if it still runs. `None`: there was none.
    pub async fn delete_task(&self, id: &str) -> Result<Option<Exit>> {
        for _ in 0..2 {
            let request = api::DeleteTaskRequest {
                container_id: id.to_owned(),
            };
            match call(&format!("delete task {id}"), self.tasks_api().delete(request)).await {
                Ok(answer) => return Ok(Some(exit(answer.exit_status, answer.exited_at))),
                Err(error) if error.is_not_found() => return Ok(None),
                // The refusal to delete what runs has one code here and another there: the status tells.
                Err(error) => match self.task(id).await {
                    Ok(task) if task.status != TaskStatus::Stopped => self.kill_and_wait(id).await?,
                    Err(gone) if gone.is_not_found() => return Ok(None),
                    _ => return Err(error),
                },
            }
        }
        Err(Error::Timeout {
            what: format!("delete task {id}"),
            seconds: 0,
        })
    }

    async fn kill_and_wait(&self, id: &str) -> Result<()> {
        self.kill(id, nix::libc::SIGKILL, true).await?;
        let limit = Duration::from_secs(10);
        match tokio::time::timeout(limit, self.wait(id)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => gone_is_fine(Err(error)),
            Err(_) => Err(Error::Timeout {
                what: format!("kill task {id}"),
                seconds: limit.as_secs(),
            }),
        }
    }

    /// Sets the terminal's size; `exec_id` empty: the container's own.
    pub async fn resize(&self, id: &str, exec_id: &str, width: u16, height: u16) -> Result<()> {
        let request = api::ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            width: u32::from(width),
            height: u32::from(height),
        };
        call(
            &format!("resize terminal of {id} {exec_id}"),
            self.tasks_api().resize_pty(request),
        )
        .await
        .map(|_| ())
    }

    /// Ends stdin for the container (`exec_id` empty) or an exec in it: its next read sees end of file.
    pub async fn close_stdin(&self, id: &str, exec_id: &str) -> Result<()> {
        let request = api::CloseIoRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            stdin: true,
        };
        gone_is_fine(
            call(
                &format!("close stdin of {id} {exec_id}"),
                self.tasks_api().close_io(request),
            )
            .await,
        )
    }
}

fn exit(status: u32, at: Option<Timestamp>) -> Exit {
    Exit {
        status,
        at: at.map_or_else(SystemTime::now, system_time),
    }
}

fn from_process(process: Process) -> Task {
    let status = match process.status() {
        Status::Created => TaskStatus::Created,
        Status::Running => TaskStatus::Running,
        Status::Stopped => TaskStatus::Stopped,
        Status::Paused | Status::Pausing => TaskStatus::Paused,
        Status::Unknown => TaskStatus::Unknown,
    };
    let exit = (status == TaskStatus::Stopped).then(|| exit(process.exit_status, process.exited_at));
    // Tasks.List fills `id`, older containerd `container_id` too: the former is always there.
    Task {
        id: process.id,
        pid: process.pid,
        status,
        exit,
    }
}

/// containerd's timestamps are after 1970; a nonsensical one becomes the epoch.
pub(crate) fn system_time(timestamp: Timestamp) -> SystemTime {
    let seconds = u64::try_from(timestamp.seconds).unwrap_or_default();
    let nanos = u32::try_from(timestamp.nanos).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}
