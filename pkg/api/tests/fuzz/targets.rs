//! What bytes from a stranger must not do to a decoder, one function for each: panic, overflow the stack, or yield what
//! another step then takes for something else. They say nothing of which input is refused. The test beside them runs them
//! over a corpus and mutations of it; hack/fuzz.sh gives the same functions to libFuzzer.

use std::borrow::Cow;

use mk8s_api::apply::{self, Configuration, Managed, Node, Operation, Owner, Set, Versions, Writer};
use mk8s_api::codec::{MAX_DEPTH, Validation, conform, json, protobuf, yaml};
use mk8s_api::quantity::Quantity;
use mk8s_api::registry;
use mk8s_api::schema::{self, Schema, custom};
use mk8s_api::selectors::{FieldSelector, LabelSelector};
use mk8s_api::{meta, patch, validation};
use serde_json::{Value, json as tree};

pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 9] = [
    ("protobuf", protobuf),
    ("json", json),
    ("yaml", yaml),
    ("patch", patch),
    ("apply", apply),
    ("selectors", selectors),
    ("quantity", quantity),
    ("definition", definition),
    ("rule", rule),
];

/// Levels of objects and arrays. What Go prints for zero may add a few below the deepest that was sent.
fn check_depth(value: &Value) {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    let depth = depth(value);
    assert!(depth <= usize::from(MAX_DEPTH) + 5, "{depth} levels");
}

/// The type that an input is read as: what it says itself, else a Pod.
fn type_of(value: Option<&Value>) -> &'static Schema {
    let named = value.and_then(|value| schema::by_api_version(meta::api_version(value), meta::kind(value)));
    named
        .or_else(|| schema::by_gvk("", "v1", "Pod"))
        .unwrap_or_else(schema::custom)
}

/// A tree of a type is printed, read back as it is, and reading it once more changes nothing.
fn check_tree(value: &Value, ty: &Schema) {
    check_depth(value);
    let mut text = Vec::new();
    json::print(value, &mut text);
    let back: Value = serde_json::from_slice(&text).expect("what is printed is JSON that can be read");
    assert_eq!(&back, value, "printed and read");
    let again = conform(value.clone(), ty, Validation::Strict).expect("what was decoded conforms");
    assert_eq!(&again.value, value, "conformed twice");
}

pub fn protobuf(data: &[u8]) {
    let Ok(value) = protobuf::decode(data) else { return };
    check_depth(&value);
    let Ok(encoded) = protobuf::encode(&value) else { return };
    let again = protobuf::decode(&encoded).expect("what is encoded is decoded");
    let twice = protobuf::encode(&again).expect("what was decoded is encoded");
    assert_eq!(protobuf::decode(&twice).expect("and again"), again);
}

pub fn json(data: &[u8]) {
    let untyped = json::decode(data, None, Validation::Warn).ok();
    if let Some(decoded) = &untyped {
        check_depth(&decoded.value);
    }
    let ty = type_of(untyped.as_ref().map(|decoded| &decoded.value));
    if let Ok(decoded) = json::decode(data, Some(ty), Validation::Strict) {
        if decoded.value.is_object() {
            check_tree(&decoded.value, ty);
        }
        let _ = protobuf::encode(&decoded.value);
    }
    let _ = json::metadata(data);
}

pub fn yaml(data: &[u8]) {
    let untyped = yaml::decode(data, None, Validation::Warn).ok();
    if let Some(decoded) = &untyped {
        check_depth(&decoded.value);
    }
    let ty = type_of(untyped.as_ref().map(|decoded| &decoded.value));
    if let Ok(decoded) = yaml::decode(data, Some(ty), Validation::Strict)
        && decoded.value.is_object()
    {
        check_tree(&decoded.value, ty);
    }
}

/// A line of the object, and the rest the patch.
pub fn patch(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let mut read = || {
        json::decode(parts.next()?, None, Validation::Ignore)
            .ok()
            .map(|decoded| decoded.value)
    };
    let (Some(object), Some(change)) = (read(), read()) else {
        return;
    };
    let ty = type_of(Some(&object));
    // Three megabytes of copies, and what the patch itself brings.
    let most = data.len() * 8 + (4 << 20);
    type Apply = fn(&mut Value, &Value, &Schema) -> Result<(), patch::PatchError>;
    let apply: [Apply; 3] = [
        |target, change, _| patch::json(target, change),
        |target, change, _| patch::merge(target, change),
        patch::strategic,
    ];
    for apply in apply {
        let mut target = object.clone();
        if apply(&mut target, &change, ty).is_ok() {
            check_depth(&target);
            let mut text = Vec::new();
            json::print(&target, &mut text);
            assert!(text.len() <= most, "{} bytes", text.len());
            let _ = conform(target, ty, Validation::Warn);
        }
    }
}

/// One type, whatever version is asked for.
struct One(&'static Schema, Set);

impl Versions for One {
    fn node(&self, _: &str) -> Option<Node<'_>> {
        Some(Node::root(self.0))
    }

    fn convert<'a>(&self, object: &'a Value, _: &str) -> Option<Cow<'a, Value>> {
        Some(Cow::Borrowed(object))
    }

    fn ignored(&self, _: &str) -> &Set {
        &self.1
    }
}

/// A line of what is there, and the rest what is applied over it, twice, and by somebody else by force.
pub fn apply(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let mut read = || {
        json::decode(parts.next()?, None, Validation::Ignore)
            .ok()
            .map(|decoded| decoded.value)
    };
    let (Some(live), Some(applied)) = (read(), read()) else {
        return;
    };
    let sent = meta::at(&live, &["metadata", "managedFields"]);
    if let Some(Ok(managed)) = sent.map(Managed::from_value) {
        let again = Managed::from_value(&managed.to_value());
        assert_eq!(again.unwrap_or_default(), managed, "printed and read");
    }
    let ty = type_of(Some(&applied));
    if !apply::check(Node::root(ty), &applied).is_empty() {
        return;
    }
    let versions = One(ty, Set::default());
    let (mut live, mut before) = (live, Managed::default());
    for (manager, force) in [("a", false), ("a", false), ("b", true)] {
        let writer = Writer {
            owner: Owner {
                manager: manager.into(),
                operation: Operation::Apply,
                api_version: "v1".into(),
                subresource: "".into(),
            },
            now: *b"2026-01-01T00:00:00Z",
        };
        let configuration = Configuration {
            before: &before,
            live: &live,
            empty: &tree!({}),
            applied: &applied,
            writer: &writer,
            force,
        };
        let Ok(done) = apply::apply(&configuration, &versions) else {
            return;
        };
        let mut text = Vec::new();
        done.managed.print(&mut text);
        let again = Managed::parse(&text).expect("what is printed can be read");
        assert_eq!(again, done.managed, "printed and read");
        assert!(text.len() <= data.len() * 16 + 4096, "{} bytes of managers", text.len());
        if let Some(object) = done.object {
            check_depth(&object);
            live = object;
        }
        before = done.managed;
    }
}

pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(labels) = LabelSelector::parse(text) {
        let printed = labels.to_string();
        let again = LabelSelector::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
        assert_eq!(again.to_string(), printed);
        for value in [None, Some(""), Some("a")] {
            assert_eq!(labels.matches(|_| value), again.matches(|_| value), "{printed:?}");
        }
    }
    if let Ok(fields) = FieldSelector::parse(text) {
        let printed = fields.to_string();
        let again = FieldSelector::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
        assert_eq!(again, fields, "{printed:?}");
    }
}

pub fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let printed = quantity.to_string();
    let again: Quantity = printed.parse().unwrap_or_else(|error| panic!("{printed:?}: {error:?}"));
    assert_eq!(again, quantity, "of {text:?}");
    // Bytes that are no whole number of Ki are printed without a suffix, and so read as decimal: once, and no more.
    let settled = again.to_string();
    let last: Quantity = settled.parse().unwrap_or_else(|error| panic!("{settled:?}: {error:?}"));
    assert_eq!(last.to_string(), settled, "of {text:?}");
}

/// What is wrong with a definition of this schema, as it is written and as an update of itself.
fn check_definition(schema: &Value) -> bool {
    let mut definition = tree!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "as.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"plural": "as", "kind": "A"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    });
    // A whole definition comes as it is.
    if schema.get("spec").is_some() {
        definition.clone_from(schema);
    }
    let row = registry::find_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("a built-in kind");
    let ty = schema::by_gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("a built-in type");
    let Ok(decoded) = conform(definition, ty, Validation::Strict) else {
        return false;
    };
    let mut definition = decoded.value;
    row.stored()
        .fill(&mut definition)
        .expect("a built-in kind has no defaults of its own");
    let errors = validation::create(row, row.stored(), &definition);
    let _ = validation::update(row, row.stored(), &definition, &definition, &mut Vec::new());
    let _ = validation::warnings(row, &definition, None);
    errors.is_empty()
}

/// A line of a schema, and the rest an object: the schema is judged, and where it is one the object is brought into its form,
/// twice, and judged by it.
pub fn definition(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let mut read = || {
        json::decode(parts.next()?, None, Validation::Ignore)
            .ok()
            .map(|decoded| decoded.value)
    };
    let (Some(said), Some(object)) = (read(), read()) else {
        return;
    };
    let is_sound = check_definition(&said);
    let Ok(schema) = custom::compile(&said) else { return };
    let mut object = object;
    if custom::admit(&mut object, &schema, true).is_err() {
        return;
    }
    if custom::default(&mut object, &schema).is_err() {
        return;
    }
    let mut again = object.clone();
    let pruned = custom::admit(&mut again, &schema, true).expect("what was admitted is");
    custom::default(&mut again, &schema).expect("it was filled in before");
    // A default of a schema that nobody may write may have what it lacks.
    if is_sound {
        assert_eq!((pruned, &again), (Vec::new(), &object), "admitted twice");
    }
    let errors = custom::check(&object, None, &schema);
    let _ = custom::check_lists(&object, None, &schema);
    let _ = custom::check_embedded(&object, &schema);
    let _ = custom::check_rules(&object, Some(&again), &schema, &errors);
    let _ = custom::check(&object, Some(&again), &schema);
}

/// A rule of an object, and what it says of one.
pub fn rule(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let schema = tree!({"type": "object", "x-kubernetes-validations": [{"rule": text, "messageExpression": text}],
        "properties": {"a": {"type": "string", "maxLength": 20}, "n": {"type": "integer"},
            "l": {"type": "array", "maxItems": 9, "items": {"type": "string", "maxLength": 9}},
            "m": {"type": "object", "maxProperties": 9, "additionalProperties": {"type": "number"}}}});
    check_definition(&schema);
    let compiled = custom::compile(&schema).expect("a schema, whatever the rule is");
    let object = tree!({"a": "text", "n": 3, "l": ["x", "y"], "m": {"k": 1.5}});
    let _ = custom::check_rules(&object, None, &compiled, &[]);
    let _ = custom::check_rules(&object, Some(&object), &compiled, &[]);
}
