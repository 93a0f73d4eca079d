//! The schema of every built-in type as one compact table: field names, Go kinds, protobuf numbers, list types, merge
//! keys, defaults. Codecs, strategic merge, validation of unknown fields and OpenAPI all read it; nothing else in mk8s
//! knows the shape of a kind.
//!
//! The table is `data/schema.tsv`, written by `hack/update-schema.sh` from upstream's Go types; it is parsed once, when
//! first asked for. Every string of it is a slice of the program's own text, so it costs some hundred KiB of memory.

mod load;

pub(crate) use load::TEXT;

use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| load::parse(load::TEXT));

/// A type of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeRef(pub(crate) u16);

impl std::fmt::Debug for TypeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a field holds one value, a list or a map (its keys are always strings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    One,
    List,
    Map,
}

/// What a field's value, or an element of its list or map, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    Struct(TypeRef),
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with six decimals.
    MicroTime,
    Quantity,
    IntOrString,
    /// metav1.FieldsV1: any JSON object.
    FieldsV1,
    /// runtime.RawExtension: any JSON.
    RawExtension,
    /// apiextensions JSON: any JSON.
    Json,
    /// Any JSON, never in protobuf.
    Any,
    /// A list of strings that protobuf wraps in a message of its own (authentication's ExtraValue).
    Strings,
    /// apiextensions: a schema or a boolean.
    SchemaOrBool,
    /// apiextensions: a schema or a list of schemas.
    SchemaOrArray,
    /// apiextensions: a schema or a list of strings.
    SchemaOrStrings,
}

/// How items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Unset,
    Atomic,
    Set,
    Map,
}

/// Strategic merge's word for a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge (by `merge_key`, or as sets of scalars), instead of being replaced.
    pub merge: bool,
    /// Keys that the patch does not name are cleared.
    pub retain_keys: bool,
    /// The whole is replaced.
    pub replace: bool,
}

/// One JSON field of a type. Fields of Go's inlined structs stand in the type that inlines them.
#[derive(Debug)]
pub struct FieldInfo {
    pub name: &'static str,
    pub shape: Shape,
    pub base: Base,
    /// A pointer in Go: an explicit zero is kept and printed.
    pub pointer: bool,
    pub omitempty: bool,
    pub omitzero: bool,
    /// Listed in OpenAPI's `required`.
    pub required: bool,
    /// The protobuf field number; 0: not in protobuf.
    pub tag: u16,
    /// The numbers of the embedded messages that the field lies in, outermost first; 0: none.
    pub outer: [u8; 2],
    pub list_type: ListType,
    /// `x-kubernetes-map-type: atomic`: the object is replaced as a whole by server-side apply.
    pub atomic: bool,
    /// `x-kubernetes-map-type: granular`: its fields have owners of their own, though its type is atomic.
    pub granular: bool,
    /// `x-kubernetes-list-map-keys`, separated by spaces.
    pub list_keys: &'static str,
    pub merge_key: &'static str,
    pub patch_strategy: PatchStrategy,
    /// OpenAPI's default, as JSON; empty: none.
    pub default: &'static str,
    /// The Go name of a named scalar (`v1.Protocol`), for error texts; else empty.
    pub go_type: &'static str,
    /// The Go name of a named list or map (`v1.ResourceList`); else empty.
    pub go_collection: &'static str,
    /// OpenAPI's enum values, separated by spaces.
    pub enumeration: &'static str,
}

impl FieldInfo {
    /// The Go type as error texts print it: `[]v1.Container`, `map[string]string`.
    pub fn go_name(&self) -> String {
        let base = if self.go_type.is_empty() {
            self.base.go_name()
        } else {
            self.go_type
        };
        match self.shape {
            _ if !self.go_collection.is_empty() => self.go_collection.to_string(),
            Shape::One => base.to_string(),
            Shape::List => format!("[]{base}"),
            Shape::Map => format!("map[string]{base}"),
        }
    }

    /// The type of the value, element or map value where it is a struct.
    pub fn struct_type(&self) -> Option<TypeRef> {
        match self.base {
            Base::Struct(ty) => Some(ty),
            _ => None,
        }
    }
}

impl Base {
    pub(crate) fn go_name(self) -> &'static str {
        match self {
            Base::String => "string",
            Base::Bool => "bool",
            Base::Int32 => "int32",
            Base::Int64 => "int64",
            Base::Double => "float64",
            Base::Bytes => "[]uint8",
            Base::Struct(ty) => ty.go_name(),
            Base::Time => "v1.Time",
            Base::MicroTime => "v1.MicroTime",
            Base::Quantity => "resource.Quantity",
            Base::IntOrString => "intstr.IntOrString",
            Base::FieldsV1 => "v1.FieldsV1",
            Base::RawExtension => "runtime.RawExtension",
            Base::Json => "v1.JSON",
            Base::Any => "interface {}",
            Base::Strings => "[]string",
            Base::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
            Base::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
            Base::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
        }
    }
}

/// What a protobuf field number of a message means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    /// A field of the type, by its index in the type's fields.
    Field(u16),
    /// An inlined struct: its own message, whose fields belong to the outer JSON object.
    Inline(TypeRef),
}

#[derive(Debug)]
pub(crate) struct TypeInfo {
    /// OpenAPI's name: `io.k8s.api.core.v1.Pod`.
    pub(crate) name: &'static str,
    /// Go's: `v1.Pod`.
    pub(crate) go_name: &'static str,
    /// Sorted by name.
    pub(crate) fields: Box<[FieldInfo]>,
    /// Where a name's field stands in `fields`: a table of open addresses, its size a power of two.
    pub(crate) slots: Box<[u8]>,
    /// Indices of the fields that Go prints even when they are zero.
    pub(crate) printed: Box<[u16]>,
    /// By number.
    pub(crate) wire: Box<[(u16, Wire)]>,
    /// Unknown fields are kept (custom resources).
    pub(crate) open: bool,
    pub(crate) atomic: bool,
    /// (group, version, kind) of those that stand for the type, at most one but for metav1's.
    pub(crate) kinds: Vec<[&'static str; 3]>,
}

pub(crate) struct Schema {
    pub(crate) types: Vec<TypeInfo>,
    pub(crate) by_name: HashMap<&'static str, TypeRef>,
    pub(crate) by_kind: HashMap<[&'static str; 3], TypeRef>,
    pub(crate) json_schema: Option<TypeRef>,
    pub(crate) custom: TypeRef,
}

impl TypeRef {
    pub(crate) fn info(self) -> &'static TypeInfo {
        &SCHEMA.types[usize::from(self.0)]
    }

    /// `io.k8s.api.core.v1.PodSpec`
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// `v1.PodSpec`
    pub fn go_name(self) -> &'static str {
        self.info().go_name
    }

    /// Sorted by name.
    pub fn fields(self) -> &'static [FieldInfo] {
        &self.info().fields
    }

    pub fn field(self, name: &str) -> Option<&'static FieldInfo> {
        self.info().field(name).map(|(_, field)| field)
    }

    /// Whether fields that the table does not name are kept (a custom resource's).
    pub fn open(self) -> bool {
        self.info().open
    }

    /// `x-kubernetes-map-type: atomic` on the type itself (selectors, references).
    pub fn atomic(self) -> bool {
        self.info().atomic
    }

    /// The (group, version, kind)s that are this type.
    pub fn kinds(self) -> &'static [[&'static str; 3]] {
        &self.info().kinds
    }
}

impl TypeInfo {
    pub(crate) fn field(&self, name: &str) -> Option<(usize, &FieldInfo)> {
        // Once per key of every body: a binary search's string comparisons would be a fifth of a decode.
        let mut slot = slot(name);
        loop {
            let at = usize::from(*self.slots.get(slot & self.slots.len().wrapping_sub(1))?);
            let field = self.fields.get(at)?;
            if field.name == name {
                return Some((at, field));
            }
            slot += 1;
        }
    }

    /// Fills `slots`; half of them stay empty, so that a look-up ends.
    pub(crate) fn index(&mut self) {
        let size = (self.fields.len() * 2).next_power_of_two();
        let mut slots = vec![u8::MAX; if self.fields.is_empty() { 0 } else { size }];
        for (at, field) in self.fields.iter().enumerate() {
            let mut slot = slot(field.name);
            while slots[slot & (size - 1)] != u8::MAX {
                slot += 1;
            }
            slots[slot & (size - 1)] = at as u8;
        }
        self.slots = slots.into_boxed_slice();
    }

    pub(crate) fn wire(&self, number: u32) -> Option<Wire> {
        let number = u16::try_from(number).ok()?;
        let at = self.wire.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.wire[at].1)
    }
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

/// The type of a kind; metav1's options are kinds of every group and version.
pub fn by_gvk(group: &str, version: &str, kind: &str) -> Option<TypeRef> {
    let schema = &*SCHEMA;
    fn find(schema: &Schema, group: &str, version: &str, kind: &str) -> Option<TypeRef> {
        // Covariance: a map with 'static keys may be asked with shorter ones.
        let kinds: &HashMap<[&str; 3], TypeRef> = &schema.by_kind;
        kinds.get(&[group, version, kind]).copied()
    }
    find(schema, group, version, kind).or_else(|| match kind {
        "DeleteOptions" | "CreateOptions" | "UpdateOptions" | "PatchOptions" | "GetOptions" | "ListOptions"
        | "WatchEvent" => find(schema, "", "v1", kind),
        _ => None,
    })
}

/// The type of an `apiVersion` and `kind`.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<TypeRef> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_gvk(group, version, kind)
}

/// By OpenAPI's name: `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`.
pub fn by_name(name: &str) -> Option<TypeRef> {
    SCHEMA.by_name.get(name).copied()
}

/// What every custom resource is: kind, apiVersion and typed metadata; all other fields are kept as they are.
pub fn custom() -> TypeRef {
    SCHEMA.custom
}

/// Every type of the table.
pub fn types() -> impl Iterator<Item = TypeRef> {
    (0..SCHEMA.types.len() as u16).map(TypeRef)
}
