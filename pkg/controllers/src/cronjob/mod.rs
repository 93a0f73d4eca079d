//! CronJobs: a Job at each time that a schedule names.
//!
//! Watches CronJobs, their Jobs and the clock; makes and deletes Jobs, writes the CronJob's status. A Job's name says for which minute it
//! was made, so that it is made once wherever this process stops. Of what was missed, at most the last is made up for. [`plan`] decides.

mod plan;
mod run;
#[cfg(test)]
mod tests;
mod zone;

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use mk8s_api::cron::Schedule;
use mk8s_client::{Event, EventRecorder, Informer, Seen, WorkQueue};
use mk8s_supervisor::Clock;

use crate::adoption::manager;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::index::Owned;
use crate::meta::{self, Key};

use plan::Told;
use run::Run;

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 5;

struct Controller {
    ctx: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    /// By their manager.
    dependents: Owned<Job>,
    /// Jobs that were made or deleted.
    jobs_seen: Seen<Key>,
    /// CronJobs whose status was written.
    crons_seen: Seen<Key>,
    schedules: Schedules,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (crons, jobs) = (ctx.informers.of::<CronJob>(), ctx.informers.of::<Job>());
    let recorder = ctx.recorder(NAME);
    let schedules = Schedules { local: zone::local() };
    let clock = ctx.settings.clock.clone();
    let mut driver = Driver::new(NAME, &ctx.scope);
    let queue = driver.queue.clone();
    let follows = Follows {
        queue: queue.clone(),
        clock: clock.clone(),
        schedules: schedules.clone(),
        recorder: recorder.clone(),
    };
    driver.watch(&crons, move |event| match event {
        Event::Applied { old: Some(old), new } if is_rescheduled(old, new) => {
            follows.reschedule(new);
            Vec::new()
        }
        _ => vec![Key::of(&**event.object())],
    });
    driver.watch(&jobs, |event| {
        let mut keys: Vec<Key> = manager::<CronJob>(&**event.object()).into_iter().collect();
        if let Event::Applied { old: Some(old), .. } = event {
            keys.extend(manager::<CronJob>(&**old).filter(|before| Some(before) != keys.first()));
        }
        keys
    });
    let dependents = Owned::of(&jobs);
    let controller = Controller {
        ctx,
        crons: crons.clone(),
        jobs,
        dependents,
        jobs_seen: Seen::default(),
        crons_seen: Seen::default(),
        schedules,
        recorder,
    };
    let mut jumps = clock.jumps();
    let follow = async {
        loop {
            jumps.next().await;
            crons.list().iter().for_each(|cron| queue.add(Key::of(&**cron)));
        }
    };
    tokio::select! {
        ended = driver.run(WORKERS, controller) => ended,
        () = follow => Ok(()),
    }
}

/// What becomes of changed schedules.
struct Follows {
    queue: WorkQueue<Key>,
    clock: Clock,
    schedules: Schedules,
    recorder: EventRecorder,
}

impl Follows {
    /// What the other schedule would have run by now is not made up for: nothing is done before it falls due.
    fn reschedule(&self, cron: &CronJob) {
        match self.schedules.of(cron) {
            Ok((schedule, zone)) => {
                let wait = plan::wait(cron, &schedule, &zone, timestamp(self.clock.now()));
                wait.into_iter()
                    .for_each(|wait| self.queue.add_after(Key::of(cron), wait));
            }
            Err(_) => {
                let schedule = cron.spec.as_ref().map_or("", |spec| &spec.schedule);
                let text = format!("unparseable schedule for cronjob: {schedule}");
                let cron = meta::reference(cron);
                self.recorder
                    .event(&cron, "Warning", "UnParseableCronJobSchedule", text);
            }
        }
    }
}

fn is_rescheduled(old: &CronJob, new: &CronJob) -> bool {
    let of = |cron: &CronJob| cron.spec.as_ref().map(|s| (s.schedule.clone(), s.time_zone.clone()));
    of(old) != of(new)
}

fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::MAX)
}

/// What reads schedules.
#[derive(Clone)]
struct Schedules {
    /// For those that name no time zone.
    local: TimeZone,
}

impl Schedules {
    /// A CronJob's schedule and the time zone it goes by.
    fn of(&self, cron: &CronJob) -> Result<(Schedule, TimeZone), Told> {
        let Some(spec) = &cron.spec else {
            return Err(Told::warning("UnparseableSchedule", "there is no spec"));
        };
        let unreadable = |why: String| {
            let text = format!("unparseable schedule: {:?} : {why}", spec.schedule);
            Told::warning("UnparseableSchedule", text)
        };
        let schedule = Schedule::parse(&spec.schedule).map_err(unreadable)?;
        let zone = match (&schedule.zone, &spec.time_zone) {
            (Some(name), _) => zone::find(name)
                .ok_or_else(|| unreadable(format!("provided bad location {name}: unknown time zone {name}")))?,
            (None, Some(name)) => zone::find(name).ok_or_else(|| unknown_zone(name))?,
            (None, None) => self.local.clone(),
        };
        Ok((schedule, zone))
    }
}

fn unknown_zone(name: &str) -> Told {
    let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
    Told::warning("UnknownTimeZone", text)
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let jobs_missing = self.jobs_seen.missing(&key, &self.jobs);
        if let Some(later) = jobs_missing.or_else(|| self.crons_seen.missing(&key, &self.crons)) {
            return Ok(Next::After(later));
        }
        let Some(before) = self.crons.get(key.ns(), &key.name) else {
            self.jobs_seen.forget(&key);
            self.crons_seen.forget(&key);
            return Ok(Next::Done);
        };
        let mut run = Run {
            controller: self,
            cron: (*before).clone(),
            jobs: self.dependents.by(&*before),
            key,
        };
        // What was done is written down even where something else failed.
        let next = run.run().await;
        run.write_status(&before).await?;
        next
    }
}
