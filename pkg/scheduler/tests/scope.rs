//! The scheduler's scope: while nothing happens nothing wakes it; at its end a binding under way is waited for and told of, and nothing is
//! decided any more.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
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

impl Text {
    fn of(object: Value) -> Change {
        let text = object.to_string();
        Change::Applied(Arc::new(Text(object, text)))
    }
}

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

/// A node and a pod; another pod follows later.
struct Cluster;

fn pod(name: &str) -> Change {
    Text::of(
        json!({"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"containers": [{"name": "c"}]}}),
    )
}

impl Feed for Cluster {
    fn open(&self, selection: &Selection, _: Option<u64>) -> Changes {
        let listed = match selection.plural.as_str() {
            "nodes" => vec![Text::of(
                json!({"metadata": {"name": "n", "uid": "n", "resourceVersion": "1"},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}),
            )],
            "pods" => vec![pod("first")],
            _ => Vec::new(),
        };
        let later = selection.plural == "pods";
        let later = futures::stream::iter(later.then_some(())).then(|()| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(pod("late"))
        });
        let list = listed.into_iter().chain([Change::UpTo(1)]).map(Ok);
        let changes = futures::stream::iter(list).chain(later);
        changes.chain(futures::stream::pending()).boxed()
    }
}

/// Notes what is asked for, and what was answered; a binding takes five seconds.
async fn serve(log: Arc<Mutex<Vec<String>>>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let what = path.rsplit('/').next().unwrap().to_owned();
    log.lock().push(format!("{what} of {}", path.contains("/first/")));
    if what == "binding" {
        tokio::time::sleep(Duration::from_secs(5)).await;
        log.lock().push("bound".into());
    }
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "involvedObject": {}});
    Ok(Response::new(Body::from(body.to_string().into_bytes())))
}

/// A scheduler's scope, and what was asked for in it.
fn begin() -> (Supervisor, Arc<Mutex<Vec<String>>>) {
    let (scope, log) = (
        Supervisor::new(CancellationToken::new()),
        Arc::new(Mutex::new(Vec::new())),
    );
    let told = log.clone();
    let client = Client::new(tower::service_fn(move |request| serve(told.clone(), request)), "d");
    let informers = Informers::fed(Arc::new(Cluster), &scope);
    mk8s_scheduler::run(client, informers, Config::default(), "test", &scope);
    (scope, log)
}

#[tokio::test(start_paused = true)]
async fn nothing_wakes_a_scheduler_whose_pods_have_their_nodes() {
    let (scope, log) = begin();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lock().iter().filter(|what| *what == "bound").count(), 2);

    // How often this runtime, in which all of it runs, comes to rest in a day.
    let rests = async || {
        let count = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
        let before = count();
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        count() - before
    };
    // The events' recorder looks after six minutes whether a series is over.
    let first = rests().await;
    let second = rests().await;
    assert!(scope.shutdown(Duration::from_secs(20)).await);
    let without = rests().await;
    // A long wait of the test itself is a few of them, whose number depends on where in the timer's wheel it begins.
    assert!(
        first <= without + 15 && second <= without + 3,
        "{first}, {second}, {without} without"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_bound_and_told_before_the_scope_has_ended() {
    let (scope, log) = begin();
    while log.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(scope.shutdown(Duration::from_secs(20)).await);
    // The pod that came meanwhile is left to who comes next.
    assert_eq!(*log.lock(), ["binding of true", "bound", "events of false"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lock().len(), 3);
}
