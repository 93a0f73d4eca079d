//! Who a pod of a StatefulSet is: its ordinal, and what of its name, labels and volumes follows from that.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use serde_json::{Value, json};

use super::claims;
use crate::{meta, replicas};

pub(super) const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// The set's name and the ordinal that a pod's name is made of.
pub(super) fn parsed(pod: &str) -> Option<(&str, i32)> {
    let (set, digits) = pod.rsplit_once('-')?;
    let ordinal = digits.parse().ok()?;
    // A sign or a leading zero makes another name.
    (format!("{ordinal}") == digits && ordinal >= 0).then_some((set, ordinal))
}

/// The pod's ordinal in the set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    parsed(meta::name(pod))
        .filter(|(parent, _)| *parent == meta::name(set))
        .map(|(_, ordinal)| ordinal)
}

/// The name of the pod with this ordinal.
pub(super) fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", meta::name(set))
}

/// The first ordinal.
pub(super) fn start(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// How many pods are wanted.
pub(super) fn wanted(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0)
}

/// Is it one of those that are wanted?
pub(super) fn in_range(set: &StatefulSet, ordinal: i32) -> bool {
    let (at, first) = (i64::from(ordinal), i64::from(start(set)));
    (first..first + i64::from(wanted(set))).contains(&at)
}

/// The name of the revision that the pod is of.
pub(super) fn revision(pod: &Pod) -> &str {
    meta::labels(pod).get(REVISION_LABEL).map_or("", String::as_str)
}

/// The pod with this ordinal, of this revision.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = replicas::from_template(template, meta::name(set), meta::owner_reference(set));
    let name = name(set, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    let of_template = spec.volumes.take().unwrap_or_default();
    let mut volumes: Vec<Volume> = claims::of(set, ordinal)
        .map(|(volume, claim)| Volume {
            name: volume.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim,
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let claimed = volumes.len();
    for volume in of_template {
        if volumes[..claimed].iter().all(|claim| claim.name != volume.name) {
            volumes.push(volume);
        }
    }
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod.metadata.name = Some(name);
    pod
}

/// What has to change of a pod with this ordinal for it to be what its name says.
pub(super) fn mended(set: &StatefulSet, pod: &Pod, ordinal: i32) -> Option<Value> {
    let name = meta::name(pod);
    let mut patch = json!({"metadata": {"uid": meta::uid(pod)}});
    let named = meta::labels(pod).get(NAME_LABEL).is_some_and(|label| label == name);
    if !named {
        patch["metadata"]["labels"] = json!({NAME_LABEL: name, INDEX_LABEL: ordinal.to_string()});
    }
    let has = |volume: &str, claim: &str| {
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.any(|v| {
            let source = v.persistent_volume_claim.as_ref();
            v.name == volume && source.is_some_and(|source| source.claim_name == claim)
        })
    };
    let lacking: Vec<Value> = claims::of(set, ordinal)
        .filter(|(volume, claim)| !has(volume, claim))
        .map(|(volume, claim)| json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let stored = lacking.is_empty();
    if !stored {
        patch["spec"] = json!({"volumes": lacking});
    }
    (!named || !stored).then_some(patch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "u"},
            "spec": {
                "replicas": 2, "serviceName": "svc", "ordinals": {"start": 3}, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn names_tell_ordinals() {
        for (name, expected) in [
            ("web-0", Some(("web", 0))),
            ("we-b-12", Some(("we-b", 12))),
            ("web-01", None),
            ("web-+1", None),
            ("web-", None),
            ("web", None),
            ("web-99999999999", None),
        ] {
            assert_eq!(parsed(name), expected, "{name}");
        }
        let pod = |name: &str| -> Pod { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
        assert_eq!(ordinal(&set(), &pod("web-4")), Some(4));
        assert_eq!(ordinal(&set(), &pod("other-4")), None);
        let wanted: Vec<i32> = (0..9).filter(|ordinal| in_range(&set(), *ordinal)).collect();
        assert_eq!(wanted, [3, 4]);
    }

    #[test]
    fn a_pod_is_made_with_its_identity_and_its_claims() {
        let set = set();
        let template = set.spec.as_ref().unwrap().template.clone();
        let pod = serde_json::to_value(new_pod(&set, &template, "web-5b", 3)).unwrap();
        assert_eq!(pod["metadata"]["name"], "web-3");
        assert_eq!(pod["metadata"]["generateName"], "web-");
        let labels = json!({"a": "b", NAME_LABEL: "web-3", INDEX_LABEL: "3", REVISION_LABEL: "web-5b"});
        assert_eq!(pod["metadata"]["labels"], labels);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
        assert_eq!(
            (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
            (&json!("web-3"), &json!("svc"))
        );
        let volumes = json!([
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-3"}}, {"name": "tmp", "emptyDir": {}}]);
        assert_eq!(pod["spec"]["volumes"], volumes);
        let mut whole: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(mended(&set, &whole, 3), None);
        whole.metadata.labels = None;
        whole.spec.as_mut().unwrap().volumes = None;
        let patch = mended(&set, &whole, 3).unwrap();
        assert_eq!(
            patch["metadata"]["labels"],
            json!({NAME_LABEL: "web-3", INDEX_LABEL: "3"})
        );
        assert_eq!(
            patch["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
            "data-web-3"
        );
    }
}
