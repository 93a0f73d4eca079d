//! Addresses and ports of Services: objects of their own, written with the Service or not at all.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::Api;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
/// What a cluster begins with.
const OWN: [&str; 2] = ["10.96.0.1", "10.96.0.10"];

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn ports() -> Value {
    json!([{"port": 80}])
}

async fn addresses(api: &Api) -> Vec<String> {
    let (_, list) = api.get(ADDRESSES).await;
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_string())
        .collect()
}

#[tokio::test]
async fn an_address_is_an_object_as_upstream_makes_it() {
    let api = Api::open().await;
    assert_eq!(addresses(&api).await, OWN, "of the services kubernetes and kube-dns");
    let (code, made) = api.post(SERVICES, &service("a", json!({"ports": ports()}))).await;
    assert_eq!(code, 201, "{made}");
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    let (code, object) = api.get(&format!("{ADDRESSES}/{address}")).await;
    assert_eq!(code, 200);
    assert_eq!(
        object["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"],
        "one transaction"
    );
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    let parent = json!({"name": "a", "namespace": "default", "resource": "services"});
    assert_eq!(object["spec"], json!({"parentRef": parent}));
    assert!(object["metadata"]["uid"].is_string() && object["metadata"]["creationTimestamp"].is_string());
    api.delete(&format!("{SERVICES}/a"), None).await;
    assert_eq!(addresses(&api).await, OWN);
    // Also where the last finalizer goes by an update.
    let mut held = service(
        "held",
        json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 1, "nodePort": 30500}]}),
    );
    held["metadata"]["finalizers"] = json!(["example.org/x"]);
    assert_eq!(api.post(SERVICES, &held).await.0, 201);
    api.delete(&format!("{SERVICES}/held"), None).await;
    assert_eq!(addresses(&api).await.len(), 3, "it is still there");
    let free = json!({"metadata": {"finalizers": null}});
    let (code, _) = api
        .patch(&format!("{SERVICES}/held"), "application/merge-patch+json", &free)
        .await;
    assert_eq!(code, 200);
    assert_eq!(addresses(&api).await, OWN);
    let again = service(
        "b",
        json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 1, "nodePort": 30500}]}),
    );
    let (code, again) = api.post(SERVICES, &again).await;
    assert_eq!(code, 201, "{again}");
}

#[tokio::test]
async fn what_is_taken_is_refused_and_survives_a_restart() {
    let api = Api::open().await;
    let spec = json!({"clusterIP": "10.96.0.20", "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30002, "ports": [{"port": 80, "nodePort": 30001}]});
    let (code, made) = api.post(SERVICES, &service("a", spec)).await;
    assert_eq!(code, 201, "{made}");
    let api = api.reopen().await;
    for spec in [
        json!({"clusterIP": "10.96.0.20", "ports": ports()}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30002}]}),
    ] {
        let (code, refused) = api.post(SERVICES, &service("b", spec)).await;
        assert_eq!(code, 422, "{refused}");
        assert!(
            refused["message"].as_str().unwrap().contains("already allocated"),
            "{refused}"
        );
    }
    // A port that an update leaves is free again.
    let plain = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null, "healthCheckNodePort": null, "ports": [{"port": 80, "nodePort": null}]}});
    let (code, changed) = api
        .patch(&format!("{SERVICES}/a"), "application/merge-patch+json", &plain)
        .await;
    assert_eq!(code, 200, "{changed}");
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
    assert_eq!(api.post(SERVICES, &service("b", spec)).await.0, 201);
}

#[tokio::test]
async fn a_users_own_address_blocks_it() {
    let api = Api::open().await;
    let own = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.96.0.30"},
        "spec": {"parentRef": {"group": "example.org", "resource": "gateways", "namespace": "default", "name": "g"}}});
    let (code, made) = api.post(ADDRESSES, &own).await;
    assert_eq!(code, 201, "{made}");
    let wanted = service("a", json!({"clusterIP": "10.96.0.30", "ports": ports()}));
    assert_eq!(api.post(SERVICES, &wanted).await.0, 422);
    api.delete(&format!("{ADDRESSES}/10.96.0.30"), None).await;
    assert_eq!(api.post(SERVICES, &wanted).await.0, 201);
    // And the service's is not taken from it by deleting it.
    api.delete(&format!("{ADDRESSES}/10.96.0.30"), None).await;
    let made_again = async {
        while api.get(&format!("{ADDRESSES}/10.96.0.30")).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), made_again).await.unwrap();
    let thief = service("b", json!({"clusterIP": "10.96.0.30", "ports": ports()}));
    assert_eq!(api.post(SERVICES, &thief).await.0, 422);
}

#[tokio::test]
async fn an_address_of_nobody_goes_once_its_finalizers_are_done() {
    let api = Api::open().await;
    let path = |name: &str| format!("{ADDRESSES}/{name}");
    let labels = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": "IPv4"});
    for (name, finalizers) in [("10.96.0.31", json!([])), ("10.96.0.32", json!(["example.org/waits"]))] {
        let own = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": name, "labels": labels, "finalizers": finalizers},
            "spec": {"parentRef": {"group": "example.org", "resource": "gateways", "namespace": "default", "name": "g"}}});
        let (code, made) = api.post(ADDRESSES, &own).await;
        assert_eq!(code, 201, "{made}");
    }
    let gone = async |name: &str| {
        while api.get(&path(name)).await.0 != 404 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waits = async {
        gone("10.96.0.31").await;
        loop {
            let (code, waits) = api.get(&path("10.96.0.32")).await;
            assert_eq!(code, 200, "{waits}");
            if waits["metadata"]["deletionTimestamp"].is_string() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let done = json!({"metadata": {"finalizers": null}});
        let patched = api
            .patch(&path("10.96.0.32"), "application/merge-patch+json", &done)
            .await;
        assert_eq!(patched.0, 200, "{}", patched.1);
        gone("10.96.0.32").await;
    };
    tokio::time::timeout(Duration::from_secs(10), waits).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_takes_nothing() {
    let api = Api::open().await;
    let spec = json!({"clusterIP": "10.96.0.40", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30040}]});
    let (code, shown) = api
        .post(&format!("{SERVICES}?dryRun=All"), &service("a", spec.clone()))
        .await;
    assert_eq!((code, shown["spec"]["clusterIP"].as_str()), (201, Some("10.96.0.40")));
    assert!(shown["metadata"].get("resourceVersion").is_none(), "{shown}");
    assert_eq!(addresses(&api).await, OWN);
    assert_eq!(api.post(SERVICES, &service("a", spec)).await.0, 201);
}

/// A client that leaves while its write waits for the disk: the address is the stored service's, and nobody else's.
#[tokio::test]
async fn a_cancelled_request_hands_nothing_out_twice() {
    let api = Api::open().await;
    for round in 0..20 {
        let body = service(
            &format!("gone-{round}"),
            json!({"clusterIP": "10.96.0.50", "ports": ports()}),
        );
        let request = api.send("POST", SERVICES, "application/json", body.to_string());
        // Dropped after it has begun, at one of its awaits.
        let _ = tokio::time::timeout(Duration::from_micros(200 * round), request).await;
        let name = format!("next-{round}");
        let next = service(&name, json!({"clusterIP": "10.96.0.50", "ports": ports()}));
        let (code, answer) = api.post(SERVICES, &next).await;
        let (_, list) = api.get(SERVICES).await;
        let holders = list["items"].as_array().unwrap().iter();
        let holders = holders.filter(|item| item["spec"]["clusterIP"] == "10.96.0.50").count();
        assert_eq!(holders, 1, "round {round}: {code} {answer}");
        for name in [name, format!("gone-{round}")] {
            api.delete(&format!("{SERVICES}/{name}"), None).await;
        }
    }
}

/// Many who name no address at once, in a range that is nearly full: each has its own.
#[tokio::test]
async fn those_who_choose_at_once_get_different_ones() {
    let api = Api::open().await;
    let all = (0..40).map(|index| {
        let api = &api;
        async move {
            let spec = json!({"type": "NodePort", "ports": ports()});
            let (code, made) = api.post(SERVICES, &service(&format!("s{index}"), spec)).await;
            assert_eq!(code, 201, "{made}");
            let (address, port) = (&made["spec"]["clusterIP"], &made["spec"]["ports"][0]["nodePort"]);
            (address.as_str().unwrap().to_string(), port.as_u64().unwrap())
        }
    });
    let (mut seen, mut node_ports): (Vec<_>, Vec<_>) = futures::future::join_all(all).await.into_iter().unzip();
    seen.sort();
    seen.dedup();
    node_ports.sort_unstable();
    node_ports.dedup();
    assert_eq!((seen.len(), node_ports.len()), (40, 40));
}

/// Its address was free for anybody's Service until the next start.
#[tokio::test]
async fn the_api_s_own_service_comes_back() {
    let api = Api::open().await;
    let kept = [
        "/api/v1/namespaces/default/services/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/system",
    ];
    for path in kept {
        let (code, before) = api.get(path).await;
        assert_eq!(code, 200, "{path}");
        assert_eq!(api.delete(path, None).await.0, 200, "{path}");
        let again = async {
            loop {
                match api.get(path).await {
                    (200, after) => return after,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let after = tokio::time::timeout(Duration::from_secs(20), again).await;
        let after = after.unwrap_or_else(|_| panic!("{path} stays away"));
        assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
        for field in ["spec", "endpoints", "data"] {
            assert_eq!(after[field], before[field], "{path} {field}");
        }
    }
}

/// What an administrator chose of flow control stays, what is the server's own is as it was after the next start.
#[tokio::test]
async fn flow_control_is_whose_it_is() {
    const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    const KEPT: &str = "apf.kubernetes.io/autoupdate-spec";
    let api = Api::open().await;
    let shares = |level: &Value| {
        let spec = &level["spec"];
        let own = |kind: &str| spec[kind]["nominalConcurrencyShares"].clone();
        [own("exempt"), own("limited")]
    };
    let other = |is_kept: &str| json!({"metadata": {"annotations": {KEPT: is_kept}}, "spec": {"limited": {"nominalConcurrencyShares": 7}}});
    let chosen = json!({"spec": {"exempt": {"nominalConcurrencyShares": 7}}});
    for (name, change) in [
        ("exempt", chosen),
        ("system", other("true")),
        ("node-high", other("false")),
    ] {
        let (code, answer) = api
            .patch(&format!("{LEVELS}/{name}"), "application/merge-patch+json", &change)
            .await;
        assert_eq!(code, 200, "{name}: {answer}");
    }
    let unchanged = |level: &Value| level["metadata"]["resourceVersion"].clone();
    let before = api.get(&format!("{LEVELS}/workload-low")).await.1;
    let api = api.reopen().await;
    for (name, expected) in [
        ("exempt", json!([7, null])),
        ("system", json!([null, 30])),
        ("node-high", json!([null, 7])),
    ] {
        let (_, level) = api.get(&format!("{LEVELS}/{name}")).await;
        assert_eq!(json!(shares(&level)), expected, "{name}: {level}");
    }
    assert_eq!(
        api.get(&format!("{LEVELS}/system")).await.1["metadata"]["generation"],
        3
    );
    let after = api.get(&format!("{LEVELS}/workload-low")).await.1;
    assert_eq!(
        unchanged(&after),
        unchanged(&before),
        "what nobody changed is not written again"
    );
}

/// And before that: nothing tells of what is only changed, so it is looked for.
#[tokio::test]
async fn flow_control_is_as_it_was_in_a_minute() {
    const LEVEL: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/system";
    const SCHEMA: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all";
    let api = Api::open().await;
    // The keeper's first look is no later than that.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let merge = "application/merge-patch+json";
    let changed = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    assert_eq!(api.patch(LEVEL, merge, &changed).await.0, 200);
    let others = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    assert_eq!(api.patch(SCHEMA, merge, &others).await.0, 200);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let shares = |level: &Value| level["spec"]["limited"]["nominalConcurrencyShares"].clone();
    let (_, level) = api.get(LEVEL).await;
    assert_eq!(
        (shares(&level), &level["metadata"]["generation"]),
        (json!(7), &json!(2))
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let again = async {
        loop {
            let (level, schema) = (api.get(LEVEL).await.1, api.get(SCHEMA).await.1);
            if shares(&level) == 30 && schema["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] == "true"
            {
                return level;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let level = tokio::time::timeout(Duration::from_secs(20), again).await;
    assert_eq!(level.expect("they stay changed")["metadata"]["generation"], 3);
}

/// Somebody's Service that had taken the address ended every later start, and kept the rest from being made again.
#[tokio::test]
async fn whose_address_is_taken_keeps_nothing_else_away() {
    let api = Api::open().await;
    let taken = service("taken", json!({"clusterIP": "10.96.0.10", "ports": ports()}));
    // Within the second in which it is away.
    loop {
        api.delete("/api/v1/namespaces/kube-system/services/kube-dns", None)
            .await;
        if api.post(SERVICES, &taken).await.0 == 201 {
            break;
        }
    }
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    assert_eq!(api.delete(info, None).await.0, 200);
    let again = async {
        while api.get(info).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
    let api = api.reopen().await;
    assert_eq!(api.get(info).await.0, 200);
}

/// A write of the status was judged without the spec, which says that there is a balancer.
#[tokio::test]
async fn a_balancer_says_where_it_is() {
    let api = Api::open().await;
    for (name, kind, code) in [("a", "LoadBalancer", 200), ("b", "ClusterIP", 422)] {
        let made = api
            .post(SERVICES, &service(name, json!({"type": kind, "ports": ports()})))
            .await;
        assert_eq!(made.0, 201, "{}", made.1);
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
        let path = format!("{SERVICES}/{name}/status");
        let (got, answer) = api.patch(&path, "application/merge-patch+json", &status).await;
        assert_eq!(got, code, "{kind}: {answer}");
    }
}

/// An administrator gives the cluster more addresses while it runs, and takes them back.
#[tokio::test]
async fn addresses_come_from_every_range_that_is_ready() {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let api = Api::open_with(|config| config.service_cidr = "10.96.0.0/28".parse().unwrap()).await;
    let make = async |name: String, spec: Value| api.post(SERVICES, &service(&name, spec)).await;
    let any = async |name: String| {
        let (code, made) = make(name, json!({"ports": ports()})).await;
        (code, made["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned())
    };
    // Fourteen addresses, of which two are the cluster's own.
    for n in 0..12 {
        let (code, address) = any(format!("first-{n}")).await;
        assert_eq!(code, 201);
        assert!(address.starts_with("10.96.0."), "{address}");
    }
    assert_eq!(any("none-left".into()).await.0, 422);
    let outside = async |name: &str, range: &str| {
        let spec = json!({"clusterIP": "10.97.0.9", "ports": ports()});
        let (code, answer) = make(name.into(), spec).await;
        assert_eq!(code, 422, "{range}: {answer}");
        let said = answer["message"].as_str().unwrap();
        let why = "failed to allocate IP 10.97.0.9: the provided network does not match the current range";
        assert!(said.contains(why), "{said}");
    };
    outside("outside", "no range").await;

    let second = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "second", "finalizers": ["example.org/held"]}, "spec": {"cidrs": ["10.97.0.0/28"]}});
    let (code, made) = api.post(RANGES, &second).await;
    assert_eq!(code, 201, "{made}");
    let (code, address) = any("second".into()).await;
    assert_eq!(code, 201);
    assert!(address.starts_with("10.97.0."), "{address}");
    api.delete(&format!("{SERVICES}/second"), None).await;
    // The range's own address and its broadcast address are nobody's.
    for address in ["10.97.0.0", "10.97.0.15"] {
        let spec = json!({"clusterIP": address, "ports": ports()});
        assert_eq!(make("edge".into(), spec).await.0, 422, "{address}");
    }

    let ready = async |status: &str| {
        let condition = json!({"type": "Ready", "status": status, "reason": "", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let path = format!("{RANGES}/second/status");
        let body = json!({"status": {"conditions": [condition]}});
        assert_eq!(api.patch(&path, "application/merge-patch+json", &body).await.0, 200);
    };
    ready("False").await;
    outside("outside", "one that is not ready").await;
    ready("True").await;
    let named = json!({"clusterIP": "10.97.0.9", "ports": ports()});
    assert_eq!(make("named".into(), named).await.0, 201);
    api.delete(&format!("{SERVICES}/named"), None).await;
    // One that is to go gives no more.
    assert_eq!(api.delete(&format!("{RANGES}/second"), None).await.0, 200);
    outside("outside", "one that goes").await;
    let api = api.reopen().await;
    let spec = json!({"clusterIP": "10.97.0.9", "ports": ports()});
    assert_eq!(api.post(SERVICES, &service("outside", spec)).await.0, 422);
}
