//! What a stored object costs in memory, in the server alone: resident bytes per object, from one count to twice that.
//! `memory BODY.json PATH [COUNT]`, as `cost`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::{ApiServer, Config, User};
use mk8s_pki::serviceaccount::Keys;
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn Error + Send + Sync>;

/// Resident bytes, when the allocator has given back what it keeps for a while.
async fn resident() -> Result<usize, Failure> {
    tokio::time::sleep(Duration::from_secs(15)).await;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line.ok_or("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let body = std::fs::read(args.next().ok_or("a body is needed")?)?;
    let path = args.next().ok_or("a path is needed")?;
    let count: usize = args.next().map_or(Ok(8_000), |text| text.parse())?;
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
    let router = server.router_as(User::authenticated("admin", ["system:masters".to_string()]));
    let mut before = 0;
    for half in 0..2 {
        let made = futures::stream::iter(0..count)
            .map(|_| create(&router, &path, &body))
            .buffer_unordered(32);
        let lengths: Vec<_> = made.collect().await;
        let now = resident().await?;
        if half == 1 {
            let length = lengths.into_iter().next().ok_or("none was made")??;
            println!("{} resident bytes per object of {length}", (now - before) / count);
        }
        before = now;
    }
    server.close().await;
    Ok(())
}

async fn create(router: &Router, path: &str, body: &[u8]) -> Result<usize, Failure> {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_vec()))?;
    let response = router.clone().oneshot(request).await?;
    let (code, body) = (response.status(), response.into_body().collect().await?.to_bytes());
    if !code.is_success() {
        return Err(format!("{code}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body.len())
}
