//! certificates.k8s.io.

use super::super::Column;
use super::{age, name, text};
use crate::{meta, time};

pub fn signing_request() -> Vec<Column> {
    vec![
        name(),
        age(),
        text("SignerName", "Who should sign.", |object, _| {
            super::or(object, &["spec", "signerName"], "<none>")
        }),
        text("Requestor", "Who asked.", |object, _| {
            meta::string(object, &["spec", "username"]).into()
        }),
        text(
            "RequestedDuration",
            "How long it should be valid.",
            |object, _| match meta::i64_at(object, &["spec", "expirationSeconds"]) {
                Some(seconds) => time::human_duration(jiff::SignedDuration::from_secs(seconds)).into(),
                None => "<none>".into(),
            },
        ),
        text(
            "Condition",
            "What was decided, and whether it is signed.",
            |object, _| {
                let has = |type_: &str| meta::condition(object, type_).is_some();
                let mut status = if has("Denied") {
                    "Denied".to_string()
                } else if has("Approved") {
                    "Approved".to_string()
                } else {
                    "Pending".to_string()
                };
                if has("Failed") {
                    status.push_str(",Failed");
                }
                if !meta::string(object, &["status", "certificate"]).is_empty() {
                    status.push_str(",Issued");
                }
                status.into()
            },
        ),
    ]
}
