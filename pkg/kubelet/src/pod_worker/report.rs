//! What a worker tells: the pod's status, written when it differs from what the API server has.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::step::{Outcome, Step};
use super::{PodWorker, in_seconds, version};
use crate::agent::View;
use crate::status::writer;
use crate::{clock, plan, pod, status};

impl PodWorker {
    pub(super) fn report(&mut self) {
        if !self.may_write() || self.write_retry.is_some_and(|at| at > clock::now()) {
            return;
        }
        self.write_retry = None;
        let host_ip = self.agent.config.node_ip.to_string();
        let wanted = status::status(&self.pod, &self.written, &self.record, &host_ip, clock::now());
        let ends = pod::is_terminal_phase(wanted.phase.as_deref().unwrap_or_default());
        if ends && !plan::something_lives(&self.pod, &self.record) {
            // The scheduler gives its room to another as soon as it reads this, which is sooner than the sandbox and the
            // volumes are gone. Somebody else may have written the phase while something still runs.
            self.agent.admission.release(&self.agent, pod::uid(&self.pod));
        }
        let Some(patch) = self.status_patch(&wanted) else {
            return;
        };
        if patch.is_some() && self.last_patch == patch {
            // The server keeps something else than what it was told: asking again would go on for ever.
            tracing::debug!(
                pod = pod::display(&self.pod),
                ?patch,
                "a pod's status doesn't stay as written"
            );
        } else if let Some(patch) = patch {
            self.last_patch = Some(patch.clone());
            self.write_in_flight = true;
            let (agent, pod) = (self.agent.clone(), self.pod.clone());
            self.job(Step::WriteStatus, async move {
                Outcome::Written(writer::write(&agent, &pod, patch).await)
            });
            return;
        } else {
            self.last_patch = None;
        }
        if std::mem::take(&mut self.delete_wanted) {
            let (agent, pod) = (self.agent.clone(), self.pod.clone());
            self.job(Step::DeleteFromApi, async move {
                writer::delete(&agent, &pod).await;
                Outcome::DeletedFromApi
            });
        }
    }

    fn may_write(&self) -> bool {
        !self.record.gone && !self.write_in_flight
    }

    /// When to try a write again. None as well where none will be made: a time that nobody acts on stays in the past, and
    /// its worker would turn without pause.
    pub(super) fn write_wake(&self) -> Option<Timestamp> {
        self.write_retry.filter(|_| self.may_write())
    }

    /// Some(None): the API shows it as it is. None: it can't be printed.
    fn status_patch(&self, wanted: &PodStatus) -> Option<Option<serde_json::Value>> {
        // Printed only where they differ: most messages change nothing that is shown.
        if *wanted == self.written {
            return Some(None);
        }
        let old = serde_json::to_value(&self.written).ok()?;
        let new = serde_json::to_value(wanted).ok()?;
        Some(status::patch::patch(pod::uid(&self.pod), &old, &new))
    }

    pub(super) fn retry_write(&mut self) {
        self.write_in_flight = false;
        self.last_patch = None;
        self.write_retry = Some(in_seconds(2));
    }

    pub(super) fn observe_written(&mut self, result: Result<Box<Pod>, writer::Error>) {
        self.write_in_flight = false;
        match result {
            Ok(pod) => {
                let version = version(&pod);
                if version >= self.written_version {
                    self.written = pod.status.unwrap_or_default();
                    self.written_version = version;
                }
            }
            // The watch will tell that it is gone.
            Err(writer::Error::Gone) => {
                self.last_patch = None;
                self.write_retry = Some(in_seconds(5));
            }
            Err(writer::Error::Api(error)) => {
                tracing::warn!(pod = pod::display(&self.pod), %error, "cannot write a pod's status, trying again");
                self.retry_write();
            }
        }
    }

    /// The server's picture of the pod.
    pub(super) fn publish_view(&mut self) {
        let containers = self.record.containers.iter();
        let view = View {
            pod: self.pod.clone(),
            containers: containers
                .map(|(n, r)| (n.clone(), (r.current.clone(), r.last.clone())))
                .collect(),
        };
        self.view.send_replace(Arc::new(view));
    }
}
