//! apiextensions' JSONSchemaProps, as the tree that a CustomResourceDefinition holds → nodes. Also those of definitions
//! that are not structural: they are checked by, though neither pruned nor defaulted.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::rules::Rules;
use super::{formats, intern};
use crate::schema::{
    Any, Checks, Constraints, Field, List, ListType, Map as MapOf, Name, Node, Object, Pattern, Scalar, Schema, Type,
    What, by_name,
};

/// Why a schema is none that an object can be checked by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("an OpenAPI v3 schema must be an object")]
    NotAnObject,
    #[error("OpenAPIV3Schema 'items' must be a schema, but is an array")]
    ItemsArray,
    #[error("OpenAPIV3Schema '{0}' is not supported")]
    Unsupported(&'static str),
}

/// The schema of a version's objects.
pub fn compile(props: &Value) -> Result<Schema, CompileError> {
    node(props, Place::Root)
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Inside,
}

const UNSUPPORTED: [&str; 7] = [
    "id",
    "$schema",
    "$ref",
    "patternProperties",
    "dependencies",
    "additionalItems",
    "definitions",
];

/// What says nothing of a value.
const SILENT: [&str; 4] = ["description", "title", "example", "externalDocs"];

/// The parts below a node, compiled.
#[derive(Default)]
struct Below {
    properties: Vec<(Name, Schema)>,
    items: Option<Schema>,
    additional: Additional,
    all_of: Box<[Schema]>,
    any_of: Box<[Schema]>,
    one_of: Box<[Schema]>,
    not: Option<Schema>,
}

#[derive(Default)]
enum Additional {
    #[default]
    Unsaid,
    Allowed,
    Refused,
    Of(Schema),
}

fn node(props: &Value, place: Place) -> Result<Schema, CompileError> {
    let props = props.as_object().ok_or(CompileError::NotAnObject)?;
    for unsupported in UNSUPPORTED {
        if props.get(unsupported).is_some_and(says_something) {
            return Err(CompileError::Unsupported(unsupported));
        }
    }
    let below = Below::of(props)?;
    let key = key(props, &below, place);
    Ok(intern::node(&key, || make(props, below, place)))
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

impl Below {
    fn of(props: &Map<String, Value>) -> Result<Below, CompileError> {
        let inside = |props: &Value| node(props, Place::Inside);
        let all = |key: &str| -> Result<Box<[Schema]>, CompileError> {
            let list = props.get(key).and_then(Value::as_array);
            list.into_iter().flatten().map(inside).collect()
        };
        let properties = props.get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten();
        Ok(Below {
            properties: properties
                .map(|(name, props)| Ok((intern::name(name), inside(props)?)))
                .collect::<Result<_, CompileError>>()?,
            items: match props.get("items") {
                None | Some(Value::Null) => None,
                Some(Value::Array(_)) => return Err(CompileError::ItemsArray),
                Some(items) => Some(inside(items)?),
            },
            additional: match props.get("additionalProperties") {
                None | Some(Value::Null) => Additional::Unsaid,
                Some(Value::Bool(true)) => Additional::Allowed,
                Some(Value::Bool(false)) => Additional::Refused,
                Some(props) => Additional::Of(inside(props)?),
            },
            all_of: all("allOf")?,
            any_of: all("anyOf")?,
            one_of: all("oneOf")?,
            not: match props.get("not") {
                None | Some(Value::Null) => None,
                Some(not) => Some(inside(not)?),
            },
        })
    }

    /// What is said of a value's parts.
    fn values(&self) -> impl Iterator<Item = &Schema> {
        let additional = match &self.additional {
            Additional::Of(schema) => Some(schema),
            _ => None,
        };
        let properties = self.properties.iter().map(|(_, schema)| schema);
        properties.chain(&self.items).chain(additional)
    }

    fn schemas(&self) -> impl Iterator<Item = &Schema> {
        let lists = [&self.all_of, &self.any_of, &self.one_of].into_iter().flatten();
        self.values().chain(lists).chain(&self.not)
    }
}

/// What tells a node apart: its own words, and which nodes are below it.
fn key(props: &Map<String, Value>, below: &Below, place: Place) -> Vec<u8> {
    let mut key = vec![u8::from(place == Place::Root)];
    for (word, value) in props.iter().filter(|(word, _)| !SILENT.contains(&word.as_str())) {
        crate::codec::json::print_key(word, &mut key);
        match (word.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for name in properties.keys() {
                    crate::codec::json::print_key(name, &mut key);
                }
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => key.extend_from_slice(&list.len().to_le_bytes()),
            ("items" | "not" | "additionalProperties", Value::Object(_)) => {}
            (_, value) => crate::codec::json::print(value, &mut key),
        }
    }
    for schema in below.schemas() {
        key.extend_from_slice(&std::ptr::from_ref::<Node>(schema).addr().to_le_bytes());
    }
    key
}

fn flag(props: &Map<String, Value>, key: &str) -> bool {
    props.get(key) == Some(&Value::Bool(true))
}

fn text<'v>(props: &'v Map<String, Value>, key: &str) -> &'v str {
    props.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_ruled(node: &Node) -> bool {
    node.constraints.as_ref().is_some_and(|constraints| constraints.ruled)
}

fn make(props: &Map<String, Value>, mut below: Below, place: Place) -> Node {
    let types = match text(props, "type") {
        _ if flag(props, "x-kubernetes-int-or-string") => Some(Type::IntOrString),
        word => Type::of(word),
    };
    let embedded = place == Place::Root || flag(props, "x-kubernetes-embedded-resource");
    let mut constraints = Constraints {
        types,
        nullable: flag(props, "nullable"),
        preserve_unknown: flag(props, "x-kubernetes-preserve-unknown-fields"),
        embedded,
        default: props.get("default").filter(|default| !default.is_null()).cloned(),
        metadata: None,
        ruled: props.contains_key("x-kubernetes-validations") || below.values().any(|schema| is_ruled(schema)),
        rules: Rules::new(props.get("x-kubernetes-validations")),
        checks: None,
    };
    let mut checks = checks(props);
    checks.other_type = (types == Some(Type::Other)).then(|| intern::name(text(props, "type")));
    checks.closed = matches!(below.additional, Additional::Refused);
    checks.all_of = std::mem::take(&mut below.all_of);
    checks.any_of = std::mem::take(&mut below.any_of);
    checks.one_of = std::mem::take(&mut below.one_of);
    checks.not = below.not.take();
    if embedded {
        constraints.metadata = imply_metadata(&mut below.properties);
    }
    let what = what(props, types, below, &checks, constraints.preserve_unknown);
    if checks.say_something() {
        constraints.checks = Some(Box::new(checks));
    }
    Node {
        what,
        constraints: Some(Box::new(constraints)),
    }
}

/// Every object has these fields, said or not; returns what is said of its metadata.
fn imply_metadata(properties: &mut Vec<(Name, Schema)>) -> Option<Schema> {
    let meta = by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
    let at = |properties: &[(Name, Schema)], name: &str| properties.iter().position(|(own, _)| **own == *name);
    let said = at(properties, "metadata").map(|at| properties.swap_remove(at).1);
    properties.push((Name::Static("metadata"), meta.clone()));
    for name in ["apiVersion", "kind"] {
        if at(properties, name).is_none()
            && let Some(text) = meta.field("name")
        {
            properties.push((Name::Static(name), text.schema.clone()));
        }
    }
    said
}

fn what(
    props: &Map<String, Value>,
    types: Option<Type>,
    below: Below,
    checks: &Checks,
    preserve_unknown: bool,
) -> What {
    let atomic = text(props, "x-kubernetes-map-type") == "atomic";
    let has_fields = !below.properties.is_empty();
    match types {
        Some(Type::IntOrString) => What::Scalar(Scalar::IntOrString),
        Some(Type::String) => What::Scalar(Scalar::String),
        Some(Type::Integer) => What::Scalar(Scalar::Int64),
        Some(Type::Number) => What::Scalar(Scalar::Double),
        Some(Type::Boolean) => What::Scalar(Scalar::Bool),
        Some(Type::Array) => list(props, below.items),
        Some(Type::Other) => What::Any(Any::Value),
        None if !has_fields && below.items.is_some() => list(props, below.items),
        Some(Type::Object) | None => match below.additional {
            Additional::Of(values) if !has_fields => What::Map(MapOf { values, atomic }),
            Additional::Allowed if !has_fields => What::Map(MapOf { values: open(), atomic }),
            _ if types.is_none() && !has_fields && !checks.closed => What::Any(Any::Value),
            _ => {
                let required: HashSet<&str> = checks.required.iter().map(Name::as_str).collect();
                let properties = below.properties.into_iter();
                let fields = properties.map(|(name, schema)| {
                    let required = required.contains(name.as_str());
                    Field::custom(name, schema, required)
                });
                What::Object(Object::custom(fields.collect(), preserve_unknown, atomic))
            }
        },
    }
}

/// What stands where nothing is declared: a node of no custom kind.
fn open() -> Schema {
    static OPEN: std::sync::LazyLock<Schema> =
        std::sync::LazyLock::new(|| Schema::new(Node::new(What::Any(Any::Value))));
    OPEN.clone()
}

fn list(props: &Map<String, Value>, items: Option<Schema>) -> What {
    let keys = props.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    What::List(List {
        items: items.unwrap_or_else(open),
        list_type: match text(props, "x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map,
            "atomic" => ListType::Atomic,
            _ => ListType::Unset,
        },
        keys: keys
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(intern::name)
            .collect(),
        wrapped: false,
    })
}

fn checks(props: &Map<String, Value>) -> Checks {
    let integer = |key: &str| props.get(key).and_then(Value::as_i64);
    let number = |key: &str| props.get(key).and_then(Value::as_number).cloned();
    let list = |key: &str| props.get(key).and_then(Value::as_array).into_iter().flatten();
    let said = |key: &str| Some(text(props, key)).filter(|text| !text.is_empty());
    Checks {
        format: said("format")
            .filter(|format| formats::is_known(format))
            .map(intern::name),
        pattern: said("pattern").map(|text| Pattern::new(intern::name(text))),
        minimum: number("minimum"),
        exclusive_minimum: flag(props, "exclusiveMinimum"),
        maximum: number("maximum"),
        exclusive_maximum: flag(props, "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: integer("minLength"),
        max_length: integer("maxLength"),
        min_items: integer("minItems"),
        max_items: integer("maxItems"),
        unique_items: flag(props, "uniqueItems"),
        min_properties: integer("minProperties"),
        max_properties: integer("maxProperties"),
        required: list("required").filter_map(Value::as_str).map(intern::name).collect(),
        enumeration: list("enum").cloned().collect(),
        ..Checks::default()
    }
}

impl Checks {
    fn say_something(&self) -> bool {
        let numbers = [&self.minimum, &self.maximum, &self.multiple_of];
        let integers = [
            self.min_length,
            self.max_length,
            self.min_items,
            self.max_items,
            self.min_properties,
            self.max_properties,
        ];
        let schemas = [&self.all_of, &self.any_of, &self.one_of];
        self.format.is_some()
            || self.other_type.is_some()
            || self.pattern.is_some()
            || numbers.iter().any(|number| number.is_some())
            || integers.iter().any(|integer| integer.is_some())
            || self.unique_items
            || self.closed
            || !self.required.is_empty()
            || !self.enumeration.is_empty()
            || schemas.iter().any(|schemas| !schemas.is_empty())
            || self.not.is_some()
    }
}
