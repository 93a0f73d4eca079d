//! The parts of objects that have subresources of their own, besides `status`: what a write through one may change.

use serde_json::Value;

use super::Strategy;
use crate::{defaults, meta, validation};

/// A Namespace's.
pub static FINALIZE: Strategy = Strategy {
    prepare: |new, old| only(new, old, &[&["metadata"], &["spec", "finalizers"]]),
    validate: validation::namespace_finalize,
};

/// A certificate request's conditions.
pub static APPROVAL: Strategy = Strategy {
    prepare: |new, old| {
        defaults::signing_request_approval(new, old);
        only(new, old, &[&["metadata"], &["status", "conditions"]]);
    },
    validate: validation::signing_request_approval,
};

/// A Pod's.
pub static EPHEMERAL_CONTAINERS: Strategy = Strategy {
    prepare: |new, old| only(new, old, &[&["spec", "ephemeralContainers"]]),
    validate: validation::pod_ephemeral_containers,
};

/// What a Pod's containers ask for.
pub static RESIZE: Strategy = Strategy {
    prepare: resize,
    validate: validation::pod_resize,
};

/// Of all that is new, some places alone.
fn only(new: &mut Value, old: &Value, places: &[&[&str]]) {
    let made = std::mem::replace(new, old.clone());
    for place in places {
        match meta::at(&made, place) {
            Some(own) => meta::set(new, place, own.clone()),
            None => drop(meta::remove(new, place)),
        }
    }
}

fn containers<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    meta::items(pod, &["spec", list])
}

/// Containers that are others than before stay as they were sent, to be refused: no one's resources are theirs.
fn resize(new: &mut Value, old: &Value) {
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    const FIELDS: [&str; 2] = ["resources", "resizePolicy"];
    if LISTS
        .iter()
        .any(|list| containers(new, list).len() != containers(old, list).len())
    {
        return;
    }
    let made = std::mem::replace(new, old.clone());
    for list in LISTS {
        let (sent, before) = (containers(&made, list), containers(old, list));
        if sent
            .iter()
            .zip(before)
            .any(|(sent, old)| sent.get("name") != old.get("name"))
        {
            meta::set(new, &["spec", list], sent.to_vec());
            continue;
        }
        for (container, sent) in meta::items_mut(new, &["spec", list]).iter_mut().zip(sent) {
            for field in FIELDS {
                match sent.get(field) {
                    Some(own) => meta::set(container, &[field], own.clone()),
                    None => drop(meta::remove(container, &[field])),
                }
            }
        }
    }
}
