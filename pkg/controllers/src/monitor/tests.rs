//! The monitor over feeds that the tests themselves tell.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};

use futures::stream;
use http::{Request, Response};
use kube::client::Body;
use mk8s_api::stored::Stored;
use mk8s_client::FeedError;
use mk8s_client::feed::{self, Changes};
use serde_json::{Value, json};

use super::*;

#[derive(Clone)]
struct Server {
    /// The one kind that it has.
    kind: &'static str,
    plural: &'static str,
    discoveries: Arc<AtomicU32>,
}

impl Server {
    fn of(kind: &'static str, plural: &'static str) -> Self {
        Server {
            kind,
            plural,
            discoveries: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request| serve(server.clone(), request)),
            "default",
        )
    }
}

async fn serve(server: Server, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let body: Value = match request.uri().path() {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => {
            server.discoveries.fetch_add(1, Ordering::SeqCst);
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        }
        _ => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": server.plural, "singularName": "", "namespaced": true, "kind": server.kind,
             "verbs": ["list", "watch", "delete"]}]}),
    };
    Ok(Response::new(Body::from(body.to_string().into_bytes())))
}

struct Text(&'static str, u64, String);

impl Stored for Text {
    fn namespace(&self) -> &str {
        "d"
    }

    fn name(&self) -> &str {
        self.0
    }

    fn revision(&self) -> u64 {
        self.1
    }

    fn json(&self) -> &[u8] {
        self.2.as_bytes()
    }
}

fn object(name: &'static str, revision: u64) -> Arc<dyn Stored> {
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}]);
    let metadata = json!({"namespace": "d", "name": name, "uid": name, "ownerReferences": owners,
        "managedFields": [{"manager": "m"}]});
    Arc::new(Text(
        name,
        revision,
        json!({"metadata": metadata, "data": {}}).to_string(),
    ))
}

/// Panics when it is opened first; lists one object; then says in turn what each further opening is to see.
#[derive(Default)]
struct Script {
    opened: AtomicU32,
    after: parking_lot::Mutex<Vec<Option<u64>>>,
}

impl Feed for Script {
    fn open(&self, selection: &Selection, after: Option<u64>) -> Changes {
        assert_eq!((&*selection.version, &*selection.plural), ("v1", "configmaps"));
        self.after.lock().push(after);
        let applied = |name, revision| Ok(feed::Change::Applied(object(name, revision)));
        let told = match self.opened.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("the first time"),
            1 => vec![
                applied("a", 3),
                Ok(feed::Change::UpTo(5)),
                applied("b", 6),
                Err(FeedError::Failed("away".into())),
            ],
            2 => vec![
                Ok(feed::Change::Deleted {
                    object: object("b", 6),
                    revision: 7,
                }),
                Err(FeedError::Expired),
            ],
            _ => vec![applied("c", 8), Ok(feed::Change::UpTo(9))],
        };
        stream::iter(told).chain(stream::pending()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_followed_through_panics_errors_and_lost_history() {
    let script = Arc::new(Script::default());
    let (synced, mut is_synced) = watch::channel(false);
    let hub = Arc::new(Hub::default());
    let mut gone = hub.gone();
    let monitor = Monitor {
        client: Server::of("ConfigMap", "configmaps").client(),
        feed: script.clone(),
        hub: hub.clone(),
        synced,
    };
    let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |change: &Change| {
        let _ = heard.send(match change {
            Change::Applied(_, meta) => {
                assert_eq!(meta.owner_references.as_ref().unwrap()[0].uid, "o");
                format!("+{}", meta.uid.as_ref().unwrap())
            }
            Change::Deleted(_, meta) => format!("-{}", meta.uid.as_ref().unwrap()),
            Change::Listed(_, uids) => format!("{uids:?}"),
            Change::Unserved(_) => "unserved".into(),
        });
    };
    let follow = async {
        for expected in ["+a", "{\"a\"}", "+b", "-b", "+c", "{\"c\"}"] {
            assert_eq!(told.recv().await.unwrap(), expected);
        }
        is_synced.wait_for(|synced| *synced).await.unwrap();
    };
    tokio::select! {
        () = keep(monitor, tell) => unreachable!("it is kept for ever"),
        () = follow => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the kind is not watched any more"),
    }
    assert_eq!(*script.after.lock(), [None, None, Some(6), None]);
    assert_eq!(hub.kinds().len(), 1);
    let names: Vec<String> = std::iter::from_fn(|| gone.try_recv().ok()).collect();
    assert_eq!(names, ["", "d", ""]);
}

/// A list of nothing, then many definitions.
struct Definitions;

impl Feed for Definitions {
    fn open(&self, _: &Selection, _: Option<u64>) -> Changes {
        let list = stream::iter([Ok(feed::Change::UpTo(1))]);
        let made = (2..100).map(|revision| Ok(feed::Change::Applied(object("d", revision))));
        list.chain(stream::iter(made)).chain(stream::pending()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn many_definitions_that_come_together_are_asked_about_once() {
    let server = Server::of("CustomResourceDefinition", "customresourcedefinitions");
    let monitor = Monitor {
        client: server.client(),
        feed: Arc::new(Definitions),
        hub: Arc::default(),
        synced: watch::channel(false).0,
    };
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let kept = keep(monitor, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert!(
        tokio::time::timeout(Duration::from_secs(5), kept).await.is_err(),
        "it is kept for ever"
    );
    assert_eq!(told.load(Ordering::SeqCst), 99);
    let discoveries = server.discoveries.load(Ordering::SeqCst);
    assert!((2..10).contains(&discoveries), "{discoveries}");
}
