//! autoscaling: v2 is stored, v1 shows the same objects.

use super::row::row;
use super::{Convert, Resource, Support};

pub(super) fn rows() -> Vec<Resource> {
    let hpa = |version| {
        row(
            "autoscaling",
            version,
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        )
        .short(&["hpa"])
        .category("all")
        .status()
        .support(Support::StoredOnly)
    };
    vec![
        hpa("v2"),
        hpa("v1").stored_as(
            "autoscaling",
            "horizontalpodautoscalers",
            Convert {
                to_stored: v1_to_v2,
                from_stored: v2_to_v1,
            },
        ),
    ]
}

fn v1_to_v2(_object: &mut serde_json::Value) {}

fn v2_to_v1(_object: &mut serde_json::Value) {}
