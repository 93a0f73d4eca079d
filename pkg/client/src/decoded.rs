//! How the objects that informers watch are decoded: from their own text, which kube's watches hand on unread.

use std::borrow::Cow;

use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, policy::v1 as policy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ApiResource;
use kube::core::DynamicResourceScope;
use mk8s_api::codec::json;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
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

/// Whether a volume has no part in where its pod may run: any node makes it, of its own or of what the API server has.
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
    /// The resourceVersion alone: where a watch goes on from.
    metadata: ObjectMeta,
    json: Box<RawValue>,
}

/// The resourceVersion of an object.
fn resource_version(object: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: Option<String>,
    }

    let metadata = json::metadata(object.as_bytes())?;
    serde_json::from_str::<Metadata>(metadata).ok()?.resource_version
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Text {
            metadata: ObjectMeta {
                resource_version: resource_version(json.get()),
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
    pub(crate) fn decode<K: Kind>(&self, view: View) -> serde_json::Result<K> {
        let mut object = K::from_json(self.json.get())?;
        if let (View::Trimmed, Some(trim)) = (view, K::TRIM) {
            trim(&mut object);
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kube::core::WatchEvent;

    use super::*;

    #[test]
    fn a_trimmed_pod_keeps_what_it_asks_of_the_cluster() {
        let json = r#"{"metadata":{"name":"a","resourceVersion":"1","managedFields":[{"manager":"m"}]},
            "spec":{"nodeName":"n","containers":[{"name":"c","env":[{"name":"A","value":"1"}],
            "resources":{"requests":{"cpu":"1"}},"volumeMounts":[{"name":"v","mountPath":"/v"}]}],
            "volumes":[{"name":"v","emptyDir":{}},{"name":"t","projected":{"sources":[]}},
            {"name":"d","persistentVolumeClaim":{"claimName":"d"}}]}}"#;
        let text: Text = serde_json::from_str(json).unwrap();
        let trimmed: core::Pod = text.decode(View::Trimmed).unwrap();
        let whole: core::Pod = text.decode(View::Whole).unwrap();
        let expected = r#"{"metadata":{"name":"a","resourceVersion":"1"},"spec":{"nodeName":"n",
            "containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}],
            "volumes":[{"name":"d","persistentVolumeClaim":{"claimName":"d"}}]}}"#;
        assert_eq!(trimmed, core::Pod::from_json(expected).unwrap());
        assert_eq!(whole, core::Pod::from_json(json).unwrap());
    }

    #[test]
    fn a_resource_version_is_what_the_metadata_says() {
        for (json, version) in [
            (
                r#"{"kind":"A","metadata":{"name":"a","labels":{"resourceVersion":"x"},"resourceVersion":"1"},"spec":{}}"#,
                Some("1"),
            ),
            (
                r#"{"spec":{"metadata":{"resourceVersion":"x"}},"metadata":{"resourceVersion":"1"}}"#,
                Some("1"),
            ),
            (r#"{"spec":{"metadata":{"resourceVersion":"x"}}}"#, None),
            (r#"{"metadata":{}}"#, None),
            (r#"{"metadata":null}"#, None),
            ("{}", None),
            ("1", None),
        ] {
            assert_eq!(resource_version(json).as_deref(), version, "{json}");
        }
    }

    #[test]
    fn a_watch_hands_on_text() {
        let json = r#"{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"7"},"data":{"b":"c"}}}"#;
        let Ok(WatchEvent::Added(text)) = serde_json::from_str::<WatchEvent<Text>>(json) else {
            panic!("an event")
        };
        assert_eq!(text.meta().resource_version.as_deref(), Some("7"));
        let map: core::ConfigMap = text.decode(View::Whole).unwrap();
        assert_eq!(map.data.unwrap()["b"], "c");
    }
}
