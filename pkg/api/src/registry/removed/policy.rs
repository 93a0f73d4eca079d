//! policy/v1beta1: an empty selector of a PodDisruptionBudget selects nothing, where policy/v1's selects everything. What
//! the one can't say of the other is said by a label that no pod has.

use serde_json::{Value, json};

use crate::meta;

const LABEL: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
const SELECTOR: [&str; 2] = ["spec", "selector"];

fn asks(selector: &Value, operator: &str) -> bool {
    *selector == json!({"matchExpressions": [{"key": LABEL, "operator": operator}]})
}

fn asking(operator: &str) -> Value {
    json!({"matchExpressions": [{"key": LABEL, "operator": operator}]})
}

pub(super) fn budget_to_stored(budget: &mut Value) {
    let Some(selector) = meta::at_mut(budget, &SELECTOR) else {
        return;
    };
    if *selector == json!({}) {
        *selector = asking("Exists");
    } else if asks(selector, "DoesNotExist") {
        *selector = json!({});
    } else if let Some(Value::Array(expressions)) = meta::at_mut(selector, &["matchExpressions"]) {
        expressions.retain(|expression| meta::string(expression, &["key"]) != LABEL);
        if expressions.is_empty() {
            meta::remove(selector, &["matchExpressions"]);
        }
    }
}

pub(super) fn budget_from_stored(budget: &mut Value) {
    let Some(selector) = meta::at_mut(budget, &SELECTOR) else {
        return;
    };
    if asks(selector, "Exists") {
        *selector = json!({});
    } else if *selector == json!({}) {
        *selector = asking("DoesNotExist");
    }
}
