//! How long single calls take where there is room for them: they are sent at half of the rate that the server reaches with
//! the same clients, whether or not the ones before were answered. What a call waits for a free client counts as its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Measured,
    client::{Connection, JSON, Request, Server},
    objects::What,
    process, scenario,
};

const CLIENTS: usize = 64;
/// Requests that show the rate which is reached.
const PROBES: usize = 6_000;
const LASTS: Duration = Duration::from_secs(8);

/// Three reads for each write, of objects of one kind.
fn request(path: &Arc<str>, body: &Bytes, known: &Arc<str>, number: usize) -> Request {
    match number % 4 {
        0 => Request::create(path, body),
        _ => Request::get(known, JSON),
    }
}

/// With `beside_lists` another client lists all pods of the cluster meanwhile, one list after the other.
pub async fn run(server: &Server, pids: &[u32], beside_lists: bool) -> Measured {
    let path: Arc<str> = What::ConfigMap.path().into();
    let body = Bytes::from(What::ConfigMap.body().to_string());
    let known: Arc<str> = scenario::make(server, What::ConfigMap, 1).await[0].as_str().into();
    let request = move |number: usize| request(&path, &body, &known, number);
    let peak = {
        let request = request.clone();
        let reached = scenario::requests(server, pids, CLIENTS, PROBES, move |_, number| request(number)).await;
        PROBES as f64 / reached.elapsed.as_secs_f64()
    };
    let lister = Lister::begin(server, beside_lists);
    let measured = at(server, pids, peak / 2.0, request).await;
    lister.end();
    measured
}

/// Sends so many requests a second.
async fn at(
    server: &Server,
    pids: &[u32],
    rate: f64,
    request: impl Fn(usize) -> Request + Clone + Send + Sync + 'static,
) -> Measured {
    let count = (LASTS.as_secs_f64() * rate) as usize;
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(server.connect().await.unwrap());
    }
    let taken: Arc<AtomicUsize> = Arc::default();
    let (before, begun) = (process::cpu(pids), Instant::now());
    let clients: Vec<_> = connections
        .into_iter()
        .map(|connection| {
            let (taken, request) = (taken.clone(), request.clone());
            let due = move |number: usize| begun + Duration::from_secs_f64(number as f64 / rate);
            tokio::spawn(client(connection, taken, count, due, request))
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::with_capacity(count), 0);
    for client in clients {
        let (of_client, failed_of_client) = client.await.unwrap();
        latencies.extend(of_client);
        failed += failed_of_client;
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    Measured {
        failed,
        elapsed,
        units: count,
        latencies,
        cpu: process::cpu(pids) - before,
    }
}

async fn client(
    mut connection: Connection,
    taken: Arc<AtomicUsize>,
    count: usize,
    due: impl Fn(usize) -> Instant,
    request: impl Fn(usize) -> Request,
) -> (Vec<Duration>, usize) {
    let (mut latencies, mut failed) = (Vec::new(), 0);
    loop {
        let number = taken.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return (latencies, failed);
        }
        let due = due(number);
        tokio::time::sleep_until(due.into()).await;
        match connection.drain(&request(number)).await {
            Ok(status) if status.is_success() => latencies.push(due.elapsed()),
            _ => failed += 1,
        }
    }
}

/// Who lists everything, until he is told to end: on a thread of his own, since he is another process than those whose calls
/// are timed, and what he reads must not hold up these before they have left.
struct Lister {
    thread: Option<std::thread::JoinHandle<usize>>,
    over: Arc<AtomicBool>,
}

impl Lister {
    fn begin(server: &Server, wanted: bool) -> Self {
        let over: Arc<AtomicBool> = Arc::default();
        let (ended, server) = (over.clone(), server.clone());
        let lists = async move {
            let mut connection = server.connect().await.unwrap();
            let all = Request::get(&"/api/v1/pods".into(), JSON);
            let mut lists = 0;
            while !ended.load(Ordering::Relaxed) {
                let status = connection.drain(&all).await.unwrap();
                assert!(status.is_success(), "a list: {status}");
                lists += 1;
            }
            lists
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        Self {
            thread: wanted.then(|| std::thread::spawn(move || runtime.block_on(lists))),
            over,
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            let lists = thread.join().unwrap();
            assert!(lists > 0, "nothing was listed");
        }
    }
}
