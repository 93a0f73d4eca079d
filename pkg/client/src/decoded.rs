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

    /// Takes away what only the node that runs the object reads of it. See [`View::Trimmed`].
    const TRIM: Option<fn(&mut Self)> = None;
}

/// How much of its objects an informer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum View {
    Whole,
    /// Without what [`Kind::TRIM`] takes away: client-go's `SetTransform`. A control plane holds every object of its
    /// cluster, and two volumes are half of what a pod takes in memory.
    Trimmed,
}

macro_rules! kinds {
    ($($kind:ty $(=> $trim:path)?),* $(,)?) => {
        $(impl Kind for $kind {
            fn from_json(text: &str) -> serde_json::Result<Self> {
                serde_json::from_str(text)
            }

            $(const TRIM: Option<fn(&mut Self)> = Some($trim);)?
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
    core::Pod => trim_pod,
    core::ReplicationController,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    discovery::EndpointSlice,
    policy::PodDisruptionBudget,
];

/// What stays of a pod are its place, its state, and what it asks of the cluster: resources, ports, claims.
fn trim_pod(pod: &mut core::Pod) {
    pod.metadata.managed_fields = None;
    let Some(spec) = &mut pod.spec else { return };
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        container.env = None;
        container.env_from = None;
        container.volume_mounts = None;
    }
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !is_of_its_node(volume));
        volumes.shrink_to_fit();
    }
}

/// Whether a volume is made by the pod's node, of what every node can reach: nobody places a pod by it.
fn is_of_its_node(volume: &core::Volume) -> bool {
    volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.image.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
}

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
    pub(crate) fn decode<K: Kind>(&self, view: View) -> serde_json::Result<Arc<K>> {
        let decode = || {
            let mut object = K::from_json(self.json.get())?;
            if let (View::Trimmed, Some(trim)) = (view, K::TRIM) {
                trim(&mut object);
            }
            Ok(Arc::new(object))
        };
        let (Some(uid), Some(version)) = (&self.metadata.uid, &self.metadata.resource_version) else {
            return decode();
        };
        // Held while decoding: an event reaches all informers at once, and the second one shall not decode it too.
        let mut known = shard(uid).lock();
        if let Some(object) = known.get(view, uid, version) {
            return Ok(object);
        }
        let object = decode()?;
        known.put(view, uid, version, &object);
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

/// The objects that some informer of the process still holds, by kind, view and uid, each in the version decoded last.
#[derive(Default)]
struct Known {
    objects: HashMap<(TypeId, View, Box<str>), Held>,
    /// After so many more decoded ones, those are removed that nobody holds any more: until then they keep their memory.
    until_sweep: usize,
}

struct Held {
    resource_version: Box<str>,
    object: Weak<dyn Any + Send + Sync>,
}

impl Known {
    fn get<K: Send + Sync + 'static>(&self, view: View, uid: &str, version: &str) -> Option<Arc<K>> {
        let held = self.objects.get(&(TypeId::of::<K>(), view, uid.into()))?;
        if *held.resource_version != *version {
            return None;
        }
        held.object.upgrade()?.downcast().ok()
    }

    fn put<K: Send + Sync + 'static>(&mut self, view: View, uid: &str, version: &str, object: &Arc<K>) {
        if self.until_sweep == 0 {
            self.objects.retain(|_, held| held.object.strong_count() > 0);
            self.objects.shrink_to(2 * self.objects.len());
            self.until_sweep = self.objects.len().max(64);
        }
        self.until_sweep -= 1;
        let object: Arc<dyn Any + Send + Sync> = object.clone();
        let held = Held {
            resource_version: version.into(),
            object: Arc::downgrade(&object),
        };
        self.objects.insert((TypeId::of::<K>(), view, uid.into()), held);
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
            WatchEvent::Added(object) => object.decode(View::Whole).unwrap(),
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
    fn a_trimmed_pod_keeps_what_it_asks_of_the_cluster() {
        let json = r#"{"metadata":{"name":"a","uid":"trimmed","resourceVersion":"1","managedFields":[{"manager":"m"}]},
            "spec":{"nodeName":"n","containers":[{"name":"c","env":[{"name":"A","value":"1"}],
            "resources":{"requests":{"cpu":"1"}},"volumeMounts":[{"name":"v","mountPath":"/v"}]}],
            "volumes":[{"name":"v","emptyDir":{}},{"name":"t","projected":{"sources":[]}},
            {"name":"d","persistentVolumeClaim":{"claimName":"d"}}]}}"#;
        let text: Text = serde_json::from_str(json).unwrap();
        let trimmed: Arc<core::Pod> = text.decode(View::Trimmed).unwrap();
        let whole: Arc<core::Pod> = text.decode(View::Whole).unwrap();
        let expected = r#"{"metadata":{"name":"a","uid":"trimmed","resourceVersion":"1"},"spec":{"nodeName":"n",
            "containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}],
            "volumes":[{"name":"d","persistentVolumeClaim":{"claimName":"d"}}]}}"#;
        assert_eq!(*trimmed, core::Pod::from_json(expected).unwrap());
        assert_eq!(
            *whole,
            core::Pod::from_json(json).unwrap(),
            "another informer's view is its own"
        );
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
        known.put(View::Whole, "kept", "1", &kept);
        for index in 0..1000 {
            known.put(View::Whole, &index.to_string(), "1", &Arc::new(ConfigMap::default()));
        }
        assert!(known.objects.len() <= 65, "{}", known.objects.len());
        for _ in 0..100 {
            known.put(View::Whole, "again", "1", &kept);
        }
        assert_eq!(known.objects.len(), 2, "forgotten even where nothing is added");
        assert!(known.get::<ConfigMap>(View::Whole, "kept", "1").is_some());
        assert!(known.get::<ConfigMap>(View::Whole, "999", "1").is_none());
    }
}
