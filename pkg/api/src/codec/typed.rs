//! The one pass that turns input of any format into the tree of a type: what upstream does by decoding into a Go struct
//! and printing it again.
//!
//! - A field that the type lacks is dropped and noted; a key that comes twice is noted, the last wins.
//! - A value of the wrong type ends the pass with Go's words.
//! - Zero values go where Go's `omitempty` drops them; what Go prints even when zero is filled in.
//! - Times, quantities and base64 get their canonical form.
//!
//! Paths of problems are built on the way out, so that an input without problems pays nothing for them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::converter::{self, Found};
use super::error::{DecodeError, MAX_DEPTH};
use super::scalar;
use crate::bounded;
use crate::quantity::QuantityError;
use crate::schema::{Any, Field, Fields, Node, Object, Or, Scalar, Schema, What, WireField};

/// The request's `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    Strict,
    #[default]
    Warn,
    Ignore,
}

/// A decoded body and what strict decoding has against it, in upstream's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.x"`, `duplicate field "spec.y"`. Strict joins them with `, ` behind `strict decoding error: `;
    /// Warn sends each as a warning. Empty for Ignore.
    pub problems: Vec<String>,
}

/// Upstream stops collecting here.
const MAX_PROBLEMS: usize = 100;
/// Bytes of all problems together: a key is printed at up to six times its length.
const MAX_TOLD: usize = 64 << 10;

/// Rewrites a tree as decoding its text would: after a patch, and for trees from elsewhere.
pub fn conform(value: Value, ty: &Schema, validation: Validation) -> Result<Decoded, DecodeError> {
    rewrite(value, ty, Context::new(validation))
}

/// The same as upstream's converter does it, which takes whole floats for integers, and speaks otherwise.
pub fn convert(value: Value, ty: &Schema, validation: Validation) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(validation);
    context.converts = true;
    rewrite(value, ty, context)
}

fn rewrite(value: Value, ty: &Schema, mut context: Context) -> Result<Decoded, DecodeError> {
    match context.seed(Some(ty)).deserialize(value) {
        Ok(value) => Ok(context.finish(value)),
        Err(error) => Err(context.error(&error)),
    }
}

/// What is told of fields that nothing reads: no more than of those in a body.
pub fn unknown_fields(paths: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    let mut context = Context::new(Validation::Warn);
    paths.for_each(|path| context.note(ProblemKind::Unknown, path.as_ref()));
    context.finish(Value::Null).problems
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ProblemKind {
    Unknown,
    Duplicate,
}

struct Problem {
    kind: ProblemKind,
    path: String,
}

impl Problem {
    fn put_before(&mut self, step: &str) {
        let separator = if self.path.starts_with('[') { "" } else { "." };
        self.path = joined(&[step, separator, &self.path]);
    }
}

/// The steps of a path in one; a long one is cut where it is deepest.
fn joined(steps: &[&str]) -> String {
    let mut path = String::new();
    // Writing to a string does not fail.
    let _ = bounded::path(&mut path, |to| steps.iter().try_for_each(|step| to.write_str(step)));
    path
}

/// A type error on its way out, before it has its path.
struct Mismatch {
    /// Everything when no struct is around: `json: cannot unmarshal string into Go `.
    what: String,
    go_type: String,
    /// Innermost struct, and the fields from the root to it.
    structure: &'static str,
    path: String,
    /// The whole text where Go's own UnmarshalJSON spoke: no path is added.
    own: bool,
}

/// What one pass collects.
pub(super) struct Context {
    collect: bool,
    /// As upstream's converter, not as Go's JSON reader.
    converts: bool,
    problems: Vec<Problem>,
    mismatch: Option<Mismatch>,
    too_deep: bool,
}

impl Context {
    pub(super) fn new(validation: Validation) -> Self {
        Context {
            collect: validation != Validation::Ignore,
            converts: false,
            problems: Vec::new(),
            mismatch: None,
            too_deep: false,
        }
    }

    /// The root's seed; without a type any JSON passes, and only doubles are noted.
    pub(super) fn seed<'c>(&'c mut self, ty: Option<&'c Schema>) -> Typed<'c> {
        self.seed_within(ty, MAX_DEPTH)
    }

    /// The seed of a tree that lies in another one, which leaves it so many levels.
    pub(super) fn seed_within<'c>(&'c mut self, ty: Option<&'c Schema>, levels: u8) -> Typed<'c> {
        Typed {
            context: self,
            // A custom kind's other fields are checked, not decoded.
            node: match ty {
                Some(ty) if ty.is_custom() => crate::schema::custom(),
                Some(ty) => ty,
                None => &ANY,
            },
            field: None,
            levels,
        }
    }

    /// Forgets which keys came twice; whether there were any.
    pub(super) fn takes_doubles(&mut self) -> bool {
        let before = self.problems.len();
        self.problems.retain(|problem| problem.kind != ProblemKind::Duplicate);
        self.problems.len() < before
    }

    pub(super) fn finish(self, value: Value) -> Decoded {
        let mut problems: Vec<String> = Vec::with_capacity(self.problems.len().min(MAX_PROBLEMS));
        let mut told = HashSet::with_capacity(self.problems.len());
        let mut bytes = 0;
        for problem in &self.problems {
            if problems.len() == MAX_PROBLEMS || bytes > MAX_TOLD {
                break;
            }
            if !told.insert((problem.kind, problem.path.as_str())) {
                continue;
            }
            let kind = match problem.kind {
                ProblemKind::Unknown => "unknown field",
                ProblemKind::Duplicate => "duplicate field",
            };
            let text = format!("{kind} {:?}", problem.path);
            bytes += text.len();
            problems.push(text);
        }
        Decoded { value, problems }
    }

    /// Why a pass failed: what it found itself, else the parser's own text.
    pub(super) fn error(self, parser: &dyn fmt::Display) -> DecodeError {
        if self.too_deep {
            return DecodeError::TooDeep;
        }
        let Some(mismatch) = self.mismatch else {
            return DecodeError::Syntax(parser.to_string());
        };
        DecodeError::Type(match mismatch {
            mismatch if mismatch.own => mismatch.what,
            mismatch if mismatch.structure.is_empty() => format!(
                "json: cannot unmarshal {} into Go value of type {}",
                mismatch.what, mismatch.go_type
            ),
            mismatch => format!(
                "json: cannot unmarshal {} into Go struct field {}.{} of type {}",
                mismatch.what, mismatch.structure, mismatch.path, mismatch.go_type
            ),
        })
    }

    fn note(&mut self, kind: ProblemKind, path: &str) {
        // Twice the limit: doubles are dropped at the end.
        if self.collect && self.problems.len() < 2 * MAX_PROBLEMS {
            let path = joined(&[path]);
            self.problems.push(Problem { kind, path });
        }
    }

    /// Puts a map's key or a field's name before the paths noted since `since`.
    fn prefix_key(&mut self, since: usize, key: &str) {
        for problem in &mut self.problems[since..] {
            problem.put_before(key);
        }
    }

    fn prefix_index(&mut self, since: usize, index: usize) {
        let step = format!("[{index}]");
        for problem in &mut self.problems[since..] {
            problem.put_before(&step);
        }
    }

    /// Puts a struct's field before a type error that comes out of it.
    fn prefix_mismatch(&mut self, structure: &Object, field: &Field) {
        if let Some(mismatch) = &mut self.mismatch {
            let name = go_path(structure, field);
            if mismatch.structure.is_empty() {
                // Go names the innermost struct without its package.
                let go_name = structure.go_name();
                mismatch.structure = go_name.rsplit('.').next().unwrap_or(go_name);
                mismatch.path = name;
            } else {
                mismatch.path = format!("{name}.{}", mismatch.path);
            }
        }
    }
}

/// A field as Go's errors name it: behind the names of the inlined structs that it lies in.
fn go_path(mut structure: &Object, field: &Field) -> String {
    let mut path = String::new();
    for number in field.outer.iter().take_while(|number| **number != 0) {
        if let Some(WireField::Inline(inner)) = structure.known().wire(u32::from(*number))
            && let Some(inner) = inner.as_object()
        {
            structure = inner;
            path.push_str(structure.go_name().rsplit('.').next().unwrap_or_default());
            path.push('.');
        }
    }
    path.push_str(&field.name);
    path
}

/// What a value is of which nothing is known.
static ANY: Node = Node::new(What::Any(Any::Value));
pub(super) static STRING: Node = Node::new(What::Scalar(Scalar::String));

/// Decodes one value of a known type.
pub(super) struct Typed<'c> {
    context: &'c mut Context,
    node: &'c Node,
    /// The innermost field that the value lies in.
    field: Option<&'c Field>,
    /// How many levels of objects and arrays may still begin.
    levels: u8,
}

impl<'de> DeserializeSeed<'de> for Typed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'c> Typed<'c> {
    fn mismatch<E: serde::de::Error>(self, found: Found) -> E {
        if let What::Scalar(Scalar::Quantity) = self.node.what {
            return self.own_error(QuantityError::Format.to_string());
        }
        let go_type = match (self.field, &self.node.what) {
            // Go's Time reads a string first.
            (_, What::Scalar(Scalar::Time | Scalar::MicroTime)) => "string".into(),
            // And an IntOrString what is no string as a number.
            (_, What::Scalar(Scalar::IntOrString)) => "int32".into(),
            (Some(field), _) if std::ptr::eq(&*field.schema, self.node) => field.go_name(),
            (Some(field), _) if !field.go_type().is_empty() => field.go_type().to_string(),
            _ => self.node.go_name().to_string(),
        };
        let (what, own) = match self.context.converts {
            false => (found.in_json(self.node), false),
            true => match converter::words(self.node, &go_type, &found) {
                Some(words) => (words, true),
                None => {
                    let what = found.in_json(self.node);
                    (
                        format!("json: cannot unmarshal {what} into Go value of type {go_type}"),
                        true,
                    )
                }
            },
        };
        self.context.mismatch = Some(Mismatch {
            what,
            go_type,
            structure: "",
            path: String::new(),
            own,
        });
        E::custom("wrong type")
    }

    /// One level down; an error where that is one too many.
    fn descend<E: serde::de::Error>(mut self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => {
                self.levels = levels;
                Ok(self)
            }
            None => {
                self.context.too_deep = true;
                Err(E::custom("nests too deep"))
            }
        }
    }

    fn own_error<E: serde::de::Error>(self, text: String) -> E {
        self.context.mismatch = Some(Mismatch {
            what: text,
            go_type: String::new(),
            structure: "",
            path: String::new(),
            own: true,
        });
        E::custom("wrong value")
    }

    fn text<E: serde::de::Error>(self, text: impl Into<String> + AsRef<str>) -> Result<Value, E> {
        let canonical = match self.node.what {
            What::Scalar(Scalar::String | Scalar::IntOrString) | What::Any(_) => return Ok(Value::String(text.into())),
            What::Scalar(Scalar::Bytes) => scalar::base64(text.as_ref()),
            What::Scalar(Scalar::Time) => scalar::time(text.as_ref()),
            What::Scalar(Scalar::MicroTime) => scalar::micro_time(text.as_ref()),
            What::Scalar(Scalar::Quantity) => scalar::quantity(text.as_ref()),
            // Go looks at the first character, and for no schema there.
            What::SchemaOr(Or::Array | Or::Strings, _) => return Ok(Value::Null),
            _ => return Err(self.mismatch(Found::String)),
        };
        match canonical {
            Ok(None) => Ok(Value::String(text.into())),
            Ok(Some(value)) => Ok(value),
            Err(error) => Err(self.own_error(error)),
        }
    }

    fn number<E: serde::de::Error>(self, number: Number) -> Result<Value, E> {
        let bits = match self.node.what {
            What::Scalar(Scalar::Int32) => 32,
            What::Scalar(Scalar::Int64) => 64,
            _ => 0,
        };
        if self.context.converts
            && bits > 0
            && let Some(whole) = converter::wrapped(&number, bits)
        {
            return Ok(whole.into());
        }
        match self.node.what {
            What::Scalar(Scalar::Int32 | Scalar::IntOrString) => match number.as_i64() {
                Some(value) if i32::try_from(value).is_ok() => Ok(Value::Number(number)),
                _ => Err(self.mismatch(Found::Number(number))),
            },
            What::Scalar(Scalar::Int64) => match number.as_i64() {
                Some(_) => Ok(Value::Number(number)),
                None => Err(self.mismatch(Found::Number(number))),
            },
            What::Scalar(Scalar::Double) | What::Any(_) => Ok(Value::Number(number)),
            What::Scalar(Scalar::Quantity) => match scalar::quantity(&number.to_string()) {
                Ok(Some(value)) => Ok(value),
                Ok(None) => Ok(Value::String(number.to_string())),
                Err(error) => Err(self.own_error(error)),
            },
            _ => Err(self.mismatch(Found::Number(number))),
        }
    }

    /// Any JSON object, or a Go map.
    fn keyed<'de, A: MapAccess<'de>>(self, values: &'c Node, mut access: A) -> Result<Value, A::Error> {
        let context = self.context;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let since = context.problems.len();
            let value = access.next_value_seed(Typed {
                context: &mut *context,
                node: values,
                field: self.field,
                levels: self.levels,
            })?;
            if context.problems.len() > since {
                context.prefix_key(since, &key);
            }
            let value = if value.is_null() { zero_element(values) } else { value };
            match map.entry(key) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(mut entry) => {
                    context.note(ProblemKind::Duplicate, entry.key());
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }

    fn structure<'de, A: MapAccess<'de>>(self, object: &'c Object, mut access: A) -> Result<Value, A::Error> {
        let context = self.context;
        let known = object.known();
        let fields = known.all();
        let mut map = Map::new();
        let mut seen = Seen::default();
        while let Some(key) = access.next_key_seed(FieldName(known))? {
            let (at, field) = match key {
                Name::Known(at) => (at, &fields[at]),
                Name::Unknown(name) if object.open => {
                    let since = context.problems.len();
                    let value = access.next_value_seed(Typed {
                        context: &mut *context,
                        node: &ANY,
                        field: None,
                        levels: self.levels,
                    })?;
                    if context.problems.len() > since {
                        context.prefix_key(since, &name);
                    }
                    if map.contains_key(&name) {
                        context.note(ProblemKind::Duplicate, &name);
                    }
                    map.insert(name, value);
                    continue;
                }
                Name::Unknown(name) => {
                    context.note(ProblemKind::Unknown, &name);
                    access.next_value::<serde::de::IgnoredAny>()?;
                    continue;
                }
            };
            if seen.insert(at) {
                context.note(ProblemKind::Duplicate, &field.name);
            }
            let since = context.problems.len();
            let value = access.next_value_seed(Typed {
                context: &mut *context,
                node: &field.schema,
                field: Some(field),
                levels: self.levels,
            });
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    context.prefix_mismatch(object, field);
                    return Err(error);
                }
            };
            if context.problems.len() > since {
                context.prefix_key(since, &field.name);
            }
            if kept(field, &value) {
                map.insert(field.name.to_string(), value);
            } else {
                map.remove(&*field.name);
            }
        }
        fill(known, &mut map);
        Ok(Value::Object(map))
    }

    fn list<'de, A: SeqAccess<'de>>(self, items: &'c Node, mut access: A) -> Result<Value, A::Error> {
        let context = self.context;
        let mut list = Vec::with_capacity(access.size_hint().unwrap_or(0).min(1024));
        loop {
            let since = context.problems.len();
            let item = access.next_element_seed(Typed {
                context: &mut *context,
                node: items,
                field: self.field,
                levels: self.levels,
            })?;
            let Some(item) = item else { break };
            if context.problems.len() > since {
                context.prefix_index(since, list.len());
            }
            list.push(if item.is_null() { zero_element(items) } else { item });
        }
        Ok(Value::Array(list))
    }
}

impl<'de> Visitor<'de> for Typed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.node.what {
            What::Scalar(Scalar::Bool) | What::Any(_) | What::SchemaOr(Or::Bool, _) => Ok(Value::Bool(value)),
            _ => Err(self.mismatch(Found::Bool)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            // JSON has none of these.
            None => Err(self.mismatch(Found::Number(0.into()))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.text(value)
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.text(value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let this = self.descend()?;
        match &this.node.what {
            What::Object(object) => this.structure(object, access),
            What::Map(map) => this.keyed(&map.values, access),
            What::Any(_) => this.keyed(&ANY, access),
            What::SchemaOr(_, schema) => match &schema.what {
                What::Object(object) => this.structure(object, access),
                _ => Err(this.mismatch(Found::Object)),
            },
            _ => Err(this.mismatch(Found::Object)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let this = self.descend()?;
        match &this.node.what {
            What::List(list) => this.list(&list.items, access),
            What::Any(_) => this.list(&ANY, access),
            What::SchemaOr(Or::Array, schema) => this.list(schema, access),
            What::SchemaOr(Or::Strings, _) => this.list(&STRING, access),
            _ => Err(this.mismatch(Found::Array)),
        }
    }
}

/// Which fields have been seen.
#[derive(Default)]
struct Seen([u64; 2]);

impl Seen {
    /// True when it was there already. No type has more fields than there are bits: `load` checks it.
    fn insert(&mut self, at: usize) -> bool {
        let (word, bit) = ((at / 64).min(1), 1u64 << (at % 64));
        let before = self.0[word] & bit != 0;
        self.0[word] |= bit;
        before
    }
}

pub(super) enum Name {
    Known(usize),
    Unknown(String),
}

/// Looks a key up without copying it.
pub(super) struct FieldName<'s>(pub(super) &'s Fields);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name, E> {
        Ok(match self.0.find(name) {
            Some(at) => Name::Known(at),
            None => Name::Unknown(name.to_string()),
        })
    }
}

/// What a `null` among the items of a list or the values of a map becomes in Go.
pub(super) fn zero_element(node: &Node) -> Value {
    match &node.what {
        What::Scalar(scalar) => zero_scalar(*scalar),
        What::Object(object) => zero_struct(object),
        _ => Value::Null,
    }
}

fn zero_scalar(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String | Scalar::Bytes => Value::String(String::new()),
        Scalar::Quantity => Value::from("0"),
        Scalar::Bool => Value::Bool(false),
        Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => Value::from(0),
        Scalar::Time | Scalar::MicroTime => Value::Null,
    }
}

fn zero_struct(object: &Object) -> Value {
    let mut map = Map::new();
    fill(object.known(), &mut map);
    Value::Object(map)
}

/// Whether Go prints a field that holds `value`; what is printed even when zero is `fill`'s.
pub(super) fn kept(field: &Field, value: &Value) -> bool {
    let what = &field.schema.what;
    match value {
        Value::Null => false,
        _ if field.pointer => true,
        // No managers, which a client may ask for, are not the same as none named.
        Value::Array(items) if items.is_empty() && &*field.name == "managedFields" => true,
        Value::Array(items) => !items.is_empty() || !matches!(what, What::List(list) if !list.wrapped),
        Value::Object(map) => !map.is_empty() || !matches!(what, What::Map(_)),
        _ if !field.omitempty => true,
        // An IntOrString is a struct, which Go prints.
        _ if matches!(what, What::Scalar(Scalar::IntOrString)) => true,
        Value::String(text) => !text.is_empty(),
        Value::Bool(value) => *value || !matches!(what, What::Scalar(Scalar::Bool)),
        Value::Number(number) => number.as_f64() != Some(0.0),
    }
}

/// Adds the fields that Go prints even when they are zero.
pub(super) fn fill(fields: &Fields, map: &mut Map<String, Value>) {
    for field in fields.printed() {
        if !map.contains_key(&*field.name) {
            map.insert(field.name.to_string(), zero_field(field));
        }
    }
}

fn zero_field(field: &Field) -> Value {
    match &field.schema.what {
        _ if field.pointer => Value::Null,
        What::Object(inner) => zero_struct(inner),
        // What prints as text of bytes is nil.
        What::Scalar(Scalar::Bytes) => Value::Null,
        What::Scalar(scalar) => zero_scalar(*scalar),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::codec::{json, yaml};
    use crate::schema::{self, by_gvk};

    fn pod(text: &str) -> Result<Decoded, DecodeError> {
        json::decode(text.as_bytes(), by_gvk("", "v1", "Pod"), Validation::Strict)
    }

    #[test]
    fn strict_decoding_names_fields_as_upstream_does() {
        let cases = [
            (r#"{"spec":{"foo":1}}"#, vec![r#"unknown field "spec.foo""#]),
            (r#"{"x":{"y":1}}"#, vec![r#"unknown field "x""#]),
            (
                r#"{"spec":{"containers":[{"name":"a"},{"imgae":"i","ports":[{"p":1}]}]}}"#,
                vec![
                    r#"unknown field "spec.containers[1].imgae""#,
                    r#"unknown field "spec.containers[1].ports[0].p""#,
                ],
            ),
            (
                r#"{"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}}}"#,
                vec![
                    r#"duplicate field "metadata.name""#,
                    r#"duplicate field "metadata.labels.x""#,
                ],
            ),
            (
                r#"{"spec":{"volumes":[{"name":"v","emptyDir":{"size":1}}]}}"#,
                vec![r#"unknown field "spec.volumes[0].emptyDir.size""#],
            ),
            // Names are case-sensitive.
            (r#"{"Spec":{}}"#, vec![r#"unknown field "Spec""#]),
        ];
        for (text, expected) in cases {
            assert_eq!(pod(text).unwrap().problems, expected, "{text}");
            let ignored = json::decode(text.as_bytes(), by_gvk("", "v1", "Pod"), Validation::Ignore).unwrap();
            assert_eq!(ignored.problems, Vec::<String>::new());
        }
    }

    /// Each of many doubles had the whole key before it: gigabytes of text, compared each with each.
    #[test]
    fn what_is_told_of_a_body_is_shorter_than_the_body() {
        for key in ["\u{7f}".repeat(1 << 20), "é".repeat(1 << 19), "k".repeat(1 << 20)] {
            let doubles: String = (0..100).map(|at| format!(r#","a{at}":0,"a{at}":0"#)).collect();
            let text = format!(
                r#"{{"metadata":{{"managedFields":[{{"fieldsV1":{{"{key}":{{"z":0{doubles}}}}}}}],"{key}":0}}}}"#
            );
            let problems = pod(&text).unwrap().problems;
            let known = "metadata.managedFields[0].fieldsV1.";
            assert!(
                problems[0].starts_with(&format!("duplicate field \"{known}")),
                "{problems:.100?}"
            );
            assert!(problems[1].starts_with("unknown field \"metadata."), "{problems:.100?}");
            assert_eq!(problems.len(), 2, "what differs behind the cut alone is told once");
            assert!(problems.iter().map(String::len).sum::<usize>() < MAX_TOLD);
        }
        let many: String = (0..200)
            .map(|at| format!(r#","{at}{}":0"#, "\u{7f}".repeat(2000)))
            .collect();
        let problems = pod(&format!(r#"{{"kind":"Pod"{many}}}"#)).unwrap().problems;
        let bytes: usize = problems.iter().map(String::len).sum();
        assert!(bytes > MAX_TOLD && bytes < 2 * MAX_TOLD, "{bytes}");
    }

    #[test]
    fn wrong_types_get_gos_words() {
        let cases = [
            (
                r#"{"spec":{"containers":"x"}}"#,
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                r#"{"spec":{"containers":[{"ports":[{"containerPort":1.5}]}]}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                r#"{"spec":{"restartPolicy":5}}"#,
                "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":true}}}]}}"#,
                "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
            ),
            (
                r#"{"metadata":{"labels":{"a":true}}}"#,
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"metadata":{"labels":["a"]}}"#,
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
            (r#"[]"#, "json: cannot unmarshal array into Go value of type v1.Pod"),
            (
                r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(pod(text), Err(DecodeError::Type(expected.to_string())), "{text}");
        }
    }

    #[test]
    fn values_are_left_as_go_would_print_them() {
        let cases = [
            (
                "zero values and nulls go, what is no pointer's zero is printed",
                json!({"metadata": {"name": "a", "namespace": "", "labels": {}, "annotations": null},
                    "spec": {"containers": [{"name": "c", "env": [], "command": null}], "hostNetwork": false, "priority": 0}}),
                json!({"metadata": {"name": "a"},
                    "spec": {"containers": [{"name": "c", "resources": {}}], "priority": 0}, "status": {}}),
            ),
            (
                "quantities and times are canonical",
                json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05.678+01:00"},
                    "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}}),
                json!({"metadata": {"creationTimestamp": "2026-01-02T02:04:05Z"},
                    "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]}, "status": {}}),
            ),
            (
                "a missing required list is null, an IntOrString keeps its type",
                json!({"spec": {"containers": null, "initContainers": [{"name": "i", "livenessProbe": {"httpGet": {"port": "http"}}}]}}),
                json!({"metadata": {}, "spec": {"containers": null,
                    "initContainers": [{"name": "i", "resources": {}, "livenessProbe": {"httpGet": {"port": "http"}}}]}, "status": {}}),
            ),
        ];
        for (name, given, expected) in cases {
            assert_eq!(pod(&given.to_string()).unwrap().value, expected, "{name}");
            let conformed = conform(given, by_gvk("", "v1", "Pod").unwrap(), Validation::Strict).unwrap();
            assert_eq!(conformed.value, expected, "{name}: a tree");
            let again = conform(expected.clone(), by_gvk("", "v1", "Pod").unwrap(), Validation::Strict).unwrap();
            assert_eq!(again.value, expected, "{name}: twice");
        }
    }

    #[test]
    fn custom_resources_keep_their_fields_and_have_typed_metadata() {
        let text = r#"{"kind":"X","metadata":{"name":"a","foo":1,"labels":null},"spec":{"a":null,"a":{"b":0}}}"#;
        let decoded = json::decode(text.as_bytes(), Some(schema::custom()), Validation::Warn).unwrap();
        assert_eq!(
            decoded.value,
            json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"a": {"b": 0}}})
        );
        assert_eq!(
            decoded.problems,
            [r#"unknown field "metadata.foo""#, r#"duplicate field "spec.a""#]
        );
    }

    #[test]
    fn yaml_goes_the_same_way() {
        let text = "spec:\n  containers:\n  - name: c\n    imgae: i\n    ports:\n    - containerPort: 80\n";
        let decoded = yaml::decode(text.as_bytes(), by_gvk("", "v1", "Pod"), Validation::Strict).unwrap();
        assert_eq!(decoded.problems, [r#"unknown field "spec.containers[0].imgae""#]);
        assert_eq!(decoded.value["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
    }
}
