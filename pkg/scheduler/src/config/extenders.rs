//! The extenders of a document: what upstream refuses, and what can't be reached.

use std::collections::HashSet;
use std::sync::Arc;

use mk8s_api::names;
use mk8s_api::status::FieldError;

use super::Told;
use super::document::Extender as Document;
use crate::extender::Extender;

/// Checks a document's extenders.
pub fn check(extenders: &[Document], told: &mut Told) {
    let mut managed = HashSet::new();
    for (index, extender) in extenders.iter().enumerate() {
        let path = format!("extenders[{index}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let why = "must have a positive weight applied to it";
            told.error(FieldError::invalid(format!("{path}.weight"), extender.weight, why));
        }
        for (index, resource) in extender.managed_resources.iter().enumerate() {
            let (path, name) = (format!("{path}.managedResources[{index}].name"), &*resource.name);
            check_name(name, &path, told);
            if !managed.insert(name) {
                let why = "duplicate extender managed resource name";
                told.error(FieldError::invalid(path, name, why));
            }
        }
    }
    let binders = extenders
        .iter()
        .filter(|extender| !extender.bind_verb.is_empty())
        .count();
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        told.error(FieldError::invalid(
            "extenders",
            found,
            "only one extender can implement bind",
        ));
    }
}

fn check_name(name: &str, path: &str, told: &mut Told) {
    let problems = names::qualified_name(name);
    let unqualified = !problems.is_empty();
    for why in problems {
        told.error(FieldError::invalid(path, name, why));
    }
    if !unqualified && !is_extended(name) {
        told.error(FieldError::invalid(path, name, "is an invalid extended resource name"));
    }
}

/// Of a domain that is not Kubernetes' own, and no quota's name.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// The resources that only extenders count.
pub fn ignored_resources(extenders: &[Document]) -> Vec<String> {
    let managed = extenders.iter().flat_map(|extender| &extender.managed_resources);
    let ignored = managed.filter(|resource| resource.ignored_by_scheduler);
    ignored.map(|resource| resource.name.clone()).collect()
}

/// Makes them, and puts those last that may be passed over.
pub fn make(extenders: &[Document], told: &mut Told) -> Arc<[Arc<Extender>]> {
    let mut made = Vec::new();
    for (index, own) in extenders.iter().enumerate() {
        match Extender::new(own) {
            Ok(extender) => made.push(Arc::new(extender)),
            Err(error) => told.error(format!("extenders[{index}].{error}")),
        }
    }
    made.sort_by_key(|extender| extender.ignorable);
    made.into()
}
