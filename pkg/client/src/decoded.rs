//! How the objects that informers watch are decoded: from their own text, once in a process, however many informers see
//! them. The master runs several over all pods (controllers, scheduler), each with an identity and so a watch of its own;
//! an object's uid and resourceVersion say that it is the same.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock, Weak};

use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, policy::v1 as policy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ApiResource;
use kube::core::DynamicResourceScope;
use parking_lot::Mutex;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::value::RawValue;

/// A typed kind that can be watched.
pub trait Kind: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static {
    /// An object from its JSON text.
    fn from_json(text: &str) -> serde_json::Result<Self>;
}

macro_rules! kinds {
    ($($kind:ty),* $(,)?) => {
        $(impl Kind for $kind {
            fn from_json(text: &str) -> serde_json::Result<Self> {
                serde_json::from_str(text)
            }
        })*
    };
}

// The kinds that some component watches. Their decoders are made here, and so in the binary once: the components' crates,
// which do not know each other, would each make their own.
kinds![
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    batch::Job,
    certificates::CertificateSigningRequest,
    coordination::Lease,
    core::ConfigMap,
    core::Endpoints,
    core::Namespace,
    core::Node,
    core::Pod,
    core::ReplicationController,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    discovery::EndpointSlice,
    policy::PodDisruptionBudget,
];

/// An object of any kind, not decoded yet: kube's lists and watches are in the binary once for it, not once per kind.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// uid and resourceVersion alone.
    metadata: ObjectMeta,
    json: Box<RawValue>,
}

#[derive(serde::Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    metadata: Identity<'a>,
}

/// What makes two texts of a kind the same object.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?;
        let Identified { metadata } = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        let named = |text: Cow<'_, str>| (!text.is_empty()).then(|| text.into_owned());
        Ok(Text {
            metadata: ObjectMeta {
                uid: named(metadata.uid),
                resource_version: named(metadata.resource_version),
                ..ObjectMeta::default()
            },
            json: json.to_owned(),
        })
    }
}

impl Resource for Text {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Text {
    /// The object, decoded now unless some informer has it already.
    pub(crate) fn decode<K: Kind>(&self) -> serde_json::Result<Arc<K>> {
        let (Some(uid), Some(version)) = (&self.metadata.uid, &self.metadata.resource_version) else {
            return Ok(Arc::new(K::from_json(self.json.get())?));
        };
        // Held while decoding: an event reaches all informers at once, and the second one shall not decode it too.
        let mut known = shard(uid).lock();
        if let Some(object) = known.get(uid, version) {
            return Ok(object);
        }
        let object = Arc::new(K::from_json(self.json.get())?);
        known.put(uid, version, &object);
        Ok(object)
    }
}

/// The part of what is known that an object is in: different objects are decoded at the same time.
fn shard(uid: &str) -> &'static Mutex<Known> {
    static SHARDS: LazyLock<[Mutex<Known>; 16]> = LazyLock::new(Default::default);
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    &SHARDS[hasher.finish() as usize % SHARDS.len()]
}

/// The objects that some informer of the process still holds, by kind and uid, each in the version decoded last.
#[derive(Default)]
struct Known {
    objects: HashMap<(TypeId, Box<str>), Held>,
    /// How many there may be before those are removed that nobody holds any more.
    limit: usize,
}

struct Held {
    resource_version: Box<str>,
    object: Weak<dyn Any + Send + Sync>,
}

impl Known {
    fn get<K: Send + Sync + 'static>(&self, uid: &str, version: &str) -> Option<Arc<K>> {
        let held = self.objects.get(&(TypeId::of::<K>(), uid.into()))?;
        if *held.resource_version != *version {
            return None;
        }
        held.object.upgrade()?.downcast().ok()
    }

    fn put<K: Send + Sync + 'static>(&mut self, uid: &str, version: &str, object: &Arc<K>) {
        if self.objects.len() >= self.limit {
            self.objects.retain(|_, held| held.object.strong_count() > 0);
            self.limit = (2 * self.objects.len()).max(64);
        }
        let object: Arc<dyn Any + Send + Sync> = object.clone();
        let held = Held {
            resource_version: version.into(),
            object: Arc::downgrade(&object),
        };
        self.objects.insert((TypeId::of::<K>(), uid.into()), held);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::core::WatchEvent;

    use super::*;

    fn decoded<K: Kind>(kind: &str, uid: &str, version: &str) -> Arc<K> {
        let text = format!(
            r#"{{"type":"ADDED","object":{{"apiVersion":"v1","kind":"{kind}","metadata":{{"name":"a","resourceVersion":"{version}","uid":"{uid}"}}}}}}"#
        );
        match serde_json::from_str::<WatchEvent<Text>>(&text).unwrap() {
            WatchEvent::Added(object) => object.decode().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_version_of_an_object_is_decoded_once() {
        let first = decoded::<ConfigMap>("ConfigMap", "u", "1");
        assert!(Arc::ptr_eq(&first, &decoded("ConfigMap", "u", "1")));
        assert!(!Arc::ptr_eq(&first, &decoded("ConfigMap", "u", "2")), "another version");
        assert!(!Arc::ptr_eq(&first, &decoded("ConfigMap", "v", "1")), "another object");
        let secret = decoded::<Secret>("Secret", "u", "1");
        assert_eq!(secret.metadata.name.as_deref(), Some("a"), "another kind");
        let unnamed = decoded::<ConfigMap>("ConfigMap", "", "1");
        assert!(!Arc::ptr_eq(&unnamed, &decoded("ConfigMap", "", "1")), "no uid");
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut known = Known::default();
        let kept = Arc::new(ConfigMap::default());
        known.put("kept", "1", &kept);
        for index in 0..1000 {
            known.put(&index.to_string(), "1", &Arc::new(ConfigMap::default()));
        }
        assert!(known.objects.len() <= 64, "{}", known.objects.len());
        assert!(known.get::<ConfigMap>("kept", "1").is_some());
        assert!(known.get::<ConfigMap>("999", "1").is_none());
    }
}
