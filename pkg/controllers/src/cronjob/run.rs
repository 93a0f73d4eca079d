//! One reconciliation of a CronJob: clears its history away, notes which Jobs have ended, starts the one that is due.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::api::{DeleteParams, PostParams};
use mk8s_client::Api;

use super::plan::{self, Told};
use super::{Controller, timestamp, unknown_zone, zone};
use crate::delete::delete;
use crate::driver::Next;
use crate::error::{Error, Tried, code, message, namespace_terminating};
use crate::meta::{self, Key};

/// One reconciliation.
pub(super) struct Run<'a> {
    pub(super) controller: &'a Controller,
    pub(super) key: Key,
    /// With a status that this run changes.
    pub(super) cron: CronJob,
    pub(super) jobs: Vec<Arc<Job>>,
}

impl Run<'_> {
    pub(super) async fn run(&mut self) -> Result<Next, Error> {
        if let Some(later) = self.tell_unexpected().await? {
            return Ok(later);
        }
        for job in plan::beyond_history(&self.cron, &self.jobs) {
            // It is tried again at the next event.
            let _ = self.delete(&job).await;
        }
        let told = plan::note_ended(self.cron.status.get_or_insert_default(), &self.jobs);
        self.tell(told);
        self.forget_missing().await?;
        if meta::deleting(&self.cron) {
            return Ok(Next::Done);
        }
        let Some(spec) = &self.cron.spec else {
            return Ok(Next::Done);
        };
        let zone = match spec.time_zone.as_deref().map(|name| (name, zone::find(name))) {
            None => TimeZone::UTC,
            Some((_, Some(zone))) => zone,
            Some((name, None)) => {
                self.tell([unknown_zone(name)]);
                return Ok(Next::Done);
            }
        };
        if spec.suspend == Some(true) {
            return Ok(Next::Done);
        }
        self.start_due(&zone).await
    }

    /// Starts what is due; `shown` is the time zone in which Jobs are told their time.
    async fn start_due(&mut self, shown: &TimeZone) -> Result<Next, Error> {
        let (schedule, zone) = match self.controller.schedules.of(&self.cron) {
            Ok(known) => known,
            Err(told) => {
                self.tell([told]);
                return Ok(Next::Done);
            }
        };
        if schedule.zone.is_some() {
            let written = self.cron.spec.as_ref().map_or("", |s| &s.schedule);
            let text = format!(
                "CRON_TZ or TZ used in schedule {written:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.tell([Told::warning("UnsupportedSchedule", text)]);
        }
        let now = timestamp(self.controller.ctx.settings.clock.now());
        let (start, told) = plan::decide(&self.cron, &schedule, &zone, now);
        let invalid = told.iter().any(|told| told.reason == "InvalidSchedule");
        self.tell(told);
        if invalid {
            return Ok(Next::Done);
        }
        if let Some(due) = start {
            let replaces = self.cron.spec.as_ref().and_then(|s| s.concurrency_policy.as_deref()) == Some("Replace");
            if replaces {
                self.delete_active().await?;
            }
            self.start(due, shown).await?;
        }
        let wait = plan::wait(&self.cron, &schedule, &zone, now);
        Ok(wait.map_or(Next::Done, Next::After))
    }

    async fn start(&mut self, due: Timestamp, shown: &TimeZone) -> Result<(), Error> {
        let new = plan::job(&self.cron, due, shown);
        let (api, name) = (self.job_api(), meta::name(&new).to_owned());
        let made = api.create(&PostParams::default(), &new).await;
        let made = match made.and_then(|made| made.object()) {
            Ok(made) => {
                let text = format!("Created job {name}");
                self.tell([Told::normal("SuccessfulCreate", text)]);
                made
            }
            Err(e) if namespace_terminating(&e) => return Ok(()),
            // It was made before this process, or the last write of the status, stopped; or by somebody else.
            Err(e) if code(&e) == Some(409) => {
                let there = api
                    .get(&name)
                    .await
                    .tried(|| format!("get Job {}/{name}", self.key.namespace))?;
                let own = meta::controlled_by(&there, meta::uid(&self.cron));
                if !own || plan::is_active(self.status(), meta::uid(&there)) {
                    return Ok(());
                }
                there
            }
            Err(e) => {
                let text = format!("Error creating job: {}", message(&e));
                self.tell([Told::warning("FailedCreate", text)]);
                return Err(e).tried(|| format!("create Job {}/{name}", self.key.namespace));
            }
        };
        self.controller.jobs_seen.wrote(&self.key, meta::revision_number(&made));
        plan::note_started(self.status(), &made, due);
        Ok(())
    }

    /// Jobs that it owns and does not know. None was made here but before a write of the status that failed, and that is made up for;
    /// if the informer of CronJobs is behind that of Jobs, this has to wait.
    async fn tell_unexpected(&mut self) -> Result<Option<Next>, Error> {
        let status = self.cron.status.clone().unwrap_or_default();
        let unexpected = plan::unexpected(&status, &self.jobs);
        if unexpected.is_empty() {
            return Ok(None);
        }
        let api = self.controller.ctx.api::<CronJob>(&self.key.namespace);
        let live = api.get_opt(&self.key.name).await;
        let live = live.tried(|| format!("get CronJob {}", self.key))?;
        let known = live.as_ref().and_then(|live| live.status.as_ref());
        if let (Some(live), Some(known)) = (&live, known)
            && unexpected.iter().any(|job| plan::is_active(known, meta::uid(&***job)))
        {
            self.controller.crons_seen.wrote(&self.key, meta::revision_number(live));
            return Ok(Some(Next::After(Duration::ZERO)));
        }
        let told = unexpected.iter().map(|job| {
            let name = meta::name(&***job);
            let text = format!("Saw a job that the controller did not create or forgot: {name}");
            Told::warning("UnexpectedJob", text)
        });
        self.tell(told);
        plan::note_forgotten(&mut self.cron, &unexpected);
        Ok(None)
    }

    async fn forget_missing(&mut self) -> Result<(), Error> {
        let api = self.job_api();
        let status = self.cron.status.clone().unwrap_or_default();
        for known in plan::missing(&status, &self.jobs) {
            let name = known.name.unwrap_or_default();
            // The informer may lag behind: ask.
            let live = api.get_opt(&name).await;
            if live
                .tried(|| format!("get Job {}/{name}", self.key.namespace))?
                .is_none()
            {
                self.tell([Told::normal("MissingJob", format!("Active job went missing: {name}"))]);
                plan::forget(self.status(), known.uid.as_deref().unwrap_or_default());
            }
        }
        Ok(())
    }

    async fn delete_active(&mut self) -> Result<(), Error> {
        let api = self.job_api();
        for known in self.status().active.clone().unwrap_or_default() {
            let name = known.name.unwrap_or_default();
            match api.get_opt(&name).await {
                Ok(Some(job)) => self.delete(&job).await?,
                Ok(None) => plan::forget(self.status(), known.uid.as_deref().unwrap_or_default()),
                Err(e) => {
                    self.tell([Told::warning("FailedGet", format!("Get job: {}", message(&e)))]);
                    return Err(e).tried(|| format!("get Job {}/{name}", self.key.namespace));
                }
            }
        }
        Ok(())
    }

    /// Deletes a Job with its pods.
    async fn delete(&mut self, job: &Job) -> Result<(), Error> {
        match delete(&self.job_api(), job, DeleteParams::background()).await {
            Ok(there) => {
                if there {
                    self.controller.jobs_seen.deleted(&self.key, job);
                    let text = format!("Deleted job {}", meta::name(job));
                    self.tell([Told::normal("SuccessfulDelete", text)]);
                }
                plan::forget(self.status(), meta::uid(job));
                Ok(())
            }
            Err(error) => {
                let text = format!("Deleted job: {}", error.message());
                self.tell([Told::warning("FailedDelete", text)]);
                Err(error)
            }
        }
    }

    pub(super) async fn write_status(&self, before: &CronJob) -> Result<(), Error> {
        if before.status.clone().unwrap_or_default() == self.cron.status.clone().unwrap_or_default() {
            return Ok(());
        }
        if let Some(written) = self.controller.ctx.write_status(&self.cron).await? {
            self.controller.crons_seen.wrote(&self.key, written.revision);
        }
        Ok(())
    }

    fn tell(&self, all: impl IntoIterator<Item = Told>) {
        let cron = meta::reference(&self.cron);
        for told in all {
            self.controller
                .recorder
                .event(&cron, told.type_, told.reason, told.text);
        }
    }

    fn status(&mut self) -> &mut CronJobStatus {
        self.cron.status.get_or_insert_default()
    }

    fn job_api(&self) -> Api<Job> {
        self.controller.ctx.api(&self.key.namespace)
    }
}
