//! Reads `data/schema.tsv`. Lines, tab-separated:
//!
//! - `T name go-name flags`: a type; its fields follow. Flags: `a` atomic.
//! - `K group version kind`: the type above is that kind.
//! - `I number type`: an inlined struct of the type above: its message's number.
//! - `name kind flags tag extras…`: a field. Kind is `[]` or `{}` (list, map) and a letter, or the index of a type.
//!   Flags: `p` pointer, `e` omitempty, `z` omitzero, `r` required, `a` atomic, `g` granular. Tag: `3`, or `2.3` inside the embedded
//!   message 2. Extras: `l=` list type, `k=` list map keys, `m=` merge key, `s=` patch strategy, `d=` default, `g=` Go
//!   type, `G=` Go type of the whole list or map, `n=` enum.

use std::collections::HashMap;

use super::{Base, FieldInfo, ListType, PatchStrategy, Schema, Shape, TypeInfo, TypeRef, Wire};

pub(crate) const TEXT: &str = include_str!("../../data/schema.tsv");

pub(super) fn parse(text: &'static str) -> Schema {
    let mut types: Vec<TypeInfo> = Vec::with_capacity(1024);
    let mut fields: Vec<FieldInfo> = Vec::new();
    for line in text.lines() {
        let mut cells = line.split('\t');
        match cells.next().unwrap_or_default() {
            "" => {}
            "T" => {
                close(&mut types, &mut fields);
                let name = cells.next().unwrap_or_default();
                let go_name = cells.next().unwrap_or_default();
                let flags = cells.next().unwrap_or_default();
                types.push(TypeInfo {
                    name,
                    go_name,
                    fields: Box::default(),
                    slots: Box::default(),
                    printed: Box::default(),
                    wire: Box::default(),
                    open: false,
                    atomic: flags.contains('a'),
                    kinds: Vec::new(),
                });
            }
            "K" => {
                let kind = [(); 3].map(|()| cells.next().unwrap_or_default());
                if let Some(ty) = types.last_mut() {
                    ty.kinds.push(kind);
                }
            }
            "I" => {
                let message = number(cells.next());
                let inner = TypeRef(number(cells.next()));
                if let Some(ty) = types.last_mut() {
                    let mut wire = std::mem::take(&mut ty.wire).into_vec();
                    wire.push((message, Wire::Inline(inner)));
                    ty.wire = wire.into_boxed_slice();
                }
            }
            name => fields.push(field(name, cells)),
        }
    }
    close(&mut types, &mut fields);
    add_custom(&mut types);
    indexed(types)
}

/// The schema of these types; the last of them stands for what a custom resource leaves open.
fn indexed(types: Vec<TypeInfo>) -> Schema {
    let mut by_name = HashMap::with_capacity(types.len());
    let mut by_kind = HashMap::with_capacity(256);
    for (at, ty) in types.iter().enumerate() {
        let reference = TypeRef(at as u16);
        by_name.insert(ty.name, reference);
        for kind in &ty.kinds {
            by_kind.insert(*kind, reference);
        }
    }
    Schema {
        json_schema: by_name
            .get("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            .copied(),
        custom: TypeRef((types.len() - 1) as u16),
        types,
        by_name,
        by_kind,
    }
}

/// The decoder marks which of a type's fields it has seen in so many bits.
const MAX_FIELDS: usize = 128;

/// Gives the last type the fields read since its line.
fn close(types: &mut [TypeInfo], fields: &mut Vec<FieldInfo>) {
    let Some(ty) = types.last_mut() else { return };
    let mut fields = std::mem::take(fields);
    fields.sort_unstable_by_key(|field| field.name);
    debug_assert!(fields.len() <= MAX_FIELDS, "{} has too many fields", ty.name);
    let mut wire = std::mem::take(&mut ty.wire).into_vec();
    for (at, field) in fields.iter().enumerate() {
        if field.tag != 0 && field.outer == [0, 0] {
            wire.push((field.tag, Wire::Field(at as u16)));
        }
    }
    wire.sort_unstable_by_key(|(number, _)| *number);
    ty.wire = wire.into_boxed_slice();
    ty.printed = fields
        .iter()
        .enumerate()
        .filter(|(_, field)| printed_when_zero(field))
        .map(|(at, _)| at as u16)
        .collect();
    ty.fields = fields.into_boxed_slice();
    ty.index();
}

/// Go's `omitempty` does not omit structs; without it everything is printed.
fn printed_when_zero(field: &FieldInfo) -> bool {
    if field.omitzero {
        return false;
    }
    if !field.omitempty {
        return true;
    }
    let is_struct = matches!(
        field.base,
        Base::Struct(_) | Base::Time | Base::MicroTime | Base::RawExtension | Base::Quantity
    );
    is_struct && field.shape == Shape::One && !field.pointer
}

fn field(name: &'static str, mut cells: std::str::Split<'static, char>) -> FieldInfo {
    let kind = cells.next().unwrap_or_default();
    let flags = cells.next().unwrap_or_default();
    let tags = cells.next().unwrap_or_default();
    let (shape, letter) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(rest), _) => (Shape::List, rest),
        (_, Some(rest)) => (Shape::Map, rest),
        _ => (Shape::One, kind),
    };
    let (outer, tag) = numbers(tags);
    let mut info = FieldInfo {
        name,
        shape,
        base: base(letter),
        pointer: flags.contains('p'),
        omitempty: flags.contains('e'),
        omitzero: flags.contains('z'),
        required: flags.contains('r'),
        tag,
        outer,
        list_type: ListType::Unset,
        atomic: flags.contains('a'),
        granular: flags.contains('g'),
        list_keys: "",
        merge_key: "",
        patch_strategy: PatchStrategy {
            merge: false,
            retain_keys: false,
            replace: false,
        },
        default: "",
        go_type: "",
        go_collection: "",
        enumeration: "",
    };
    for extra in cells {
        set_extra(&mut info, extra);
    }
    info
}

/// A tag: the messages the field lies in, and its number.
fn numbers(tags: &str) -> ([u8; 2], u16) {
    let mut path = tags.split('.').map(|part| part.parse::<u16>().unwrap_or(0));
    let (mut outer, mut tag) = ([0u8; 2], path.next().unwrap_or(0));
    for (depth, number) in path.enumerate() {
        if depth < outer.len() {
            outer[depth] = tag as u8;
        }
        tag = number;
    }
    (outer, tag)
}

fn set_extra(info: &mut FieldInfo, extra: &'static str) {
    let (key, value) = extra.split_once('=').unwrap_or((extra, ""));
    match key {
        "l" => {
            info.list_type = match value {
                "map" => ListType::Map,
                "set" => ListType::Set,
                _ => ListType::Atomic,
            }
        }
        "k" => info.list_keys = value,
        "m" => info.merge_key = value,
        "s" => {
            info.patch_strategy = PatchStrategy {
                merge: value.contains("merge"),
                retain_keys: value.contains("retainKeys"),
                replace: value.contains("replace"),
            }
        }
        "d" => info.default = value,
        "g" => info.go_type = value,
        "G" => info.go_collection = value,
        "n" => info.enumeration = value,
        _ => {}
    }
}

fn base(letter: &str) -> Base {
    match letter {
        "s" => Base::String,
        "b" => Base::Bool,
        "i" => Base::Int32,
        "l" => Base::Int64,
        "d" => Base::Double,
        "y" => Base::Bytes,
        "t" => Base::Time,
        "m" => Base::MicroTime,
        "q" => Base::Quantity,
        "o" => Base::IntOrString,
        "f" => Base::FieldsV1,
        "r" => Base::RawExtension,
        "j" => Base::Json,
        "w" => Base::Strings,
        "B" => Base::SchemaOrBool,
        "A" => Base::SchemaOrArray,
        "S" => Base::SchemaOrStrings,
        "x" => Base::Any,
        index => Base::Struct(TypeRef(number(Some(index)))),
    }
}

fn number(cell: Option<&str>) -> u16 {
    cell.and_then(|cell| cell.parse().ok()).unwrap_or(0)
}

/// The type that custom resources are decoded by; it is in no Go package.
fn add_custom(types: &mut Vec<TypeInfo>) {
    let metadata = types
        .iter()
        .position(|ty| ty.name == "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .unwrap_or(0);
    types.push(TypeInfo {
        name: "",
        go_name: "unstructured.Unstructured",
        fields: Box::default(),
        slots: Box::default(),
        printed: Box::default(),
        wire: Box::default(),
        open: true,
        atomic: false,
        kinds: Vec::new(),
    });
    let object = "s\te\t0".split('\t');
    let mut fields = vec![field("apiVersion", object.clone()), field("kind", object)];
    let mut info = field("metadata", "x\te\t0".split('\t'));
    info.base = Base::Struct(TypeRef(metadata as u16));
    info.pointer = true;
    fields.push(info);
    close(types, &mut fields);
}
