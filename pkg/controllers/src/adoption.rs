//! Which dependents belong to an owner: those it manages, minus those that its selector lost, plus orphans that it selects.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use mk8s_client::{Api, Event, Kind};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Tried};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::selecting::Selecting;

/// The owner of kind `O` that manages an object.
pub fn manager<O: kube::Resource<DynamicType = ()>>(object: &impl kube::Resource) -> Option<Key> {
    let owner = meta::controller_of_kind::<O, _>(object)?;
    Some(Key::new(meta::namespace(object), &owner.name))
}

/// Whom the event of a dependent concerns: who manages it, who did before, and who would adopt what is on offer now.
pub fn owners<O, K>(event: &Event<K>, owners: &Selecting<O>) -> Vec<Key>
where
    O: Kind + kube::Resource<DynamicType = ()>,
    K: Kind,
{
    let mut keys: Vec<Key> = manager::<O>(&**event.object()).into_iter().collect();
    let Event::Applied { old, new } = event else {
        return keys;
    };
    let before = old.as_deref().and_then(manager::<O>);
    keys.extend(before.filter(|before| Some(before) != keys.first()));
    if is_offered(old.as_deref(), &**new) {
        keys.extend(adopters(&**new, owners));
    }
    keys
}

/// Is it an orphan that was none before, or none with these labels? What else happens to it is nothing to those who did not adopt it then.
fn is_offered<K: kube::Resource>(old: Option<&K>, new: &K) -> bool {
    let is_orphan = meta::controller_of(new).is_none() && !meta::deleting(new);
    let same = |old: &K| {
        meta::uid(old) == meta::uid(new) && meta::labels(old) == meta::labels(new) && meta::controller_of(old).is_none()
    };
    is_orphan && !old.is_some_and(same)
}

/// Those who would adopt an orphan.
fn adopters<O: Kind>(orphan: &impl kube::Resource, owners: &Selecting<O>) -> Vec<Key> {
    if meta::labels(orphan).is_empty() {
        return Vec::new();
    }
    let selecting = owners.who(orphan).filter(|(_, selector)| !selector.selects_all());
    selecting.map(|(owner, _)| Key::of(&*owner)).collect()
}

/// What is to be done about a dependent.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Keep,
    /// The owner takes it.
    Adopt,
    /// The owner lets it go.
    Release,
    /// None of the owner's business.
    Ignore,
}

/// Decides about one dependent.
pub fn decide<O: kube::Resource, K: kube::Resource>(
    owner: &O,
    selector: &Selector,
    object: &K,
    adoptable: bool,
) -> Claim {
    let selected = selector.matches(meta::labels(object));
    match meta::controller_of(object) {
        _ if meta::namespace(object) != meta::namespace(owner) => Claim::Ignore,
        Some(other) if other.uid != meta::uid(owner) => Claim::Ignore,
        Some(_) if selected => Claim::Keep,
        Some(_) if meta::deleting(owner) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if meta::deleting(owner) || meta::deleting(object) || !selected || !adoptable => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// What may be a dependent of the owner: what it manages, and orphans in its namespace that may have these labels.
pub fn candidates<K: Kind>(all: &Owned<K>, owner: &impl kube::Resource, labels: &LabelSelector) -> Vec<Arc<K>> {
    let mut found = all.by(owner);
    let required = labels.match_labels.clone().unwrap_or_default();
    found.extend(all.orphans(meta::namespace(owner), &required));
    found
}

/// The dependents that are the owner's, after adopting and releasing. Before the first adoption the API server itself is asked whether
/// the owner still exists and is not being deleted: its informer may lag. What is adopted gets the finalizer too.
pub async fn claim<O, K>(
    ctx: &Context,
    owner: &O,
    labels: &LabelSelector,
    candidates: Vec<Arc<K>>,
    adoptable: fn(&K) -> bool,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    K: Kind + Debug + kube::Resource<Scope = NamespaceResourceScope>,
{
    let (api, selector) = (ctx.api::<K>(meta::namespace(owner)), meta::selector(labels)?);
    let mut claimed = Vec::with_capacity(candidates.len());
    let mut may_adopt = None;
    for object in candidates {
        match decide(owner, &selector, &*object, adoptable(&object)) {
            Claim::Keep => claimed.push(object),
            Claim::Ignore => {}
            Claim::Release => {
                let patch = json!({"metadata": {
                    "uid": meta::uid(&*object),
                    "ownerReferences": [{"$patch": "delete", "uid": meta::uid(owner)}],
                }});
                change(&api, &*object, patch, "release").await?;
            }
            Claim::Adopt => {
                let may_adopt = match may_adopt {
                    Some(known) => known,
                    None => *may_adopt.insert(is_there(ctx, owner).await?),
                };
                if !may_adopt {
                    continue;
                }
                let mut patch = json!({"metadata": {
                    "uid": meta::uid(&*object),
                    "ownerReferences": [meta::owner_reference(owner)],
                }});
                if let Some(finalizer) = finalizer {
                    patch["metadata"]["finalizers"] = json!([finalizer]);
                }
                if let Some(adopted) = change(&api, &*object, patch, "adopt").await? {
                    claimed.push(Arc::new(adopted));
                }
            }
        }
    }
    Ok(claimed)
}

async fn is_there<O>(ctx: &Context, owner: &O) -> Result<bool, Error>
where
    O: Kind + kube::Resource<Scope = NamespaceResourceScope>,
{
    let live = ctx.api::<O>(meta::namespace(owner)).get_opt(meta::name(owner)).await;
    let live = live.tried(|| format!("get {} {}", O::kind(&()), Key::of(owner)))?;
    Ok(live.is_some_and(|live| meta::uid(&live) == meta::uid(owner) && !meta::deleting(&live)))
}

async fn change<K>(api: &Api<K>, object: &K, patch: serde_json::Value, verb: &str) -> Result<Option<K>, Error>
where
    K: Kind + Debug,
{
    let name = meta::name(object);
    let action = || format!("{verb} {} {}/{name}", K::kind(&()), meta::namespace(object));
    let done = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    let done = done.tried_if_exists(action)?;
    done.map(|changed| changed.object().tried(action)).transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn a_manager_of_another_group_is_another_kind() {
        let managed_by = |api_version: &str, kind: &str| -> Pod {
            let owner = json!({"apiVersion": api_version, "kind": kind, "name": "x", "uid": "u", "controller": true});
            serde_json::from_value(json!({"metadata": {"namespace": "d", "ownerReferences": [owner]}})).unwrap()
        };
        let key = Some(Key::new("d", "x"));
        assert_eq!(manager::<Job>(&managed_by("batch/v1", "Job")), key);
        assert_eq!(manager::<Job>(&managed_by("batch/v1beta1", "Job")), key);
        assert_eq!(manager::<Job>(&managed_by("batch.volcano.sh/v1", "Job")), None);
        assert_eq!(manager::<Job>(&managed_by("v1", "Job")), None);
        assert_eq!(manager::<ReplicaSet>(&managed_by("batch/v1", "Job")), None);
        assert_eq!(manager::<Pod>(&managed_by("v1", "Pod")), key);
    }

    #[test]
    fn an_orphan_is_offered_when_it_becomes_one_or_has_other_labels() {
        let pod = |uid: &str, label: &str, manager: Option<&str>, deleted: Option<&str>| -> Pod {
            let refs: Vec<_> = manager
                .iter()
                .map(|kind| json!({"apiVersion": "v1", "kind": kind, "name": "x", "uid": "x", "controller": true}))
                .collect();
            let metadata =
                json!({"uid": uid, "labels": {"app": label}, "ownerReferences": refs, "deletionTimestamp": deleted});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let orphan = |label: &str| pod("p", label, None, None);
        for (old, new, expected) in [
            (None, orphan("a"), true),
            (Some(orphan("a")), orphan("a"), false),
            (Some(orphan("b")), orphan("a"), true),
            (Some(pod("q", "a", None, None)), orphan("a"), true),
            (Some(pod("p", "a", Some("Any"), None)), orphan("a"), true),
            (Some(orphan("b")), pod("p", "a", Some("Any"), None), false),
            (None, pod("p", "a", None, Some("2024-01-01T00:00:00Z")), false),
        ] {
            assert_eq!(is_offered(old.as_ref(), &new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn dependents_follow_manager_and_selector() {
        let owner = |deleting: bool| -> ReplicaSet {
            let at = deleting.then_some("2024-01-01T00:00:00Z");
            serde_json::from_value(json!({"metadata": {"name": "rs", "uid": "rs", "deletionTimestamp": at}})).unwrap()
        };
        let pod = |manager: Option<&str>, app: &str| -> Pod {
            let refs: Vec<_> = manager
                .iter()
                .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}))
                .collect();
            serde_json::from_value(json!({"metadata": {"labels": {"app": app}, "ownerReferences": refs}})).unwrap()
        };
        let selector = Selector::from_iter([("app", "web")]);
        let mut elsewhere = pod(Some("rs"), "web");
        elsewhere.metadata.namespace = Some("other".to_owned());
        assert_eq!(decide(&owner(false), &selector, &elsewhere, true), Claim::Ignore);
        for (deleting, manager, app, expected) in [
            (false, Some("rs"), "web", Claim::Keep),
            (false, Some("rs"), "other", Claim::Release),
            (true, Some("rs"), "other", Claim::Ignore),
            (false, Some("else"), "web", Claim::Ignore),
            (false, None, "web", Claim::Adopt),
            (false, None, "other", Claim::Ignore),
            (true, None, "web", Claim::Ignore),
        ] {
            assert_eq!(
                decide(&owner(deleting), &selector, &pod(manager, app), true),
                expected,
                "{manager:?} {app}"
            );
        }
    }
}
