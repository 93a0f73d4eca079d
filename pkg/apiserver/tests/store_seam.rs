//! The server on another store than the embedded one: it assigns revisions with gaps, loses what is sent along, has other
//! writers, and is out of order at times. And two servers on one store.
#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use mk8s_store::{
    Answer, Change, Commit, Committed, Entry, Expect, Follower, Loaded, Op, SledStore, Store, StoreError, Txn, TxnError,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use harness::{Api, events_until};

/// What lies between one revision and the next.
const GAP: u64 = 7;

#[derive(Default)]
struct Elsewhere(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Arc<str>, Entry>,
    revision: u64,
    followers: Vec<Box<dyn Follower>>,
    trouble: Option<Arc<str>>,
}

impl Inner {
    fn commit(&mut self, txn: Txn) -> Result<u64, TxnError> {
        if let Some(cause) = &self.trouble {
            return Err(TxnError::Unavailable(cause.clone()));
        }
        for op in &txn.ops {
            let actual = self.entries.get(&op.key).map(|entry| entry.mod_revision);
            let holds = match op.expect {
                Expect::Any => !matches!(op.change, Change::Delete) || actual.is_some(),
                Expect::Absent => actual.is_none(),
                Expect::Revision(revision) => actual == Some(revision),
            };
            if !holds {
                let key = op.key.clone();
                return Err(TxnError::Conflict { key, actual });
            }
        }
        self.revision += GAP;
        let revision = self.revision;
        let mut batch = Vec::new();
        for Op { key, change, .. } in txn.ops {
            let (create_revision, change) = match change {
                Change::Check => continue,
                Change::Delete => {
                    self.entries.remove(&key);
                    (0, Committed::Delete)
                }
                Change::Put {
                    mut value, revision_at, ..
                } => {
                    value.splice(revision_at..revision_at, revision.to_string().into_bytes());
                    let create_revision = self.entries.get(&key).map_or(revision, |entry| entry.create_revision);
                    let entry = Entry {
                        key: key.clone(),
                        value: value.into(),
                        revision_at,
                        create_revision,
                        mod_revision: revision,
                    };
                    let value = entry.value.clone();
                    self.entries.insert(key.clone(), entry);
                    let put = Committed::Put {
                        value,
                        revision_at,
                        attachment: None,
                    };
                    (create_revision, put)
                }
            };
            batch.push(Commit {
                key,
                revision,
                create_revision,
                change,
            });
        }
        self.followers[0].committed(batch);
        Ok(revision)
    }
}

impl Store for Elsewhere {
    fn load(&self) -> Result<Loaded, StoreError> {
        let inner = self.0.lock();
        Ok(Loaded {
            revision: inner.revision,
            entries: inner.entries.values().cloned().collect(),
        })
    }

    fn follow(&self, _: u64, follower: Box<dyn Follower>) -> Result<(), StoreError> {
        self.0.lock().followers.push(follower);
        Ok(())
    }

    fn txn(&self, txn: Txn) -> Answer {
        Answer::now(self.0.lock().commit(txn))
    }

    fn current_revision(&self) -> u64 {
        self.0.lock().revision
    }

    fn health(&self) -> Result<(), Arc<str>> {
        self.0.lock().trouble.clone().map_or(Ok(()), Err)
    }

    fn close(&self) {}
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn revisions_may_have_gaps_and_attachments_be_lost() {
    let store = Arc::new(Elsewhere::default());
    let cluster = Api::on(store.clone()).await;

    let (code, made) = cluster.post(MAPS, &config_map("a", "1")).await;
    assert_eq!(code, 201, "{made}");
    assert!(revision(&made).is_multiple_of(GAP));
    let (_, list) = cluster.get(MAPS).await;
    let seen = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    let watch = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion={seen}")).await;

    let mut changed = made.clone();
    changed["data"]["key"] = "2".into();
    let (code, put) = cluster.put(&format!("{MAPS}/a"), &changed).await;
    assert_eq!((code, &put["data"]["key"]), (200, &json!("2")));
    assert!(revision(&put) >= revision(&made) + GAP);
    let (code, conflict) = cluster.put(&format!("{MAPS}/a"), &changed).await;
    assert_eq!(code, 409, "{conflict}");
    let patch = json!({"data": {"more": "3"}});
    let (code, patched) = cluster
        .patch(&format!("{MAPS}/a"), "application/merge-patch+json", &patch)
        .await;
    assert_eq!((code, &patched["data"]), (200, &json!({"key": "2", "more": "3"})));
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.1, patched);

    // Another writer's object, with a text that looks like a revision before its own.
    let other = br#"{"apiVersion":"v1","data":{"a":"\"resourceVersion\":\"1\""},"kind":"ConfigMap","metadata":{"name":"b","namespace":"default","resourceVersion":"","uid":"u"}}"#;
    let at = other.windows(2).rposition(|two| two == br#""""#).unwrap() + 1;
    let put = Op {
        key: "/registry/core/configmaps/default/b".into(),
        expect: Expect::Absent,
        change: Change::Put {
            value: other.to_vec(),
            revision_at: at,
            attachment: None,
        },
    };
    let foreign = store.txn(Txn::one(put)).await.unwrap();
    assert_eq!(revision(&cluster.get(&format!("{MAPS}/b")).await.1), foreign);
    let (code, gone) = cluster.delete(&format!("{MAPS}/b"), None).await;
    assert_eq!(code, 200, "{gone}");

    let events = events_until(watch, |event| event["type"] == "DELETED").await;
    let seen: Vec<(String, String)> = events
        .iter()
        .map(|event| {
            let name = event["object"]["metadata"]["name"].as_str().unwrap();
            (event["type"].as_str().unwrap().to_string(), name.to_string())
        })
        .collect();
    let expected = [("MODIFIED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "b")];
    assert_eq!(seen, expected.map(|(kind, name)| (kind.to_string(), name.to_string())));
    assert_eq!(revision(&events[3]["object"]), store.current_revision());
    assert_eq!(revision(&events[2]["object"]), foreign);
}

#[tokio::test]
async fn health_is_that_of_the_store() {
    let store = Arc::new(Elsewhere::default());
    let cluster = Api::on(store.clone()).await;
    let text = async |path: &str| {
        let response = cluster.send("GET", path, "text/plain", axum::body::Body::empty()).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    };
    let ok = (200, "ok".to_string());
    for path in [
        "/readyz",
        "/livez",
        "/healthz",
        "/readyz/store",
        "/livez/ping",
        "/readyz/shutdown",
    ] {
        assert_eq!(text(path).await, ok, "{path}");
    }
    let (code, verbose) = text("/readyz?verbose&exclude=store&exclude=nothing").await;
    let expected = "[+]ping ok\n[+]store excluded: ok\n[+]watch-cache ok\n[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"nothing\"\nreadyz check passed\n";
    assert_eq!((code, verbose.as_str()), (200, expected));
    assert_eq!(text("/livez/shutdown").await.0, 404);
    assert_eq!(text("/readyz/nothing").await.0, 404);

    store.0.lock().trouble = Some("claim room: no space left".into());
    for path in ["/readyz", "/livez"] {
        let (code, body) = text(path).await;
        assert_eq!(code, 500);
        assert!(
            body.contains("[+]ping ok\n[-]store failed: claim room: no space left\n"),
            "{body}"
        );
        assert!(body.ends_with(&format!("{} check failed\n", &path[1..])), "{body}");
    }
    let failed = (500, "internal server error: claim room: no space left\n".to_string());
    assert_eq!(text("/livez/store").await, failed);
    assert_eq!(text("/livez?exclude=store").await, ok);
    // Writes are refused, reads go on.
    let (code, refused) = cluster.post(MAPS, &config_map("a", "1")).await;
    assert_eq!(
        (code, &refused["reason"]),
        (503, &json!("ServiceUnavailable")),
        "{refused}"
    );
    assert_eq!(cluster.get(MAPS).await.0, 200);

    store.0.lock().trouble = None;
    assert_eq!(text("/readyz").await, ok);
    assert_eq!(cluster.post(MAPS, &config_map("a", "1")).await.0, 201);
}

#[tokio::test]
async fn two_servers_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(dir.path()).unwrap());
    let one = Api::on(store.clone()).await;
    let two = Api::on(store.clone()).await;
    for (writer, reader) in [(&one, &two), (&two, &one)] {
        let (code, made) = writer.post(MAPS, &config_map("a", "1")).await;
        assert_eq!(code, 201, "{made}");
        assert_eq!(reader.get(&format!("{MAPS}/a")).await, (200, made));
        assert_eq!(reader.post(MAPS, &config_map("a", "1")).await.0, 409);
        assert_eq!(reader.delete(&format!("{MAPS}/a"), None).await.0, 200);
        assert_eq!(writer.get(&format!("{MAPS}/a")).await.0, 404);
    }
}
