//! The store through its public face: revisions, compare-and-swap, large values, order, reopening.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's own threads and tasks")]

use std::sync::Arc;

use mk8s_store::{Change, Commit, Committed, Entry, Expect, Follower, Op, SledStore, Store, StoreError, Txn, TxnError};
use parking_lot::Mutex;

/// Key, revision, and the value of what was not deleted.
type Line = (String, u64, Option<Vec<u8>>);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Follower for Log {
    fn committed(&mut self, batch: Vec<Commit>) {
        let mut log = self.0.lock();
        for commit in batch {
            let value = match commit.change {
                Committed::Put { value, .. } => Some(value.to_vec()),
                Committed::Delete => None,
            };
            log.push((commit.key.to_string(), commit.revision, value));
        }
    }
}

fn put(key: &str, expect: Expect, value: &[u8]) -> Op {
    let change = Change::Put {
        value: value.to_vec(),
        revision_at: 1,
        attachment: None,
    };
    Op {
        key: Arc::from(key),
        expect,
        change,
    }
}

fn delete(key: &str, expect: Expect) -> Op {
    Op {
        key: Arc::from(key),
        expect,
        change: Change::Delete,
    }
}

fn started(dir: &std::path::Path) -> (Arc<SledStore>, Log) {
    let (store, log) = (SledStore::open(dir).unwrap(), Log::default());
    store.follow(store.current_revision(), Box::new(log.clone())).unwrap();
    (Arc::new(store), log)
}

/// What a store in a folder holds.
fn stored(dir: &std::path::Path) -> Vec<Entry> {
    SledStore::open(dir).unwrap().load().unwrap().entries
}

#[tokio::test]
async fn compare_and_swap_decides_on_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = started(dir.path());
    assert_eq!(
        store.txn(Txn::one(put("/a", Expect::Absent, b"\"\""))).await.unwrap(),
        1
    );
    assert_eq!(
        log.0.lock().clone(),
        vec![("/a".to_string(), 1, Some(b"\"1\"".to_vec()))]
    );

    let again = store.txn(Txn::one(put("/a", Expect::Absent, b"\"\""))).await;
    assert!(matches!(again, Err(TxnError::Conflict { actual: Some(1), .. })));
    assert_eq!(
        store
            .txn(Txn::one(put("/a", Expect::Revision(1), b"\"\"")))
            .await
            .unwrap(),
        2
    );
    let stale = store.txn(Txn::one(put("/a", Expect::Revision(1), b"\"\""))).await;
    assert!(matches!(stale, Err(TxnError::Conflict { actual: Some(2), .. })));

    let mut both = Txn::one(put("/b", Expect::Absent, b"\"\""));
    both.ops.push(delete("/a", Expect::Revision(1)));
    assert!(
        store.txn(both).await.is_err(),
        "a transaction with one failed expectation changes nothing"
    );
    assert!(matches!(
        store.txn(Txn::one(delete("/b", Expect::Any))).await,
        Err(TxnError::Conflict { actual: None, .. })
    ));
    assert_eq!(store.txn(Txn::one(delete("/a", Expect::Any))).await.unwrap(), 3);
    assert_eq!(store.current_revision(), 3);
}

#[tokio::test]
async fn large_values_survive_and_leave_no_chunks_behind() {
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..1_000_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    let (store, _) = started(dir.path());
    store
        .txn(Txn::one(put("/large", Expect::Absent, &large)))
        .await
        .unwrap();
    store.close();

    let (store, _) = started(dir.path());
    let entries = store.load().unwrap().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].create_revision, entries[0].mod_revision), (1, 1));
    assert_eq!(entries[0].value.len(), large.len() + 1);
    for _ in 0..20 {
        store.txn(Txn::one(put("/large", Expect::Any, &large))).await.unwrap();
    }
    store.txn(Txn::one(put("/large", Expect::Any, b"\"\""))).await.unwrap();
    store.close();
    assert_eq!(stored(dir.path())[0].value.as_ref(), b"\"22\"");
    assert_eq!(blobs(dir.path()), 0);
}

/// Files beside the log, which nobody syncs.
fn blobs(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir.join("blobs")).unwrap().count()
}

/// Objects of every size side by side, changed and deleted in turn: no leaf of them is ever too large for the log.
#[tokio::test]
async fn no_leaf_becomes_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    for round in 0..3usize {
        let writes: Vec<_> = (0..600usize)
            .map(|n| {
                let key = format!("/registry/example.org/somethings/some-namespace-with-a-name/object-{n:04}");
                let size = (n * 7919 + round * 104_729) % 30_000;
                match (n + round) % 7 {
                    0 => delete(&key, Expect::Any),
                    _ => put(&key, Expect::Any, &vec![b'v'; size.max(2)]),
                }
            })
            .map(|op| store.txn(Txn::one(op)))
            .collect();
        for write in writes {
            // A key that is not there cannot be deleted.
            let _ = write.await;
        }
        assert_eq!(blobs(dir.path()), 0);
    }
}

#[tokio::test]
async fn an_unfinished_snapshot_does_not_block_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    store.txn(Txn::one(put("/a", Expect::Absent, b"\"\""))).await.unwrap();
    store.close();
    std::fs::write(dir.path().join("snap.FFFFFFFFFFFFFFFF.generating"), b"garbage").unwrap();
    assert_eq!(stored(dir.path()).len(), 1);
}

/// A revision is never given out twice, whatever the last change was; and a value's hole is where its writer said.
#[tokio::test]
async fn revision_and_holes_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let large = [b"{\"at\":\"", vec![b'z'; 70_000].as_slice(), b"\"}"].concat();
    for round in 0..4u64 {
        let (store, _) = started(dir.path());
        assert_eq!(store.current_revision(), round * 3);
        let mut first = put("/a", Expect::Any, &large);
        if let Change::Put { revision_at, .. } = &mut first.change {
            *revision_at = large.len() - 2;
        }
        store.txn(Txn::one(first)).await.unwrap();
        store.txn(Txn::one(put("/b", Expect::Absent, b"\"\""))).await.unwrap();
        store.txn(Txn::one(delete("/b", Expect::Any))).await.unwrap();
        store.close();
        let entry = stored(dir.path()).remove(0);
        assert_eq!(
            (entry.revision_at, entry.mod_revision),
            (large.len() - 2, round * 3 + 1)
        );
        let digits = entry.mod_revision.to_string();
        assert_eq!(
            &entry.value[entry.revision_at..entry.revision_at + digits.len()],
            digits.as_bytes()
        );
        assert_eq!(entry.value.len(), large.len() + digits.len());
    }
}

/// Two readers of one store, as two masters are: both see everything, and who comes late is told so.
#[tokio::test]
async fn a_store_has_any_number_of_followers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, first) = started(dir.path());
    store.txn(Txn::one(put("/a", Expect::Absent, b"\"\""))).await.unwrap();
    let second = Log::default();
    let late = store.follow(0, Box::new(second.clone()));
    assert!(matches!(late, Err(StoreError::Moved { after: 0, current: 1 })));
    let loaded = store.load().unwrap();
    assert_eq!((loaded.revision, loaded.entries.len()), (1, 1));
    store.follow(loaded.revision, Box::new(second.clone())).unwrap();
    store.txn(Txn::one(put("/b", Expect::Absent, b"\"\""))).await.unwrap();
    assert_eq!(first.0.lock().len(), 2);
    assert_eq!(second.0.lock().clone(), first.0.lock()[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_are_seen_in_revision_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = started(dir.path());
    let writers = (0..32).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                store
                    .txn(Txn::one(put(&format!("/{writer}/{n}"), Expect::Absent, b"\"\"")))
                    .await
                    .unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let revisions: Vec<u64> = log.0.lock().iter().map(|entry| entry.1).collect();
    assert_eq!(revisions, (1..=640).collect::<Vec<u64>>());
}

/// What a loser lost against is there to be read when it is told so: a retry that reads the same old value again would
/// lose again, and again, for as long as the winner's batch takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_conflict_is_answered_when_its_cause_is_visible() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = started(dir.path());
    store.txn(Txn::one(put("/a", Expect::Absent, b"\"\""))).await.unwrap();
    let visible = move |key: &str| {
        let log = log.0.lock();
        log.iter()
            .rev()
            .find(|line| line.0 == key)
            .map(|line| (line.1, line.2.is_some()))
    };
    let writers = (0..16).map(|writer| {
        let (store, visible) = (store.clone(), visible.clone());
        tokio::spawn(async move {
            let mut lost = 0;
            for n in 0..200 {
                // Compare and swap on one key, creating and deleting on another.
                let seen = visible("/a").unwrap().0;
                let ops = [
                    put("/a", Expect::Revision(seen), b"\"\""),
                    if (writer + n) % 2 == 0 {
                        put("/b", Expect::Absent, b"\"\"")
                    } else {
                        delete("/b", Expect::Any)
                    },
                ];
                for op in ops {
                    let key = op.key.clone();
                    let Err(TxnError::Conflict { actual, .. }) = store.txn(Txn::one(op)).await else {
                        continue;
                    };
                    lost += 1;
                    let now = visible(&key);
                    match actual {
                        Some(actual) => assert!(
                            now.is_some_and(|now| now.0 >= actual),
                            "{key}: {actual} against {now:?}"
                        ),
                        None => assert!(
                            now.is_none_or(|now| !now.1 || now.0 > seen),
                            "{key}: absent against {now:?}"
                        ),
                    }
                }
            }
            lost
        })
    });
    let mut lost = 0;
    for writer in writers.collect::<Vec<_>>() {
        lost += writer.await.unwrap();
    }
    assert!(lost > 100, "only {lost} conflicts");
}
