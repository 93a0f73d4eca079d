//! Writes of which the store can't say whether they took place: the server reads what became of them.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::Api;
use mk8s_store::{Answer, Change, Follower, Loaded, Op, SledStore, Store, StoreError, Txn, TxnError};
use parking_lot::Mutex;
use serde_json::{Value, json};

const CMS: &str = "/api/v1/namespaces/default/configmaps";
/// What becomes of transactions.
const TAKES_PLACE: usize = 1;
const LOST: usize = 2;
/// All of them from now on.
const HANGS: usize = 3;
const CONFLICTS: usize = 4;
/// The next one finds that another just wrote the same.
const TAKEN: usize = 5;
/// Somebody else always writes flow objects first.
const FLOWS_CONFLICT: usize = 6;

fn puts_flow(op: &Op) -> bool {
    op.key.contains("/flowcontrol.") && matches!(op.change, Change::Put { .. })
}

/// The embedded store, of which the next answer is lost when told so, or all others.
struct Doubtful {
    inner: SledStore,
    next: AtomicUsize,
    asked: AtomicUsize,
    /// What it says of its health.
    trouble: Mutex<Option<Arc<str>>>,
    _dir: tempfile::TempDir,
}

impl Doubtful {
    fn open() -> Arc<Doubtful> {
        let dir = tempfile::tempdir().unwrap();
        Arc::new(Doubtful {
            inner: SledStore::open(dir.path()).unwrap(),
            next: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            trouble: Mutex::new(None),
            _dir: dir,
        })
    }

    fn set(&self, next: usize) {
        self.next.store(next, Ordering::SeqCst);
    }
}

impl Store for Doubtful {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn follow(&self, after: u64, follower: Box<dyn Follower>) -> Result<(), StoreError> {
        self.inner.follow(after, follower)
    }

    fn txn(&self, txn: Txn) -> Answer {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let once = |next| matches!(next, TAKES_PLACE | LOST | TAKEN);
        let now = self.next.load(Ordering::SeqCst);
        if once(now) {
            self.set(0);
        }
        match now {
            TAKES_PLACE => {
                let answer = self.inner.txn(txn);
                let (unsaid, receiver) = tokio::sync::oneshot::channel();
                tokio::spawn(async move {
                    answer.await.unwrap();
                    drop(unsaid);
                });
                Answer::later(receiver)
            }
            LOST => Answer::now(Err(TxnError::Unknown("lost".into()))),
            HANGS => {
                drop(self.inner.txn(txn));
                let (unsaid, receiver) = tokio::sync::oneshot::channel();
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(unsaid);
                });
                Answer::later(receiver)
            }
            CONFLICTS => {
                let key = txn.ops[0].key.clone();
                Answer::now(Err(TxnError::Conflict { key, actual: None }))
            }
            FLOWS_CONFLICT if let Some(op) = txn.ops.iter().find(|op| puts_flow(op)) => {
                let key = op.key.clone();
                Answer::now(Err(TxnError::Conflict { key, actual: None }))
            }
            TAKEN => {
                drop(self.inner.txn(without_attachments(&txn)));
                self.inner.txn(txn)
            }
            _ => self.inner.txn(txn),
        }
    }

    fn current_revision(&self) -> u64 {
        self.inner.current_revision()
    }

    fn health(&self) -> Result<(), Arc<str>> {
        self.trouble.lock().clone().map_or(Ok(()), Err)
    }

    fn close(&self) {
        while self.next.load(Ordering::SeqCst) == HANGS {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.inner.close();
    }
}

fn without_attachments(txn: &Txn) -> Txn {
    let ops = txn.ops.iter().map(|op| {
        let Change::Put { value, revision_at, .. } = &op.change else {
            panic!("only what is written is written again");
        };
        let change = Change::Put {
            value: value.clone(),
            revision_at: *revision_at,
            attachment: None,
        };
        Op {
            key: op.key.clone(),
            expect: op.expect,
            change,
        }
    });
    Txn { ops: ops.collect() }
}

#[tokio::test]
async fn a_generated_name_that_is_taken_is_made_up_anew() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}});
    store.set(TAKEN);
    let (code, made) = api.post(CMS, &object).await;
    assert_eq!(code, 201, "{made}");
    let (_, list) = api.get(CMS).await;
    let names = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["metadata"]["name"]);
    let names: Vec<&Value> = names.filter(|name| name.as_str().unwrap().starts_with("c-")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&&made["metadata"]["name"]), "{names:?}");
    // One that a client chose is his.
    store.set(TAKEN);
    let (code, refused) = api.post(CMS, &config_map("0")).await;
    assert_eq!(
        (code, refused["reason"].as_str()),
        (409, Some("AlreadyExists")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_write_in_doubt_is_done_once() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    for (doubt, tries) in [(TAKES_PLACE, 1), (LOST, 2)] {
        let asked = async |method: &str, path: &str, body: Value| {
            let before = store.asked.load(Ordering::SeqCst);
            store.set(doubt);
            let kind = if method == "PATCH" {
                "application/json-patch+json"
            } else {
                "application/json"
            };
            let answer = harness::read(api.send(method, path, kind, body.to_string()).await).await;
            assert_eq!(store.asked.load(Ordering::SeqCst) - before, tries, "{method} {doubt}");
            answer
        };
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "annotations": {"a": "b"}}});
        let (code, made) = asked("POST", CMS, object).await;
        assert_eq!(code, 201, "{made}");
        let path = format!("{CMS}/c");
        // A patch that does something else when it is done twice.
        let copy = json!([{"op": "move", "from": "/metadata/annotations/a", "path": "/metadata/annotations/c"}]);
        let (code, moved) = asked("PATCH", &path, copy).await;
        assert_eq!(
            (code, &moved["metadata"]["annotations"]),
            (200, &json!({"c": "b"})),
            "{moved}"
        );
        let (code, gone) = asked("DELETE", &path, json!({})).await;
        assert_eq!(code, 200, "{gone}");
        assert_eq!(api.get(&path).await.0, 404);
    }
}

/// What the store has of such an object is another text than what is read of it.
#[tokio::test]
async fn a_write_in_doubt_is_found_in_what_is_stored() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    let schema = |item: Value| {
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"l": {"type": "array", "items": item}}}}})
    };
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"plural": "cars", "kind": "Car"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema(json!({"type": "object"}))}}]}});
    assert_eq!(api.post(crds, &definition).await.0, 201);
    let cars = "/apis/example.org/v1/namespaces/default/cars";
    let until = async |path: &str, is: &dyn Fn(u16, &Value) -> bool| {
        let begun = Instant::now();
        loop {
            let (code, found) = api.get(path).await;
            if is(code, &found) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{path}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(cars, &|code, _| code == 200).await;
    let items = vec![json!({}); 60_000];
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"l": items}});
    assert_eq!(api.post(cars, &car).await.0, 201);
    let default = "x".repeat(1000);
    let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": default}}});
    let grown = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema(item)}]);
    let path = format!("{crds}/cars.example.org");
    assert_eq!(api.patch(&path, "application/json-patch+json", &grown).await.0, 200);
    let one = format!("{cars}/a");
    until(&one, &|_, found| found.pointer("/spec/l/0/a") == Some(&json!(default))).await;
    store.set(TAKES_PLACE);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, patched) = api.patch(&one, "application/merge-patch+json", &labels).await;
    assert_eq!(code, 200, "{}", patched["message"]);
    assert_eq!(patched["metadata"]["labels"], labels["metadata"]["labels"]);
}

/// The Service waited for whoever wrote a flow object just then.
#[tokio::test]
async fn who_writes_flow_objects_keeps_the_api_s_own_service_from_nobody() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    let (service, flow) = (
        "/api/v1/namespaces/default/services/kubernetes",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
    );
    store.set(FLOWS_CONFLICT);
    assert_eq!(api.delete(flow, None).await.0, 200);
    assert_eq!(api.delete(service, None).await.0, 200);
    let again = async {
        while api.get(service).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(20), again).await;
    assert!(again.is_ok(), "it stays away");
    assert_eq!(api.get(flow).await.0, 404, "that was due, too");
}

fn config_map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": value}})
}

#[tokio::test]
async fn a_write_in_doubt_over_which_another_was_made_is_not_done_again() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    assert_eq!(api.post(CMS, &config_map("0")).await.0, 201);
    let path = format!("{CMS}/c");
    let merge = "application/merge-patch+json";
    for doubt in [TAKES_PLACE, LOST] {
        // The store comes back when another writer was there.
        *store.trouble.lock() = Some("no answer came".into());
        store.set(doubt);
        let patch = json!({"data": {"key": doubt.to_string()}});
        let in_doubt = api.patch(&path, merge, &patch);
        let other = async {
            while store.next.load(Ordering::SeqCst) != 0 {
                tokio::task::yield_now().await;
            }
            let patch = json!({"data": {"other": doubt.to_string()}});
            let (code, patched) = api.patch(&path, merge, &patch).await;
            assert_eq!(code, 200, "{patched}");
            *store.trouble.lock() = None;
        };
        let ((code, status), ()) = tokio::join!(in_doubt, other);
        assert_eq!((code, status["reason"].as_str()), (504, Some("Timeout")), "{status}");
        assert_eq!(
            status["message"],
            "whether the write took place is not known, and something else was written since"
        );
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_nobody_beyond_his_deadline() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    assert_eq!(api.post(CMS, &config_map("0")).await.0, 201);
    store.set(HANGS);
    let path = format!("{CMS}/c");
    let merge = "application/merge-patch+json";
    let begun = Instant::now();
    let timeout = "?timeout=200ms";
    let answers = [
        api.post(
            &format!("/api/v1/namespaces{timeout}"),
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        )
        .await,
        api.patch(&format!("{path}{timeout}"), merge, &json!({"data": {"key": "1"}}))
            .await,
        api.put(&format!("{path}{timeout}"), &config_map("2")).await,
        api.delete(&format!("{path}{timeout}"), None).await,
    ];
    for (code, status) in &answers {
        assert_eq!((*code, status["reason"].as_str()), (504, Some("Timeout")), "{status}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // What was not answered took place all the same, and readers see it.
    for (path, expected) in [("/api/v1/namespaces/n", 200), (path.as_str(), 404)] {
        while api.get(path).await.0 != expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "{path}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn who_loses_again_and_again_does_not_spin() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    let before = store.asked.load(Ordering::SeqCst);
    store.set(CONFLICTS);
    let (code, status) = api.post(&format!("{CMS}?timeout=500ms"), &config_map("0")).await;
    assert_eq!((code, status["reason"].as_str()), (504, Some("Timeout")), "{status}");
    let tries = store.asked.load(Ordering::SeqCst) - before;
    assert!((2..=20).contains(&tries), "{tries}");
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_process() {
    let store = Doubtful::open();
    let api = Api::on(store.clone()).await;
    store.set(HANGS);
    let closed = api.server().state().close_within(Duration::from_millis(50));
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
    store.set(0);
    assert!(closed.is_ok());
}
