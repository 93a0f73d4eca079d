//! A disk that fills up under the store, for real: writes are refused with the cause and nothing is lost; when there is
//! room again writes are taken again, by the same process.
#![allow(clippy::unwrap_used)]

mod disk;

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use disk::Disk;
use mk8s_store::{Change, Expect, Op, SledStore, Store, Terms, Txn, TxnError};

async fn put(store: &SledStore, n: u64) -> Result<u64, TxnError> {
    let op = Op {
        key: format!("/key/{}", n % 300).into(),
        expect: Expect::Any,
        change: Change::Put {
            value: format!("{n} {}", "x".repeat(20_000)).into_bytes(),
            revision_at: 0,
            attachment: None,
        },
    };
    store.txn(Txn::one(op)).await
}

async fn fills_up_and_heals(kind: &'static str) {
    let disk = Disk::new(kind, 64);
    let dir = disk.path().join("db");
    let store = SledStore::open(&dir).unwrap();
    let mut written = BTreeMap::new();
    let mut n = 0;
    for round in 0..3 {
        for _ in 0..50 {
            n += 1;
            written.insert(n % 300, (put(&store, n).await.unwrap(), n));
        }
        let filler = disk.fill();
        // What is claimed already may take some more.
        let refused = loop {
            n += 1;
            match put(&store, n).await {
                Ok(revision) => written.insert(n % 300, (revision, n)),
                Err(error) => break error,
            };
            assert!(n < 10_000, "{kind}: the disk is never full");
        };
        assert!(
            matches!(refused, TxnError::Unavailable(_) | TxnError::Unknown(_)),
            "{kind}: {refused}"
        );
        let cause = store.health().unwrap_err();
        assert!(
            cause.to_lowercase().contains("no space"),
            "{kind}, round {round}: {cause}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(store.health().is_err(), "{kind}: healed while the disk is full");

        std::fs::remove_file(filler).unwrap();
        let began = Instant::now();
        while store.health().is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{kind}: {:?}",
                store.health()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What was in doubt may be there: write it again.
        written.insert(n % 300, (put(&store, n).await.unwrap(), n));
    }
    store.close();
    let loaded = SledStore::open(&dir).unwrap().load().unwrap();
    assert_eq!(loaded.entries.len(), written.len(), "{kind}");
    for entry in loaded.entries {
        let key: u64 = entry.key.trim_start_matches("/key/").parse().unwrap();
        let (revision, n) = written[&key];
        assert_eq!(entry.mod_revision, revision, "{kind}: {}", entry.key);
        assert!(
            entry.value.starts_with(format!("{revision}{n} ").as_bytes()),
            "{kind}: {}",
            entry.key
        );
    }
}

#[tokio::test]
async fn a_full_disk_heals_where_room_is_claimed() {
    fills_up_and_heals("ext4").await;
}

/// Where it cannot be claimed sled runs into it, and has to be opened again.
#[tokio::test]
async fn a_full_disk_heals_where_no_room_can_be_claimed() {
    fills_up_and_heals("ext3").await;
}

/// A start may be what makes room: there a copy to check is not insisted on.
#[tokio::test]
async fn a_store_opens_where_there_is_no_room_for_a_copy() {
    let disk = Disk::new("ext4", 64);
    let dir = disk.path().join("db");
    let open = || {
        SledStore::open_on(
            &dir,
            Terms {
                begins: false,
                ..Terms::default()
            },
        )
    };
    let store = SledStore::open(&dir).unwrap();
    for n in 0..300 {
        put(&store, n).await.unwrap();
    }
    store.close();
    drop(store);
    let mark = std::fs::read(dir.join("mark")).unwrap();
    let filler = File::options().write(true).open(disk.fill()).unwrap();
    let length = filler.metadata().unwrap().len();
    filler.set_len(length - (2 << 20)).unwrap();
    filler.sync_all().unwrap();
    let store = open().unwrap();
    assert_eq!(store.load().unwrap().entries.len(), 300);
    store.close();
    drop(store);
    // What it then does not hold is still missed.
    let mark = String::from_utf8(mark).unwrap().replace("revision 300", "revision 400");
    std::fs::write(dir.join("mark"), mark).unwrap();
    let refused = open().err().unwrap().to_string();
    assert!(refused.contains("lost acknowledged writes"), "{refused}");
}
