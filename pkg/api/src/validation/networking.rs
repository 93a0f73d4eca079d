//! networking.k8s.io: ingresses, their classes, and service addresses.

use serde_json::Value;

use super::{
    Errors, Path, SPEC, each, has, immutable, int, invalid_each, list, one_of, required, spec_of, strings, text,
};
use crate::names;
use crate::status::FieldError;

pub fn ingress(ingress: &Value, errors: &mut Errors) {
    let spec = spec_of(ingress);
    if list(spec, "rules").is_empty() && has(spec, "defaultBackend").is_none() {
        errors.push(FieldError::invalid(
            "spec",
            spec.clone(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if let Some(backend) = has(spec, "defaultBackend") {
        ingress_backend(backend, &SPEC.child("defaultBackend"), errors);
    }
    let rules = SPEC.child("rules");
    for (index, rule) in each(spec, "rules") {
        let path = rules.index(index);
        let host = text(rule, "host");
        if !host.is_empty() {
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(FieldError::invalid(
                    path.child("host"),
                    host,
                    "must be a DNS name, not an IP address",
                ));
            }
            let plain = host.strip_prefix("*.").unwrap_or(host);
            invalid_each(errors, &path.child("host"), host, names::dns_subdomain(plain));
        }
        let Some(http) = has(rule, "http") else { continue };
        let http_path = path.child("http");
        let paths = http_path.child("paths");
        if list(http, "paths").is_empty() {
            errors.push(FieldError::required(paths, ""));
        }
        for (index, own) in each(http, "paths") {
            let path = paths.index(index);
            one_of(
                errors,
                own,
                "pathType",
                &path,
                &["Exact", "ImplementationSpecific", "Prefix"],
            );
            let route = text(own, "path");
            if matches!(text(own, "pathType"), "Exact" | "Prefix") && !route.starts_with('/') {
                errors.push(FieldError::invalid(
                    path.child("path"),
                    route,
                    "must be an absolute path",
                ));
            }
            let backend = has(own, "backend").unwrap_or(&Value::Null);
            ingress_backend(backend, &path.child("backend"), errors);
        }
    }
}

fn ingress_backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (has(backend, "service"), has(backend, "resource")) {
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            path,
            "",
            "cannot set both resource and service backends",
        )),
        (Some(service), None) => {
            let path = path.child("service");
            match text(service, "name") {
                "" => errors.push(FieldError::required(path.child("name"), "")),
                name => invalid_each(errors, &path.child("name"), name, names::dns_1035_label(name)),
            }
            let port = has(service, "port").unwrap_or(&Value::Null);
            let (name, number) = (text(port, "name"), int(port, "number").unwrap_or(0));
            let path = path.child("port");
            match (name.is_empty(), number) {
                (true, 0) => errors.push(FieldError::required(path, "port name or number is required")),
                (false, 0) => invalid_each(errors, &path.child("name"), name, names::port_name(name)),
                (true, number) => {
                    for problem in names::port_number(number) {
                        errors.push(FieldError::invalid(path.child("number"), number, problem));
                    }
                }
                (false, _) => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
            }
        }
        (None, Some(resource)) => {
            let path = path.child("resource");
            for key in ["kind", "name"] {
                required(errors, resource, key, &path);
            }
        }
    }
}

pub fn ingress_class(class: &Value, errors: &mut Errors) {
    let controller = text(spec_of(class), "controller");
    let valid = controller
        .split_once('/')
        .is_some_and(|(domain, path)| !path.is_empty() && names::dns_subdomain(domain).is_empty());
    if !controller.is_empty() && !valid {
        errors.push(FieldError::invalid(
            "spec.controller",
            controller,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
    }
}

pub fn ingress_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec", "controller"], "spec.controller");
}

pub fn ip_address(address: &Value, errors: &mut Errors) {
    match has(spec_of(address), "parentRef") {
        None => errors.push(FieldError::required("spec.parentRef", "")),
        Some(parent) => {
            let path = SPEC.child("parentRef");
            for key in ["resource", "name"] {
                required(errors, parent, key, &path);
            }
        }
    }
}

pub fn service_cidr(cidr: &Value, errors: &mut Errors) {
    let spec = spec_of(cidr);
    let path = SPEC.child("cidrs");
    match list(spec, "cidrs").len() {
        0 => errors.push(FieldError::required(path, "at least one CIDR required")),
        1 | 2 => {}
        _ => errors.push(FieldError::invalid(
            path,
            Value::Array(list(spec, "cidrs").to_vec()),
            "may only hold up to 2 values",
        )),
    }
    for (index, own) in strings(spec, "cidrs").enumerate() {
        invalid_each(errors, &path.index(index), own, names::cidr(own));
    }
}
