//! Pods whose decisions extenders take part in. Extenders are asked in a job of its own, while pods of no interest to them are decided;
//! one question at a time, so that each finds the one before it decided, as upstream's do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use mk8s_client::Informers;
use mk8s_supervisor::{JobError, Jobs};

use super::Scheduler;
use crate::cycle::extended::{self, Candidates, Outcome};
use crate::cycle::{self, Preempted, Refusal};
use crate::extender::{self, Candidate, Extender, ExtenderError, Objects, OnNodes, Verdict};
use crate::pod::PodInfo;
use crate::preemption::{self, Victims};
use crate::profile::{Profile, Rows};

/// So many pods wait for extenders; beyond, all others wait as well.
const WAITING: usize = 256;

/// What is asked, and for whom.
pub enum Question {
    Nodes(Arc<PodInfo>, Candidates),
    Victims(Arc<PodInfo>, Refusal),
}

/// What was answered.
pub enum Answer {
    Nodes(Verdict),
    Victims(OnNodes),
}

/// How a question ended.
pub type Answered = Result<Result<Answer, ExtenderError>, JobError>;

/// The extenders, and who waits for them.
pub struct Extending {
    extenders: Arc<[Arc<Extender>]>,
    objects: Objects,
    /// One at most.
    asking: Jobs<Question, Result<Answer, ExtenderError>>,
    /// Pods to be asked about next.
    waiting: VecDeque<Arc<PodInfo>>,
    /// What happened since a decision with extenders began: bits of [`crate::change::Kind`].
    changed: u32,
}

impl Extending {
    pub fn new(extenders: Arc<[Arc<Extender>]>, informers: &Informers) -> Self {
        Extending {
            extenders,
            objects: Objects::new(informers),
            asking: Jobs::default(),
            waiting: VecDeque::new(),
            changed: 0,
        }
    }

    fn those(&self, are: impl Fn(&Extender) -> bool) -> Vec<Arc<Extender>> {
        self.extenders
            .iter()
            .filter(|extender| are(extender))
            .cloned()
            .collect()
    }

    /// Those that bind a pod in the place of the scheduler.
    pub fn binders(&self, pod: &PodInfo) -> Vec<Arc<Extender>> {
        self.those(|extender| extender.binds(pod))
    }

    /// Whether one has a say in which node a pod gets, or in who goes for it.
    pub fn concerns(&self, pod: &PodInfo) -> bool {
        let mut all = self.extenders.iter();
        all.any(|extender| extender.decides(pod) || extender.preempts(pod))
    }

    /// Whether one more pod may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING
    }

    /// Something of these kinds happened in the cluster.
    pub fn note_change(&mut self, kinds: u32) {
        self.changed |= kinds;
    }

    /// A question has been answered; none: none is asked.
    pub async fn answered(&mut self) -> Option<(Question, Answered)> {
        self.asking.next().await
    }

    pub async fn stop(&mut self) {
        self.asking.stop().await;
    }
}

impl Scheduler {
    /// Decides for a pod with the extenders' help, when it is its turn.
    pub(super) fn extend(&mut self, pod: Arc<PodInfo>) {
        self.extending.waiting.push_back(pod);
        self.extend_next();
    }

    fn extend_next(&mut self) {
        while self.extending.asking.is_empty() {
            let Some(pod) = self.extending.waiting.pop_front() else {
                return;
            };
            // As it is by now, if it still waits.
            if let Some(pod) = self.queue.get(&pod.uid).cloned() {
                self.extending.changed = 0;
                self.ask_for_nodes(&pod, false);
            }
        }
    }

    /// `others`: not about the node that room was made on.
    fn ask_for_nodes(&mut self, pod: &Arc<PodInfo>, others: bool) {
        let start = self.start;
        let found = self.decided(pod, |profile, cluster| {
            cycle::prepare(pod, profile, cluster);
            extended::candidates(pod, profile, cluster, start, others, among)
        });
        match found {
            None => {}
            Some(Err(refusal)) => self.refused(pod, refusal),
            Some(Ok(candidates)) => {
                self.start = candidates.next_start;
                let extenders = self.extending.those(|extender| extender.decides(pod));
                let (nodes, objects) = (candidates.feasible.clone(), self.extending.objects.clone());
                let question = Question::Nodes(pod.clone(), candidates);
                self.ask(pod, question, move |pod| async move {
                    let verdict = extender::decide(&extenders, &pod, nodes, &objects).await?;
                    Ok(Answer::Nodes(verdict))
                });
            }
        }
    }

    fn ask<F>(&mut self, pod: &PodInfo, question: Question, ask: impl FnOnce(serde_json::Value) -> F + Send + 'static)
    where
        F: Future<Output = Result<Answer, ExtenderError>> + Send,
    {
        let object = self.extending.objects.pod(pod);
        self.extending.asking.spawn("extenders", question, async move {
            let gone = || ExtenderError::Told("the pod is not known any more".to_owned());
            ask(object.ok_or_else(gone)?).await
        });
    }

    /// If extenders have a say in who goes for a pod, asks them; else gives the refusal back.
    pub(super) fn ask_for_victims(&mut self, pod: &Arc<PodInfo>, refusal: Refusal) -> Option<Refusal> {
        let extenders = self.extending.those(|extender| extender.preempts(pod));
        let Some(Preempted::By(found)) = refusal.preemption.as_ref().filter(|_| !extenders.is_empty()) else {
            return Some(refusal);
        };
        let candidates = std::iter::once(&**found).chain(&found.others).map(|victims| Candidate {
            victims: Victims::new(victims.node, victims.pods.clone(), victims.breaks),
            node: self.cluster.node(victims.node).clone(),
        });
        let (candidates, objects) = (candidates.collect(), self.extending.objects.clone());
        let question = Question::Victims(pod.clone(), refusal);
        self.ask(pod, question, move |pod| async move {
            let victims = extender::choose_victims(&extenders, &pod, candidates, &objects).await?;
            Ok(Answer::Victims(victims))
        });
        None
    }

    /// Goes on with the pod that a question was about, then with the next.
    pub(super) fn answered(&mut self, question: Question, answered: Answered) {
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => Err(ExtenderError::Told(error.to_string())),
        };
        let changed = self.extending.changed;
        match (question, answer) {
            (Question::Nodes(pod, candidates), Ok(Answer::Nodes(verdict))) => {
                if let Some(pod) = self.queue.get(&pod.uid).cloned() {
                    self.decide_extended(&pod, &candidates, &verdict);
                    self.try_again_if(changed, &pod);
                }
            }
            (Question::Victims(pod, refusal), answer) => {
                if let Some(pod) = self.queue.get(&pod.uid).cloned() {
                    self.refused_with(&pod, refusal, answer);
                    self.try_again_if(changed, &pod);
                }
            }
            (Question::Nodes(pod, _), Ok(Answer::Victims(_))) => self.queue.failed(&pod.uid, Instant::now()),
            (Question::Nodes(pod, _), Err(error)) => {
                if self.queue.get(&pod.uid).is_some() {
                    tracing::warn!(pod = pod.key(), %error, "an extender failed");
                    self.queue.failed(&pod.uid, Instant::now());
                    self.report(&pod, "SchedulerError", error.to_string(), None);
                }
            }
        }
        self.extend_next();
    }

    fn decide_extended(&mut self, pod: &Arc<PodInfo>, candidates: &Candidates, verdict: &Verdict) {
        let outcome = self.decided(pod, |profile, cluster| {
            cycle::prepare(pod, profile, cluster);
            extended::decide(pod, profile, cluster, candidates, verdict, among)
        });
        match outcome {
            None => {}
            Some(Outcome::Node(node)) => self.assign(pod.clone(), node),
            Some(Outcome::Others) => self.ask_for_nodes(pod, true),
            Some(Outcome::Again) => self.ask_for_nodes(pod, false),
            Some(Outcome::Refused(refusal)) => self.refused(pod, refusal),
        }
    }

    fn refused_with(&mut self, pod: &Arc<PodInfo>, mut refusal: Refusal, answer: Result<Answer, ExtenderError>) {
        let mut said = std::mem::take(&mut refusal.beside);
        match answer {
            Ok(Answer::Victims(chosen)) => {
                let standing = self.decided(pod, |profile, cluster| {
                    cycle::prepare(pod, profile, cluster);
                    let standing = extended::standing(pod, profile, cluster, chosen)?;
                    Some(preemption::best(standing, pod, cluster))
                });
                match standing {
                    None => return,
                    Some(None) => return self.queue.failed(&pod.uid, Instant::now()),
                    Some(Some(Some(best))) => {
                        refusal.preemption = Some(Preempted::By(Box::new(best)));
                        return self.wait(pod, refusal);
                    }
                    Some(Some(None)) => said.push("preemption: no candidate node for preemption".into()),
                }
            }
            Ok(Answer::Nodes(_)) => return self.queue.failed(&pod.uid, Instant::now()),
            // Upstream tells nothing beside it.
            Err(error) => said = vec![format!("preemption: {error}").into()],
        }
        refusal.preemption = Some(Preempted::NotEligible);
        refusal.add(&said.join(", "));
        self.wait(pod, refusal);
    }

    /// What happened while extenders were asked woke nobody who was asked about.
    pub(super) fn try_again_if(&mut self, changed: u32, pod: &PodInfo) {
        let rows = self.queue.refused_by(&pod.uid);
        let profile = self.profiles.of(pod);
        let may_help = |(rows, profile): (Rows, &Profile)| profile.may_help(rows, changed, |_| true);
        if rows.zip(profile).is_some_and(may_help) {
            self.queue.retry(&pod.uid, Instant::now());
        }
    }
}

fn among(count: usize) -> usize {
    rand::random_range(0..count)
}
