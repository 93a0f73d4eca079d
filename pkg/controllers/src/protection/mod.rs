//! What holds data, or says how, or gives addresses, stays while it is used: a finalizer keeps each object of these kinds, which
//! comes off when the object is to go and nobody uses it any more. Admission puts it on, or where it does not, these controllers.
//!
//! What the controllers share. They watch their kind and what uses it; they write finalizers, and of ranges a condition.

pub mod attributes_classes;
pub mod claims;
pub mod service_cidrs;
pub mod volumes;

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use mk8s_client::{Event, Informer, Partial};
use serde_json::Value;

use crate::context::Context;
use crate::driver::{Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

/// A kind that is protected.
struct Guarded {
    /// Empty for the core group.
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    finalizer: &'static str,
}

const CLAIMS: Guarded = Guarded {
    group: "",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    finalizer: mk8s_api::meta::CLAIM_PROTECTION,
};

const VOLUMES: Guarded = Guarded {
    group: "",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    finalizer: mk8s_api::meta::VOLUME_PROTECTION,
};

const ATTRIBUTES_CLASSES: Guarded = Guarded {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    finalizer: mk8s_api::meta::ATTRIBUTES_CLASS_PROTECTION,
};

const SERVICE_CIDRS: Guarded = Guarded {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    finalizer: "networking.k8s.io/service-cidr-finalizer",
};

impl Guarded {
    fn informer(&self, ctx: &Context) -> Informer<Partial> {
        Partial::informer(&ctx.informers, self.group, self.kind, self.plural)
    }

    /// Where the API has a namespace's objects; for objects of the cluster it is empty.
    fn path(&self, namespace: &str) -> String {
        let root = match self.group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        match namespace {
            "" => format!("{root}/{}", self.plural),
            namespace => format!("{root}/namespaces/{namespace}/{}", self.plural),
        }
    }
}

/// When an object that is to go is looked at again, if it is used.
type InUse = Box<dyn Fn(Arc<Partial>) -> BoxFuture<'static, Result<Option<Next>, Error>> + Send + Sync>;

struct Protector {
    ctx: Context,
    guarded: &'static Guarded,
    objects: Informer<Partial>,
    in_use: InUse,
}

/// What is to become of the finalizer.
#[derive(Debug, PartialEq, Eq)]
enum Finalizer {
    Added,
    /// If nobody uses the object.
    Removed,
}

/// Objects from before there was admission of this kind have none.
fn change(meta: &ObjectMeta, finalizer: &str) -> Option<Finalizer> {
    let has = meta.finalizers.iter().flatten().any(|own| own == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Some(Finalizer::Removed),
        (false, false) => Some(Finalizer::Added),
        _ => None,
    }
}

/// The key of an object of which something is to become.
fn key_of(event: &Event<Partial>, guarded: &Guarded) -> Vec<Key> {
    match event {
        Event::Applied { new, .. } if change(&new.metadata, guarded.finalizer).is_some() => vec![Key::of(&**new)],
        _ => Vec::new(),
    }
}

impl Reconcile for Protector {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let finalizer = self.guarded.finalizer;
        let Some(object) = self.objects.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        let Some(change) = change(&object.metadata, finalizer) else {
            return Ok(Next::Done);
        };
        if change == Finalizer::Removed
            && let Some(next) = (self.in_use)(object.clone()).await?
        {
            return Ok(next);
        }
        self.guarded.write(&self.ctx, &object, &change).await?;
        Ok(Next::Done)
    }
}

impl Guarded {
    /// Reads the object whole and writes it back: not every account may patch.
    async fn write(&self, ctx: &Context, object: &Partial, wanted: &Finalizer) -> Result<(), Error> {
        let (key, uid) = (Key::of(object), meta::uid(object));
        let (finalizer, what) = (self.finalizer, || format!("{} {key}", self.kind));
        let path = Request::new(self.path(&key.namespace));
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(format!("{}: {error}", what()));
        let read = path.get(&key.name, &GetParams::default()).map_err(|e| invalid(&e))?;
        let live = ctx.client.request::<Value>(read).await;
        let Some(mut live) = live.tried_if_exists(|| format!("get {}", what()))? else {
            return Ok(());
        };
        let known: Partial = serde_json::from_value(live.clone()).map_err(|e| invalid(&e))?;
        if meta::uid(&known) != uid || change(&known.metadata, finalizer).as_ref() != Some(wanted) {
            return Ok(());
        }
        let mut finalizers = known.metadata.finalizers.unwrap_or_default();
        match wanted {
            Finalizer::Added => finalizers.push(finalizer.to_owned()),
            Finalizer::Removed => finalizers.retain(|own| own != finalizer),
        }
        mk8s_api::meta::set(&mut live, &["metadata", "finalizers"], finalizers);
        let body = live.to_string().into_bytes();
        let write = path.replace(&key.name, &PostParams::default(), body);
        let written = ctx.client.request::<Value>(write.map_err(|e| invalid(&e))?).await;
        written.tried_if_exists(|| format!("update {}", what())).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    pub(super) fn protected(object: Value) -> Partial {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_finalizer_comes_and_goes_with_its_object() {
        let change = |object: Value| change(&protected(json!({"metadata": object})).metadata, "a/b");
        let now = "2026-01-01T00:00:00Z";
        assert_eq!(change(json!({})), Some(Finalizer::Added));
        assert_eq!(change(json!({"finalizers": ["a/b"]})), None);
        assert_eq!(change(json!({"deletionTimestamp": now, "finalizers": ["c/d"]})), None);
        assert_eq!(
            change(json!({"deletionTimestamp": now, "finalizers": ["c/d", "a/b"]})),
            Some(Finalizer::Removed)
        );
    }

    #[test]
    fn paths_are_the_apis() {
        assert_eq!(CLAIMS.path("a"), "/api/v1/namespaces/a/persistentvolumeclaims");
        assert_eq!(VOLUMES.path(""), "/api/v1/persistentvolumes");
        assert_eq!(
            ATTRIBUTES_CLASSES.path(""),
            "/apis/storage.k8s.io/v1/volumeattributesclasses"
        );
    }
}
