//! The committer on a disk that fails as the test says: what its writers are told, what followers see, how it comes back.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::{Entry, SledStore, Store};

/// What the disk does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Works,
    /// There is no room; the engine is not touched.
    NoRoom,
    /// It says no, and nothing of the batch is there.
    Lost,
    /// It says no, and all of the batch is there.
    Kept,
    Panic,
    PanicKept,
    /// It does not come back before it is let go.
    Hangs,
}

#[derive(Default)]
struct Disk {
    records: BTreeMap<Arc<str>, (Vec<u8>, usize, Revisions)>,
    revision: u64,
    faults: VecDeque<Fault>,
    /// So many openings fail.
    closed: usize,
    opened: usize,
    /// What hangs does so no longer.
    freed: bool,
    /// Keys that were used to give memory back.
    trimmed: usize,
    /// The revisions that were noted, and whether with a count.
    marks: Vec<(u64, bool)>,
}

#[derive(Clone, Default)]
struct FakeEngine(Arc<Mutex<Disk>>);

fn error() -> EngineError {
    EngineError::Io {
        what: "write",
        path: PathBuf::from("/disk"),
        source: std::io::Error::other("the test says no"),
    }
}

impl FakeEngine {
    fn open(&self) -> Result<Opened, EngineError> {
        let mut disk = self.0.lock();
        disk.opened += 1;
        if disk.closed > 0 {
            disk.closed -= 1;
            return Err(error());
        }
        let index = disk.records.iter().map(|(key, record)| (key.clone(), record.2));
        Ok(Opened {
            index: index.collect(),
            engine: Box::new(self.clone()),
        })
    }

    fn write(&self, batch: &[Write], revision: u64) {
        let mut disk = self.0.lock();
        for write in batch {
            match &write.change {
                WriteChange::Delete => disk.records.remove(&write.key),
                WriteChange::Put {
                    value,
                    hole,
                    create_revision,
                } => {
                    let revisions = Revisions {
                        create: *create_revision,
                        modified: write.revision,
                        chunks: 0,
                    };
                    disk.records
                        .insert(write.key.clone(), (value.clone(), *hole, revisions))
                }
            };
        }
        disk.revision = revision;
    }
}

const MARK_EVERY: Duration = Duration::from_millis(200);

impl Engine for FakeEngine {
    fn mark(&self, content: Option<crate::engine::Content>) -> Result<(), EngineError> {
        let mut disk = self.0.lock();
        let revision = disk.revision;
        disk.marks.push((revision, content.is_some()));
        Ok(())
    }

    fn revision(&self) -> u64 {
        self.0.lock().revision
    }

    fn load(&self) -> Result<Vec<Entry>, EngineError> {
        let keys: Vec<_> = self.0.lock().records.keys().cloned().collect();
        keys.iter().filter_map(|key| self.read(key).transpose()).collect()
    }

    fn read(&self, key: &Arc<str>) -> Result<Option<Entry>, EngineError> {
        let disk = self.0.lock();
        Ok(disk.records.get(key).map(|(text, hole, revisions)| Entry {
            key: key.clone(),
            value: splice(text.clone(), *hole, revisions.modified),
            revision_at: *hole,
            create_revision: revisions.create,
            mod_revision: revisions.modified,
        }))
    }

    fn chunks(&self, _: usize) -> u16 {
        0
    }

    fn reserve(&mut self, _: usize) -> Result<(), EngineError> {
        let mut disk = self.0.lock();
        if disk.faults.front() == Some(&Fault::NoRoom) {
            disk.faults.pop_front();
            return Err(error());
        }
        Ok(())
    }

    fn apply(&mut self, batch: &mut [Write], revision: u64) -> Result<(), EngineError> {
        let fault = self.0.lock().faults.pop_front();
        if !matches!(fault, Some(Fault::Lost | Fault::Panic)) {
            self.write(batch, revision);
        }
        while fault == Some(Fault::Hangs) && !self.0.lock().freed {
            std::thread::sleep(Duration::from_millis(1));
        }
        match fault {
            Some(Fault::Panic | Fault::PanicKept) => panic!("the test says so"),
            None | Some(Fault::Works | Fault::Hangs) => Ok(()),
            Some(_) => Err(error()),
        }
    }

    fn trim(&self, keys: &[Arc<str>]) -> Result<(), EngineError> {
        let mut disk = self.0.lock();
        disk.trimmed += keys.len();
        match disk.faults.pop_front() {
            None => Ok(()),
            Some(_) => Err(error()),
        }
    }

    fn abandon(self: Box<Self>) {}
}

/// Revision and text by key.
type Values = BTreeMap<Arc<str>, (u64, String)>;

/// Follows as the watch cache does: what it has seen already changes nothing.
#[derive(Clone, Default)]
struct Seen {
    values: Arc<Mutex<Values>>,
    /// It panics so many times.
    panics: Arc<Mutex<usize>>,
    /// The newest revision that it was told of.
    revision: Arc<Mutex<u64>>,
}

impl Follower for Seen {
    fn progressed(&mut self, revision: u64) {
        *self.revision.lock() = revision;
    }

    fn committed(&mut self, batch: Vec<Commit>) {
        for commit in batch {
            let revision = commit.revision.max(*self.revision.lock());
            *self.revision.lock() = revision;
            let mut values = self.values.lock();
            match commit.change {
                Committed::Put { value, .. } => {
                    let text = String::from_utf8(value.to_vec()).unwrap();
                    values.insert(commit.key, (commit.revision, text));
                }
                Committed::Delete => drop(values.remove(&commit.key)),
            }
            drop(values);
            let mut panics = self.panics.lock();
            if *panics > 0 {
                *panics -= 1;
                panic!("the follower panics");
            }
        }
    }
}

struct Fixture {
    disk: FakeEngine,
    seen: Seen,
    store: SledStore,
}

fn fixture() -> Fixture {
    fixture_that_waits(Duration::from_secs(20))
}

/// Of which a batch is a fault when it takes longer than this.
fn fixture_that_waits(patience: Duration) -> Fixture {
    let (disk, seen) = (FakeEngine::default(), Seen::default());
    let opener = disk.clone();
    let reopen = Box::new(move || opener.open());
    let store = SledStore::start(disk.open().unwrap(), reopen, patience, MARK_EVERY).unwrap();
    store.follow(0, Box::new(seen.clone())).unwrap();
    Fixture { disk, seen, store }
}

fn op(key: &str, expect: Expect, value: Option<&str>) -> Op {
    let change = match value {
        None => Change::Delete,
        Some(value) => Change::Put {
            value: value.as_bytes().to_vec(),
            revision_at: value.len(),
            attachment: None,
        },
    };
    Op {
        key: key.into(),
        expect,
        change,
    }
}

impl Fixture {
    async fn put(&self, key: &str, value: &str) -> Result<u64, TxnError> {
        self.store.txn(Txn::one(op(key, Expect::Any, Some(value)))).await
    }

    fn fault(&self, faults: &[Fault]) {
        self.disk.0.lock().faults.extend(faults);
    }

    /// Writes until one is taken; how many were refused.
    async fn until_taken(&self, key: &str, value: &str) -> usize {
        let began = Instant::now();
        let mut refused = 0;
        while let Err(error) = self.put(key, value).await {
            assert!(matches!(error, TxnError::Unavailable(_)), "{error}");
            assert!(self.store.health().unwrap_err().contains("the test says"));
            assert!(began.elapsed() < Duration::from_secs(20));
            refused += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        refused
    }

    fn shown(&self) -> String {
        let values = self.seen.values.lock();
        let shown: Vec<String> = values.iter().map(|(key, (_, text))| format!("{key}={text}")).collect();
        shown.join(" ")
    }

    /// What followers saw is what is stored.
    fn assert_same(&self) {
        let loaded = self.store.load().unwrap();
        let stored: Vec<String> = loaded
            .entries
            .iter()
            .map(|entry| format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)))
            .collect();
        assert_eq!(stored.join(" "), self.shown());
        assert_eq!(loaded.revision, self.store.current_revision());
        assert_eq!(loaded.revision, *self.seen.revision.lock());
    }
}

#[tokio::test]
async fn a_batch_that_is_lost_did_not_take_place_and_writes_come_back() {
    for fault in [Fault::NoRoom, Fault::Lost, Fault::Panic] {
        let own = fixture();
        assert_eq!(own.put("/a", "a").await.unwrap(), 1);
        own.fault(&[fault, fault]);
        let refused = own.put("/a", "b").await;
        assert!(
            matches!(refused, Err(TxnError::Unavailable(_))),
            "{fault:?}: {refused:?}"
        );
        assert_eq!(own.shown(), "/a=a1");
        assert!(own.until_taken("/b", "c").await > 0, "{fault:?}: writes were never off");
        assert!(own.store.health().is_ok());
        assert_eq!(own.shown(), "/a=a1 /b=c2", "{fault:?}");
        own.assert_same();
        let opened = own.disk.0.lock().opened;
        assert_eq!(opened, if fault == Fault::NoRoom { 1 } else { 3 }, "{fault:?}");
    }
}

#[tokio::test]
async fn a_batch_in_doubt_that_was_written_is_answered_and_seen() {
    for fault in [Fault::Kept, Fault::PanicKept] {
        let own = fixture();
        own.put("/a", "a").await.unwrap();
        own.put("/b", "b").await.unwrap();
        own.fault(&[fault]);
        let mut txn = Txn::one(op("/a", Expect::Revision(1), Some("c")));
        txn.ops.push(op("/b", Expect::Any, None));
        txn.ops.push(op("/d", Expect::Absent, Some("d")));
        assert_eq!(own.store.txn(txn).await.unwrap(), 3, "{fault:?}");
        assert_eq!(own.shown(), "/a=c3 /d=d3");
        own.until_taken("/a", "e").await;
        assert_eq!(own.shown(), "/a=e4 /d=d3");
        own.assert_same();
    }
}

/// What was made and removed in one batch leaves nothing behind but its revisions, which were given out.
#[tokio::test]
async fn a_batch_in_doubt_that_left_nothing_is_seen_too() {
    let own = fixture();
    own.put("/a", "a").await.unwrap();
    // While the committer is held up by a batch before, so that both are of one batch.
    let (made, removed) = {
        let mut disk = own.disk.0.lock();
        disk.faults.extend([Fault::Works, Fault::Kept]);
        drop(own.store.txn(Txn::one(op("/a", Expect::Any, Some("b")))));
        std::thread::sleep(Duration::from_millis(200));
        let made = own.store.txn(Txn::one(op("/b", Expect::Absent, Some("b"))));
        (made, own.store.txn(Txn::one(op("/b", Expect::Any, None))))
    };
    assert_eq!((made.await.unwrap(), removed.await.unwrap()), (3, 4));
    own.assert_same();
    own.until_taken("/c", "c").await;
    assert_eq!(own.shown(), "/a=b2 /c=c5");
    own.assert_same();
}

#[tokio::test]
async fn a_batch_is_unknown_while_the_engine_cannot_be_opened() {
    let own = fixture();
    own.put("/a", "a").await.unwrap();
    own.disk.0.lock().closed = 2;
    own.fault(&[Fault::Kept]);
    let unknown = own.put("/a", "b").await;
    assert!(matches!(unknown, Err(TxnError::Unknown(_))), "{unknown:?}");
    assert_eq!(own.shown(), "/a=a1", "a write in doubt is not shown");
    assert!(matches!(own.store.load(), Err(StoreError::Unavailable(_))));
    own.until_taken("/c", "c").await;
    assert_eq!(own.shown(), "/a=b2 /c=c3", "when it turns out to be there, it is");
    own.assert_same();
}

/// A disk that forgot what was acknowledged gets no writes on top: their revisions would be given out twice.
#[tokio::test]
async fn writes_stay_off_while_acknowledged_ones_are_gone() {
    let own = fixture();
    own.put("/a", "a").await.unwrap();
    own.put("/b", "b").await.unwrap();
    let lost = {
        let mut disk = own.disk.0.lock();
        disk.faults.push_back(Fault::Lost);
        disk.revision = 1;
        disk.records.remove("/b").unwrap()
    };
    let refused = own.put("/c", "c").await;
    assert!(matches!(refused, Err(TxnError::Unknown(_))), "{refused:?}");
    let opened = own.disk.0.lock().opened;
    let began = Instant::now();
    while own.disk.0.lock().opened < opened + 2 {
        assert!(began.elapsed() < Duration::from_secs(20));
        assert!(matches!(own.put("/c", "c").await, Err(TxnError::Unavailable(_))));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cause = own.store.health().unwrap_err();
    assert!(cause.contains("acknowledged writes are gone"), "{cause}");
    assert_eq!(own.shown(), "/a=a1 /b=b2");
    // The disk that has them is there again.
    {
        let mut disk = own.disk.0.lock();
        disk.revision = 2;
        disk.records.insert("/b".into(), lost);
    }
    let began = Instant::now();
    while own.put("/c", "c").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(own.shown(), "/a=a1 /b=b2 /c=c3");
    own.assert_same();
}

#[tokio::test]
async fn a_follower_that_panics_gets_the_batch_again() {
    let own = fixture();
    for panics in [1, 2] {
        *own.seen.panics.lock() = panics;
        let mut txn = Txn::one(op("/a", Expect::Any, Some("a")));
        txn.ops.push(op("/b", Expect::Any, Some("b")));
        let answer = own.store.txn(txn).await;
        // The second time the batch is handed on it panics again: the writer cannot be told that it is seen.
        assert_eq!(answer.is_ok(), panics == 1, "{answer:?}");
        let began = Instant::now();
        while own.store.health().is_err() {
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        own.assert_same();
    }
    assert_eq!(own.shown(), "/a=a2 /b=b2");
}

#[tokio::test]
async fn who_lost_against_a_batch_that_failed_is_not_told_of_a_conflict() {
    for (fault, there) in [(Fault::Lost, false), (Fault::NoRoom, false), (Fault::Kept, true)] {
        let own = fixture();
        // While the committer is held up by a batch before, so that all are of one batch.
        let answers: Vec<_> = {
            let mut disk = own.disk.0.lock();
            disk.faults.extend([Fault::Works, fault]);
            drop(own.store.txn(Txn::one(op("/before", Expect::Any, Some("b")))));
            std::thread::sleep(Duration::from_millis(200));
            (0..8)
                .map(|n| own.store.txn(Txn::one(op("/a", Expect::Absent, Some(&n.to_string())))))
                .collect()
        };
        for answer in answers {
            match answer.await {
                Err(TxnError::Conflict { actual, .. }) => {
                    let seen = own.seen.values.lock().get("/a").cloned();
                    assert_eq!(seen.map(|seen| seen.0), actual, "{fault:?}: the winner is to be seen");
                }
                Ok(_) => assert!(there, "{fault:?}"),
                Err(TxnError::Unavailable(_)) => assert!(!there, "{fault:?}"),
                Err(other) => panic!("{fault:?}: {other}"),
            }
        }
        assert_eq!(own.seen.values.lock().contains_key("/a"), there, "{fault:?}");
        own.until_taken("/z", "z").await;
        own.assert_same();
    }
}

#[tokio::test]
async fn what_waits_at_the_end_is_written_and_nothing_after_it() {
    let own = fixture();
    let answers: Vec<_> = (0..50)
        .map(|n| own.store.txn(Txn::one(op(&format!("/{n}"), Expect::Absent, Some("v")))))
        .collect();
    own.store.close();
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!(own.disk.0.lock().records.len(), 50);
    assert!(matches!(own.put("/late", "v").await, Err(TxnError::Closed)));
    assert!(own.store.health().is_err());
}

#[tokio::test]
async fn the_engines_cache_is_given_back_when_nobody_writes() {
    let own = fixture();
    let write = async |count: usize| {
        let answers: Vec<_> = (0..count)
            .map(|n| own.store.txn(Txn::one(op(&format!("/{n}"), Expect::Any, Some("v")))))
            .collect();
        for answer in answers {
            answer.await.unwrap();
        }
    };
    write(3000).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(own.disk.0.lock().trimmed, 0, "it is not worth it");
    write(3000).await;
    let began = Instant::now();
    while own.disk.0.lock().trimmed < 1024 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        began.elapsed() > Duration::from_millis(900),
        "somebody wrote a moment before"
    );
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(own.disk.0.lock().trimmed, 1024, "once");

    // An engine that fails at it is opened again as after any failure.
    write(5000).await;
    own.fault(&[Fault::Lost]);
    let began = Instant::now();
    while own.disk.0.lock().opened < 2 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    own.until_taken("/after", "v").await;
    own.assert_same();
}

#[tokio::test]
async fn what_waits_for_a_disk_that_hangs_is_bounded() {
    let own = fixture();
    own.fault(&[Fault::Hangs]);
    let value = "v".repeat(1024 * 1024);
    let first = own.store.txn(Txn::one(op("/first", Expect::Any, Some(&value))));
    // One batch is with the disk, 64 MiB wait.
    let mut taken = Vec::new();
    let refused = loop {
        let key = format!("/{}", taken.len());
        let mut answer = own.store.txn(Txn::one(op(&key, Expect::Any, Some(&value))));
        match tokio::time::timeout(Duration::ZERO, &mut answer).await {
            Err(_) => taken.push(answer),
            Ok(refused) => break refused,
        }
        assert!(taken.len() < 100);
    };
    assert!(matches!(refused, Err(TxnError::Overloaded)), "{refused:?}");
    own.disk.0.lock().freed = true;
    first.await.unwrap();
    for answer in taken {
        answer.await.unwrap();
    }
    own.put("/after", "v").await.unwrap();
    own.assert_same();
}

#[tokio::test]
async fn a_disk_that_hangs_is_told_at_once() {
    let own = fixture_that_waits(Duration::from_millis(50));
    own.fault(&[Fault::Hangs]);
    let first = own.store.txn(Txn::one(op("/first", Expect::Any, Some("v"))));
    while own.store.health().is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = tokio::time::timeout(Duration::from_secs(5), own.put("/second", "v")).await;
    assert!(matches!(refused, Ok(Err(TxnError::Unavailable(_)))), "{refused:?}");
    own.disk.0.lock().freed = true;
    first.await.unwrap();
    // It is told that the batch is over when its writers have been answered.
    let began = Instant::now();
    while own.put("/third", "v").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    own.assert_same();
}

#[tokio::test]
async fn how_far_it_has_come_is_noted_now_and_then_and_at_the_end() {
    let own = fixture();
    for n in 0..50 {
        own.put("/a", &n.to_string()).await.unwrap();
    }
    assert!(own.disk.0.lock().marks.len() <= 2, "with each batch");
    let began = Instant::now();
    // Also when nobody writes any more, and once.
    while own.disk.0.lock().marks.last() != Some(&(50, false)) {
        assert!(began.elapsed() < Duration::from_secs(20), "no mark");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let marks = own.disk.0.lock().marks.len();
    tokio::time::sleep(3 * MARK_EVERY).await;
    assert_eq!(own.disk.0.lock().marks.len(), marks, "of what was noted");
    own.store.close();
    assert_eq!(own.disk.0.lock().marks.last(), Some(&(50, true)));
}
