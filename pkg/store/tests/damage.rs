//! A database that is no longer what it was is refused, and left as it is: never taken for a smaller or an empty one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mk8s_store::{Change, EngineError, Expect, Op, SledStore, Store, StoreError, Terms, Txn, TxnError};

fn terms(begins: bool) -> Terms {
    Terms {
        begins,
        owner: "sha256:one".into(),
        ..Terms::default()
    }
}

fn op(key: &str, size: usize) -> Op {
    Op {
        key: Arc::from(key),
        expect: Expect::Any,
        change: Change::Put {
            value: format!("{key} {}", "x".repeat(size)).into_bytes(),
            revision_at: 0,
            attachment: None,
        },
    }
}

async fn put(store: &SledStore, key: &str, size: usize) {
    store.txn(Txn::one(op(key, size))).await.unwrap();
}

/// A store with some objects, that was stopped.
async fn made(dir: &Path) {
    let store = SledStore::open_on(dir, terms(true)).unwrap();
    for n in 0..300 {
        put(&store, &format!("/registry/{n}"), 2000 + n * 10).await;
    }
    store.close();
}

/// Every file below a folder.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// What is said to a start with this store.
fn refusal(dir: &Path, terms: Terms) -> String {
    let before = files(dir);
    let error = SledStore::open_on(dir, terms).err().expect("it was opened");
    assert!(
        matches!(error, StoreError::Engine(EngineError::Refused { .. })),
        "{error}"
    );
    assert!(files(dir) == before, "what is there was touched");
    error.to_string()
}

fn garbage(dir: &Path, at: u64, length: usize) {
    let mut state = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    let bytes: Vec<u8> = bytes.take(length).collect();
    let log = File::options().write(true).open(dir.join("db")).unwrap();
    log.write_all_at(&bytes, at).unwrap();
}

fn length(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("db")).unwrap().len()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
}

#[tokio::test]
async fn one_that_is_cut_or_emptied_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path()).await;
    let whole = tempfile::tempdir().unwrap();
    copy(dir.path(), whole.path());
    let log = || File::options().write(true).open(dir.path().join("db")).unwrap();
    let full = length(dir.path());
    for left in [0, 1, 100_000, 200_000, full / 2, full - 150_000] {
        log().set_len(left).unwrap();
        for begins in [false, true] {
            let said = refusal(dir.path(), terms(begins));
            assert!(said.contains("copy") && said.contains("mk8s reset"), "{left}: {said}");
        }
        copy(whole.path(), dir.path());
    }
    // Put back it is what it was.
    let store = SledStore::open_on(dir.path(), terms(false)).unwrap();
    assert_eq!(store.load().unwrap().entries.len(), 300);
}

#[tokio::test]
async fn one_that_is_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    assert!(refusal(&db, terms(false)).contains("holds no database"));
    assert!(!db.exists(), "a folder was made");
    made(&db).await;
    std::fs::remove_file(db.join("db")).unwrap();
    for begins in [false, true] {
        assert!(refusal(&db, terms(begins)).contains("holds no database"));
    }
    // An empty one without a mark is not one that was in use.
    std::fs::remove_file(db.join("mark")).unwrap();
    File::create(db.join("db")).unwrap();
    assert!(refusal(&db, terms(false)).contains("holds an empty database"));
}

#[tokio::test]
async fn another_one_in_its_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
    made(&one).await;
    let store = SledStore::open_on(
        &other,
        Terms {
            owner: "sha256:other".into(),
            ..Terms::default()
        },
    )
    .unwrap();
    for n in 0..500 {
        put(&store, &format!("/registry/{n}"), 1000).await;
    }
    store.close();
    assert!(refusal(&other, terms(false)).contains("another cluster's"));
    // Its log alone.
    for name in files(&one).keys() {
        if name.file_name().unwrap() != "mark" {
            std::fs::remove_file(name).unwrap();
        }
    }
    for (path, bytes) in files(&other) {
        let name = path.file_name().unwrap();
        if name != "mark" {
            std::fs::write(one.join(name), bytes).unwrap();
        }
    }
    assert!(refusal(&one, terms(false)).contains("another database"));
}

#[tokio::test]
async fn an_older_copy_is_taken_with_its_mark_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [db, old] = ["db", "old"].map(|name| dir.path().join(name));
    made(&db).await;
    copy(&db, &old);
    let store = SledStore::open_on(&db, terms(false)).unwrap();
    put(&store, "/registry/new", 10).await;
    store.close();
    let newest = std::fs::read(db.join("mark")).unwrap();
    std::fs::remove_dir_all(&db).unwrap();
    copy(&old, &db);
    std::fs::write(db.join("mark"), newest).unwrap();
    let said = refusal(&db, terms(false));
    assert!(said.contains("up to revision 300, and there were 301"), "{said}");
    // With its own, or where the operator says so.
    copy(&old, &db);
    SledStore::open_on(&db, terms(false)).unwrap().close();
    std::fs::remove_file(db.join("mark")).unwrap();
    SledStore::open_on(&db, terms(false)).unwrap().close();
    std::fs::write(db.join("mark"), "nonsense").unwrap();
    assert!(refusal(&db, terms(false)).contains("`mark`"));
}

/// Wherever the garbage is: refused, or nothing is missing (it hit what was not in use).
#[tokio::test]
async fn one_with_garbage_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    made(&whole).await;
    let store = SledStore::open_on(&whole, terms(false)).unwrap();
    for n in 0..300 {
        put(&store, &format!("/registry/{}", n * 7 % 300), 3000).await;
    }
    let expected = store.load().unwrap();
    store.close();
    let full = length(&whole);
    let mut refused = 0;
    let places: Vec<u64> = (0..40).map(|n| full * n / 40).collect();
    for at in &places {
        for size in [20_480, 200] {
            let db = dir.path().join("db");
            copy(&whole, &db);
            garbage(&db, *at, size);
            let before = files(&db);
            match SledStore::open_on(&db, terms(false)) {
                Err(StoreError::Engine(EngineError::Refused { .. })) => {
                    refused += 1;
                    assert!(files(&db) == before, "at {at} of {full}: it was touched");
                }
                Err(other) => panic!("at {at} of {full}: {other}"),
                Ok(store) => {
                    let found = store.load().unwrap();
                    let same = found.entries.iter().zip(&expected.entries).all(|(one, other)| {
                        one.key == other.key && one.value == other.value && one.mod_revision == other.mod_revision
                    });
                    assert!(
                        same && found.entries.len() == expected.entries.len(),
                        "at {at} of {full}"
                    );
                    assert_eq!(found.revision, expected.revision);
                }
            }
            std::fs::remove_dir_all(&db).unwrap();
        }
    }
    println!("{refused} of {} refused", places.len() * 2);
    assert!(refused >= places.len() / 2, "{refused} of {}", places.len() * 2);
}

/// The system keeps a file that is removed while it is open, and what is written into it, until the store is closed.
#[tokio::test]
async fn one_that_is_taken_away_while_it_runs_takes_no_more_writes() {
    let dir = tempfile::tempdir().unwrap();
    let [db, elsewhere] = ["db", "elsewhere"].map(|name| dir.path().join(name));
    let often = Terms {
        mark_every: Duration::from_millis(50),
        ..terms(true)
    };
    let store = SledStore::open_on(&db, often).unwrap();
    put(&store, "/registry/a", 10).await;
    std::fs::rename(&db, &elsewhere).unwrap();
    let began = Instant::now();
    let mut acknowledged = 1;
    while store.health().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
        if let Ok(revision) = store.txn(Txn::one(op(&format!("/registry/{acknowledged}"), 10))).await {
            acknowledged = revision;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = store.txn(Txn::one(op("/registry/b", 10))).await;
    assert!(matches!(refused, Err(TxnError::Unavailable(_))));
    assert_eq!(
        store
            .load()
            .err()
            .map(|error| matches!(error, StoreError::Unavailable(_))),
        Some(true)
    );
    assert!(!db.exists(), "a new one was made");
    // Put back it goes on by itself.
    std::fs::rename(&elsewhere, &db).unwrap();
    while store.health().is_err() {
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    put(&store, "/registry/b", 10).await;
    assert!(store.current_revision() > acknowledged);
}
