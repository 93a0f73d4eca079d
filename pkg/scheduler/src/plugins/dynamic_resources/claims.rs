//! Which claims a pod has, and whether something is wrong with one of them.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{DeviceRequest, ResourceClaim};
use smallvec::SmallVec;

use super::ask::key;
use crate::cluster::Claims;
use crate::cluster::claims::allocation;
use crate::framework::Objection;
use crate::pod::{ClaimName, PodClaim, PodInfo};

/// A pod's claims, in the order in which it names them.
pub type Named<'a> = SmallVec<[&'a Arc<ResourceClaim>; 2]>;

/// The claims of a pod.
///
/// # Errors
/// One of them is missing, is going, or is not the pod's: in upstream's words.
pub fn named<'a>(pod: &PodInfo, claims: &'a Claims) -> Result<Named<'a>, String> {
    let all = pod.wishes().claims.iter();
    all.filter_map(|own| one(pod, own, claims).transpose()).collect()
}

/// Those of a pod's claims that are there, whatever is wrong with the others.
pub fn those_there<'a>(pod: &PodInfo, claims: &'a Claims) -> impl Iterator<Item = &'a Arc<ResourceClaim>> {
    let all = pod.wishes().claims.iter();
    all.filter_map(|own| match &own.claim {
        ClaimName::Given(name) | ClaimName::Made(name) => claims.get(pod.namespace(), name),
        ClaimName::NotNeeded | ClaimName::NotMade | ClaimName::Unknown => None,
    })
}

/// None: it needs none.
fn one<'a>(pod: &PodInfo, own: &PodClaim, claims: &'a Claims) -> Result<Option<&'a Arc<ResourceClaim>>, String> {
    let (name, made) = match &own.claim {
        ClaimName::Given(name) => (name, false),
        ClaimName::Made(name) => (name, true),
        ClaimName::NotNeeded => return Ok(None),
        ClaimName::NotMade => {
            return Err(format!("pod \"{}\": ResourceClaim not created yet", pod.key()));
        }
        ClaimName::Unknown => {
            let (pod, name) = (pod.key(), &own.name);
            return Err(format!(
                "pod \"{pod}\", spec.resourceClaim \"{name}\": none of the supported fields are set"
            ));
        }
    };
    let claim = claims
        .get(pod.namespace(), name)
        .ok_or_else(|| format!("could not find ResourceClaim \"{}/{name}\"", pod.namespace()))?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("resourceclaim \"{name}\" is being deleted"));
    }
    if made && owner(claim) != Some(&pod.uid) {
        let (claim, pod) = (key(claim), pod.key());
        return Err(format!(
            "ResourceClaim {claim} was not created for pod {pod} (pod is not owner)"
        ));
    }
    Ok(Some(claim))
}

/// The uid of what a claim was made for.
fn owner(claim: &ResourceClaim) -> Option<&str> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    Some(owners.find(|owner| owner.controller == Some(true))?.uid.as_str())
}

/// Whether a pod holds the claim.
pub fn is_reserved_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    holders(claim).any(|uid| *uid == *pod.uid)
}

/// Whether no other pod holds it.
pub fn is_reserved_only_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    holders(claim).all(|uid| *uid == *pod.uid)
}

fn holders(claim: &ResourceClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    let holders = status
        .and_then(|status| status.reserved_for.as_ref())
        .into_iter()
        .flatten();
    holders.map(|holder| holder.uid.as_str())
}

/// Whether some request of a claim has a list of choices.
pub fn has_choices(claim: &ResourceClaim) -> bool {
    requests(claim).any(|request| request.exactly.is_none())
}

/// Whether a claim has no requests.
pub fn asks_nothing(claim: &ResourceClaim) -> bool {
    requests(claim).next().is_none()
}

fn requests(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequest> {
    let devices = claim.spec.devices.as_ref();
    devices
        .into_iter()
        .flat_map(|devices| devices.requests.iter().flatten())
}

/// Whether a claim without devices can be given some, wherever.
pub fn check(claim: &ResourceClaim, claims: &Claims) -> Result<(), Objection> {
    if claims.is_pending(claim) {
        let key = key(claim);
        return Err(Objection::unresolvable(format!(
            "resource claim {key} is in the process of being allocated"
        )));
    }
    for request in requests(claim) {
        let choices = request.first_available.as_deref().unwrap_or_default();
        if let Some(own) = &request.exactly {
            check_class(&own.device_class_name, &request.name, claims)?;
        } else if choices.is_empty() {
            let (key, name) = (key(claim), &request.name);
            return Err(Objection::unresolvable(format!(
                "resource claim {key}, request {name}: unknown request type"
            )));
        }
        for choice in choices.iter().filter(|_| request.exactly.is_none()) {
            check_class(
                &choice.device_class_name,
                &format!("{}/{}", request.name, choice.name),
                claims,
            )?;
        }
    }
    Ok(())
}

fn check_class(class: &str, request: &str, claims: &Claims) -> Result<(), Objection> {
    if class.is_empty() {
        return Err(Objection::failed(format!(
            "request {request}: unsupported request type"
        )));
    }
    match claims.class(class) {
        Some(_) => Ok(()),
        None => Err(Objection::unresolvable(format!(
            "request {request}: device class {class} does not exist"
        ))),
    }
}

/// Whether a claim's change may help a pod: its own claim is otherwise, or somebody gave something back.
pub fn helps(pod: &PodInfo, before: Option<&ResourceClaim>, now: &ResourceClaim, claims: &Claims) -> bool {
    let Ok(own) = named(pod, claims) else { return false };
    let given_back = before.is_some_and(|before| allocation(before).is_some()) && allocation(now).is_none();
    let uses = || own.iter().any(|claim| claim.metadata.uid == now.metadata.uid);
    given_back || (uses() && before.is_none_or(|before| before.status != now.status))
}
