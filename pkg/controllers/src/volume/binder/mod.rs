//! Claims and volumes find each other, and volumes are let go.
//!
//! Watches claims, volumes, classes, and pods that use claims. Writes of a volume which claim it is for, of a claim which volume
//! it has, the status of both, the class of claims that name none, and who is to provide a volume. Makes no volume, and deletes
//! none.
//!
//! A binding is written volume first, with the claim's uid: whatever is interrupted goes on from there, and of two claims that
//! want a volume one finds it changed. Nothing is decided about a key before its own last writes have come back.

mod plan;
mod shelf;
#[cfg(test)]
mod tests;
mod written;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use mk8s_client::{Event, EventRecorder, Index, Informer, Raw, Seen, WorkQueue};
use parking_lot::Mutex;
use serde_json::Value;

use self::plan::{AroundClaim, ForClaim, ForVolume, Reclaim, Told};
use self::shelf::{Shelf, Slot};
use super::{
    BIND_COMPLETED, CLAIMS, CLASSES, NO_CLASS, Side, VOLUMES, by_wanted_class, claim_of, class, default_class,
    has_annotation, phase, volume_name,
};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::meta::{self, Key};
use crate::rest::{Part, Rest};
use crate::{index, pod};

const NAME: &str = "persistentvolume-controller";
const WORKERS: usize = 4;
/// How many claims are looked at for a volume that is to be had. One gets it; the others are for what changes meanwhile. When a claim
/// leaves those that wait, the next are looked at: it may have left for another volume than the one that it was woken for.
const SUITORS: usize = 4;
/// When a claim whose volume somebody else took looks again.
const AT_ONCE: Duration = Duration::from_millis(1);
/// When others look at a volume that could not be bound. Where nothing can be written they would else wake each other all the time.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What is found by more than its name.
#[derive(Clone)]
struct Indexes {
    /// Volumes by the claim that they are for.
    volumes: Index<Raw>,
    /// Claims by the volume that they name.
    claims: Index<Raw>,
    /// Claims without a volume by their class.
    unbound: Index<Raw>,
    /// Pods by the claims that they use.
    pods: Index<Pod>,
}

struct Binder {
    ctx: Context,
    queue: WorkQueue<Side>,
    claims: Informer<Raw>,
    volumes: Informer<Raw>,
    classes: Informer<Raw>,
    by: Indexes,
    shelf: Arc<Mutex<Shelf>>,
    seen_claims: Seen<Side>,
    seen_volumes: Seen<Side>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let [claims, volumes, classes] = [&CLAIMS, &VOLUMES, &CLASSES].map(|kind| kind.informer(&ctx.informers));
    let pods = ctx.informers.of::<Pod>();
    let by = Indexes {
        volumes: volumes.index("claim", |volume| {
            claim_of(volume).map(|(key, _)| key.to_string()).into_iter().collect()
        }),
        claims: claims.index("volume", named),
        unbound: by_wanted_class(&claims),
        pods: index::claims(&pods),
    };
    let shelf = Arc::new(Mutex::new(Shelf::default()));
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&volumes, {
        let (shelf, by, classes) = (shelf.clone(), by.clone(), classes.clone());
        move |event| {
            let at_most = suitors(&classes, class(event.object()).unwrap_or_default());
            volume_event(event, &shelf, &by, at_most)
        }
    });
    driver.watch(&claims, {
        let (shelf, by, classes) = (shelf.clone(), by.clone(), classes.clone());
        move |event| {
            let (mut sides, left) = claim_event(event, &shelf, &by);
            if let Some(slot) = left {
                let next = shelf.lock().claims_in(&slot, suitors(&classes, &slot.class));
                sides.extend(next.into_iter().map(Side::Claim));
            }
            sides
        }
    });
    driver.watch(&classes, {
        let by = by.clone();
        move |event| class_event(event, &by)
    });
    driver.watch(&pods, {
        let by = by.clone();
        move |event| pod_event(event, &by)
    });
    let recorder = ctx.recorder(NAME);
    let binder = Binder {
        ctx,
        queue: driver.queue.clone(),
        claims,
        volumes,
        classes,
        by,
        shelf,
        seen_claims: Seen::default(),
        seen_volumes: Seen::default(),
        recorder,
    };
    driver.run(WORKERS, binder).await
}

/// How many claims of a class are looked at for a volume: those that wait for their first pod take nothing before.
fn suitors(classes: &Informer<Raw>, class: &str) -> usize {
    let waits = plan::is_delayed(classes.get(None, class).as_deref());
    if waits { 0 } else { SUITORS }
}

fn named(claim: &Raw) -> Vec<String> {
    let name = volume_name(claim);
    (!name.is_empty()).then(|| name.to_owned()).into_iter().collect()
}

fn claims(found: Vec<Arc<Raw>>) -> impl Iterator<Item = Side> {
    found.into_iter().map(|claim| Side::Claim(Key::of(&*claim)))
}

fn volumes(found: Vec<Arc<Raw>>) -> impl Iterator<Item = Side> {
    found
        .into_iter()
        .map(|volume| Side::Volume(meta::name(&*volume).to_owned()))
}

fn volume_event(event: &Event<Raw>, shelf: &Mutex<Shelf>, by: &Indexes, at_most: usize) -> Vec<Side> {
    let volume = event.object();
    let name = meta::name(&**volume);
    let mut shelf = shelf.lock();
    let suitors = match event {
        Event::Applied { new, .. } if shelf.put_volume(new) => shelf.claims_for(new, at_most),
        Event::Applied { .. } => Vec::new(),
        Event::Deleted(_) => {
            shelf.take(name);
            Vec::new()
        }
    };
    drop(shelf);
    let mut sides = vec![Side::Volume(name.to_owned())];
    sides.extend(claim_of(volume).map(|(key, _)| Side::Claim(key)));
    sides.extend(suitors.into_iter().map(Side::Claim));
    sides.extend(claims(by.claims.get(name)));
    sides
}

/// With where the claim waited, if it does no more.
fn claim_event(event: &Event<Raw>, shelf: &Mutex<Shelf>, by: &Indexes) -> (Vec<Side>, Option<Slot>) {
    let claim = event.object();
    let key = Key::of(&**claim);
    let (told, left) = match event {
        Event::Applied { old, new } => {
            let before = old.as_deref().map(|old| (volume_name(old), meta::uid(old)));
            let told = before != Some((volume_name(new), meta::uid(&**new)));
            (told, shelf.lock().put_claim(new))
        }
        Event::Deleted(_) => (true, shelf.lock().drop_claim(&key)),
    };
    let mut sides = Vec::new();
    if told {
        sides.extend(named(claim).into_iter().map(Side::Volume));
        sides.extend(volumes(by.volumes.get(&key.to_string())));
    }
    sides.push(Side::Claim(key));
    (sides, left)
}

/// A class may be what claims wait for, or the one that those get that have none.
fn class_event(event: &Event<Raw>, by: &Indexes) -> Vec<Side> {
    let Event::Applied { new, .. } = event else {
        return Vec::new();
    };
    let mut sides: Vec<Side> = claims(by.unbound.get(meta::name(&**new))).collect();
    if default_class([&**new]).is_some() {
        sides.extend(claims(by.unbound.get(NO_CLASS)));
    }
    sides
}

/// What a claim waits for changes with the pods that use it, and so does what may be reclaimed.
fn pod_event(event: &Event<Pod>, by: &Indexes) -> Vec<Side> {
    let changed = match event {
        Event::Applied { old: None, .. } | Event::Deleted(_) => true,
        Event::Applied { old: Some(old), new } => {
            pod::node(old) != pod::node(new) || pod::is_terminal(old) != pod::is_terminal(new)
        }
    };
    if !changed {
        return Vec::new();
    }
    let keys = index::claims_of(event.object());
    keys.flat_map(|key| {
        let recycled = volumes(by.volumes.get(&key.to_string()));
        recycled.chain([Side::Claim(key)]).collect::<Vec<_>>()
    })
    .collect()
}

impl Reconcile<Side> for Binder {
    async fn reconcile(&self, side: Side) -> Result<Next, Error> {
        let missing = [
            self.seen_claims.missing(&side, &self.claims),
            self.seen_volumes.missing(&side, &self.volumes),
        ];
        if let Some(wait) = missing.into_iter().flatten().max() {
            return Ok(Next::After(wait));
        }
        match &side {
            Side::Claim(key) => match self.claims.get(key.ns(), &key.name) {
                Some(claim) => self.claim(&side, claim).await,
                None => self.gone(&side),
            },
            Side::Volume(name) => match self.volumes.get(None, name) {
                Some(volume) => self.volume(&side, volume).await,
                None => self.gone(&side),
            },
        }
    }
}

impl Binder {
    fn gone(&self, side: &Side) -> Result<Next, Error> {
        self.seen_claims.forget(side);
        self.seen_volumes.forget(side);
        Ok(Next::Done)
    }

    async fn claim(&self, side: &Side, claim: Arc<Raw>) -> Result<Next, Error> {
        if let Some(new) = written::migrated(&claim) {
            return self.write(side, &CLAIMS, &new, Part::Object).await.map(|_| Next::Done);
        }
        let around = self.around(&claim)?;
        match plan::for_claim(&claim, &around) {
            ForClaim::Pending(told) => {
                self.tell(&CLAIMS, &claim, told);
                self.claim_status(side, &claim, "Pending", None).await?;
            }
            ForClaim::Class(class) => {
                let new = written::claim_class(&claim, &class);
                self.write(side, &CLAIMS, &new, Part::Object).await?;
            }
            ForClaim::Bind(volume) => return self.bind(side, &claim, &volume).await,
            ForClaim::Provision(provisioner) => self.provision(side, claim, &provisioner).await?,
            ForClaim::NotProvided(told) => self.tell(&CLAIMS, &claim, Some(told)),
            ForClaim::Lost(told) => {
                if phase(&claim) != "Lost" && self.claim_status(side, &claim, "Lost", None).await? {
                    self.tell(&CLAIMS, &claim, Some(told));
                }
            }
            ForClaim::Invalid(told, why) => {
                self.tell(&CLAIMS, &claim, Some(told));
                return Err(Error::Invalid(why));
            }
        }
        Ok(Next::Done)
    }

    fn around(&self, claim: &Raw) -> Result<AroundClaim, Error> {
        let key = Key::of(claim);
        if !volume_name(claim).is_empty() || has_annotation(claim, BIND_COMPLETED) {
            return Ok(AroundClaim {
                named: self.volumes.get(None, volume_name(claim)),
                ..AroundClaim::default()
            });
        }
        let own = class(claim).filter(|class| !class.is_empty());
        let own = own.and_then(|class| self.classes.get(None, class));
        let delayed = plan::is_delayed(own.as_deref());
        let waiting = self.by.volumes.get(&key.to_string());
        let found = self.shelf.lock().find(claim, &waiting, delayed);
        let found = found.map_err(|why| Error::Invalid(format!("find a volume for claim {key}: {why}")))?;
        let default_class = match class(claim) {
            Some(_) => None,
            None => default_class(self.classes.list().iter().map(|class| &**class)),
        };
        Ok(AroundClaim {
            named: None,
            found: found.and_then(|name| self.volumes.get(None, &name)),
            class: own,
            default_class,
            waiting: self.pods(&key, |pod| pod::node(pod).is_empty(), |pod| meta::name(pod).to_owned()),
        })
    }

    /// The pods that use a claim, have not ended, and are `so`, as they are called.
    fn pods(&self, claim: &Key, so: fn(&Pod) -> bool, called: fn(&Pod) -> String) -> Vec<String> {
        let pods = self.by.pods.get(&claim.to_string());
        let pods = pods.iter().filter(|pod| !pod::is_terminal(pod) && so(pod));
        let mut names: Vec<String> = pods.map(|pod| called(pod)).collect();
        names.sort();
        names
    }

    async fn bind(&self, side: &Side, claim: &Raw, volume: &Arc<Raw>) -> Result<Next, Error> {
        let name = meta::name(&**volume);
        let is_free = claim_of(volume).is_none();
        if is_free && volume_name(claim).is_empty() && !self.shelf.lock().take(name) {
            return Ok(Next::After(AT_ONCE));
        }
        let bound = self.bind_both(side, claim, volume).await;
        if bound.is_err() && is_free {
            self.put_back(name, side);
        }
        bound
    }

    /// Nobody has heard of a change of a volume that was taken: it is as it was, and may be had, also by those who found nothing meanwhile.
    fn put_back(&self, volume: &str, by: &Side) {
        let Some(now) = self.volumes.get(None, volume) else {
            return;
        };
        let mut shelf = self.shelf.lock();
        if shelf.put_volume(&now) {
            let at_most = suitors(&self.classes, class(&now).unwrap_or_default());
            let others = shelf.claims_for(&now, at_most).into_iter().map(Side::Claim);
            for other in others.filter(|other| other != by) {
                self.queue.add_after(other, AFTER_FAILURE);
            }
        }
    }

    async fn bind_both(&self, side: &Side, claim: &Raw, volume: &Arc<Raw>) -> Result<Next, Error> {
        let mut volume = (**volume).clone();
        if let Some(new) = written::volume_bound(&volume, claim) {
            let Some(new) = self.write(side, &VOLUMES, &new, Part::Object).await? else {
                // It is gone; there may be another.
                return Ok(Next::After(AT_ONCE));
            };
            volume = new;
        }
        if let Some(new) = written::volume_phase(&volume, "Bound", "") {
            let Some(new) = self.write(side, &VOLUMES, &new, Part::Status).await? else {
                return Ok(Next::After(AT_ONCE));
            };
            volume = new;
        }
        let mut claim = claim.clone();
        if let Some(new) = written::claim_bound(&claim, &volume) {
            let Some(new) = self.write(side, &CLAIMS, &new, Part::Object).await? else {
                return Ok(Next::Done);
            };
            claim = new;
        }
        self.claim_status(side, &claim, "Bound", Some(&volume)).await?;
        Ok(Next::Done)
    }

    async fn provision(&self, side: &Side, claim: Arc<Raw>, provisioner: &str) -> Result<(), Error> {
        if let Some(new) = written::claim_provisioner(&claim, provisioner) {
            self.write(side, &CLAIMS, &new, Part::Object).await?;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        if provisioner != super::local_path::PROVISIONER {
            let told = Told {
                type_: "Normal",
                reason: "ExternalProvisioning",
                message,
            };
            self.tell(&CLAIMS, &claim, Some(told));
        }
        Ok(())
    }

    async fn volume(&self, side: &Side, volume: Arc<Raw>) -> Result<Next, Error> {
        if let Some(new) = written::migrated(&volume) {
            return self.write(side, &VOLUMES, &new, Part::Object).await.map(|_| Next::Done);
        }
        let claim = self.claim_of(&volume).await?;
        let users = match claim_of(&volume) {
            Some((key, _)) => self.pods(&key, |_| true, |pod| Key::of(pod).to_string()),
            None => Vec::new(),
        };
        match plan::for_volume(&volume, claim.as_deref(), &users) {
            ForVolume::Available => drop(self.volume_phase(side, &volume, "Available", "").await?),
            ForVolume::Bound => drop(self.volume_phase(side, &volume, "Bound", "").await?),
            ForVolume::Wait => {}
            ForVolume::Mismatch(own, claims) => {
                self.tell(&VOLUMES, &volume, Some(own));
                if let Some(claim) = claim {
                    self.tell(&CLAIMS, &claim, Some(claims));
                }
            }
            ForVolume::Released(reclaim) => self.release(side, &volume, reclaim).await?,
            ForVolume::Unbind => {
                let new = written::volume_unbound(&volume);
                if let Some(new) = self.write(side, &VOLUMES, &new, Part::Object).await? {
                    self.volume_phase(side, &new, "Available", "").await?;
                }
            }
        }
        Ok(Next::Done)
    }

    /// The claim that a volume is bound to. Before a volume is let go the API server is asked: the claim may be news.
    async fn claim_of(&self, volume: &Raw) -> Result<Option<Arc<Raw>>, Error> {
        let Some((key, uid)) = claim_of(volume).filter(|(_, uid)| !uid.is_empty()) else {
            return Ok(None);
        };
        let is_it = |claim: &Raw| meta::uid(claim) == uid;
        let known = self.claims.get(key.ns(), &key.name);
        if known.as_deref().is_some_and(is_it) || (known.is_none() && plan::is_let_go(volume)) {
            return Ok(known);
        }
        let live = CLAIMS.get(&self.ctx.client, &key).await?;
        Ok(live.filter(is_it).map(Arc::new))
    }

    async fn release(&self, side: &Side, volume: &Raw, reclaim: Reclaim) -> Result<(), Error> {
        let mut volume = volume.clone();
        if !plan::is_let_go(&volume) {
            match self.volume_phase(side, &volume, "Released", "").await? {
                Some(new) => volume = new,
                None => return Ok(()),
            }
        }
        match reclaim {
            Reclaim::Leave => {}
            Reclaim::Used(told) => self.tell(&VOLUMES, &volume, Some(told)),
            Reclaim::Fail(told) => {
                let failed = phase(&volume) == "Failed";
                if !failed
                    && self
                        .volume_phase(side, &volume, "Failed", &told.message)
                        .await?
                        .is_some()
                {
                    self.tell(&VOLUMES, &volume, Some(told));
                }
            }
        }
        Ok(())
    }

    async fn claim_status(&self, side: &Side, claim: &Raw, phase: &str, volume: Option<&Raw>) -> Result<bool, Error> {
        match written::claim_status(claim, phase, volume) {
            Some(new) => Ok(self.write(side, &CLAIMS, &new, Part::Status).await?.is_some()),
            None => Ok(false),
        }
    }

    /// The volume as it is then; none: it is gone.
    async fn volume_phase(&self, side: &Side, volume: &Raw, phase: &str, message: &str) -> Result<Option<Raw>, Error> {
        match written::volume_phase(volume, phase, message) {
            Some(new) => self.write(side, &VOLUMES, &new, Part::Status).await,
            None => Ok(Some(volume.clone())),
        }
    }

    async fn write(&self, side: &Side, kind: &Rest, object: &Value, part: Part) -> Result<Option<Raw>, Error> {
        let written = kind.replace(&self.ctx.client, object, part).await?;
        if let Some(new) = &written {
            let of_claims = kind.plural == CLAIMS.plural;
            let seen = if of_claims {
                &self.seen_claims
            } else {
                &self.seen_volumes
            };
            seen.wrote(side, meta::revision_number(new));
        }
        Ok(written)
    }

    fn tell(&self, kind: &Rest, object: &Raw, told: Option<Told>) {
        if let Some(told) = told {
            self.recorder
                .event(&kind.reference(object), told.type_, told.reason, told.message);
        }
    }
}
