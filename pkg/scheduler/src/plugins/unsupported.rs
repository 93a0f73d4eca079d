//! What a pod may ask for that decisions do not weigh yet: no node is right for the pod then, and its condition names the field. A row
//! goes when the scheduler learns it.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::cluster::Cluster;
use crate::framework::{Objection, Plugin, PostFilter, PreFilter};
use crate::pod::PodInfo;

/// Refuses pods that ask for it.
pub struct Unsupported;

impl Plugin for Unsupported {
    fn name(&self) -> &'static str {
        "Unsupported"
    }

    /// Upstream's words of dynamic resources.
    fn post_filter(&self, _: &PodInfo, _: &Cluster, asked: bool) -> PostFilter {
        match asked {
            true => PostFilter::Says("no new claims to deallocate".into()),
            false => PostFilter::Ends("not found".into()),
        }
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster) -> PreFilter<'a> {
        match pod.wishes().unsupported.as_deref() {
            Some(field) => PreFilter::Refuse(Objection::unresolvable(format!("{field}: not in this version of mk8s"))),
            None => PreFilter::Skip,
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

type Row = (&'static str, fn(&PodSpec) -> bool);

const ROWS: [Row; 6] = [
    ("affinity.podAffinity", |spec| {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.pod_affinity.as_ref());
        affinity.is_some_and(|own| !none(&own.required_during_scheduling_ignored_during_execution))
    }),
    ("affinity.podAntiAffinity", |spec| {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        affinity.is_some_and(|own| !none(&own.required_during_scheduling_ignored_during_execution))
    }),
    ("resourceClaims", |spec| !none(&spec.resource_claims)),
    ("volumes.persistentVolumeClaim", |spec| {
        let mut volumes = spec.volumes.iter().flatten();
        volumes.any(|volume| volume.persistent_volume_claim.is_some())
    }),
    ("volumes.ephemeral", |spec| {
        spec.volumes.iter().flatten().any(|volume| volume.ephemeral.is_some())
    }),
];

fn none<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// The first field of the pod that no decision can weigh, by its path.
pub fn field(pod: &Pod) -> Option<String> {
    first(&ROWS, pod, REQUIRED)
}

fn first(rows: &[Row], pod: &Pod, affinity: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let (field, _) = rows.iter().find(|(_, asks)| asks(spec))?;
    let of_affinity = field.starts_with("affinity.");
    Some(match of_affinity {
        true => format!("spec.{field}.{affinity}"),
        false => format!("spec.{field}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_is_named_by_its_path() {
        let of = |spec: Value| field(&serde_json::from_value(json!({"spec": spec})).unwrap());
        let terms = json!([{"topologyKey": "z"}]);
        let rows = [
            (
                json!({"containers": [], "affinity": {"podAffinity": {REQUIRED: []}}}),
                None,
            ),
            (
                json!({"containers": [], "affinity": {"podAntiAffinity": {REQUIRED: terms}}}),
                Some("spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
            ),
            (
                json!({"containers": [], "resourceClaims": [{"name": "c"}]}),
                Some("spec.resourceClaims"),
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
                Some("spec.volumes.persistentVolumeClaim"),
            ),
        ];
        for (spec, expected) in rows {
            let text = spec.to_string();
            assert_eq!(of(spec).as_deref(), expected, "{text}");
        }
    }
}
