//! policy.

use serde_json::Value;

use super::{map, object, value};

pub fn disruption_budget(budget: &mut Value) {
    let Some(map) = map(budget) else { return };
    object(map, "spec");
    if let Some(status) = object(map, "status") {
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            value(status, key, 0);
        }
    }
}
