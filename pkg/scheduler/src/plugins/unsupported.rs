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

type Row = (&'static str, fn(&PodSpec) -> bool);

const ROWS: [Row; 1] = [
    ("resourceClaims", |spec| !none(&spec.resource_claims)),
];

fn none<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// The first field of the pod that no decision can weigh, by its path.
pub fn field(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let (field, _) = ROWS.iter().find(|(_, asks)| asks(spec))?;
    Some(format!("spec.{field}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_is_named_by_its_path() {
        let of = |spec: Value| field(&serde_json::from_value(json!({"spec": spec})).unwrap());
        let rows = [
            (json!({"containers": [], "resourceClaims": []}), None),
            (
                json!({"containers": [], "resourceClaims": [{"name": "c"}]}),
                Some("spec.resourceClaims"),
            ),
        ];
        for (spec, expected) in rows {
            let text = spec.to_string();
            assert_eq!(of(spec).as_deref(), expected, "{text}");
        }
    }
}
