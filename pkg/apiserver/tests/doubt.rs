//! Writes of which the store can't say whether they took place: the server reads what became of them.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::Api;
use mk8s_store::{Answer, Follower, Loaded, SledStore, Store, StoreError, Txn, TxnError};
use serde_json::{Value, json};

const CMS: &str = "/api/v1/namespaces/default/configmaps";
const TAKES_PLACE: usize = 1;
const LOST: usize = 2;

/// The embedded store, of which the next answer is lost when told so.
struct Doubtful {
    inner: SledStore,
    next: AtomicUsize,
    asked: AtomicUsize,
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
        match self.next.swap(0, Ordering::SeqCst) {
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
            _ => self.inner.txn(txn),
        }
    }

    fn current_revision(&self) -> u64 {
        self.inner.current_revision()
    }

    fn health(&self) -> Result<(), Arc<str>> {
        self.inner.health()
    }

    fn close(&self) {
        self.inner.close();
    }
}

#[tokio::test]
async fn a_write_in_doubt_is_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Doubtful {
        inner: SledStore::open(dir.path()).unwrap(),
        next: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
    });
    let api = Api::on(store.clone()).await;
    for (doubt, tries) in [(TAKES_PLACE, 1), (LOST, 2)] {
        let asked = async |method: &str, path: &str, body: Value| {
            let before = store.asked.load(Ordering::SeqCst);
            store.next.store(doubt, Ordering::SeqCst);
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
