//! How fast decisions are among many nodes; run with --ignored --nocapture (and --release for figures that count).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use mk8s_scheduler::cluster::Cluster;
use mk8s_scheduler::cycle;
use mk8s_scheduler::pod::PodInfo;
use mk8s_scheduler::profile::Profile;
use serde_json::json;

fn pod(n: usize, cluster: &mut Cluster) -> Arc<PodInfo> {
    let pod = json!({"metadata": {"uid": n.to_string(), "name": n.to_string(), "namespace": "d", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

#[test]
#[ignore = "a measurement"]
fn decisions_among_5000_nodes() {
    let (mut cluster, profile) = (Cluster::default(), Profile::default());
    for n in 0..5000 {
        let node = json!({"metadata": {"name": format!("n{n}"), "labels": {"topology.kubernetes.io/zone": format!("z{}", n % 3)}},
            "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    let service = json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": {"app": "web"}}});
    cluster.groups.set_service(&serde_json::from_value(service).unwrap());
    let pods: Vec<_> = (0..20_000).map(|n| pod(n, &mut cluster)).collect();
    let (mut start, count, began) = (0, pods.len(), Instant::now());
    for pod in pods {
        cycle::prepare(&pod, &profile, &mut cluster);
        let decision = cycle::decide(&pod, &profile, &cluster, start, |_| 0);
        start = decision.next_start;
        let node = cluster.node(decision.node.unwrap()).name.clone();
        cluster.place(pod, &node);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} decisions among 5000 nodes in {seconds:.2} s: {:.0}/s",
        f64::from(u32::try_from(count).unwrap()) / seconds
    );
}
