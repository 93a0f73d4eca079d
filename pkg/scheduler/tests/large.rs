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
    ("no Service's", |_| (json!({"app": "web"}), json!({}))),
    ("plain", |_| (json!({"app": "of-a-service"}), json!({}))),
    ("each of a set of its own", |n| {
        (json!({"app": "web", "set": n.to_string()}), json!({}))
    }),
    ("anti-affinity", |n| {
        let labels = json!({"group": (n / 100).to_string()});
        let term = json!({"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": labels}});
        let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        (labels, json!({"affinity": affinity}))
    }),
    ("spread", |_| {
        let over = |key: &str| json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
        (
            json!({"app": "web"}),
            json!({"topologySpreadConstraints": [over(ZONE), over(HOSTNAME)]}),
        )
    }),
    ("preferred", |_| {
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

/// What the process holds, in bytes: what was freed and is held for what comes is in it.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// In bytes each; its neighbours' rows must not run beside it.
#[test]
#[ignore = "a measurement"]
fn memory_of_nodes_and_pods() {
    let profile = Profile::default();
    for (name, shape) in ROWS {
        let before = resident();
        let mut cluster = cluster();
        let of_nodes = resident().saturating_sub(before);
        let (mut start, held) = (0, resident());
        for n in 0..5 * PODS {
            let pod = pod(n, shape, &mut cluster);
            cycle::prepare(&pod, &profile, &mut cluster);
            let decision = cycle::decide(&pod, &profile, &cluster, start, |_| 0);
            start = decision.next_start;
            let node = cluster.node(decision.node.unwrap()).name.clone();
            cluster.place(pod, &node);
        }
        let of_pods = resident().saturating_sub(held);
        println!(
            "{:6} a node, {:6} a pod: {name}",
            of_nodes / NODES,
            of_pods / (5 * PODS)
        );
        std::mem::forget(cluster);
    }
}

/// A node with eight devices of two models.
fn machine(n: usize, cluster: &mut Cluster) {
    let name = format!("n{n}");
    let node =
        json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
    cluster.set_node(&serde_json::from_value(node).unwrap());
    let device = |at: usize| {
        let model = if at < 4 { "small" } else { "large" };
        let attributes =
            json!({"model": {"string": model}, "uuid": {"string": format!("{n}-{at}")}, "numa": {"int": at % 2}});
        json!({"name": format!("gpu-{at}"), "attributes": attributes, "capacity": {"memory": {"value": "40Gi"}}})
    };
    let devices: Vec<_> = (0..8).map(device).collect();
    let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "gpu.example.com", "nodeName": name, "pool": pool, "devices": devices});
    let slice = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}));
    cluster.claims.set_slice(&Arc::new(slice.unwrap()));
}

/// A pod with a claim for two large devices of one NUMA node.
fn claiming(n: usize, cluster: &mut Cluster) -> Arc<PodInfo> {
    let large = json!([{"cel": {"expression": "device.attributes[\"gpu.example.com\"].model == \"large\""}}]);
    let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2, "selectors": large}});
    let same = json!([{"matchAttribute": "gpu.example.com/numa"}]);
    let spec = json!({"devices": {"requests": [request], "constraints": same}});
    let meta = json!({"namespace": "d", "name": n.to_string(), "uid": n.to_string(), "resourceVersion": "1"});
    let claim = serde_json::from_value(json!({"metadata": meta, "spec": spec}));
    cluster.claims.set(Arc::new(claim.unwrap()));
    let pod = json!({"metadata": {"uid": n.to_string(), "name": n.to_string(), "namespace": "d"},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": [{"name": "gpu", "resourceClaimName": n.to_string()}]}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

/// As if the claim had been written, and an event had told of it.
fn written(pod: &PodInfo, cluster: &mut Cluster) {
    let reserved = cluster.claims.reserved(pod)[0].clone();
    let mut claim = (*reserved.claim).clone();
    claim.metadata.resource_version = Some("2".to_owned());
    claim.status.get_or_insert_default().allocation = reserved.allocation.as_deref().cloned();
    let claim = Arc::new(claim);
    reserved.written.set(claim.clone()).unwrap();
    cluster.claims.set(claim);
}

#[test]
#[ignore = "a measurement"]
fn claims_of_devices_among_5000_nodes() {
    let (mut cluster, profile) = (Cluster::default(), Profile::default());
    (0..5000).for_each(|n| machine(n, &mut cluster));
    let selector = json!([{"cel": {"expression": "device.driver == \"gpu.example.com\""}}]);
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": selector}});
    cluster.claims.set_class(serde_json::from_value(class).unwrap());
    let pods: Vec<_> = (0..8000).map(|n| claiming(n, &mut cluster)).collect();
    let (mut start, count, began) = (0, pods.len(), Instant::now());
    for pod in pods {
        cycle::prepare(&pod, &profile, &mut cluster);
        let decision = cycle::decide(&pod, &profile, &cluster, start, |_| 0);
        start = decision.next_start;
        let node = decision.node.unwrap();
        for row in &profile.rows {
            row.plugin.reserve(&pod, node, &mut cluster).unwrap();
        }
        written(&pod, &mut cluster);
        let name = cluster.node(node).name.clone();
        cluster.place(pod, &name);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{:6.0}/s devices", f64::from(u32::try_from(count).unwrap()) / seconds);
}
