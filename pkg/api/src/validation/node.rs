//! Nodes: the ranges of their pods, what they have, and where they are found.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{Rule, Rules, Scope, call, check_object, object, structure, texts, whole};
use super::{Errors, Path, SPEC, list, node_selector, numbered, resources, spec_of, strings, text};
use crate::names;
use crate::status::FieldError;

const NODE: Rules = &[
    TAINTS,
    object("status", AMOUNTS),
    structure("spec", &[texts("podCIDRs", names::cidr), whole(of_each_family_one)]),
];

const AMOUNTS: Rules = &[call("capacity", quantities), call("allocatable", quantities)];

const STATUS: Rules = &[object("status", AMOUNTS), ADDRESSES];
const ADDRESSES: Rule = object("status", &[call("addresses", addresses)]);

pub fn node(node: &Value, errors: &mut Errors) {
    check_object(NODE, node, errors);
}

pub fn node_status(new: &Value, _old: &Value, errors: &mut Errors) {
    check_object(STATUS, new, errors);
}

pub fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (spec_of(new), spec_of(old));
    check_object(&[ADDRESSES], new, errors);
    let ranges = pod_cidrs(before);
    if !ranges.is_empty() && ranges != pod_cidrs(spec) {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden(SPEC.child("podCIDRs"), why));
    }
    let provider = text(before, "providerID");
    if !provider.is_empty() && provider != text(spec, "providerID") {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden(SPEC.child("providerID"), why));
    }
    // Upstream checks them twice, and tells them twice.
    check_object(&[TAINTS], new, errors);
}

const TAINTS: Rule = whole(taints);

/// Upstream tells them as if they stood in the metadata.
fn taints(node: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    node_selector::taints(spec_of(node), &path.child("metadata").child("taints"), errors);
}

fn quantities(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (name, value) in own.as_object().into_iter().flatten() {
        resources::quantity_value(name, value, &path.child(name), errors);
    }
}

fn addresses(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, address) in numbered(own) {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            errors.push(FieldError::duplicate(path.index(index), address.clone()));
        }
    }
}

fn of_each_family_one(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let count = list(spec, "podCIDRs").len();
    let dual = strings(spec, "podCIDRs").filter(|cidr| cidr.contains(':')).count() == 1;
    if count > 2 || (count == 2 && !dual) {
        let shown = list(spec, "podCIDRs").to_vec();
        let why = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path.child("podCIDRs"), shown, why));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
