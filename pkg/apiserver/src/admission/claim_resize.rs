//! PersistentVolumeClaimResize: a claim grows only where there is a volume, and its class lets volumes grow.

use mk8s_api::meta;
use mk8s_api::quantity::{self, Quantity};
use mk8s_api::status::Status;
use serde_json::Value;

use super::Attributes;
use super::default_class::CLAIM_CLASS;
use crate::lookup::Lookup;

pub fn validate(call: &Attributes<'_>, new: &Value, lookup: &dyn Lookup) -> Result<(), Status> {
    let Some(old) = call.old else { return Ok(()) };
    if size(new) <= size(old) {
        return Ok(());
    }
    let refuse = |why| Err(call.forbidden(Some(new), why));
    if meta::string(old, &["status", "phase"]) != "Bound" {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let class = class(new);
    let expands = || {
        let class = lookup.value("storage.k8s.io", "storageclasses", "", class);
        class.is_some_and(|class| meta::bool_at(&class, &["allowVolumeExpansion"]) == Some(true))
    };
    if class.is_empty() || class != self::class(old) || !expands() {
        return refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    Ok(())
}

/// None is the least.
fn size(claim: &Value) -> Option<Quantity> {
    let size = meta::at(claim, &["spec", "resources", "requests", "storage"])?;
    quantity::from_json(size).ok()
}

fn class(claim: &Value) -> &str {
    meta::annotation(claim, CLAIM_CLASS).unwrap_or_else(|| meta::string(claim, &["spec", "storageClassName"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Operation;
    use super::super::testing::Request;
    use super::*;
    use crate::lookup::MapLookup;

    #[test]
    fn bound_claims_grow_where_their_class_allows_it() {
        let lookup = MapLookup::default();
        for (name, allow) in [("grows", true), ("stays", false)] {
            let class = json!({"metadata": {"name": name}, "allowVolumeExpansion": allow});
            lookup.put("storage.k8s.io", "storageclasses", &class);
        }
        let claim = |class: &str, size: &str, phase: &str| {
            json!({"metadata": {"name": "c"}, "status": {"phase": phase},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let told = |class: &str, from: &str, to: &str, phase: &str| {
            let request = Request {
                operation: Operation::Update,
                ..Request::create("persistentvolumeclaims", "default")
            };
            let old = claim(class, from, phase);
            request.with(Some(&old), |call| {
                let verdict = validate(call, &claim(class, to, phase), &lookup);
                verdict.err().map(|status| status.message).unwrap_or_default()
            })
        };
        assert_eq!(told("grows", "1Gi", "2Gi", "Bound"), "");
        assert_eq!(told("stays", "1Gi", "1024Mi", "Pending"), "");
        assert_eq!(
            told("grows", "1Gi", "2Gi", "Pending"),
            "persistentvolumeclaims \"c\" is forbidden: Only bound persistent volume claims can be expanded"
        );
        let why = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        assert_eq!(told("stays", "1Gi", "2Gi", "Bound"), why);
        assert_eq!(told("none", "1Gi", "2Gi", "Bound"), why);
        assert_eq!(told("", "1Gi", "2Gi", "Bound"), why);
    }
}
