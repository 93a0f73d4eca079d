//! Endpoints and EndpointSlice.

use std::net::IpAddr;

use serde_json::Value;

use super::rules::{
    Cases, Format, Rules, Scope, all, always, at_most, by, call, check, check_object, each, each_unique, format,
    format_if_set, name, number, object, one_of, one_of_if_set, present, required_saying, whole,
};
use super::{Errors, Path, immutable_text, invalid_each, labels, list, numbered, text};
use crate::names;
use crate::status::FieldError;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

const ENDPOINTS: Rules = &[each("subsets", SUBSET)];

const SUBSET: Rules = &[
    whole(some_addresses),
    each("addresses", ADDRESS),
    each("notReadyAddresses", ADDRESS),
    whole(ports),
];

const ADDRESS: Rules = &[
    always("ip", names::ip),
    format("hostname", names::dns_label),
    format_if_set("nodeName", names::dns_subdomain),
    whole(reachable),
];

const ONE_PORT: Rules = &[each("ports", &[format("name", names::dns_label), all(PORT)])];
const SEVERAL_PORTS: Rules = &[each("ports", &[name("name", names::dns_label), all(PORT)])];
const PORT: Rules = &[
    number("port", 1, 65_535),
    one_of("protocol", PROTOCOLS),
    format_if_set("appProtocol", names::qualified_name),
];

const SLICE: Rules = &[
    one_of("addressType", &["FQDN", "IPv4", "IPv6"]),
    at_most(
        "ports",
        20_000,
        &[each_unique(
            "ports",
            "name",
            &[&[format("name", names::dns_label)], SLICE_PORT],
        )],
    ),
    at_most("endpoints", 1000, &[by("addressType", &ENDPOINTS_BY_TYPE)]),
];

const SLICE_PORT: Rules = &[
    present("protocol"),
    one_of_if_set("protocol", PROTOCOLS),
    format_if_set("appProtocol", names::qualified_name),
];

const ENDPOINTS_BY_TYPE: Cases = Cases {
    of: &[
        (
            &["FQDN"],
            &[each("endpoints", &[all(SOME), call("addresses", domains), all(PLACE)])],
        ),
        (
            &["IPv4"],
            &[each("endpoints", &[all(SOME), call("addresses", fours), all(PLACE)])],
        ),
        (
            &["IPv6"],
            &[each("endpoints", &[all(SOME), call("addresses", sixes), all(PLACE)])],
        ),
    ],
    otherwise: &[each("endpoints", &[all(SOME), all(PLACE)])],
};

const SOME: Rules = &[
    required_saying("addresses", "must contain at least 1 address"),
    at_most("addresses", 100, &[]),
];

const PLACE: Rules = &[
    format_if_set("nodeName", names::dns_subdomain),
    call("deprecatedTopology", topology),
    format_if_set("hostname", names::dns_label),
    object("hints", HINTS),
];

/// For whom an endpoint is: a double is told before what is wrong with it.
const HINTS: Rules = &[at_most(
    "forZones",
    8,
    &[
        each_unique("forZones", "name", &[&[], &[always("name", names::label_value)]]),
        at_most(
            "forNodes",
            8,
            &[each_unique(
                "forNodes",
                "name",
                &[&[], &[always("name", names::dns_subdomain)]],
            )],
        ),
    ],
)];

pub fn endpoints(endpoints: &Value, errors: &mut Errors) {
    check_object(ENDPOINTS, endpoints, errors);
}

pub fn endpoint_slice(slice: &Value, errors: &mut Errors) {
    check_object(SLICE, slice, errors);
}

pub fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable_text(errors, new, old, &["addressType"], "addressType");
}

fn some_addresses(subset: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
        let why = "must specify `addresses` or `notReadyAddresses`";
        errors.push(FieldError::required(path, why));
    }
}

/// Several need names.
fn ports(subset: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let several = list(subset, "ports").len() > 1;
    let rules = if several { SEVERAL_PORTS } else { ONE_PORT };
    check(rules, subset, scope, path, errors);
}

fn reachable(address: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    endpoint_ip(text(address, "ip"), &path.child("ip"), errors);
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

fn domains(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (index, name) in numbered(own) {
        domain(name.as_str().unwrap_or(""), &path.index(index), errors);
    }
}

/// The name of a host and its domain, of which the first fault is told.
fn domain(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let name = match name {
        "" => return errors.push(FieldError::required(path, "")),
        name => name.strip_suffix('.').unwrap_or(name),
    };
    let problems = names::dns_subdomain(name);
    if !problems.is_empty() {
        return errors.push(FieldError::invalid(path, name, problems.join(",")));
    }
    if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return errors.push(FieldError::invalid(path, name, why));
    }
    let faulty = |label: &&str| !names::dns_label(label).is_empty();
    if let Some(label) = name.split('.').find(faulty) {
        errors.push(FieldError::invalid(path, label, names::dns_label(label).join(",")));
    }
}

fn fours(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    addresses(own, names::ip, names::ipv4, "must be an IPv4 address", path, errors);
}

fn sixes(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    addresses(
        own,
        names::strict_ip,
        names::ipv6,
        "must be an IPv6 address",
        path,
        errors,
    );
}

/// That one is of the other family is told of the whole list.
fn addresses(own: &Value, form: Format, family: fn(&str) -> bool, other: &str, path: &Path<'_>, errors: &mut Errors) {
    for (index, address) in numbered(own) {
        let (at, address) = (path.index(index), address.as_str().unwrap_or(""));
        let problems = form(address);
        if problems.is_empty() {
            if !family(address) {
                errors.push(FieldError::invalid(path, address, other));
            }
            endpoint_ip(address, &at, errors);
        }
        invalid_each(errors, &at, address, problems);
    }
}

fn topology(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MOST: usize = 16;
    let count = own.as_object().map_or(0, |own| own.len());
    if count > MOST {
        errors.push(FieldError::too_many(path, count, MOST));
    }
    labels(Some(own), path, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(check: fn(&Value, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn several_ports_need_names() {
        let of = |ports: Value| {
            let object = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": ports}]});
            problems(endpoints, &object)
        };
        let port = json!({"port": 1, "protocol": "TCP"});
        assert_eq!(of(json!([port])), Vec::<String>::new());
        assert_eq!(
            of(json!([port, {"name": "a", "port": 0, "protocol": "TCP"}])),
            [
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
    }

    #[test]
    fn addresses_are_of_the_slices_type() {
        let of = |type_: &str, address: &str| {
            let object = json!({"addressType": type_, "endpoints": [{"addresses": [address]}]});
            problems(endpoint_slice, &object)
        };
        for (type_, good) in [
            ("IPv4", "10.0.0.1"),
            ("IPv6", "fd00::1"),
            ("FQDN", "a.example."),
            ("FQDN", "a.b"),
        ] {
            assert_eq!(of(type_, good), Vec::<String>::new(), "{type_} {good}");
        }
        let at = "endpoints[0].addresses";
        for (type_, bad, told) in [
            (
                "IPv4",
                "fd00::1",
                format!("{at}: Invalid value: \"fd00::1\": must be an IPv4 address"),
            ),
            (
                "IPv6",
                "FD00::1",
                format!("{at}[0]: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")"),
            ),
            ("FQDN", "", format!("{at}[0]: Required value")),
            (
                "FQDN",
                "host",
                format!(
                    "{at}[0]: Invalid value: \"host\": should be a domain with at least two segments separated by dots"
                ),
            ),
        ] {
            assert_eq!(of(type_, bad), [told]);
        }
        // Of a type that is none only that is told.
        assert_eq!(of("X", "?").len(), 1);
    }

    #[test]
    fn hints_are_few() {
        let of = |hints: Value| {
            let endpoint = json!({"addresses": ["10.0.0.1"], "hints": hints});
            problems(endpoint_slice, &json!({"addressType": "IPv4", "endpoints": [endpoint]}))
        };
        let zones = |count: usize| {
            (0..count)
                .map(|zone| json!({"name": zone.to_string()}))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(json!({"forZones": zones(8)})), Vec::<String>::new());
        assert_eq!(
            of(json!({"forZones": zones(9), "forNodes": [{"name": "?"}]})),
            ["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"]
        );
        assert_eq!(
            of(json!({"forNodes": [{"name": "a"}, {"name": "a"}]})),
            ["endpoints[0].hints.forNodes[1].name: Duplicate value: \"a\""]
        );
    }
}
