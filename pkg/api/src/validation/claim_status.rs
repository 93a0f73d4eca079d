//! The status of a ResourceClaim: what was allocated stays as it is until it is given back, and who uses it and what a driver
//! says of its devices go with it (KEP-4381).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::dynamic_resources::{configuration, distinct, few, known, pool_name, raw, reference, references};
use super::node_selector::node_selector;
use super::rules::{Rules, Scope, always, check, one_of, required, whole};
use super::status::conditions;
use super::volumes::csi_driver;
use super::{Errors, Path, each, has, immutable, invalid_each, list, strings, text};
use crate::status::FieldError;
use crate::{meta as object, names};

/// So many may use a claim at once.
const MOST_CONSUMERS: usize = 256;

const CONSUMER: Rules = &[required("resource"), required("name"), required("uid")];

/// How a device is named.
const DEVICE: Rules = &[whole(csi_driver), whole(pool), always("device", names::dns_label)];

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
    let at = ["status", "allocation"];
    match (has(status, "allocation"), has(&old["status"], "allocation")) {
        (Some(_), Some(_)) => immutable(errors, new, old, &at, "status.allocation"),
        (Some(own), None) => allocation(own, new, &path.child("allocation"), errors),
        _ => {}
    }
}

/// What is allocated: devices for requests of the claim, by drivers, with what those are told.
fn allocation(own: &Value, claim: &Value, path: &Path<'_>, errors: &mut Errors) {
    const RESULTS: usize = 32;
    /// Of a class and of the claim.
    const CONFIGURATIONS: usize = 2 * 32;
    const SOURCES: Rules = &[one_of("source", &["FromClaim", "FromClass"])];
    let (scope, known) = (Scope::of(claim), known(&claim["spec"]["devices"]));
    let (devices, at) = (&own["devices"], path.child("devices"));
    let path_of = at.child("results");
    if few(list(devices, "results").len(), RESULTS, &path_of, errors) {
        for (index, result) in each(devices, "results") {
            let path = path_of.index(index);
            reference(text(result, "request"), &known, &path.child("request"), errors);
            check(DEVICE, result, &scope, &path, errors);
        }
    }
    let path_of = at.child("config");
    if few(list(devices, "config").len(), CONFIGURATIONS, &path_of, errors) {
        for (index, config) in each(devices, "config") {
            let path = path_of.index(index);
            check(SOURCES, config, &scope, &path, errors);
            references(config, &known, &path, errors);
            configuration(config, &scope, &path, errors);
        }
    }
    if let Some(selector) = has(own, "nodeSelector") {
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

fn pool(device: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    pool_name(text(device, "pool"), &path.child("pool"), errors);
}

/// What a driver says of a device.
fn details(device: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const CONDITIONS: usize = 8;
    let at = path.child("conditions");
    few(list(device, "conditions").len(), CONDITIONS, &at, errors);
    if let Some(own) = has(device, "conditions") {
        conditions(own, scope, &at, errors);
    }
    if let Some(data) = has(device, "data") {
        raw(data, &path.child("data"), errors);
    }
    if let Some(data) = has(device, "networkData") {
        network(data, &path.child("networkData"), errors);
    }
}

fn network(data: &Value, path: &Path<'_>, errors: &mut Errors) {
    const ADDRESSES: usize = 16;
    for (key, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if text(data, key).len() > most {
            errors.push(FieldError::too_long(path.child(key), most));
        }
    }
    let path = path.child("ips");
    if few(list(data, "ips").len(), ADDRESSES, &path, errors) {
        for (index, address) in strings(data, "ips").enumerate() {
            invalid_each(errors, &path.index(index), address, names::interface_address(address));
        }
        distinct(strings(data, "ips"), &path, errors);
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
    let mut twice = Errors::new();
    let scope = Scope::of(claim);
    for (index, told) in each(&claim["status"], "devices") {
        let (own, path) = (device(told), path.index(index));
        check(DEVICE, told, &scope, &path, errors);
        if !allocated.contains(&own) {
            let why = "must be an allocated device in the claim";
            errors.push(FieldError::invalid(path, shown(own), why));
        }
        details(told, &scope, &path, errors);
        if !seen.insert(own) {
            twice.push(FieldError::duplicate(path, shown(own)));
        }
    }
    errors.append(&mut twice);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: Value) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status})
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

    fn words(new: &Value, old: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        resource_claim_status(new, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_allocated_is_of_the_claim() {
        let with = |results: Value, config: Value| {
            let requests = json!([{"name": "r"}, {"name": "several", "firstAvailable": [{"name": "a"}]}]);
            json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}},
                "status": {"allocation": {"devices": {"results": results, "config": config}}}})
        };
        let free = claim(json!({}));
        let none: [&str; 0] = [];
        let result =
            |request: &str| json!({"driver": "d.example.org", "pool": "p/q", "device": "a", "request": request});
        let opaque = json!({"driver": "d.example.org", "parameters": {"a": 1}});
        let config = |source: &str| json!([{"source": source, "requests": ["r"], "opaque": opaque}]);
        let fits = with(json!([result("r"), result("several/a")]), config("FromClass"));
        assert_eq!(words(&fits, &free), none);
        let unknown =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let at = "status.allocation.devices";
        assert_eq!(
            words(
                &with(
                    json!([result("x"), {"request": "r", "driver": "d", "device": "a"}]),
                    config("")
                ),
                &free
            ),
            [
                format!("{at}.results[0].request: Invalid value: \"x\": {unknown}"),
                format!("{at}.results[1].pool: Required value"),
                format!("{at}.config[0].source: Required value"),
            ]
        );
        let most = with(vec![result("r"); 33].into(), json!([]));
        assert_eq!(
            words(&most, &free),
            [format!("{at}.results: Too many: 33: must have at most 32 items")]
        );
    }

    #[test]
    fn a_driver_says_of_a_device_what_anybody_can_read() {
        let result = json!({"driver": "d", "pool": "p", "device": "a", "request": "r"});
        let allocated = |device: Value| {
            let mut own = json!({"driver": "d", "pool": "p", "device": "a"});
            own.as_object_mut()
                .expect("an object")
                .extend(device.as_object().cloned().unwrap_or_default());
            json!({"spec": {"devices": {"requests": [{"name": "r"}]}},
                "status": {"allocation": {"devices": {"results": [result]}}, "devices": [own]}})
        };
        let told = |device: Value| words(&allocated(device), &claim(json!({})));
        let none: [&str; 0] = [];
        let data = json!({"data": {"a": 1}, "networkData": {"interfaceName": "eth0", "ips": ["10.9.8.7/24", "2001:db8::1/64"]}});
        assert_eq!(told(data), none);
        assert_eq!(
            told(json!({"data": "x".repeat(10 << 10), "networkData": {
                "interfaceName": "e".repeat(257), "ips": ["10.09.8.7/24", "::ffff:1.2.3.4/120", "10.9.8.7", "1.2.3.4/33"]}})),
            [
                "status.devices[0].data: Too long: may not be more than 10240 bytes",
                "status.devices[0].networkData.interfaceName: Too long: may not be more than 256 bytes",
                "status.devices[0].networkData.ips[0]: Invalid value: \"10.09.8.7/24\": must be in canonical form (\"10.9.8.7/24\")",
                "status.devices[0].networkData.ips[1]: Invalid value: \"::ffff:1.2.3.4/120\": must be in canonical form (\"1.2.3.4/24\")",
                "status.devices[0].networkData.ips[2]: Invalid value: \"10.9.8.7\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
                "status.devices[0].networkData.ips[3]: Invalid value: \"1.2.3.4/33\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            ]
        );
    }
}
