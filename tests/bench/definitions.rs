//! CustomResourceDefinitions as operators bring them: schemas of some 23 KB, of which one half is common to all, as pod
//! templates and conditions are.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{
    Measured,
    client::{Connection, JSON, Request, Server},
    objects::What,
    process,
};

const GROUP: &str = "bench.example.com";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const PATIENCE: Duration = Duration::from_secs(120);
/// What the server still does for them once they are served is over when it was idle for so long.
const SETTLED: Duration = Duration::from_millis(500);

/// So many of some two KB make a schema.
const PARTS: usize = 11;

/// Where the objects of the first definition are.
pub fn path(namespace: &str) -> String {
    format!("/apis/{GROUP}/v1/namespaces/{namespace}/{}", plural(0))
}

/// An object of the first definition.
pub fn object() -> Value {
    let part = json!({"enabled": true, "replicas": 3, "size": "10Gi", "mode": "Fast", "zones": ["a", "b"],
        "labels": {"app": "bench"}, "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}]});
    let spec: Map<String, Value> = (0..6).map(|at| (part_name(at, 0), part.clone())).collect();
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Bench0", "metadata": {"generateName": "bench-",
        "labels": {"app": "bench"}}, "spec": spec})
}

fn plural(number: usize) -> String {
    format!("bench{number}s")
}

/// Of the parts of a schema each second one is called otherwise, and described otherwise, in each definition.
fn part_name(at: usize, number: usize) -> String {
    match at % 2 {
        0 => format!("part{at}"),
        _ => format!("part{at}of{number}"),
    }
}

fn part(name: &str) -> Value {
    let described = |what: &str| {
        format!("{what} of {name}, as whoever runs the workload wants it to be; the operator does the rest.")
    };
    json!({"type": "object", "description": described("Everything"), "required": ["enabled"], "properties": {
        "enabled": {"type": "boolean", "description": described("Whether there is any")},
        "replicas": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100, "default": 1,
            "description": described("The number")},
        "size": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
            "description": described("The size")},
        "mode": {"type": "string", "enum": ["Fast", "Safe", "Cheap"], "description": described("The manner")},
        "zones": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 16,
            "description": described("The places")},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": described("The labels")},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "description": described("The ports"), "items": {"type": "object", "required": ["name", "port"], "properties": {
                "name": {"type": "string", "maxLength": 63, "description": described("The port's name")},
                "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535,
                    "description": described("The port's number")}}}},
    }})
}

fn definition(number: usize) -> Value {
    let parts = (0..PARTS).map(|at| part_name(at, number));
    let parts: Map<String, Value> = parts.map(|name| (name.clone(), part(&name))).collect();
    let names = json!({"plural": plural(number), "kind": format!("Bench{number}")});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", plural(number))},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [{
            "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": parts},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

/// Makes the first definition where objects of it are to be made.
pub async fn ensure(server: &Server, what: What) {
    if what != What::Custom {
        return;
    }
    let mut connection = server.connect().await.unwrap();
    let body = definition(0).to_string();
    assert!((20_000..26_000).contains(&body.len()), "{} bytes", body.len());
    let made = connection.whole("POST", DEFINITIONS, body.into()).await.unwrap();
    assert!(
        made.status.is_success() || made.status == 409,
        "{}",
        String::from_utf8_lossy(&made.body)
    );
    until_served(&mut connection, 1).await;
}

/// Until so many are served: discovery shows them.
async fn until_served(connection: &mut Connection, count: usize) {
    let begun = Instant::now();
    loop {
        let group = connection
            .whole("GET", &format!("/apis/{GROUP}/v1"), Bytes::new())
            .await
            .unwrap();
        let group: Value = serde_json::from_slice(&group.body).unwrap_or_default();
        let served = group["resources"].as_array().map_or(0, |resources| {
            let plain = |resource: &&Value| resource["name"].as_str().is_some_and(|name| !name.contains('/'));
            resources.iter().filter(plain).count()
        });
        if served >= count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{served} of {count} are served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// So many more definitions: the time until all of them are served, and the CPU until the server is idle again.
pub async fn run(server: &Server, pids: &[u32], clients: usize, count: usize) -> Measured {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(server.connect().await.unwrap());
    }
    ensure(server, What::Custom).await;
    let bodies: Vec<Bytes> = (1..=count)
        .map(|number| definition(number).to_string().into())
        .collect();
    let (cpu, begun) = (process::cpu(pids), Instant::now());
    let made = connections.into_iter().enumerate().map(|(client, mut connection)| {
        let bodies: Vec<Bytes> = bodies.iter().skip(client).step_by(clients).cloned().collect();
        async move {
            let (mut latencies, mut failed) = (Vec::new(), 0);
            for body in &bodies {
                let sent = Instant::now();
                match connection.drain(&Request::create(&DEFINITIONS.into(), body)).await {
                    Ok(status) if status.is_success() => latencies.push(sent.elapsed()),
                    _ => failed += 1,
                }
            }
            (latencies, failed)
        }
    });
    let made = futures::future::join_all(made).await;
    let mut connection = server.connect().await.unwrap();
    until_served(&mut connection, count + 1).await;
    let elapsed = begun.elapsed();
    let mut latencies: Vec<Duration> = made.iter().flat_map(|(latencies, _)| latencies).copied().collect();
    latencies.sort_unstable();
    Measured {
        failed: made.iter().map(|(_, failed)| failed).sum(),
        elapsed,
        units: count,
        latencies,
        cpu: settled(pids).await - cpu,
    }
}

/// What the server has spent by the time that it is idle.
async fn settled(pids: &[u32]) -> Duration {
    let begun = Instant::now();
    loop {
        let before = process::cpu(pids);
        tokio::time::sleep(SETTLED).await;
        let now = process::cpu(pids);
        // Of the rest a few hundredths are what it always does.
        if (now - before) * 20 <= SETTLED || begun.elapsed() > PATIENCE {
            return before;
        }
    }
}

/// The document of all kinds, whole, once.
pub async fn openapi(server: &Server, pids: &[u32]) -> Measured {
    let mut connection = server.connect().await.unwrap();
    let (cpu, begun) = (process::cpu(pids), Instant::now());
    let status = connection.drain(&Request::get(&"/openapi/v2".into(), JSON)).await;
    let elapsed = begun.elapsed();
    Measured {
        failed: usize::from(!status.is_ok_and(|status| status.is_success())),
        elapsed,
        units: 1,
        latencies: vec![elapsed],
        cpu: process::cpu(pids) - cpu,
    }
}
