//! Every small change of a full object of each kind (a field gone, emptied, doubled, made senseless), judged as upstream
//! v1.35.4 judges it on create, update and status. `mutations/bases.jsonl` are the objects, `mutations/answers.txt` what
//! upstream's strategies say (`hack/update-upstream-answers.sh` asks them), `mutations/differences.txt` the changes that are
//! judged differently here: each that is mended has to leave the list.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mk8s_api::registry::{self, Resource, Served};
use mk8s_api::status::FieldError;
use mk8s_api::{meta, validation};
use serde_json::{Value, json};

const BASES: &str = include_str!("mutations/bases.jsonl");
const ANSWERS: &str = include_str!("mutations/answers.txt");
const DIFFERENCES: &str = include_str!("mutations/differences.txt");

/// What is put at a place; none where the field goes.
type Change = (String, &'static str, Option<Value>);

/// All changes, in the order and by the names of hack/update-upstream-answers/mutate.go.
fn changes(value: &Value, pointer: &str, all: &mut Vec<Change>) {
    let mut add = |name, value| all.push((pointer.to_string(), name, value));
    if !pointer.is_empty() {
        add("gone", None);
    }
    match value {
        Value::String(_) => {
            add("empty", Some("".into()));
            add("odd", Some("Bad Value!".into()));
        }
        Value::Number(_) => {
            for (name, number) in [("minus", -1), ("zero", 0), ("huge", 2_000_000)] {
                add(name, Some(number.into()));
            }
        }
        Value::Bool(own) => add("not", Some((!own).into())),
        Value::Array(items) => {
            add("none", Some(json!([])));
            if let Some(first) = items.first() {
                let mut twice = items.clone();
                twice.push(first.clone());
                add("twice", Some(twice.into()));
            }
            for (index, item) in items.iter().enumerate() {
                changes(item, &format!("{pointer}/{index}"), all);
            }
        }
        Value::Object(map) => {
            if !pointer.is_empty() {
                add("none", Some(json!({})));
            }
            let sorted: BTreeMap<_, _> = map.iter().collect();
            for (key, child) in sorted {
                if !(pointer.is_empty() && matches!(key.as_str(), "apiVersion" | "kind")) {
                    let step = key.replace('~', "~0").replace('/', "~1");
                    changes(child, &format!("{pointer}/{step}"), all);
                }
            }
        }
        Value::Null => {}
    }
}

fn apply(base: &Value, (pointer, _, put): &Change) -> Value {
    let mut object = base.clone();
    if pointer.is_empty() {
        return object;
    }
    if let Some(put) = put {
        *object.pointer_mut(pointer).unwrap() = put.clone();
        return object;
    }
    let (holder, step) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(holder).unwrap() {
        Value::Object(map) => drop(map.remove(&step.replace("~1", "/").replace("~0", "~"))),
        Value::Array(items) => drop(items.remove(step.parse().unwrap())),
        _ => unreachable!("a change is in an object or a list"),
    }
    object
}

/// As the Go half tells a cause: its first line, and no struct's text, which is Go's.
fn told(error: &FieldError) -> String {
    let body = error.body();
    let body = body.lines().next().unwrap_or("");
    let body = match &error.value {
        Some(value @ (Value::Object(_) | Value::Array(_))) => body.replacen(&value.to_string(), "…", 1),
        _ => body.to_string(),
    };
    format!("{}: {body}", error.field)
}

fn judge(row: &Resource, sent: &Served, way: &str, object: &Value, base: &Value) -> Vec<String> {
    let stored = row.stored();
    let ready = |object: &Value| {
        let mut object = object.clone();
        sent.to_stored(stored, &mut object);
        (stored.default)(&mut object);
        object
    };
    let mut object = object.clone();
    if way == "create" {
        meta::set(&mut object, &["metadata", "uid"], "u");
    }
    object = ready(&object);
    let errors = if way == "create" {
        row.prepare_create(&mut object);
        validation::create(row, sent, &object)
    } else {
        let mut old = ready(base);
        for one in [&mut object, &mut old] {
            meta::set(one, &["metadata", "resourceVersion"], "1");
        }
        if way == "status" {
            row.prepare_status(&mut object, &old);
            validation::update_status(row, stored, &object, &old, &mut Vec::new())
        } else {
            if let (true, Some(status)) = (stored.has_status(), old.get("status")) {
                object["status"] = status.clone();
            }
            row.prepare_update(&mut object, &old);
            validation::update(row, sent, &object, &old, &mut Vec::new())
        }
    };
    errors.iter().map(told).collect()
}

/// What upstream says of the changes of one base, one way: the causes' numbers, `-` where it was refused before.
fn section(lines: &str) -> HashMap<(&str, &str), &str> {
    let parts = |line| {
        let mut parts = str::split(line, '\t');
        Some(((parts.next()?, parts.next()?), parts.next()?))
    };
    lines.lines().filter_map(parts).collect()
}

/// Each change of a base that is judged differently here, with what is said here and upstream, and how many there were.
fn compare(title: &str, base: &Value, answers: &str, messages: &[&str]) -> (Vec<(String, String)>, usize) {
    let (_, way) = title.split_once(' ').unwrap();
    let (group, version) = meta::split_api_version(meta::api_version(base));
    let row = registry::find_kind(group, version, meta::kind(base)).unwrap();
    let sent = row.serving(group, version).unwrap();
    let answers = section(answers);
    let mut all = vec![(String::new(), "", None)];
    changes(base, "", &mut all);
    all.retain(|change| change.0.is_empty() || (way == "status") == change.0.starts_with("/status"));
    let mut different = Vec::new();
    let mut count = 0;
    for change in &all {
        let expected = match answers.get(&(change.0.as_str(), change.1)) {
            Some(&"-") => continue,
            Some(numbers) => numbers
                .split(' ')
                .map(|number| messages[number.parse::<usize>().unwrap()])
                .collect(),
            None => Vec::new(),
        };
        count += 1;
        let here = judge(row, sent, way, &apply(base, change), base);
        if here != expected {
            let said = format!("\n    here     {here:?}\n    upstream {expected:?}");
            different.push((format!("{title} {} {}", change.0, change.1), said));
        }
    }
    (different, count)
}

#[test]
fn every_change_is_judged_as_upstream_judges_it() {
    let bases: HashMap<String, Value> = BASES
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|mut line| (line["name"].as_str().unwrap().to_string(), line["object"].take()))
        .collect();
    let (messages, answers) = ANSWERS.split_once("\n\n").unwrap();
    let messages: Vec<&str> = messages.lines().collect();
    let known: BTreeSet<&str> = DIFFERENCES.lines().filter(|line| !line.starts_with('#')).collect();
    let (mut found, mut count) = (BTreeMap::new(), 0);
    for part in answers.split("= ").skip(1) {
        let (title, lines) = part.split_once('\n').unwrap_or((part, ""));
        let (name, _) = title.split_once(' ').unwrap();
        let (different, all) = compare(title, &bases[name], lines, &messages);
        found.extend(different);
        count += all;
    }
    if let Ok(file) = std::env::var("MK8S_DIFFERENCES") {
        let lines: Vec<&str> = found.keys().map(String::as_str).collect();
        std::fs::write(file, lines.join("\n") + "\n").unwrap();
    }
    let unlisted = found.iter().filter(|(line, _)| !known.contains(line.as_str()));
    let unlisted: Vec<String> = unlisted.map(|(line, said)| format!("{line}{said}")).collect();
    let mended: Vec<&&str> = known.iter().filter(|line| !found.contains_key(**line)).collect();
    assert!(
        unlisted.is_empty() && mended.is_empty(),
        "of {count} changes {} are judged differently, {} of them unlisted:\n{}\nno longer different: {mended:#?}",
        found.len(),
        unlisted.len(),
        unlisted.join("\n")
    );
}
