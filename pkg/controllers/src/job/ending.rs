//! How a Job ends, and when it rests. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::policy::{self, Verdict};
use super::view::{View, holds, new_condition};
use crate::pod;

impl View {
    /// The end that the Job has reached, before pods are made or deleted.
    pub fn end(&self, now: &Time) -> Option<JobCondition> {
        let spec = self.job.spec.as_ref()?;
        if let Some(known) = holds(self.status(), "SuccessCriteriaMet") {
            return Some(known.clone());
        }
        if let Some(known) = holds(self.status(), "FailureTarget") {
            let text = |v: &Option<String>| v.clone().unwrap_or_default();
            return Some(new_condition(
                "Failed",
                "True",
                &text(&known.reason),
                &text(&known.message),
                now,
            ));
        }
        let failure = |reason: &str, message: &str| Some(new_condition("FailureTarget", "True", reason, message, now));
        let doomed = self
            .pods
            .iter()
            .filter(|p| self.has_failed(p))
            .find_map(|p| match self.verdict(p) {
                Verdict::FailJob(message) => Some(message),
                _ => None,
            });
        if let Some(message) = doomed {
            return failure("PodFailurePolicy", &message);
        }
        if self.failed > self.numbers.backoff_limit || self.restarts_exceed_limit() {
            return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.deadline_left(now.0) == Some(Duration::ZERO) {
            return failure("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if let Some(failed) = &self.failed_indexes {
            if spec.max_failed_indexes.is_some_and(|max| failed.len() > max) {
                return failure(
                    "MaxFailedIndexesExceeded",
                    "Job has exceeded the specified maximal number of failed indexes",
                );
            }
            if !failed.is_empty() && failed.len() + self.succeeded_indexes.len() >= self.numbers.total() {
                return failure("FailedIndexes", "Job has failed indexes");
            }
        }
        if self.numbers.indexed {
            let met = policy::success(
                spec.success_policy.as_ref(),
                self.numbers.total(),
                &self.succeeded_indexes,
            );
            return met.map(|message| new_condition("SuccessCriteriaMet", "True", "SuccessPolicy", &message, now));
        }
        None
    }

    /// Containers that restart in place count too.
    fn restarts_exceed_limit(&self) -> bool {
        let policy = self
            .job
            .spec
            .as_ref()
            .and_then(|s| s.template.spec.as_ref())
            .and_then(|s| s.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let restarts: i32 = self
            .pods
            .iter()
            .filter(|p| matches!(pod::phase(p), "Running" | "Pending"))
            .map(|p| pod::all_restarts(p))
            .sum();
        let limit = self.numbers.backoff_limit;
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// What is left of activeDeadlineSeconds.
    pub fn deadline_left(&self, now: Timestamp) -> Option<Duration> {
        let seconds = self.job.spec.as_ref().and_then(|s| s.active_deadline_seconds)?;
        // One that was suspended begins anew, in this run.
        let resumes = holds(self.status(), "Suspended").is_some();
        let start = self.status().start_time.as_ref();
        let start = start.filter(|_| !self.numbers.suspended && !resumes)?;
        let elapsed = now.duration_since(start.0);
        let left =
            Duration::from_secs(seconds.unsigned_abs()).saturating_sub(Duration::try_from(elapsed).unwrap_or_default());
        Some(left)
    }

    /// Have enough pods succeeded, with `active` ones left?
    pub fn is_complete(&self, active: i32) -> bool {
        let enough = match self.numbers.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        enough && active == 0
    }

    /// Notes that the Job is suspended, or no more, and begins its time anew; returns the event that tells of it.
    pub fn note_suspension(&mut self, now: &Time) -> Option<(&'static str, &'static str)> {
        let suspended = self.numbers.suspended;
        let (value, reason, event, text) = if suspended {
            ("True", "JobSuspended", "Suspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Resumed", "Job resumed")
        };
        let status = self.job.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        let condition = new_condition("Suspended", value, reason, text, now);
        match conditions.iter_mut().find(|c| c.type_ == "Suspended") {
            Some(known) if known.status == value => return None,
            Some(known) => *known = condition,
            None if suspended => conditions.push(condition),
            None => return None,
        }
        if !suspended {
            status.start_time = Some(now.clone());
        }
        Some((event, text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::super::view::tests::{job, pod, view};
    use super::*;
    use crate::meta;

    #[test]
    fn jobs_end_by_backoff_limit_deadline_or_completions() {
        let now = meta::now();
        let reason = |v: &View| {
            v.end(&now)
                .map(|c| format!("{} {}", c.type_, c.reason.unwrap_or_default()))
        };
        let failed = view(
            job(json!({"backoffLimit": 0}), json!({})),
            vec![pod("a", "Failed", None, json!({}))],
        );
        assert_eq!(reason(&failed).as_deref(), Some("FailureTarget BackoffLimitExceeded"));
        let late = view(
            job(
                json!({"activeDeadlineSeconds": 5}),
                json!({"startTime": "2020-01-01T00:00:00Z"}),
            ),
            vec![],
        );
        assert_eq!(reason(&late).as_deref(), Some("FailureTarget DeadlineExceeded"));
        let known = json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "X"}]});
        assert_eq!(
            reason(&view(job(json!({}), known), vec![])).as_deref(),
            Some("Failed X")
        );
        let done = view(
            job(json!({"completions": 1}), json!({})),
            vec![pod("a", "Succeeded", None, json!({}))],
        );
        assert!(done.is_complete(0) && !done.is_complete(1));
    }

    #[test]
    fn suspension_is_noted_once_and_in_its_place() {
        let now: Time = meta::now();
        let start = "2020-01-01T00:00:00Z";
        let known = |status: &str| json!([{"type": "A", "status": "True"}, {"type": "Suspended", "status": status}, {"type": "B", "status": "True"}]);
        for (suspend, conditions, event, types, restarted) in [
            (true, json!([]), Some("Suspended"), "Suspended=True", false),
            (true, known("True"), None, "A=True Suspended=True B=True", false),
            (
                true,
                known("False"),
                Some("Suspended"),
                "A=True Suspended=True B=True",
                false,
            ),
            (
                false,
                known("True"),
                Some("Resumed"),
                "A=True Suspended=False B=True",
                true,
            ),
            (false, known("False"), None, "A=True Suspended=False B=True", false),
            (false, json!([]), None, "", false),
        ] {
            // A deadline that passed while it was suspended is none.
            let spec = json!({"suspend": suspend, "activeDeadlineSeconds": 5});
            let mut view = view(job(spec, json!({"startTime": start, "conditions": conditions})), vec![]);
            let counts = view.deadline_left(now.0).is_some();
            assert_eq!(
                view.note_suspension(&now).map(|(event, _)| event),
                event,
                "{suspend} {conditions}"
            );
            assert_eq!(counts, !suspend && !restarted, "{suspend} {conditions}");
            let status = view.status();
            let found: Vec<String> = status
                .conditions
                .iter()
                .flatten()
                .map(|c| format!("{}={}", c.type_, c.status))
                .collect();
            assert_eq!(found.join(" "), types);
            assert_eq!(status.start_time.as_ref() == Some(&now), restarted);
        }
    }

    fn indexed(more: Value) -> Value {
        let mut spec = json!({"completionMode": "Indexed", "parallelism": 3, "completions": 3});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    }

    /// The end that a Job of three indexes reaches: its condition and reason.
    fn end(spec: Value, status: Value, pod: Option<Arc<Pod>>) -> String {
        let end = view(job(indexed(spec), status), pod.into_iter().collect()).end(&meta::now());
        end.map_or_else(String::new, |end| format!("{} {}", end.type_, end.reason.unwrap()))
    }

    /// Index 0 has ended so.
    fn exited(code: i32) -> Option<Arc<Pod>> {
        let mut pod = (*pod("a", "Failed", Some(0), json!({}))).clone();
        let state = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code}}}]);
        pod.status.as_mut().unwrap().container_statuses = serde_json::from_value(state).unwrap();
        Some(Arc::new(pod))
    }

    #[test]
    fn a_failure_policy_decides_what_a_failure_is() {
        let rule = |action: &str| {
            let codes = json!({"operator": "In", "values": [42]});
            json!({"podFailurePolicy": {"rules": [{"action": action, "onExitCodes": codes}]}})
        };
        for (action, more, code, expected) in [
            (
                "FailJob",
                json!({"backoffLimit": 9}),
                42,
                "FailureTarget PodFailurePolicy",
            ),
            ("FailJob", json!({"backoffLimit": 9}), 1, ""),
            ("Ignore", json!({"backoffLimit": 0}), 42, ""),
            (
                "Count",
                json!({"backoffLimit": 0}),
                42,
                "FailureTarget BackoffLimitExceeded",
            ),
            ("FailIndex", json!({"backoffLimitPerIndex": 9}), 42, ""),
            (
                "FailIndex",
                json!({"backoffLimitPerIndex": 9, "maxFailedIndexes": 0}),
                42,
                "FailureTarget MaxFailedIndexesExceeded",
            ),
            (
                "FailIndex",
                json!({"backoffLimitPerIndex": 9, "maxFailedIndexes": 0}),
                1,
                "",
            ),
        ] {
            let mut spec = rule(action);
            for (key, value) in more.as_object().unwrap() {
                spec[key] = value.clone();
            }
            assert_eq!(end(spec, json!({}), exited(code)), expected, "{action} {more} {code}");
        }
    }

    #[test]
    fn what_was_reached_first_stays() {
        let one = || Some(pod("a", "Succeeded", Some(0), json!({})));
        let known = |type_: &str| {
            json!({"completedIndexes": "1", "failed": 9,
            "conditions": [{"type": type_, "status": "True", "reason": "r", "message": "m"}]})
        };
        let per_index = json!({"backoffLimitPerIndex": 0});
        let policy = json!({"successPolicy": {"rules": [{"succeededCount": 3}, {"succeededIndexes": "0"}]}});
        for (spec, status, pod, expected) in [
            (
                per_index.clone(),
                json!({"completedIndexes": "1,2"}),
                exited(1),
                "FailureTarget FailedIndexes",
            ),
            // One is left to run.
            (per_index, json!({"completedIndexes": "1"}), exited(1), ""),
            (policy.clone(), json!({}), one(), "SuccessCriteriaMet SuccessPolicy"),
            (policy, json!({"completedIndexes": "1"}), None, ""),
            (
                json!({"backoffLimit": 0}),
                known("SuccessCriteriaMet"),
                exited(1),
                "SuccessCriteriaMet r",
            ),
            (json!({}), known("FailureTarget"), one(), "Failed r"),
            (json!({}), json!({}), one(), ""),
        ] {
            assert_eq!(end(spec.clone(), status.clone(), pod), expected, "{spec} {status}");
        }
    }
}
