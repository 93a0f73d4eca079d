//! How fast room is made on nodes that are full of less important pods; run with --ignored --nocapture (and --profile quick for
//! figures that count).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use mk8s_scheduler::cluster::Cluster;
use mk8s_scheduler::cycle::{self, Preempted};
use mk8s_scheduler::pod::PodInfo;
use mk8s_scheduler::profile::Profile;
use serde_json::json;

const NODES: usize = 5000;
const PODS: usize = 1000;

fn pod(uid: &str, priority: i32, cluster: &mut Cluster) -> Arc<PodInfo> {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "8", "memory": "200Mi"}}});
    let pod = json!({"metadata": {"uid": uid, "name": uid, "namespace": "d", "labels": {"app": "web"}},
        "spec": {"containers": [container], "priority": priority}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

#[test]
#[ignore = "a measurement"]
fn each_pod_takes_the_place_of_one() {
    let (mut cluster, profile) = (Cluster::default(), Profile::default());
    for n in 0..NODES {
        let name = format!("n{n}");
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{}", n % 4)});
        let node = json!({"metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
        for at in 0..4 {
            let low = pod(&format!("low-{n}-{at}"), 0, &mut cluster);
            cluster.place(low, &name);
        }
    }
    let (mut start, began) = (0, Instant::now());
    let mut pick = 0;
    for n in 0..PODS {
        let high = pod(&format!("high-{n}"), 100, &mut cluster);
        cycle::prepare(&high, &profile, &mut cluster);
        let among = |among: usize| {
            pick = (pick + 7919) % among;
            pick
        };
        let refusal = cycle::decide(&high, &profile, &cluster, start, among).node.unwrap_err();
        let Some(Preempted::By(victims)) = refusal.preemption else {
            unreachable!("{}", refusal.message)
        };
        assert_eq!(victims.pods.len(), 1);
        let node = cluster.node(victims.node).name.clone();
        cluster.nominated.set(high.clone(), &node);
        cluster.remove(&victims.pods[0].uid);
        cycle::prepare(&high, &profile, &mut cluster);
        let decision = cycle::decide(&high, &profile, &cluster, start, |_| 0);
        start = decision.next_start;
        assert_eq!(decision.node.unwrap(), victims.node);
        cluster.nominated.remove(&high.uid);
        cluster.place(high, &node);
    }
    let each = began.elapsed() / u32::try_from(PODS).unwrap();
    println!("{:6.0}/s preemption", 1.0 / each.as_secs_f64());
}
