//! SubjectAccessReview in its three forms, and SelfSubjectRulesReview.

use mk8s_api::meta::{items, string};
use mk8s_api::selectors::{FieldSelector, FieldTerm};
use mk8s_api::status::{FieldError, Status};
use mk8s_api::validation::Errors;
use serde_json::{Map, Value, json};

use crate::filters::authz::{Attributes, Authorizer, Rule, node};
use crate::identity::User;

pub fn of_self(authorizer: &Authorizer, user: &User, object: &Value) -> Result<Value, Status> {
    let spec = &object["spec"];
    let mut errors = questions(spec);
    unnamed(object, false, &mut errors);
    refuse(errors)?;
    Ok(decide(authorizer, user, spec))
}

pub fn of_subject(authorizer: &Authorizer, object: &Value, namespace: Option<&str>) -> Result<Value, Status> {
    let spec = &object["spec"];
    let mut errors = questions(spec);
    let groups: Vec<String> = texts(&spec["groups"]);
    if string(spec, &["user"]).is_empty() && groups.is_empty() {
        errors.push(FieldError::invalid(
            "spec.user",
            "",
            "at least one of user or group must be specified",
        ));
    }
    unnamed(object, namespace.is_some(), &mut errors);
    if let Some(namespace) = namespace {
        if spec["resourceAttributes"].is_null() {
            errors.push(FieldError::invalid(
                "spec.resourceAttributes",
                Value::Null,
                "must be specified",
            ));
        } else if string(spec, &["resourceAttributes", "namespace"]) != namespace {
            let asked = string(spec, &["resourceAttributes", "namespace"]);
            let why = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", asked, why));
        }
    }
    refuse(errors)?;
    let extra = spec["extra"].as_object().into_iter().flatten();
    let user = User {
        name: string(spec, &["user"]).to_string(),
        uid: string(spec, &["uid"]).to_string(),
        groups,
        extra: extra.map(|(key, values)| (key.to_lowercase(), texts(values))).collect(),
    };
    Ok(decide(authorizer, &user, spec))
}

/// A question is no object, and has no name.
fn unnamed(object: &Value, in_namespace: bool, errors: &mut Errors) {
    let mut metadata = object["metadata"].clone();
    if let Value::Object(fields) = &mut metadata {
        // What the server sets, or drops, itself.
        let own = [
            "managedFields",
            "creationTimestamp",
            "uid",
            "resourceVersion",
            "generation",
            "selfLink",
        ];
        fields.retain(|key, value| {
            !own.contains(&key.as_str()) && !value.is_null() && *value != "" && (!in_namespace || key != "namespace")
        });
        if !fields.is_empty() {
            let why = if in_namespace {
                "must be empty except for namespace"
            } else {
                "must be empty"
            };
            errors.push(FieldError::invalid("metadata", object["metadata"].clone(), why));
        }
    }
}

/// Exactly one question.
fn questions(spec: &Value) -> Errors {
    match (
        spec["resourceAttributes"].is_null(),
        spec["nonResourceAttributes"].is_null(),
    ) {
        (true, true) => FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )
        .into(),
        (false, false) => FieldError::invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        )
        .into(),
        _ => Errors::new(),
    }
}

fn refuse(errors: Errors) -> Result<(), Status> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("authorization.k8s.io", "", "", &errors))
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect()
}

fn decide(authorizer: &Authorizer, user: &User, spec: &Value) -> Value {
    let resource = &spec["resourceAttributes"];
    let other = &spec["nonResourceAttributes"];
    let fields = fields(&resource["fieldSelector"]);
    let attributes = if resource.is_null() {
        let verb = string(other, &["verb"]);
        Attributes {
            is_resource: false,
            path: string(other, &["path"]),
            ..Attributes::of_resource(user, verb, "", "")
        }
    } else {
        Attributes {
            namespace: string(resource, &["namespace"]),
            subresource: string(resource, &["subresource"]),
            name: string(resource, &["name"]),
            field_selector: &fields,
            ..Attributes::of_resource(
                user,
                string(resource, &["verb"]),
                string(resource, &["group"]),
                string(resource, &["resource"]),
            )
        }
    };
    let decision = authorizer.decide(&attributes);
    let mut status = json!({"allowed": decision.allowed()});
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    status
}

/// The selector's text as it would stand in a query, or its requirements of one value. One that can't be read selects
/// everything, which grants least.
fn fields(selector: &Value) -> FieldSelector {
    let raw = string(selector, &["rawSelector"]);
    if !raw.is_empty() {
        return FieldSelector::parse(raw).unwrap_or_default();
    }
    let terms = items(selector, &["requirements"]).iter().filter_map(|requirement| {
        let [value] = items(requirement, &["values"]) else {
            return None;
        };
        (requirement["operator"] == "In").then(|| FieldTerm {
            field: string(requirement, &["key"]).to_string(),
            equals: true,
            value: value.as_str().unwrap_or_default().to_string(),
        })
    });
    FieldSelector { terms: terms.collect() }
}

pub fn rules(authorizer: &Authorizer, user: &User, object: &Value) -> Result<Value, Status> {
    let namespace = string(object, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = authorizer.rbac().rules_for(user, namespace);
    let is_resource = |rule: &&Rule| !rule.resources.is_empty();
    let resource: Vec<Value> = rules.iter().filter(is_resource).map(resource_rule).collect();
    let other: Vec<Value> = rules
        .iter()
        .filter(|rule| !rule.non_resource_urls.is_empty())
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
        .collect();
    let mut status = json!({"resourceRules": resource, "nonResourceRules": other, "incomplete": false});
    if node::node_name(user).is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(status)
}

fn resource_rule(rule: &Rule) -> Value {
    let mut out = Map::new();
    for (field, list) in [
        ("verbs", &rule.verbs),
        ("apiGroups", &rule.api_groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.resource_names),
    ] {
        if !list.is_empty() {
            out.insert(field.into(), json!(list));
        }
    }
    out.into()
}
