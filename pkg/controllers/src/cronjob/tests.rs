//! Tables of what [`plan`] decides.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::batch::v1::CronJobStatus;
use mk8s_api::cron::zones;
use serde_json::{Value, json};

use super::*;

fn cron(spec: Value, status: Value) -> CronJob {
    let mut cron = json!({"metadata": {"name": "c", "namespace": "d", "uid": "c", "creationTimestamp": "2025-03-01T10:00:30Z"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {}}, "status": status});
    for (key, value) in spec.as_object().unwrap() {
        cron["spec"][key] = value.clone();
    }
    serde_json::from_value(cron).unwrap()
}

fn job(name: &str, started: Option<&str>, ended: Option<(&str, &str)>) -> Arc<Job> {
    let conditions: Vec<Value> = ended
        .iter()
        .map(|(type_, _)| json!({"type": type_, "status": "True"}))
        .collect();
    let completed = ended.filter(|(type_, _)| *type_ == "Complete").map(|(_, at)| at);
    let job = json!({"metadata": {"name": name, "uid": name}, "spec": {"template": {}},
        "status": {"startTime": started, "completionTime": completed, "conditions": conditions}});
    Arc::new(serde_json::from_value(job).unwrap())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What is started, and the reasons of what is told.
fn decide(cron: &CronJob, now: &str) -> String {
    let schedules = Schedules { local: TimeZone::UTC };
    let (schedule, zone) = schedules.of(cron).unwrap();
    let (start, told) = plan::decide(cron, &schedule, &zone, at(now));
    let told: Vec<&str> = told.iter().map(|told| told.reason).collect();
    let start = start.map_or("nothing".to_owned(), |at| at.to_string());
    format!("{start} {}", told.join(" ")).trim_end().to_owned()
}

/// The same on 1 March, in hours and minutes: what is started when it was last started then.
fn decide_on_1_march(spec: Value, last: &str, now: &str) -> String {
    let day = |time: &str| format!("2025-03-01T{time}Z");
    let status = match last {
        "" => json!({}),
        last => json!({"lastScheduleTime": day(last)}),
    };
    let decided = decide(&cron(spec, status), &day(now));
    decided.replace("2025-03-01T", "").replace(":00Z", "")
}

#[test]
fn a_run_is_started_when_it_is_due_and_of_many_missed_ones_the_last() {
    for (last, now, expected) in [
        ("", "10:00:59.9", "nothing"),
        ("", "10:01:00", "10:01"),
        ("10:01:00", "10:01:30", "nothing"),
        // The clock was put back: what was run is not run again.
        ("10:01:00", "09:30:30", "nothing"),
        // And forward: one is made up for.
        ("10:01:00", "10:30:30", "10:30"),
        ("10:01:00", "11:41:00", "11:41"),
        ("10:01:00", "11:42:00", "11:42 TooManyMissedTimes"),
    ] {
        assert_eq!(decide_on_1_march(json!({}), last, now), expected, "{last} {now}");
    }
    let decades = cron(json!({}), json!({"lastScheduleTime": "1970-01-01T00:00:00Z"}));
    let expected = "2025-03-01T11:42:00Z TooManyMissedTimes";
    assert_eq!(decide(&decades, "2025-03-01T11:42:00Z"), expected);
}

#[test]
fn what_is_older_than_its_deadline_is_not_started() {
    let within = |seconds: i64| json!({"startingDeadlineSeconds": seconds});
    for (seconds, last, now, expected) in [
        (20, "10:01:00", "10:30:19", "10:30"),
        (20, "10:01:00", "10:30:21", "nothing"),
        // Nor does it count as missed.
        (600, "00:00:00", "10:30:21", "10:30"),
    ] {
        assert_eq!(decide_on_1_march(within(seconds), last, now), expected, "{seconds}");
    }
}

#[test]
fn uneven_schedules_run_when_they_say() {
    let schedule = |text: &str| json!({"schedule": text});
    for (text, last, now, expected) in [
        ("30 6-16/4 * * *", "06:30:00", "17:00:00", "14:30"),
        ("@every 2m", "10:01:00", "10:06:00", "10:05"),
        ("59 23 31 2 *", "", "10:30:00", "nothing InvalidSchedule"),
    ] {
        assert_eq!(decide_on_1_march(schedule(text), last, now), expected, "{text}");
    }
    let india = json!({"schedule": "0 17 * * *", "timeZone": "Asia/Kolkata"});
    assert_eq!(decide_on_1_march(india.clone(), "", "11:29:59"), "nothing");
    assert_eq!(decide_on_1_march(india, "", "11:30:00"), "11:30");
}

#[test]
fn what_runs_still_may_hinder_the_next_one() {
    let active =
        |name: &str| json!({"lastScheduleTime": "2025-03-01T10:01:00Z", "active": [{"name": name, "uid": "x"}]});
    for (policy, name, expected) in [
        ("Allow", "c-29013721", "2025-03-01T10:02:00Z"),
        ("Replace", "c-29013721", "2025-03-01T10:02:00Z"),
        ("Forbid", "c-29013721", "nothing JobAlreadyActive"),
        // It is the one that is due.
        ("Allow", "c-29013722", "nothing"),
    ] {
        let cron = cron(json!({"concurrencyPolicy": policy}), active(name));
        assert_eq!(decide(&cron, "2025-03-01T10:02:10Z"), expected, "{policy} {name}");
    }
}

#[test]
fn the_wait_ends_with_the_next_run() {
    let schedules = Schedules { local: TimeZone::UTC };
    for (schedule, last, now, expected) in [
        ("* * * * *", "2025-03-01T10:01:00Z", "2025-03-01T10:01:20Z", Some(40)),
        ("0 * * * *", "2025-03-01T10:00:00Z", "2025-03-01T10:00:00Z", Some(3600)),
        // Missed ones do not count.
        ("0 * * * *", "2025-03-01T05:00:00Z", "2025-03-01T10:00:01Z", Some(3599)),
        // The clock was put back: the next one comes when it has caught up.
        ("0 * * * *", "2025-03-01T10:00:00Z", "2025-03-01T08:30:00Z", Some(9000)),
        ("59 23 31 2 *", "2025-03-01T10:00:00Z", "2025-03-01T08:30:00Z", None),
    ] {
        let cron = cron(json!({"schedule": schedule}), json!({"lastScheduleTime": last}));
        let (schedule, zone) = schedules.of(&cron).unwrap();
        let wait = plan::wait(&cron, &schedule, &zone, at(now));
        assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{last} {now}");
    }
}

#[test]
fn schedules_that_cannot_be_read_are_told_of() {
    let schedules = Schedules { local: TimeZone::UTC };
    for (spec, reason, text) in [
        (
            json!({"schedule": "* *"}),
            "UnparseableSchedule",
            "unparseable schedule: \"* *\" : expected exactly 5 fields, found 2: [* *]",
        ),
        (
            json!({"timeZone": "Mars/Olympus"}),
            "UnknownTimeZone",
            "invalid timeZone: \"Mars/Olympus\": unknown time zone Mars/Olympus",
        ),
        (
            json!({"schedule": "TZ=Mars/Olympus * * * * *"}),
            "UnparseableSchedule",
            "unparseable schedule: \"TZ=Mars/Olympus * * * * *\" : provided bad location Mars/Olympus: unknown time zone Mars/Olympus",
        ),
    ] {
        let told = schedules.of(&cron(spec, json!({}))).unwrap_err();
        assert_eq!(told, Told::warning(reason, text));
    }
}

#[test]
fn the_oldest_that_ended_are_beyond_history() {
    let jobs = [
        job(
            "c",
            Some("2025-03-01T10:03:00Z"),
            Some(("Complete", "2025-03-01T10:03:30Z")),
        ),
        job(
            "a",
            Some("2025-03-01T10:01:00Z"),
            Some(("Complete", "2025-03-01T10:01:30Z")),
        ),
        job(
            "b",
            Some("2025-03-01T10:02:00Z"),
            Some(("Complete", "2025-03-01T10:02:30Z")),
        ),
        job("f", Some("2025-03-01T10:02:00Z"), Some(("Failed", ""))),
        job("never-began", None, Some(("Failed", ""))),
        job("runs", Some("2025-03-01T10:00:00Z"), None),
    ];
    for (limits, expected) in [
        (
            json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1}),
            vec!["a", "b", "f"],
        ),
        (json!({"successfulJobsHistoryLimit": 3}), vec![]),
        (json!({"failedJobsHistoryLimit": 0}), vec!["f", "never-began"]),
        (json!({}), vec![]),
    ] {
        let old = plan::beyond_history(&cron(limits.clone(), json!({})), &jobs);
        let old: Vec<&str> = old.iter().map(|job| meta::name(&**job)).collect();
        assert_eq!(old, expected, "{limits}");
    }
}

#[test]
fn the_status_follows_the_jobs() {
    let status = json!({"active": [{"name": "done", "uid": "done"}, {"name": "runs", "uid": "runs"}, {"name": "gone", "uid": "gone"}],
        "lastSuccessfulTime": "2025-03-01T09:00:00Z"});
    let mut status: CronJobStatus = serde_json::from_value(status).unwrap();
    let jobs = [
        job("done", None, Some(("Complete", "2025-03-01T10:01:30Z"))),
        job("failed", None, Some(("Failed", ""))),
        job("before", None, Some(("Complete", "2025-03-01T08:00:00Z"))),
        job("runs", None, None),
        job("new", None, None),
    ];
    let missing: Vec<_> = plan::missing(&status, &jobs)
        .into_iter()
        .filter_map(|job| job.name)
        .collect();
    assert_eq!(missing, ["gone"]);
    let unexpected: Vec<_> = plan::unexpected(&status, &jobs)
        .iter()
        .map(|job| meta::name(&***job))
        .collect();
    assert_eq!(unexpected, ["new"]);
    let told = plan::note_ended(&mut status, &jobs);
    assert_eq!(
        told,
        [Told::normal(
            "SawCompletedJob",
            "Saw completed job: done, condition: Complete"
        )]
    );
    assert_eq!(
        status.last_successful_time.as_ref().map(|t| t.0),
        Some(at("2025-03-01T10:01:30Z"))
    );
    assert!(plan::note_ended(&mut status, &jobs).is_empty(), "it is told once");
    plan::forget(&mut status, "gone");
    plan::forget(&mut status, "runs");
    assert_eq!(status.active, None);
}

#[test]
fn jobs_are_named_by_their_minute_and_know_when_they_were_due() {
    let template = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}}, "spec": {"parallelism": 3, "template": {}}});
    let mut cron = cron(json!({"jobTemplate": template}), json!({}));
    let due = at("2025-03-01T10:02:00Z");
    for (zone, shown) in [
        ("UTC", "2025-03-01T10:02:00Z"),
        ("Europe/London", "2025-03-01T10:02:00Z"),
        ("Asia/Kolkata", "2025-03-01T15:32:00+05:30"),
    ] {
        let made = plan::job(&cron, due, &zones::bundled(zone).unwrap());
        assert_eq!(made.metadata.name.as_deref(), Some("c-29013722"));
        assert_eq!(meta::annotation(&made, plan::SCHEDULED), Some(shown));
        assert_eq!(
            (meta::annotation(&made, "x"), meta::labels(&made).len()),
            (Some("y"), 1)
        );
        assert!(meta::controlled_by(&made, "c"));
        assert_eq!(made.spec.unwrap().parallelism, Some(3));
    }
    let made = plan::job(&cron, due, &TimeZone::UTC);
    plan::note_started(cron.status.get_or_insert_default(), &made, due);
    let status = cron.status.unwrap();
    assert_eq!(status.last_schedule_time.unwrap().0, due);
    let active = &status.active.unwrap()[0];
    assert_eq!(
        (active.kind.as_deref(), active.api_version.as_deref()),
        (Some("Job"), Some("batch/v1"))
    );
}
