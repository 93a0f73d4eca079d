//! What a schema says of a value, as far as expressions need it: its type, how large it can be, and how its JSON is read.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::names;
use crate::types::Type;

/// Bytes that a request may have, from which sizes that no schema bounds are guessed.
const LARGEST_REQUEST: i64 = 3 * 1024 * 1024;

/// The declaration of a value.
#[derive(Debug)]
pub struct Decl {
    pub(crate) what: What,
    pub(crate) nullable: bool,
    /// Code points, bytes, items or entries that a value can have at most; 0 where it has no size.
    pub(crate) max_size: u64,
    /// Bytes of JSON that a value has at least.
    min_serialized: i64,
    /// The word that the schema has for its type: what errors show instead of an object or a list.
    pub(crate) schema_type: Box<str>,
}

#[derive(Debug)]
pub(crate) enum What {
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    IntOrString,
    List {
        items: Arc<Decl>,
        list: ListType,
    },
    Map(Arc<Decl>),
    Object(Object),
    /// A value that is kept as it is and that no expression can look into.
    Unknown,
    /// A schema that is none: reading its value is an error.
    Invalid,
}

/// What makes two lists equal, and what adding to one does.
#[derive(Debug)]
pub(crate) enum ListType {
    Atomic,
    Set,
    /// By these properties, with names as expressions have them.
    Map(Vec<Box<str>>),
}

#[derive(Debug)]
pub(crate) struct Object {
    /// In the order of their names in expressions.
    fields: Vec<Field>,
    /// Whether the schema has properties: only then are names escaped and nulls absent.
    pub structured: bool,
}

#[derive(Debug)]
pub(crate) struct Field {
    /// The name in expressions; `None` where it cannot be written.
    name: Option<Box<str>>,
    pub property: Box<str>,
    pub decl: Arc<Decl>,
}

impl Object {
    /// The field that expressions call so.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        let named = |field: &Field| field.name.as_deref().cmp(&Some(name));
        self.fields.binary_search_by(named).ok().map(|i| &self.fields[i])
    }

    /// The field of a property.
    pub(crate) fn property(&self, property: &str) -> Option<&Field> {
        self.fields.iter().find(|field| &*field.property == property)
    }
}

impl Decl {
    /// Reads an OpenAPI v3 schema as a CRD has it; `root` for a schema of whole objects, which have names even where the
    /// schema does not say so.
    pub fn from_schema(schema: &Json, root: bool) -> Arc<Decl> {
        let flag = |name: &str| schema[name].as_bool().unwrap_or(false);
        let nullable = flag("nullable");
        let schema_type: Box<str> = schema["type"].as_str().unwrap_or_default().into();
        let max = |name: &str| schema[name].as_i64().map(|max| max.max(0));
        let string = |what, max_size: i64, min_serialized| (what, max_size, min_serialized);
        let (what, max_size, min_serialized) = if flag("x-kubernetes-int-or-string") {
            (
                What::IntOrString,
                max("maxLength").map_or(LARGEST_REQUEST - 2, |max| max * 4),
                1,
            )
        } else {
            match &*schema_type {
                "array" => list(schema, max("maxItems")),
                "object" => object(
                    schema,
                    root || flag("x-kubernetes-embedded-resource"),
                    max("maxProperties"),
                ),
                "string" => match schema["format"].as_str().unwrap_or_default() {
                    "byte" => string(What::Bytes, max("maxLength").unwrap_or(LARGEST_REQUEST - 2), 2),
                    "duration" => string(What::Duration, 32, 3),
                    "date" => string(What::Date, 12, 12),
                    "date-time" => string(What::DateTime, 32, 21),
                    _ => string(What::String, longest_string(schema, max("maxLength")), 2),
                },
                "boolean" => (What::Bool, 0, 4),
                "number" => (What::Double, 0, 1),
                "integer" => (What::Int, 0, 1),
                _ if flag("x-kubernetes-preserve-unknown-fields") => (What::Unknown, 0, 0),
                _ => (What::Invalid, 0, 0),
            }
        };
        Arc::new(Decl {
            what,
            nullable,
            max_size: max_size as u64,
            min_serialized,
            schema_type,
        })
    }

    /// How many of such values a request can hold at most.
    pub fn max_cardinality(&self) -> u64 {
        (LARGEST_REQUEST / (self.min_serialized + 1)) as u64
    }

    /// The type, with `name` for an object; `None` where expressions cannot speak of it.
    pub(crate) fn type_named(self: &Arc<Decl>, name: &str) -> Option<Type> {
        Some(match &self.what {
            What::Bool => Type::Bool,
            What::Int => Type::Int,
            What::Double => Type::Double,
            What::String => Type::String,
            What::Bytes => Type::Bytes,
            What::Duration => Type::Duration,
            What::Date | What::DateTime => Type::Timestamp,
            What::IntOrString => Type::Dyn,
            What::List { items, .. } => Type::list(items.type_named(&format!("{name}.@idx"))?),
            What::Map(values) => Type::map(Type::String, values.type_named(&format!("{name}.@elem"))?),
            What::Object(_) => Type::Object(name.into(), self.clone()),
            What::Unknown | What::Invalid => return None,
        })
    }

    /// What a field of an object is, with the object's name.
    pub(crate) fn field_type(&self, name: &str, field: &str) -> Option<Type> {
        let What::Object(object) = &self.what else { return None };
        // A word of the language is a name after a dot.
        let escaped = || names::escape(field).filter(|escaped| *escaped == format!("__{field}__"));
        let found = object.field(field).or_else(|| object.field(&escaped()?))?;
        found.decl.type_named(&format!("{name}.{field}"))
    }

    /// Whether expressions can speak of it.
    pub(crate) fn is_typed(&self) -> bool {
        match &self.what {
            What::List { items: inner, .. } | What::Map(inner) => inner.is_typed(),
            What::Unknown | What::Invalid => false,
            _ => true,
        }
    }

    /// The declaration of a list's items or a map's values.
    pub(crate) fn element(&self) -> Option<&Arc<Decl>> {
        match &self.what {
            What::List { items: inner, .. } | What::Map(inner) => Some(inner),
            _ => None,
        }
    }

    /// The declaration of an object's field.
    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Decl>> {
        match &self.what {
            What::Object(object) => object
                .field(name)
                .map(|field| &field.decl)
                .filter(|decl| decl.is_typed()),
            _ => None,
        }
    }
}

type Read = (What, i64, i64);

fn longest_string(schema: &Json, max_length: Option<i64>) -> i64 {
    if let Some(max) = max_length {
        return max * 4;
    }
    match schema["enum"].as_array().filter(|values| !values.is_empty()) {
        Some(values) => values.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0) as i64,
        None => LARGEST_REQUEST - 2,
    }
}

fn list(schema: &Json, max_items: Option<i64>) -> Read {
    let Some(items) = schema.get("items").filter(|items| items.is_object()) else {
        return (What::Invalid, 0, 0);
    };
    let items = Decl::from_schema(items, false);
    let list = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Json::as_str);
            ListType::Map(
                keys.map(|key| names::escape(key).map_or_else(|| key.into(), String::into_boxed_str))
                    .collect(),
            )
        }
        _ => ListType::Atomic,
    };
    let max = max_items.unwrap_or((LARGEST_REQUEST - 2) / (items.min_serialized + 1));
    (What::List { items, list }, max, 2)
}

fn object(schema: &Json, named: bool, max_properties: Option<i64>) -> Read {
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let values = Decl::from_schema(values, false);
        let max = max_properties.unwrap_or((LARGEST_REQUEST - 2) / (values.min_serialized + 6));
        return (What::Map(values), max, 2);
    }
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut min_serialized = 2;
    let mut fields = Vec::new();
    let mut add = |property: &str, schema: &Json| {
        let decl = Decl::from_schema(schema, false);
        if decl.is_typed() && required.contains(&property) && schema.get("default").is_none() {
            min_serialized += property.len() as i64 + decl.min_serialized + 4;
        }
        fields.push(Field {
            name: names::escape(property).map(String::into_boxed_str),
            property: property.into(),
            decl,
        });
    };
    let own = schema["properties"].as_object();
    let meta = named
        .then(type_and_object_meta)
        .filter(|_| !has_type_and_object_meta(schema));
    for (property, schema) in own.into_iter().flatten() {
        if meta.as_ref().is_none_or(|meta| meta.get(property).is_none()) {
            add(property, schema);
        }
    }
    for (property, schema) in meta.iter().filter_map(Json::as_object).flatten() {
        add(property, schema);
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    (
        What::Object(Object {
            fields,
            structured: own.is_some() || named,
        }),
        0,
        min_serialized,
    )
}

/// What every object has, whatever its schema says.
fn type_and_object_meta() -> Json {
    let string = || serde_json::json!({"type": "string"});
    let metadata = serde_json::json!({"type": "object", "properties": {"name": string(), "generateName": string()}});
    serde_json::json!({"kind": string(), "apiVersion": string(), "metadata": metadata})
}

fn has_type_and_object_meta(schema: &Json) -> bool {
    let is = |path: &str, of: &str| schema.pointer(path).and_then(Json::as_str) == Some(of);
    is("/properties/kind/type", "string")
        && is("/properties/apiVersion/type", "string")
        && is("/properties/metadata/type", "object")
        && is("/properties/metadata/properties/name/type", "string")
        && is("/properties/metadata/properties/generateName/type", "string")
}
