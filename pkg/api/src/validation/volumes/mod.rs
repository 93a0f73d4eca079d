//! Volumes of pods, whatever they are made of. What a PersistentVolume is made of is checked by the same tables.

mod files;
mod kinds;

use std::collections::{HashMap, HashSet};

use serde_json::Value;

pub(super) use self::files::*;
pub(super) use self::kinds::*;
use super::rules::{
    Member, Rules, Scope, Union, call, check, each, format, format_if_set, member, name, one_of, required, told, whole,
};
use super::{Errors, Path, claims, each as each_of, has, list, text};
use crate::status::FieldError;
use crate::{meta as object_at, names, quantity};

pub(super) const MANY: &str = "may not specify more than 1 volume type";
pub(super) const NONE: &str = "must specify a volume type";
const ISCSI_NAME: &str = "must be valid format starting with iqn, eui, or naa";

/// Of which a pod's volume is one.
const SOURCES: Union = Union {
    members: &[
        member("emptyDir", &[call("sizeLimit", size_limit)]),
        member("hostPath", HOST_PATH),
        member(
            "gitRepo",
            &[required("repository"), format_if_set("directory", descending)],
        ),
        GCE_DISK,
        member("awsElasticBlockStore", AWS_DISK),
        member("secret", &[required("secretName"), MODE, each("items", KEY_TO_PATH)]),
        member("nfs", NFS),
        member(
            "iscsi",
            &[
                required("targetPortal"),
                told("", iscsi_target, ISCSI_NAME),
                told("initiatorName", iscsi_initiator, ISCSI_NAME),
            ],
        ),
        member("glusterfs", GLUSTERFS),
        member("flocker", FLOCKER),
        member("persistentVolumeClaim", &[required("claimName")]),
        member("rbd", RBD),
        member("cinder", &[required("volumeID"), SECRET_NAME]),
        CEPHFS,
        member("quobyte", QUOBYTE),
        Member {
            field: "downwardAPI",
            told: "downwardAPI",
            again: "downwarAPI",
            rules: &[MODE, call("items", downward_files)],
        },
        member("fc", FC),
        member("flexVolume", FLEX),
        member("configMap", &[required("name"), MODE, each("items", KEY_TO_PATH)]),
        member("azureFile", AZURE_FILE),
        member("vsphereVolume", VSPHERE),
        member("photonPersistentDisk", PHOTON),
        member("portworxVolume", PORTWORX),
        member("azureDisk", AZURE_DISK),
        member(
            "storageos",
            &[
                name("volumeName", names::dns_label),
                format("volumeNamespace", names::dns_label),
                SECRET_NAME,
            ],
        ),
        member("projected", &[MODE, whole(projected)]),
        member("scaleIO", SCALE_IO),
        member("csi", &[whole(csi_driver), whole(csi_secret)]),
        member(
            "ephemeral",
            &[
                required("volumeClaimTemplate"),
                call("volumeClaimTemplate", claims::claim_template),
            ],
        ),
        member("image", &[whole(image)]),
    ],
    many: MANY,
    none: NONE,
};

/// What a pod's volume can be made of, in upstream's order.
pub fn sources() -> impl Iterator<Item = &'static str> {
    SOURCES.members.iter().map(|member| member.field)
}

/// Checks `volumes`, and answers the valid ones by name.
pub(super) fn volumes<'a>(
    spec: &'a Value,
    scope: &Scope<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) -> HashMap<&'a str, &'a Value> {
    let mut known: HashMap<&str, &Value> = HashMap::new();
    let pod = scope
        .pod
        .filter(|pod| pod.is_pod)
        .map_or("", |_| object_at::name(scope.object));
    let made = claims_made(spec, pod);
    for (index, volume) in each_of(spec, "volumes") {
        let path = path.index(index);
        let before = errors.len();
        SOURCES.check(volume, scope, &path, errors);
        let name = text(volume, "name");
        own_name(volume, name, pod, &path, errors);
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            super::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        }
        if known.contains_key(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        if errors.len() == before {
            known.insert(name, volume);
        }
        let claim = object_at::string(volume, &["persistentVolumeClaim", "claimName"]);
        if !made.is_empty() && made.contains(claim) {
            errors.push(FieldError::invalid(
                path.child("persistentVolumeClaim").child("claimName"),
                claim,
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    known
}

/// The names of the claims that are made for a pod's ephemeral volumes.
fn claims_made(spec: &Value, pod: &str) -> HashSet<String> {
    if pod.is_empty() {
        return HashSet::new();
    }
    let ephemeral = list(spec, "volumes")
        .iter()
        .filter(|volume| has(volume, "ephemeral").is_some());
    ephemeral
        .map(|volume| format!("{pod}-{}", text(volume, "name")))
        .collect()
}

/// What a source asks of the volume's name.
fn own_name(volume: &Value, name: &str, pod: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(iscsi) = has(volume, "iscsi")
        && has(iscsi, "initiatorName").is_some()
        && name.len() + 1 + text(iscsi, "targetPortal").len() > 64
    {
        errors.push(FieldError::invalid(path.child("name"), name, PORTAL_TOO_LONG));
    }
    if has(volume, "ephemeral").is_some() && !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for problem in names::dns_subdomain(&claim) {
            errors.push(FieldError::invalid(
                path.child("name"),
                name,
                format!("PVC name {claim:?}: {problem}"),
            ));
        }
    }
}

fn size_limit(limit: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if quantity::from_json(limit).is_ok_and(|limit| limit.signum() < 0) {
        errors.push(FieldError::forbidden(
            path,
            "SizeLimit field must be a valid resource quantity",
        ));
    }
}

fn csi_secret(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(secret) = has(source, "nodePublishSecretRef") else {
        return;
    };
    match text(secret, "name") {
        "" => errors.push(FieldError::required(
            path.child("nodePublishSecretRef").child("name"),
            "",
        )),
        // told of the volume source itself
        name => super::invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name)),
    }
}

fn image(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const POLICY: Rules = &[one_of("pullPolicy", super::container::PULL_POLICIES)];
    if scope.pod.is_some_and(|pod| pod.is_pod) && text(source, "reference").is_empty() {
        errors.push(FieldError::required(path.child("reference"), ""));
    }
    check(POLICY, source, scope, path, errors);
}
