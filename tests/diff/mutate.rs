//! The ways to spoil a request.

use serde_json::{Value, json};

use crate::cases::{Draft, NAMESPACES, PATCHES};
use crate::random::Random;
use crate::world::World;

pub fn any(draft: &mut Draft, world: &World, random: &mut Random) {
    match random.below(10) {
        0 => draft.method = (*random.pick(&METHODS)).to_string(),
        1..=3 => path(draft, world, random),
        4 | 5 => draft.query.push((*random.pick(&QUERIES)).to_string()),
        6 | 7 => header(draft, random),
        _ => body(draft, random),
    }
}

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
];

const NAMES: [&str; 12] = [
    "missing",
    "..",
    ".",
    "%2e%2e",
    "UPPER",
    "a%2Fb",
    "a%20b",
    "%zz",
    "-",
    "a..b",
    "%C3%A9",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

const PARTS: [&str; 14] = [
    "status",
    "scale",
    "log",
    "exec",
    "binding",
    "eviction",
    "finalize",
    "approval",
    "token",
    "unknown",
    "watch",
    "proxy",
    "ephemeralcontainers",
    "resize",
];

fn path(draft: &mut Draft, world: &World, random: &mut Random) {
    let mut parts: Vec<String> = draft.path.split('/').skip(1).map(str::to_string).collect();
    let at = random.below(parts.len());
    let last = parts.len() - 1;
    match random.below(16) {
        0 => _ = parts.remove(at),
        1 => parts.insert(at, parts[at].clone()),
        2 => parts[at] = random.pick(&world.resources).plural.clone(),
        3 => parts[at] = "unknown".into(),
        4 => parts[at] = parts[at].to_uppercase(),
        5 => parts.push(String::new()),
        6 => parts.insert(at, String::new()),
        7 => parts[last] = (*random.pick(&NAMES)).to_string(),
        8 | 9 => parts.push((*random.pick(&PARTS)).to_string()),
        10 | 11 => match parts.iter().position(|part| part == "namespaces") {
            Some(at) if parts.len() > at + 1 => {
                if random.percent(40) {
                    parts.drain(at..at + 2);
                } else {
                    parts[at + 1] = (*random.pick(&NAMESPACES)).to_string();
                }
            }
            _ => {
                let at = parts.len().min(if parts[0] == "apis" { 3 } else { 2 });
                parts.splice(at..at, ["namespaces".to_string(), "fuzz".to_string()]);
            }
        },
        12 => parts[at] = (*random.pick(&NAMES)).to_string(),
        13 => _ = parts.pop(),
        14 => {
            let version = if parts[0] == "apis" { 2 } else { 1 };
            if let Some(part) = parts.get_mut(version) {
                *part = (*random.pick(&["v1", "v2", "v1beta1", "V1", ""])).to_string();
            }
        }
        _ => {
            let at = parts.len().min(if parts[0] == "apis" { 3 } else { 2 });
            parts.insert(at, (*random.pick(&["watch", "proxy", "namespaces"])).to_string());
        }
    }
    draft.path = format!("/{}", parts.join("/"));
}

#[rustfmt::skip]
const QUERIES: [&str; 92] = [
    "watch=1", "watch=true", "watch=false", "watch=0", "watch=", "watch", "watch=abc", "watch=1&watch=0",
    "labelSelector=a%3Db", "labelSelector=a+in+(b)", "labelSelector=a%3D%3D%3D", "labelSelector=,", "labelSelector=!a",
    "labelSelector=a%20b", "labelSelector=-a%3Db", "labelSelector=a%3D-", "labelSelector=a%3E1", "labelSelector=",
    "fieldSelector=metadata.name%3Dfixed", "fieldSelector=metadata.namespace%3Dfuzz", "fieldSelector=spec.unknown%3Dx",
    "fieldSelector=x", "fieldSelector=a%3Db%3Dc", "fieldSelector=metadata.name!%3Dfixed", "fieldSelector=metadata.name%3D..",
    "fieldSelector=,", "fieldSelector=metadata.name%3Dfixed,metadata.name%3Dother", "fieldSelector=",
    "limit=1", "limit=0", "limit=-1", "limit=abc", "limit=", "limit=99999999999999999999", "limit=1.5",
    "continue=abc", "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIifQ", "continue=",
    "resourceVersion=0", "resourceVersion=1", "resourceVersion=abc", "resourceVersion=-1", "resourceVersion=",
    "resourceVersion=0&resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=NotOlderThan",
    "resourceVersionMatch=Exact", "resourceVersionMatch=NotOlderThan", "resourceVersionMatch=Bad",
    "resourceVersion=1&resourceVersionMatch=NotOlderThan", "resourceVersion=abc&resourceVersionMatch=Exact",
    "timeoutSeconds=1", "timeoutSeconds=abc", "timeoutSeconds=-1", "timeoutSeconds=0", "timeout=1s", "timeout=abc",
    "timeout=-1s", "timeout=0s", "timeout=", "timeout=99h", "timeout=1",
    "dryRun=All", "dryRun=all", "dryRun=", "dryRun=All&dryRun=Bad", "dryRun=true",
    "fieldValidation=Strict", "fieldValidation=Warn", "fieldValidation=Ignore", "fieldValidation=Bad", "fieldValidation=",
    "fieldManager=a", "fieldManager=%07", "force=true", "force=false", "force=abc",
    "fieldManager=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "pretty=1", "pretty=abc", "gracePeriodSeconds=0", "gracePeriodSeconds=-1", "gracePeriodSeconds=abc",
    "propagationPolicy=Foreground", "propagationPolicy=Bad", "orphanDependents=true", "orphanDependents=abc",
    "orphanDependents=true&propagationPolicy=Orphan", "sendInitialEvents=true", "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    "export=1", "includeObject=Bad", "a;b=c%zz",
];

const ACCEPTS: [&str; 25] = [
    "*/*",
    "application/*",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf,application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
    "application/yaml;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=Bad;v=v1;g=meta.k8s.io",
    "application/cbor",
    "text/html",
    "text/html,application/json;q=0.1",
    "text/plain",
    "application/json;stream=watch",
    "application/json;q=0",
    "",
    "garbage",
    "application/json;charset=utf-8",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "application/json;pretty=1",
];

const CONTENT_TYPES: [&str; 14] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json; charset=utf-8",
    "application/cbor",
    "text/plain",
    "text/yaml",
    "application/x-yaml",
    "application/x-www-form-urlencoded",
    "*/*",
    "garbage",
    "application/json;;",
    "APPLICATION/JSON",
    "application/apply-patch+cbor",
];

fn header(draft: &mut Draft, random: &mut Random) {
    match random.below(12) {
        0..=4 => draft.set_header("accept", Some(*random.pick(&ACCEPTS))),
        5 => draft.set_header("accept", None),
        6 | 7 => draft.set_header("content-type", Some(*random.pick(&CONTENT_TYPES))),
        8 => draft.set_header("content-type", Some(*random.pick(&PATCHES))),
        9 => draft.set_header("content-type", None),
        10 => {
            let (name, value) = *random.pick(&[
                ("impersonate-user", "nobody"),
                ("impersonate-user", "system:serviceaccount:fuzz:default"),
                ("impersonate-user", ""),
                ("impersonate-group", "system:masters"),
                ("impersonate-uid", "x"),
                ("impersonate-user", "system:anonymous"),
                ("authorization", "Bearer garbage"),
                ("authorization", "Basic eDp5"),
            ]);
            draft.set_header(name, Some(value));
        }
        _ => {
            let (name, value) = *random.pick(&[
                ("user-agent", "curl/8"),
                ("accept-encoding", "gzip"),
                ("accept-encoding", "br"),
                ("content-encoding", "gzip"),
                ("if-none-match", "\"x\""),
                ("upgrade", "websocket"),
            ]);
            draft.set_header(name, Some(value));
        }
    }
}

fn body(draft: &mut Draft, random: &mut Random) {
    let Some(tree) = &mut draft.tree else {
        draft.set_header("content-type", Some("application/json"));
        draft.tree = Some(json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]}));
        return options(draft, random);
    };
    match random.below(10) {
        0 => {
            let whole = tree.to_string();
            let texts: [&[u8]; 10] = [
                b"",
                b"null",
                b"[]",
                b"{}",
                b"\"x\"",
                b"{",
                b"garbage",
                b"a: b\n",
                b"k8s\x00\x0a",
                b"\xff\xfe{}",
            ];
            let cut = whole.len() / 2;
            draft.text = Some(if random.percent(20) {
                whole.as_bytes()[..cut].to_vec()
            } else {
                random.pick(&texts).to_vec()
            });
        }
        1 => {
            let text = tree.to_string();
            let doubled = text.replacen('{', "{\"kind\":\"X\",", 1);
            draft.text = Some(doubled.into_bytes());
        }
        2..=5 => meta(tree, random),
        _ => anywhere(tree, random),
    }
}

fn options(draft: &mut Draft, random: &mut Random) {
    let (key, value) = random
        .pick(&[
            ("gracePeriodSeconds", json!(-5)),
            ("gracePeriodSeconds", json!("x")),
            ("propagationPolicy", json!("Bad")),
            ("propagationPolicy", json!("Orphan")),
            ("orphanDependents", json!(true)),
            ("preconditions", json!({"uid": "x"})),
            ("preconditions", json!({"resourceVersion": "1"})),
            ("preconditions", json!([])),
            ("kind", json!("Pod")),
            ("apiVersion", json!("apps/v1")),
            ("apiVersion", json!("bad/bad/bad")),
            ("unknown", json!(1)),
            ("ignoreStoreReadErrorWithClusterBreakingPotential", json!(true)),
        ])
        .clone();
    if let Some(tree) = &mut draft.tree {
        tree[key] = value;
    }
}

/// What every kind has.
fn meta(tree: &mut Value, random: &mut Random) {
    let changes = [
        ("/kind", json!("Pod")),
        ("/kind", json!("Unknown")),
        ("/kind", json!("")),
        ("/kind", json!(1)),
        ("/kind", Value::Null),
        ("/apiVersion", json!("v1")),
        ("/apiVersion", json!("apps/v1")),
        ("/apiVersion", json!("unknown/v1")),
        ("/apiVersion", json!("a/b/c")),
        ("/apiVersion", Value::Null),
        ("/metadata", Value::Null),
        ("/metadata", json!("x")),
        ("/metadata/name", json!("other")),
        ("/metadata/name", json!("Bad_Name")),
        ("/metadata/name", json!("")),
        ("/metadata/name", Value::Null),
        ("/metadata/name", json!(1)),
        ("/metadata/generateName", json!("gen-")),
        ("/metadata/generateName", json!("Gen_")),
        ("/metadata/namespace", json!("fuzz")),
        ("/metadata/namespace", json!("other")),
        ("/metadata/uid", json!("x")),
        ("/metadata/resourceVersion", json!("1")),
        ("/metadata/resourceVersion", json!("abc")),
        ("/metadata/resourceVersion", json!("0")),
        ("/metadata/labels", json!({"-bad-": "x"})),
        ("/metadata/labels", json!({"a": "not valid!"})),
        ("/metadata/labels", json!({"a": 1})),
        ("/metadata/annotations", json!({"Bad Key": "x"})),
        ("/metadata/annotations", json!([])),
        ("/metadata/finalizers", json!(["x"])),
        ("/metadata/finalizers", json!(["example.org/x"])),
        ("/metadata/finalizers", json!(["orphan", "foregroundDeletion"])),
        ("/metadata/ownerReferences", json!([{}])),
        (
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}]),
        ),
        ("/metadata/managedFields", json!([{}])),
        ("/metadata/managedFields", json!([{"manager": "a", "operation": "Bad"}])),
        ("/metadata/creationTimestamp", json!("x")),
        ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        ("/metadata/generation", json!(-1)),
        ("/metadata/unknown", json!(1)),
        ("/unknown", json!({"a": 1})),
        ("/status", json!({})),
        ("/status", json!("x")),
        ("/spec", Value::Null),
        ("/spec", json!([])),
        ("/spec", json!({})),
    ];
    let (pointer, value) = random.pick(&changes).clone();
    put(tree, pointer, value);
}

/// Puts a value at a pointer whose parent is there; null removes it.
fn put(tree: &mut Value, pointer: &str, value: Value) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return;
    };
    let Some(Value::Object(fields)) = tree.pointer_mut(parent) else {
        return;
    };
    if value.is_null() {
        fields.remove(key);
    } else {
        fields.insert(key.into(), value);
    }
}

/// Replaces or removes some value of the tree.
fn anywhere(tree: &mut Value, random: &mut Random) {
    let mut pointers = Vec::new();
    gather(tree, String::new(), &mut pointers);
    if pointers.is_empty() {
        return;
    }
    let pointer = random.pick(&pointers).clone();
    let values = [
        Value::Null,
        json!(0),
        json!(-1),
        json!(1.5),
        json!(true),
        json!(""),
        json!("x"),
        json!("Bad Value!"),
        json!([]),
        json!({}),
        json!([1]),
        json!({"a": "b"}),
        json!(99_999_999_999_i64),
        json!("1"),
        json!([{}]),
        json!("0"),
    ];
    let value = random.pick(&values).clone();
    match tree.pointer_mut(&pointer) {
        Some(_) if value.is_null() && random.percent(70) => put(tree, &pointer, Value::Null),
        Some(at) => *at = value,
        None => {}
    }
}

fn gather(tree: &Value, at: String, into: &mut Vec<String>) {
    match tree {
        Value::Object(fields) => {
            for (key, value) in fields {
                gather(
                    value,
                    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    into,
                );
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                gather(value, format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        into.push(at);
    }
}
