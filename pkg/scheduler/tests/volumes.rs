//! How fast decisions about pods with claims are among many nodes; run with --ignored --nocapture (and --release for figures that count).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use mk8s_client::Raw;
use mk8s_scheduler::cluster::Cluster;
use mk8s_scheduler::cycle;
use mk8s_scheduler::pod::PodInfo;
use mk8s_scheduler::profile::Profile;
use serde_json::{Value, json};

const NODES: usize = 5000;
const PODS: usize = 10_000;

fn raw(object: Value) -> Raw {
    Raw::new(object).unwrap()
}

/// Nodes with a driver that takes 30 volumes of each, and a class for which `provisioner` makes volumes.
fn cluster(provisioner: &str) -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..NODES {
        let (name, zone) = (format!("n{n}"), format!("z{}", n % 3));
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
        let node = json!({"metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
        let drivers = json!([{"name": "d", "allocatable": {"count": 30}}]);
        cluster.set_csi_node(&raw(json!({"metadata": {"name": name}, "spec": {"drivers": drivers}})));
    }
    let class =
        json!({"metadata": {"name": "c"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.set_class(&raw(class));
    cluster
}

fn claim(n: usize, cluster: &mut Cluster, volume: Option<&str>) {
    let name = format!("c{n}");
    let bound = volume.map(|_| json!({"pv.kubernetes.io/bind-completed": "yes"}));
    cluster.set_claim(&raw(json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": "1", "annotations": bound},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
    })));
}

fn volume(n: usize, cluster: &mut Cluster, more: &Value) {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "capacity": {"storage": "1Gi"}});
    mk8s_api::patch::merge(&mut spec, more).unwrap();
    let meta = json!({"name": format!("v{n}"), "resourceVersion": "1"});
    cluster.set_volume(&raw(
        json!({"metadata": meta, "spec": spec, "status": {"phase": "Available"}}),
    ));
}

fn near(key: &str, value: &str) -> Value {
    let term = json!({"key": key, "operator": "In", "values": [value]});
    json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}})
}

fn pod(n: usize, cluster: &mut Cluster) -> Arc<PodInfo> {
    let name = format!("p{n}");
    let pod = json!({"metadata": {"uid": name, "name": name, "namespace": "d"}, "spec": {
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("c{n}")}}]}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

/// Decides for pods that use claims `c0` and so on.
fn decide(what: &str, cluster: &mut Cluster) {
    let profile = Profile::default();
    let pods: Vec<_> = (0..PODS).map(|n| pod(n, cluster)).collect();
    let (mut start, began) = (0, Instant::now());
    for pod in pods {
        cycle::prepare(&pod, &profile, cluster);
        let decision = cycle::decide(&pod, &profile, cluster, start, |_| 0);
        start = decision.next_start;
        let node = decision.node.unwrap();
        for row in &profile.rows {
            row.plugin.reserve(&pod, node, cluster).unwrap();
        }
        let name = cluster.node(node).name.clone();
        cluster.place(pod, &name);
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(PODS).unwrap()) / seconds;
    println!("{rate:6.0}/s {what}");
}

#[test]
#[ignore = "a measurement"]
fn each_pod_gets_a_local_volume() {
    let mut cluster = cluster("kubernetes.io/no-provisioner");
    for n in 0..PODS {
        volume(
            n,
            &mut cluster,
            &near("kubernetes.io/hostname", &format!("n{}", n % NODES)),
        );
        claim(n, &mut cluster, None);
    }
    decide("local-volumes", &mut cluster);
}

#[test]
#[ignore = "a measurement"]
fn each_pod_gets_a_volume_of_its_zone() {
    let mut cluster = cluster("kubernetes.io/no-provisioner");
    for n in 0..PODS {
        volume(
            n,
            &mut cluster,
            &near("topology.kubernetes.io/zone", &format!("z{}", n % 3)),
        );
        claim(n, &mut cluster, None);
    }
    decide("volumes of zones", &mut cluster);
}

#[test]
#[ignore = "a measurement"]
fn each_pod_has_a_volume() {
    let mut cluster = cluster("d");
    for n in 0..PODS {
        volume(
            n,
            &mut cluster,
            &json!({"csi": {"driver": "d", "volumeHandle": n.to_string()}}),
        );
        claim(n, &mut cluster, Some(&format!("v{n}")));
    }
    decide("bound volumes, counted", &mut cluster);
}

#[test]
#[ignore = "a measurement"]
fn a_volume_is_made_for_each_pod_where_there_is_room() {
    let mut cluster = cluster("d");
    cluster.volumes.set_driver(&raw(
        json!({"metadata": {"name": "d"}, "spec": {"storageCapacity": true}}),
    ));
    for n in 0..NODES {
        let reach = json!({"matchLabels": {"kubernetes.io/hostname": format!("n{n}")}});
        let meta = json!({"name": format!("r{n}"), "namespace": "d"});
        let room = json!({"metadata": meta, "storageClassName": "c", "capacity": "10Gi", "nodeTopology": reach});
        cluster.volumes.set_capacity(&raw(room));
    }
    for n in 0..PODS {
        claim(n, &mut cluster, None);
    }
    decide("volumes", &mut cluster);
}
