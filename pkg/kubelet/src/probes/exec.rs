//! A command in the container: its exit status is the answer.

use std::time::Duration;

use super::{Outcome, Target};
use crate::runtime;

/// As much of a command's output as an event shows.
const OUTPUT_LIMIT: usize = 10 * 1024;

pub async fn ask(target: &Target, command: &[String], timeout: Duration) -> Outcome {
    match target.agent.runtime.exec(&target.instance, command, timeout).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut said = output.stdout;
            said.extend(output.stderr);
            said.truncate(OUTPUT_LIMIT);
            Outcome::Failure(String::from_utf8_lossy(&said).into_owned())
        }
        Err(runtime::Error::Containerd(error)) if error.is_timeout() => {
            let command = command.join(" ");
            Outcome::Failure(format!(
                "command timed out: \"{command}\" timed out after {}s",
                timeout.as_secs()
            ))
        }
        Err(error) => Outcome::Error(error.to_string()),
    }
}
