//! A server on a store of its own, asked through its router: without TLS and sockets.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::{ApiServer, Config, User};
use mk8s_pki::serviceaccount::Keys;
use tower::ServiceExt as _;

pub type Failure = Box<dyn Error + Send + Sync>;

/// The server, and its router as its administrator.
pub async fn open(dir: &Path) -> Result<(Arc<ApiServer>, Router), Failure> {
    let keys = Arc::new(Keys::generate()?);
    let server = ApiServer::open(Config::new(dir, [127, 0, 0, 1].into(), keys))?;
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
    Ok((server, router))
}

pub fn request(method: &str, path: &str, body: Bytes) -> Result<Request<Body>, http::Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(Body::from(body))
}

/// The answer's body; an error where it is none of success.
pub async fn read(router: &Router, request: Result<Request<Body>, http::Error>) -> Result<Bytes, Failure> {
    let response = router.clone().oneshot(request?).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        return Err(format!("{code}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body)
}
