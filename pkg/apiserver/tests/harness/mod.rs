//! A server on a temporary store, and a client that speaks JSON to its router.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::{ApiServer, Config, User};
use mk8s_pki::serviceaccount::Keys;
use serde_json::Value;
use tower::ServiceExt as _;

pub struct Api {
    dir: tempfile::TempDir,
    server: Arc<ApiServer>,
    router: Router,
}

impl Api {
    pub async fn open() -> Api {
        let dir = tempfile::tempdir().unwrap();
        let (server, router) = start(&dir).await;
        Api { dir, server, router }
    }

    /// A server on a store that is open.
    pub async fn on(store: Arc<dyn mk8s_store::Store>) -> Api {
        let dir = tempfile::tempdir().unwrap();
        let (server, router) = begin(ApiServer::open_on(config(&dir), store).unwrap()).await;
        Api { dir, server, router }
    }

    pub fn server(&self) -> &Arc<ApiServer> {
        &self.server
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// With another configuration than the default.
    pub async fn open_with(change: impl FnOnce(&mut Config)) -> Api {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        let (server, router) = begin(ApiServer::open(config).unwrap()).await;
        Api { dir, server, router }
    }

    /// Stops the server and starts it again on the same store.
    pub async fn reopen(self) -> Api {
        let Api { dir, server, router } = self;
        drop(router);
        server.close().await;
        drop(server);
        let (server, router) = start(&dir).await;
        Api { dir, server, router }
    }

    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(body.into())
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// With these headers and no others.
    pub async fn send_whole(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        self.router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap()
    }

    pub async fn send_json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        read(self.send(method, path, "application/json", body.to_string()).await).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(self.send("GET", path, "application/json", Body::empty()).await).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send_json("POST", path, body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send_json("PUT", path, body).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        read(self.send("PATCH", path, kind, body.to_string()).await).await
    }

    pub async fn delete(&self, path: &str, options: Option<&Value>) -> (u16, Value) {
        let body = options.map_or_else(Body::empty, |options| Body::from(options.to_string()));
        read(self.send("DELETE", path, "application/json", body).await).await
    }

    pub async fn accept(&self, path: &str, accept: &str) -> (u16, Bytes) {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        (code, response.into_body().collect().await.unwrap().to_bytes())
    }

    pub async fn watch(&self, path: &str) -> Body {
        let response = self.send("GET", path, "application/json", Body::empty()).await;
        assert_eq!(response.status(), 200, "{path}");
        response.into_body()
    }
}

async fn start(dir: &tempfile::TempDir) -> (Arc<ApiServer>, Router) {
    begin(ApiServer::open(config(dir)).unwrap()).await
}

fn config(dir: &tempfile::TempDir) -> Config {
    let keys = Arc::new(Keys::generate().unwrap());
    Config::new(dir.path(), [127, 0, 0, 1].into(), keys)
}

async fn begin(server: Arc<ApiServer>) -> (Arc<ApiServer>, Router) {
    let facts = Facts {
        service_cidr: server.config().service_cidr,
        advertise_address: [127, 0, 0, 1].into(),
        secure_port: 6443,
        ca: "CA".into(),
        front_proxy_ca: "CA".into(),
        server_url: "https://127.0.0.1:6443".into(),
    };
    server.bootstrap(&facts).await.unwrap();
    let mut admin = User::authenticated("admin", ["system:masters".to_string()]);
    // As the recorded answers' user has it.
    admin.uid = "admin".into();
    let router = server.router_as(admin);
    (server, router)
}

pub async fn read(response: Response<Body>) -> (u16, Value) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    // What is no path of the API is told in plain text.
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
    (code, value)
}

/// The watch's events up to and with the first that fits.
pub async fn events_until(body: Body, last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut stream = body.into_data_stream();
    let mut events = Vec::new();
    let mut text = Vec::new();
    let wait = async {
        while let Some(chunk) = stream.next().await {
            text.extend_from_slice(&chunk.unwrap());
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let done = last(&event);
                events.push(event);
                if done {
                    return;
                }
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), wait).await;
    assert!(done.is_ok(), "only these events came: {events:#?}");
    events
}
