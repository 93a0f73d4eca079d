//! The shape of every kind as a value: a tree of nodes with field names, kinds of scalar, protobuf numbers, list types,
//! merge keys, defaults. Codecs, strategic merge, server-side apply, validation of unknown fields and OpenAPI all walk
//! it; nothing else in mk8s knows the shape of a kind.
//!
//! A built-in type's nodes come from a table (`table`), a custom kind's from its CustomResourceDefinition. Equal parts are
//! one node, so that a schema is compared and shared by its handle. A built-in type may lie in itself (JSONSchemaProps
//! does); those nodes live as long as the program.

mod constraints;
pub mod custom;
mod load;
mod name;
mod table;

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

pub use constraints::{Checks, Constraints, Pattern, Type};
pub(crate) use load::TEXT;
pub use name::Name;
pub(crate) use table::by_kind;
pub use table::{by_api_version, by_gvk, by_name, custom};

/// A handle of a node; two are equal when they are of the same node.
#[derive(Clone)]
pub struct Schema(Arc<Node>);

impl Schema {
    pub fn new(node: Node) -> Schema {
        Schema(Arc::new(node))
    }
}

impl Deref for Schema {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Schema) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Schema {}

/// Not the tree: a type may lie in itself.
impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.go_name())
    }
}

/// What one value may be.
pub struct Node {
    pub what: What,
    /// What a custom kind's schema says beside the form; none for built-in types.
    pub constraints: Option<Box<Constraints>>,
}

/// The form of a value.
#[repr(u8)]
pub enum What {
    Scalar(Scalar),
    /// Any JSON.
    Any(Any),
    Object(Object),
    List(List),
    /// An object whose keys are free.
    Map(Map),
    /// A schema (the node) or something else that may stand in its place: apiextensions' unions.
    SchemaOr(Or, Schema),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with six decimals.
    MicroTime,
    Quantity,
    IntOrString,
}

/// The Go types that hold any JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Any {
    /// metav1.FieldsV1.
    FieldsV1,
    /// runtime.RawExtension.
    RawExtension,
    /// apiextensions' JSON.
    Json,
    /// Never in protobuf.
    Value,
}

/// What may stand in a schema's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Or {
    Bool,
    /// A list of schemas.
    Array,
    /// A list of strings.
    Strings,
}

/// An object whose fields are known.
pub struct Object {
    /// Set once, after the nodes of the fields are there: a type may lie in itself.
    fields: OnceLock<Fields>,
    /// Fields that are not named here are kept.
    pub open: bool,
    /// `x-kubernetes-map-type: atomic`: server-side apply replaces it as a whole.
    pub atomic: bool,
    go: Option<Box<GoType>>,
}

/// What a built-in type is besides its fields.
#[derive(Default)]
pub(crate) struct GoType {
    /// OpenAPI's name: `io.k8s.api.core.v1.Pod`.
    pub(crate) name: &'static str,
    /// Go's: `v1.Pod`.
    pub(crate) go_name: &'static str,
    /// (group, version, kind) of those that stand for the type, at most one but for metav1's.
    pub(crate) kinds: Vec<[&'static str; 3]>,
}

/// A list. Its items' type is the node of `items`.
pub struct List {
    pub items: Schema,
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub keys: Box<[Name]>,
    /// Protobuf wraps it in a message of its own (authentication's ExtraValue).
    pub(crate) wrapped: bool,
}

/// A map from any string to values of one type.
pub struct Map {
    pub values: Schema,
    /// `x-kubernetes-map-type: atomic`: server-side apply replaces it as a whole.
    pub atomic: bool,
}

/// How items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListType {
    Unset,
    Atomic,
    Set,
    Map,
}

/// Strategic merge's word for a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge (by `merge_key`, or as sets of scalars), instead of being replaced.
    pub merge: bool,
    /// Keys that the patch does not name are cleared.
    pub retain_keys: bool,
    /// The whole is replaced.
    pub replace: bool,
}

/// One JSON field of an object. Fields of Go's inlined structs stand in the type that inlines them.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: Name,
    pub schema: Schema,
    /// A pointer in Go: an explicit zero is kept and printed.
    pub pointer: bool,
    pub omitempty: bool,
    pub omitzero: bool,
    /// Listed in OpenAPI's `required`.
    pub required: bool,
    /// `x-kubernetes-map-type` as the field says it, whatever its type does: atomic, or granular.
    pub atomic: Option<bool>,
    pub patch_strategy: PatchStrategy,
    /// The protobuf field number; 0: not in protobuf.
    pub(crate) tag: u16,
    /// The numbers of the embedded messages that the field lies in, outermost first; 0: none.
    pub(crate) outer: [u8; 2],
    /// Which of its type's fields it is, as they were declared.
    pub(crate) position: u16,
    rare: Option<Box<Rare>>,
}

/// What few fields have.
#[derive(Clone, Debug, Default)]
struct Rare {
    merge_key: &'static str,
    default: &'static str,
    go_type: &'static str,
    go_collection: &'static str,
    enumeration: &'static str,
    /// Of bytes, which a Go type lists.
    list_type: &'static str,
}

impl Field {
    /// A custom kind's.
    pub(crate) fn custom(name: Name, schema: Schema, required: bool) -> Field {
        Field {
            name,
            schema,
            pointer: false,
            omitempty: true,
            omitzero: false,
            required,
            atomic: None,
            patch_strategy: PatchStrategy::default(),
            tag: 0,
            outer: [0, 0],
            position: 0,
            rare: None,
        }
    }

    fn rare(&self, what: impl FnOnce(&Rare) -> &'static str) -> &'static str {
        self.rare.as_deref().map_or("", what)
    }

    /// Strategic merge's key of a list's items; empty: none.
    pub fn merge_key(&self) -> &'static str {
        self.rare(|rare| rare.merge_key)
    }

    /// What OpenAPI v3 says is presumed where a built-in type's field is absent: its default, or the zero of what is always
    /// printed. It stands for an absent key of a list's item, too.
    pub fn presumed(&self) -> Option<Value> {
        if !self.default().is_empty() {
            return serde_json::from_str(self.default()).ok();
        }
        let is_object = matches!(self.schema.what, What::Object(_));
        let printed = !self.pointer && (is_object || !self.omitempty);
        self.schema
            .zero()
            .filter(|_| printed && self.schema.constraints.is_none())
    }

    /// OpenAPI's default, as JSON; empty: none.
    pub fn default(&self) -> &'static str {
        self.rare(|rare| rare.default)
    }

    /// The Go name of a named scalar (`v1.Protocol`), for error texts; else empty.
    pub fn go_type(&self) -> &'static str {
        self.rare(|rare| rare.go_type)
    }

    /// OpenAPI's enum values, with a `|` between two.
    pub fn enumeration(&self) -> &'static str {
        self.rare(|rare| rare.enumeration)
    }

    /// `atomic` where OpenAPI says so of bytes.
    pub(crate) fn bytes_list_type(&self) -> &'static str {
        self.rare(|rare| rare.list_type)
    }

    /// The Go type as error texts print it: `[]v1.Container`, `map[string]string`.
    pub fn go_name(&self) -> String {
        let collection = self.rare(|rare| rare.go_collection);
        let element = match self.go_type() {
            "" => self.schema.element().go_name(),
            named => named,
        };
        match &self.schema.what {
            _ if !collection.is_empty() => collection.to_string(),
            What::List(list) if !list.wrapped => format!("[]{element}"),
            What::Map(_) => format!("map[string]{element}"),
            _ => element.to_string(),
        }
    }

    /// Whether server-side apply replaces the value as a whole, as far as objects and maps go: lists say it themselves.
    pub fn is_atomic(&self) -> bool {
        self.atomic.unwrap_or(match &self.schema.what {
            What::Object(object) => object.atomic,
            What::Map(map) => map.atomic,
            _ => false,
        })
    }
}

impl Node {
    /// Go's zero value, where OpenAPI v3 names it.
    pub fn zero(&self) -> Option<Value> {
        Some(match &self.what {
            What::Object(_) => json!({}),
            What::Scalar(Scalar::String) => "".into(),
            What::Scalar(Scalar::Bool) => false.into(),
            What::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => 0.into(),
            _ => return None,
        })
    }
    pub const fn new(what: What) -> Node {
        Node {
            what,
            constraints: None,
        }
    }

    /// Of a custom kind.
    pub fn is_custom(&self) -> bool {
        self.constraints.is_some()
    }

    pub fn as_object(&self) -> Option<&Object> {
        match &self.what {
            What::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A list's items, a map's values, else itself. A list that protobuf wraps is one value.
    pub fn element(&self) -> &Node {
        match &self.what {
            What::List(list) if !list.wrapped => &list.items,
            What::Map(map) => &map.values,
            _ => self,
        }
    }

    /// Sorted by name; none but an object's.
    pub fn fields(&self) -> &[Field] {
        self.as_object().map_or(&[], Object::fields)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.as_object()?.field(name)
    }

    /// OpenAPI's name of a built-in type, `io.k8s.api.core.v1.PodSpec`; else empty.
    pub fn name(&self) -> &'static str {
        self.as_object().map_or("", Object::name)
    }

    /// Whether fields that the schema does not name are kept.
    pub fn open(&self) -> bool {
        self.as_object().is_some_and(|object| object.open)
    }

    /// `x-kubernetes-map-type: atomic` on the type itself (selectors, references).
    pub fn atomic(&self) -> bool {
        self.as_object().is_some_and(|object| object.atomic)
    }

    /// As Go's errors name the type: `v1.PodSpec`, `int32`.
    pub fn go_name(&self) -> &'static str {
        match &self.what {
            What::Scalar(scalar) => scalar.go_name(),
            What::Any(any) => any.go_name(),
            What::Object(object) => object.go_name(),
            What::List(_) => "[]string",
            What::Map(_) => "map",
            What::SchemaOr(Or::Bool, _) => "v1.JSONSchemaPropsOrBool",
            What::SchemaOr(Or::Array, _) => "v1.JSONSchemaPropsOrArray",
            What::SchemaOr(Or::Strings, _) => "v1.JSONSchemaPropsOrStringArray",
        }
    }
}

impl Scalar {
    fn go_name(self) -> &'static str {
        match self {
            Scalar::String => "string",
            Scalar::Bool => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Double => "float64",
            Scalar::Bytes => "[]uint8",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
            Scalar::Quantity => "resource.Quantity",
            Scalar::IntOrString => "intstr.IntOrString",
        }
    }
}

impl Any {
    fn go_name(self) -> &'static str {
        match self {
            Any::FieldsV1 => "v1.FieldsV1",
            Any::RawExtension => "runtime.RawExtension",
            Any::Json => "v1.JSON",
            Any::Value => "interface {}",
        }
    }
}

/// What a protobuf field number of a message means.
pub(crate) enum WireField<'s> {
    Field(&'s Field),
    /// An inlined struct: its own message, whose fields belong to the outer JSON object.
    Inline(&'s Schema),
}

/// An object's fields, and how they are found.
#[derive(Default)]
pub(crate) struct Fields {
    /// Sorted by name.
    all: Box<[Field]>,
    /// Where a name's field stands in `all`: a table of open addresses, its size a power of two. None: there is no good one.
    slots: Box<[u16]>,
    /// Indices of the fields that Go prints even when they are zero.
    printed: Box<[u32]>,
    /// By protobuf number: an index of `all`, or, with the first bit, of `inlined`.
    numbers: Box<[u16]>,
    inlined: Box<[Schema]>,
}

const EMPTY: u16 = u16::MAX;
const INLINED: u16 = 1 << 15;

impl Fields {
    /// Those of an object, in any order; `inlined` are the inlined structs by the numbers of their messages.
    pub(crate) fn new(mut all: Vec<Field>, inlined: Vec<(u16, Schema)>) -> Fields {
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let (mut printed, mut numbers) = (Vec::new(), Vec::new());
        let mut number = |number: u16, what: u16| {
            let number = usize::from(number);
            numbers.resize(numbers.len().max(number + 1), EMPTY);
            numbers[number] = what;
        };
        for (at, field) in all.iter().enumerate() {
            if field.tag != 0 && field.outer == [0, 0] {
                number(field.tag, at as u16);
            }
            if field.printed_when_zero() {
                printed.push(at as u32);
            }
        }
        for (at, (of, _)) in inlined.iter().enumerate() {
            number(*of, at as u16 | INLINED);
        }
        Fields {
            slots: slots(&all),
            all: all.into_boxed_slice(),
            printed: printed.into_boxed_slice(),
            numbers: numbers.into_boxed_slice(),
            inlined: inlined.into_iter().map(|(_, ty)| ty).collect(),
        }
    }
}

impl Fields {
    pub(crate) fn all(&self) -> &[Field] {
        &self.all
    }

    /// A field's index.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        if self.slots.is_empty() {
            return self.all.binary_search_by(|field| (*field.name).cmp(name)).ok();
        }
        // Once per key of every body: a binary search's string comparisons would be a fifth of a decode.
        let mask = self.slots.len().wrapping_sub(1);
        let mut slot = slot(name);
        loop {
            let at = usize::from(*self.slots.get(slot & mask)?);
            if *self.all.get(at)?.name == *name {
                return Some(at);
            }
            slot += 1;
        }
    }

    /// The fields that Go prints even when they are zero.
    pub(crate) fn printed(&self) -> impl Iterator<Item = &Field> {
        self.printed.iter().map(|&at| &self.all[at as usize])
    }

    /// What a protobuf field number means.
    pub(crate) fn wire(&self, number: u32) -> Option<WireField<'_>> {
        let at = *self.numbers.get(number as usize)?;
        match self.all.get(usize::from(at)) {
            Some(field) => Some(WireField::Field(field)),
            // Of what is empty there is none.
            None => self.inlined.get(usize::from(at ^ INLINED)).map(WireField::Inline),
        }
    }
}

impl Field {
    /// Go's `omitempty` does not omit structs; without it everything is printed.
    fn printed_when_zero(&self) -> bool {
        if self.omitzero {
            return false;
        }
        if !self.omitempty {
            return true;
        }
        let is_struct = matches!(
            self.schema.what,
            What::Object(_)
                | What::Scalar(Scalar::Time | Scalar::MicroTime | Scalar::Quantity)
                | What::Any(Any::RawExtension)
        );
        is_struct && !self.pointer
    }
}

/// More fields than any type has whose places are looked up in a table, and a longer way through one than there ever is, but
/// where somebody chose the names for it.
const MOST_SLOTS: usize = 1 << 14;
const LONGEST_WAY: usize = 128;

/// A table of the fields' places by their names; half of it stays empty, so that a look-up ends. None where it is no good:
/// a custom kind's author chooses the names.
fn slots(fields: &[Field]) -> Box<[u16]> {
    if fields.is_empty() || fields.len() > MOST_SLOTS {
        return Box::default();
    }
    let size = (fields.len() * 2).next_power_of_two();
    let mut slots = vec![EMPTY; size];
    for (at, field) in fields.iter().enumerate() {
        let mut slot = slot(&field.name);
        while slots[slot & (size - 1)] != EMPTY {
            slot += 1;
        }
        slots[slot & (size - 1)] = at as u16;
    }
    if slots.split(|at| *at == EMPTY).any(|way| way.len() > LONGEST_WAY) {
        return Box::default();
    }
    slots.into_boxed_slice()
}

/// A cheap hash: names of one type rarely share length, first, middle and last byte.
fn slot(name: &str) -> usize {
    let bytes = name.as_bytes();
    let Some((first, last)) = bytes.first().zip(bytes.last()) else {
        return 0;
    };
    let mixed = bytes.len() * 0x9e5 + usize::from(*first) * 0x1f35 + usize::from(*last) * 0x3a7;
    let mixed = mixed + usize::from(bytes[bytes.len() / 2]) * 0x8b;
    mixed ^ (mixed >> 7)
}

impl Object {
    /// A built-in type, whose fields are yet to be set.
    pub(crate) fn of_go(go: GoType, atomic: bool) -> Object {
        Object {
            fields: OnceLock::new(),
            open: false,
            atomic,
            go: Some(Box::new(go)),
        }
    }

    /// A custom kind's.
    pub(crate) fn custom(fields: Vec<Field>, open: bool, atomic: bool) -> Object {
        Object {
            fields: OnceLock::from(Fields::new(fields, Vec::new())),
            open,
            atomic,
            go: None,
        }
    }

    /// Only the first call counts.
    pub(crate) fn set_fields(&self, fields: Fields) {
        let _ = self.fields.set(fields);
    }

    pub(crate) fn known(&self) -> &Fields {
        self.fields.get_or_init(Fields::default)
    }

    pub fn name(&self) -> &'static str {
        self.go.as_ref().map_or("", |go| go.name)
    }

    pub fn go_name(&self) -> &'static str {
        self.go.as_ref().map_or("", |go| go.go_name)
    }

    /// The (group, version, kind)s that are this type.
    pub fn kinds(&self) -> &[[&'static str; 3]] {
        self.go.as_ref().map_or(&[], |go| &go.kinds)
    }

    /// Sorted by name.
    pub fn fields(&self) -> &[Field] {
        &self.known().all
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        let known = self.known();
        known.find(name).map(|at| &known.all[at])
    }
}
