//! What a pod may ask for that this node cannot do yet: such a pod waits here, Pending, and an event names the field. A row
//! goes when the node learns it.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};

use crate::agent::Names;
use crate::pod;

/// Each object that a pod names is a watch of the node's; upstream sets no bound.
const MOST_OBJECTS: usize = 1000;

/// Of those that come to a pod that runs: it goes on without them.
pub const EPHEMERAL_CONTAINERS: &str = "ephemeral containers: not in this version of mk8s";

/// Of a field that [`field`] names.
pub fn message(field: &str) -> String {
    format!("{field}: not in this version of mk8s")
}

type OfPod = (&'static str, fn(&PodSpec) -> bool);
type OfContainer = (&'static str, fn(&Container) -> bool);
type OfVolume = (&'static str, fn(&Volume) -> bool);

const OF_POD: [OfPod; 4] = [
    ("hostUsers", |spec| spec.host_users == Some(false)),
    ("resourceClaims", |spec| {
        spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
    }),
    ("resources", |spec| spec.resources.is_some()),
    ("securityContext.windowsOptions", |spec| {
        let context = spec.security_context.as_ref();
        context.is_some_and(|context| context.windows_options.is_some())
    }),
];

const OF_CONTAINER: [OfContainer; 5] = [
    ("volumeDevices", |own| {
        own.volume_devices.as_ref().is_some_and(|d| !d.is_empty())
    }),
    ("resources.limits[hugepages-]", |own| {
        let limits = own
            .resources
            .iter()
            .flat_map(|resources| resources.limits.iter().flatten());
        limits.into_iter().any(|(name, _)| name.starts_with("hugepages-"))
    }),
    ("volumeMounts.recursiveReadOnly", |own| {
        let mut mounts = own.volume_mounts.iter().flatten();
        mounts.any(|mount| mount.recursive_read_only.as_deref() == Some("Enabled"))
    }),
    ("securityContext.procMount", |own| {
        let context = own.security_context.as_ref();
        context.is_some_and(|context| context.proc_mount.as_deref() == Some("Unmasked"))
    }),
    ("securityContext.windowsOptions", |own| {
        let context = own.security_context.as_ref();
        context.is_some_and(|context| context.windows_options.is_some())
    }),
];

/// Where the host confines processes by their labels; elsewhere labels say nothing, as upstream has it.
const OF_POD_BY_SELINUX: [OfPod; 2] = [
    ("securityContext.seLinuxOptions", |spec| {
        let context = spec.security_context.as_ref();
        context.is_some_and(|context| context.se_linux_options.is_some())
    }),
    ("securityContext.seLinuxChangePolicy", |spec| {
        let context = spec.security_context.as_ref();
        context.is_some_and(|context| context.se_linux_change_policy.is_some())
    }),
];
const OF_CONTAINER_BY_SELINUX: [OfContainer; 1] = [("securityContext.seLinuxOptions", |own| {
    let context = own.security_context.as_ref();
    context.is_some_and(|context| context.se_linux_options.is_some())
})];

const OF_VOLUME: [OfVolume; 3] = [
    ("emptyDir.medium", |volume| {
        let medium = volume.empty_dir.as_ref().and_then(|source| source.medium.as_deref());
        medium.is_some_and(|medium| medium.starts_with("HugePages"))
    }),
    ("projected.sources", |volume| {
        let sources = volume.projected.iter().flat_map(|own| own.sources.iter().flatten());
        sources
            .into_iter()
            .any(|source| source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some())
    }),
    ("", |volume| {
        volume.empty_dir.is_none()
            && volume.host_path.is_none()
            && volume.config_map.is_none()
            && volume.secret.is_none()
            && volume.downward_api.is_none()
            && volume.projected.is_none()
    }),
];

/// A bound that nobody keeps to. It is no reason to wait: a pod that stays below it runs as it would with it.
const UNHEEDED_OF_CONTAINER: OfContainer = ("resources.limits[ephemeral-storage]", |own| {
    let limits = own.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    limits.is_some_and(|limits| limits.contains_key("ephemeral-storage"))
});
const UNHEEDED_OF_VOLUME: OfVolume = ("emptyDir.sizeLimit", |volume| {
    let source = volume.empty_dir.as_ref();
    source.is_some_and(|own| own.size_limit.is_some() && own.medium.as_deref() != Some("Memory"))
});

/// The first bound of the pod that this node does not keep it to, by its path.
pub fn unheeded(pod: &Pod) -> Option<String> {
    let (field, asks) = UNHEEDED_OF_CONTAINER;
    let of = |list: &str, containers: &[Container]| {
        let index = containers.iter().position(asks)?;
        Some(format!("spec.{list}[{index}].{field}"))
    };
    let of_volumes = || {
        let (field, asks) = UNHEEDED_OF_VOLUME;
        let index = pod::spec(pod).volumes.iter().flatten().position(asks)?;
        Some(format!("spec.volumes[{index}].{field}"))
    };
    of("initContainers", pod::init_containers(pod))
        .or_else(|| of("containers", pod::containers(pod)))
        .or_else(of_volumes)
}

/// Whether this host confines processes by their SELinux labels.
pub fn enforces_selinux() -> bool {
    std::fs::read("/sys/fs/selinux/enforce").is_ok_and(|text| text.starts_with(b"1"))
}

/// The first field of the pod that this node, which may enforce SELinux, cannot do, by its path.
pub fn field(pod: &Pod, selinux: bool) -> Option<String> {
    let spec = pod::spec(pod);
    let of_selinux: &[OfPod] = if selinux { &OF_POD_BY_SELINUX } else { &[] };
    let mut of_pod = OF_POD.iter().chain(of_selinux);
    if let Some((field, _)) = of_pod.find(|(_, asks)| asks(spec)) {
        return Some(format!("spec.{field}"));
    }
    let of_selinux: &[OfContainer] = if selinux { &OF_CONTAINER_BY_SELINUX } else { &[] };
    let of_containers = |list: &str, containers: &[Container]| {
        let rows = |own| OF_CONTAINER.iter().chain(of_selinux).find(move |(_, asks)| asks(own));
        let mut found = containers
            .iter()
            .enumerate()
            .filter_map(|(i, own)| Some((i, rows(own)?)));
        found
            .next()
            .map(|(index, (field, _))| format!("spec.{list}[{index}].{field}"))
    };
    let too_many = || Names::of(pod).len() > MOST_OBJECTS;
    of_containers("initContainers", pod::init_containers(pod))
        .or_else(|| of_containers("containers", pod::containers(pod)))
        .or_else(|| spec.volumes.iter().flatten().enumerate().find_map(of_volume))
        .or_else(|| too_many().then(|| format!("spec: more than {MOST_OBJECTS} ConfigMaps and Secrets")))
}

fn of_volume((index, volume): (usize, &Volume)) -> Option<String> {
    let (field, _) = OF_VOLUME.iter().find(|(_, asks)| asks(volume))?;
    let field = match *field {
        "" => kind(volume),
        field => field.to_owned(),
    };
    Some(format!("spec.volumes[{index}].{field}"))
}

/// What the volume is made of, in the API's word.
fn kind(volume: &Volume) -> String {
    let tree = serde_json::to_value(volume).unwrap_or_default();
    let mut keys = tree.as_object().into_iter().flatten().map(|(key, _)| key);
    keys.find(|key| *key != "name").cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn bounds_that_nobody_keeps_to_are_named_and_hold_no_pod() {
        let limits = |list: Value| json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": list}}]});
        let empty_dir = |source: Value| json!({"containers": [], "volumes": [{"name": "v", "emptyDir": source}]});
        for (spec, expected) in [
            (
                limits(json!({"ephemeral-storage": "1Gi"})),
                Some("spec.containers[1].resources.limits[ephemeral-storage]"),
            ),
            (limits(json!({"cpu": "1"})), None),
            (
                empty_dir(json!({"sizeLimit": "1Gi"})),
                Some("spec.volumes[0].emptyDir.sizeLimit"),
            ),
            (empty_dir(json!({"sizeLimit": "1Gi", "medium": "Memory"})), None),
            (empty_dir(json!({})), None),
        ] {
            let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(
                (unheeded(&pod).as_deref(), field(&pod, false)),
                (expected, None),
                "{spec}"
            );
        }
    }

    /// Each spec is held by the field that stands beside it, and of each of the rows there is one.
    #[track_caller]
    fn hold<S: AsRef<str>>(specs: &[(Value, S)], rows: impl IntoIterator<Item = String>) {
        for (spec, expected) in specs {
            let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(field(&pod, false).unwrap_or_default(), expected.as_ref(), "{spec}");
        }
        for row in rows {
            assert!(specs.iter().any(|(_, named)| named.as_ref() == row), "no line of {row}");
        }
    }

    #[test]
    fn each_of_a_pod_and_its_volumes_is_named_by_its_path() {
        let with = |volume: Value| json!({"containers": [], "volumes": [{"name": "a", "emptyDir": {}}, volume]});
        let projected = |kind: &str, source: Value| json!({"name": "v", "projected": {"sources": [{kind: source}]}});
        let certificate = json!({"keyType": "ED25519", "signerName": "s"});
        let specs = [
            (json!({"containers": [{"name": "a"}], "hostUsers": true}), ""),
            (json!({"containers": [], "hostUsers": false}), "spec.hostUsers"),
            (json!({"containers": [], "resources": {}}), "spec.resources"),
            (
                json!({"containers": [], "resourceClaims": [{"name": "c", "resourceClaimName": "d"}]}),
                "spec.resourceClaims",
            ),
            (
                json!({"containers": [], "securityContext": {"windowsOptions": {}}}),
                "spec.securityContext.windowsOptions",
            ),
            (
                with(json!({"name": "b", "nfs": {"path": "/", "server": "s"}})),
                "spec.volumes[1].nfs",
            ),
            (
                with(json!({"name": "b", "emptyDir": {"medium": "HugePages"}})),
                "spec.volumes[1].emptyDir.medium",
            ),
            (
                with(projected("clusterTrustBundle", json!({"path": "p"}))),
                "spec.volumes[1].projected.sources",
            ),
            (
                with(projected("podCertificate", certificate)),
                "spec.volumes[1].projected.sources",
            ),
            (with(projected("configMap", json!({"name": "m"}))), ""),
        ];
        let of_volumes = OF_VOLUME.iter().filter(|(field, _)| !field.is_empty());
        let of_volumes = of_volumes.map(|(field, _)| format!("spec.volumes[1].{field}"));
        let of_pod = OF_POD.iter().map(|(field, _)| format!("spec.{field}"));
        hold(&specs, of_pod.chain(of_volumes));
    }

    #[test]
    fn each_of_a_container_is_named_by_its_path() {
        let with = |key: &str, value: Value| json!({"containers": [{"name": "a"}, {"name": "b", key: value}]});
        let mount = |how: &str| json!([{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": how}]);
        let limits = |limits: Value| with("resources", json!({"limits": limits}));
        let context = |context: Value| with("securityContext", context);
        let specs = [
            (
                json!({"containers": [], "initContainers": [{"name": "s", "securityContext": {"procMount": "Unmasked"}}]}),
                "spec.initContainers[0].securityContext.procMount",
            ),
            (
                with("volumeDevices", json!([{"name": "d", "devicePath": "/d"}])),
                "volumeDevices",
            ),
            (
                limits(json!({"memory": "1Gi", "hugepages-2Mi": "2Mi"})),
                "resources.limits[hugepages-]",
            ),
            (limits(json!({"memory": "1Gi"})), ""),
            (with("volumeMounts", mount("Enabled")), "volumeMounts.recursiveReadOnly"),
            (with("volumeMounts", mount("IfPossible")), ""),
            (context(json!({"procMount": "Unmasked"})), "securityContext.procMount"),
            (context(json!({"procMount": "Default"})), ""),
            (context(json!({"windowsOptions": {}})), "securityContext.windowsOptions"),
        ];
        let path = |field: &str| match field {
            "" => String::new(),
            whole if whole.starts_with("spec.") => whole.to_owned(),
            field => format!("spec.containers[1].{field}"),
        };
        let specs = specs.map(|(spec, field)| (spec, path(field)));
        hold(&specs, OF_CONTAINER.iter().map(|(field, _)| path(field)));
    }

    #[test]
    fn objects_are_counted_once_each() {
        let with = |objects: usize| {
            let secrets = (0..objects).map(|i| json!({"secretRef": {"name": format!("s{}", i / 2)}}));
            let maps = (0..objects).map(|i| json!({"configMapRef": {"name": format!("m{}", i / 2)}}));
            let from: Vec<Value> = secrets.chain(maps).collect();
            let spec = json!({"containers": [{"name": "a", "envFrom": from}]});
            field(&serde_json::from_value(json!({"spec": spec})).unwrap(), false)
        };
        assert_eq!(with(MOST_OBJECTS), None);
        let named = with(MOST_OBJECTS + 1);
        assert_eq!(named.as_deref(), Some("spec: more than 1000 ConfigMaps and Secrets"));
    }

    #[test]
    fn labels_count_where_they_are_enforced() {
        let labelled = json!({"seLinuxOptions": {"level": "s0:c1"}});
        for (spec, named) in [
            (
                json!({"containers": [], "securityContext": labelled}),
                "spec.securityContext.seLinuxOptions",
            ),
            (
                json!({"containers": [], "securityContext": {"seLinuxChangePolicy": "Recursive"}}),
                "spec.securityContext.seLinuxChangePolicy",
            ),
            (
                json!({"containers": [{"name": "a"}, {"name": "b", "securityContext": labelled}]}),
                "spec.containers[1].securityContext.seLinuxOptions",
            ),
        ] {
            let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(field(&pod, true).as_deref(), Some(named));
            assert_eq!(field(&pod, false), None);
        }
    }
}
