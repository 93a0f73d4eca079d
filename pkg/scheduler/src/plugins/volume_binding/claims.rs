//! A pod's claims, and what becomes of each on a node: it has its volume, gets one of those that are there, or one is made.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::cluster::{Capacity, Claim, Class, Cluster, NodeInfo, Pinned, Places, Shelf, Volume, Volumes};
use crate::framework::Objection;
use crate::pod::PodInfo;
use crate::pod_volumes::ClaimUse;

/// See the module. Worked out once for all nodes.
pub struct Claims<'a> {
    places: &'a Places,
    /// The volumes of claims that are bound; none: it is not there.
    bound: SmallVec<[Option<&'a Volume>; 2]>,
    /// Those that are to have a volume made for a node that is named already.
    selected: SmallVec<[Unbound<'a>; 1]>,
    /// All others without a volume, the smallest first.
    free: SmallVec<[Unbound<'a>; 2]>,
}

/// A claim without a volume that waits for its first pod.
struct Unbound<'a> {
    key: &'a str,
    claim: &'a Claim,
    class: &'a Class,
    /// A volume that waits for this claim.
    waiting: Option<&'a Volume>,
    shelf: Option<&'a Shelf>,
    room: Room<'a>,
}

/// The room for a volume that is to be made.
enum Room<'a> {
    /// Nobody tells, or nobody asks.
    Any,
    /// So many bytes of it have to be there.
    Of(i64, Option<&'a Pinned<Arc<Capacity>>>),
}

/// What is decided for claims: the volumes that they get, none where one is to be made.
pub type Decided<'a> = SmallVec<[(&'a str, Option<&'a Arc<str>>); 2]>;

/// Why a node is wrong.
#[derive(Default)]
struct Conflicts {
    elsewhere: bool,
    nothing_to_bind: bool,
    no_room: bool,
    missing: bool,
}

impl Conflicts {
    fn objection(&self) -> Option<Objection> {
        let all = [
            (self.elsewhere, "node(s) didn't match PersistentVolume's node affinity"),
            (
                self.nothing_to_bind,
                "node(s) didn't find available persistent volumes to bind",
            ),
            (self.no_room, "node(s) did not have enough free storage"),
            (
                self.missing,
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            ),
        ];
        let reasons: SmallVec<[Cow<'static, str>; 1]> = all
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, reason)| reason.into())
            .collect();
        let unresolvable = true;
        (!reasons.is_empty()).then_some(Objection {
            reasons,
            unresolvable,
            failed: false,
            unfinished: false,
        })
    }
}

impl<'a> Claims<'a> {
    /// None: the pod has no claims.
    pub fn of(pod: &'a PodInfo, cluster: &'a Cluster) -> Result<Option<Self>, Objection> {
        let uses = pod.volumes.as_ref().map_or(&[][..], |volumes| &volumes.claims);
        if uses.is_empty() {
            return Ok(None);
        }
        let volumes = &cluster.volumes;
        // All are looked at first, and then what class they are of.
        let mut found: SmallVec<[(&str, &Claim); 4]> = SmallVec::new();
        for own in uses {
            let claim = usable(pod, own, volumes)?;
            if found.iter().all(|(key, _)| **key != *own.key) {
                found.push((&own.key, claim));
            }
        }
        let mut all = Claims {
            places: &volumes.places,
            bound: SmallVec::new(),
            selected: SmallVec::new(),
            free: SmallVec::new(),
        };
        let mut immediate = false;
        for (key, claim) in found {
            match Unbound::of(key, claim, volumes) {
                _ if claim.bound => all.bound.push(volumes.volume(&claim.volume)),
                None => immediate = true,
                Some(own) if claim.node().is_some() => all.selected.push(own),
                Some(own) => all.free.push(own),
            }
        }
        if immediate {
            let why = "pod has unbound immediate PersistentVolumeClaims";
            return Err(Objection::unresolvable(why));
        }
        all.free.sort_by_key(|own| own.claim.want.size);
        Ok(Some(all))
    }

    /// What becomes of the claims on a node.
    pub fn on(&self, node: &NodeInfo) -> Result<Decided<'a>, Objection> {
        let (mut conflicts, mut decided) = (Conflicts::default(), Decided::new());
        for volume in &self.bound {
            conflicts.missing = volume.is_none();
            conflicts.elsewhere = volume.is_some_and(|volume| !volume.is_near(node));
            if conflicts.missing || conflicts.elsewhere {
                break;
            }
        }
        self.unbound_on(node, &mut conflicts, &mut decided);
        match conflicts.objection() {
            Some(objection) => Err(objection),
            None => Ok(decided),
        }
    }

    fn unbound_on(&self, node: &NodeInfo, conflicts: &mut Conflicts, decided: &mut Decided<'a>) {
        if self.selected.iter().any(|own| own.claim.node() != Some(&*node.name)) {
            conflicts.nothing_to_bind = true;
            return;
        }
        let mut taken: SmallVec<[&str; 2]> = SmallVec::new();
        let mut to_make: SmallVec<[&Unbound<'a>; 2]> = self.selected.iter().collect();
        for own in &self.free {
            match own.volume(node, self.places, &taken) {
                Some(volume) => {
                    taken.push(&volume.name);
                    decided.push((own.key, Some(&volume.name)));
                }
                None => to_make.push(own),
            }
        }
        for own in to_make {
            if !own.class.provisions() || !own.class.allows(&node.facts.labels) {
                conflicts.nothing_to_bind = true;
                return;
            }
            if !own.room.suffices(node, self.places) {
                conflicts.no_room = true;
                return;
            }
            decided.push((own.key, None));
        }
    }
}

impl<'a> Unbound<'a> {
    /// None: it should have its volume by now.
    fn of(key: &'a str, claim: &'a Claim, volumes: &'a Volumes) -> Option<Self> {
        let class = volumes.class(&claim.class).filter(|class| class.delayed)?;
        if !claim.volume.is_empty() {
            return None;
        }
        let room = match claim.size.filter(|_| volumes.tracks_room(class)) {
            Some(size) => Room::Of(size, volumes.room(&claim.class)),
            None => Room::Any,
        };
        Some(Unbound {
            key,
            claim,
            class,
            waiting: volumes.waiting_volume(key, claim),
            shelf: volumes.shelf(&claim.class),
            room,
        })
    }

    /// The volume that it gets on a node, but for those that are taken. One that waits for it is the only one.
    fn volume(&self, node: &NodeInfo, places: &Places, taken: &[&str]) -> Option<&'a Volume> {
        if let Some(own) = self.waiting.filter(|own| !taken.contains(&&*own.name)) {
            return own.is_near_to(&node.facts.labels).then_some(own);
        }
        let smallest = self.shelf?.smallest(&self.claim.want, node, places, taken);
        smallest.map(|volume| &**volume)
    }
}

impl Room<'_> {
    fn suffices(&self, node: &NodeInfo, places: &Places) -> bool {
        match self {
            Room::Any => true,
            Room::Of(size, room) => {
                room.is_some_and(|room| room.near(node.id, places).any(|own| own.gives(*size, node)))
            }
        }
    }
}

/// A claim of a pod, if it is one that the pod may use.
fn usable<'a>(pod: &PodInfo, own: &ClaimUse, volumes: &'a Volumes) -> Result<&'a Claim, Objection> {
    let name = own.name();
    let Some(claim) = volumes.claim(&own.key) else {
        return Err(match own.ephemeral {
            false => crate::plugins::volume_zone::no_claim(name),
            true => Objection::unresolvable(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
            )),
        });
    };
    if claim.lost {
        return Err(Objection::unresolvable(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
            claim.volume
        )));
    }
    if claim.deleting {
        let why = format!("persistentvolumeclaim {name:?} is being deleted");
        return Err(Objection::unresolvable(why));
    }
    if own.ephemeral && claim.controller.as_deref() != Some(&*pod.uid) {
        return Err(Objection::unresolvable(format!(
            "PVC {} was not created for pod {} (pod is not owner)",
            own.key,
            pod.key()
        )));
    }
    Ok(claim)
}
