//! Does what the plan says.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use tokio::time::Instant;

use super::plan::{Plan, Step, View, is_parallel};
use super::{Controller, claims, identity};
use crate::delete::delete;
use crate::driver::Next;
use crate::error::{Error, Tried, code, message, namespace_terminating};
use crate::meta::{self, Key};
use crate::{history, replicas};

/// One reconciliation.
pub(super) struct Act<'a> {
    pub controller: &'a Controller,
    pub key: &'a Key,
    pub set: &'a StatefulSet,
    pub view: &'a View<'a>,
    /// The revision that pods had before the present rollout.
    pub current: &'a Arc<ControllerRevision>,
    /// When to come back.
    pub next: Next,
}

impl Act<'_> {
    pub(super) async fn run(&mut self, plan: Plan) -> Result<(), Error> {
        let parallel = is_parallel(self.set);
        for mut steps in plan.phases {
            let mut held = Next::Done;
            steps.retain(|step| match self.held(step) {
                Some(left) => {
                    held = held.sooner(Next::After(left));
                    false
                }
                None => true,
            });
            self.next = self.next.sooner(held);
            if !parallel {
                for step in &steps {
                    self.take(step).await?;
                }
                continue;
            }
            let this = &*self;
            let (_, error) = replicas::slow_start(steps.len(), |at| this.take(&steps[at])).await;
            if let Some(error) = error {
                return Err(error);
            }
        }
        Ok(())
    }

    /// How long the step has to wait, because pods of its place keep failing.
    fn held(&self, step: &Step) -> Option<Duration> {
        let Step::Replace { ordinal, pod } = step else {
            return None;
        };
        let failed = &self.controller.failed;
        failed.wait(self.set, &ordinal.to_string(), pod, Instant::now())
    }

    async fn take(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Create { ordinal, current } => self.create(*ordinal, *current).await,
            Step::Replace { pod, .. } | Step::Delete(pod) => self.delete(pod).await,
            Step::Tend { ordinal, pod } => self.tend(*ordinal, pod).await,
        }
    }

    async fn create(&self, ordinal: i32, current: bool) -> Result<(), Error> {
        let of_current;
        let (template, revision) = if current {
            of_current = history::template(self.current)?;
            (&of_current, self.view.current)
        } else {
            let Some(spec) = &self.set.spec else { return Ok(()) };
            (&spec.template, self.view.update)
        };
        let pod = identity::new_pod(self.set, template, revision, ordinal);
        let name = meta::name(&pod);
        if let Err(error) = self.make_claims(ordinal).await {
            self.tell("Create", name, Err(&error.message()));
            return Err(error);
        }
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        match api.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                self.controller.seen.wrote(self.key, created.revision);
                self.tell("Create", name, Ok(()));
                Ok(())
            }
            // Nothing can be made in a namespace that goes; retrying would only make noise.
            Err(error) if namespace_terminating(&error) => Ok(()),
            Err(error) => {
                // Somebody else's pod has the name, for as long as it is there.
                if code(&error) != Some(409) {
                    self.tell("Create", name, Err(&message(&error)));
                }
                Err(error).tried(|| format!("create pod {}/{name} of StatefulSet {}", self.key.namespace, self.key))
            }
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        match delete(&api, pod, DeleteParams::default()).await {
            Ok(found) => {
                if found {
                    self.controller.seen.deleted(self.key, pod);
                    self.tell("Delete", meta::name(pod), Ok(()));
                }
                Ok(())
            }
            Err(error) => {
                self.tell("Delete", meta::name(pod), Err(&error.message()));
                Err(error)
            }
        }
    }

    /// Gives a pod that is there what it lacks.
    async fn tend(&self, ordinal: i32, pod: &Pod) -> Result<(), Error> {
        let mut changed = false;
        let done = self.mend(ordinal, pod, &mut changed).await;
        let name = meta::name(pod);
        match &done {
            Ok(()) if changed => self.tell("Update", name, Ok(())),
            Ok(()) => {}
            Err(error) => self.tell("Update", name, Err(&error.message())),
        }
        done
    }

    async fn mend(&self, ordinal: i32, pod: &Pod, changed: &mut bool) -> Result<(), Error> {
        if identity::in_range(self.set, ordinal) {
            self.make_claims(ordinal).await?;
        }
        for (_, name) in claims::of(self.set, ordinal) {
            *changed |= self.set_owners(&name, ordinal, pod).await?;
        }
        let patch = identity::mended(self.set, pod, ordinal).filter(|_| identity::in_range(self.set, ordinal));
        let Some(patch) = patch else { return Ok(()) };
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        let name = meta::name(pod);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Some(patched) = patched.tried_if_exists(|| format!("update pod {}/{name}", self.key.namespace))? {
            self.controller.seen.wrote(self.key, patched.revision);
            *changed = true;
        }
        Ok(())
    }

    /// Makes the claims that the pod lacks; all are tried before one's failure counts.
    async fn make_claims(&self, ordinal: i32) -> Result<(), Error> {
        let api = self.controller.ctx.api::<PersistentVolumeClaim>(&self.key.namespace);
        let mut failure = None;
        for claim in claims::new(self.set, ordinal) {
            let name = meta::name(&claim);
            match (self.view.claim)(name) {
                Some(known) if known.deletion_timestamp.is_some() => {
                    failure = Some(Error::Invalid(format!("pvc {name} is being deleted")));
                }
                Some(_) => {}
                None => {
                    let made = api.create(&PostParams::default(), &claim).await;
                    // The informer may not have it yet.
                    if made
                        .as_ref()
                        .is_err_and(|e| code(e) == Some(409) || namespace_terminating(e))
                    {
                        continue;
                    }
                    let words = made.as_ref().map(drop).map_err(message);
                    self.tell_claim(name, &identity::name(self.set, ordinal), &words);
                    if let Err(why) = words {
                        failure = Some(Error::Invalid(format!("failed to create PVC {name}: {why}")));
                    }
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Brings a claim's owners in line with the retention policy; true if they were not.
    async fn set_owners(&self, name: &str, ordinal: i32, pod: &Pod) -> Result<bool, Error> {
        let known = (self.view.claim)(name);
        if known.is_none_or(|known| claims::changed(&known, self.set, pod, ordinal).is_none()) {
            return Ok(false);
        }
        let api = self.controller.ctx.api::<PersistentVolumeClaim>(&self.key.namespace);
        let action = || format!("update claim {}/{name} for its retention", self.key.namespace);
        let Some(mut claim) = api.get_opt(name).await.tried(action)? else {
            return Ok(false);
        };
        if claims::conflict(&claim.metadata, self.set, pod) {
            let text = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, \
                 the retention policy is ignored for this claim"
            );
            let set = meta::reference(self.set);
            self.controller
                .recorder
                .event(&set, "Warning", "ConflictingController", text);
        }
        let Some(owners) = claims::changed(&claim.metadata, self.set, pod, ordinal) else {
            return Ok(false);
        };
        claim.metadata.owner_references = Some(owners);
        let replaced = api.replace(name, &PostParams::default(), &claim).await;
        replaced.tried_if_exists(action).map(|done| done.is_some())
    }

    /// In upstream's words.
    fn tell(&self, verb: &str, pod: &str, outcome: Result<(), &str>) {
        let set = &self.key.name;
        let (type_, reason, text) = match outcome {
            Ok(()) => (
                "Normal",
                "Successful",
                format!("{verb} Pod {pod} in StatefulSet {set} successful"),
            ),
            Err(why) => (
                "Warning",
                "Failed",
                format!("{verb} Pod {pod} in StatefulSet {set} failed error: {why}"),
            ),
        };
        let about = meta::reference(self.set);
        self.controller
            .recorder
            .event(&about, type_, &format!("{reason}{verb}"), text);
    }

    fn tell_claim(&self, claim: &str, pod: &str, outcome: &Result<(), String>) {
        let set = &self.key.name;
        let (type_, reason, text) = match outcome {
            Ok(()) => (
                "Normal",
                "SuccessfulCreate",
                format!("Create Claim {claim} Pod {pod} in StatefulSet {set} success"),
            ),
            Err(why) => (
                "Warning",
                "FailedCreate",
                format!("Create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {why}"),
            ),
        };
        let about = meta::reference(self.set);
        self.controller.recorder.event(&about, type_, reason, text);
    }
}
