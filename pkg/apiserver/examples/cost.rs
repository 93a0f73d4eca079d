//! What requests cost the server itself, without TLS and sockets: CPU of the whole process per request, through the
//! router. `cost BODY.json PATH [REQUESTS]`, e.g. a pod with generateName and /api/v1/namespaces/default/pods.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::{ApiServer, Config, User};
use mk8s_pki::serviceaccount::Keys;
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CLIENTS: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let body = Bytes::from(std::fs::read(args.next().ok_or("a body is needed")?)?);
    let path = args.next().ok_or("a path is needed")?;
    let count: usize = args.next().map_or(Ok(20_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let keys = Arc::new(Keys::generate()?);
    let server = ApiServer::open(Config::new(dir.path(), [127, 0, 0, 1].into(), keys))?;
    let facts = Facts {
        service_cidr: server.config().service_cidr,
        advertise_address: [127, 0, 0, 1].into(),
        secure_port: server.config().secure_port,
        ca: "CA".into(),
        front_proxy_ca: "CA".into(),
        server_url: "https://127.0.0.1:6443".into(),
    };
    server.bootstrap(&facts).await.map_err(|status| status.message)?;
    let admin = User::authenticated("admin", ["system:masters".to_string()]);
    let router = server.router_as(admin);

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

fn request(method: &str, path: &str, body: Bytes) -> Result<Request<Body>, http::Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(Body::from(body))
}

async fn read(router: &Router, request: Result<Request<Body>, http::Error>) -> Result<Bytes, Failure> {
    let response = router.clone().oneshot(request?).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        return Err(format!("{code}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body)
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
