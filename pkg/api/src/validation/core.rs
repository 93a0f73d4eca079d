//! ConfigMap, Secret, Namespace, Node, Endpoints, Event and volumes' claims.

use std::collections::HashSet;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::rules::{Format, Rules, Scope, all, check, format_if_set, object as within, whole};
use super::{
    Errors, Path, each, flag, has, immutable, immutable_text, int, invalid_each, list, node_selector, one_of,
    resources, same, strings, text,
};
use crate::status::FieldError;
use crate::{meta as object, names};

const MAX_DATA: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// The length of the bytes behind a base64 text.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|&byte| byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn keys(object: &Value, key: &str, errors: &mut Errors) {
    let path = Path::new(key);
    for name in object::map_at(object, &[key])
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        invalid_each(errors, &path.key(name), name, names::config_key(name));
    }
}

pub fn config_map(config: &Value, errors: &mut Errors) {
    let mut size = 0;
    let data = Path::new("data");
    let binary = object::map_at(config, &["binaryData"]);
    for (key, value) in object::map_at(config, &["data"]).into_iter().flatten() {
        invalid_each(errors, &data.key(key), key, names::config_key(key));
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            errors.push(FieldError::invalid(
                data.key(key),
                key.as_str(),
                "duplicate of key present in binaryData",
            ));
        }
        size += value.as_str().map_or(0, str::len);
    }
    keys(config, "binaryData", errors);
    for value in binary.into_iter().flat_map(|binary| binary.values()) {
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > MAX_DATA {
        errors.push(FieldError::too_long("[]", MAX_DATA));
    }
}

fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for field in fields {
        if !same(has(new, field), has(old, field)) {
            errors.push(FieldError::forbidden(*field, FROZEN));
        }
    }
}

pub fn config_map_update(new: &Value, old: &Value, errors: &mut Errors) {
    frozen(new, old, &["data", "binaryData"], errors);
}

pub fn secret(secret: &Value, errors: &mut Errors) {
    let data = Path::new("data");
    let map = object::map_at(secret, &["data"]);
    let mut size = 0;
    for (key, value) in map.into_iter().flatten() {
        invalid_each(errors, &data.key(key), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > MAX_DATA {
        errors.push(FieldError::too_long("data", MAX_DATA));
    }
    let value = |key: &str| map.and_then(|map| map.get(key)).and_then(Value::as_str);
    let need = |key: &str, errors: &mut Errors| {
        if value(key).is_none() {
            errors.push(FieldError::required(data.key(key), ""));
        }
    };
    match text(secret, "type") {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if object::annotation(secret, NAME).is_none_or(str::is_empty) {
                errors.push(FieldError::required(format!("metadata.annotations[{NAME}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => docker_config(value(".dockercfg"), ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker_config(value(".dockerconfigjson"), ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            need("username", errors);
            need("password", errors);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(str::is_empty) => {
            errors.push(FieldError::required(data.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            need("tls.crt", errors);
            need("tls.key", errors);
        }
        _ => {}
    }
}

fn docker_config(value: Option<&str>, key: &str, errors: &mut Errors) {
    let data = Path::new("data");
    let Some(value) = value else {
        errors.push(FieldError::required(data.key(key), ""));
        return;
    };
    let bytes = STANDARD.decode(value).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // the parser's words may quote the content: only the position is told
        errors.push(FieldError::invalid(
            data.key(key),
            "<secret contents redacted>",
            format!("not a JSON object (line {}, column {})", error.line(), error.column()),
        ));
    }
}

pub fn secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["type"], "type");
    frozen(new, old, &["data"], errors);
}

pub fn namespace(namespace: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let path = path.child("finalizers");
    let spec = has(namespace, "spec").unwrap_or(&Value::Null);
    for finalizer in strings(spec, "finalizers") {
        finalizer_name(finalizer, &path, errors);
    }
}

/// The same through `/finalize`, which names each by its index.
pub fn namespace_finalize(new: &Value, _old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let path = path.child("finalizers");
    let spec = has(new, "spec").unwrap_or(&Value::Null);
    for (index, finalizer) in strings(spec, "finalizers").enumerate() {
        finalizer_name(finalizer, &path.index(index), errors);
    }
}

fn finalizer_name(finalizer: &str, path: &Path<'_>, errors: &mut Errors) {
    invalid_each(errors, path, finalizer, names::qualified_name(finalizer));
    if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.push(FieldError::invalid(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
}

pub fn namespace_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let (phase, is) = match object::is_deleting(new) {
        false => ("Active", "is empty"),
        true => ("Terminating", "is not empty"),
    };
    let own = object::string(new, &["status", "phase"]);
    if own != phase {
        let why = format!("may only be '{phase}' if `deletionTimestamp` {is}");
        errors.push(FieldError::invalid("status.Phase", own, why));
    }
}

/// What a node has, and where it is found.
pub fn node_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let path = Path::new("status");
    let status = has(new, "status").unwrap_or(&Value::Null);
    for key in ["capacity", "allocatable"] {
        let path = path.child(key);
        for (name, value) in object::map_at(status, &[key]).into_iter().flatten() {
            resources::quantity_value(name, value, &path.child(name), errors);
        }
    }
    let path = path.child("addresses");
    let mut seen = HashSet::new();
    for (index, address) in each(status, "addresses") {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            errors.push(FieldError::duplicate(path.index(index), address.clone()));
        }
    }
}

pub fn node(node: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let spec = has(node, "spec").unwrap_or(&Value::Null);
    node_selector::taints(spec, &metadata.child("taints"), errors);
    let status = Path::new("status");
    for key in ["capacity", "allocatable"] {
        let path = status.child(key);
        for (name, value) in object::map_at(node, &["status", key]).into_iter().flatten() {
            resources::quantity_value(name, value, &path.child(name), errors);
        }
    }
    let root = Path::new("spec");
    let cidrs = root.child("podCIDRs");
    for (index, cidr) in strings(spec, "podCIDRs").enumerate() {
        invalid_each(errors, &cidrs.index(index), cidr, names::cidr(cidr));
    }
    let count = list(spec, "podCIDRs").len();
    let dual = strings(spec, "podCIDRs").filter(|cidr| cidr.contains(':')).count() == 1;
    if count > 2 || (count == 2 && !dual) {
        errors.push(FieldError::invalid(
            cidrs,
            Value::Array(list(spec, "podCIDRs").to_vec()),
            "may specify no more than one CIDR for each IP family",
        ));
    }
}

/// A node's pod ranges, of which `podCIDR` is the first: where the two fields differ it counts, as in the defaults.
fn pod_cidrs(spec: &Value) -> Vec<&str> {
    let all: Vec<&str> = strings(spec, "podCIDRs").collect();
    match text(spec, "podCIDR") {
        "" => all,
        one if all.first() == Some(&one) => all,
        one => vec![one],
    }
}

pub fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (
        has(new, "spec").unwrap_or(&Value::Null),
        has(old, "spec").unwrap_or(&Value::Null),
    );
    let status = Path::new("status");
    let status = status.child("addresses");
    let mut seen = HashSet::new();
    for (index, address) in each(&new["status"], "addresses") {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            errors.push(FieldError::duplicate(status.index(index), address.clone()));
        }
    }
    let ranges = pod_cidrs(before);
    if !ranges.is_empty() && ranges != pod_cidrs(spec) {
        errors.push(FieldError::forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
    let provider = text(before, "providerID");
    if !provider.is_empty() && provider != text(spec, "providerID") {
        errors.push(FieldError::forbidden(
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
    // Upstream checks them twice, and tells them twice.
    node_selector::taints(spec, &Path::new("metadata").child("taints"), errors);
}

/// What an endpoint's address may not be.
pub(super) fn endpoint_ip(ip: &str, path: &Path<'_>, errors: &mut Errors) {
    let Ok(address) = ip.parse::<IpAddr>() else {
        errors.push(FieldError::invalid(path, ip, "must be a valid IP address"));
        return;
    };
    let (link_local, link_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.push(FieldError::invalid(path, ip, format!("may not be unspecified ({ip})")));
    }
    if address.is_loopback() {
        errors.push(FieldError::invalid(
            path,
            ip,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ));
    }
    if link_local {
        errors.push(FieldError::invalid(
            path,
            ip,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ));
    }
    if link_multicast {
        errors.push(FieldError::invalid(
            path,
            ip,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ));
    }
}

pub fn endpoints(endpoints: &Value, errors: &mut Errors) {
    let subsets = Path::new("subsets");
    for (index, subset) in each(endpoints, "subsets") {
        let path = subsets.index(index);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            errors.push(FieldError::required(
                path,
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for key in ["addresses", "notReadyAddresses"] {
            let addresses = path.child(key);
            for (index, address) in each(subset, key) {
                let path = addresses.index(index);
                let ip = text(address, "ip");
                invalid_each(errors, &path.child("ip"), ip, names::ip(ip));
                super::name_if_set(errors, address, "hostname", &path, names::dns_label);
                check(NODE, address, &Scope::of(endpoints), &path, errors);
                endpoint_ip(ip, &path.child("ip"), errors);
            }
        }
        let ports = path.child("ports");
        let many = list(subset, "ports").len() > 1;
        for (index, port) in each(subset, "ports") {
            let path = ports.index(index);
            match text(port, "name") {
                "" if many => errors.push(FieldError::required(path.child("name"), "")),
                "" => {}
                name => invalid_each(errors, &path.child("name"), name, names::dns_label(name)),
            }
            let number = int(port, "port").unwrap_or(0);
            for problem in names::port_number(number) {
                errors.push(FieldError::invalid(path.child("port"), number, problem));
            }
            one_of(errors, port, "protocol", &path, &PROTOCOLS);
            check(APP_PROTOCOL, port, &Scope::of(endpoints), &path, errors);
        }
    }
}

const NODE: Rules = &[format_if_set("nodeName", names::dns_subdomain)];
const APP_PROTOCOL: Rules = &[format_if_set("appProtocol", names::qualified_name)];
const PLACE: Rules = &[
    all(NODE),
    format_if_set("hostname", names::dns_label),
    within("hints", &[whole(hints)]),
];

/// For whom an endpoint is: a double is told before what is wrong with it.
fn hints(hints: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MOST: usize = 8;
    let forms: [(&str, Format); 2] = [("forZones", names::label_value), ("forNodes", names::dns_subdomain)];
    for (field, form) in forms {
        let (path, count) = (path.child(field), list(hints, field).len());
        if count > MOST {
            return errors.push(FieldError::too_many(path, count, MOST));
        }
        let mut seen = HashSet::new();
        for (index, own) in each(hints, field) {
            let path = path.index(index);
            let (path, name) = (path.child("name"), text(own, "name"));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(path, name));
            }
            invalid_each(errors, &path, name, form(name));
        }
    }
}

pub fn endpoint_slice(slice: &Value, errors: &mut Errors) {
    let type_ = text(slice, "addressType");
    let root = Path::new("addressType");
    if type_.is_empty() {
        errors.push(FieldError::required(root, ""));
    } else if !matches!(type_, "FQDN" | "IPv4" | "IPv6") {
        errors.push(FieldError::not_supported(root, type_, &["FQDN", "IPv4", "IPv6"]));
    }
    let ports = Path::new("ports");
    if list(slice, "ports").len() > 20_000 {
        errors.push(FieldError::too_many(ports, list(slice, "ports").len(), 20_000));
    }
    let mut known: HashSet<&str> = HashSet::new();
    for (index, port) in each(slice, "ports") {
        let path = ports.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        }
        if !known.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        match has(port, "protocol").and_then(Value::as_str) {
            None => errors.push(FieldError::required(path.child("protocol"), "")),
            Some(own) if !PROTOCOLS.contains(&own) => {
                errors.push(FieldError::not_supported(path.child("protocol"), own, &PROTOCOLS));
            }
            Some(_) => {}
        }
        check(APP_PROTOCOL, port, &Scope::of(slice), &path, errors);
    }
    let endpoints = Path::new("endpoints");
    if list(slice, "endpoints").len() > 1000 {
        errors.push(FieldError::too_many(endpoints, list(slice, "endpoints").len(), 1000));
        return;
    }
    for (index, endpoint) in each(slice, "endpoints") {
        endpoint_of(type_, endpoint, &endpoints.index(index), errors);
    }
}

/// One endpoint of a slice whose addresses are of a type.
fn endpoint_of(type_: &str, endpoint: &Value, path: &Path<'_>, errors: &mut Errors) {
    let addresses = path.child("addresses");
    match list(endpoint, "addresses").len() {
        0 => errors.push(FieldError::required(addresses, "must contain at least 1 address")),
        count if count > 100 => errors.push(FieldError::too_many(addresses, count, 100)),
        _ => {}
    }
    for (index, address) in strings(endpoint, "addresses").enumerate() {
        let path = addresses.index(index);
        if type_ == "FQDN" {
            invalid_each(errors, &path, address, names::dns_subdomain(address));
            continue;
        }
        let problems = names::ip(address);
        if !problems.is_empty() {
            invalid_each(errors, &path, address, problems);
            continue;
        }
        if type_ == "IPv4" && !names::ipv4(address) {
            errors.push(FieldError::invalid(addresses, address, "must be an IPv4 address"));
        }
        if type_ == "IPv6" && !names::ipv6(address) {
            errors.push(FieldError::invalid(addresses, address, "must be an IPv6 address"));
        }
        endpoint_ip(address, &path, errors);
    }
    check(PLACE, endpoint, &Scope::of(endpoint), path, errors);
}

pub fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable_text(errors, new, old, &["addressType"], "addressType");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn immutable_maps() {
        let old = json!({"immutable": true, "data": {"a": "b"}, "metadata": {"labels": {}}});
        let check = |new: &Value| {
            let mut errors = Errors::new();
            config_map_update(new, &old, &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            check(&json!({"immutable": true, "data": {"a": "b"}, "metadata": {"labels": {"x": "y"}}})),
            Vec::<String>::new()
        );
        assert_eq!(check(&json!({"immutable": true, "data": {"a": "c"}})), ["data"]);
        assert_eq!(check(&json!({"data": {"a": "b"}})), ["immutable"]);
    }

    /// As a write does it: what is left out is filled in before it is compared.
    #[test]
    fn a_nodes_pod_range_is_set_once_in_both_fields() {
        let none = json!({});
        let given = json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]});
        let torn = |one: &str| json!({"podCIDR": one, "podCIDRs": ["10.244.1.0/24"]});
        // Written when the fields could differ: its node's status must still be taken.
        let old = torn("10.244.9.0/24");
        let table = [
            (&none, json!({"podCIDR": "10.244.1.0/24"}), "10.244.1.0/24", true),
            (&none, json!({"podCIDRs": ["10.244.1.0/24"]}), "10.244.1.0/24", true),
            (&none, torn(""), "10.244.1.0/24", true),
            (&none, torn("10.244.9.0/24"), "10.244.9.0/24", true),
            (&given, given.clone(), "10.244.1.0/24", true),
            (&given, torn("128.0.0.0/1"), "128.0.0.0/1", false),
            (&given, json!({"podCIDRs": ["10.244.1.0/25"]}), "10.244.1.0/25", false),
            (&old, old.clone(), "10.244.9.0/24", true),
        ];
        for (old, spec, range, allowed) in table {
            let text = spec.to_string();
            let mut new = json!({"spec": spec});
            crate::defaults::node(&mut new);
            assert_eq!(new["spec"], json!({"podCIDR": range, "podCIDRs": [range]}), "{text}");
            let mut errors = Errors::new();
            node_update(&new, &json!({"spec": old}), &mut errors);
            assert_eq!(errors.is_empty(), allowed, "{old} {text}: {errors:?}");
        }
        let mut errors = Errors::new();
        node_update(&json!({"spec": {}}), &json!({"spec": given}), &mut errors);
        assert_eq!(errors.len(), 1, "taken away: {errors:?}");
    }

    #[test]
    fn secrets_by_type() {
        let check = |object: Value| {
            let mut errors = Errors::new();
            secret(&object, &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            check(json!({"type": "kubernetes.io/tls"})),
            ["data[tls.crt]", "data[tls.key]"]
        );
        assert_eq!(check(json!({"type": "Opaque", "data": {"a b": ""}})), ["data[a b]"]);
        let config = STANDARD.encode("{}");
        assert_eq!(
            check(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}})),
            Vec::<String>::new()
        );
        assert_eq!(decoded_len("eA=="), 1);
    }
}
