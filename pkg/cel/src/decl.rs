//! What a schema says of a value, as far as expressions need it: its type, how large it can be, and how its JSON is read.

use std::sync::{Arc, LazyLock};

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
    /// A map that has an empty map wherever it has nothing: what a device has, by domain.
    ByDomain(Arc<Decl>),
    /// A device's attribute: an object whose one field says of which type it is.
    Attribute,
    /// A text that is a quantity.
    Quantity,
    Object(Object),
    /// JSON without a schema: what it says itself.
    Raw,
    /// A value that is kept as it is and that no expression can look into.
    Unknown,
    /// A schema that is none: reading its value is an error.
    Invalid,
}

/// What optionals hold is JSON as it is: names are not escaped, times are texts. So it is upstream.
pub(crate) static RAW: LazyLock<Decl> = LazyLock::new(|| Decl {
    what: What::Raw,
    nullable: true,
    max_size: 0,
    min_serialized: 0,
    schema_type: "".into(),
});

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
    /// An object of these properties, by their names in expressions.
    pub(crate) fn structured<const N: usize>(mut properties: [(&str, Arc<Decl>); N]) -> Object {
        properties.sort_by(|a, b| a.0.cmp(b.0));
        let field = |(name, decl): (&str, Arc<Decl>)| Field {
            name: Some(name.into()),
            property: name.into(),
            decl,
        };
        Object {
            fields: properties.map(field).into(),
            structured: true,
        }
    }

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

/// What is asked of a schema, in OpenAPI's words.
pub trait Source {
    /// `type`; empty where there is none.
    fn word(&self) -> &str;
    /// `format`; empty where there is none.
    fn format(&self) -> &str;
    /// `x-kubernetes-int-or-string`
    fn is_int_or_string(&self) -> bool;
    /// `nullable`
    fn is_nullable(&self) -> bool;
    /// `x-kubernetes-preserve-unknown-fields`
    fn preserves_unknown(&self) -> bool;
    /// `x-kubernetes-embedded-resource`
    fn is_embedded(&self) -> bool;
    fn has_default(&self) -> bool;
    /// `maxLength`, `maxItems` or `maxProperties`, whichever the type has.
    fn max(&self) -> Option<i64>;
    /// Bytes of the longest text of an `enum`.
    fn longest_choice(&self) -> Option<usize>;
    fn requires(&self, property: &str) -> bool;
    /// `items`
    fn items(&self) -> Option<&dyn Source>;
    /// `additionalProperties`, where it is a schema.
    fn values(&self) -> Option<&dyn Source>;
    /// `properties` with their names.
    fn properties(&self) -> Option<Vec<(&str, &dyn Source)>>;
    /// `x-kubernetes-list-type`
    fn list_type(&self) -> &str;
    /// `x-kubernetes-list-map-keys`
    fn list_keys(&self) -> Vec<&str>;
}

/// What a value is, its largest size and its least length as JSON.
type Read = (What, i64, i64);

impl Decl {
    /// Reads a schema; `root` for one of whole objects, which have names even where the schema does not say so.
    pub fn new(schema: &dyn Source, root: bool) -> Arc<Decl> {
        let (what, max_size, min_serialized) = if schema.is_int_or_string() {
            (What::IntOrString, longest(schema, 4), 1)
        } else {
            match schema.word() {
                "array" => list(schema),
                "object" => object(schema, root || schema.is_embedded()),
                "string" => match schema.format() {
                    "byte" => (What::Bytes, longest(schema, 1), 2),
                    "duration" => (What::Duration, 32, 3),
                    "date" => (What::Date, 12, 12),
                    "date-time" => (What::DateTime, 32, 21),
                    _ => (What::String, longest_string(schema), 2),
                },
                "boolean" => (What::Bool, 0, 4),
                "number" => (What::Double, 0, 1),
                "integer" => (What::Int, 0, 1),
                _ if schema.preserves_unknown() => (What::Unknown, 0, 0),
                _ => (What::Invalid, 0, 0),
            }
        };
        let (nullable, schema_type) = (schema.is_nullable(), schema.word().into());
        Arc::new(Decl {
            what,
            nullable,
            max_size: max_size as u64,
            min_serialized,
            schema_type,
        })
    }

    /// The declaration of what no schema describes. A text's size is in bytes, a map's in entries.
    pub(crate) fn of(what: What, max_size: u64) -> Arc<Decl> {
        let (min_serialized, schema_type) = match &what {
            What::String | What::Quantity => (2, "string"),
            What::Map(_) | What::ByDomain(_) | What::Object(_) => (2, "object"),
            _ => (1, ""),
        };
        Arc::new(Decl {
            what,
            nullable: false,
            max_size,
            min_serialized,
            schema_type: schema_type.into(),
        })
    }

    /// Whether it is a map of what a device has: optionals hold it as it is.
    pub(crate) fn is_of_device(&self) -> bool {
        let of_one = |decl: &Decl| matches!(decl.what, What::Attribute | What::Quantity);
        match &self.what {
            What::ByDomain(_) => true,
            What::Map(values) => of_one(values),
            _ => false,
        }
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
            What::IntOrString | What::Attribute | What::Raw => Type::Dyn,
            What::Quantity => Type::Named("kubernetes.Quantity".into()),
            What::List { items, .. } => Type::list(items.type_named(&format!("{name}.@idx"))?),
            What::Map(values) | What::ByDomain(values) => {
                Type::map(Type::String, values.type_named(&format!("{name}.@elem"))?)
            }
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
    pub fn is_typed(&self) -> bool {
        match &self.what {
            What::List { items: inner, .. } | What::Map(inner) | What::ByDomain(inner) => inner.is_typed(),
            What::Unknown | What::Invalid => false,
            _ => true,
        }
    }

    /// The declaration of a list's items or a map's values.
    pub(crate) fn element(&self) -> Option<&Arc<Decl>> {
        match &self.what {
            What::List { items: inner, .. } | What::Map(inner) | What::ByDomain(inner) => Some(inner),
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

/// Where no length is declared, a text is as long as a request.
fn longest(schema: &dyn Source, bytes: i64) -> i64 {
    max(schema).map_or(LARGEST_REQUEST - 2, |max| max * bytes)
}

fn max(schema: &dyn Source) -> Option<i64> {
    schema.max().map(|max| max.clamp(0, i64::MAX / 4))
}

fn longest_string(schema: &dyn Source) -> i64 {
    match (max(schema), schema.longest_choice()) {
        (None, Some(choice)) => choice as i64,
        _ => longest(schema, 4),
    }
}

fn list(schema: &dyn Source) -> Read {
    let Some(items) = schema.items() else {
        return (What::Invalid, 0, 0);
    };
    let items = Decl::new(items, false);
    let list = match schema.list_type() {
        "set" => ListType::Set,
        "map" => {
            let named = |key: &str| names::escape(key).unwrap_or_else(|| key.into()).into_boxed_str();
            ListType::Map(schema.list_keys().into_iter().map(named).collect())
        }
        _ => ListType::Atomic,
    };
    let max = max(schema).unwrap_or((LARGEST_REQUEST - 2) / (items.min_serialized + 1));
    (What::List { items, list }, max, 2)
}

fn object(schema: &dyn Source, named: bool) -> Read {
    if let Some(values) = schema.values() {
        let values = Decl::new(values, false);
        let max = max(schema).unwrap_or((LARGEST_REQUEST - 2) / (values.min_serialized + 6));
        return (What::Map(values), max, 2);
    }
    let mut min_serialized = 2;
    let mut fields = Vec::new();
    let mut add = |property: &str, of: &dyn Source| {
        let decl = Decl::new(of, false);
        if decl.is_typed() && schema.requires(property) && !of.has_default() {
            min_serialized += property.len() as i64 + decl.min_serialized + 4;
        }
        fields.push(Field {
            name: names::escape(property).map(String::into_boxed_str),
            property: property.into(),
            decl,
        });
    };
    let own = schema.properties();
    let meta = named && !has_type_and_object_meta(own.as_deref().unwrap_or_default());
    for (property, of) in own.iter().flatten() {
        if !(meta && META.contains(property)) {
            add(property, *of);
        }
    }
    if meta {
        for property in META {
            add(
                property,
                &OfMeta {
                    metadata: property == "metadata",
                },
            );
        }
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
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The schema of one of them: texts, and metadata with two.
struct OfMeta {
    metadata: bool,
}

impl Source for OfMeta {
    fn word(&self) -> &str {
        if self.metadata { "object" } else { "string" }
    }

    fn format(&self) -> &str {
        ""
    }

    fn is_int_or_string(&self) -> bool {
        false
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn preserves_unknown(&self) -> bool {
        false
    }

    fn is_embedded(&self) -> bool {
        false
    }

    fn has_default(&self) -> bool {
        false
    }

    fn max(&self) -> Option<i64> {
        None
    }

    fn longest_choice(&self) -> Option<usize> {
        None
    }

    fn requires(&self, _property: &str) -> bool {
        false
    }

    fn items(&self) -> Option<&dyn Source> {
        None
    }

    fn values(&self) -> Option<&dyn Source> {
        None
    }

    fn properties(&self) -> Option<Vec<(&str, &dyn Source)>> {
        const TEXT: OfMeta = OfMeta { metadata: false };
        self.metadata
            .then(|| vec![("name", &TEXT as &dyn Source), ("generateName", &TEXT)])
    }

    fn list_type(&self) -> &str {
        ""
    }

    fn list_keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

fn has_type_and_object_meta(properties: &[(&str, &dyn Source)]) -> bool {
    let find = |properties: &[(&str, &dyn Source)], name: &str, word: &str| {
        properties.iter().any(|(own, of)| *own == name && of.word() == word)
    };
    let inside = properties
        .iter()
        .find(|(own, _)| *own == "metadata")
        .and_then(|(_, of)| of.properties());
    let inside = inside.unwrap_or_default();
    find(properties, "kind", "string")
        && find(properties, "apiVersion", "string")
        && find(properties, "metadata", "object")
        && find(&inside, "name", "string")
        && find(&inside, "generateName", "string")
}
