//! What a pod refers to: every object of the API that its spec names, and where. Who may read what on a node's behalf, what a
//! mirror pod must not name and which secrets an account lets its pods use are questions to this one walk.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::Value;

use crate::meta::{self, items, string};

/// The kind of object that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referent {
    ServiceAccount,
    Secret,
    ConfigMap,
    /// A PersistentVolumeClaim, also one that is made for the pod.
    Claim,
    ResourceClaim,
}

/// Where in the pod it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A volume, and the field of it (`secret`, `projected`, `csi`, …).
    Volume(&'a str),
    /// A variable of a container's environment.
    Env {
        list: &'static str,
        container: &'a str,
        variable: &'a str,
    },
    /// A source of a container's whole environment.
    EnvFrom { list: &'static str, container: &'a str },
    /// Number so many of `imagePullSecrets`.
    PullSecret(usize),
    /// A field of the pod itself.
    Pod,
}

/// One mention of an object of the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    pub to: Referent,
    /// Empty where the pod leaves it out.
    pub name: Cow<'a, str>,
    pub place: Place<'a>,
}

type Visit<'v, 'a> = &'v mut dyn FnMut(Reference<'a>) -> ControlFlow<()>;

/// Whether a pod names something that fits; in upstream's order of looking: volumes, containers, the pod's own fields.
pub fn any<'a>(pod: &'a Value, mut fits: impl FnMut(&Reference<'a>) -> bool) -> bool {
    let mut visit = |reference| match fits(&reference) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    each(pod, &mut visit).is_break()
}

/// Visits each reference until told to stop.
pub fn each<'a>(pod: &'a Value, visit: Visit<'_, 'a>) -> ControlFlow<()> {
    let Some(spec) = meta::at(pod, &["spec"]) else {
        return ControlFlow::Continue(());
    };
    for volume in items(spec, &["volumes"]) {
        of_volume(pod, volume, visit)?;
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, &[list]) {
            of_container(list, container, visit)?;
        }
    }
    for (index, secret) in items(spec, &["imagePullSecrets"]).iter().enumerate() {
        visit(reference(
            Referent::Secret,
            string(secret, &["name"]),
            Place::PullSecret(index),
        ))?;
    }
    let account = string(spec, &["serviceAccountName"]);
    if !account.is_empty() {
        visit(reference(Referent::ServiceAccount, account, Place::Pod))?;
    }
    // A claim made from a template has its name in the status.
    let made = items(pod, &["status", "resourceClaimStatuses"]);
    for claim in items(spec, &["resourceClaims"]).iter().chain(made) {
        visit(reference(
            Referent::ResourceClaim,
            string(claim, &["resourceClaimName"]),
            Place::Pod,
        ))?;
    }
    ControlFlow::Continue(())
}

fn reference<'a>(to: Referent, name: &'a str, place: Place<'a>) -> Reference<'a> {
    let name = Cow::Borrowed(name);
    Reference { to, name, place }
}

fn of_container<'a>(list: &'static str, container: &'a Value, visit: Visit<'_, 'a>) -> ControlFlow<()> {
    let own = string(container, &["name"]);
    for variable in items(container, &["env"]) {
        let place = Place::Env {
            list,
            container: own,
            variable: string(variable, &["name"]),
        };
        for (field, to) in [
            ("secretKeyRef", Referent::Secret),
            ("configMapKeyRef", Referent::ConfigMap),
        ] {
            if let Some(named) = named(variable, &["valueFrom", field]) {
                visit(reference(to, string(named, &["name"]), place))?;
            }
        }
    }
    for source in items(container, &["envFrom"]) {
        let place = Place::EnvFrom { list, container: own };
        for (field, to) in [("secretRef", Referent::Secret), ("configMapRef", Referent::ConfigMap)] {
            if let Some(named) = named(source, &[field]) {
                visit(reference(to, string(named, &["name"]), place))?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// What is there, and not null.
fn named<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    meta::at(value, path).filter(|value| !value.is_null())
}

/// Volumes that name a secret: (field of the volume, path of the name in it).
const SECRETS: [(&str, &[&str]); 10] = [
    ("secret", &["secretName"]),
    ("azureFile", &["secretName"]),
    ("cephfs", &["secretRef", "name"]),
    ("cinder", &["secretRef", "name"]),
    ("flexVolume", &["secretRef", "name"]),
    ("rbd", &["secretRef", "name"]),
    ("scaleIO", &["secretRef", "name"]),
    ("iscsi", &["secretRef", "name"]),
    ("storageos", &["secretRef", "name"]),
    ("csi", &["nodePublishSecretRef", "name"]),
];

fn of_volume<'a>(pod: &Value, volume: &'a Value, visit: Visit<'_, 'a>) -> ControlFlow<()> {
    for (field, path) in SECRETS {
        let inner = named(volume, &[field]).filter(|inner| field == "secret" || named(inner, &path[..1]).is_some());
        if let Some(inner) = inner {
            visit(reference(Referent::Secret, string(inner, path), Place::Volume(field)))?;
        }
    }
    if let Some(map) = named(volume, &["configMap"]) {
        visit(reference(
            Referent::ConfigMap,
            string(map, &["name"]),
            Place::Volume("configMap"),
        ))?;
    }
    for source in items(volume, &["projected", "sources"]) {
        for (field, to) in [("secret", Referent::Secret), ("configMap", Referent::ConfigMap)] {
            if let Some(named) = named(source, &[field]) {
                visit(reference(to, string(named, &["name"]), Place::Volume("projected")))?;
            }
        }
    }
    if let Some(claim) = named(volume, &["persistentVolumeClaim"]) {
        let place = Place::Volume("persistentVolumeClaim");
        visit(reference(Referent::Claim, string(claim, &["claimName"]), place))?;
    }
    // Empty where the kind's text is sparse: being there is what counts.
    if volume.get("ephemeral").is_some() {
        visit(Reference {
            to: Referent::Claim,
            name: Cow::Owned(format!("{}-{}", meta::name(pod), string(volume, &["name"]))),
            place: Place::Volume("ephemeral"),
        })?;
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_a_pod_names() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"resourceClaimStatuses": [{"resourceClaimName": "made"}]}, "spec": {
            "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}], "resourceClaims": [{"resourceClaimName": "rc"}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "from"}}, {"secretRef": {"name": "secrets"}}]}],
            "containers": [{"name": "c", "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "key"}}}, {"name": "W", "valueFrom": {"configMapKeyRef": {"name": "map"}}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "root-ca"}}, {"secret": {"name": "proj"}}, {"serviceAccountToken": {}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "publish"}}},
                {"name": "d", "csi": {"driver": "d"}},
                {"name": "e", "ephemeral": {}},
                {"name": "f", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "g", "configMap": {"name": "files"}},
                {"name": "h", "emptyDir": {}}]}});
        let mut found = Vec::new();
        let _ = each(&pod, &mut |reference| {
            found.push(format!("{:?} {}", reference.to, reference.name));
            ControlFlow::Continue(())
        });
        let expected = [
            "Secret vol",
            "ConfigMap root-ca",
            "Secret proj",
            "Secret publish",
            "Claim p-e",
            "Claim data",
            "ConfigMap files",
            "ConfigMap from",
            "Secret secrets",
            "Secret key",
            "ConfigMap map",
            "Secret pull",
            "ServiceAccount sa",
            "ResourceClaim rc",
            "ResourceClaim made",
        ];
        assert_eq!(found, expected);
        assert!(any(&pod, |reference| reference.place == Place::PullSecret(0)));
        assert!(!any(&Value::Null, |_| true));
    }
}
