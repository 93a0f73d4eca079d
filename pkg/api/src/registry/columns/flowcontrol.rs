//! flowcontrol.apiserver.k8s.io.

use serde_json::Value;

use super::super::Column;
use super::{age, int, name, text};
use crate::meta;

pub fn flow_schema() -> Vec<Column> {
    vec![
        name(),
        text("PriorityLevel", "Its priority level.", |object, _| {
            meta::string(object, &["spec", "priorityLevelConfiguration", "name"]).into()
        }),
        text("MatchingPrecedence", "Lower ones are tried first.", |object, _| {
            int(object, &["spec", "matchingPrecedence"])
        }),
        text("DistinguisherMethod", "How flows are told apart.", |object, _| {
            super::or(object, &["spec", "distinguisherMethod", "type"], "<none>")
        }),
        age(),
        text("MissingPL", "Whether its priority level is missing.", |object, _| {
            meta::condition(object, "Dangling")
                .map_or("?", |condition| meta::string(condition, &["status"]))
                .into()
        }),
    ]
}

pub fn priority_level() -> Vec<Column> {
    vec![
        name(),
        text("Type", "Exempt or Limited.", |object, _| {
            meta::string(object, &["spec", "type"]).into()
        }),
        text(
            "NominalConcurrencyShares",
            "Its share of the requests in flight.",
            |object, _| limited(object, &["nominalConcurrencyShares"]),
        ),
        text("Queues", "Number of queues.", |object, _| {
            limited(object, &["limitResponse", "queuing", "queues"])
        }),
        text("HandSize", "Queues that a flow may use.", |object, _| {
            limited(object, &["limitResponse", "queuing", "handSize"])
        }),
        text("QueueLengthLimit", "Most requests in a queue.", |object, _| {
            limited(object, &["limitResponse", "queuing", "queueLengthLimit"])
        }),
        age(),
    ]
}

fn limited(object: &Value, path: &[&str]) -> Value {
    meta::at(object, &["spec", "limited"])
        .and_then(|limited| meta::at(limited, path))
        .cloned()
        .unwrap_or_else(|| "<none>".into())
}
