//! Resource requirements: names, quantities, requests against limits, claims.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::rules::Scope;
use super::{Errors, NEGATIVE, Path, has, list as items, numbered, text};
use crate::meta as object_at;
use crate::names;
use crate::quantity::{self, Quantity};
use crate::status::FieldError;

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const POD: [&str; 3] = ["cpu", "hugepages-", "memory"];

/// What a resource may be called, in a container or in a pod.
type NameCheck = fn(&str, &Path<'_>, &mut Errors);

fn is_hugepage(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_hugepage(name)
}

/// What is a resource anywhere: of containers, of quotas, of claims.
fn is_standard(name: &str) -> bool {
    const STANDARD: [&str; 20] = [
        "configmaps",
        "cpu",
        "ephemeral-storage",
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "memory",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
        "storage",
    ];
    STANDARD.contains(&name) || is_hugepage(name) || name.starts_with("requests.hugepages-")
}

fn resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let problems = names::qualified_name(name);
    let mut good = problems.is_empty();
    super::invalid_each(errors, path, name, problems);
    if good && !name.contains('/') && !is_standard(name) {
        good = false;
        errors.push(FieldError::invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        ));
    }
    good
}

pub(super) fn container_resource(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if CONTAINER.contains(&name) {
        return;
    }
    resource_name(name, path, errors);
    let why = if !name.contains('/') {
        if is_hugepage(name) {
            return;
        }
        "must be a standard resource for containers"
    } else if is_native(name) || is_extended(name) {
        return;
    } else {
        "doesn't follow extended resource name standard"
    };
    errors.push(FieldError::invalid(path, name, why));
}

fn pod_resource(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if resource_name(name, path, errors) && !matches!(name, "cpu" | "memory") && !is_hugepage(name) {
        errors.push(FieldError::not_supported(path, name, &POD));
    }
}

pub(super) fn quantity_value(name: &str, value: &Value, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    let quantity = match quantity::from_json(value) {
        Ok(quantity) => quantity,
        Err(error) => {
            errors.push(FieldError::invalid(path, value.clone(), error.to_string()));
            return None;
        }
    };
    if quantity.signum() < 0 {
        errors.push(FieldError::invalid(path, quantity.to_string(), NEGATIVE));
    }
    if is_extended(name) && !quantity.is_whole() {
        errors.push(FieldError::invalid(path, quantity.to_string(), "must be an integer"));
    }
    Some(quantity)
}

/// Huge pages are had whole.
fn pages(name: &str, quantity: &Quantity, path: &Path<'_>, errors: &mut Errors) {
    if is_hugepage(name) && !whole_pages(name, quantity) {
        errors.push(FieldError::invalid(
            path,
            quantity.to_string(),
            format!("{quantity} is not positive integer multiple of {name}"),
        ));
    }
}

fn whole_pages(name: &str, quantity: &Quantity) -> bool {
    let page = name
        .strip_prefix("hugepages-")
        .and_then(|size| Quantity::parse(size).ok());
    page.is_some_and(|page| page.signum() > 0 && page.is_whole() && quantity.value() % page.value() == 0)
}

fn quantities<'a>(resources: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    has(resources, key).and_then(Value::as_object)
}

/// `resources` of a container.
pub(super) fn of_container(resources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    requirements(resources, container_resource, path, errors);
    claims(resources, scope, &path.child("claims"), errors);
}

/// A pod's overhead, which is told as limits.
pub(super) fn overhead(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    let limits = path.child("limits");
    for (name, value) in own.as_object().into_iter().flatten() {
        let path = limits.key(name);
        container_resource(name, &path, errors);
        quantity_value(name, value, &path, errors);
    }
}

/// `limits` and `requests`.
fn requirements(resources: &Value, name_check: NameCheck, path: &Path<'_>, errors: &mut Errors) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let limits = quantities(resources, "limits");
    let requests = quantities(resources, "requests");
    for (name, value) in limits.into_iter().flatten() {
        let path = limits_path.key(name);
        name_check(name, &path, errors);
        if let Some(limit) = quantity_value(name, value, &path, errors) {
            pages(name, &limit, &path, errors);
        }
    }
    for (name, value) in requests.into_iter().flatten() {
        let path = requests_path.key(name);
        name_check(name, &path, errors);
        let Some(request) = quantity_value(name, value, &path, errors) else {
            continue;
        };
        match limits
            .and_then(|limits| limits.get(name))
            .and_then(|limit| quantity::from_json(limit).ok())
        {
            Some(limit) if request != limit && !overcommit_allowed(name) => errors.push(FieldError::invalid(
                requests_path,
                request.to_string(),
                format!("must be equal to {name} limit of {limit}"),
            )),
            Some(limit) if request > limit => errors.push(FieldError::invalid(
                requests_path,
                request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            )),
            None if !overcommit_allowed(name) => errors.push(FieldError::required(
                limits_path,
                "Limit must be set for non overcommitable resources",
            )),
            _ => {}
        }
        pages(name, &request, &path, errors);
    }
    let names = || limits.into_iter().chain(requests).flat_map(Map::keys);
    if names().any(|name| is_hugepage(name)) && !names().any(|name| matches!(name.as_str(), "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// `claims` of a container: each of the pod's, as a whole or one request of it, and none twice.
fn claims(resources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(pod) = scope.pod else { return };
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    let mut named: HashSet<&str> = HashSet::new();
    for (index, claim) in items(resources, "claims").iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if seen.contains(&(name, "")) {
            errors.push(FieldError::duplicate(path, name));
        } else {
            if !request.is_empty() {
                super::invalid_each(errors, &path.child("request"), request, names::dns_label(request));
            }
            if !seen.insert((name, request)) {
                errors.push(FieldError::duplicate(path, format!("{name}/{request}")));
            } else if request.is_empty() && named.contains(name) {
                errors.push(FieldError::duplicate(path, name));
            }
            named.insert(name);
        }
        if !pod.claims.contains(name) {
            errors.push_with(|| unknown_claim(path, name, &pod.claims));
        }
    }
}

fn unknown_claim(path: Path<'_>, name: &str, known: &HashSet<&str>) -> FieldError {
    let mut known: Vec<&str> = known.iter().copied().collect();
    known.sort_unstable();
    let mut error = FieldError::not_found(path, name);
    error.detail = "must be one of the names in pod.spec.resourceClaims".into();
    error.detail += &match known.as_slice() {
        [] => " which is empty".to_string(),
        known => format!(": {}", known.join(", ")),
    };
    error
}

/// `resources` of a pod itself: what its containers ask for has to fit.
pub(super) fn of_pod(resources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(pod) = scope.pod else { return };
    if object_at::str_at(pod.spec, &["os", "name"]) == Some("windows") {
        return errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
    }
    if has(resources, "claims").is_some() {
        errors.push(FieldError::forbidden(
            path.child("claims"),
            "claims may not be set for Resources at pod-level",
        ));
    }
    requirements(resources, pod_resource, path, errors);
    for (key, only_pages) in [("requests", false), ("limits", true)] {
        let own_path = path.child(key);
        let sums = pod.spec.as_object().map(|spec| quantity::aggregate(spec, key));
        for (name, value) in quantities(resources, key).into_iter().flatten() {
            let sum = sums.as_ref().and_then(|sums| sums.get(name.as_str()));
            let (Ok(own), Some(sum)) = (quantity::from_json(value), sum) else {
                continue;
            };
            if *sum > own && (is_hugepage(name) || !only_pages) {
                errors.push(FieldError::invalid(
                    own_path.key(name),
                    own.to_string(),
                    format!("must be greater than or equal to aggregate container {key} of {sum}"),
                ));
            }
        }
    }
    let containers = path.child("containers");
    for (index, container) in items(pod.spec, "containers").iter().enumerate() {
        let limits = object_at::map_at(container, &["resources", "limits"]);
        for (name, value) in limits.into_iter().flatten() {
            let limit = object_at::at(resources, &["limits", name]).and_then(|limit| quantity::from_json(limit).ok());
            let (Ok(own), Some(limit)) = (quantity::from_json(value), limit) else {
                continue;
            };
            if own > limit {
                errors.push(FieldError::invalid(
                    containers.index(index).key(name).child("limits"),
                    own.to_string(),
                    format!("must be less than or equal to pod limits of {limit}"),
                ));
            }
        }
    }
}

/// `resourceClaims` of a pod.
pub(super) fn pod_claims(claims: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let is_pod = scope.pod.is_some_and(|pod| pod.is_pod);
    let mirrored = is_pod && object_at::annotation(scope.object, super::pod_annotations::MIRROR).is_some();
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, claim) in numbered(claims) {
        if mirrored {
            errors.push(FieldError::forbidden("", "static pods do not support resource claims"));
            continue;
        }
        pod_claim(claim, &mut seen, &path.index(index), errors);
    }
}

fn pod_claim<'a>(claim: &'a Value, seen: &mut HashSet<&'a str>, path: &Path<'_>, errors: &mut Errors) {
    const KINDS: [&str; 2] = ["resourceClaimName", "resourceClaimTemplateName"];
    let name = text(claim, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else if !seen.insert(name) {
        errors.push(FieldError::duplicate(path.child("name"), name));
    } else {
        super::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
    }
    let why = match KINDS.map(|kind| has(claim, kind).is_some()) {
        [true, true] => Some("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
        [false, false] => Some("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
        _ => None,
    };
    if let Some(why) = why {
        // shown as upstream's own type has it
        let shown = serde_json::json!({"Name": name, "ResourceClaimName": has(claim, KINDS[0]), "ResourceClaimTemplateName": has(claim, KINDS[1])});
        errors.push(FieldError::invalid(path, shown, why));
    }
    for kind in KINDS {
        if let Some(own) = has(claim, kind).and_then(Value::as_str) {
            super::invalid_each(errors, &path.child(kind), own, names::dns_subdomain(own));
        }
    }
}
