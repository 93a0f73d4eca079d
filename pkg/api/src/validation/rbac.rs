//! Roles and their bindings.

use serde_json::Value;

use super::rules::{
    Cases, Rule, Rules, Scope, all, among, by, check_object, each, format, name, object, required, required_saying,
    structure, told, whole, without,
};
use super::{Errors, Path, has, label_selector, list, same};
use crate::names;
use crate::status::FieldError;

const ROLE: Rules = &[each(
    "rules",
    &[
        SOME_VERBS,
        told(
            "nonResourceURLs",
            refused,
            "namespaced rules cannot apply to non-resource URLs",
        ),
        whole(one_of_both),
        OF_RESOURCES,
    ],
)];

const CLUSTER_ROLE: Rules = &[
    each("rules", &[SOME_VERBS, whole(one_of_both), OF_RESOURCES]),
    object(
        "aggregationRule",
        &[
            required_saying(
                "clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ),
            each("clusterRoleSelectors", &[whole(selector)]),
        ],
    ),
];

const SOME_VERBS: Rule = required_saying("verbs", "verbs must contain at least one value");
const OF_RESOURCES: Rule = without(
    "nonResourceURLs",
    &[
        required_saying("apiGroups", "resource rules must supply at least one api group"),
        required_saying("resources", "resource rules must supply at least one resource"),
    ],
);

const BINDING: Rules = &[
    structure("roleRef", &[GROUP, among("kind", &["Role", "ClusterRole"]), ROLE_NAME]),
    each("subjects", SUBJECT),
];

const CLUSTER_BINDING: Rules = &[
    structure("roleRef", &[GROUP, among("kind", &["ClusterRole"]), ROLE_NAME]),
    each("subjects", &[all(SUBJECT), by("kind", &OF_A_NAMESPACE)]),
];

const GROUP: Rule = among("apiGroup", &["rbac.authorization.k8s.io"]);
const ROLE_NAME: Rule = name("name", names::path_segment);

const SUBJECT: Rules = &[required("name"), by("kind", &BY_KIND)];

const BY_KIND: Cases = Cases {
    of: &[
        (
            &["ServiceAccount"],
            &[format("name", names::dns_subdomain), among("apiGroup", &[""])],
        ),
        (&["User", "Group"], &[GROUP]),
    ],
    otherwise: &[among("kind", &["ServiceAccount", "User", "Group"])],
};

const OF_A_NAMESPACE: Cases = Cases {
    of: &[(&["ServiceAccount"], &[required("namespace")])],
    otherwise: &[],
};

pub fn role(role: &Value, errors: &mut Errors) {
    check_object(ROLE, role, errors);
}

pub fn cluster_role(role: &Value, errors: &mut Errors) {
    check_object(CLUSTER_ROLE, role, errors);
}

pub fn role_binding(binding: &Value, errors: &mut Errors) {
    check_object(BINDING, binding, errors);
}

pub fn cluster_role_binding(binding: &Value, errors: &mut Errors) {
    check_object(CLUSTER_BINDING, binding, errors);
}

fn refused(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors, why: &'static str) {
    if !super::is_empty(Some(own)) {
        errors.push(FieldError::invalid(path, own.clone(), why));
    }
}

fn one_of_both(rule: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let set = |key: &&str| !list(rule, key).is_empty();
    let urls = has(rule, "nonResourceURLs");
    if let Some(urls) = urls.filter(|_| ["apiGroups", "resources", "resourceNames"].iter().any(set)) {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        refused(urls, scope, &path.child("nonResourceURLs"), errors, why);
    }
}

fn selector(selector: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let before = errors.len();
    label_selector(selector, path, errors);
    if errors.len() > before {
        errors.push(FieldError::invalid(path, Value::Null, "invalid label selector."));
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
            &json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "x"},
                "subjects": [{"kind": "ServiceAccount", "name": "default"}]}),
            &mut errors,
        );
        assert_eq!(errors[0].to_string(), "subjects[0].namespace: Required value");
    }
}
