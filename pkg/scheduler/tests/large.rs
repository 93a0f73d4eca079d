//! How fast decisions are among many nodes; run with --ignored --nocapture (and --release for figures that count).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use mk8s_scheduler::cache::Cache;
use mk8s_scheduler::cycle;
use mk8s_scheduler::info::PodInfo;
use mk8s_scheduler::spread::{Groups, Spread};
use serde_json::json;

fn pod(n: usize) -> Arc<PodInfo> {
    let pod = json!({"metadata": {"uid": n.to_string(), "name": n.to_string(), "namespace": "d", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

#[test]
#[ignore = "a measurement"]
fn decisions_among_5000_nodes() {
    let mut cache = Cache::default();
    for n in 0..5000 {
        let node = json!({"metadata": {"name": format!("n{n}"), "labels": {"topology.kubernetes.io/zone": format!("z{}", n % 3)}},
            "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
        cache.set_node(Arc::new(serde_json::from_value(node).unwrap()));
    }
    let mut groups = Groups::default();
    groups.set_service(
        &serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": {"app": "web"}}}),
        )
        .unwrap(),
    );
    let (mut start, count, began) = (0, 20_000, Instant::now());
    for n in 0..count {
        let pod = pod(n);
        let spread = Spread::new(&pod.pod, &groups);
        cache.prepare(&spread);
        let decision = cycle::decide(&pod, &cache, &spread, start, |_| 0);
        start = decision.next_start;
        cache.add_pod(&pod, &decision.node.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} decisions among 5000 nodes in {seconds:.2} s: {:.0}/s",
        f64::from(u32::try_from(count).unwrap()) / seconds
    );
}
