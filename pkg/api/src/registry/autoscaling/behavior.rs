//! `spec.behavior` in the annotation of versions that lack it: upstream prints its internal Go type there, whose fields
//! have no JSON names, and all of them.

use serde_json::{Map, Value};

use crate::meta;

/// As Go prints the internal type.
pub(super) fn to_go(behavior: &Value) -> String {
    let side = |key: &str| meta::at(behavior, &[key]).map_or_else(|| "null".to_string(), rules);
    format!(r#"{{"ScaleUp":{},"ScaleDown":{}}}"#, side("scaleUp"), side("scaleDown"))
}

fn rules(rules: &Value) -> String {
    let field = |key: &str| meta::at(rules, &[key]).unwrap_or(&Value::Null).to_string();
    let policies: Vec<String> = meta::items(rules, &["policies"]).iter().map(policy).collect();
    let policies = match rules.get("policies") {
        Some(Value::Array(_)) => format!("[{}]", policies.join(",")),
        _ => "null".to_string(),
    };
    format!(
        r#"{{"StabilizationWindowSeconds":{},"SelectPolicy":{},"Policies":{policies},"Tolerance":{}}}"#,
        field("stabilizationWindowSeconds"),
        field("selectPolicy"),
        field("tolerance"),
    )
}

fn policy(policy: &Value) -> String {
    let field = |key: &str| meta::at(policy, &[key]).unwrap_or(&Value::Null).to_string();
    format!(
        r#"{{"Type":{},"Value":{},"PeriodSeconds":{}}}"#,
        field("type"),
        field("value"),
        field("periodSeconds"),
    )
}

/// The annotation's tree with the names that v2 has for its fields: Go takes them in any case.
pub(super) fn from_go(value: Value) -> Value {
    const NAMES: [&str; 9] = [
        "scaleUp",
        "scaleDown",
        "stabilizationWindowSeconds",
        "selectPolicy",
        "policies",
        "tolerance",
        "type",
        "value",
        "periodSeconds",
    ];
    match value {
        Value::Object(map) => {
            let named = map.into_iter().map(|(key, value)| {
                let known = NAMES.iter().find(|name| name.eq_ignore_ascii_case(&key));
                (known.map_or(key, |name| (*name).to_string()), from_go(value))
            });
            Value::Object(named.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(from_go).collect()),
        other => other,
    }
}
