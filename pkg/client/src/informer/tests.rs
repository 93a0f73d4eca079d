//! Informers over a feed that the test itself tells.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use mk8s_api::stored::Stored;
use mk8s_supervisor::Supervisor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::feed::{Change, Changes, Feed, FeedError, Selection};
use crate::{Event, Informers, Registration};

struct Text {
    namespace: String,
    name: String,
    revision: u64,
    json: Vec<u8>,
}

impl Stored for Text {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn json(&self) -> &[u8] {
        &self.json
    }
}

type Told = Result<Change, FeedError>;

/// Says what the test sends; how often it was opened, and after which revision the last time.
struct Script {
    told: Mutex<mpsc::UnboundedReceiver<Told>>,
    opened: AtomicUsize,
    after: Mutex<Option<u64>>,
}

impl Feed for Arc<Script> {
    fn open(&self, _: &Selection, after: Option<u64>) -> Changes {
        self.opened.fetch_add(1, Ordering::SeqCst);
        *self.after.lock() = after;
        let script = Some(self.clone());
        // An error ends what was opened, as with any feed.
        let changes = futures::stream::unfold(script, |script| async {
            let script = script?;
            let told = std::future::poll_fn(|context| script.told.lock().poll_recv(context)).await?;
            match told {
                Err(FeedError::Failed(cause)) if cause.to_string() == "panic" => panic!("as asked"),
                Err(_) => Some((told, None)),
                Ok(_) => Some((told, Some(script))),
            }
        });
        changes.boxed()
    }
}

pub(crate) struct Bench {
    tell: mpsc::UnboundedSender<Told>,
    script: Arc<Script>,
    pub(crate) informers: Informers,
    _ends: DropGuard,
}

pub(crate) fn pod(name: &str, node: &str, revision: u64) -> Arc<dyn Stored> {
    with_uid(name, node, revision, name)
}

pub(crate) fn with_uid(name: &str, node: &str, revision: u64, uid: &str) -> Arc<dyn Stored> {
    let object: Value = json!({
        "metadata": {"namespace": "d", "name": name, "uid": uid, "resourceVersion": revision.to_string()},
        "spec": {"nodeName": node, "containers": []},
    });
    Arc::new(Text {
        namespace: "d".into(),
        name: name.into(),
        revision,
        json: serde_json::to_vec(&object).unwrap(),
    })
}

/// The same, decoded.
pub(crate) fn object(text: &Arc<dyn Stored>) -> Pod {
    serde_json::from_slice(text.json()).unwrap()
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let (tell, told) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            told: Mutex::new(told),
            opened: AtomicUsize::new(0),
            after: Mutex::new(None),
        });
        let token = CancellationToken::new();
        Bench {
            tell,
            script: script.clone(),
            informers: Informers::fed(Arc::new(script), &Supervisor::new(token.clone())).packed(),
            _ends: token.drop_guard(),
        }
    }

    pub(crate) fn apply(&self, object: Arc<dyn Stored>) {
        self.tell.send(Ok(Change::Applied(object))).unwrap();
    }

    pub(crate) fn delete(&self, object: Arc<dyn Stored>, revision: u64) {
        self.tell.send(Ok(Change::Deleted { object, revision })).unwrap();
    }

    pub(crate) fn up_to(&self, revision: u64) {
        self.tell.send(Ok(Change::UpTo(revision))).unwrap();
    }

    fn fail(&self, error: FeedError) {
        self.tell.send(Err(error)).unwrap();
    }
}

async fn reached(informer: &Informer<Pod>, revision: u64) {
    tokio::time::timeout(Duration::from_secs(60), informer.wait_reached(revision))
        .await
        .unwrap_or_else(|_| panic!("at {:?}, not {revision}", informer.revision()));
}

/// The name, the old node, the new one.
type Step = (String, Option<String>, Option<String>);

fn step_of(event: &Event<Pod>) -> Step {
    let node = |pod: &Arc<Pod>| pod.spec.as_ref().unwrap().node_name.clone().unwrap();
    let name = event.object().metadata.name.clone().unwrap();
    match event {
        Event::Applied { old, new } => (name, old.as_ref().map(node), Some(node(new))),
        Event::Deleted(last) => (name, Some(node(last)), None),
    }
}

/// What a subscriber gets that looks now.
fn waiting(events: &mut crate::Subscription<Pod>) -> Vec<Step> {
    std::iter::from_fn(|| events.try_next())
        .map(|event| step_of(&event))
        .collect()
}

/// One whose spec is no spec.
fn unreadable(name: &str, revision: u64, uid: &str) -> Arc<dyn Stored> {
    let metadata = json!({"namespace": "d", "name": name, "uid": uid, "resourceVersion": revision.to_string()});
    Arc::new(Text {
        namespace: "d".into(),
        name: name.into(),
        revision,
        json: serde_json::to_vec(&json!({"metadata": metadata, "spec": 7})).unwrap(),
    })
}

fn step(name: &str, old: Option<&str>, new: Option<&str>) -> Step {
    (name.into(), old.map(Into::into), new.map(Into::into))
}

fn by_node(pod: &Pod) -> Vec<String> {
    pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_one_change_per_object_from_what_it_knew_to_what_is() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    bench.apply(pod("a", "1", 1));
    bench.up_to(1);
    reached(&pods, 1).await;
    let mut events = pods.subscribe();
    assert_eq!(waiting(&mut events), [step("a", None, Some("1"))]);

    for revision in 2..1000 {
        bench.apply(pod("a", &revision.to_string(), revision));
    }
    bench.apply(pod("came-and-went", "x", 1000));
    bench.delete(pod("came-and-went", "x", 1000), 1001);
    reached(&pods, 1001).await;
    assert_eq!(waiting(&mut events), [step("a", Some("1"), Some("999"))]);

    bench.delete(pod("a", "999", 999), 1002);
    reached(&pods, 1002).await;
    assert_eq!(waiting(&mut events), [step("a", Some("999"), None)]);

    // Another of the same name is never told as a change of the first.
    bench.apply(pod("a", "2", 1003));
    reached(&pods, 1003).await;
    waiting(&mut events);
    bench.delete(pod("a", "2", 1003), 1004);
    bench.apply(with_uid("a", "3", 1005, "second"));
    reached(&pods, 1005).await;
    assert_eq!(
        waiting(&mut events),
        [step("a", Some("2"), None), step("a", None, Some("3"))]
    );
}

/// A handler that notes what it hears, and panics at a pod of the name `bad` when it has.
fn noting(informer: &Informer<Pod>) -> (Registration, Arc<Mutex<Vec<Step>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let heard = noted.clone();
    let handle = move |event: &Event<Pod>| {
        let step = step_of(event);
        heard.lock().push(step.clone());
        assert_ne!(step.0, "bad");
    };
    (informer.add_event_handler("noting", Box::new(handle)), noted)
}

#[tokio::test]
async fn a_handler_hears_what_there_is_and_each_change_in_turn_whatever_the_others_do() {
    let bench = Bench::new();
    let informer = bench.informers.of::<Pod>();
    let (first, of_first) = noting(&informer);
    bench.apply(pod("bad", "n1", 1));
    bench.apply(with_uid("p", "n1", 2, "one"));
    bench.up_to(2);
    reached(&informer, 2).await;
    let listed = vec![step("bad", None, Some("n1")), step("p", None, Some("n1"))];
    assert_eq!(*of_first.lock(), listed);

    let (_late, of_late) = noting(&informer);
    of_late.lock().sort();
    assert_eq!(*of_late.lock(), listed);

    // Moved; gone and made anew, of which one change tells; gone.
    bench.apply(with_uid("p", "n2", 3, "one"));
    bench.apply(with_uid("p", "n3", 4, "two"));
    bench.delete(with_uid("p", "n4", 5, "two"), 6);
    bench.up_to(6);
    reached(&informer, 6).await;
    let steps = [
        step("p", Some("n1"), Some("n2")),
        step("p", Some("n2"), None),
        step("p", None, Some("n3")),
        step("p", Some("n4"), None),
    ];
    assert_eq!(of_first.lock()[2..], steps);
    assert_eq!(of_late.lock()[2..], steps);

    drop(first);
    bench.apply(pod("q", "n1", 7));
    bench.up_to(7);
    reached(&informer, 7).await;
    assert_eq!((of_first.lock().len(), of_late.lock().len()), (6, 7));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_reader_is_bounded_by_the_objects_there_are() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    bench.up_to(1);
    reached(&pods, 1).await;
    let events = pods.subscribe();
    for number in 1..20_000 {
        let name = format!("pod-{number}");
        bench.apply(pod(&name, "1", 2 * number));
        bench.delete(pod(&name, "1", 2 * number), 2 * number + 1);
    }
    reached(&pods, 39_999).await;
    assert!(events.waiting() < 4096, "{}", events.waiting());
}

#[tokio::test(start_paused = true)]
async fn a_new_list_keeps_what_did_not_change_and_drops_what_is_gone() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    for (name, revision) in [("same", 1), ("changes", 2), ("goes", 3)] {
        bench.apply(pod(name, "1", revision));
    }
    bench.up_to(3);
    reached(&pods, 3).await;
    let kept = pods.get(Some("d"), "same").unwrap();
    let mut events = pods.subscribe();
    waiting(&mut events);

    bench.fail(FeedError::Expired);
    bench.apply(pod("same", "1", 1));
    bench.apply(pod("changes", "2", 5));
    bench.up_to(6);
    reached(&pods, 6).await;
    let mut told = waiting(&mut events);
    told.sort();
    assert_eq!(
        told,
        [step("changes", Some("1"), Some("2")), step("goes", Some("1"), None)]
    );
    assert!(Arc::ptr_eq(&kept, &pods.get(Some("d"), "same").unwrap()));
    assert_eq!(*bench.script.after.lock(), None, "what is expired begins anew");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_fails_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    bench.apply(pod("a", "1", 1));
    bench.up_to(7);
    bench.fail(FeedError::Failed("the connection was cut".into()));
    bench.apply(pod("b", "1", 8));
    reached(&pods, 8).await;
    assert_eq!(*bench.script.after.lock(), Some(7));
    assert_eq!(pods.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reflector_that_panics_is_started_again() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    bench.apply(pod("a", "1", 1));
    bench.up_to(1);
    reached(&pods, 1).await;
    let mut events = pods.subscribe();
    waiting(&mut events);
    bench.fail(FeedError::Failed("panic".into()));
    bench.apply(pod("a", "1", 1));
    bench.apply(pod("b", "2", 2));
    bench.up_to(2);
    reached(&pods, 2).await;
    assert_eq!(waiting(&mut events), [step("b", None, Some("2"))]);
    assert_eq!(bench.script.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_index_follows_its_objects_and_is_made_once() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    bench.apply(pod("a", "1", 1));
    bench.up_to(1);
    reached(&pods, 1).await;
    let index = pods.index("node", by_node);
    assert_eq!(index.count("1"), 1);
    bench.apply(pod("b", "1", 2));
    bench.apply(pod("a", "2", 3));
    reached(&pods, 3).await;
    let names = |at: &str| -> Vec<String> {
        let found = pods.index("node", |_| panic!("made before")).get(at);
        found.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    };
    assert_eq!((names("1"), names("2")), (vec!["b".to_string()], vec!["a".to_string()]));
    bench.delete(pod("b", "1", 2), 4);
    reached(&pods, 4).await;
    assert_eq!((index.count("1"), index.count("2")), (0, 1));
    assert!(
        !index.shared.state.read().indexes[0].found.contains_key("1"),
        "nothing is left of it"
    );
}

#[tokio::test(start_paused = true)]
async fn of_packed_objects_only_those_used_last_stay_decoded() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    let count = DECODED as u64 + 100;
    for revision in 1..=count {
        bench.apply(pod(&format!("pod-{revision}"), "1", revision));
    }
    bench.up_to(count);
    reached(&pods, count).await;
    let decoded = || {
        let state = pods.shared.state.read();
        let is_decoded =
            |entry: &&Entry<Pod>| matches!(entry, Entry::Packed(packed) if packed.decoded.lock().is_some());
        state.objects.values().filter(is_decoded).count()
    };
    assert_eq!(decoded(), DECODED);
    assert_eq!(
        pods.get(Some("d"), "pod-1")
            .unwrap()
            .metadata
            .resource_version
            .as_deref(),
        Some("1")
    );
    assert_eq!(decoded(), DECODED);
    assert_eq!(pods.list().len() as u64, count);
}

#[tokio::test]
async fn packed_and_whole_pods_are_two_informers_and_other_kinds_are_one() {
    let bench = Bench::new();
    let packed = bench.informers.clone();
    let whole = Informers::fed(
        Arc::new(bench.script.clone()),
        &Supervisor::new(CancellationToken::new()),
    );
    let shared = whole.packed();
    assert!(!Arc::ptr_eq(&whole.of::<Pod>().shared, &shared.of::<Pod>().shared));
    assert!(Arc::ptr_eq(&packed.of::<Pod>().shared, &packed.of::<Pod>().shared));
    assert!(
        Arc::ptr_eq(&whole.of::<Node>().shared, &shared.of::<Node>().shared),
        "nothing to pack"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_stays_as_it_was_known_and_is_counted() {
    let bench = Bench::new();
    let pods = bench.informers.of::<Pod>();
    bench.apply(pod("a", "1", 1));
    bench.apply(pod("b", "1", 2));
    bench.apply(unreadable("c", 3, "c"));
    bench.up_to(3);
    reached(&pods, 3).await;
    let (index, mut events) = (pods.index("node", by_node), pods.subscribe());
    assert_eq!(waiting(&mut events).len(), 2);
    // It has not gone because it can't be read; but the one known has where the name is another's.
    bench.apply(unreadable("a", 4, "a"));
    bench.apply(unreadable("b", 5, "another"));
    reached(&pods, 5).await;
    assert_eq!(waiting(&mut events), [step("b", Some("1"), None)]);
    assert_eq!(index.count("1"), 1);
    // A list that names it does not take it away either. What can be read again goes on from what was known.
    bench.fail(FeedError::Expired);
    bench.apply(unreadable("a", 4, "a"));
    bench.up_to(6);
    reached(&pods, 6).await;
    bench.apply(pod("a", "2", 7));
    reached(&pods, 7).await;
    assert_eq!(waiting(&mut events), [step("a", Some("1"), Some("2"))]);
    let mut text = String::new();
    mk8s_supervisor::metrics::print(&mut text);
    assert!(
        text.contains("mk8s_informer_undecodable_total{kind=\"Pod\"} 4\n"),
        "{text}"
    );
}

/// Lists one pod and ends, each time it is opened: without an error, or because its history is lost.
struct Brief {
    opened: AtomicUsize,
    expires: bool,
}

impl Feed for Brief {
    fn open(&self, _: &Selection, _: Option<u64>) -> Changes {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let listed = [Ok(Change::Applied(pod("a", "n", 3))), Ok(Change::UpTo(3))];
        let end = self.expires.then_some(Err(FeedError::Expired));
        futures::stream::iter(listed.into_iter().chain(end)).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_ends_at_once_is_opened_seldom() {
    for expires in [false, true] {
        let opened = AtomicUsize::new(0);
        let feed = Arc::new(Brief { opened, expires });
        let token = CancellationToken::new();
        let informers = Informers::fed(feed.clone(), &Supervisor::new(token.clone()));
        informers.of::<Pod>().wait_synced().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let opened = feed.opened.load(Ordering::SeqCst);
        assert!((5..=11).contains(&opened), "{opened}");
        token.cancel();
    }
}
