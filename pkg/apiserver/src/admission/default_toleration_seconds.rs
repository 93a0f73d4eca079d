//! DefaultTolerationSeconds: a pod that says nothing of it stays 300 s on a node that is not ready or unreachable.

use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub fn admit(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else {
        return;
    };
    for taint in TAINTS {
        let tolerated = tolerations.iter().any(|toleration| {
            let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
            matches!(text("key"), key if key.is_empty() || key == taint) && matches!(text("effect"), "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(json!({
                "effect": "NoExecute", "key": taint, "operator": "Exists", "tolerationSeconds": 300,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_where_nothing_is_said() {
        for (given, keys) in [
            (json!(null), vec![TAINTS[0], TAINTS[1]]),
            (
                json!([{"key": TAINTS[1], "effect": "NoExecute"}]),
                vec![TAINTS[1], TAINTS[0]],
            ),
            (
                json!([{"key": TAINTS[1], "effect": "NoSchedule"}]),
                vec![TAINTS[1], TAINTS[0], TAINTS[1]],
            ),
            (json!([{"operator": "Exists"}]), vec![""]),
        ] {
            let mut pod = json!({"spec": {"tolerations": given}});
            admit(&mut pod);
            let got: Vec<&str> = mk8s_api::meta::items(&pod, &["spec", "tolerations"])
                .iter()
                .map(|t| t["key"].as_str().unwrap_or(""))
                .collect();
            assert_eq!(got, keys, "{given}");
        }
    }
}
