//! After a container's end: why, its last words, and what it leaves in containerd.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::mounts;
use crate::agent::Agent;
use crate::record::{Exit, Instance};
use crate::{names, pod};

const MESSAGE_LIMIT: u64 = 4096;
const LOG_MESSAGE_LIMIT: u64 = 2048;
const LOG_MESSAGE_LINES: usize = 80;
/// Each line has a prefix of some 50 bytes: more is read than may be shown.
const LOG_TAIL: u64 = LOG_MESSAGE_LIMIT + 60 * LOG_MESSAGE_LINES as u64;

pub struct Ending {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub container: String,
    pub instance: Instance,
    pub cgroup: Option<String>,
    pub oom: bool,
    pub code: i32,
    pub at: Timestamp,
}

impl Ending {
    pub async fn finish(self) -> Exit {
        let id = &self.instance.id;
        let oom = self.oom
            || self
                .cgroup
                .as_ref()
                .is_some_and(|parent| self.agent.runtime.oom_killed(&format!("{parent}/{id}")));
        // The shim hands over the last output before the task is gone, so the log is whole afterwards.
        if let Err(error) = self.agent.runtime.delete_task(id).await {
            // It has ended all the same; the sandbox's removal, or a later start's, takes it away.
            tracing::warn!(id, %error, "cannot remove an ended task");
        }
        let reason = match (oom, self.code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        Exit {
            code: self.code,
            reason: reason.to_owned(),
            message: self.message(),
            finished_at: self.at,
        }
    }

    fn message(&self) -> String {
        let attempt = self.instance.attempt;
        let said = mounts::termination_message(&self.agent, &self.pod, &self.container, attempt, MESSAGE_LIMIT);
        let said = String::from_utf8_lossy(&said).into_owned();
        let spec = pod::container(&self.pod, &self.container);
        let fallback = spec.and_then(|c| c.termination_message_policy.as_deref()) == Some("FallbackToLogsOnError");
        if said.is_empty() && fallback && self.code != 0 {
            return log_tail(&names::log_file(
                &self.agent.config,
                &self.pod,
                &self.container,
                attempt,
            ));
        }
        said
    }
}

/// The last lines of a log, without what the log format puts before them.
fn log_tail(file: &Path) -> String {
    let Ok(mut file) = names::open_log(file) else {
        return String::new();
    };
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)));
    let mut bytes = Vec::new();
    let _ = file.take(length.min(LOG_TAIL)).read_to_end(&mut bytes);
    tail(&String::from_utf8_lossy(&bytes))
}

fn tail(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut partial = String::new();
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let (Some(_), Some("stdout" | "stderr"), Some(flag), Some(content)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        partial.push_str(content);
        if flag.starts_with('F') {
            lines.push(std::mem::take(&mut partial) + "\n");
        }
    }
    if !partial.is_empty() {
        lines.push(partial);
    }
    let from = lines.len().saturating_sub(LOG_MESSAGE_LINES);
    let mut out = lines.get(from..).unwrap_or_default().concat();
    while out.len() > LOG_MESSAGE_LIMIT as usize {
        let mut cut = out.len() - LOG_MESSAGE_LIMIT as usize;
        while !out.is_char_boundary(cut) {
            cut += 1;
        }
        out.drain(..cut);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        let log = "2026-01-01T00:00:00.000000001Z stdout F one\n2026-01-01T00:00:00.2Z stderr P tw\n\
                   2026-01-01T00:00:00.3Z stderr F o\nbroken\n";
        assert_eq!(tail(log), "one\ntwo\n");
        let long = format!("t stdout F {}\n", "x".repeat(5000));
        assert_eq!(tail(&long).len(), 2048);
    }
}
