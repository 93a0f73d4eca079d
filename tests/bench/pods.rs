//! Pods that really run: from the request that creates one to the event that shows it Running.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Measured,
    client::{Connection, Server},
    process,
    watch::Watch,
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(120);
/// What a node removes of pods after they are out of the API (dead containers, snapshots, namespaces) is done by then.
const SETTLING: Duration = Duration::from_secs(2);

/// So many rounds, in each of which so many pods are created at once and the last one's start is waited for. The pods of
/// a round are gone before the next one begins, outside of the clock.
pub async fn run(server: &Server, pids: &[u32], image: &str, rounds: usize, at_once: usize) -> Measured {
    let mut connection = server.connect().await.unwrap();
    let (mut latencies, mut cpu) = (Vec::new(), Duration::ZERO);
    for round in 0..rounds {
        let names: HashSet<String> = (0..at_once).map(|number| format!("bench-{round}-{number}")).collect();
        let mut watch = Watch::from_now(&mut connection, &format!("{PODS}?labelSelector=app%3Dbench")).await;
        let before = process::cpu(pids);
        let begun = Instant::now();
        let created = names.iter().map(|name| create(connection.clone(), name, image));
        futures::future::join_all(created).await;
        let running = |pod: &Value| pod["object"]["status"]["phase"] == "Running";
        until_all(&mut watch, names.clone(), running).await;
        latencies.push(begun.elapsed());
        cpu += process::cpu(pids) - before;
        for name in &names {
            // Not 0: that takes a pod out of the API at once, while the node still stops it and the next round begins.
            let path = format!("{PODS}/{name}?gracePeriodSeconds=1");
            let deleted = connection.whole("DELETE", &path, Bytes::new()).await.unwrap();
            assert!(deleted.status.is_success(), "{path}: {}", deleted.status);
        }
        until_all(&mut watch, names, |event| event["type"] == "DELETED").await;
        tokio::time::sleep(SETTLING).await;
    }
    latencies.sort_unstable();
    Measured {
        failed: 0,
        elapsed: latencies.iter().sum(),
        units: rounds * at_once,
        latencies,
        cpu,
    }
}

/// A namespace's ServiceAccount comes a moment after the API: until then pods are forbidden.
async fn create(mut connection: Connection, name: &str, image: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "sleep", "image": image, "command": ["sleep", "3600"]}],
        },
    });
    let pod = Bytes::from(pod.to_string());
    let begun = Instant::now();
    loop {
        let created = connection.whole("POST", PODS, pod.clone()).await.unwrap();
        if created.status.is_success() {
            return;
        }
        let answer = String::from_utf8_lossy(&created.body);
        assert!(created.status == 403 && begun.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_all(watch: &mut Watch, mut names: HashSet<String>, holds: impl Fn(&Value) -> bool) {
    let all = watch.until(|event| {
        if holds(event) {
            names.remove(event["object"]["metadata"]["name"].as_str().unwrap());
        }
        names.is_empty()
    });
    tokio::time::timeout(PATIENCE, all).await.unwrap();
}
