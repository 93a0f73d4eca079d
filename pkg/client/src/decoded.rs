//! How the objects that informers watch are decoded: from their own text, once in a process, however many informers see
//! them. The master runs several over all pods (controllers, scheduler), each with an identity and so a watch of its own;
//! an object's uid and resourceVersion say that it is the same.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock, Weak};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::Mutex;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::value::RawValue;

use crate::informer::Kind;

/// A shared object. Decodes through `RawValue`, so that each kind has one decoder in the binary: kube's lists and watch
/// events would each have another around it.
#[derive(Clone, Debug)]
pub(crate) struct Decoded<K>(pub Arc<K>);

impl<'de, K: Kind> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?;
        object(text.get()).map(Decoded).map_err(D::Error::custom)
    }
}

impl<K: Kind> Resource for Decoded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.0).meta_mut()
    }
}

/// What makes two texts of a kind the same object.
#[derive(serde::Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    metadata: Version<'a>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

fn object<K: Kind>(text: &str) -> Result<Arc<K>, serde_json::Error> {
    let Identity { metadata } = serde_json::from_str::<Identity<'_>>(text)?;
    // Held while decoding: an event reaches all informers at once, and the second one shall not decode it too.
    let mut known = shard(&metadata.uid).lock();
    if let Some(object) = known.get::<K>(&metadata) {
        return Ok(object);
    }
    let object = Arc::new(serde_json::from_str::<K>(text)?);
    known.put(&metadata, &object);
    Ok(object)
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
    fn get<K: Kind>(&self, version: &Version<'_>) -> Option<Arc<K>> {
        let held = self.objects.get(&(TypeId::of::<K>(), version.uid.as_ref().into()))?;
        if *held.resource_version != *version.resource_version {
            return None;
        }
        held.object.upgrade()?.downcast().ok()
    }

    fn put<K: Kind>(&mut self, version: &Version<'_>, object: &Arc<K>) {
        if version.uid.is_empty() || version.resource_version.is_empty() {
            return;
        }
        if self.objects.len() >= self.limit {
            self.objects.retain(|_, held| held.object.strong_count() > 0);
            self.limit = (2 * self.objects.len()).max(64);
        }
        let object: Arc<dyn Any + Send + Sync> = object.clone();
        let held = Held {
            resource_version: version.resource_version.as_ref().into(),
            object: Arc::downgrade(&object),
        };
        self.objects
            .insert((TypeId::of::<K>(), version.uid.as_ref().into()), held);
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
        match serde_json::from_str::<WatchEvent<Decoded<K>>>(&text).unwrap() {
            WatchEvent::Added(object) => object.0,
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
        let version = |uid: &str| Version {
            uid: uid.to_string().into(),
            resource_version: "1".into(),
        };
        let kept = Arc::new(ConfigMap::default());
        known.put(&version("kept"), &kept);
        for index in 0..1000 {
            known.put(&version(&index.to_string()), &Arc::new(ConfigMap::default()));
        }
        assert!(known.objects.len() <= 64, "{}", known.objects.len());
        assert!(known.get::<ConfigMap>(&version("kept")).is_some());
        assert!(known.get::<ConfigMap>(&version("999")).is_none());
    }
}
