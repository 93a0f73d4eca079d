//! A command in the container: its exit status is the answer.

use std::time::Duration;

use super::{Outcome, Target};

/// As much of a command's output as an event shows.
const OUTPUT_LIMIT: usize = 10 * 1024;

pub async fn ask(target: &Target, command: &[String], timeout: Duration) -> Outcome {
    let containerd = &target.agent.containerd;
    let container = match containerd.container(&target.instance).await {
        Ok(container) => container,
        Err(error) => return Outcome::Error(error.to_string()),
    };
    match containerd.exec_sync(&container, command, timeout).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut said = output.stdout;
            said.extend(output.stderr);
            said.truncate(OUTPUT_LIMIT);
            Outcome::Failure(String::from_utf8_lossy(&said).into_owned())
        }
        Err(error) if error.is_timeout() => {
            let command = command.join(" ");
            Outcome::Failure(format!(
                "command timed out: \"{command}\" timed out after {}s",
                timeout.as_secs()
            ))
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}
