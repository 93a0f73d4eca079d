//! Data as format 1 left it, converted: whole, and broken off by a kill after each step.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::engine::sled::{CHUNK_BYTES, FORMAT, FORMAT_KEY};
use crate::{Entry, SledStore, Store, Terms};

const CHILD_DIR: &str = "MK8S_STORE_CONVERT_CHILD";
const CHILD_STEPS: &str = "MK8S_STORE_CONVERT_STEPS";
const OBJECTS: u64 = 120;

/// An object's text with a revision; every tenth is of several records, and all have texts that only look like their
/// revision: in a string, in a member before metadata, and inside of metadata.
fn text(n: u64, revision: u64) -> Vec<u8> {
    let filler = "y".repeat(if n.is_multiple_of(10) { 150_000 } else { n as usize });
    let look = format!(r#""resourceVersion":"{revision}""#);
    let escaped = look.replace('"', "\\\"");
    format!(
        r#"{{"aaa":{{{look}}},"data":{{"a":"{escaped}","b":"{filler}","n":[1,{{{look}}},-2.5e3,null]}},"kind":"Foo","metadata":{{"annotations":{{{look}}},"name":"n{n}","resourceVersion":"{revision}","uid":"u"}}}}"#
    )
    .into_bytes()
}

fn key(n: u64) -> String {
    format!("/registry/example.org/foos/d/n{n}")
}

/// Writes the layout of format 1.
fn write_format1(dir: &Path) {
    let db = ::sled::Config::new().path(dir).flush_every_ms(None).open().unwrap();
    let mut batch = ::sled::Batch::default();
    batch.insert(FORMAT_KEY, &1u64.to_be_bytes());
    batch.insert(b"m/revision", &(OBJECTS + 7).to_be_bytes());
    for n in 1..=OBJECTS {
        let text = text(n, n);
        let chunks: Vec<&[u8]> = text.chunks(CHUNK_BYTES).collect();
        let mut record = Vec::new();
        record.extend_from_slice(&(n / 2).to_be_bytes());
        record.extend_from_slice(&n.to_be_bytes());
        record.extend_from_slice(&(chunks.len() as u16 - 1).to_be_bytes());
        record.extend_from_slice(chunks[0]);
        batch.insert([b"o", key(n).as_bytes()].concat(), record);
        for (number, chunk) in chunks.iter().enumerate().skip(1) {
            batch.insert(numbered(CHUNK, &key(n), number as u16 - 1), *chunk);
        }
    }
    db.apply_batch(batch).unwrap();
    db.flush().unwrap();
}

fn check(dir: &Path) {
    // As after an update: it has to be there.
    let terms = Terms {
        begins: false,
        ..Terms::default()
    };
    let store = SledStore::open_on(dir, terms).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.revision, OBJECTS + 7);
    assert_eq!(loaded.entries.len() as u64, OBJECTS);
    for n in 1..=OBJECTS {
        let name = key(n);
        let Entry {
            value,
            revision_at,
            create_revision,
            mod_revision,
            ..
        } = loaded.entries.iter().find(|entry| *entry.key == name).unwrap();
        assert!(*value == text(n, n), "{name}");
        assert_eq!((*create_revision, *mod_revision), (n / 2, n));
        let before = &value[..*revision_at];
        assert!(
            before.ends_with(format!(r#""name":"n{n}","resourceVersion":""#).as_bytes()),
            "{name}"
        );
    }
    store.close();
    drop(store);
    drop(super::super::sled::lock(&dir.join("db")));
    // Nothing of the old format is left, and its readers refuse the data.
    let db = ::sled::Config::new().path(dir).flush_every_ms(None).open().unwrap();
    assert_eq!(db.get(FORMAT_KEY).unwrap().unwrap(), &FORMAT.to_be_bytes());
    for old in [OBJECT, CHUNK] {
        assert_eq!(db.scan_prefix([old]).count(), 0);
    }
}

/// Not a test of its own: converts, and kills itself after the given number of steps.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let mut left: usize = std::env::var(CHILD_STEPS).unwrap().parse().unwrap();
    let mut engine = SledEngine::bare(dir.as_ref()).unwrap();
    let converted = convert(&mut engine, &mut |_| {
        left -= 1;
        if left == 0 {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    });
    converted.unwrap();
}

/// Begins a conversion that kills itself after so many steps.
fn begin(dir: &Path, steps: usize) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "engine::format1::tests::child", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_STEPS, steps.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    child.spawn().unwrap()
}

#[test]
fn format_1_is_converted_whenever_it_is_killed() {
    let mut kills = 0;
    for steps in 1.. {
        let dir = tempfile::tempdir().unwrap();
        write_format1(dir.path());
        let whole = begin(dir.path(), steps).wait().unwrap().success();
        check(dir.path());
        if whole {
            break;
        }
        kills += 1;
    }
    assert!(kills > 5, "only {kills} steps");

    // Killed again and again, each time after its first batch.
    let dir = tempfile::tempdir().unwrap();
    write_format1(dir.path());
    for _ in 0..kills {
        begin(dir.path(), 2).wait().unwrap();
    }
    check(dir.path());
}

/// Between its steps too.
#[test]
fn a_conversion_that_is_killed_at_any_moment_goes_on() {
    let mut dir = tempfile::tempdir().unwrap();
    write_format1(dir.path());
    let mut killed = 0;
    for round in 0..100 {
        let mut child = begin(dir.path(), usize::MAX);
        std::thread::sleep(Duration::from_micros(round * 7919 % 60_000));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            check(dir.path());
            dir = tempfile::tempdir().unwrap();
            write_format1(dir.path());
        } else {
            killed += 1;
        }
    }
    assert!(killed > 10, "only {killed} were killed");
    check(dir.path());
}

#[test]
fn an_object_that_cannot_be_converted_is_named_and_nothing_touched() {
    let dir = tempfile::tempdir().unwrap();
    write_format1(dir.path());
    drop(super::super::sled::lock(&dir.path().join("db")));
    let db = ::sled::Config::new()
        .path(dir.path())
        .flush_every_ms(None)
        .open()
        .unwrap();
    let record = [&[0; HEADER][..], br#"{"metadata":{"name":"x"},"resourceVersion":"0"}"#].concat();
    db.insert(b"o/registry/core/pods/d/x", record).unwrap();
    drop(db);
    let error = SledStore::open(dir.path())
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(error.contains("/registry/core/pods/d/x"), "{error}");
    // The version that wrote it still reads all of it.
    drop(super::super::sled::lock(&dir.path().join("db")));
    let db = ::sled::Config::new()
        .path(dir.path())
        .flush_every_ms(None)
        .open()
        .unwrap();
    assert_eq!(db.get(FORMAT_KEY).unwrap().unwrap(), &1u64.to_be_bytes());
    assert_eq!(db.scan_prefix([OBJECT]).count() as u64, OBJECTS + 1);
}
