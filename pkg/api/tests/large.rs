//! The longest bodies that are accepted (3 MiB): what is done with them takes time in proportion to their length. Where
//! items were compared each with each, these took minutes.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use mk8s_api::{patch, registry, schema, selectors, table, validation};
use serde_json::{Value, json};

/// Much more than any of them takes, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

fn soon<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let made = act();
    assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
    made
}

fn many(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

/// Default, check and warn of an object; how many errors it has.
fn write(group: &str, plural: &str, what: &str, mut object: Value) -> usize {
    let resource = registry::find(group, "v1", plural).unwrap();
    object["metadata"]["name"] = "long".into();
    soon(what, || {
        (resource.stored().default)(&mut object);
        resource.prepare_create(&mut object);
        let errors = validation::create(resource, resource.stored(), &object);
        validation::warnings(resource, &object, None);
        let count = errors.len();
        mk8s_api::status::Status::invalid(group, &resource.kind, "long", &errors);
        let mut new = object.clone();
        resource.prepare_update(&mut new, &object);
        validation::update(resource, resource.stored(), &new, &object, &mut Vec::new());
        validation::update_status(resource, resource.stored(), &new, &object, &mut Vec::new());
        count
    })
}

fn pod(what: &str, spec: Value) -> usize {
    write("", "pods", what, json!({"metadata": {"namespace": "a"}, "spec": spec}))
}

fn container(fields: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    container
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({"containers": [container]})
}

#[test]
fn pods_of_a_hundred_thousand_items() {
    let named = |n: usize| json!({"name": format!("n{n}")});
    pod("containers", json!({"containers": many(30_000, named)}));
    pod(
        "init containers",
        json!({"containers": [], "initContainers": many(30_000, named)}),
    );
    pod("volumes", json!({"containers": [], "volumes": many(50_000, named)}));
    pod(
        "gates",
        json!({"containers": [], "schedulingGates": many(50_000, named)}),
    );
    pod(
        "sysctls",
        json!({"containers": [], "securityContext": {"sysctls": many(50_000, named)}}),
    );
    let spread = |n: usize| json!({"topologyKey": format!("k{n}"), "whenUnsatisfiable": "DoNotSchedule"});
    pod(
        "spreading",
        json!({"containers": [], "topologySpreadConstraints": many(40_000, spread)}),
    );
    let toleration = |n: usize| json!({"key": format!("k{n}"), "operator": "Exists"});
    pod(
        "tolerations",
        json!({"containers": [], "tolerations": many(50_000, toleration)}),
    );
    pod("variables", container(json!({"env": many(50_000, named)})));
    let mount = |n: usize| json!({"name": format!("n{n}"), "mountPath": format!("/n{n}")});
    let mut mounts = container(json!({"volumeMounts": many(30_000, mount), "volumeDevices": many(10_000, named)}));
    mounts["volumes"] = many(20_000, |n| json!({"name": format!("n{n}"), "emptyDir": {}}));
    pod("mounts", mounts);
    let policy = |n: usize| json!({"resourceName": format!("r{n}"), "restartPolicy": "NotRequired"});
    pod(
        "resize policies",
        container(json!({"resizePolicy": many(40_000, policy)})),
    );
    let file = |n: usize| json!({"configMap": {"name": "a", "items": [{"key": "k", "path": format!("p{n}")}]}});
    let projected = json!([{"name": "v", "projected": {"sources": many(30_000, file)}}]);
    pod("projected files", json!({"containers": [], "volumes": projected}));
}

#[test]
fn ports_of_a_pod() {
    let port = |n: usize| json!({"name": format!("n{n}"), "containerPort": 80, "hostPort": n});
    pod("ports", container(json!({"ports": many(40_000, port)})));
    let port = |n: usize| json!({"containerPort": 80, "hostPort": 1, "hostIP": n.to_string()});
    pod("addresses", container(json!({"ports": many(40_000, port)})));
    // Each is the same as each other: what there is to say of that fills memory.
    let resource = registry::find("", "v1", "pods").unwrap();
    let same = json!({"spec": container(json!({"ports": many(3000, |_| json!({"containerPort": 80}))}))});
    assert_eq!(validation::warnings(resource, &same, None).len(), 1000);
}

#[test]
fn other_objects_of_a_hundred_thousand_items() {
    let port = |n: usize| json!({"name": format!("n{n}"), "port": n, "nodePort": n, "protocol": "TCP"});
    for type_ in ["ClusterIP", "NodePort"] {
        let spec =
            json!({"type": type_, "ports": many(40_000, port), "ipFamilies": many(50_000, |n| n.to_string().into())});
        write("", "services", type_, json!({"metadata": {}, "spec": spec}));
    }
    let taint = |n: usize| json!({"key": format!("k{n}"), "effect": "NoSchedule"});
    write(
        "",
        "nodes",
        "taints",
        json!({"metadata": {}, "spec": {"taints": many(50_000, taint)}}),
    );
    let named = |n: usize| json!({"name": format!("n{n}"), "protocol": "TCP"});
    let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": [], "ports": many(50_000, named)});
    write("discovery.k8s.io", "endpointslices", "ports", slice);
    let codes = json!({"operator": "In", "values": many(300_000, |n| n.into())});
    let rule = |_| json!({"action": "FailJob", "onExitCodes": {"containerName": "x", "operator": "In", "values": [1]}});
    let template = json!({"spec": {"containers": many(20_000, named)}});
    for rules in [json!([{"action": "FailJob", "onExitCodes": codes}]), many(20_000, rule)] {
        let job = json!({"metadata": {}, "spec": {"template": template, "podFailurePolicy": {"rules": rules}}});
        write("batch", "jobs", "exit codes", job);
    }
    let usages = many(40_000, |n| n.to_string().into());
    let conditions = many(50_000, |n| json!({"type": n.to_string(), "status": "True"}));
    let request = json!({"metadata": {}, "spec": {"usages": usages}, "status": {"conditions": conditions}});
    write("certificates.k8s.io", "certificatesigningrequests", "usages", request);
    let claim = json!({"metadata": {}, "spec": {"devices": {"requests": many(50_000, named)}}});
    write("resource.k8s.io", "resourceclaims", "requests", claim);
    let finalizers = many(100_000, |n| format!("a/{n}").into());
    let metadata = json!({"finalizers": finalizers, "deletionTimestamp": "2026-01-01T00:00:00Z"});
    write("", "configmaps", "finalizers", json!({"metadata": metadata}));
}

#[test]
fn an_error_that_shows_a_list_is_told_once() {
    let owner =
        |n: usize| json!({"apiVersion": "v1", "kind": "Pod", "name": format!("n{n}"), "uid": "u", "controller": true});
    let owned = json!({"metadata": {"namespace": "a", "ownerReferences": many(100, owner)}});
    assert_eq!(write("", "configmaps", "owners", owned), 1);
}

#[test]
fn what_is_read_of_long_objects() {
    let named = |n: usize| json!({"name": format!("n{n}"), "state": {"terminated": {"exitCode": 0}}});
    let statuses = json!({"initContainerStatuses": many(30_000, named)});
    let pod = json!({"metadata": {"name": "a"}, "spec": {"initContainers": many(30_000, named)}, "status": statuses});
    let resource = registry::find("", "v1", "pods").unwrap();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let look = table::Look {
        api_version: "meta.k8s.io/v1",
        include: table::Include::None,
    };
    soon("init containers", || {
        let printed = table::Printed {
            resource,
            served: resource.stored(),
            cells_of: &pod,
            shown: &pod,
        };
        table::row(printed, look, now)
    });
    let values = (0..200_000).map(|n| n.to_string()).collect();
    let selected = selectors::Requirement::new("key", selectors::Operator::In, values).unwrap();
    soon("values", || {
        (0..200_000).for_each(|n: usize| assert!(selected.matches(Some(&n.to_string()))));
    });
    assert!(!selected.matches(Some("x")) && !selected.matches(None));
}

/// A definition's columns are as many and as dear as who writes it likes.
#[test]
fn a_row_is_no_longer_than_its_object_asks_for() {
    let row = |json_path: &str, object: &Value| {
        let column = json!({"name": "C", "type": "string", "jsonPath": json_path});
        let columns: Vec<Value> = vec![column; 1000];
        let definition = json!({
            "spec": {"group": "example.org", "scope": "Namespaced", "names": {"kind": "Car", "plural": "cars"},
                "versions": [{"name": "v1", "served": true, "storage": true, "additionalPrinterColumns": columns}]},
            "status": {"acceptedNames": {"kind": "Car", "plural": "cars", "singular": "car", "listKind": "CarList"}},
        });
        let resource = registry::custom::resource(&definition).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        soon(json_path, || {
            registry::columns::cells(&resource.stored().columns, object, now)
        })
    };
    let object = json!({"metadata": {"name": "a"}, "spec": {"text": "x".repeat(1 << 20)}});
    let length = object.to_string().len();
    let cells = row(".spec", &object);
    assert_eq!(cells.len(), 1001);
    assert_eq!(cells[1], object["spec"].to_string());
    assert_eq!(cells[1000], Value::Null);
    assert!(Value::from(cells).to_string().len() < 2 * length);
    let object = json!({"metadata": {"name": "a"}, "spec": many(100_000, |n| json!({"a": {"a": n}}))});
    let cells = row("..['a','a']['a','a']['a','a'] 1", &object);
    assert_eq!(cells[1..], vec![Value::Null; 1000]);
    // What is small is asked as often as is liked.
    let cells = row("..b", &json!({"metadata": {"name": "a"}, "spec": {"b": "c"}}));
    assert_eq!(cells[1..], vec![Value::from("c"); 1000]);
}

#[test]
fn so_many_errors_are_told() {
    let labels: serde_json::Map<String, Value> = (0..100_000).map(|n| (format!("_{n}"), "".into())).collect();
    let resource = registry::find("", "v1", "configmaps").unwrap();
    let map = json!({"metadata": {"name": "a", "namespace": "a", "labels": labels}});
    let errors = validation::create(resource, resource.stored(), &map);
    assert_eq!(errors.len(), 100_000);
    let status = mk8s_api::status::Status::invalid("", "ConfigMap", "a", &errors);
    assert!(status.message.ends_with(", and 99000 more]"));
    assert_eq!(status.details.unwrap()["causes"].as_array().unwrap().len(), 1000);
}

#[test]
fn strategic_patches_of_long_lists() {
    let pods = schema::by_gvk("", "v1", "Pod").unwrap();
    let patched = |what: &str, mut target: Value, change: Value| {
        soon(what, || patch::strategic(&mut target, &change, pods)).unwrap();
        target
    };
    let texts = |from: usize| many(100_000, |n| (n + from).to_string().into());
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let merged = patched("primitives", finalizers(texts(0)), finalizers(texts(50_000)));
    assert_eq!(merged["metadata"]["finalizers"].as_array().unwrap().len(), 150_000);
    let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": texts(50_000)}});
    let left = patched("deleted primitives", finalizers(texts(0)), delete);
    assert_eq!(left["metadata"]["finalizers"].as_array().unwrap().len(), 50_000);

    let env = |items: Value| json!({"spec": {"containers": [{"name": "c", "env": items}]}});
    let variable =
        |from: usize, value: &'static str| move |n: usize| json!({"name": format!("n{}", n + from), "value": value});
    let old = || env(many(40_000, variable(0, "a")));
    let merged = patched("merged items", old(), env(many(40_000, variable(20_000, "b"))));
    let items = merged["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    assert_eq!(items.len(), 60_000);
    assert_eq!(items.iter().filter(|item| item["value"] == "b").count(), 40_000);
    let gone = env(many(30_000, |n| json!({"name": format!("n{n}"), "$patch": "delete"})));
    let left = patched("deleted items", old(), gone);
    assert_eq!(left["spec"]["containers"][0]["env"].as_array().unwrap().len(), 10_000);
    let names = many(40_000, |n| json!({"name": format!("n{}", 39_999 - n)}));
    let order = json!({"spec": {"containers": [{"name": "c", "$setElementOrder/env": names}]}});
    let ordered = patched("ordered items", old(), order);
    assert_eq!(ordered["spec"]["containers"][0]["env"][0]["name"], "n39999");
    let labels: serde_json::Map<String, Value> = (0..50_000).map(|n| (format!("k{n}"), "v".into())).collect();
    let keys = many(50_000, |n| format!("k{n}").into());
    let retain = json!({"metadata": {"labels": {"$retainKeys": keys}}});
    patched("retained keys", json!({"metadata": {"labels": labels}}), retain);
}

#[test]
fn json_patches_that_shift_long_arrays() {
    let long = || json!({"a": vec![0; 1_000_000]});
    let first = |op: &str| many(10_000, |_| json!({"op": op, "path": "/a/0", "value": 1}));
    let there_and_back = many(10_000, |_| json!({"op": "move", "from": "/a/0", "path": "/a/-"}));
    for change in [first("add"), first("remove"), there_and_back] {
        let mut target = long();
        let refused = soon("shifts", || patch::json(&mut target, &change)).unwrap_err();
        assert!(refused.to_string().contains("shift more than"), "{refused}");
    }
    // What a list that can be stored may need goes through.
    let mut target = json!({"a": vec![0; 1000]});
    patch::json(&mut target, &first("add")).unwrap();
    assert_eq!(target["a"].as_array().unwrap().len(), 11_000);
}
