//! Answers recorded from upstream's kube-apiserver, against mk8s's: each area is a file of requests with the answer that
//! upstream gave (`hack/update-golden.sh` records them), sent in order to a server of its own that has just started. A
//! difference fails unless differences.tsv lists it with its reason; so does a row there that no difference is left for.
//!
//! `GOLDEN_WRITE=1` takes such rows away instead, adds those that are missing, with the reason `?`, to be filled in, and pins
//! what stands at each place.
//! `GOLDEN_ALL=1` prints all differences, not the first forty.
#![allow(clippy::unwrap_used)]

mod compare;
mod differences;
#[path = "../../../pkg/apiserver/tests/harness/mod.rs"]
mod harness;
mod mask;
mod pair;
mod replay;

use std::path::{Path, PathBuf};

use differences::Differences;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/api/golden")
}

/// An area's pairs, replayed.
fn area(name: &str) {
    let text = std::fs::read_to_string(folder().join(format!("{name}.jsonl"))).unwrap();
    let pairs: Vec<pair::Pair> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let found = runtime.block_on(replay::run(&pairs));
    let result = Differences::judge(name, &pairs, found);
    assert!(result.is_empty(), "{result}");
}

macro_rules! areas {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            area(stringify!($name));
        })*

        #[test]
        fn every_recorded_area_is_replayed() {
            let mut recorded: Vec<String> = std::fs::read_dir(folder())
                .unwrap()
                .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".jsonl")?.to_string()))
                .collect();
            recorded.sort();
            assert_eq!(recorded, [$(stringify!($name)),*]);
        }
    };
}

areas! {
    admission
    bodies
    cluster
    columns
    config
    custom
    definitions
    devices
    discovery
    encodings
    flows
    lists
    managers
    network
    parts
    paths
    pods
    proxy
    ranges
    rbac
    reading
    removed
    requests
    storage
    versions
    workloads
}
