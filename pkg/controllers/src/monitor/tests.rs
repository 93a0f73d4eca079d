//! The monitor over feeds that the tests themselves tell.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU32};

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
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    discoveries: Arc<AtomicU32>,
}

impl Server {
    fn of(group: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Server {
            group,
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
    let path = request.uri().path();
    let has = groups(&[group(server.group, &version("v1", &[(server.plural, server.kind)]))]);
    let body = match path {
        "/api" | "/apis" if (path == "/api") == server.group.is_empty() => has,
        "/api" | "/apis" => groups(&[]),
        other => panic!("{other} is asked for"),
    };
    if path == "/apis" {
        server.discoveries.fetch_add(1, Ordering::SeqCst);
    }
    Ok(Response::new(Body::from(body.to_string().into_bytes())))
}

fn groups(all: &[Value]) -> Value {
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": all})
}

fn group(name: &str, version: &Value) -> Value {
    json!({"metadata": {"name": name}, "versions": [version]})
}

fn version(name: &str, kinds: &[(&str, &str)]) -> Value {
    let resource = |(plural, kind): &(&str, &str)| json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced", "verbs": ["list", "watch", "delete"]});
    json!({"version": name, "freshness": "Current", "resources": kinds.iter().map(resource).collect::<Vec<_>>()})
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
        client: Server::of("", "ConfigMap", "configmaps").client(),
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
            Change::Moved(_, next) => format!("moved to {}", next.api.api_version),
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
    assert_eq!(hub.discovered().kinds.len(), 1);
    let names: Vec<String> = std::iter::from_fn(|| gone.try_recv().ok()).collect();
    assert_eq!(names, ["", "d", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_means_nothing_is_asked_for_when_there_may_be_news() {
    let (server, hub) = (Server::of("example.com", "Widget", "widgets"), Hub::default());
    let client = server.client();
    let finds = async |kind: &str| hub.find(&client, "example.com", kind).await.is_some();
    let asked = || server.discoveries.load(Ordering::SeqCst);
    assert!(!finds("Gadget").await && !finds("Gadgets").await && finds("Widget").await);
    assert_eq!(asked(), 1);
    hub.news.fetch_add(1, Ordering::SeqCst);
    assert!(!finds("Gadget").await && !finds("Gadget").await);
    assert_eq!(asked(), 2);
    // What is told to nobody is found in the end.
    tokio::time::sleep(ALWAYS).await;
    assert!(!finds("Gadget").await && !finds("Gadget").await);
    assert_eq!(asked(), 3);
}

/// Discovery of two groups, one of which does not answer as long as that is said.
async fn two_groups(
    broken: Arc<AtomicBool>,
    request: Request<Body>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let body = match request.uri().path() {
        "/api" => groups(&[group("", &version("v1", &[("configmaps", "ConfigMap")]))]),
        _ if broken.load(Ordering::SeqCst) => {
            groups(&[group("example.com", &json!({"version": "v1", "freshness": "Stale"}))])
        }
        _ => groups(&[group("example.com", &version("v1", &[("widgets", "Widget")]))]),
    };
    Ok(Response::new(Body::from(body.to_string().into_bytes())))
}

/// Lists nothing of every kind but widgets, which can't be listed.
#[derive(Default)]
struct NoWidgets(AtomicU32);

impl Feed for NoWidgets {
    fn open(&self, selection: &Selection, _: Option<u64>) -> Changes {
        let told = match &*selection.plural {
            "widgets" => {
                self.0.fetch_add(1, Ordering::SeqCst);
                Err(FeedError::Failed("refused".into()))
            }
            _ => Ok(feed::Change::UpTo(1)),
        };
        stream::iter([told]).chain(stream::pending()).boxed()
    }
}

/// A monitor of the two groups, its hub, its readiness, and the number of openings of the feed of widgets.
fn of_two_groups(broken: &Arc<AtomicBool>) -> (Monitor, Arc<Hub>, watch::Receiver<bool>, Arc<NoWidgets>) {
    let broken = broken.clone();
    let (synced, is_synced) = watch::channel(false);
    let (hub, feed) = (Arc::new(Hub::default()), Arc::new(NoWidgets::default()));
    let serve = tower::service_fn(move |request| two_groups(broken.clone(), request));
    let monitor = Monitor {
        client: Client::new(serve, "default"),
        feed: feed.clone(),
        hub: hub.clone(),
        synced,
    };
    (monitor, hub, is_synced, feed)
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_cannot_be_listed_stops_no_other_and_is_tried_further() {
    let (monitor, _, mut is_synced, feed) = of_two_groups(&Arc::default());
    let start = Instant::now();
    let begins = async {
        is_synced.wait_for(|synced| *synced).await.unwrap();
        let waited = start.elapsed();
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
        let tries = feed.0.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(feed.0.load(Ordering::SeqCst) > tries, "it is given up");
    };
    tokio::select! {
        () = keep(monitor, |_| {}) => unreachable!("it is kept for ever"),
        () = begins => {}
        () = tokio::time::sleep(Duration::from_secs(600)) => panic!("nothing is ever collected"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_cannot_be_asked_hides_no_other_and_keeps_its_kinds() {
    let broken = Arc::new(AtomicBool::new(true));
    let (monitor, hub, _, _) = of_two_groups(&broken);
    let minute = || tokio::time::sleep(Duration::from_secs(60));
    let found = || {
        let Discovered { kinds, failures } = hub.discovered();
        let kinds: Vec<String> = kinds.iter().map(|kind| kind.api.plural.clone()).collect();
        (kinds, failures)
    };
    let asks = async {
        minute().await;
        let (kinds, failures) = found();
        assert_eq!(kinds, ["configmaps"]);
        assert!(
            failures.len() == 1 && failures[0].starts_with("example.com/v1: "),
            "{failures:?}"
        );
        broken.store(false, Ordering::SeqCst);
        minute().await;
        assert_eq!(found(), (vec!["configmaps".to_owned(), "widgets".to_owned()], vec![]));
    };
    tokio::select! {
        () = keep(monitor, |_| {}) => unreachable!("it is kept for ever"),
        () = asks => {}
    }
    broken.store(true, Ordering::SeqCst);
    let (monitor, ..) = of_two_groups(&broken);
    let again = Discovery::default()
        .discover(&monitor.client, &hub.discovered().kinds)
        .await;
    assert_eq!(
        (again.kinds.len(), again.failures.len()),
        (2, 1),
        "its kinds are not gone"
    );
}

#[tokio::test]
async fn why_discovery_failed_is_told_in_the_servers_words() {
    let serve = tower::service_fn(async |request: Request<Body>| {
        let (code, body) = match request.uri().path() {
            "/api" => (500, "oops".to_owned()),
            _ => (
                503,
                json!({"kind": "Status", "message": "the server is away"}).to_string(),
            ),
        };
        let response = Response::builder().status(code).body(Body::from(body.into_bytes()));
        Ok::<_, std::convert::Infallible>(response.unwrap())
    });
    let found = Hub::default().discover(&Client::new(serve, "default")).await;
    assert_eq!(
        found.failures,
        [
            "/api: 500 Internal Server Error",
            "/apis: 503 Service Unavailable: the server is away"
        ]
    );
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
    let server = Server::of(EXTENSIONS, DEFINITIONS.1, DEFINITIONS.0);
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

/// Discovery that has widgets from a moment on, and sends nothing to who has what is there.
#[derive(Clone)]
struct Late {
    from: Instant,
    sent: Arc<AtomicU32>,
}

async fn late(server: Late, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let has_widgets = Instant::now() >= server.from;
    let (tag, body) = match (request.uri().path(), has_widgets) {
        ("/api", _) => ("core", groups(&[])),
        (_, false) => ("a", groups(&[group(EXTENSIONS, &version("v1", &[DEFINITIONS]))])),
        (_, true) => (
            "b",
            groups(&[group(EXTENSIONS, &version("v1", &[DEFINITIONS, ("widgets", "Widget")]))]),
        ),
    };
    let known = request.headers().get("if-none-match");
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert("etag", tag.parse().unwrap());
    if known.is_some_and(|known| known == tag) {
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
    } else {
        server.sent.fetch_add(1, Ordering::SeqCst);
        *response.body_mut() = Body::from(body.to_string().into_bytes());
    }
    Ok(response)
}

const EXTENSIONS: &str = "apiextensions.k8s.io";
const DEFINITIONS: (&str, &str) = ("customresourcedefinitions", "CustomResourceDefinition");

/// When the one definition is told: in the list of them, so long after it, or never.
#[derive(Clone, Copy)]
enum Told {
    Listed,
    After(Duration),
    Never,
}

struct OneDefinition(Told);

impl Feed for OneDefinition {
    fn open(&self, selection: &Selection, _: Option<u64>) -> Changes {
        let end = || stream::iter([Ok(feed::Change::UpTo(2))]).chain(stream::pending());
        let defined = || Ok(feed::Change::Applied(object("d", 2)));
        match self.0 {
            _ if selection.plural != DEFINITIONS.0 => end().boxed(),
            Told::Never => end().boxed(),
            Told::Listed => stream::iter([defined()]).chain(end()).boxed(),
            Told::After(time) => {
                let made = stream::once(async move {
                    tokio::time::sleep(time).await;
                    Ok(feed::Change::Applied(object("d", 3)))
                });
                stream::iter([Ok(feed::Change::UpTo(2))])
                    .chain(made)
                    .chain(stream::pending())
                    .boxed()
            }
        }
    }
}

/// When the hub shows widgets, which are served from a moment after the start, and how many answers had a body.
async fn found_after(from: Duration, told: Told) -> (Duration, u32) {
    let start = Instant::now();
    let server = Late {
        from: start + from,
        sent: Arc::default(),
    };
    let (sent, hub) = (server.sent.clone(), Arc::new(Hub::default()));
    let monitor = Monitor {
        client: Client::new(
            tower::service_fn(move |request| late(server.clone(), request)),
            "default",
        ),
        feed: Arc::new(OneDefinition(told)),
        hub: hub.clone(),
        synced: watch::channel(false).0,
    };
    let shown = async {
        while hub.kind("apiextensions.k8s.io/v1", "Widget").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = keep(monitor, |_| {}) => unreachable!("it is kept for ever"),
        () = shown => {}
        () = tokio::time::sleep(Duration::from_secs(300)) => panic!("it is never seen"),
    }
    assert!(hub.kind("apiextensions.k8s.io/v1", DEFINITIONS.1).is_some());
    (start.elapsed(), sent.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn what_the_server_makes_of_a_definition_later_is_seen() {
    let minute = Duration::from_secs(60);
    for (after, seen) in [
        (Duration::from_millis(300), Duration::from_secs(3)),
        (Duration::from_secs(5), Duration::from_secs(11)),
    ] {
        let (at, sent) = found_after(minute + after, Told::After(minute)).await;
        assert!(at < minute + seen, "{at:?}");
        assert_eq!(sent, 3, "what is the same is not sent again");
    }
    // It was made between the discovery and the list.
    let (at, _) = found_after(Duration::from_millis(100), Told::Listed).await;
    assert!(at < Duration::from_secs(1), "{at:?}");
    // Of which nothing tells.
    let (at, sent) = found_after(minute + Duration::from_secs(5), Told::Never).await;
    assert!(at < minute + Duration::from_secs(35), "{at:?}");
    assert_eq!(sent, 3);
}

fn kind(group: &str, plural: &str) -> Kind {
    Kind {
        api: ApiResource {
            group: group.to_owned(),
            plural: plural.to_owned(),
            ..ApiResource::erase::<k8s_openapi::api::core::v1::Event>(&())
        },
        namespaced: true,
        verbs: [verbs::LIST, verbs::WATCH, verbs::DELETE].map(str::to_owned).to_vec(),
    }
}

#[tokio::test]
async fn a_kind_in_another_version_is_told_from_one_that_is_gone() {
    let first = Arc::new(kind("example.com", "widgets"));
    let mut later = Kind::clone(&first);
    later.api.version = "v2".to_owned();
    let later = Arc::new(later);
    let feed: Arc<dyn Feed> = Arc::new(OneDefinition(Told::Never));
    let mut watches = Watches::default();
    watches.renew(&feed, std::slice::from_ref(&first));
    let gone = watches.renew(&feed, std::slice::from_ref(&later));
    assert_eq!(gone.as_slice(), std::slice::from_ref(&first));
    assert_eq!(watches.successor(&first), Some(later.clone()));
    let other = Arc::new(kind("other.example.com", "widgets"));
    let gone = watches.renew(&feed, &[other]);
    assert_eq!(gone.as_slice(), std::slice::from_ref(&later));
    assert_eq!(watches.successor(&later), None);
}

#[test]
fn a_kind_is_known_by_its_group_and_plural() {
    for (group, plural, monitored, defines) in [
        ("", "events", false, false),
        ("events.k8s.io", "events", false, false),
        ("example.com", "events", true, false),
        ("apiextensions.k8s.io", "customresourcedefinitions", true, true),
        ("apiregistration.k8s.io", "apiservices", true, true),
        ("example.com", "apiservices", true, false),
    ] {
        let kind = kind(group, plural);
        assert_eq!(
            (kind.is_monitored(), kind.is_of(DEFINING)),
            (monitored, defines),
            "{plural}.{group}"
        );
    }
}
