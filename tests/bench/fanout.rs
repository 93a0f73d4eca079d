//! Many watchers of one resource, each of which gets each event.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    Measured,
    client::{JSON, Request, Server},
    process,
    scenario::requests,
};

/// A server bounds the streams of one connection, and informers share them.
const CONNECTIONS: usize = 10;
const WRITERS: usize = 16;

/// Ends when all have seen all, or says in `failed` how many events did not come.
pub async fn run(server: &Server, pids: &[u32], path: &str, body: Bytes, watchers: usize, writes: usize) -> Measured {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(server.connect().await.unwrap());
    }
    let listed = connections[0]
        .whole("GET", &format!("{path}?limit=1"), Bytes::new())
        .await
        .unwrap();
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    let from = listed["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = format!("{path}?watch=1&resourceVersion={from}");

    let (seen, all): (Arc<AtomicUsize>, Arc<Notify>) = Default::default();
    let wanted = watchers * writes;
    let mut tasks = Vec::new();
    for watcher in 0..watchers {
        let mut answer = connections[watcher % CONNECTIONS]
            .open(&Request::get(&watch.as_str().into(), JSON))
            .await
            .unwrap();
        assert!(answer.status().is_success(), "watch: {}", answer.status());
        let (seen, all) = (seen.clone(), all.clone());
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(frame)) = answer.frame().await {
                let Some(data) = frame.data_ref() else { continue };
                let events = memchr::memchr_iter(b'\n', data).count();
                if seen.fetch_add(events, Ordering::Relaxed) + events >= wanted {
                    all.notify_one();
                }
            }
        }));
    }
    let before = process::cpu(pids);
    let begun = Instant::now();
    let created: Arc<str> = path.into();
    let create = move |_, _| Request::create(&created, &body);
    let written = requests(server, pids, WRITERS, writes, create).await;
    let _ = tokio::time::timeout(Duration::from_secs(120), all.notified()).await;
    let (elapsed, cpu) = (begun.elapsed(), process::cpu(pids) - before);
    for task in tasks {
        task.abort();
    }
    let units = seen.load(Ordering::Relaxed);
    Measured {
        failed: written.failed + (wanted - units),
        elapsed,
        units,
        latencies: written.latencies,
        cpu,
    }
}
