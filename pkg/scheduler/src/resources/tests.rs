//! What pods ask for, and its sums.
#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).unwrap()
}

#[test]
fn pod_asks_for_the_larger_of_containers_and_init_containers_and_for_its_overhead() {
    let c = |cpu: &str, gpus: &str| serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu, "a.b/gpu": gpus}}});
    let spec = serde_json::json!({
        "containers": [c("100m", "1"), c("0.2", "1")],
        "initContainers": [c("1", "1")],
        "overhead": {"cpu": "10m", "memory": "1Ki"},
    });
    let asked = requests(&pod(spec));
    assert_eq!(
        (asked.milli_cpu, asked.memory, asked.scalar("a.b/gpu")),
        (1010, 1024, 2)
    );
}

#[test]
fn sidecar_counts_beside_later_init_containers_and_the_containers() {
    let c = |cpu: &str, policy: Option<&str>| serde_json::json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
    let spec = |main: &str| {
        serde_json::json!({
            "containers": [c(main, None)],
            "initContainers": [c("100m", Some("Always")), c("500m", None)],
        })
    };
    assert_eq!(requests(&pod(spec("200m"))).milli_cpu, 600);
    assert_eq!(requests(&pod(spec("700m"))).milli_cpu, 800);
}

#[test]
fn what_the_pod_asks_for_as_a_whole_counts_instead() {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Ki", "a.b/gpu": "1"}}});
    let spec = json!({
        "containers": [container, {"name": "d"}],
        "resources": {"requests": {"cpu": "2", "hugepages-2Mi": "4Mi"}},
        "overhead": {"cpu": "10m"},
    });
    let (asked, nonzero) = (requests(&pod(spec.clone())), nonzero_requests(&pod(spec.clone())));
    let scalars = (asked.scalar("a.b/gpu"), asked.scalar("hugepages-2Mi"));
    assert_eq!((asked.milli_cpu, asked.memory, scalars), (2010, 1024, (1, 4 << 20)));
    assert_eq!((nonzero.milli_cpu, nonzero.memory), (2010, 1024));
    let scored = scored_requests(&pod(spec)).unwrap();
    assert_eq!((scored.milli_cpu, scored.memory), (210, 1024 + DEFAULT_MEMORY));
}

#[test]
fn a_container_that_is_not_resized_counts_as_what_it_has() {
    for (asks, has, pending, expected) in [
        ("100m", None, "", 100),
        // It is not the one that is not resized.
        ("100m", None, "Infeasible", 100),
        ("100m", Some("100m"), "", 100),
        ("100m", Some("4"), "Infeasible", 4000),
        ("100m", Some("4"), "", 4000),
        ("1000", Some("1"), "Infeasible", 1000),
        ("1000", Some("1"), "Deferred", 1_000_000),
    ] {
        let list = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "c", "resources": list(asks)}]},
            "status": {
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": has.map(list)}],
            },
        }))
        .unwrap();
        let asked = (requests(&pod).milli_cpu, nonzero_requests(&pod).milli_cpu);
        assert_eq!(asked, (expected, expected), "{asks} {has:?} {pending}");
    }
}

#[test]
fn containers_without_requests_count_in_scores_only() {
    let spec =
        serde_json::json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "0"}}}]});
    assert_eq!(requests(&pod(spec.clone())), Resources::default());
    let asked = nonzero_requests(&pod(spec));
    assert_eq!((asked.milli_cpu, asked.memory), (DEFAULT_MILLI_CPU, 2 * DEFAULT_MEMORY));
}

#[test]
fn sums_of_the_largest_requests_are_still_large() {
    let huge = json!({"name": "c", "resources": {"requests": {"memory": "5E", "cpu": "9E", "x.y/z": "5E"}}});
    for (containers, init) in [
        (vec![&huge; 2], vec![]),
        (vec![&huge; 5000], vec![]),
        (vec![], vec![&huge; 5000]),
    ] {
        let sidecars: Vec<_> = init
            .into_iter()
            .map(|own| {
                let mut own = own.clone();
                own["restartPolicy"] = json!("Always");
                own
            })
            .collect();
        let spec = json!({"containers": containers, "initContainers": sidecars, "overhead": {"memory": "5E"}});
        let pod = pod(spec);
        for asked in [requests(&pod), nonzero_requests(&pod)] {
            let amounts = (asked.memory, asked.milli_cpu, asked.scalar("x.y/z"));
            assert_eq!(amounts, (MOST, MOST, MOST));
        }
    }
}

#[test]
fn what_comes_and_goes_leaves_nothing() {
    let asks = |names: &[&str]| Resources {
        memory: 7,
        scalars: names.iter().map(|name| ((*name).to_owned(), 1)).collect(),
        ..Resources::default()
    };
    let (one, other, mut node) = (asks(&["b", "d"]), asks(&["a", "b", "c"]), Resources::default());
    node.add(&one);
    node.add(&other);
    let all: Vec<_> = node.scalars.iter().map(|(name, amount)| (&**name, *amount)).collect();
    assert_eq!(all, [("a", 1), ("b", 2), ("c", 1), ("d", 1)]);
    node.sub(&one);
    assert_eq!(node, other);
    node.sub(&other);
    assert_eq!(node, Resources::default());
}
