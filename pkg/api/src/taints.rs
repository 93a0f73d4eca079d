//! Which taints of a node a toleration of a pod accepts (core/v1 Toleration); asked by scheduler and taint eviction alike.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Does the toleration accept the taint? An empty effect or key accepts all, `Exists` any value.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some("Exists") => true,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toleration_meets_taint_by_key_value_and_effect() {
        let taint = Taint {
            key: "a".into(),
            value: Some("1".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        };
        let t = |key: &str, op: &str, value: &str, effect: &str| Toleration {
            key: Some(key.into()),
            operator: Some(op.into()),
            value: Some(value.into()),
            effect: Some(effect.into()),
            toleration_seconds: None,
        };
        for (toleration, expected) in [
            (t("a", "Equal", "1", "NoSchedule"), true),
            (t("a", "", "1", ""), true),
            (t("a", "Equal", "2", ""), false),
            (t("a", "Exists", "", ""), true),
            (t("b", "Exists", "", ""), false),
            (t("", "Exists", "", ""), true),
            (t("", "Exists", "", "NoExecute"), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
