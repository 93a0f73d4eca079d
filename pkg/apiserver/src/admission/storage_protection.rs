//! StorageObjectInUseProtection: what holds data, or says how, does not go while it is used. The finalizers are taken off by
//! the controllers of the same names.

use mk8s_api::meta;
use serde_json::{Value, json};

use super::Attributes;

/// The finalizer of a kind that is protected.
pub fn finalizer(call: &Attributes<'_>) -> Option<&'static str> {
    match (&*call.resource.group, &*call.resource.plural) {
        ("", "persistentvolumes") => Some(meta::VOLUME_PROTECTION),
        ("", "persistentvolumeclaims") => Some(meta::CLAIM_PROTECTION),
        ("storage.k8s.io", "volumeattributesclasses") => Some(meta::ATTRIBUTES_CLASS_PROTECTION),
        _ => None,
    }
}

pub fn admit(call: &Attributes<'_>, object: &mut Value) {
    let Some(finalizer) = finalizer(call) else { return };
    if meta::finalizers(object).any(|own| own == finalizer) {
        return;
    }
    let own = meta::metadata_mut(object)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    match own {
        Value::Array(own) => own.push(finalizer.into()),
        own => *own = json!([finalizer]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Request;
    use super::*;

    #[test]
    fn each_kind_gets_its_own() {
        let made = |group, plural, mut object: Value| {
            let request = Request {
                group,
                ..Request::create(plural, "default")
            };
            request.with(None, |call| admit(call, &mut object));
            object["metadata"]["finalizers"].clone()
        };
        let claim = json!(["kubernetes.io/pvc-protection"]);
        assert_eq!(made("", "persistentvolumeclaims", json!({"metadata": {}})), claim);
        assert_eq!(
            made("", "persistentvolumeclaims", json!({"metadata": {"finalizers": claim}})),
            claim
        );
        assert_eq!(
            made("", "persistentvolumes", json!({"metadata": {"finalizers": ["a.b/c"]}})),
            json!(["a.b/c", "kubernetes.io/pv-protection"])
        );
        assert_eq!(
            made("storage.k8s.io", "volumeattributesclasses", json!({})),
            json!(["kubernetes.io/vac-protection"])
        );
        assert_eq!(made("", "configmaps", json!({})), Value::Null);
    }
}
