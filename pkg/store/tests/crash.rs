//! A child writes from many tasks until it is killed with SIGKILL, or the power of its disk goes, at random moments; each
//! time every acknowledged write is there, revisions are in order and no transaction is half there. A kill alone does not
//! show a write that was never synced: the system still has it.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's own threads and tasks")]

mod disk;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mk8s_store::{Change, Expect, Op, SledStore, Store, Terms, Txn};

const CHILD_DIR: &str = "MK8S_STORE_CRASH_CHILD";
const WRITERS: u64 = 16;

fn value(writer: u64, n: u64) -> Vec<u8> {
    // Sizes from a few bytes to several chunks.
    let filler =
        "x".repeat(((writer * 7919 + n * 104_729) % 1500) as usize * if n.is_multiple_of(97) { 100 } else { 1 });
    format!("\"\" {writer} {n} {filler}|end").into_bytes()
}

/// Not a test of its own: the body of the child process.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Marked so often that most ends come a moment after a mark, some in the middle of one.
        let terms = Terms {
            mark_every: Duration::from_millis(3),
            ..Terms::default()
        };
        let store = Arc::new(SledStore::open_on(dir.as_ref(), terms).unwrap());
        let mut next = HashMap::new();
        for entry in store.load().unwrap().entries {
            let text = String::from_utf8_lossy(&entry.value).into_owned();
            let fields: Vec<&str> = text.split(' ').collect();
            next.insert(fields[1].parse::<u64>().unwrap(), fields[2].parse::<u64>().unwrap() + 1);
        }
        let tasks = (0..WRITERS).map(|writer| {
            let (store, mut n) = (store.clone(), next.get(&writer).copied().unwrap_or(0));
            tokio::spawn(async move {
                loop {
                    let ops = ["left", "right"].map(|side| Op {
                        key: Arc::from(format!("/{side}/{writer}")),
                        expect: Expect::Any,
                        change: Change::Put {
                            value: value(writer, n),
                            revision_at: 1,
                            attachment: None,
                        },
                    });
                    let revision = store
                        .txn(Txn {
                            ops: ops.into_iter().collect(),
                        })
                        .await
                        .unwrap();
                    // One write: a line is whole or absent.
                    let _ = std::io::stderr().write_all(format!("ack {writer} {n} {revision}\n").as_bytes());
                    n += 1;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            let _ = task.await;
        }
    });
}

type Acknowledged = HashMap<u64, (u64, u64)>;

/// One child's life: it writes in `dir` until `end` ends that some time after its first write; how many were acknowledged.
fn live(dir: &Path, round: u64, acknowledged: &mut Acknowledged, end: impl FnOnce() + Send) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // The clock runs from the first acknowledgement, so that every round ends a writing child.
    let mut acks: Vec<String> = lines.next().transpose().unwrap().into_iter().collect();
    let delay = Duration::from_micros((round * 7919) % 40_000);
    std::thread::scope(|scope| {
        let killer = scope.spawn(move || {
            std::thread::sleep(delay);
            end();
            child.kill().unwrap();
            child.wait().unwrap();
        });
        acks.extend(lines.map_while(Result::ok));
        killer.join().unwrap();
    });
    let mut total = 0;
    // When its disk is gone the child may say more than that.
    for ack in acks.iter().filter_map(|line| line.strip_prefix("ack ")) {
        let fields: Vec<&str> = ack.split(' ').collect();
        let [writer, n, revision] = [0, 1, 2].map(|at| fields[at].parse::<u64>().unwrap());
        acknowledged.insert(writer, (n, revision));
        total += 1;
    }
    assert!(total > 0, "the child failed: {acks:?}");
    total
}

fn rounds(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |rounds| rounds.parse().unwrap())
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let rounds = rounds("MK8S_CRASH_ROUNDS", 500);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut total = 0;
    for round in 0..rounds {
        total += live(dir.path(), round, &mut acknowledged, || {});
        verify(dir.path(), &mut acknowledged, round);
    }
    println!("{rounds} kills, {total} acknowledged transactions, none lost");
    assert!(total > rounds, "the child hardly wrote");
}

/// Needs root: a file system of its own, which is shut down under the child, as it is when the power goes.
#[test]
fn acknowledged_writes_survive_a_power_cut() {
    let rounds = rounds("MK8S_POWER_CUTS", 20);
    let disk = disk::Disk::new("ext4", 256);
    let dir = disk.path().join("db");
    let mut acknowledged = Acknowledged::new();
    let mut total = 0;
    for round in 0..rounds {
        total += live(&dir, round, &mut acknowledged, || disk.cut_power());
        disk.unmount();
        disk.mount();
        verify(&dir, &mut acknowledged, round);
    }
    println!("{rounds} power cuts, {total} acknowledged transactions, none lost");
    assert!(total > rounds, "the child hardly wrote");
}

fn verify(dir: &Path, acknowledged: &mut Acknowledged, round: u64) {
    let store = SledStore::open(dir).unwrap();
    let entries: HashMap<String, _> = store
        .load()
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| (entry.key.to_string(), entry))
        .collect();
    for (writer, (n, revision)) in acknowledged.iter_mut() {
        let [left, right] = ["left", "right"].map(|side| {
            let key = format!("/{side}/{writer}");
            entries.get(&key).unwrap_or_else(|| {
                let kept = entries.keys().collect::<Vec<_>>();
                panic!(
                    "round {round}: {key}, acknowledged at {revision}, is gone; {} holds {kept:?}",
                    dir.display()
                )
            })
        });
        assert_eq!(
            left.value, right.value,
            "round {round}: a transaction of writer {writer} is half there"
        );
        assert!(
            left.mod_revision >= *revision,
            "round {round}: writer {writer} lost revision {revision}"
        );
        let text = String::from_utf8_lossy(&left.value).into_owned();
        let found: u64 = text.split(' ').nth(2).unwrap().parse().unwrap();
        assert!(
            found == *n || found == *n + 1,
            "round {round}: writer {writer} acknowledged {n}, found {found}"
        );
        let mut whole = value(*writer, found);
        let digits = left.mod_revision.to_string();
        whole.splice(1..1, digits.into_bytes());
        assert!(left.value == whole, "round {round}: a value is damaged");
        assert!(store.current_revision() >= left.mod_revision);
        // What is found may be one write ahead of its acknowledgement; from here on it is what must stay.
        (*n, *revision) = (found, left.mod_revision);
    }
}
