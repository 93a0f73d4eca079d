//! DefaultStorageClass and DefaultIngressClass: what names no class is of the one that is marked as the default; of several
//! the newest.

use std::cmp::Reverse;

use mk8s_api::meta;
use serde_json::Value;

use crate::lookup::Lookup;

/// Where a claim said its class before there was a field.
pub const CLAIM_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A kind of classes, and how what is of one says so.
pub struct Classes {
    group: &'static str,
    plural: &'static str,
    /// Annotations by which a class says that it is the default.
    marks: &'static [&'static str],
    /// The annotation in which an object's class stood before it was a field.
    older: &'static str,
    field: &'static str,
}

pub const STORAGE: Classes = Classes {
    group: "storage.k8s.io",
    plural: "storageclasses",
    marks: &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ],
    older: CLAIM_CLASS,
    field: "storageClassName",
};

pub const INGRESS: Classes = Classes {
    group: "networking.k8s.io",
    plural: "ingressclasses",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
    older: "kubernetes.io/ingress.class",
    field: "ingressClassName",
};

pub fn admit(classes: &Classes, object: &mut Value, lookup: &dyn Lookup) {
    let path = ["spec", classes.field];
    if meta::at(object, &path).is_some() || meta::annotation(object, classes.older).is_some() {
        return;
    }
    if let Some(name) = default_of(classes, lookup) {
        meta::set(object, &path, name);
    }
}

fn default_of(classes: &Classes, lookup: &dyn Lookup) -> Option<String> {
    let texts = lookup.list(classes.group, classes.plural, "");
    let all = texts
        .iter()
        .filter_map(|text| serde_json::from_slice::<Value>(text).ok());
    let is_default = |class: &Value| {
        let marks = classes.marks.iter();
        marks.copied().any(|mark| meta::annotation(class, mark) == Some("true"))
    };
    let name = |class: &Value| meta::name(class).to_string();
    let created = |class: &Value| meta::string(class, &["metadata", "creationTimestamp"]).to_string();
    let newest = all
        .filter(is_default)
        .min_by_key(|class| (Reverse(created(class)), name(class)));
    newest.as_ref().map(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lookup::MapLookup;

    fn given(classes: &[(&str, &str, &str)], mut claim: Value) -> Value {
        let lookup = MapLookup::default();
        for (name, created, mark) in classes {
            let class =
                json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {*mark: "true"}}});
            lookup.put("storage.k8s.io", "storageclasses", &class);
        }
        admit(&STORAGE, &mut claim, &lookup);
        claim["spec"]["storageClassName"].clone()
    }

    #[test]
    fn the_newest_default_is_taken() {
        const MARK: &str = "storageclass.kubernetes.io/is-default-class";
        const BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let claim = || json!({"metadata": {}, "spec": {}});
        assert_eq!(given(&[], claim()), Value::Null);
        assert_eq!(given(&[("x", new, "other")], claim()), Value::Null);
        assert_eq!(
            given(&[("a", old, MARK), ("c", new, BETA), ("b", new, MARK)], claim()),
            "b"
        );
        let named = json!({"metadata": {}, "spec": {"storageClassName": ""}});
        assert_eq!(given(&[("a", old, MARK)], named), "");
        let annotated = json!({"metadata": {"annotations": {CLAIM_CLASS: "x"}}, "spec": {}});
        assert_eq!(given(&[("a", old, MARK)], annotated), Value::Null);
    }
}
