//! What a CronJob's schedule, status and Jobs ask for. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use mk8s_api::cron::Schedule;

use crate::job::end;
use crate::meta;

/// When the Job was due, in the CronJob's time zone.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// As many missed times point to a clock that was wrong.
const MANY: i64 = 100;

/// An Event to be told of a CronJob.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub type_: &'static str,
    pub reason: &'static str,
    pub text: String,
}

impl Told {
    pub fn normal(reason: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Told {
            type_: "Normal",
            reason,
            text,
        }
    }

    pub fn warning(reason: &'static str, text: impl Into<String>) -> Self {
        Told {
            type_: "Warning",
            ..Told::normal(reason, text)
        }
    }
}

/// The oldest Jobs of those that ended, beyond what is to be kept of the ones that succeeded and the ones that failed.
pub fn beyond_history(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let Some(spec) = &cron.spec else { return Vec::new() };
    let mut old = Vec::new();
    for (type_, limit) in [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ] {
        let Some(limit) = limit else { continue };
        let mut ended: Vec<&Arc<Job>> = jobs
            .iter()
            .filter(|job| end(job).is_some_and(|end| end.type_ == type_))
            .collect();
        let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        // Who never began is the youngest.
        ended.sort_by_key(|job| (started(job).is_none(), started(job), meta::name(&***job)));
        let many = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.extend(
            ended
                .into_iter()
                .take(many)
                .filter(|job| !meta::deleting(&***job))
                .cloned(),
        );
    }
    old
}

/// Is a Job of this uid among the active ones?
pub fn is_active(status: &CronJobStatus, uid: &str) -> bool {
    let mut active = status.active.iter().flatten();
    active.any(|job| job.uid.as_deref() == Some(uid))
}

/// Takes a Job off the active ones.
pub fn forget(status: &mut CronJobStatus, uid: &str) {
    if let Some(active) = &mut status.active {
        active.retain(|job| job.uid.as_deref() != Some(uid));
        if active.is_empty() {
            status.active = None;
        }
    }
}

/// The CronJob's Jobs that run and are not known to.
pub fn unexpected<'a>(status: &CronJobStatus, jobs: &'a [Arc<Job>]) -> Vec<&'a Arc<Job>> {
    let runs = |job: &&Arc<Job>| end(job).is_none() && !is_active(status, meta::uid(&***job));
    jobs.iter().filter(runs).collect()
}

/// The active ones of which there is no Job.
pub fn missing(status: &CronJobStatus, jobs: &[Arc<Job>]) -> Vec<ObjectReference> {
    let there = |known: &ObjectReference| jobs.iter().any(|job| job.metadata.uid == known.uid);
    let active = status.active.iter().flatten();
    active.filter(|known| !there(known)).cloned().collect()
}

/// Notes in the status which Jobs have ended.
pub fn note_ended(status: &mut CronJobStatus, jobs: &[Arc<Job>]) -> Vec<Told> {
    let mut told = Vec::new();
    for job in jobs {
        let Some(end) = end(job) else { continue };
        let (uid, name) = (meta::uid(&**job), meta::name(&**job));
        if is_active(status, uid) {
            forget(status, uid);
            let text = format!("Saw completed job: {name}, condition: {}", end.type_);
            told.push(Told::normal("SawCompletedJob", text));
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.as_ref());
        let Some(completed) = completed.filter(|_| end.type_ == "Complete") else {
            continue;
        };
        if status
            .last_successful_time
            .as_ref()
            .is_none_or(|last| last.0 < completed.0)
        {
            status.last_successful_time = Some(completed.clone());
        }
    }
    told
}

/// A time at which something is due, and how many such there were before it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// The last one up to now.
    at: Option<Timestamp>,
    /// About as many as this have come since the last run, with this one.
    missed: i64,
}

/// What was due from `since` on. The schedule is assumed to be about as frequent as its first two times say: so a clock that was years
/// behind costs nothing.
fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Result<Due, &'static str> {
    const NEVER: &str = "time difference between two schedules is less than 1 second";
    let next = |after| schedule.next(after, zone);
    let first = next(since).ok_or(NEVER)?;
    if now < first {
        return Ok(Due::default());
    }
    let second = next(first).ok_or(NEVER)?;
    if now < second {
        return Ok(Due {
            at: Some(first),
            missed: 1,
        });
    }
    let between = second.as_second() - first.as_second();
    if between < 1 {
        return Err(NEVER);
    }
    let missed = now.duration_since(first).as_secs() / between + 1;
    // One step less, so that the schedule itself says when within it something is due.
    let near = first
        .checked_add(Span::new().seconds((missed - 2) * between))
        .map_err(|_| NEVER)?;
    let times = std::iter::successors(next(near), |at| next(*at));
    let at = times.take_while(|at| *at <= now).last();
    Ok(Due { at, missed })
}

/// The last run, or the CronJob's creation.
fn last_run(cron: &CronJob) -> Timestamp {
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
    last.map_or_else(|| meta::created(cron), |last| last.0)
}

/// How long until the next run; none: the schedule has none.
pub fn wait(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    let last = last_run(cron);
    let from = match due(schedule, zone, last, now) {
        Ok(Due { at: Some(at), .. }) => at,
        Ok(Due { missed: 0, .. }) => last,
        Ok(_) | Err(_) => now,
    };
    let next = schedule.next(from, zone)?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
}

/// The Job that is to be started now, if any, by the time at which it was due; and what is to be told. Of what is older than its
/// starting deadline nothing is told, as upstream does not.
pub fn decide(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> (Option<Timestamp>, Vec<Told>) {
    let Some(spec) = &cron.spec else {
        return (None, Vec::new());
    };
    let deadline = spec
        .starting_deadline_seconds
        .map(|seconds| Span::new().try_seconds(seconds));
    let deadline = deadline.and_then(Result::ok);
    // Nothing that was due before it is started any more.
    let too_old = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    let since = too_old.map_or(last_run(cron), |too_old| too_old.max(last_run(cron)));
    let due = match due(schedule, zone, since, now) {
        Ok(due) => due,
        Err(why) => {
            let text = format!("invalid schedule: {} : {why}", spec.schedule);
            return (None, vec![Told::warning("InvalidSchedule", text)]);
        }
    };
    let Some(at) = due.at else { return (None, Vec::new()) };
    let mut told = Vec::new();
    if due.missed > MANY {
        let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        told.push(Told::warning("TooManyMissedTimes", text));
    }
    let status = cron.status.clone().unwrap_or_default();
    let active = status.active.unwrap_or_default();
    let name = job_name(cron, at);
    let known = active.iter().any(|job| job.name.as_ref() == Some(&name));
    if known || status.last_schedule_time.is_some_and(|last| last.0 == at) {
        return (None, told);
    }
    if spec.concurrency_policy.as_deref() == Some("Forbid") && !active.is_empty() {
        let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
        told.push(Told::normal("JobAlreadyActive", text));
        return (None, told);
    }
    (Some(at), told)
}

/// One name for each minute: who has made the Job of a time and does not know it any more can't make it again.
fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", meta::name(cron), due.as_second().div_euclid(60))
}

/// The Job of this time, which `zone` shows.
pub fn job(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.as_ref().map(|s| s.job_template.clone()).unwrap_or_default();
    let of_template = template.metadata.unwrap_or_default();
    let mut metadata = ObjectMeta {
        name: Some(job_name(cron, due)),
        namespace: cron.metadata.namespace.clone(),
        labels: of_template.labels,
        annotations: of_template.annotations,
        owner_references: Some(vec![meta::owner_reference(cron)]),
        ..ObjectMeta::default()
    };
    let offset = zone.to_offset(due);
    let shown = match offset == Offset::UTC {
        true => due.to_string(),
        false => due.display_with_offset(offset).to_string(),
    };
    meta::set_annotation(&mut metadata, SCHEDULED, shown);
    Job {
        metadata,
        spec: template.spec,
        status: None,
    }
}

/// Notes that this Job was made for that time.
pub fn note_started(status: &mut CronJobStatus, job: &Job, due: Timestamp) {
    status.active.get_or_insert_default().push(meta::reference(job));
    let last = status.last_schedule_time.take().filter(|last| last.0 > due);
    status.last_schedule_time = last.or(Some(Time(due)));
}

/// Notes those of the CronJob's Jobs that were made for a time, as what they are called says, and are not known to. The status that
/// would have told of them was never written; without them a Job that is to run alone would get company.
pub fn note_forgotten(cron: &mut CronJob, unexpected: &[&Arc<Job>]) {
    for job in unexpected {
        let due = meta::annotation(&***job, SCHEDULED).and_then(|shown| shown.parse().ok());
        let Some(due) = due.filter(|due| job_name(cron, *due) == meta::name(&***job)) else {
            continue;
        };
        note_started(cron.status.get_or_insert_default(), job, due);
    }
}
