//! The status of a ResourceClaim: what was allocated stays as it is until it is given back, and who uses it and what a driver
//! says of its devices go with it (KEP-4381).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::dynamic_resources::{distinct, few};
use super::rules::{Rules, Scope, check, required};
use super::{Errors, Path, each, has, immutable, list, text};
use crate::meta as object;
use crate::status::FieldError;

/// So many may use a claim at once.
const MOST_CONSUMERS: usize = 256;

const CONSUMER: Rules = &[required("resource"), required("name"), required("uid")];

/// Which device of which pool of which driver, and which share of it.
type Device<'a> = [&'a str; 4];

fn device(of: &Value) -> Device<'_> {
    ["driver", "pool", "device", "shareID"].map(|key| text(of, key))
}

fn allocated(claim: &Value) -> HashSet<Device<'_>> {
    let results = object::items(claim, &["status", "allocation", "devices", "results"]);
    results.iter().map(device).collect()
}

/// What was said of devices that are given back goes with them.
pub fn forget_devices(new: &mut Value, old: &Value) {
    let kept: Vec<Value> = {
        let (now, before) = (allocated(new), allocated(old));
        let is_held = |own: &&Value| now.contains(&device(own)) || !before.contains(&device(own));
        list(&new["status"], "devices")
            .iter()
            .filter(is_held)
            .cloned()
            .collect()
    };
    if kept.len() < list(&new["status"], "devices").len() {
        match kept.is_empty() {
            true => drop(object::remove(new, &["status", "devices"])),
            false => object::set(new, &["status", "devices"], kept),
        }
    }
}

pub fn resource_claim_status(new: &Value, old: &Value, errors: &mut Errors) {
    let (path, status) = (Path::new("status"), &new["status"]);
    let consumers = path.child("reservedFor");
    let count = list(status, "reservedFor").len();
    if few(count, MOST_CONSUMERS, &consumers, errors) {
        for (index, consumer) in each(status, "reservedFor") {
            check(CONSUMER, consumer, &Scope::of(new), &consumers.index(index), errors);
        }
        distinct(
            list(status, "reservedFor").iter().map(|own| text(own, "uid")),
            &consumers,
            errors,
        );
    }
    devices(new, &path.child("devices"), errors);
    if count > 0 && has(status, "allocation").is_none() {
        let why = "may not be specified when `allocated` is not set";
        errors.push(FieldError::forbidden(consumers, why));
    } else if object::is_deleting(new) && more_consumers(status, &old["status"]) {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(FieldError::forbidden(consumers, why));
    }
    let allocation = ["status", "allocation"];
    if object::at(new, &allocation).is_some() && object::at(old, &allocation).is_some() {
        immutable(errors, new, old, &allocation, "status.allocation");
    }
}

fn more_consumers(status: &Value, before: &Value) -> bool {
    let of = |consumer: &Value| ["apiGroup", "resource", "name", "uid"].map(|key| text(consumer, key).to_string());
    let known: HashSet<_> = list(before, "reservedFor").iter().map(of).collect();
    list(status, "reservedFor").iter().any(|own| !known.contains(&of(own)))
}

fn devices(claim: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (allocated, mut seen) = (allocated(claim), HashSet::new());
    let shown = |[driver, pool, name, share]: Device<'_>| json!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share});
    let mut twice = Vec::new();
    for (index, own) in each(&claim["status"], "devices") {
        let own = device(own);
        if !allocated.contains(&own) {
            let why = "must be an allocated device in the claim";
            errors.push(FieldError::invalid(path.index(index), shown(own), why));
        }
        if !seen.insert(own) {
            twice.push(FieldError::duplicate(path.index(index), shown(own)));
        }
    }
    errors.append(&mut twice);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: Value) -> Value {
        json!({"metadata": {"name": "c"}, "status": status})
    }

    fn told(new: &Value, old: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        resource_claim_status(new, old, &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn what_is_allocated_stays_until_it_is_given_back() {
        let given = |device: &str| json!({"devices": {"results": [{"driver": "d", "pool": "p", "device": device, "request": "r"}]}});
        let user = |uid: &str| json!({"resource": "pods", "name": "p", "uid": uid});
        let of = |device: &str| json!({"driver": "d", "pool": "p", "device": device});
        let free = claim(json!({}));
        let used = claim(json!({"allocation": given("a"), "reservedFor": [user("u")], "devices": [of("a")]}));
        let none: [&str; 0] = [];
        assert_eq!(told(&used, &free), none);
        assert_eq!(told(&free, &used), none);
        let other = claim(json!({"allocation": given("b")}));
        assert_eq!(told(&other, &used), ["status.allocation"]);
        assert_eq!(
            told(&claim(json!({"reservedFor": [user("u")]})), &free),
            ["status.reservedFor"]
        );
        let twice = claim(json!({"allocation": given("a"), "reservedFor": [user("u"), user("u")]}));
        assert_eq!(told(&twice, &used), ["status.reservedFor[1]"]);
        let strange = claim(json!({"allocation": given("a"), "devices": [of("b")]}));
        assert_eq!(told(&strange, &used), ["status.devices[0]"]);
        let mut late = claim(json!({"allocation": given("a"), "reservedFor": [user("u"), user("v")]}));
        assert_eq!(told(&late, &used), none);
        late["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
        assert_eq!(told(&late, &used), ["status.reservedFor"]);

        let mut back = claim(json!({"devices": [of("a")]}));
        forget_devices(&mut back, &used);
        assert_eq!(back["status"], json!({}));
    }
}
