//! Which devices a node has for claims.

use serde_json::{Value, json};

use super::*;

fn requests(all: &[Value]) -> Value {
    json!({"requests": all})
}

/// All devices of these requests have one value of the attribute.
fn same(all: &[Value], attribute: &str, of: &[&str]) -> Value {
    let attribute = format!("{DRIVER}/{attribute}");
    json!({"requests": all, "constraints": [{"matchAttribute": attribute, "requests": of}]})
}

fn choice(name: &str, model: &str, count: i64) -> Value {
    json!({"name": name, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count, "selectors": of_model(model)})
}

fn either(choices: &[Value]) -> Value {
    json!({"name": "r", "firstAvailable": choices})
}

/// What a pod with one claim gets on a, b and c.
fn expect(devices: &Value, expected: &str) {
    let mut cluster = machines();
    cluster.claims.set(claim("c", devices, &json!({})));
    let asks = pod(&mut cluster, &["c"]);
    assert_eq!(judge(&mut cluster, &asks), expected, "{devices}");
}

fn on(a: &str, b: &str) -> String {
    format!("a: {a}; b: {b}; c: {NONE}")
}

#[test]
fn the_first_devices_that_are_right_are_found() {
    let small = |request: Value| with(request, "selectors", of_model("small"));
    let large = |request: Value| with(request, "selectors", of_model("large"));
    for (asked, a, b) in [
        (vec![exactly("r", 1)], "r=a0", "r=b0"),
        (vec![exactly("r", 2)], "r=a0 r=a1", "r=b0 r=b1"),
        (vec![exactly("r", 3)], NONE, NONE),
        (vec![small(exactly("r", 1))], "r=a0", "r=b1"),
        // The first leaves the second what only it can have.
        (vec![exactly("r", 1), large(exactly("s", 1))], NONE, "r=b1 s=b0"),
        (vec![all("r")], "r=a0 r=a1", "r=b0 r=b1"),
        (vec![all("r"), exactly("s", 1)], NONE, NONE),
        (vec![large(all("r"))], NONE, "r=b0"),
    ] {
        expect(&requests(&asked), &on(a, b));
    }
}

#[test]
fn devices_have_in_common_what_constraints_say() {
    let two = [exactly("r", 1), exactly("s", 1)];
    for (asked, attribute, of, a, b) in [
        (&[exactly("r", 2)][..], "bus", &[][..], NONE, "r=b0 r=b1"),
        (&[exactly("r", 2)], "model", &[], "r=a0 r=a1", NONE),
        (&[exactly("r", 2)], "rack", &[], NONE, NONE),
        (&two, "model", &["r"], "r=a0 s=a1", "r=b0 s=b1"),
        (&two, "model", &["r", "s"], "r=a0 s=a1", NONE),
        (
            &[all("r")],
            "model",
            &[],
            "r=a0 r=a1",
            "claim d/c, request r: cannot add device gpu.example.com/b/b1 because a claim constraint would not be satisfied",
        ),
    ] {
        expect(&same(asked, attribute, of), &on(a, b));
    }
}

#[test]
fn the_first_choice_that_a_node_has_is_taken() {
    let every =
        json!({"name": "every", "deviceClassName": "gpu", "allocationMode": "All", "selectors": of_model("small")});
    let large_or_small = |count| either(&[choice("large", "large", 1), choice("small", "small", count)]);
    for (asked, a, b) in [
        (requests(&[large_or_small(2)]), "r/small=a0 r/small=a1", "r/large=b0"),
        (
            requests(&[either(&[choice("two", "small", 2), every])]),
            "r/two=a0 r/two=a1",
            "r/every=b1",
        ),
        (
            requests(&[large_or_small(1), exactly("s", 1)]),
            "r/small=a0 s=a1",
            "r/large=b0 s=b1",
        ),
        (
            same(&[large_or_small(1), exactly("s", 1)], "model", &["r/large", "s"]),
            "r/small=a0 s=a1",
            "r/small=b1 s=b0",
        ),
        (
            // Another device of the second is not tried where the first choice asks for more than a claim can have.
            requests(&[either(&[choice("many", "small", 40), choice("small", "small", 1)])]),
            "r/small=a0",
            "r/small=b1",
        ),
        (requests(&[either(&[choice("huge", "huge", 1)])]), NONE, NONE),
    ] {
        expect(&asked, &on(a, b));
    }
}

#[test]
fn what_nobody_can_give_is_an_error() {
    let rack = selecting(&format!("device.attributes[\"{DRIVER}\"].rack == \"x\""));
    let no_rack = "claim d/c: selector #0: CEL runtime error: no such key: rack";
    expect(
        &requests(&[with(exactly("r", 1), "selectors", rack)]),
        &on(no_rack, no_rack),
    );
    let many = "claim d/c: number of requested devices 40 exceeds the claim limit of 32";
    expect(
        &requests(&[exactly("r", 20), exactly("s", 20)]),
        &format!("a: {many}; b: {many}; c: {many}"),
    );
    expect(
        &requests(&[with(exactly("r", 1), "deviceClassName", json!("none"))]),
        "request r: device class none does not exist",
    );
    let mut none = choice("x", "small", 1);
    none["deviceClassName"] = json!("none");
    expect(
        &requests(&[either(&[choice("small", "small", 1), none])]),
        "request r/x: device class none does not exist",
    );
    expect(
        &requests(&[either(&[])]),
        "resource claim d/c, request r: unknown request type",
    );
}

#[test]
fn who_has_a_device_has_it_alone_but_for_administrators() {
    let admin = |request: Value| with(request, "adminAccess", json!(true));
    for (request, expected) in [
        (exactly("r", 1), "a: r=a1; b: r=b0; c: cannot allocate all claims"),
        (
            exactly("r", 2),
            "a: cannot allocate all claims; b: r=b0 r=b1; c: cannot allocate all claims",
        ),
        (
            admin(exactly("r", 2)),
            "a: r=a0 r=a1; b: r=b0 r=b1; c: cannot allocate all claims",
        ),
        (
            all("r"),
            "a: cannot allocate all claims; b: r=b0 r=b1; c: cannot allocate all claims",
        ),
        (
            admin(all("r")),
            "a: r=a0 r=a1; b: r=b0 r=b1; c: cannot allocate all claims",
        ),
    ] {
        let mut cluster = machines();
        cluster
            .claims
            .set(claim("other", &json!({}), &given("a", "a0", &["x"])));
        cluster
            .claims
            .set(claim("c", &json!({"requests": [request]}), &json!({})));
        let asks = pod(&mut cluster, &["c"]);
        assert_eq!(judge(&mut cluster, &asks), expected, "{request}");
    }
}

#[test]
fn a_pool_that_is_not_as_it_should_be_is_left_alone() {
    for (count, devices, request, expected) in [
        (
            2,
            vec![device("a0", "m", 0)],
            exactly("r", 1),
            "a: cannot allocate all claims; ",
        ),
        (
            2,
            vec![device("a0", "m", 0)],
            all("r"),
            "a: claim d/c, request r: asks for all devices, but resource pool gpu.example.com/a is currently being updated; ",
        ),
        (
            1,
            vec![device("a0", "m", 0), device("a0", "m", 0)],
            exactly("r", 1),
            "a: invalid resource pools were encountered; ",
        ),
        (
            1,
            vec![device("a0", "m", 0), device("a0", "m", 0)],
            all("r"),
            "a: claim d/c, request r: asks for all devices, but resource pool gpu.example.com/a is currently invalid; ",
        ),
    ] {
        let mut cluster = machines();
        slice(&mut cluster, "a", count, &devices);
        cluster
            .claims
            .set(claim("c", &json!({"requests": [request]}), &json!({})));
        let asks = pod(&mut cluster, &["c"]);
        let said = judge(&mut cluster, &asks);
        assert!(said.starts_with(expected), "{request}: {said}");
    }
}

#[test]
fn an_allocation_says_how_and_where_its_devices_are_used() {
    let mut cluster = machines();
    let config = json!([{"requests": ["s"], "opaque": {"driver": DRIVER, "parameters": {"of": "claim"}}},
        {"opaque": {"driver": DRIVER, "parameters": {"of": "all"}}}, {"requests": ["other"], "opaque": {"driver": DRIVER, "parameters": {}}}]);
    let admin = with(exactly("s", 1), "adminAccess", json!(true));
    let devices = json!({"requests": [exactly("r", 1), admin], "config": config});
    cluster.claims.set(claim("c", &devices, &json!({})));
    let asks = pod(&mut cluster, &["c"]);
    let plugin = DynamicResources::default();
    plugin.prepare(&asks, &mut cluster);
    let reserved = reserved(&asks, cluster.find("a").unwrap(), &cluster.claims).unwrap();
    let opaque = |of: &str| json!({"driver": DRIVER, "parameters": {"of": of}});
    let expected = json!({
        "devices": {
            "results": [
                {"request": "r", "driver": DRIVER, "pool": "a", "device": "a0"},
                {"request": "s", "driver": DRIVER, "pool": "a", "device": "a1", "adminAccess": true},
            ],
            "config": [
                {"source": "FromClass", "requests": ["r", "s"], "opaque": opaque("class")},
                {"source": "FromClaim", "requests": ["s"], "opaque": opaque("claim")},
                {"source": "FromClaim", "opaque": opaque("all")},
            ],
        },
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]},
    });
    let allocation = reserved[0].allocation.as_deref().unwrap();
    assert_eq!(serde_json::to_value(allocation).unwrap(), expected);
}
