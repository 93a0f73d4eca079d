//! How the objects that informers watch are decoded: from their own text, once in a process, however many informers see
//! them. The master runs several over all pods (controllers, scheduler), each with an identity and so a watch of its own;
//! an object's uid and resourceVersion say that it is the same.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
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
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
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

/// What makes two texts of a kind the same object.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Identity {
    /// Reads an object's text as far as its metadata, which stands near its beginning; an object without is nobody's twin.
    fn of(json: &str) -> Self {
        struct Beginning<'a>(&'a mut Identity);

        impl<'de> Visitor<'de> for Beginning<'_> {
            type Value = ();

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                while let Some(key) = map.next_key::<&str>()? {
                    if key == "metadata" {
                        *self.0 = map.next_value()?;
                        return Ok(());
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(())
            }
        }

        let mut identity = Identity::default();
        // Its error is that the text was not read to its end.
        let _ = serde_json::Deserializer::from_str(json).deserialize_map(Beginning(&mut identity));
        identity
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Identity { uid, resource_version } = Identity::of(json.get());
        let named = |text: &String| !text.is_empty();
        Ok(Text {
            metadata: ObjectMeta {
                uid: uid.filter(named),
                resource_version: resource_version.filter(named),
                ..ObjectMeta::default()
            },
            json,
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
    fn an_identity_is_what_the_metadata_says() {
        let of = |json| {
            let identity = Identity::of(json);
            (
                identity.uid.unwrap_or_default(),
                identity.resource_version.unwrap_or_default(),
            )
        };
        let object =
            r#"{"kind":"A","metadata":{"name":"a","uid":"u","labels":{"uid":"x"},"resourceVersion":"1"},"spec":{}}"#;
        assert_eq!(of(object), ("u".into(), "1".into()));
        assert_eq!(
            of(r#"{"spec":{"metadata":{"uid":"x"}},"metadata":{"uid":"u"}}"#),
            ("u".into(), String::new())
        );
        for without in [
            r#"{"spec":{"metadata":{"uid":"x"}}}"#,
            r#"{"metadata":{}}"#,
            r#"{"metadata":null}"#,
            "{}",
            "1",
        ] {
            assert_eq!(of(without), (String::new(), String::new()), "{without}");
        }
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
