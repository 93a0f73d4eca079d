//! Answers on the healthCheckNodePort of Services of type LoadBalancer with externalTrafficPolicy Local: whether this node
//! has an endpoint of its own, so that a load balancer sends its packets to nodes that take them.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mk8s_supervisor::job::{self, AbortOnDrop};
use mk8s_supervisor::listener::{self, Connection};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

const RETRY: Duration = Duration::from_secs(5);
/// Load balancers may share out by it.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Anybody may connect.
#[derive(Clone, Copy)]
struct Limits {
    /// For a request's head, the wait for the next one on an open connection included.
    head: Duration,
    /// To one Service's port.
    connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head: Duration::from_secs(30),
            connections: 100,
        }
    }
}

/// One listener per Service that has such a port.
#[derive(Default)]
pub struct HealthPorts {
    listeners: HashMap<Arc<str>, Listener>,
    limits: Limits,
}

struct Listener {
    port: u16,
    endpoints: watch::Sender<usize>,
    _job: AbortOnDrop<()>,
}

impl HealthPorts {
    /// The Service (NAMESPACE/NAME) has this port and so many endpoints on this node; or none. Within a tokio runtime.
    pub fn set(&mut self, service: &Arc<str>, wanted: Option<(u16, usize)>) {
        let Some((port, count)) = wanted else {
            self.listeners.remove(service);
            return;
        };
        if let Some(listener) = self.listeners.get(service).filter(|listener| listener.port == port) {
            listener.endpoints.send_replace(count);
            return;
        }
        let (endpoints, counts) = watch::channel(count);
        let listening =
            job::spawn("proxy-health-port", listen(service.clone(), port, counts, self.limits)).abort_on_drop();
        let listener = Listener {
            port,
            endpoints,
            _job: listening,
        };
        self.listeners.insert(service.clone(), listener);
    }
}

async fn listen(service: Arc<str>, port: u16, endpoints: watch::Receiver<usize>, limits: Limits) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => break listener,
            Err(error) if !told => {
                tracing::warn!(%service, port, %error, "cannot listen on the health check's port, trying again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    };
    let answer = move || {
        let answer = answer(&service, *endpoints.borrow());
        async move { answer }
    };
    let router = Router::new().fallback(answer);
    listener::accept("proxy-health-connection", &listener, limits.connections, |stream| {
        connection(stream, router.clone(), limits.head)
    })
    .await;
}

async fn connection(stream: Connection, router: Router, head: Duration) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to a health check's port ended");
    }
}

/// As kube-proxy puts it.
fn answer(service: &str, endpoints: usize) -> Response {
    let (namespace, name) = service.split_once('/').unwrap_or(("", service));
    let body = json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    });
    let status = match endpoints {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, endpoints.to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn answers(port: u16, wanted: Option<&str>) {
        let begun = Instant::now();
        loop {
            let answer = ask(port).await.ok();
            let fits = match wanted {
                Some(start) => answer.as_ref().is_some_and(|answer| answer.starts_with(start)),
                None => answer.is_none(),
            };
            if fits {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{port}: {wanted:?}, not {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn free() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    /// Until it is closed from the other side.
    async fn closed(mut stream: TcpStream) {
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "still open");
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for_and_there_is_room_for_so_many() {
        let (port, service): (u16, Arc<str>) = (free(), "app/web".into());
        let start = |limits, ports: &mut HealthPorts| {
            *ports = HealthPorts::default();
            ports.limits = limits;
            ports.set(&service, Some((port, 1)));
        };
        let mut ports = HealthPorts::default();
        let connections = 1;
        let head = Duration::from_millis(200);
        start(Limits { head, connections: 2 }, &mut ports);
        answers(port, Some("HTTP/1.0 200")).await;
        closed(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()).await;

        let head = Duration::from_secs(600);
        start(Limits { head, connections }, &mut ports);
        answers(port, Some("HTTP/1.0 200")).await;
        let mut held = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        held.write_all(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n").await.unwrap();
        while held.read_u8().await.unwrap() != b'}' {}
        closed(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()).await;
        // With the Service its connections go.
        ports.set(&service, None);
        closed(held).await;
    }

    #[tokio::test]
    async fn a_port_says_whether_the_node_has_endpoints() {
        let (first, second) = (free(), free());
        let service: Arc<str> = "app/web".into();
        let mut ports = HealthPorts::default();
        ports.set(&service, Some((first, 2)));
        answers(first, Some("HTTP/1.0 200")).await;
        let answer = ask(first).await.unwrap().to_lowercase();
        assert!(answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["localendpoints"], 2);
        assert_eq!(body["service"], json!({"namespace": "app", "name": "web"}));
        ports.set(&service, Some((first, 0)));
        answers(first, Some("HTTP/1.0 503")).await;
        ports.set(&service, Some((second, 1)));
        answers(second, Some("HTTP/1.0 200")).await;
        answers(first, None).await;
        ports.set(&service, None);
        answers(second, None).await;
    }
}
