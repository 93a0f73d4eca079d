//! How the time that an object takes grows with its lists and maps: each of a full object of each kind is made long, alone
//! and together with each other one, and four times as long again. What compares all items with all is told apart from
//! what goes through them once by that alone, whichever check it is.
//!
//! `cargo test -p mk8s-api --test growth -- --ignored` (MK8S_GROWTH=pod for some kinds; MK8S_GROWTH_PAIRS=1 for pairs too,
//! which takes hours where it is not built with --release).
#![allow(clippy::unwrap_used)]

use mk8s_api::registry;
use mk8s_api::{meta, validation};
use serde_json::{Map, Value};

/// Items of a list, and how many times as many then.
const ITEMS: usize = 1500;
const TIMES: usize = 4;

/// What n log n may come to, with what caches do; n × n comes to 16.
const MOST: f64 = 9.0;

/// Processor time (ns) that is too short to tell anything.
const SHORT: u64 = 60_000_000;

/// Maps of which keys may be anything.
const MAPS: [&str; 11] = [
    "annotations",
    "labels",
    "matchLabels",
    "nodeSelector",
    "data",
    "stringData",
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "attributes",
];

/// What items are told apart by.
const NAMES: [&str; 9] = [
    "name",
    "key",
    "uid",
    "type",
    "id",
    "driver",
    "topologyKey",
    "volumeName",
    "containerPort",
];

/// The lists and maps of an object that are not empty.
fn growing(value: &Value, pointer: &str, found: &mut Vec<String>) {
    let mut below = |step: &str, value: &Value| {
        let step = step.replace('~', "~0").replace('/', "~1");
        growing(value, &format!("{pointer}/{step}"), found);
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            below("0", &items[0]);
            found.push(pointer.to_string());
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| below(key, value));
            let name = pointer.rsplit('/').next().unwrap_or_default();
            if MAPS.contains(&name) && !map.is_empty() {
                found.push(pointer.to_string());
            }
        }
        _ => {}
    }
}

/// One item as the nth of many: another one, or (`same`) the same again.
fn nth(item: &Value, n: usize, same: bool) -> Value {
    let mut item = item.clone();
    match &mut item {
        _ if same => {}
        Value::String(text) => text.push_str(&n.to_string()),
        Value::Object(map) => {
            for (key, value) in map.iter_mut().filter(|(key, _)| NAMES.contains(&key.as_str())) {
                match value {
                    Value::String(text) => text.push_str(&n.to_string()),
                    Value::Number(_) if key == "containerPort" => *value = (n % 65_536).into(),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    item
}

fn grown(object: &Value, pointers: &[&str], items: usize, same: bool) -> Value {
    let mut object = object.clone();
    for pointer in pointers {
        let Some(place) = object.pointer_mut(pointer) else {
            continue;
        };
        match place {
            Value::Array(list) => {
                let own = list.clone();
                list.extend((0..items).map(|n| nth(&own[n % own.len()], n, same)));
            }
            Value::Object(map) => {
                let own: Map<String, Value> = map.clone();
                let (key, value) = own.iter().next().unwrap();
                map.extend((0..items).map(|n| (format!("{key}{n}"), value.clone())));
            }
            _ => {}
        }
    }
    object
}

/// Processor time of this thread, in ns.
fn spent() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// What all that is done with an object that is written takes.
fn cost(object: &Value) -> u64 {
    let (group, version) = meta::split_api_version(meta::string(object, &["apiVersion"]));
    let row = registry::find_kind(group, version, meta::string(object, &["kind"])).unwrap();
    let stored = row.stored();
    let mut new = object.clone();
    let begun = spent();
    (stored.default)(&mut new);
    row.prepare_create(&mut new);
    validation::create(row, stored, &new);
    validation::warnings(row, &new, None);
    let mut changed = new.clone();
    row.prepare_update(&mut changed, &new);
    validation::update(row, stored, &changed, &new, &mut Vec::new());
    let mut changed = new.clone();
    row.prepare_status(&mut changed, &new);
    validation::update_status(row, stored, &changed, &new, &mut Vec::new());
    spent() - begun
}

/// What is wrong with how the cost grows with these: seen twice, for what else the machine did meanwhile.
fn out_of_proportion(name: &str, object: &Value, pointers: &[&str]) -> Option<String> {
    [false, true].into_iter().find_map(|same| {
        let (less, more) = (
            grown(object, pointers, ITEMS, same),
            grown(object, pointers, ITEMS * TIMES, same),
        );
        let growth = || {
            let most = cost(&more);
            (most > SHORT).then(|| most as f64 / cost(&less) as f64)
        };
        let times = growth().filter(|times| *times > MOST)?.min(growth()?);
        (times > MOST).then(|| format!("{name} {pointers:?}, all the same: {same}: {times:.0} times as long"))
    })
}

/// Whether one is part of the other: both long would be their product, which is more than a request may be.
fn is_within(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() {
        (one, other)
    } else {
        (other, one)
    };
    long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'))
}

#[test]
#[ignore = "minutes; see above"]
fn what_is_done_with_an_object_takes_time_in_proportion_to_its_lists() {
    let only = std::env::var("MK8S_GROWTH").unwrap_or_default();
    let pairs = std::env::var("MK8S_GROWTH_PAIRS").is_ok();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for line in include_str!("mutations/bases.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (name, object) = (meta::string(&line, &["name"]), &line["object"]);
        if !name.contains(&only) {
            continue;
        }
        let mut pointers = Vec::new();
        growing(object, "", &mut pointers);
        for (at, one) in pointers.iter().enumerate() {
            tried += 1;
            wrong.extend(out_of_proportion(name, object, &[one]));
            for other in pointers[..at].iter().filter(|other| pairs && !is_within(one, other)) {
                wrong.extend(out_of_proportion(name, object, &[other, one]));
            }
        }
    }
    assert!(tried > 0 && wrong.is_empty(), "of {tried}:\n{}", wrong.join("\n"));
}
