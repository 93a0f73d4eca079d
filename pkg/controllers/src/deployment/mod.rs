//! Deployments: a ReplicaSet per pod template, and pods moved from the old ones to the newest as the strategy says.
//!
//! Watches Deployments, ReplicaSets and (for Recreate) pods; makes, scales, annotates and prunes ReplicaSets; writes the Deployment's status.
//! [`plan`] holds the arithmetic, [`revision`] the annotations that remember it, [`progress`] the status; all pure. This file acts.

mod plan;
mod progress;
mod revision;
mod rollback;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use mk8s_client::{Event, EventRecorder, Informer, Seen};

use crate::adoption::{self, manager};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried, code};
use crate::error::{message, namespace_terminating};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::selecting::Selecting;
use crate::{hash, pod};

pub use plan::scaled;
use plan::{Sets, Strategy, replicas_of};

const NAME: &str = "deployment-controller";
const WORKERS: usize = 5;

struct Controller {
    ctx: Context,
    deployments: Informer<Deployment>,
    sets: Owned<ReplicaSet>,
    pods: Owned<Pod>,
    /// Statuses that were written.
    statuses: Arc<Seen<Key>>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let deployments = ctx.informers.of::<Deployment>();
    let (all_sets, all_pods) = (ctx.informers.of::<ReplicaSet>(), ctx.informers.of::<Pod>());
    let (sets, pods) = (Owned::of(&all_sets), Owned::of(&all_pods));
    let mut driver = Driver::new(NAME, &ctx.scope);
    let statuses = Arc::<Seen<Key>>::default();
    let written = statuses.clone();
    driver.watch(&deployments, move |event| {
        let key = Key::of(&**event.object());
        Some(key)
            .filter(|key| !written.is_echo(key, event))
            .into_iter()
            .collect()
    });
    driver.watch(&all_sets, {
        let owners = Selecting::of(&deployments, |owner| owner.spec.as_ref().map(|s| s.selector.clone()));
        move |event| adoption::owners(event, &owners)
    });
    driver.watch(&all_pods, {
        let (deployments, sets) = (deployments.clone(), all_sets.clone());
        move |event| pod_event(event, &deployments, &sets)
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        deployments,
        sets,
        pods,
        statuses,
        recorder,
    };
    driver.run(WORKERS, controller).await
}

/// A Recreate waits for the last old pod to be gone.
fn pod_event(event: &Event<Pod>, deployments: &Informer<Deployment>, sets: &Informer<ReplicaSet>) -> Vec<Key> {
    let ended = match event {
        Event::Deleted(old) => old,
        Event::Applied { new, .. } if pod::is_terminal(new) => new,
        Event::Applied { .. } => return Vec::new(),
    };
    let namespace = meta::namespace(&**ended);
    let set = meta::controller_of_kind::<ReplicaSet, _>(&**ended).and_then(|o| sets.get(Some(namespace), &o.name));
    let Some(key) = set.as_deref().and_then(manager::<Deployment>) else {
        return Vec::new();
    };
    let recreates = deployments
        .get(key.ns(), &key.name)
        .is_some_and(|d| Strategy::of(&d).recreate);
    if recreates { vec![key] } else { Vec::new() }
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.get(key.ns(), &key.name) else {
            self.statuses.forget(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &deployment.spec else {
            return Ok(Next::Done);
        };
        if meta::selector(&spec.selector)?.selects_all() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder
                .event(&meta::reference(&*deployment), "Warning", "SelectingAll", text);
            return Ok(Next::Done);
        }
        let candidates = adoption::candidates(&self.sets, &*deployment, &spec.selector);
        let claimed = adoption::claim(&self.ctx, &*deployment, &spec.selector, candidates, |_| true, None).await?;

        let mut rollout = Rollout {
            controller: self,
            deployment: (*deployment).clone(),
            annotated: false,
            sets: Sets::new(&deployment, claimed),
            key,
        };
        if meta::deleting(&*deployment) {
            rollout.write_status().await
        } else if let Some(asked) = rollback::asked(&deployment).filter(|_| spec.paused != Some(true)) {
            rollout.roll_back(asked).await
        } else if rollout.sets.is_scaled(&rollout.deployment) || spec.paused == Some(true) {
            rollout.scale_only().await
        } else if Strategy::of(&deployment).recreate {
            rollout.recreate().await
        } else {
            rollout.roll().await
        }
    }
}

/// One reconciliation: the Deployment and its ReplicaSets as this run has changed them so far.
struct Rollout<'a> {
    controller: &'a Controller,
    key: Key,
    deployment: Deployment,
    /// Has an annotation that is not written yet.
    annotated: bool,
    sets: Sets,
}

impl Rollout<'_> {
    fn wanted(&self) -> i32 {
        plan::wanted(&self.deployment)
    }

    /// Paused, or scaled: sizes change, templates do not.
    async fn scale_only(&mut self) -> Result<Next, Error> {
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        self.ensure_new(false).await?;
        for (at, size) in self.sets.scale(&self.deployment) {
            self.resize(at, size).await?;
        }
        if paused {
            self.prune().await?;
        }
        let changed = progress::set_paused(&mut self.deployment, paused);
        let status = progress::status(&self.deployment, &self.sets);
        self.write(status, changed).await?;
        Ok(Next::Done)
    }

    /// Only the template changes here: what follows from it is the next run's.
    async fn roll_back(&mut self, asked: i64) -> Result<Next, Error> {
        self.ensure_new(true).await?;
        let outcome = rollback::roll_back(&mut self.deployment, &self.sets, asked);
        let api = self.controller.ctx.api::<Deployment>(&self.key.namespace);
        let updated = api
            .replace(&self.key.name, &PostParams::default(), &self.deployment)
            .await;
        updated.tried(|| format!("roll back Deployment {}", self.key))?;
        let (kind, reason, text) = outcome.event(&self.key.name);
        self.controller
            .recorder
            .event(&meta::reference(&self.deployment), kind, reason, &text);
        Ok(Next::Done)
    }

    async fn roll(&mut self) -> Result<Next, Error> {
        progress::set_paused(&mut self.deployment, false);
        self.ensure_new(true).await?;
        let Some(new) = self.sets.new else {
            return self.write_status().await;
        };
        let size = plan::size_of_new(&self.deployment, &self.sets);
        if size != replicas_of(&self.sets.all[new]) {
            self.resize(new, size).await?;
            return self.write_status().await;
        }
        let down = plan::shrink_old(&self.deployment, &self.sets);
        if !down.is_empty() {
            for (at, size) in down {
                self.resize(at, size).await?;
            }
            return self.write_status().await;
        }
        if progress::is_complete(&self.deployment, &progress::status(&self.deployment, &self.sets)) {
            self.prune().await?;
        }
        self.write_status().await
    }

    async fn recreate(&mut self) -> Result<Next, Error> {
        progress::set_paused(&mut self.deployment, false);
        self.ensure_new(false).await?;
        let running: Vec<usize> = self
            .sets
            .old()
            .filter(|at| replicas_of(&self.sets.all[*at]) > 0)
            .collect();
        if !running.is_empty() {
            for at in running {
                self.resize(at, 0).await?;
            }
            return self.write_status().await;
        }
        if self.old_pods_run() {
            return self.write_status().await;
        }
        self.ensure_new(true).await?;
        if let Some(new) = self.sets.new {
            self.resize(new, self.wanted()).await?;
        }
        if progress::is_complete(&self.deployment, &progress::status(&self.deployment, &self.sets)) {
            self.prune().await?;
        }
        self.write_status().await
    }

    fn old_pods_run(&self) -> bool {
        self.sets.old().any(|at| {
            let set = &self.sets.all[at];
            set.status.as_ref().is_some_and(|s| s.replicas > 0)
                || self.controller.pods.by(&**set).iter().any(|p| !pod::is_terminal(p))
        })
    }

    /// Finds the ReplicaSet of the present template, brings its annotations up to date, and makes it if it is missing and asked for.
    async fn ensure_new(&mut self, create: bool) -> Result<(), Error> {
        let revision = self.sets.next_revision();
        let max = self.wanted() + Strategy::of(&self.deployment).surge;
        if let Some(at) = self.sets.new {
            let mut set = (*self.sets.all[at]).clone();
            let mut changed = revision::annotate(&self.deployment, &mut set.metadata, revision, true);
            let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
            if let Some(spec) = &mut set.spec
                && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
            {
                spec.min_ready_seconds = min_ready;
                changed = true;
            }
            if changed {
                self.sets.all[at] = Arc::new(self.replace(&set).await?);
            }
            let reached = meta::annotation(&*self.sets.all[at], revision::REVISION)
                .unwrap_or_default()
                .to_owned();
            self.remember_revision(&reached);
            let text = format!("Found new replica set {:?}", meta::name(&*self.sets.all[at]));
            progress::note_found(&mut self.deployment, &text);
            return Ok(());
        }
        if !create {
            return Ok(());
        }
        self.create_new(revision, max).await
    }

    async fn create_new(&mut self, revision: i64, max: i32) -> Result<(), Error> {
        let set = self.new_set(revision, max);
        let api = self.controller.ctx.api::<ReplicaSet>(&self.key.namespace);
        let name = meta::name(&set).to_owned();
        let created = api.create(&PostParams::default(), &set).await;
        match created.and_then(|created| created.object()) {
            Ok(created) => {
                let size = replicas_of(&created);
                self.sets.add_new(Arc::new(created));
                if size > 0 {
                    self.tell_scaled(&name, 0, size);
                }
                let text = format!("Created new replica set {name:?}");
                progress::note(&mut self.deployment, "True", "NewReplicaSetCreated", &text);
                self.remember_revision(&revision.to_string());
                Ok(())
            }
            Err(error) if code(&error) == Some(409) => self.name_taken(&name).await,
            Err(error) if namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let text = format!("Failed to create new replica set {name:?}: {}", message(&error));
                progress::note(&mut self.deployment, "False", "ReplicaSetCreateError", &text);
                let status = self.deployment.status.clone().unwrap_or_default();
                // The create's own failure is what counts; the note about it may fail too.
                let _ = self.write(status, true).await;
                self.controller.recorder.event(
                    &meta::reference(&self.deployment),
                    "Warning",
                    "ReplicaSetCreateError",
                    &text,
                );
                Err(error).tried(|| format!("create ReplicaSet {}/{name}", self.key.namespace))
            }
        }
    }

    /// Another template has the same hash: count the collision, which changes the hash. Or it is ours, and the informer lags.
    async fn name_taken(&mut self, name: &str) -> Result<(), Error> {
        let api = self.controller.ctx.api::<ReplicaSet>(&self.key.namespace);
        let taken = api
            .get_opt(name)
            .await
            .tried(|| format!("get ReplicaSet {}/{name}", self.key.namespace))?;
        if let Some(set) = taken {
            let ours = meta::controlled_by(&set, meta::uid(&self.deployment));
            if ours && plan::same_template(&self.deployment, &set) {
                self.sets.add_new(Arc::new(set));
                return Ok(());
            }
            let mut status = self.deployment.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.write(status, true).await?;
        }
        Err(Error::Invalid(format!(
            "ReplicaSet {}/{name} exists already; trying another name",
            self.key.namespace
        )))
    }

    fn new_set(&self, revision: i64, max: i32) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self.deployment.status.as_ref().and_then(|s| s.collision_count);
        let hash = hash::pod_template(&spec.template, collisions);
        let mut template = spec.template;
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(plan::HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector;
        selector
            .match_labels
            .get_or_insert_default()
            .insert(plan::HASH_LABEL.to_owned(), hash.clone());
        let mut metadata = ObjectMeta {
            name: Some(plan::set_name(&self.key.name, &hash)),
            namespace: Some(self.key.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![meta::owner_reference(&self.deployment)]),
            ..ObjectMeta::default()
        };
        revision::annotate(&self.deployment, &mut metadata, revision, false);
        revision::set_sizes(&mut metadata, self.wanted(), max);
        let mut set = ReplicaSet {
            metadata,
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let size = plan::size_of_new_with(&self.deployment, &self.sets, 0);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(size);
        }
        set
    }

    /// Written with the status, where this run ends: a change of annotations alone would be another generation.
    fn remember_revision(&mut self, revision: &str) {
        if revision.is_empty() || meta::annotation(&self.deployment, revision::REVISION) == Some(revision) {
            return;
        }
        meta::set_annotation(&mut self.deployment.metadata, revision::REVISION, revision);
        self.annotated = true;
    }

    async fn replace(&self, set: &ReplicaSet) -> Result<ReplicaSet, Error> {
        self.controller
            .ctx
            .api::<ReplicaSet>(&self.key.namespace)
            .replace(meta::name(set), &PostParams::default(), set)
            .await
            .and_then(|updated| updated.object())
            .tried(|| format!("update ReplicaSet {}/{}", self.key.namespace, meta::name(set)))
    }

    async fn resize(&mut self, at: usize, size: i32) -> Result<(), Error> {
        let mut set = (*self.sets.all[at]).clone();
        let before = replicas_of(&set);
        let max = self.wanted() + Strategy::of(&self.deployment).surge;
        let annotated = revision::set_sizes(&mut set.metadata, self.wanted(), max);
        if before == size && !annotated {
            return Ok(());
        }
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(size);
        }
        let updated = self.replace(&set).await?;
        if before != size {
            self.tell_scaled(meta::name(&updated), before, size);
        }
        self.sets.all[at] = Arc::new(updated);
        Ok(())
    }

    fn tell_scaled(&self, set: &str, before: i32, size: i32) {
        let direction = if size > before { "up" } else { "down" };
        let text = format!("Scaled {direction} replica set {set} from {before} to {size}");
        self.controller
            .recorder
            .event(&meta::reference(&self.deployment), "Normal", "ScalingReplicaSet", &text);
    }

    /// Deletes old ReplicaSets beyond the history limit, oldest first.
    async fn prune(&mut self) -> Result<(), Error> {
        let api = self.controller.ctx.api::<ReplicaSet>(&self.key.namespace);
        for set in plan::prunable(&self.deployment, &self.sets) {
            delete(&api, &*set, DeleteParams::background()).await?;
        }
        Ok(())
    }

    async fn write_status(&mut self) -> Result<Next, Error> {
        let now = Timestamp::now();
        let status = progress::rollout_status(&self.deployment, &self.sets, now);
        let next = progress::next_deadline(&self.deployment, &status, now);
        self.write(status, false).await?;
        Ok(next)
    }

    /// Writes the status if it says something new; `noted` when conditions were changed on the way to it.
    async fn write(&mut self, status: DeploymentStatus, noted: bool) -> Result<(), Error> {
        let known = self
            .controller
            .deployments
            .get(self.key.ns(), &self.key.name)
            .and_then(|d| d.status.clone());
        let unchanged = known.as_ref() == Some(&status);
        if unchanged && !self.annotated && (!noted || self.deployment.status == known) {
            return Ok(());
        }
        self.deployment.status = Some(status);
        let updated = self.controller.ctx.write_status(&self.deployment).await?;
        self.annotated = false;
        if let Some(revision) = updated.and_then(|updated| updated.revision) {
            self.controller.statuses.wrote(&self.key, Some(revision));
            self.deployment.metadata.resource_version = Some(revision.to_string());
        }
        Ok(())
    }
}
