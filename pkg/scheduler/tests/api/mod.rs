//! An API server of nodes and pods as far as a scheduler needs one: it shows what is put into it, and notes what is asked of it.
#![allow(clippy::unwrap_used)]
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use mk8s_api::stored::Stored;
use mk8s_client::Informers;
use mk8s_client::feed::{Change, Changes, Feed, Selection};
use mk8s_scheduler::config::Config;
use mk8s_supervisor::Supervisor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Text(Value, String);

impl Stored for Text {
    fn namespace(&self) -> &str {
        self.0["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap()
    }

    fn revision(&self) -> u64 {
        1
    }

    fn json(&self) -> &[u8] {
        self.1.as_bytes()
    }
}

/// See the module. Clones are of the same one.
#[derive(Clone, Default)]
pub struct Api {
    nodes: Arc<Mutex<Vec<Value>>>,
    pods: Arc<Mutex<Vec<Value>>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Api {
    pub fn node(&self, name: &str, allocatable: Value) {
        let meta = json!({"name": name, "uid": name, "resourceVersion": "1"});
        let node = json!({"metadata": meta, "status": {"allocatable": allocatable}});
        self.nodes.lock().push(node);
    }

    pub fn pod(&self, name: &str, spec: Value) {
        let meta = json!({"namespace": "d", "name": name, "uid": name, "resourceVersion": "1"});
        self.pods.lock().push(json!({"metadata": meta, "spec": spec}));
    }

    /// Runs a scheduler on it.
    pub fn run(&self, config: Config) -> Supervisor {
        let scope = Supervisor::new(CancellationToken::new());
        let own = self.clone();
        let serve = tower::service_fn(move |request| own.clone().serve(request));
        // As the control plane has them.
        let informers = Informers::fed(Arc::new(self.clone()), &scope).packed();
        mk8s_scheduler::run(Client::new(serve, "d"), informers, config, "host", &scope);
        scope
    }

    /// Bindings, evictions and Events, sorted by kind.
    pub fn told(&self) -> Vec<String> {
        let mut told = self.told.lock().clone();
        told.sort_by_key(|line| (!line.starts_with("bind"), line.clone()));
        told
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let text = |path: &str| {
            body.pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let path = head.uri.path();
        match path.rsplit('/').next().unwrap() {
            "binding" => self
                .told
                .lock()
                .push(format!("bind {} to {}", text("/metadata/name"), text("/target/name"))),
            "events" => self.told.lock().push(format!(
                "{} {} by {} {}: {}",
                text("/regarding/name"),
                text("/reason"),
                text("/reportingController"),
                text("/reportingInstance"),
                text("/note")
            )),
            name if head.method == http::Method::DELETE => self.told.lock().push(format!("delete {name}")),
            _ => {}
        }
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}});
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "involvedObject": {}});
        let answer = if path.ends_with("/status") { pod } else { status };
        Ok(Response::new(Body::from(answer.to_string().into_bytes())))
    }
}

impl Feed for Api {
    fn open(&self, selection: &Selection, _: Option<u64>) -> Changes {
        let listed = match selection.plural.as_str() {
            "nodes" => self.nodes.lock().clone(),
            "pods" => self.pods.lock().clone(),
            _ => Vec::new(),
        };
        let change = |object: Value| {
            let text = object.to_string();
            Ok(Change::Applied(Arc::new(Text(object, text)) as Arc<dyn Stored>))
        };
        let list = listed.into_iter().map(change).chain([Ok(Change::UpTo(1))]);
        futures::stream::iter(list).chain(futures::stream::pending()).boxed()
    }
}
