//! postStart and preStop: a command in the container, a request to it, or a pause.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::agent::Agent;
use crate::pod;
use crate::probes::http;

pub struct Target<'a> {
    pub agent: &'a Agent,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub id: &'a str,
    pub ip: String,
}

/// Longer than any grace period that people give: the caller bounds a hook by its own time.
const EXEC_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// For the status and the log, never for an event: a command's output may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Exec lifecycle hook ({command:?}) for {whose} failed - error: {cause}, message: {output:?}")]
    Exec {
        command: Vec<String>,
        whose: String,
        cause: String,
        output: String,
    },
    #[error("HTTP lifecycle hook ({path}) for {whose} failed - error: {cause}")]
    Http { path: String, whose: String, cause: String },
    #[error("lifecycle hook for {whose} says nothing to do")]
    Empty { whose: String },
}

pub async fn run(target: &Target<'_>, hook: &LifecycleHandler) -> Result<(), Error> {
    let (name, pod) = (&target.container.name, pod::display(target.pod));
    let whose = format!("Container \"{name}\" in Pod \"{pod}\"");
    if let Some(exec) = &hook.exec {
        return run_command(target, exec.command.clone().unwrap_or_default(), whose).await;
    }
    if let Some(get) = &hook.http_get {
        let path = get.path.clone().unwrap_or_default();
        let result = http::hook(get, target.container, &target.ip).await;
        return result.map_err(|cause| Error::Http { path, whose, cause });
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        return Ok(());
    }
    Err(Error::Empty { whose })
}

async fn run_command(target: &Target<'_>, command: Vec<String>, whose: String) -> Result<(), Error> {
    let (cause, output) = match target.agent.runtime.exec(target.id, &command, EXEC_LIMIT).await {
        Ok(output) if output.exit_code == 0 => return Ok(()),
        Ok(output) => {
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            (format!("command terminated with exit code {}", output.exit_code), text)
        }
        Err(error) => (error.to_string(), String::new()),
    };
    Err(Error::Exec {
        command,
        whose,
        cause,
        output,
    })
}
