//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller has seen it ready.

use serde_json::{Value, json};

pub fn admit(node: &mut Value) {
    const KEY: &str = "node.kubernetes.io/not-ready";
    let Some(node) = node.as_object_mut() else { return };
    let Some(spec) = node.entry("spec").or_insert_with(|| json!({})).as_object_mut() else {
        return;
    };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if taints.is_null() {
        *taints = json!([]);
    }
    let Some(taints) = taints.as_array_mut() else { return };
    if !taints
        .iter()
        .any(|taint| taint["key"] == KEY && taint["effect"] == "NoSchedule")
    {
        taints.push(json!({"effect": "NoSchedule", "key": KEY}));
    }
}
