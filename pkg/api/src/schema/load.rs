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

use super::{Any, Field, Fields, GoType, List, ListType, Map, Node, Object, Or, PatchStrategy, Rare};
use super::{Scalar, Schema, What};

pub(crate) const TEXT: &str = include_str!("../../data/schema.tsv");

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// All types of a text.
pub(super) struct Table {
    pub(super) by_name: HashMap<&'static str, Schema>,
    /// kind → group, version
    pub(super) by_kind: HashMap<&'static str, Vec<([&'static str; 2], Schema)>>,
    /// What a custom resource is of which only that is known.
    pub(super) custom: Schema,
}

pub(super) fn parse(text: &'static str) -> Table {
    let mut reader = Reader::new(text);
    let (mut at, mut fields, mut inlined) = (None, Vec::new(), Vec::new());
    for line in text.lines() {
        let mut cells = line.split('\t');
        match cells.next().unwrap_or_default() {
            "" | "K" => {}
            "T" => {
                reader.close(at, &mut fields, &mut inlined);
                at = Some(at.map_or(0, |at| at + 1));
            }
            "I" => inlined.push((number(cells.next()), reader.ty(cells.next()))),
            name => {
                let position = fields.len() as u16;
                fields.push(Field {
                    position,
                    ..reader.field(name, cells)
                });
            }
        }
    }
    reader.close(at, &mut fields, &mut inlined);
    reader.into_table()
}

/// A list's or map's letters, list type, keys, and whether a map is atomic.
type NodeKey = (&'static str, &'static str, &'static str, bool);

struct Reader {
    /// In the table's order; fields name them by their place, also those that come later.
    types: Vec<Schema>,
    /// Of scalars, lists and maps: equal ones are one.
    nodes: HashMap<NodeKey, Schema>,
    json_schema: Schema,
}

impl Reader {
    /// Knows every type, none of its fields.
    fn new(text: &'static str) -> Reader {
        let mut heads: Vec<(GoType, bool)> = Vec::with_capacity(1024);
        for line in text.lines() {
            let mut cells = line.split('\t');
            match cells.next() {
                Some("T") => {
                    let mut next = || cells.next().unwrap_or_default();
                    let (name, go_name, flags) = (next(), next(), next());
                    let kinds = Vec::new();
                    heads.push((GoType { name, go_name, kinds }, flags.contains('a')));
                }
                Some("K") => {
                    if let Some((ty, _)) = heads.last_mut() {
                        ty.kinds.push([(); 3].map(|()| cells.next().unwrap_or_default()));
                    }
                }
                _ => {}
            }
        }
        let types: Vec<Schema> = heads.into_iter().map(|(go, atomic)| object(go, atomic)).collect();
        let json_schema = named(&types, JSON_SCHEMA);
        Reader {
            types,
            nodes: HashMap::new(),
            json_schema,
        }
    }

    fn ty(&self, index: Option<&str>) -> Schema {
        match self.types.get(usize::from(number(index))) {
            Some(ty) => ty.clone(),
            None => object(GoType::default(), false),
        }
    }

    /// Gives a type the fields read since its line.
    fn close(&mut self, at: Option<usize>, fields: &mut Vec<Field>, inlined: &mut Vec<(u16, Schema)>) {
        let Some(ty) = at.and_then(|at| self.types.get(at)) else {
            return;
        };
        debug_assert!(fields.len() <= MAX_FIELDS, "{} has too many fields", ty.name());
        set_fields(ty, std::mem::take(fields), std::mem::take(inlined));
    }

    fn field(&mut self, name: &'static str, mut cells: std::str::Split<'static, char>) -> Field {
        let kind = cells.next().unwrap_or_default();
        let flags = cells.next().unwrap_or_default();
        let (outer, tag) = numbers(cells.next().unwrap_or_default());
        let (mut rare, mut patch_strategy) = (Rare::default(), PatchStrategy::default());
        let (mut list_type, mut keys) = ("", "");
        for extra in cells {
            let (key, value) = extra.split_once('=').unwrap_or((extra, ""));
            match key {
                "l" => list_type = value,
                "k" => keys = value,
                "m" => rare.merge_key = value,
                "s" => {
                    patch_strategy = PatchStrategy {
                        merge: value.contains("merge"),
                        retain_keys: value.contains("retainKeys"),
                        replace: value.contains("replace"),
                    }
                }
                "d" => rare.default = value,
                "g" => rare.go_type = value,
                "G" => rare.go_collection = value,
                "n" => rare.enumeration = value,
                _ => {}
            }
        }
        if kind == "y" {
            rare.list_type = list_type;
        }
        let empty = [
            rare.merge_key,
            rare.default,
            rare.go_type,
            rare.go_collection,
            rare.enumeration,
            rare.list_type,
        ]
        .concat();
        Field {
            name: name.into(),
            schema: self.node((kind, list_type, keys, flags.contains('a'))),
            pointer: flags.contains('p'),
            omitempty: flags.contains('e'),
            omitzero: flags.contains('z'),
            required: flags.contains('r'),
            atomic: match flags {
                flags if flags.contains('a') => Some(true),
                flags if flags.contains('g') => Some(false),
                _ => None,
            },
            patch_strategy,
            tag,
            outer,
            position: 0,
            rare: (!empty.is_empty()).then(|| Box::new(rare)),
        }
    }

    fn node(&mut self, key: NodeKey) -> Schema {
        let (kind, list_type, keys, atomic) = key;
        if kind.parse::<u16>().is_ok() {
            return self.ty(Some(kind));
        }
        if let Some(made) = self.nodes.get(&key) {
            return made.clone();
        }
        let what = if let Some(items) = kind.strip_prefix("[]") {
            What::List(List {
                items: self.node((items, "", "", false)),
                list_type: match list_type {
                    "map" => ListType::Map,
                    "set" => ListType::Set,
                    "atomic" => ListType::Atomic,
                    _ => ListType::Unset,
                },
                keys: keys.split(' ').filter(|key| !key.is_empty()).map(Into::into).collect(),
                wrapped: false,
            })
        } else if let Some(values) = kind.strip_prefix("{}") {
            let values = self.node((values, "", "", false));
            What::Map(Map { values, atomic })
        } else {
            self.leaf(kind)
        };
        let made = Schema::new(Node::new(what));
        self.nodes.insert(key, made.clone());
        made
    }

    fn leaf(&mut self, letter: &str) -> What {
        What::Scalar(match letter {
            "s" => Scalar::String,
            "b" => Scalar::Bool,
            "i" => Scalar::Int32,
            "l" => Scalar::Int64,
            "d" => Scalar::Double,
            "y" => Scalar::Bytes,
            "t" => Scalar::Time,
            "m" => Scalar::MicroTime,
            "q" => Scalar::Quantity,
            "o" => Scalar::IntOrString,
            "f" => return What::Any(Any::FieldsV1),
            "r" => return What::Any(Any::RawExtension),
            "j" => return What::Any(Any::Json),
            "B" => return What::SchemaOr(Or::Bool, self.json_schema.clone()),
            "A" => return What::SchemaOr(Or::Array, self.json_schema.clone()),
            "S" => return What::SchemaOr(Or::Strings, self.json_schema.clone()),
            "w" => {
                return What::List(List {
                    items: self.node(("s", "", "", false)),
                    list_type: ListType::Unset,
                    keys: Box::default(),
                    wrapped: true,
                });
            }
            _ => return What::Any(Any::Value),
        })
    }

    /// With the type that custom resources are decoded by; it is in no Go package.
    fn into_table(mut self) -> Table {
        let object = "s\te\t0".split('\t');
        let mut metadata = self.field("metadata", "x\te\t0".split('\t'));
        metadata.schema = named(&self.types, OBJECT_META);
        metadata.pointer = true;
        let fields = vec![
            self.field("apiVersion", object.clone()),
            self.field("kind", object),
            metadata,
        ];
        let mut custom = Object::of_go(
            GoType {
                go_name: "unstructured.Unstructured",
                ..GoType::default()
            },
            false,
        );
        custom.open = true;
        custom.set_fields(Fields::new(fields, Vec::new()));
        let mut by_kind: HashMap<_, Vec<_>> = HashMap::with_capacity(256);
        let mut by_name = HashMap::with_capacity(self.types.len());
        for ty in &self.types {
            by_name.insert(ty.name(), ty.clone());
            for kind in ty.as_object().map_or(&[][..], Object::kinds) {
                let [group, version, kind] = *kind;
                by_kind.entry(kind).or_default().push(([group, version], ty.clone()));
            }
        }
        Table {
            by_name,
            by_kind,
            custom: Schema::new(Node::new(What::Object(custom))),
        }
    }
}

/// The decoder marks which of a type's fields it has seen in so many bits.
const MAX_FIELDS: usize = 128;

fn object(go: GoType, atomic: bool) -> Schema {
    Schema::new(Node::new(What::Object(Object::of_go(go, atomic))))
}

fn set_fields(ty: &Schema, fields: Vec<Field>, inlined: Vec<(u16, Schema)>) {
    if let Some(object) = ty.as_object() {
        object.set_fields(Fields::new(fields, inlined));
    }
}

fn named(types: &[Schema], name: &str) -> Schema {
    let found = types.iter().find(|ty| ty.name() == name).cloned();
    found.unwrap_or_else(|| object(GoType::default(), false))
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

fn number(cell: Option<&str>) -> u16 {
    cell.and_then(|cell| cell.parse().ok()).unwrap_or(0)
}
