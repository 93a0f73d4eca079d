//! What requests cost the server itself, without TLS and sockets: CPU of the whole process per request, through the
//! router. `cost BODY.json PATH [REQUESTS]`, e.g. a pod with generateName and /api/v1/namespaces/default/pods.

mod router;

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;

use router::{Failure, read, request};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLIENTS: usize = 64;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let body = Bytes::from(std::fs::read(args.next().ok_or("a body is needed")?)?);
    let path = args.next().ok_or("a path is needed")?;
    let count: usize = args.next().map_or(Ok(20_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let (server, router) = router::open(dir.path()).await?;

    let create = |_| request("POST", &path, body.clone());
    measure("create", count, CLIENTS, &router, create).await?;
    measure("create, one client", count / 20, 1, &router, create).await?;
    let list = read(&router, request("GET", &format!("{path}?limit=1"), Bytes::new())).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let name = list["items"][0]["metadata"]["name"]
        .as_str()
        .ok_or("a name")?
        .to_string();
    let one = format!("{path}/{name}");
    measure("get", count, CLIENTS, &router, |_| request("GET", &one, Bytes::new())).await?;
    measure("list", 5, 1, &router, |_| request("GET", &path, Bytes::new())).await?;
    let page = format!("{path}?limit=500");
    measure("page of 500", 50, 1, &router, |_| request("GET", &page, Bytes::new())).await?;
    server.close().await;
    Ok(())
}

async fn measure(
    what: &str,
    count: usize,
    clients: usize,
    router: &Router,
    make: impl Fn(usize) -> Result<Request<Body>, http::Error>,
) -> Result<(), Failure> {
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let mut answers =
        futures::stream::iter((0..count).map(|index| read(router, make(index)))).buffer_unordered(clients);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time()? - cpu);
    println!(
        "{what}: {:.0}/s, {:.1} µs of CPU each",
        count as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count as f64
    );
    Ok(())
}

/// User and system time of this process.
fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.get(11).ok_or("stat")?.parse::<u64>()? + fields.get(12).ok_or("stat")?.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
