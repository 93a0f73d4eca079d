//! The one task that owns the scheduler's state: takes in events, decides, binds, reports.

mod aside;
mod binding;
mod claims;
mod events;
mod evictions;
mod extending;
mod feeds;
mod recorders;
mod reports;
mod storage;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use kube::Client;
use mk8s_client::Informers;
use mk8s_supervisor::{Jobs, Supervisor, job};

use self::binding::{BindError, Binding};
use self::evictions::Eviction;
use self::extending::Extending;
use self::feeds::Feeds;
pub use self::recorders::Recorders;
use self::reports::{Report, Reports};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::cycle::{self, Preempted, Refusal};
use crate::pod::PodInfo;
use crate::profile::{Profile, Profiles};
use crate::queue::Queue;

/// Bindings under way; beyond, decisions wait.
const BINDINGS: usize = 512;
/// So many changes of each kind are taken in before the next decisions.
const CHANGES: usize = 256;
/// So many decisions are made before the next changes.
const DECISIONS: usize = 16;
/// A note of an Event is no longer (validation of events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

struct Scheduler {
    client: Client,
    recorders: Recorders,
    profiles: Arc<Profiles>,
    cluster: Cluster,
    queue: Queue,
    bindings: Jobs<Binding, Result<(), BindError>>,
    /// Pods that are counted on a node without an event that shows them there.
    assumed: HashSet<Arc<str>>,
    evictions: Jobs<Eviction, Result<(), kube::Error>>,
    reports: Reports,
    extending: Extending,
    start: usize,
}

/// Runs until the scope ends. No decision is made then; those that were are bound, and told of.
pub async fn run(client: Client, informers: Informers, config: Config, recorders: Recorders, scope: Supervisor) {
    let mut state = Scheduler::new(client, &informers, config, recorders);
    tokio::select! {
        biased;
        () = scope.token().cancelled() => {}
        () = state.decide(&informers) => {}
    }
    state.extending.stop().await;
    tokio::select! {
        () = state.finish() => {}
        () = scope.overdue().cancelled() => {
            let (bindings, evictions, reports) = (state.bindings.len(), state.evictions.len(), state.reports.len());
            tracing::warn!(bindings, evictions, reports, "dropped: they took too long to end");
        }
    }
    state.bindings.stop().await;
    state.evictions.stop().await;
    state.reports.stop().await;
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Scheduler {
    fn new(client: Client, informers: &Informers, config: Config, recorders: Recorders) -> Self {
        Scheduler {
            reports: Reports::new(client.clone()),
            client,
            recorders,
            profiles: config.profiles,
            cluster: Cluster::default(),
            queue: Queue::new(config.backoff),
            bindings: Jobs::default(),
            assumed: HashSet::new(),
            evictions: Jobs::default(),
            extending: Extending::new(config.extenders, informers),
            start: 0,
        }
    }

    fn profile_of(&self, pod: &PodInfo) -> Option<&Profile> {
        self.profiles.of(pod)
    }

    /// Takes in events and decides, for ever.
    async fn decide(&mut self, informers: &Informers) {
        let mut feeds = Feeds::open(informers).await;
        // What exists already comes first, whole: a decision on half the pods would overfill nodes.
        while feeds.take_in(self, CHANGES) {
            tokio::task::yield_now().await;
        }
        loop {
            let more = feeds.take_in(self, CHANGES);
            while let Some(Some(())) = self.ended().now_or_never() {}
            let wake_at = self.queue.tick(Instant::now());
            for _ in 0..DECISIONS {
                if !self.may_decide() {
                    break;
                }
                self.schedule_next();
            }
            if more || self.may_decide() {
                // Without this, nobody else would get this thread.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                Some(()) = self.ended() => {}
                () = feeds.arrival() => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Takes in the end of one of the works under way; none is.
    async fn ended(&mut self) -> Option<()> {
        tokio::select! {
            biased;
            Some((binding, ended)) = self.bindings.next() => {
                self.bound(binding, ended.map_err(BindError::from).and_then(|bound| bound));
            }
            Some((eviction, ended)) = self.evictions.next() => self.evicted(&eviction, flat(ended)),
            Some((question, answer)) = self.extending.answered() => self.answered(question, answer),
            Some(()) = self.reports.written() => {}
            else => return None,
        }
        Some(())
    }

    fn may_decide(&self) -> bool {
        // Those that wait for others to bind or make their volumes may take long.
        self.queue.has_next()
            && self.bindings.len() < BINDINGS + self.cluster.volumes.waiting()
            && self.extending.has_room()
    }

    /// Waits for what is under way, and what follows from it. Not for others to bind or make volumes, of which no event tells any
    /// more: what is written of those stands, and who comes next goes on from there.
    async fn finish(&mut self) {
        for pod in self.cluster.volumes.give_up() {
            self.assumed.remove(&pod);
        }
        while self.ended().await.is_some() {}
    }

    fn schedule_next(&mut self) {
        let Some(pod) = self.queue.pop() else { return };
        if self.extending.concerns(&pod) {
            return self.extend(pod);
        }
        let start = self.start;
        let decision = self.decided(&pod, |profile, cluster| {
            cycle::prepare(&pod, profile, cluster);
            cycle::decide(&pod, profile, cluster, start, |among| rand::random_range(0..among))
        });
        let Some(decision) = decision else { return };
        self.start = decision.next_start;
        match decision.node {
            Ok(node) => self.assign(pod, node),
            Err(refusal) => self.refused(&pod, refusal),
        }
    }

    /// Decides by the pod's profile. A pod that nothing can be decided about waits with back-off; the others go on.
    fn decided<T>(&mut self, pod: &PodInfo, decide: impl FnOnce(&Profile, &mut Cluster) -> T) -> Option<T> {
        let profile = self.profiles.of(pod)?;
        let cluster = &mut self.cluster;
        let decide = AssertUnwindSafe(|| decide(profile, cluster));
        let decided = match pod.wishes().claims.is_empty() {
            true => std::panic::catch_unwind(decide),
            // The search for devices may take long.
            false => aside::aside(|| std::panic::catch_unwind(decide)),
        };
        match decided {
            Ok(decision) => Some(decision),
            Err(panic) => {
                let cause = job::record_panic("scheduling cycle", panic.as_ref());
                tracing::error!(pod = pod.key(), cause, "no decision");
                self.queue.failed(&pod.uid, Instant::now());
                None
            }
        }
    }

    /// No node is right.
    fn refused(&mut self, pod: &Arc<PodInfo>, refusal: Refusal) {
        if let Some(refusal) = self.ask_for_victims(pod, refusal) {
            self.wait(pod, refusal);
        }
    }

    fn wait(&mut self, pod: &Arc<PodInfo>, refusal: Refusal) {
        if refusal.failed {
            tracing::warn!(pod = pod.key(), error = refusal.message, "no decision");
            self.queue.failed(&pod.uid, Instant::now());
            return self.report(pod, "SchedulerError", refusal.message, None);
        }
        self.write_all(pod, refusal.writes);
        let makes_room = matches!(refusal.preemption, Some(Preempted::By(_)));
        let nominated = match refusal.preemption {
            Some(Preempted::By(victims)) => Some(self.preempt(pod, *victims)),
            Some(Preempted::NotHelpful) => {
                self.unnominate(&pod.uid, None);
                Some("".into())
            }
            Some(Preempted::NotEligible) | None => None,
        };
        match refusal.unfinished && !makes_room {
            true => self.queue.failed(&pod.uid, Instant::now()),
            false => self.queue.unschedulable(&pod.uid, refusal.rows, Instant::now()),
        }
        self.report(pod, "Unschedulable", refusal.message, nominated);
    }

    fn tell_of_failure(&mut self, pod: &PodInfo, message: &str) {
        let what = ("Warning", "FailedScheduling", "Scheduling");
        self.recorders.event(pod, &pod.reference(), what, &shortened(message));
    }

    /// Tells why the pod waits.
    fn report(&mut self, pod: &Arc<PodInfo>, reason: &'static str, message: String, nominated: Option<Box<str>>) {
        self.tell_of_failure(pod, &message);
        self.reports.put(Report {
            pod: pod.clone(),
            condition: Some((reason, message)),
            nominated,
        });
    }
}

fn flat(ended: Result<Result<(), kube::Error>, mk8s_supervisor::JobError>) -> Result<(), String> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// So much of a message as an Event may have.
fn shortened(message: &str) -> String {
    const CUT: &str = " ...";
    if message.len() <= LONGEST_NOTE {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(LONGEST_NOTE - CUT.len());
    format!("{}{CUT}", &message[..end])
}

#[cfg(test)]
mod tests;
