//! What is wrong with a status that a component reports: counts that cannot be, addresses that are none, decisions taken back.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::Value;

use super::rules::{self, Rules, Scope, always, among, call, name, non_negative, required, whole};
use super::{Errors, IMMUTABLE, Path, certificates, each, int, invalid_each, text};
use crate::meta as object;
use crate::names;
use crate::status::FieldError;

/// Of which some are parts of others (the part, the whole, how the whole is called).
type Parts = &'static [(&'static str, &'static str, &'static str)];

const DEPLOYMENT: Rules = &[
    non_negative("observedGeneration"),
    non_negative("replicas"),
    non_negative("updatedReplicas"),
    non_negative("readyReplicas"),
    non_negative("availableReplicas"),
    non_negative("unavailableReplicas"),
    non_negative("terminatingReplicas"),
    non_negative("collisionCount"),
];
const DEPLOYMENT_PARTS: Parts = &[
    ("updatedReplicas", "replicas", "status.replicas"),
    ("readyReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "readyReplicas", "readyReplicas"),
];

const REPLICAS: Rules = &[
    non_negative("replicas"),
    non_negative("fullyLabeledReplicas"),
    non_negative("readyReplicas"),
    non_negative("availableReplicas"),
    non_negative("terminatingReplicas"),
    non_negative("observedGeneration"),
];
const REPLICAS_PARTS: Parts = &[
    ("fullyLabeledReplicas", "replicas", "status.replicas"),
    ("readyReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "readyReplicas", "readyReplicas"),
];

const STATEFUL: Rules = &[
    non_negative("replicas"),
    non_negative("readyReplicas"),
    non_negative("currentReplicas"),
    non_negative("updatedReplicas"),
    non_negative("availableReplicas"),
    non_negative("observedGeneration"),
    non_negative("collisionCount"),
];
const STATEFUL_PARTS: Parts = &[
    ("readyReplicas", "replicas", "status.replicas"),
    ("currentReplicas", "replicas", "status.replicas"),
    ("updatedReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "readyReplicas", "status.readyReplicas"),
];

const DAEMONS: Rules = &[
    non_negative("currentNumberScheduled"),
    non_negative("numberMisscheduled"),
    non_negative("desiredNumberScheduled"),
    non_negative("numberReady"),
    non_negative("observedGeneration"),
    non_negative("updatedNumberScheduled"),
    non_negative("numberAvailable"),
    non_negative("numberUnavailable"),
    non_negative("collisionCount"),
];

const BUDGET: Rules = &[
    call("conditions", conditions),
    non_negative("disruptionsAllowed"),
    non_negative("currentHealthy"),
    non_negative("desiredHealthy"),
    non_negative("expectedPods"),
];

const AUTOSCALER: Rules = &[non_negative("currentReplicas"), non_negative("desiredReplicas")];

const CONDITION: Rules = &[
    always("type", names::qualified_name),
    among("status", &["False", "True", "Unknown"]),
    whole(observed_at_all),
    required("lastTransitionTime"),
    name("reason", names::condition_reason),
    call("reason", reason_length),
    call("message", message_length),
];

const STATUS: Path<'static> = Path::new("status");

fn checked(rules: Rules, parts: Parts, new: &Value, errors: &mut Errors) {
    let status = &new["status"];
    rules::check(rules, status, &Scope::of(new), &STATUS, errors);
    for (part, whole, name) in parts {
        let own = int(status, part).unwrap_or(0);
        if own > int(status, whole).unwrap_or(0) {
            let why = format!("cannot be greater than {name}");
            errors.push(FieldError::invalid(STATUS.child(part), own, why));
        }
    }
}

/// What names of a kind's revisions begin with only ever grows.
fn collisions(new: &Value, old: &Value, errors: &mut Errors) {
    let count = |object: &Value| int(&object["status"], "collisionCount");
    if let Some(before) = count(old)
        && count(new).is_none_or(|own| own < before)
    {
        let own = count(new).unwrap_or(0);
        errors.push(FieldError::invalid(
            STATUS.child("collisionCount"),
            own,
            "cannot be decremented",
        ));
    }
}

pub fn deployment_status(new: &Value, old: &Value, errors: &mut Errors) {
    checked(DEPLOYMENT, DEPLOYMENT_PARTS, new, errors);
    collisions(new, old, errors);
}

/// Of a ReplicaSet and of a ReplicationController.
pub fn replicas_status(new: &Value, _old: &Value, errors: &mut Errors) {
    checked(REPLICAS, REPLICAS_PARTS, new, errors);
}

pub fn stateful_set_status(new: &Value, old: &Value, errors: &mut Errors) {
    checked(STATEFUL, STATEFUL_PARTS, new, errors);
    collisions(new, old, errors);
}

pub fn daemon_set_status(new: &Value, old: &Value, errors: &mut Errors) {
    checked(DAEMONS, &[], new, errors);
    collisions(new, old, errors);
}

pub fn disruption_budget_status(new: &Value, _old: &Value, errors: &mut Errors) {
    checked(BUDGET, &[], new, errors);
}

pub fn autoscaler_status(new: &Value, _old: &Value, errors: &mut Errors) {
    checked(AUTOSCALER, &[], new, errors);
}

/// Conditions as `metav1.Condition` has them.
pub(super) fn conditions(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, condition) in super::numbered(own) {
        let path = path.index(index);
        let kind = text(condition, "type");
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
        rules::check(CONDITION, condition, scope, &path, errors);
    }
}

fn observed_at_all(condition: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(generation) = int(condition, "observedGeneration").filter(|&generation| generation < 0) {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path.child("observedGeneration"), generation, why));
    }
}

fn reason_length(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    no_longer(own, 1024, path, errors);
}

fn message_length(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    no_longer(own, 32 * 1024, path, errors);
}

fn no_longer(own: &Value, most: usize, path: &Path<'_>, errors: &mut Errors) {
    if own.as_str().is_some_and(|own| own.len() > most) {
        errors.push(FieldError::too_long(path, most));
    }
}

/// A Pod's addresses are addresses, its class of quality of service is what it was created with. The spec is looked at in `old`
/// alone, and only where [`pod_status_by_itself`](super::pod_status_by_itself) says no; but for windows', whose pods nobody runs.
pub fn pod_status(new: &Value, old: &Value, errors: &mut Errors) {
    let (path, status) = (Path::new("status"), &new["status"]);
    pod_conditions(status, &path.child("conditions"), errors);
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != object::string(old, &["status", "nominatedNodeName"]) {
        let path = path.child("nominatedNodeName");
        invalid_each(errors, &path, nominated, names::dns_subdomain(nominated));
        if !object::string(old, &["spec", "nodeName"]).is_empty() {
            errors.push(FieldError::forbidden(
                path,
                "may not be set on pods that are already bound to a node",
            ));
        }
    }
    observed(status, &path, errors);
    let class = text(status, "qosClass");
    let before = object::string(old, &["status", "qosClass"]);
    // A status that names none keeps it.
    if !before.is_empty() && !class.is_empty() && class != before {
        errors.push(FieldError::invalid(path.child("qosClass"), class, IMMUTABLE));
    }
    let spec = &old["spec"];
    super::pod_transitions::transitions(status, &old["status"], spec, &path, errors);
    if status.get("resourceClaimStatuses") != object::at(old, &["status", "resourceClaimStatuses"]) {
        claim_statuses(status, spec, &path.child("resourceClaimStatuses"), errors);
    }
    addresses(status, &old["status"], "podIPs", &path, errors);
    if let Some((_, first)) = each(status, "hostIPs").next()
        && text(first, "ip") != text(status, "hostIP")
    {
        errors.push(FieldError::invalid(
            path.child("hostIPs").index(0).child("ip"),
            text(first, "ip"),
            "must be equal to `hostIP`",
        ));
    }
    addresses(status, &old["status"], "hostIPs", &path, errors);
    if !matches!(object::string(spec, &["os", "name"]), "windows") {
        rules::check(USERS, status, &Scope::of(new), &path, errors);
    }
}

const USERS: Rules = &[
    rules::each("containerStatuses", USER),
    rules::each("initContainerStatuses", USER),
    rules::each("ephemeralContainerStatuses", USER),
];

const USER: Rules = &[rules::object(
    "user",
    &[rules::object(
        "linux",
        &[
            rules::range("uid", 0, MAX_ID),
            rules::range("gid", 0, MAX_ID),
            rules::numbers("supplementalGroups", 0, MAX_ID),
        ],
    )],
)];

const MAX_ID: i64 = 2_147_483_647;

fn pod_conditions(status: &Value, path: &Path<'_>, errors: &mut Errors) {
    const KNOWN: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
    for (index, condition) in each(status, "conditions") {
        let path = path.index(index);
        observed(condition, &path, errors);
        let kind = text(condition, "type");
        if !KNOWN.contains(&kind) {
            invalid_each(errors, &path.child("Type"), kind, names::qualified_name(kind));
        }
    }
}

fn observed(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(generation) = int(own, "observedGeneration").filter(|&generation| generation < 0) {
        errors.push(FieldError::invalid(
            path.child("observedGeneration"),
            generation,
            "must be a non-negative integer",
        ));
    }
}

/// Of a pod or its node: those it had may stay, and of each family there is one.
fn addresses(status: &Value, before: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child(field);
    let own: Vec<&str> = each(status, field).map(|(_, address)| text(address, "ip")).collect();
    for (index, ip) in own.iter().enumerate() {
        if !each(before, field).any(|(_, had)| text(had, "ip") == *ip) {
            invalid_each(errors, &path.index(index), ip, names::legacy_ip(ip));
        }
    }
    if own.len() > 1
        && let Some((index, ip)) = own.iter().enumerate().find(|(_, ip)| !names::legacy_ip(ip).is_empty())
    {
        let why = format!("failed to check for dual stack with error:invalid IP[{index}]: {ip}");
        errors.push(FieldError::internal(path, why));
    }
    let sixes = own.iter().filter(|ip| names::ipv6(ip)).count();
    if own.len() > 2 || (own.len() == 2 && sixes != 1) {
        errors.push(FieldError::invalid(
            path,
            status[field].clone(),
            "may specify no more than one IP for each IP family",
        ));
    }
}

fn claim_statuses(status: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let known: HashSet<&str> = each(spec, "resourceClaims")
        .map(|(_, claim)| text(claim, "name"))
        .collect();
    let mut seen = HashSet::new();
    for (index, own) in each(status, "resourceClaimStatuses") {
        let path = path.index(index);
        let path = path.child("name");
        let name = text(own, "name");
        if !known.contains(name) {
            errors.push(FieldError::invalid(
                path,
                name,
                "must match the name of an entry in `spec.resourceClaims`",
            ));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
        if let Some(claim) = own.get("resourceClaimName").and_then(Value::as_str) {
            invalid_each(errors, &path, claim, names::dns_subdomain(claim));
        }
    }
}

/// Of an Ingress: where its load balancer is found.
pub fn load_balancer_status(new: &Value, _old: &Value, errors: &mut Errors) {
    balancer_ingress(new, errors, |_, _, _| {});
}

/// Of a Service: where its load balancer is found. Nodes take over what is named here, so only a Service that has a balancer
/// may.
pub fn service_status(new: &Value, _old: &Value, errors: &mut Errors) {
    if text(&new["spec"], "type") == "LoadBalancer" {
        balancer_ingress(new, errors, ip_mode);
    } else if each(&new["status"]["loadBalancer"], "ingress").next().is_some() {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden("status.loadBalancer.ingress", why));
    }
}

/// `more` is asked about each point, at its path.
fn balancer_ingress(new: &Value, errors: &mut Errors, more: impl Fn(&Value, &Path<'_>, &mut Errors)) {
    let path = Path::new("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    for (index, ingress) in each(&new["status"]["loadBalancer"], "ingress") {
        let path = path.index(index);
        let (ip, host) = (text(ingress, "ip"), text(ingress, "hostname"));
        if !ip.is_empty() {
            invalid_each(errors, &path.child("ip"), ip, names::ip(ip));
        }
        more(ingress, &path, errors);
        if !host.is_empty() {
            invalid_each(errors, &path.child("hostname"), host, names::dns_subdomain(host));
            if names::ip(host).is_empty() {
                let why = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(path.child("hostname"), host, why));
            }
        }
    }
}

fn ip_mode(ingress: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("ipMode");
    let named = !text(ingress, "ip").is_empty();
    match ingress.get("ipMode").and_then(Value::as_str) {
        None if named => errors.push(FieldError::required(path, "must be specified when `ip` is set")),
        Some(_) if !named => errors.push(FieldError::forbidden(path, "may not be specified when `ip` is not set")),
        Some(mode) if !["Proxy", "VIP"].contains(&mode) => {
            errors.push(FieldError::not_supported(path, mode, &["Proxy", "VIP"]));
        }
        _ => {}
    }
}

/// A signing request's status, as whoever signs it writes it: the decision is another's.
pub fn signing_request_status(new: &Value, old: &Value, errors: &mut Errors) {
    signing_request_approval(new, old, errors);
    for decision in ["Approved", "Denied"] {
        let own = |request: &Value| -> Vec<Value> {
            let conditions = object::items(request, &["status", "conditions"]).iter();
            conditions
                .filter(|condition| text(condition, "type") == decision)
                .cloned()
                .collect()
        };
        let (now, before) = (own(new), own(old));
        let what = match now.len().cmp(&before.len()) {
            // It was told before.
            Ordering::Less => continue,
            Ordering::Greater => "add",
            Ordering::Equal if now != before => "modify",
            Ordering::Equal => continue,
        };
        errors.push(FieldError::forbidden(
            STATUS.child("conditions"),
            format!("updates may not {what} a condition of type {decision:?}"),
        ));
    }
    let certificate = |request| object::string(request, &["status", "certificate"]);
    if !certificate(old).is_empty() && certificate(new) != certificate(old) {
        let why = "updates may not modify existing certificate content";
        errors.push(FieldError::forbidden(STATUS.child("certificate"), why));
    }
}

/// A signing request's conditions, through /approval: none contradicts another, and no decision is taken back.
pub fn signing_request_approval(new: &Value, old: &Value, errors: &mut Errors) {
    certificates::conditions(new, errors);
    for decision in ["Approved", "Denied", "Failed"] {
        let count = |request: &Value| {
            let conditions = object::items(request, &["status", "conditions"]);
            conditions
                .iter()
                .filter(|condition| text(condition, "type") == decision)
                .count()
        };
        if count(new) < count(old) {
            errors.push(FieldError::forbidden(
                Path::new("status").child("conditions"),
                format!("updates may not remove a condition of type {decision:?}"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Check = fn(&Value, &Value, &mut Errors);

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn statuses_that_cannot_be_are_refused() {
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let both =
            json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]});
        let rows: [(Check, Value, Value, &[&str]); 10] = [
            (
                deployment_status,
                json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}),
                json!({}),
                &[],
            ),
            (
                deployment_status,
                json!({"collisionCount": -1}),
                json!({}),
                &["status.collisionCount"],
            ),
            (
                replicas_status,
                json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 2}),
                json!({}),
                &["status.availableReplicas", "status.availableReplicas"],
            ),
            (
                stateful_set_status,
                json!({"replicas": 1, "currentReplicas": 2}),
                json!({}),
                &["status.currentReplicas"],
            ),
            (
                pod_status,
                json!({"qosClass": "Burstable", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "x"}]}),
                json!({"qosClass": "BestEffort"}),
                &["status.qosClass", "status.podIPs[1]", "status.podIPs", "status.podIPs"],
            ),
            (
                pod_status,
                json!({"qosClass": "Burstable", "podIPs": [{"ip": "fd00::1"}]}),
                json!({}),
                &[],
            ),
            (
                load_balancer_status,
                json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.300"}, {"hostname": "10.0.0.1"}, {"hostname": "a.b"}]}}),
                json!({}),
                &[
                    "status.loadBalancer.ingress[0].ip",
                    "status.loadBalancer.ingress[1].hostname",
                ],
            ),
            (signing_request_approval, approved.clone(), json!({}), &[]),
            (
                signing_request_approval,
                both,
                approved.clone(),
                &["status.conditions[1].type"],
            ),
            (signing_request_status, json!({}), approved, &["status.conditions"]),
        ];
        for (check, new, old, expected) in rows {
            let mut errors = Errors::new();
            check(&json!({"status": new}), &json!({"status": old}), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, expected, "{new}");
        }
    }

    #[test]
    fn only_a_load_balancers_service_names_where_it_is() {
        let problems = |type_: &str, ingress: Value| {
            let mut errors = Errors::new();
            let service = json!({"spec": {"type": type_}, "status": {"loadBalancer": {"ingress": ingress}}});
            service_status(&service, &Value::Null, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let ip = || json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]);
        assert_eq!(
            problems("ClusterIP", ip()),
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]
        );
        assert_eq!(problems("NodePort", json!([])), Vec::<String>::new());
        assert_eq!(problems("LoadBalancer", ip()), Vec::<String>::new());
        let points = json!([{"ip": "192.0.2.1"}, {"hostname": "a.b", "ipMode": "VIP"}, {"ip": "192.0.2.1", "ipMode": "x"},
            {"ip": "192.0.2.300", "ipMode": "Proxy"}, {"hostname": "a.b"}]);
        let fields: Vec<String> = problems("LoadBalancer", points)
            .iter()
            .map(|problem| problem.split(": ").take(2).collect::<Vec<_>>().join(": "))
            .collect();
        assert_eq!(
            fields,
            [
                "status.loadBalancer.ingress[0].ipMode: Required value",
                "status.loadBalancer.ingress[1].ipMode: Forbidden",
                "status.loadBalancer.ingress[2].ipMode: Unsupported value",
                "status.loadBalancer.ingress[3].ip: Invalid value",
            ]
        );
    }
}
