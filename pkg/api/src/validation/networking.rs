//! networking.k8s.io: ingresses, their classes, policies and service addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::node_selector::selector;
use super::rules::{
    Rules, Scope, all, call, check_object, each, format, format_if_set, name, object, one_of_if_set, required,
    structure, whole,
};
use super::{
    Errors, IMMUTABLE, Path, SPEC, has, immutable, immutable_text, int, invalid_each, list, numbered, spec_of, strings,
    text,
};
use crate::status::FieldError;
use crate::{meta, names};

const INGRESS: Rules = &[structure("spec", INGRESS_SPEC)];

const INGRESS_SPEC: Rules = &[
    whole(something_served),
    object("defaultBackend", BACKEND),
    each("rules", &[format("host", rule_host), object("http", HTTP)]),
    each(
        "tls",
        &[call("hosts", tls_hosts), format("secretName", names::dns_subdomain)],
    ),
    format_if_set("ingressClassName", names::dns_subdomain),
];

const HTTP: Rules = &[required("paths"), each("paths", &[whole(http_path)])];

const BACKEND: Rules = &[whole(backend)];

const SERVICE: Rules = &[name("name", names::dns_1035_label)];

const TYPED: Rules = &[
    format_if_set("apiGroup", names::dns_subdomain),
    name("kind", names::path_segment),
    name("name", names::path_segment),
];

pub fn ingress(ingress: &Value, errors: &mut Errors) {
    check_object(INGRESS, ingress, errors);
    // Only a new one is held to this; a changed one has a version.
    let new = meta::string(ingress, &["metadata", "resourceVersion"]).is_empty();
    const CLASS: &str = "kubernetes.io/ingress.class";
    let annotation = meta::str_at(ingress, &["metadata", "annotations", CLASS]);
    let class = meta::str_at(ingress, &["spec", "ingressClassName"]);
    if let (true, Some(annotation), Some(class)) = (new, annotation, class)
        && annotation != class
    {
        errors.push(FieldError::invalid(
            format!("annotations.{CLASS}"),
            annotation,
            "must match `ingressClassName` when both are specified",
        ));
    }
}

fn something_served(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if list(spec, "rules").is_empty() && has(spec, "defaultBackend").is_none() {
        errors.push(FieldError::invalid(
            path,
            has(spec, "rules").cloned().unwrap_or_default(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
}

fn host(host: &str) -> Vec<String> {
    if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::dns_subdomain(host)
    }
}

fn rule_host(own: &str) -> Vec<String> {
    let mut problems = host(own);
    if own.parse::<IpAddr>().is_ok() {
        problems.insert(0, "must be a DNS name, not an IP address".to_string());
    }
    problems
}

fn tls_hosts(hosts: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (index, own) in numbered(hosts) {
        let own = own.as_str().unwrap_or("");
        invalid_each(errors, &path.index(index), own, host(own));
    }
}

fn http_path(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const KINDS: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
    let (kind, route) = (has(own, "pathType").and_then(Value::as_str), text(own, "path"));
    let mut wrong = |detail: String| errors.push(FieldError::invalid(path.child("path"), route, detail));
    let literal = matches!(kind, Some("Exact" | "Prefix"));
    match kind {
        None => {
            return errors.push(FieldError::required(
                path.child("pathType"),
                "pathType must be specified",
            ));
        }
        Some(kind) if !KINDS.contains(&kind) => {
            errors.push(FieldError::not_supported(path.child("pathType"), kind, &KINDS));
        }
        Some(_) => {
            if !route.starts_with('/') && (literal || !route.is_empty()) {
                wrong("must be an absolute path".to_string());
            }
            let (inside, at_end) = if literal {
                (&["//", "/./", "/../", "%2f", "%2F"][..], &["/..", "/."][..])
            } else {
                (&[][..], &[][..])
            };
            for part in inside.iter().filter(|part| route.contains(**part)) {
                wrong(format!("must not contain '{part}'"));
            }
            for end in at_end.iter().filter(|end| route.ends_with(**end)) {
                wrong(format!("cannot end with '{end}'"));
            }
        }
    }
    let of = has(own, "backend").unwrap_or(&Value::Null);
    backend(of, scope, &path.child("backend"), errors);
}

fn backend(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let child = |field: &'static str, rules: Rules, errors: &mut Errors| {
        super::rules::check(rules, &own[field], scope, &path.child(field), errors);
    };
    match (has(own, "service"), has(own, "resource")) {
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            path,
            "",
            "cannot set both resource and service backends",
        )),
        (None, Some(_)) => child("resource", TYPED, errors),
        (Some(service), None) => {
            child("service", SERVICE, errors);
            let port = has(service, "port").unwrap_or(&Value::Null);
            let (port_name, number) = (text(port, "name"), int(port, "number").unwrap_or(0));
            let at = path.child("service");
            let at = at.child("port");
            match (port_name.is_empty(), number) {
                (true, 0) => errors.push(FieldError::required(path, "port name or number is required")),
                (false, 0) => invalid_each(errors, &at.child("name"), port_name, names::port_name(port_name)),
                (true, number) => port_number(number, &at.child("number"), errors),
                (false, _) => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
            }
        }
    }
}

fn port_number(number: i64, path: &Path<'_>, errors: &mut Errors) {
    for problem in names::port_number(number) {
        errors.push(FieldError::invalid(path, number, problem));
    }
}

const INGRESS_CLASS: Rules = &[structure(
    "spec",
    &[
        whole(controller),
        object("parameters", &[all(TYPED), whole(parameters_scope)]),
    ],
)];

pub fn ingress_class(class: &Value, errors: &mut Errors) {
    check_object(INGRESS_CLASS, class, errors);
}

fn controller(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const LONGEST: usize = 250;
    let (path, own) = (path.child("controller"), text(spec, "controller"));
    if own.len() > LONGEST {
        errors.push(FieldError::too_long(path, LONGEST));
    }
    domain_prefixed_path(own, &path, errors);
}

/// `example.com/name`
pub(super) fn domain_prefixed_path(own: &str, path: &Path<'_>, errors: &mut Errors) {
    const REGEX: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
    if own.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let Some((domain, rest)) = own
        .split_once('/')
        .filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return errors.push(FieldError::invalid(
            path,
            own,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
    };
    invalid_each(errors, path, domain, names::dns_subdomain(domain));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(known) {
        errors.push(FieldError::invalid(
            path,
            rest,
            names::regex_error("Invalid path", REGEX, &[]),
        ));
    }
}

fn parameters_scope(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let namespace = has(own, "namespace").and_then(Value::as_str);
    let at = path.child("namespace");
    match (has(own, "scope").and_then(Value::as_str), namespace) {
        (None, _) => errors.push(FieldError::required(path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => invalid_each(errors, &at, namespace, names::dns_label(namespace)),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(at, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => errors.push(FieldError::not_supported(
            path.child("scope"),
            other,
            &["Cluster", "Namespace"],
        )),
    }
}

pub fn ingress_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable_text(errors, new, old, &["spec", "controller"], "spec.controller");
}

const NETWORK_POLICY: Rules = &[structure(
    "spec",
    &[
        call("podSelector", selector),
        each("ingress", &[each("ports", POLICY_PORT), each("from", PEER)]),
        each("egress", &[each("ports", POLICY_PORT), each("to", PEER)]),
        call("policyTypes", policy_types),
    ],
)];

const POLICY_PORT: Rules = &[one_of_if_set("protocol", &["TCP", "UDP", "SCTP"]), whole(policy_port)];

const PEER: Rules = &[
    call("podSelector", selector),
    call("namespaceSelector", selector),
    call("ipBlock", ip_block),
    whole(one_peer),
];

pub fn network_policy(policy: &Value, errors: &mut Errors) {
    check_object(NETWORK_POLICY, policy, errors);
}

/// Upstream checks it twice, and tells it twice.
pub fn network_policy_update(new: &Value, _old: &Value, errors: &mut Errors) {
    network_policy(new, errors);
}

fn policy_port(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (port, end) = (has(own, "port"), int(own, "endPort"));
    let at = path.child("endPort");
    match (port, end) {
        (None, None) => {}
        (None, Some(end)) => errors.push(FieldError::invalid(
            at,
            end,
            "may not be specified when `port` is not specified",
        )),
        (Some(port), end) => {
            if let (Value::String(_), Some(end)) = (port, end) {
                errors.push(FieldError::invalid(
                    at,
                    end,
                    "may not be specified when `port` is non-numeric",
                ));
            }
            super::port_or_name(errors, Some(port), &path.child("port"));
            if let (Some(port), Some(end)) = (port.as_i64(), end) {
                if end < port {
                    errors.push(FieldError::invalid(at, port, "must be greater than or equal to `port`"));
                }
                port_number(end, &at, errors);
            }
        }
    }
}

fn one_peer(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let set = |field| has(own, field).is_some();
    match (set("podSelector") || set("namespaceSelector"), set("ipBlock")) {
        (false, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(
            path,
            "may not specify both ipBlock and another peer",
        )),
        _ => {}
    }
}

fn ip_block(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let whole = text(own, "cidr");
    if whole.is_empty() {
        return errors.push(FieldError::required(path.child("cidr"), ""));
    }
    invalid_each(errors, &path.child("cidr"), whole, names::cidr(whole));
    let Ok(whole) = whole.parse::<IpNet>() else { return };
    let excepted = path.child("except");
    for (index, part) in strings(own, "except").enumerate() {
        let path = excepted.index(index);
        invalid_each(errors, &path, part, names::cidr(part));
        let within = |net: IpNet| whole.contains(&net.network()) && whole.prefix_len() < net.prefix_len();
        if part.parse::<IpNet>().is_ok_and(|net| !within(net)) {
            errors.push(FieldError::invalid(path, part, "must be a strict subset of `cidr`"));
        }
    }
}

fn policy_types(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 2] = ["Ingress", "Egress"];
    if numbered(own).count() > TYPES.len() {
        return errors.push(FieldError::invalid(
            path,
            own.clone(),
            "may not specify more than two policyTypes",
        ));
    }
    for (index, kind) in numbered(own) {
        let kind = kind.as_str().unwrap_or("");
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(path.index(index), kind, &TYPES));
        }
    }
}

const IP_ADDRESS: Rules = &[structure(
    "spec",
    &[
        required("parentRef"),
        object(
            "parentRef",
            &[
                format("group", names::dns_subdomain),
                name("resource", names::path_segment),
                name("name", names::path_segment),
                format("namespace", names::path_segment),
            ],
        ),
    ],
)];

pub fn ip_address(address: &Value, errors: &mut Errors) {
    check_object(IP_ADDRESS, address, errors);
}

pub fn ip_address_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec", "parentRef"], "spec.parentRef");
}

pub fn service_cidr(cidr: &Value, errors: &mut Errors) {
    let spec = spec_of(cidr);
    let path = SPEC.child("cidrs");
    let cidrs = list(spec, "cidrs");
    match cidrs.len() {
        0 => return errors.push(FieldError::required(path, "at least one CIDR required")),
        1 | 2 => {}
        _ => {
            let shown = Value::Array(cidrs.to_vec());
            return errors.push(FieldError::invalid(path, shown, "may only hold up to 2 values"));
        }
    }
    for (index, own) in strings(spec, "cidrs").enumerate() {
        invalid_each(errors, &path.index(index), own, names::canonical_cidr(own));
    }
    let nets: Vec<IpNet> = strings(spec, "cidrs").filter_map(|own| own.parse().ok()).collect();
    if let [one, two] = nets[..]
        && one.addr().is_ipv4() == two.addr().is_ipv4()
    {
        errors.push(FieldError::invalid(
            path,
            Value::Array(cidrs.to_vec()),
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
}

/// The cidrs never change, but a second one may come.
pub fn service_cidr_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (own, before) = (list(spec_of(new), "cidrs"), list(spec_of(old), "cidrs"));
    let path = SPEC.child("cidrs");
    if own.len() != before.len() && (before.len(), own.len()) != (1, 2) {
        let shown = has(spec_of(new), "cidrs").cloned().unwrap_or_default();
        return errors.push(FieldError::invalid(path, shown, IMMUTABLE));
    }
    for (index, (own, before)) in own.iter().zip(before).enumerate() {
        if own != before {
            errors.push(FieldError::invalid(path.index(index), own.clone(), IMMUTABLE));
        }
    }
    if own.len() > before.len() {
        service_cidr(new, errors);
    }
}
