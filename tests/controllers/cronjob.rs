//! CronJobs by a clock that the tests set: what is due is started once, wherever the clock jumps.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use mk8s_controllers::context::Settings;
use mk8s_supervisor::Clock;
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds, template};

struct Scene {
    cluster: Cluster,
    clock: Clock,
    /// The first full minute after all CronJobs were made.
    minute: u64,
}

impl Scene {
    /// The clock stands still at the present.
    async fn start() -> Scene {
        let now = SystemTime::now();
        let clock = Clock::standing(now);
        let settings = Settings {
            clock: clock.clone(),
            ..Settings::default()
        };
        let cluster = Cluster::start_with(settings).await;
        cluster.takes_pods("default").await;
        // The API server's clock, which says when a CronJob was made, is the real one: a minute may end meanwhile.
        let minute = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60 + 2;
        Scene { cluster, clock, minute }
    }

    /// So many minutes, and some seconds, after the first one.
    fn set(&self, minutes: u64, seconds: u64) {
        let at = Duration::from_secs((self.minute + minutes) * 60 + seconds);
        self.clock.set(SystemTime::UNIX_EPOCH + at);
    }

    async fn cron(&self, name: &str, outcome: &str, spec: Value) -> CronJob {
        let mut template = template(name, outcome);
        template["spec"]["restartPolicy"] = json!("Never");
        let mut cron = json!({"metadata": {"name": name}, "spec": {"schedule": "* * * * *",
            "jobTemplate": {"metadata": {"labels": {"app": name}}, "spec": {"template": template}}}});
        for (key, value) in spec.as_object().unwrap() {
            cron["spec"][key] = value.clone();
        }
        self.cluster.create::<CronJob>("default", cron).await
    }

    /// A CronJob's Job of the first minute, made by a process that did not come to note it.
    async fn made(&self, name: &str, cron: &CronJob, annotations: Value) -> Job {
        let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": name, "uid": cron.metadata.uid, "controller": true});
        let mut template = template(name, "run");
        template["spec"]["restartPolicy"] = json!("Never");
        let metadata = json!({"name": format!("{name}-{}", self.minute), "labels": {"app": name}, "annotations": annotations,
            "ownerReferences": [owner]});
        let made = json!({"metadata": metadata, "spec": {"template": template}});
        self.cluster.create::<Job>("default", made).await
    }

    async fn status(&self, name: &str) -> CronJobStatus {
        let cron = self.cluster.api::<CronJob>("default").get(name).await.unwrap();
        cron.status.unwrap_or_default()
    }

    /// The minutes of the CronJob's Jobs, from the first one on.
    async fn runs(&self, name: &str) -> Vec<u64> {
        let jobs = self.cluster.api::<Job>("default");
        let jobs = jobs
            .list(&ListParams::default().labels(&format!("app={name}")))
            .await
            .unwrap();
        let minute = |job: Job| {
            let minute = job.metadata.name.unwrap().rsplit_once('-').unwrap().1.parse::<u64>();
            minute.unwrap() - self.minute
        };
        jobs.items.into_iter().map(minute).collect()
    }

    async fn run(&self, name: &str, expected: &[u64]) {
        self.cluster
            .until(&format!("{name} has run"), || async {
                let runs = self.runs(name).await;
                holds(runs == expected, (runs, self.status(name).await))
            })
            .await;
    }

    async fn tells(&self, name: &str, reason: &str) {
        self.cluster
            .until(&format!("{reason} is told of {name}"), || async {
                let told = self.told(name).await;
                holds(told.iter().any(|told| told == reason), told)
            })
            .await;
    }

    async fn told(&self, name: &str) -> Vec<String> {
        let of = ListParams::default().fields(&format!("involvedObject.kind=CronJob,involvedObject.name={name}"));
        let events = self.cluster.api::<Event>("default").list(&of).await.unwrap();
        events.items.into_iter().filter_map(|event| event.reason).collect()
    }

    async fn patch(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        let crons = self.cluster.api::<CronJob>("default");
        crons.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Nothing more comes of what was done before: a CronJob that is made now and due has been seen to.
    async fn settles(&self, name: &str) {
        self.cron(name, "run", json!({"schedule": "@every 1s"})).await;
        self.cluster
            .until("the last CronJob has run", || async {
                let status = self.status(name).await;
                holds(status.last_schedule_time.is_some(), status)
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cron_jobs_run_when_they_are_due_and_make_up_for_one() {
    let scene = Scene::start().await;
    scene.cluster.node("n1").await;
    let limits = json!({"successfulJobsHistoryLimit": 2});
    let cron = scene.cron("quick", "succeed", limits).await;
    assert!(scene.runs("quick").await.is_empty());
    scene.set(0, 1);
    scene.run("quick", &[0]).await;
    let job = &scene
        .cluster
        .api::<Job>("default")
        .list(&ListParams::default().labels("app=quick"))
        .await
        .unwrap()
        .items[0];
    let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (Some(&owner.uid), owner.controller),
        (cron.metadata.uid.as_ref(), Some(true))
    );
    let due = &job.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    let due: jiff::Timestamp = due.parse().unwrap();
    assert_eq!(due.as_second() / 60, i64::try_from(scene.minute).unwrap());
    scene
        .cluster
        .until("its Job has ended", || async {
            let status = scene.status("quick").await;
            let ended = status.active.is_none() && status.last_successful_time.is_some();
            holds(ended && status.last_schedule_time.is_some(), status)
        })
        .await;
    scene.tells("quick", "SawCompletedJob").await;
    // The clock jumps ahead: of all that was missed the last is run. Then back: nothing is.
    scene.set(1, 0);
    scene.run("quick", &[0, 1]).await;
    scene.set(200, 30);
    scene.run("quick", &[1, 200]).await;
    scene.tells("quick", "TooManyMissedTimes").await;
    scene.tells("quick", "SuccessfulDelete").await;
    scene.set(100, 0);
    scene.settles("after").await;
    assert_eq!(scene.runs("quick").await, [1, 200]);
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_still_hinders_is_replaced_or_stays() {
    let scene = Scene::start().await;
    scene.cluster.node("n1").await;
    for policy in ["Allow", "Forbid", "Replace"] {
        let spec = json!({"concurrencyPolicy": policy});
        scene.cron(&policy.to_lowercase(), "run", spec).await;
    }
    scene.set(0, 0);
    for name in ["allow", "forbid", "replace"] {
        scene.run(name, &[0]).await;
    }
    scene.set(1, 0);
    scene.run("allow", &[0, 1]).await;
    scene.run("replace", &[1]).await;
    scene.tells("forbid", "JobAlreadyActive").await;
    scene.run("forbid", &[0]).await;
    // Its Job is deleted by somebody: it is due.
    let jobs = scene.cluster.api::<Job>("default");
    let name = scene.status("forbid").await.active.unwrap()[0].name.clone().unwrap();
    jobs.delete(&name, &DeleteParams::background()).await.unwrap();
    scene.tells("forbid", "MissingJob").await;
    scene.run("forbid", &[1]).await;
    let active = scene.status("allow").await.active.unwrap_or_default();
    assert_eq!(active.len(), 2);
    assert!(
        active
            .iter()
            .all(|job| job.kind.as_deref() == Some("Job") && job.uid.is_some())
    );
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_and_rescheduled_cron_jobs_wait() {
    let scene = Scene::start().await;
    scene.set(3, 30);
    scene.cron("suspended", "run", json!({"suspend": true})).await;
    scene.cron("rescheduled", "run", json!({"schedule": "0 0 1 1 *"})).await;
    let soon = json!({"suspend": true, "startingDeadlineSeconds": 5});
    scene.cron("expired", "run", soon).await;
    scene.settles("first").await;
    // It would have been due by this schedule, but had another at that time.
    scene.patch("rescheduled", json!({"schedule": "* * * * *"})).await;
    scene.settles("second").await;
    for name in ["suspended", "rescheduled", "expired"] {
        assert!(scene.runs(name).await.is_empty(), "{name}");
    }
    scene.patch("suspended", json!({"suspend": false})).await;
    scene.patch("expired", json!({"suspend": false})).await;
    scene.run("suspended", &[3]).await;
    scene.set(4, 2);
    scene.run("suspended", &[3, 4]).await;
    scene.run("rescheduled", &[4]).await;
    scene.run("expired", &[4]).await;
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_made_before_the_status_was_written_is_not_made_again() {
    let scene = Scene::start().await;
    let cron = scene.cron("once", "run", json!({})).await;
    let made = scene.made("once", &cron, json!({})).await;
    scene.tells("once", "UnexpectedJob").await;
    assert_eq!(scene.status("once").await, CronJobStatus::default());
    // One that says for which time it was made is known to at once.
    let cron = scene.cron("alone", "run", json!({"concurrencyPolicy": "Forbid"})).await;
    let due = jiff::Timestamp::from_second(i64::try_from(scene.minute * 60).unwrap()).unwrap();
    let annotations = json!({"batch.kubernetes.io/cronjob-scheduled-timestamp": due.to_string()});
    scene.made("alone", &cron, annotations).await;
    scene
        .cluster
        .until("it is known", || async {
            let status = scene.status("alone").await;
            let last = status.last_schedule_time.as_ref();
            holds(
                status.active.is_some() && last.is_some_and(|last| last.0 == due),
                status,
            )
        })
        .await;
    scene.set(0, 0);
    scene
        .cluster
        .until("it is known", || async {
            let status = scene.status("once").await;
            let active = status.active.clone().unwrap_or_default();
            let known = active.len() == 1 && active[0].uid == made.metadata.uid;
            holds(known && status.last_schedule_time.is_some(), status)
        })
        .await;
    assert_eq!(scene.runs("once").await, [0]);
    let told = scene.told("once").await;
    assert!(!told.iter().any(|told| told == "SuccessfulCreate"), "{told:?}");
    // The next one does not join it.
    scene.set(1, 0);
    scene.tells("alone", "JobAlreadyActive").await;
    assert_eq!(scene.runs("alone").await, [0]);
    scene.cluster.stop().await;
}
