//! The kinds that some component watches or reads, and how their objects are decoded from their own text.

use k8s_openapi::api::{
    apps::v1 as apps, authorization::v1 as authorization, autoscaling::v2 as autoscaling, batch::v1 as batch,
    certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    policy::v1 as policy, resource::v1 as resource,
};
use kube::Resource;
use mk8s_api::codec::cut::{Cut, cut};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A typed kind that can be watched, or read from an answer.
pub trait Kind: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static {
    /// An object from its JSON text.
    fn from_json(text: &[u8]) -> serde_json::Result<Self>;

    /// What only the node that runs the object reads of it. See [`View::Packed`].
    const TRIM: Option<Trim<Self>> = None;
}

/// What an object is decoded without.
pub struct Trim<K> {
    unread: &'static [Cut],
    /// Takes away what a look at the object decides.
    more: fn(&mut K),
}

impl<K> Trim<K> {
    /// Of a type that has nothing to take away.
    pub(crate) const NOTHING: Trim<K> = Trim {
        unread: &[],
        more: |_| (),
    };
}

/// How an informer keeps its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// Decoded, and whole.
    Whole,
    /// As the text that their feed holds anyway; decoded when somebody asks, and then without what [`Kind::TRIM`] takes
    /// away. A control plane holds every object of its cluster: decoded, a pod takes five times its text.
    Packed,
}

impl View {
    pub(crate) fn decode<K: Kind>(self, text: &[u8]) -> serde_json::Result<K> {
        let trim = K::TRIM.filter(|_| self == View::Packed);
        let unread = trim.as_ref().map_or(&[][..], |trim| trim.unread);
        let mut object = K::from_json(&cut(text, unread))?;
        // Who writes it back leaves them as they are.
        object.meta_mut().managed_fields = None;
        if let Some(trim) = trim {
            (trim.more)(&mut object);
        }
        Ok(object)
    }
}

macro_rules! kinds {
    ($($kind:ty $(=> $trim:path)?),* $(,)?) => {
        $(impl Kind for $kind {
            fn from_json(text: &[u8]) -> serde_json::Result<Self> {
                serde_json::from_slice(text)
            }

            $(const TRIM: Option<Trim<Self>> = Some($trim);)?
        })*
    };
}

/// The template of pods that a value stands for.
///
/// # Errors
/// It is none.
pub fn pod_template(value: &Value) -> serde_json::Result<core::PodTemplateSpec> {
    // As text, as all objects are decoded: from a value would be another decoder.
    serde_json::from_slice(&serde_json::to_vec(value)?)
}

// Their decoders are made here, and so in the binary once: the components' crates, which do not know each other, would each
// make their own.
kinds![
    apps::ControllerRevision => Trim::NOTHING,
    apps::DaemonSet,
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    authorization::SubjectAccessReview,
    autoscaling::HorizontalPodAutoscaler,
    batch::CronJob,
    batch::Job,
    certificates::CertificateSigningRequest,
    coordination::Lease,
    core::ConfigMap,
    core::Endpoints,
    core::Namespace,
    core::Node,
    core::PersistentVolumeClaim,
    core::Pod => POD,
    core::ReplicationController,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    discovery::EndpointSlice,
    policy::PodDisruptionBudget,
    resource::DeviceClass,
    resource::ResourceClaim,
    resource::ResourceSlice,
];

/// What stays of a pod are its place, its state, and what it asks of the cluster: resources, ports, claims.
const POD: Trim<core::Pod> = Trim {
    unread: &[Cut {
        field: "spec",
        below: &[
            Cut {
                field: "containers",
                below: OF_CONTAINERS,
            },
            Cut {
                field: "initContainers",
                below: OF_CONTAINERS,
            },
            Cut {
                field: "volumes",
                below: &[Cut {
                    field: "projected",
                    below: &[Cut::all("sources")],
                }],
            },
        ],
    }],
    more: |pod| {
        if let Some(volumes) = pod.spec.as_mut().and_then(|spec| spec.volumes.as_mut()) {
            volumes.retain(|volume| !is_of_its_node(volume));
            volumes.shrink_to_fit();
        }
    },
};

const OF_CONTAINERS: &[Cut] = &[
    Cut::all("args"),
    Cut::all("command"),
    Cut::all("env"),
    Cut::all("envFrom"),
    Cut::all("lifecycle"),
    Cut::all("livenessProbe"),
    Cut::all("readinessProbe"),
    Cut::all("startupProbe"),
    Cut::all("volumeMounts"),
];

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trimmed_container_lacks_what_only_its_node_reads() {
        let unread = json!({
            "args": ["a"],
            "command": ["c"],
            "env": [{"name": "A", "value": "1"}],
            "envFrom": [{"configMapRef": {"name": "m"}}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
            "livenessProbe": {"periodSeconds": 1},
            "readinessProbe": {"periodSeconds": 1},
            "startupProbe": {"periodSeconds": 1},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        });
        for (field, value) in unread.as_object().unwrap() {
            let mut container = json!({"name": "c", "image": "i"});
            let pod = |container: &Value| {
                let spec = json!({"containers": [container], "initContainers": [container]});
                json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": spec}).to_string()
            };
            let expected = pod(&container);
            container[field] = value.clone();
            let (text, expected) = (pod(&container), core::Pod::from_json(expected.as_bytes()).unwrap());
            assert_ne!(core::Pod::from_json(text.as_bytes()).unwrap(), expected, "{field}");
            let trimmed: core::Pod = View::Packed.decode(text.as_bytes()).unwrap();
            assert_eq!(trimmed, expected, "{field}");
        }
    }

    #[test]
    fn a_trimmed_pod_keeps_what_it_asks_of_the_cluster() {
        let json = br#"{"metadata":{"name":"a","resourceVersion":"1","managedFields":[{"manager":"m"}]},
            "spec":{"nodeName":"n","containers":[{"name":"c","env":[{"name":"A","value":"1"}],
            "resources":{"requests":{"cpu":"1"}},"volumeMounts":[{"name":"v","mountPath":"/v"}]}],
            "volumes":[{"name":"v","emptyDir":{}},{"name":"t","projected":{"sources":[]}},
            {"name":"d","persistentVolumeClaim":{"claimName":"d"}}]}}"#;
        let trimmed: core::Pod = View::Packed.decode(json).unwrap();
        let whole: core::Pod = View::Whole.decode(json).unwrap();
        let expected = br#"{"metadata":{"name":"a","resourceVersion":"1"},"spec":{"nodeName":"n",
            "containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}],
            "volumes":[{"name":"d","persistentVolumeClaim":{"claimName":"d"}}]}}"#;
        assert_eq!(trimmed, core::Pod::from_json(expected).unwrap());
        let mut expected = core::Pod::from_json(json).unwrap();
        assert!(expected.metadata.managed_fields.take().is_some());
        assert_eq!(whole, expected);
    }
}
