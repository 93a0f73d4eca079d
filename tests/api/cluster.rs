//! A control plane without nodes, as `mk8s init` makes it, and an administrator's client for it.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::client::Body;
use kube::{Api, Client};
use mk8s_pki::kubeconfig::{Credential, Kubeconfig};
use mk8s_pki::{ca, issue};
use serde_json::{Value, json};

use crate::harness::Plane;

pub struct Cluster {
    plane: Plane,
    pub url: String,
    /// Through TLS, with the administrator's certificate.
    pub admin: Client,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::of(Plane::start().await).await
    }

    /// The same store in a new process, as far as it can tell.
    pub async fn restart(self) -> Cluster {
        Cluster::of(self.plane.restart().await).await
    }

    async fn of(plane: Plane) -> Cluster {
        // kube's own TLS set-up asks for the process's provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, authority) = (plane.url(), &plane.plane.pki.ca);
        let (name, group) = ("kubernetes-admin", "kubeadm:cluster-admins");
        let issued = issue::client(authority, name, Some(group), issue::LIFE).unwrap();
        let credential = Credential::Certificate {
            certificate_pem: &issued.certificate_pem,
            key_pem: &issued.key_pem,
        };
        let file = Kubeconfig::new(&url, authority.certificate_pem(), "test", name, credential);
        std::fs::write(plane.dir.path().join("admin.conf"), file.to_yaml().unwrap()).unwrap();
        let admin = connect(&url, authority, &Identity::User(name, group));
        let cluster = Cluster { plane, url, admin };
        cluster.account("default").await;
        cluster
    }

    /// The administrator's kubeconfig, as kubectl takes it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.dir.path().join("admin.conf")
    }

    pub fn client(&self, identity: &Identity<'_>) -> Client {
        connect(&self.url, &self.plane.plane.pki.ca, identity)
    }

    /// Makes a namespace, and waits for what every pod in it needs.
    pub async fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.send("POST", "/api/v1/namespaces", &[], &object).await.json();
        self.account(name).await;
    }

    async fn account(&self, namespace: &str) {
        let api: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), namespace);
        eventually(|| async { api.get_opt("default").await.unwrap().is_some() }).await;
    }

    /// A request of the administrator's with these headers; the body is JSON (none for null).
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body).unwrap()
        };
        self.send_bytes(method, path, headers, bytes).await
    }

    pub async fn send_bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") && !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.admin.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await.unwrap().to_vec();
        Answer { head, body }
    }

    pub async fn get(&self, path: &str) -> Value {
        self.send("GET", path, &[], &Value::Null).await.json()
    }
}

pub struct Answer {
    pub head: http::response::Parts,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn code(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body of an answer that must be a success.
    pub fn json(&self) -> Value {
        assert!(
            self.head.status.is_success(),
            "{}: {}",
            self.code(),
            String::from_utf8_lossy(&self.body)
        );
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Code, reason and message of an answer that must be a refusal.
    pub fn refusal(&self) -> (u16, String, String) {
        assert!(
            !self.head.status.is_success(),
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        let status: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(status["kind"], "Status");
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_string();
        (self.code(), text("reason"), text("message"))
    }
}

/// How a client says who it is.
pub enum Identity<'a> {
    Nobody,
    /// A certificate of the cluster's CA for this user and group.
    User(&'a str, &'a str),
    Bearer(&'a str),
}

/// kube's own client, as any program outside makes one.
fn connect(url: &str, authority: &ca::Authority, identity: &Identity<'_>) -> Client {
    let mut config = kube::Config::new(url.parse().unwrap());
    let roots = issue::certificates(authority.certificate_pem()).unwrap();
    config.root_cert = Some(roots.iter().map(|root| root.to_vec()).collect());
    let auth = match identity {
        Identity::Nobody => json!({}),
        Identity::Bearer(token) => json!({"token": token}),
        Identity::User(name, group) => {
            let issued = issue::client(authority, name, Some(group), issue::LIFE).unwrap();
            let encoded = |pem: &str| STANDARD.encode(pem);
            json!({
                "client-certificate-data": encoded(&issued.certificate_pem),
                "client-key-data": encoded(&issued.key_pem),
            })
        }
    };
    config.auth_info = serde_json::from_value(auth).unwrap();
    Client::try_from(config).unwrap()
}

/// Waits up to ten seconds for what a controller does.
pub async fn eventually<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come to be within ten seconds");
}
