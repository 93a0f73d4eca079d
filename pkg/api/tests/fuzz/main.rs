//! The decoders against a corpus and seeded mutations of it: MK8S_FUZZ_SECONDS for each (1 where it is not set). A failure
//! prints the input; the seed is the same each time, so that it comes again. MK8S_FUZZ_DUMP=DIR writes the corpus for
//! hack/fuzz.sh instead.
#![allow(clippy::unwrap_used)]

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use base64::Engine as _;
use mutate::{Random, mutate};
use serde_json::Value;
use targets::{TARGETS, Target};

/// Committed lines, and the objects and patches that upstream's own types filled.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let objects = || {
        include_str!("../fixtures/objects.tsv")
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
    };
    let text = |cells: Vec<&str>| cells[2].as_bytes().to_vec();
    let lines = |all: &str| all.lines().map(|line| line.as_bytes().to_vec()).collect();
    match target {
        "protobuf" => objects()
            .map(|cells| base64::engine::general_purpose::STANDARD.decode(cells[3]).unwrap())
            .collect(),
        "json" => objects().map(text).collect(),
        "yaml" => include_str!("corpus/yaml.txt")
            .split("\n---\n")
            .map(|document| document.as_bytes().to_vec())
            .collect(),
        "apply" => objects()
            .map(|cells| [cells[2], cells[2]].join("\n").into_bytes())
            .chain(
                include_str!("corpus/apply.txt")
                    .lines()
                    .map(|line| line.replace('\t', "\n").into_bytes()),
            )
            .collect(),
        "patch" => include_str!("../fixtures/patches.tsv")
            .lines()
            .map(|line| line.splitn(3, '\t').take(2).collect::<Vec<_>>().join("\n").into_bytes())
            .chain(
                include_str!("corpus/patch.txt")
                    .lines()
                    .map(|line| line.replace('\t', "\n").into_bytes()),
            )
            .collect(),
        // A definition, and an object of it.
        "definition" => include_str!("../custom.jsonl")
            .lines()
            .filter_map(|line| {
                let case: Value = serde_json::from_str(line).ok()?;
                match (case.get("schema"), case.get("object"), case.get("crd")) {
                    (Some(schema), Some(object), _) => Some(format!("{schema}\n{object}").into_bytes()),
                    (.., Some(definition)) => Some(format!("{definition}\n{{}}").into_bytes()),
                    _ => None,
                }
            })
            .collect(),
        "rule" => include_str!("../../../cel/tests/expressions.jsonl")
            .lines()
            .filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?.get("expr")?.as_str()?.into()))
            .collect(),
        "selectors" => lines(include_str!("corpus/selectors.txt")),
        "quantity" => lines(include_str!("corpus/quantity.txt")),
        other => panic!("no corpus for {other}"),
    }
}

fn run(name: &str, target: Target) {
    let corpus = corpus(name);
    if let Ok(directory) = std::env::var("MK8S_FUZZ_DUMP") {
        let directory = std::path::Path::new(&directory).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        for (index, input) in corpus.iter().enumerate() {
            std::fs::write(directory.join(index.to_string()), input).unwrap();
        }
        return;
    }
    let tried = |input: &[u8]| {
        let text = String::from_utf8_lossy(input).into_owned();
        assert!(
            catch_unwind(AssertUnwindSafe(|| target(input))).is_ok(),
            "{name} fails on {input:?}\nas text: {text}"
        );
    };
    corpus.iter().for_each(|input| tried(input));
    let seconds = std::env::var("MK8S_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    while Instant::now() < end {
        let mut input = corpus[random.below(corpus.len())].clone();
        mutate(&mut input, &corpus, &mut random);
        tried(&input);
    }
}

macro_rules! each {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            run(stringify!($name), targets::$name);
        }
    )* };
}

each!(protobuf json yaml patch apply selectors quantity definition rule);

#[test]
fn every_target_runs() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "protobuf",
            "json",
            "yaml",
            "patch",
            "apply",
            "selectors",
            "quantity",
            "definition",
            "rule"
        ]
    );
}
