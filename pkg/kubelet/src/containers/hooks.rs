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

/// The error is for the status and the log, never for an event: a command's output may hold secrets.
pub async fn run(target: &Target<'_>, hook: &LifecycleHandler) -> Result<(), String> {
    let (name, pod) = (&target.container.name, pod::display(target.pod));
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let failed = |error: &str, output: &str| {
            format!(
                "Exec lifecycle hook ({command:?}) for Container \"{name}\" in Pod \"{pod}\" failed - error: {error}, message: {output:?}"
            )
        };
        let containerd = &target.agent.containerd;
        let container = containerd
            .container(target.id)
            .await
            .map_err(|e| failed(&e.to_string(), ""))?;
        let output = containerd.exec_sync(&container, &command, EXEC_LIMIT).await;
        let output = output.map_err(|e| failed(&e.to_string(), ""))?;
        if output.exit_code != 0 {
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            return Err(failed(
                &format!("command terminated with exit code {}", output.exit_code),
                &text,
            ));
        }
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let path = get.path.clone().unwrap_or_default();
        let result = http::hook(get, target.container, &target.ip).await;
        return result.map_err(|error| {
            format!("HTTP lifecycle hook ({path}) for Container \"{name}\" in Pod \"{pod}\" failed - error: {error}")
        });
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        return Ok(());
    }
    Err(format!(
        "lifecycle hook for Container \"{name}\" in Pod \"{pod}\" says nothing to do"
    ))
}
