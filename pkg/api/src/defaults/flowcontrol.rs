//! flowcontrol.apiserver.k8s.io.

use serde_json::Value;

use super::{get, map, number, object, value};

pub fn flow_schema(schema: &mut Value) {
    let Some(map) = map(schema) else { return };
    object(map, "status");
    if let Some(spec) = object(map, "spec") {
        number(spec, "matchingPrecedence", 1000);
    }
}

pub fn priority_level(level: &mut Value) {
    let Some(map) = map(level) else { return };
    object(map, "status");
    let Some(spec) = object(map, "spec") else { return };
    if let Some(exempt) = get(spec, "exempt") {
        value(exempt, "nominalConcurrencyShares", 0);
        value(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = get(spec, "limited") {
        value(limited, "nominalConcurrencyShares", 30);
        value(limited, "lendablePercent", 0);
        if let Some(queuing) = get(limited, "limitResponse").and_then(|response| get(response, "queuing")) {
            number(queuing, "handSize", 8);
            number(queuing, "queues", 64);
            number(queuing, "queueLengthLimit", 50);
        }
    }
}
