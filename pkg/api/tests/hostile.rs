//! Bodies that are made to cost much more than they are long. What they would come to is counted where it can be; where
//! only time tells, they took minutes.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::time::{Duration, Instant};

use mk8s_api::apply::{self, Configuration, Managed, Node, Operation, Owner, Set, Versions, Writer};
use mk8s_api::defaults;
use mk8s_api::registry;
use mk8s_api::schema::{self, custom};
use mk8s_api::status::{FieldError, Status};
use mk8s_api::validation::{self, Errors, Path};
use serde_json::{Value, json};

/// Much more than any of them takes, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

fn soon<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let made = act();
    assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
    made
}

/// Objects of one kind in one version, all of whose fields may be owned.
struct OfKind(&'static str, Set);

impl Versions for OfKind {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        schema::by_api_version(api_version, self.0).map(|schema| Node::root(schema))
    }

    fn convert<'a>(&self, object: &'a Value, _: &str) -> Option<Cow<'a, Value>> {
        Some(Cow::Borrowed(object))
    }

    fn ignored(&self, _: &str) -> &Set {
        &self.1
    }
}

fn writer(manager: &str, operation: Operation) -> Writer {
    Writer {
        owner: Owner {
            manager: manager.into(),
            operation,
            api_version: "v1".into(),
            subresource: "".into(),
        },
        now: *b"2026-01-01T00:00:00Z",
    }
}

fn bytes_of(errors: &[FieldError]) -> usize {
    errors.iter().map(|error| error.field.len() + error.body().len()).sum()
}

/// Each of very many findings had a key as long as the body before it.
#[test]
fn a_long_key_does_not_stand_before_each_of_very_many_findings() {
    let long = "k".repeat(1 << 20);
    // Thousands of paths of a kilobyte.
    let few_megabytes = 8 << 20;

    let env: Value = (0..20_000)
        .map(|at| json!({"name": format!("a{at}"), "value": 1}))
        .collect();
    let pod = json!({"spec": {"containers": [{"name": long, "env": env}]}});
    let node = Node::root(schema::by_gvk("", "v1", "Pod").unwrap());
    let problems = soon("apply", || apply::check(node, &pod));
    assert!(problems[0].path.starts_with(r#".spec.containers[name="kkk"#) && problems.len() == 1000);
    assert!(apply::told(&problems).len() < few_megabytes);

    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let item = object(json!({"n": {"type": "integer"}}));
    let schema = custom::compile(&object(json!({"m": {"type": "object", "additionalProperties":
        {"type": "array", "items": item}}, "s": {"type": "object", "additionalProperties":
        {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}},
        "e": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "object",
        "x-kubernetes-embedded-resource": true}}}})))
    .unwrap();
    let many = |item: &dyn Fn(usize) -> Value| (0..20_000).map(item).collect::<Value>();
    let mut unknown = json!({"m": {&long: many(&|_| json!({"x": 1}))}});
    let went = soon("unknown", || custom::admit(&mut unknown, &schema, false)).unwrap();
    assert!(went[0].starts_with("m.kkk") && went.len() == 1000);
    assert!(went.iter().map(String::len).sum::<usize>() < few_megabytes);
    assert_eq!(
        unknown["m"][&long][19_999],
        json!({}),
        "what is not told goes all the same"
    );
    let ill_typed = |key: &str| json!({"m": {key: many(&|_| json!({"n": "x"}))}});
    let doubles = json!({"s": {&long: many(&|at| (at / 2).to_string().into())}});
    // What differs behind the cut alone is told once.
    for (object, told) in [
        (ill_typed(&long), 1..=1),
        (ill_typed(&long[..900]), 500..=1000),
        (doubles, 500..=1000),
    ] {
        let errors = soon("wrong", || {
            let mut errors = custom::check(&object, None, &schema);
            errors.extend(custom::check_lists(&object, None, &schema));
            errors
        });
        assert!(
            told.contains(&errors.iter().len()) && bytes_of(&errors) < few_megabytes,
            "{}",
            errors.len()
        );
    }
    let nameless = json!({"e": {&long: many(&|_| json!({}))}});
    let errors = soon("embedded", || custom::check_embedded(&nameless, &schema));
    assert!(
        errors.len() < 1010 && bytes_of(&errors) < few_megabytes,
        "{}",
        errors.len()
    );

    let path = Path::new(&long).child("x").to_string();
    assert!(path.len() < 1100 && path.ends_with("k…"));
}

#[test]
fn very_many_broken_rules_are_told_to_a_bound() {
    let schema = custom::compile(&json!({"type": "object", "properties": {"l": {"type": "array", "items":
        {"type": "object", "x-kubernetes-validations": [{"rule": "false", "message": "m"}]}}}}))
    .unwrap();
    let many = json!({"l": (0..20_000).map(|_| json!({})).collect::<Value>()});
    let new = custom::check_rules(&many, None, &schema, &[]);
    assert_eq!((new.errors.len(), new.warnings.len()), (1000, 0));
    // What was as wrong before is told too.
    let kept = custom::check_rules(&many, Some(&many), &schema, &[]);
    assert_eq!((kept.errors.len(), kept.warnings.len()), (0, 1000));
}

/// Each conflict had its path, and a cause of its own.
#[test]
fn very_many_conflicts_are_told_to_a_bound() {
    let data = |value: &str| {
        let data: Value = (0..20_000)
            .map(|at| (format!("k{at}"), Value::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
    };
    let versions = OfKind("ConfigMap", Set::default());
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    let (live, applied) = (data("a"), data("b"));
    let owner = writer(&"m".repeat(1 << 20), Operation::Update);
    let before = apply::update(&Managed::default(), &empty, &live, &owner, &versions).unwrap();
    let configuration = Configuration {
        before: &before,
        live: &live,
        empty: &empty,
        applied: &applied,
        writer: &writer("other", Operation::Apply),
        force: false,
    };
    let refused = soon("conflicts", || configuration.apply(&versions)).unwrap_err();
    let apply::ApplyError::Conflicts(conflicts) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(conflicts.told().len(), 1000);
    let text = refused.to_string();
    assert!(text.starts_with("Apply failed with 20000 conflicts: conflicts with \"mmm") && text.len() < 1 << 20);
    assert!(text.ends_with("\nand 19000 more"));
}

fn config_map(data: impl Iterator<Item = String>) -> Value {
    let data: serde_json::Map<String, Value> = data.map(|key| (key, "".into())).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn manager(name: &str, operation: &str, version: &str, fields: Value) -> Value {
    json!({"manager": name, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields,
        "time": "2026-01-01T00:00:00Z"})
}

/// Managers that a client sends were compared each with each: one with another, their fields with what is written.
#[test]
fn managers_that_a_client_sends_are_read_in_proportion() {
    let versions = OfKind("ConfigMap", Set::default());
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    let write = |what: &str, managers: Value, object: &Value| {
        soon(what, || {
            let before = Managed::from_value(&managers).unwrap();
            apply::update(&before, &empty, object, &writer("me", Operation::Update), &versions).unwrap()
        })
    };

    let owned: Value = (0..50_000)
        .map(|at| (format!("f:a{at}"), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let others = config_map((0..50_000).map(|at| format!("b{at}")));
    let sent = json!([manager("m", "Update", "v1", json!({"f:data": owned}))]);
    assert_eq!(write("others' keys", sent, &others).entries().len(), 2);

    // As texts they are not in the order that they have as numbers.
    let values: Value = (0..150_000)
        .map(|at| (format!("v:{at}"), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let sent = json!([manager("m", "Update", "v1", json!({"f:x": values}))]);
    write("values", sent, &empty);
    // One value in many spellings.
    let spelled = (0..50_000).map(|at| {
        (
            format!("v:1.0e{}0", "0".repeat(at % 300)),
            json!({"f:a": {}, format!("f:{at}"): {}}),
        )
    });
    let spelled: Value = spelled.collect::<serde_json::Map<_, _>>().into();
    write(
        "spellings",
        json!([manager("m", "Update", "v1", json!({"f:x": spelled}))]),
        &empty,
    );

    let many = |operation: &'static str, version: fn(usize) -> String| {
        let fields = |at: usize| json!({"f:data": {format!("f:b{at}"): {}}});
        let managers = (0..20_000).map(|at| manager(&format!("m{at}"), operation, &version(at), fields(at)));
        managers.collect::<Value>()
    };
    let other = config_map(std::iter::once("c".into()));
    let left = write("updaters", many("Update", |_| "v1".into()), &other);
    assert_eq!(left.entries().len(), 10, "the oldest are counted together");
    let left = write("of many versions", many("Update", |at| format!("v{at}")), &others);
    assert_eq!(left.entries().len(), 1, "what is not served owns nothing");
    let left = write("who apply", many("Apply", |_| "v1".into()), &others);
    assert_eq!(left.entries().len(), 1, "all of it was changed by somebody else");
}

/// Beyond 65 535 of them a look-up of what is not there never ended; and names can be chosen so that a hash is no help.
#[test]
fn objects_of_very_many_properties_are_read() {
    let of = |names: &[String]| {
        let properties = names.iter().map(|name| (name.clone(), json!({"type": "integer"})));
        let properties: serde_json::Map<String, Value> = properties.collect();
        custom::compile(&json!({"type": "object", "required": names, "properties": properties})).unwrap()
    };
    let many: Vec<String> = (0..70_000).map(|at| format!("p{at}")).collect();
    // Of one length, with the same letters at the ends and in the middle.
    let alike: Vec<String> = (0..16_000).map(|at| format!("a{at:06}-a-{at:06}a")).collect();
    for names in [many, alike] {
        let schema = soon("compile", || of(&names));
        let known = names.iter().map(|name| (name.clone(), json!(1)));
        let unknown = (0..50_000).map(|at| (format!("a{:06}-a-{:06}a", at + 20_000, at), json!(1)));
        let mut object: Value = known.chain(unknown).collect::<serde_json::Map<_, _>>().into();
        let went = soon("admit", || custom::admit(&mut object, &schema, false)).unwrap();
        assert_eq!((went.len(), object.as_object().unwrap().len()), (1000, names.len()));
        assert!(names.iter().all(|name| schema.field(name).is_some()) && schema.field("q").is_none());
        assert!(soon("check", || custom::check(&object, None, &schema)).is_empty());
    }
}

/// What is wrong with a definition was told with the whole of it, or compared each with each.
#[test]
fn definitions_of_very_many_parts_are_checked_in_proportion() {
    let row = mk8s_api::registry::find_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let create = |what: &str, definition: &Value| {
        let errors = soon(what, || mk8s_api::validation::create(row, row.stored(), definition));
        let bytes: usize = errors.iter().map(|error| error.body().len()).sum();
        assert!(bytes < 64 << 20, "{what}: {bytes}");
        errors
    };
    let definition = |versions: Value, conversion: Value| {
        json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": versions, "conversion": conversion}, "status": {"storedVersions": ["v0"]}})
    };
    let version = |at: usize, schema: Value| json!({"name": format!("v{at}"), "served": true, "storage": at == 0, "schema": {"openAPIV3Schema": schema}});
    let none = json!({"strategy": "None"});

    let keys: Value = (0..20_000).map(|at| json!(format!("k{at}"))).collect();
    let item = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let list =
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": item});
    let schema = json!({"type": "object", "properties": {"l": list}});
    let errors = create("keys", &definition(json!([version(0, schema)]), none.clone()));
    assert!(
        errors
            .iter()
            .any(|error| error.detail == "entries must all be names of item properties")
    );

    let plain = |at: usize| version(at, json!({"type": "object"}));
    let versions: Value = (0..5000).map(plain).collect();
    let errors = create("versions", &definition(versions, none));
    assert!(errors.is_empty(), "{:?}", errors.first());

    let reviews: Value = (0..100_000).map(|at| json!(format!("v{}", at / 2))).collect();
    let webhook = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a.b/"}, "conversionReviewVersions": reviews}});
    let errors = create("reviews", &definition(json!([plain(0)]), webhook));
    assert_eq!(errors.len(), 50_000);
    assert!(errors.iter().all(|error| error.detail == "duplicate version"));
}

/// The same of what an administrator writes through the status, of formats that nobody checks, and of versions of old.
#[test]
fn definitions_that_are_changed_are_checked_in_proportion() {
    let row = mk8s_api::registry::find_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let definition = |count: usize, schema: &dyn Fn(usize) -> Value, stored: Value| {
        let version = |at: usize| json!({"name": format!("v{at}"), "served": true, "storage": true, "schema": {"openAPIV3Schema": schema(at)}});
        json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "preserveUnknownFields": true, "conversion": {"strategy": "None"},
            "versions": (0..count).map(version).collect::<Value>()}, "status": {"storedVersions": stored}})
    };
    let stored: Value = (0..100_000).map(|at| json!(format!("w{at}"))).collect();
    let many = definition(1000, &|_| json!({"type": "object"}), stored);
    let errors = soon("stored versions", || {
        mk8s_api::validation::create(row, row.stored(), &many)
    });
    let missing = errors
        .iter()
        .filter(|error| error.detail.starts_with("must have the storage version"));
    assert_eq!(missing.count(), 1);

    let formats: serde_json::Map<String, Value> = (0..60_000)
        .map(|at| (format!("p{at}"), json!({"type": "string", "format": format!("f{at}")})))
        .collect();
    let formats = definition(1, &|_| json!({"type": "object", "properties": formats}), json!(["v0"]));
    let told = soon("formats", || {
        mk8s_api::validation::warnings(row, &formats, Some(&formats))
    });
    assert_eq!(told, Vec::<String>::new());

    let old = row.versions.iter().find(|served| served.name == "v1beta1").unwrap();
    let fields: serde_json::Map<String, Value> = (0..20)
        .map(|at| (format!("p{at}"), json!({"type": "string"})))
        .collect();
    let each = |at: usize| json!({"type": "object", "properties": fields, "maxProperties": at});
    let versions = definition(2000, &each, json!(["v0"]));
    soon("versions", || mk8s_api::validation::create(row, old, &versions));
}

/// A few bytes of a body became a map each, or a default of a hundred kilobytes.
#[test]
fn defaults_add_to_a_bound() {
    let object = |default: Value| {
        let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": default}}});
        let list = json!({"type": "array", "items": item});
        custom::compile(&json!({"type": "object", "properties": {"l": list}})).unwrap()
    };
    let many = |count: usize| json!({"l": (0..count).map(|_| json!({})).collect::<Value>()});
    for (default, count) in [(json!("x"), 500_000), (json!("x".repeat(100_000)), 10_000)] {
        let mut value = many(count);
        let schema = object(default);
        assert_eq!(custom::default(&mut value, &schema), Err(custom::TooLarge));
        let filled = value["l"]
            .as_array()
            .unwrap()
            .iter()
            .take_while(|item| item["a"].is_string())
            .count();
        assert!((600..120_000).contains(&filled), "{filled}");
    }
    let mut value = many(50_000);
    custom::default(&mut value, &object(json!("x"))).unwrap();
    assert_eq!(value["l"][49_999]["a"], "x");
}

/// Comparing costs next to nothing: each rule had a second of its own for it.
#[test]
fn what_rules_compare_is_bounded_for_all_of_an_object() {
    let item = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"k": {"type": "string"}}});
    let list = json!({"type": "array", "x-kubernetes-list-type": "set", "items": item});
    let rules = |count: usize| vec![json!({"rule": "self.l == oldSelf.l"}); count];
    let many: Vec<Value> = (0..500).map(|n| json!({"k": "x", "n": n})).collect();
    let back: Vec<Value> = many.iter().rev().cloned().collect();
    let (new, old) = (json!({"l": many}), json!({"l": back}));
    let ruled = |count: usize| {
        let schema = json!({"type": "object", "properties": {"l": list}, "x-kubernetes-validations": rules(count)});
        let schema = custom::compile(&schema).unwrap();
        let ruling = custom::check_rules(&new, Some(&old), &schema, &[]);
        ruling
            .errors
            .iter()
            .map(|error| error.detail.clone())
            .collect::<Vec<_>>()
    };
    assert!(ruled(5).is_empty());
    let told = ruled(50);
    assert!(
        told.len() == 1 && told[0].contains("no further validation rules will be run"),
        "{told:?}"
    );
}

/// What is read is kept with its defaults, also of objects that were stored before there were any.
#[test]
fn what_is_shown_is_no_more_than_many_times_what_is_stored() {
    let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(1000)}}});
    let list = json!({"type": "array", "items": item});
    let schema = custom::compile(&json!({"type": "object", "properties": {"l": list}})).unwrap();
    let stored = json!({"l": vec![json!({}); 39_000]});
    let length = stored.to_string().len();
    let mut shown = stored.clone();
    assert_eq!(
        custom::default_shown(&mut shown, &schema, length),
        Err(custom::TooLarge)
    );
    let shown = shown.to_string().len();
    assert!((5 * length..12 * length).contains(&shown), "{shown}");
    // Little is shown with all that it gets.
    let mut little = json!({"l": vec![json!({}); 900]});
    custom::default_shown(&mut little, &schema, 2700).unwrap();
}

/// A node may write the status of its pods: a minute of a core, were each condition looked for among all others.
#[test]
fn conditions_of_a_pod_are_matched_in_proportion() {
    let conditions = |generation: i64| -> Vec<Value> {
        let of = |n: i64| json!({"type": format!("t{}", n % 2), "status": "True", "observedGeneration": generation});
        (0..100_000).map(of).collect()
    };
    let old = json!({"status": {"qosClass": "Burstable", "conditions": conditions(3)}});
    let mut new = json!({"status": {"conditions": conditions(0)}});
    soon("conditions", || defaults::pod_status(&mut new, &old));
    let all = new["status"]["conditions"].as_array().unwrap();
    assert!(all.iter().all(|condition| condition["observedGeneration"] == 3));
}

#[test]
fn what_is_told_of_an_object_is_bounded_in_bytes() {
    let error = FieldError::invalid("spec.a", "v", "x".repeat(64 << 10));
    let status = Status::invalid("", "Pod", "p", vec![error; 1000].as_slice());
    let length = status.message.len() + status.details.map_or(0, |details| details.to_string().len());
    assert!(length < 4 << 20, "{length}");
    assert!(
        status.message.ends_with("more]"),
        "{}",
        &status.message[status.message.len() - 40..]
    );
}

/// Who may create a claim, or a pod, in one namespace: each word of his was told many times over.
#[test]
fn what_is_told_of_long_words_is_bounded() {
    let claims = mk8s_api::registry::find("resource.k8s.io", "v1", "resourceclaims").unwrap();
    let expression = format!("{}{}", " ".repeat(10_100), "#".repeat(140));
    let selectors = vec![json!({"cel": {"expression": expression}}); 3];
    let request = |at: usize| json!({"name": format!("r{at}"), "exactly": {"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1, "selectors": selectors}});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "n"},
        "spec": {"devices": {"requests": (0..32).map(request).collect::<Value>()}}});
    let errors = soon("selectors", || {
        mk8s_api::validation::create(claims, claims.stored(), &claim)
    });
    let told: usize = errors.iter().map(|error| error.body().len()).sum();
    assert!(!errors.is_empty() && told < 64 << 20, "{told}");
    let status = Status::invalid("resource.k8s.io", "ResourceClaim", "c", &errors);
    assert!(status.message.len() < 4 << 20, "{}", status.message.len());

    let pods = mk8s_api::registry::find("", "v1", "pods").unwrap();
    let mut items = vec![json!({"key": "k", "path": "a"}); 44];
    items.push(json!({"key": "k", "path": format!("a/{}", "\u{7f}".repeat(2_900_000))}));
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [],
        "volumes": [{"name": "v", "configMap": {"name": "m", "items": items}}]}});
    let told = soon("paths", || mk8s_api::validation::warnings(pods, &pod, None));
    let length: usize = told.iter().map(String::len).sum();
    assert!(!told.is_empty() && length < 16 << 20, "{length}");
}

/// Each character that nobody can print was told with the whole name, twice to four times of who owns fields.
#[test]
fn a_long_name_does_not_stand_in_each_of_very_many_findings() {
    let name = "\u{7f}".repeat(10_000);
    let mut errors = Errors::new();
    validation::manager(&name, &Path::new("fieldManager"), &mut errors);
    assert_eq!(errors.len(), 10_001);
    assert!(bytes_of(&errors) < 8 << 20, "{}", bytes_of(&errors));

    let entry = json!([{"manager": name, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}}}]);
    let managed = Managed::parse(entry.to_string().as_bytes()).unwrap();
    let errors = validation::managers(registry::find("", "v1", "configmaps").unwrap(), &managed);
    assert!(
        errors.len() > 10_000 && bytes_of(&errors) < 8 << 20,
        "{}",
        bytes_of(&errors)
    );
}

fn errors_of_pod(spec: Value) -> Errors {
    let resource = registry::find("", "v1", "pods").unwrap();
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    (resource.stored().default)(&mut pod);
    validation::create(resource, resource.stored(), &pod)
}

/// The names that a pod knows stood in each.
#[test]
fn what_a_pod_has_is_not_told_for_each_that_it_has_not() {
    let claims: Value = (0..3_000).map(|_| json!({"name": "a"})).collect();
    let errors = soon("claims", || {
        errors_of_pod(json!({"resourceClaims": [{"name": "n".repeat(100_000)}],
            "containers": [{"name": "c", "image": "i", "resources": {"claims": claims}}]}))
    });
    let unknown = errors
        .iter()
        .filter(|error| error.detail.starts_with("must be one of the names"));
    let shown: usize = unknown.map(|error| error.detail.len()).sum();
    assert!((100_000..4 << 20).contains(&shown), "{shown}");
    assert!(errors.len() > 3_000);
}

/// The whole spec was copied for each resource of each container.
#[test]
fn what_a_pods_containers_need_is_summed_up_once() {
    let container = |at: usize| {
        let (pages, cpu) = (format!("hugepages-{at}"), json!({"cpu": "1m", "memory": "1k"}));
        json!({"name": "c", "image": "i", "resources": {"requests": cpu, "limits": {pages: "1"}}})
    };
    let containers: Value = (0..4_000).map(container).collect();
    let spec = json!({"resources": {"limits": {"cpu": "1k"}}, "containers": containers, "initContainers": containers});
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    let resource = registry::find("", "v1", "pods").unwrap();
    soon("defaults", || (resource.stored().default)(&mut pod));
    assert_eq!(pod["spec"]["resources"]["requests"]["cpu"], "4");
    assert_eq!(pod["spec"]["resources"]["limits"]["hugepages-3999"], "1");
    soon("checks", || validation::create(resource, resource.stored(), &pod));
}

/// What each of one list names was looked for in all of another.
#[test]
fn what_lists_name_of_each_other_is_found_in_proportion() {
    let count = 30_000;
    let many = |item: &dyn Fn(usize) -> Value| (0..count).map(item).collect::<Value>();
    let kind = |group: &str, plural: &str| registry::find(group, "v1", plural).unwrap();
    let profile = "container.apparmor.security.beta.kubernetes.io/";
    let annotations: serde_json::Map<String, Value> = (0..count)
        .map(|at| (format!("{profile}x{at}"), "unconfined".into()))
        .collect();
    let containers = many(&|at| json!({"name": format!("c{at}"), "image": "i"}));
    let mut pod = json!({"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": containers}});
    let errors = soon("profiles", || {
        kind("", "pods").prepare_create(&mut pod);
        validation::create(kind("", "pods"), kind("", "pods").stored(), &pod)
    });
    assert!(errors.iter().any(|error| error.detail == "container not found"));

    let file = |at: usize| json!({"name": format!("v{at}"), "valueFrom": {"fileKeyRef": {"volumeName": format!("x{at}"), "path": "a", "key": "k"}}});
    let volumes = many(&|at| json!({"name": format!("v{at}"), "emptyDir": {}}));
    let errors = soon("files", || {
        errors_of_pod(json!({"volumes": volumes, "containers": [{"name": "c", "image": "i", "env": many(&file)}]}))
    });
    assert!(errors.len() >= count);

    let claims = many(&|at| json!({"name": format!("a{at}")}));
    let statuses = many(&|at| json!({"name": format!("b{at}")}));
    let old = json!({"spec": {"resourceClaims": claims}});
    let new = json!({"spec": old["spec"], "status": {"resourceClaimStatuses": statuses}});
    let mut errors = Errors::new();
    soon("claims", || validation::pod_status(&new, &old, &mut errors));
    assert_eq!(errors.len(), count);

    let driver = |at: usize| json!({"name": format!("d{at}"), "nodeID": "n"});
    let node = json!({"metadata": {"name": "n"}, "spec": {"drivers": many(&driver)}});
    let mut errors = Errors::new();
    soon("drivers", || validation::csi_node_update(&node, &node, &mut errors));
    assert_eq!(errors, []);

    let condition =
        |at: usize| json!({"type": format!("t{at}"), "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let old = json!({"status": {"conditions": many(&condition)}});
    let mut new = json!({"status": {"conditions": many(&|at| json!({"type": format!("t{at}"), "status": "True"}))}});
    soon("conditions", || defaults::signing_request_approval(&mut new, &old));
    assert_eq!(
        new["status"]["conditions"][count - 1]["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
}
