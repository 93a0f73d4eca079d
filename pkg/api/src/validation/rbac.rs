//! Roles and their bindings.

use serde_json::Value;

use super::{Errors, Path, each, has, invalid_each, label_selector, list, same, text};
use crate::names;
use crate::status::FieldError;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role(role: &Value, errors: &mut Errors) {
    rules(role, true, errors);
}

pub fn cluster_role(role: &Value, errors: &mut Errors) {
    rules(role, false, errors);
    if let Some(aggregation) = has(role, "aggregationRule") {
        let root = Path::new("aggregationRule");
        let path = root.child("clusterRoleSelectors");
        if list(aggregation, "clusterRoleSelectors").is_empty() {
            errors.push(FieldError::required(
                path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for (index, selector) in each(aggregation, "clusterRoleSelectors") {
            let (path, before) = (path.index(index), errors.len());
            label_selector(selector, &path, errors);
            if errors.len() > before {
                errors.push(FieldError::invalid(path, Value::Null, "invalid label selector."));
            }
        }
    }
}

fn rules(role: &Value, namespaced: bool, errors: &mut Errors) {
    let path = Path::new("rules");
    for (index, rule) in each(role, "rules") {
        policy_rule(rule, namespaced, &path.index(index), errors);
    }
}

fn policy_rule(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    if list(rule, "verbs").is_empty() {
        errors.push(FieldError::required(
            path.child("verbs"),
            "verbs must contain at least one value",
        ));
    }
    let urls = list(rule, "nonResourceURLs");
    if !urls.is_empty() {
        let shown = || Value::Array(urls.to_vec());
        if namespaced {
            errors.push(FieldError::invalid(
                path.child("nonResourceURLs"),
                shown(),
                "namespaced rules cannot apply to non-resource URLs",
            ));
        }
        if ["apiGroups", "resources", "resourceNames"]
            .iter()
            .any(|key| !list(rule, key).is_empty())
        {
            errors.push(FieldError::invalid(
                path.child("nonResourceURLs"),
                shown(),
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        return;
    }
    if list(rule, "apiGroups").is_empty() {
        errors.push(FieldError::required(
            path.child("apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if list(rule, "resources").is_empty() {
        errors.push(FieldError::required(
            path.child("resources"),
            "resource rules must supply at least one resource",
        ));
    }
}

pub fn role_binding(binding: &Value, errors: &mut Errors) {
    binding_of(binding, true, &["Role", "ClusterRole"], errors);
}

pub fn cluster_role_binding(binding: &Value, errors: &mut Errors) {
    binding_of(binding, false, &["ClusterRole"], errors);
}

fn binding_of(binding: &Value, namespaced: bool, kinds: &[&str], errors: &mut Errors) {
    let role = has(binding, "roleRef").unwrap_or(&Value::Null);
    if text(role, "apiGroup") != GROUP {
        errors.push(FieldError::not_supported(
            "roleRef.apiGroup",
            text(role, "apiGroup"),
            &[GROUP],
        ));
    }
    if !kinds.contains(&text(role, "kind")) {
        errors.push(FieldError::not_supported("roleRef.kind", text(role, "kind"), kinds));
    }
    match text(role, "name") {
        "" => errors.push(FieldError::required("roleRef.name", "")),
        name => {
            let path = Path::new("roleRef");
            invalid_each(errors, &path.child("name"), name, names::path_segment(name));
        }
    }
    let subjects = Path::new("subjects");
    for (index, own) in each(binding, "subjects") {
        subject(own, namespaced, &subjects.index(index), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => errors.push(FieldError::not_supported(
            path.child("kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
}

pub fn role_binding_update(new: &Value, old: &Value, errors: &mut Errors) {
    if !same(has(new, "roleRef"), has(old, "roleRef")) {
        errors.push(FieldError::invalid(
            "roleRef",
            has(new, "roleRef").cloned().unwrap_or(Value::Null),
            "cannot change roleRef",
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_and_subjects() {
        let mut errors = Errors::new();
        role(&json!({"rules": [{"verbs": ["get"]}]}), &mut errors);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["rules[0].apiGroups", "rules[0].resources"]);
        errors.clear();
        cluster_role(
            &json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]}),
            &mut errors,
        );
        assert_eq!(errors, []);
        cluster_role_binding(
            &json!({"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "x"},
                "subjects": [{"kind": "ServiceAccount", "name": "default"}]}),
            &mut errors,
        );
        assert_eq!(errors[0].to_string(), "subjects[0].namespace: Required value");
    }
}
