//! How fast decisions are among many nodes; run with --ignored --nocapture (and --profile quick for figures that count).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use mk8s_scheduler::cluster::Cluster;
use mk8s_scheduler::cycle;
use mk8s_scheduler::pod::PodInfo;
use mk8s_scheduler::profile::Profile;
use serde_json::{Value, json};

const NODES: usize = 5000;
const PODS: usize = 20_000;
const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What makes the nth pod of a row something else than a plain one: its labels, and fields of its spec.
type Shape = fn(usize) -> (Value, Value);

const ROWS: [(&str, Shape); 6] = [
    ("plain", |_| (json!({"app": "web"}), json!({}))),
    ("plain, of a Service", |_| (json!({"app": "of-a-service"}), json!({}))),
    ("each of a set of its own", |n| {
        (json!({"app": "web", "set": n.to_string()}), json!({}))
    }),
    ("away from the others of its hundred, by node", |n| {
        let labels = json!({"group": (n / 100).to_string()});
        let term = json!({"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": labels}});
        let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        (labels, json!({"affinity": affinity}))
    }),
    ("spread evenly over zones and nodes", |_| {
        let over = |key: &str| json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
        (
            json!({"app": "web"}),
            json!({"topologySpreadConstraints": [over(ZONE), over(HOSTNAME)]}),
        )
    }),
    ("rather in a zone with its like, and on some nodes", |_| {
        let near = json!({"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "web"}}});
        let ssd = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]});
        let affinity = json!({
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm": near}]},
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 20, "preference": ssd}]},
        });
        (json!({"app": "web"}), json!({"affinity": affinity}))
    }),
];

fn pod(n: usize, shape: Shape, cluster: &mut Cluster) -> Arc<PodInfo> {
    let (labels, fields) = shape(n);
    let requests = json!({"cpu": "100m", "memory": "64Mi"});
    let mut pod = json!({"metadata": {"uid": n.to_string(), "name": n.to_string(), "namespace": "d", "labels": labels},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
    for (field, value) in fields.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..NODES {
        let mut labels = json!({HOSTNAME: format!("n{n}"), ZONE: format!("z{}", n % 4)});
        if n % 2 == 0 {
            labels["disk"] = json!("ssd");
        }
        let node = json!({"metadata": {"name": format!("n{n}"), "labels": labels},
            "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    let service = json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": {"app": "of-a-service"}}});
    cluster.groups.set_service(&serde_json::from_value(service).unwrap());
    cluster
}

#[test]
#[ignore = "a measurement"]
fn decisions_among_5000_nodes() {
    let profile = Profile::default();
    for (name, shape) in ROWS {
        let mut cluster = cluster();
        let pods: Vec<_> = (0..PODS).map(|n| pod(n, shape, &mut cluster)).collect();
        let (mut start, began) = (0, Instant::now());
        for pod in pods {
            cycle::prepare(&pod, &profile, &mut cluster);
            let decision = cycle::decide(&pod, &profile, &cluster, start, |_| 0);
            start = decision.next_start;
            let node = cluster.node(decision.node.unwrap()).name.clone();
            cluster.place(pod, &node);
        }
        let each = began.elapsed() / u32::try_from(PODS).unwrap();
        println!("{:6.0}/s {name}", 1.0 / each.as_secs_f64());
    }
}
