//! Volumes that were decided on and are not bound yet: the next decision counts on them, and who wrote them hears when both sides of each
//! are bound, or that they never will be.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::watch;

use super::volume::ClaimRef;
use super::{Volume, Volumes};
use crate::cluster::NodeInfo;
use crate::pod::PodInfo;

/// How the binding of a pod's volumes ended; none: it did not yet.
pub type Ended = Option<Result<(), String>>;

/// What is decided for claims: the volumes that they get, none where one is to be made.
pub type Decided = Vec<(Box<str>, Option<Arc<str>>)>;

/// What was decided for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `namespace/name`.
    pub claim: Box<str>,
    /// The volume that it gets; none: one is to be made for the node.
    pub volume: Option<Arc<str>>,
    /// The revision of the object that says so, before it is written: the volume's, or the claim's. None: it says so already.
    pub before: Option<Box<str>>,
}

/// What a pod waits for.
#[derive(Debug)]
struct Binding {
    node: Arc<str>,
    parts: Box<[Part]>,
    ended: watch::Sender<Ended>,
    /// What was written has come back: others see to the rest.
    waits: bool,
}

/// Of all pods, by uid.
#[derive(Debug, Default)]
pub struct Bindings {
    of: HashMap<Arc<str>, Binding>,
    /// The pods that wait for a claim.
    by_claim: HashMap<Box<str>, SmallVec<[Arc<str>; 1]>>,
    waiting: usize,
}

/// How far a binding is.
enum State {
    /// What was written is not back.
    Unwritten,
    Waits,
    Ended(Result<(), String>),
}

impl Volumes {
    /// A pod is to go to `node`, and gets for its claims what is decided: volumes, or for none, one that is made there.
    pub fn assume(&mut self, pod: &Arc<str>, node: &Arc<str>, decided: Decided) {
        self.forget_binding(pod, None);
        let parts: Box<[Part]> = decided
            .into_iter()
            .filter_map(|(claim, volume)| self.assume_one(node, claim, volume))
            .collect();
        for part in &parts {
            let pods = self.bindings.by_claim.entry(part.claim.clone()).or_default();
            if !pods.contains(pod) {
                pods.push(pod.clone());
            }
        }
        let binding = Binding {
            node: node.clone(),
            parts,
            ended: watch::Sender::new(None),
            waits: false,
        };
        self.bindings.of.insert(pod.clone(), binding);
    }

    fn assume_one(&mut self, node: &str, key: Box<str>, volume: Option<Arc<str>>) -> Option<Part> {
        let before = match &volume {
            Some(name) => self.assume_volume(name, &key)?,
            None => {
                let claim = self.claims.get_mut(&key)?;
                let said = claim.told_node.as_deref() == Some(node);
                claim.assumed_node = Some(node.into());
                (!said).then(|| claim.revision.clone())
            }
        };
        let claim = key;
        Some(Part { claim, volume, before })
    }

    fn assume_volume(&mut self, name: &Arc<str>, key: &str) -> Option<Option<Box<str>>> {
        let claim = self.claims.get(key)?;
        let claim_ref = ClaimRef {
            key: key.into(),
            uid: claim.uid.clone(),
        };
        let volume = self.volumes.get(name)?;
        let said = volume.told_claim.as_ref() == Some(&claim_ref);
        let revision = volume.revision.clone();
        self.change_volume(name, |volume| volume.assumed_claim = Some(claim_ref));
        Some((!said).then_some(revision))
    }

    /// What a pod waits for, and where it hears of the end; none: nothing.
    pub fn binding_of(&self, pod: &str) -> Option<(&[Part], watch::Receiver<Ended>)> {
        let binding = self.bindings.of.get(pod)?;
        Some((&binding.parts, binding.ended.subscribe()))
    }

    /// How many pods wait for others to bind what was written for them.
    pub fn waiting(&self) -> usize {
        self.bindings.waiting
    }

    /// Nobody will hear any more of what others do: whoever waits for it, or is about to, does so no longer. The pods that do.
    pub fn give_up(&mut self) -> Vec<Arc<str>> {
        let all = self.bindings.of.iter();
        let waiting = all.filter(|(_, binding)| binding.ended.borrow().is_none());
        let pods: Vec<_> = waiting.map(|(pod, _)| pod.clone()).collect();
        for pod in &pods {
            self.forget_binding(pod, None);
        }
        pods
    }

    /// A pod is gone: nobody need wait for its volumes.
    pub(in crate::cluster) fn pod_gone(&mut self, pod: &PodInfo) {
        let why = format!("pod does not exist any more: pod {:?} not found", pod.name);
        self.forget_binding(&pod.uid, Some(&why));
    }

    /// The pod needs its volumes no more, or was told that it has them: what was assumed for it and is not written is free again.
    pub fn forget_binding(&mut self, pod: &str, why: Option<&str>) {
        let Some((pod, binding)) = self.bindings.of.remove_entry(pod) else {
            return;
        };
        self.bindings.waiting -= usize::from(binding.waits);
        for part in &binding.parts {
            if let Some(pods) = self.bindings.by_claim.get_mut(&part.claim) {
                pods.retain(|other| *other != pod);
                if pods.is_empty() {
                    self.bindings.by_claim.remove(&part.claim);
                }
            }
            self.give_back(part);
        }
        if let Some(why) = why {
            binding.ended.send_replace(Some(Err(why.to_owned())));
        }
    }

    fn give_back(&mut self, part: &Part) {
        // What it was when it was assumed, and nobody has written since.
        let Some(before) = &part.before else { return };
        match &part.volume {
            Some(name) => {
                let as_it_was = |volume: &Arc<Volume>| {
                    volume.revision == *before && volume.assumed_claim.as_ref().is_some_and(|own| own.key == part.claim)
                };
                if self.volumes.get(name).is_some_and(as_it_was) {
                    self.change_volume(name, |volume| volume.assumed_claim = None);
                }
            }
            None => {
                let claim = self.claims.get_mut(&part.claim);
                if let Some(claim) = claim.filter(|claim| claim.revision == *before) {
                    claim.assumed_node = None;
                }
            }
        }
    }

    /// The pods that wait for a claim, with the nodes that they go to.
    pub(in crate::cluster) fn waiting_for(&self, claim: &str) -> SmallVec<[(Arc<str>, Arc<str>); 1]> {
        let pods = self.bindings.by_claim.get(claim).into_iter().flatten();
        let with_node = pods.filter_map(|pod| Some((pod.clone(), self.bindings.of.get(pod)?.node.clone())));
        with_node.collect()
    }

    /// The pods that wait for volumes at a node.
    pub(in crate::cluster) fn waiting_at(&self, node: &str) -> SmallVec<[Arc<str>; 1]> {
        let at = self.bindings.of.iter().filter(|(_, binding)| *binding.node == *node);
        at.map(|(pod, _)| pod.clone()).collect()
    }

    /// Something of what a pod waits for changed: it is told if it need wait no longer.
    pub(in crate::cluster) fn look_at(&mut self, pod: &str, node: Option<&NodeInfo>) {
        let Some(binding) = self.bindings.of.get(pod) else {
            return;
        };
        let (waited, state) = (binding.waits, self.state(binding, node));
        let waits = matches!(state, State::Waits);
        if let State::Ended(result) = state {
            binding.ended.send_replace(Some(result.clone()));
            if result.is_ok() {
                return self.forget_binding(pod, None);
            }
        }
        self.bindings.waiting = self.bindings.waiting - usize::from(waited) + usize::from(waits);
        if let Some(binding) = self.bindings.of.get_mut(pod) {
            binding.waits = waits;
        }
    }

    fn state(&self, binding: &Binding, node: Option<&NodeInfo>) -> State {
        let Some(node) = node.filter(|node| node.exists) else {
            let name = &binding.node;
            return State::Ended(Err(format!("failed to get node {name:?}: node {name:?} not found")));
        };
        let mut waits = false;
        for part in &binding.parts {
            let state = match &part.volume {
                Some(volume) => self.state_of_bound(part, volume, node),
                None => self.state_of_made(part, node),
            };
            match state {
                Ok(State::Ended(_)) => {}
                Ok(State::Unwritten) => return State::Unwritten,
                Ok(State::Waits) => waits = true,
                Err(why) => return State::Ended(Err(why)),
            }
        }
        if waits { State::Waits } else { State::Ended(Ok(())) }
    }

    fn state_of_bound(&self, part: &Part, name: &str, node: &NodeInfo) -> Result<State, String> {
        let missing = |kind: &str, name: &str| format!("failed to check binding: {kind} {name:?} not found");
        let volume = self.volume(name).ok_or_else(|| missing("persistentvolumes", name))?;
        let claim = self
            .claim(&part.claim)
            .ok_or_else(|| missing("persistentvolumeclaims", &part.claim))?;
        if part.before.as_ref() == Some(&volume.revision) {
            return Ok(State::Unwritten);
        }
        near(volume, node)?;
        if volume.told_claim.as_ref().is_none_or(|own| own.uid.is_empty()) {
            return Err(format!("ClaimRef got reset for pv {name:?}"));
        }
        Ok(ended_if(claim.bound))
    }

    fn state_of_made(&self, part: &Part, node: &NodeInfo) -> Result<State, String> {
        let claim = self.claim(&part.claim).ok_or_else(|| {
            let key = &part.claim;
            format!("failed to check provisioning pvc: persistentvolumeclaims {key:?} not found")
        })?;
        if part.before.as_ref() == Some(&claim.revision) {
            return Ok(State::Unwritten);
        }
        if claim.told_node.as_deref() != Some(&*node.name) {
            let (_, name) = part.claim.split_once('/').unwrap_or_default();
            return Err(format!("provisioning failed for PVC {name:?}"));
        }
        if claim.volume.is_empty() {
            return Ok(State::Waits);
        }
        // It may be on its way.
        let Some(volume) = self.volume(&claim.volume) else {
            return Ok(State::Waits);
        };
        near(volume, node)?;
        Ok(ended_if(claim.bound))
    }
}

fn ended_if(bound: bool) -> State {
    if bound { State::Ended(Ok(())) } else { State::Waits }
}

fn near(volume: &Volume, node: &NodeInfo) -> Result<(), String> {
    let (name, of) = (&volume.name, &node.name);
    if volume.is_near(node) {
        return Ok(());
    }
    Err(format!(
        "pv {name:?} node affinity doesn't match node {of:?}: no matching NodeSelectorTerms"
    ))
}
