//! What admission reads of namespaces, parsed once per state of each.

use std::sync::Arc;

use serde_json::Value;

use super::pod_security::policy::Policy;
use crate::lookup::Lookup;
use crate::memo::Parsed;

/// What admission reads of a namespace.
pub struct Facts {
    pub terminating: bool,
    pub policy: Policy,
}

#[derive(Default)]
pub struct Namespaces(Parsed<Facts>);

impl Namespaces {
    pub fn get(&self, lookup: &dyn Lookup, name: &str) -> Option<Arc<Facts>> {
        let found = lookup.find("", "namespaces", "", name)?;
        Some(self.0.get(name, found, |bytes| {
            let namespace: Value = serde_json::from_slice(bytes).unwrap_or_default();
            Facts {
                terminating: namespace["status"]["phase"] == "Terminating",
                policy: Policy::of_labels(&namespace["metadata"]["labels"]).0,
            }
        }))
    }
}
