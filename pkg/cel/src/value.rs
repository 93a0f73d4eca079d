//! Values as they are evaluated: what the JSON holds is borrowed and read only as far as an expression looks into it.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::decl::{Decl, ListType, What};
use crate::digest::{Index, Keyed, key_of};
use crate::json;
use crate::library::named_format::NamedFormat;
use crate::library::quantity::Quantity;
use crate::library::semver::Semver;
use crate::library::time::Time;
use crate::library::url::Url;

/// Why something has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// An error of the expression, which `&&`, `||` and their like may do without.
    #[error("{0}")]
    Error(Arc<str>),
    /// The arguments fit no overload; whoever calls knows of which function.
    #[error("no such overload")]
    NoOverload,
    /// Evaluation cost more than it may: nothing more is evaluated.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

impl Failure {
    pub(crate) fn new(message: impl Into<Arc<str>>) -> Failure {
        Failure::Error(message.into())
    }

    /// The error of arguments that fit no overload, as it is shown.
    pub(crate) fn no_overload() -> Failure {
        Failure::new("no such overload")
    }
}

pub(crate) type Outcome<'a> = Result<Value<'a>, Failure>;

/// Text that is borrowed from the JSON, or made by the expression.
#[derive(Clone, Debug)]
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Owned(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Time),
    /// A type, by its name at run time.
    Type(Arc<str>),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Quantity(Quantity),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    Format(&'static NamedFormat),
    /// JSON that no schema describes: it can only be compared.
    Unknown(&'a Json),
}

/// A list: JSON that is read item by item, or values.
#[derive(Clone, Debug)]
pub(crate) struct List<'a> {
    pub items: Items<'a>,
    /// The declaration of a list that came out of JSON, for what makes it equal to others and grow.
    pub declared: Option<&'a Decl>,
}

#[derive(Clone, Debug)]
pub(crate) enum Items<'a> {
    Json(&'a [Json], &'a Decl),
    Values(Arc<Vec<Value<'a>>>),
}

/// Items of a list that an expression makes: a sum of lists costs next to nothing, whatever their length.
const MOST_ITEMS: usize = 1_000_000;

impl<'a> List<'a> {
    pub(crate) fn new(values: Vec<Value<'a>>) -> List<'a> {
        List {
            items: Items::Values(Arc::new(values)),
            declared: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.items {
            Items::Json(items, _) => items.len(),
            Items::Values(values) => values.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Outcome<'a>> {
        match &self.items {
            Items::Json(items, decl) => items.get(index).map(|item| json::read(item, decl)),
            Items::Values(values) => values.get(index).cloned().map(Ok),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Outcome<'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// All items; the first error where one has no value.
    pub(crate) fn values(&self) -> Result<Vec<Value<'a>>, Failure> {
        self.iter().collect()
    }

    pub(crate) fn contains(&self, wanted: &Value<'a>) -> Result<bool, Failure> {
        let mut failure = None;
        for item in self.iter() {
            match item.and_then(|item| item.equals(wanted)) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if self.declared.is_some() => failure = failure.or(Some(error)),
                Err(_) => {}
            }
        }
        failure.map_or(Ok(false), Err)
    }

    pub(crate) fn list_type(&self) -> Option<&'a ListType> {
        match &self.declared?.what {
            What::List { list, .. } => Some(list),
            _ => None,
        }
    }

    /// The two lists together; sets and lists of keyed items have no item twice.
    pub(crate) fn concat(self, other: &List<'a>) -> Outcome<'a> {
        // Nothing and a list are that list, with what makes it equal to others.
        if self.declared.is_none() && (self.len() == 0 || other.len() == 0) {
            return Ok(Value::List(if self.len() == 0 { other.clone() } else { self }));
        }
        let mut values = match self.items {
            Items::Values(values) => values,
            Items::Json(..) => Arc::new(self.values()?),
        };
        let grown = Arc::make_mut(&mut values);
        if grown.len() + other.len() > MOST_ITEMS {
            return Err(Failure::Cost);
        }
        let list = List {
            items: Items::Values(Arc::default()),
            declared: self.declared,
        };
        match list.list_type() {
            None | Some(ListType::Atomic) => grown.extend(other.values()?),
            Some(ListType::Set) => {
                let mut index = Index::of(grown.iter());
                for value in other.iter() {
                    let value = value?;
                    let digest = index.digest(&value);
                    let is = |at: usize| grown[at].equals(&value) == Ok(true);
                    if index.find(digest, is)?.is_none() {
                        index.push(digest);
                        grown.push(value);
                    }
                }
            }
            Some(ListType::Map(keys)) => {
                let mut keyed = Keyed::of(grown, keys);
                for value in other.iter() {
                    let value = value?;
                    let key = key_of(&value, keys);
                    match keyed.find(&key)? {
                        Some(at) => grown[at] = value,
                        None => {
                            keyed.push(key);
                            grown.push(value);
                        }
                    }
                }
            }
        }
        Ok(Value::List(List {
            items: Items::Values(values),
            ..list
        }))
    }

    fn equals(&self, other: &List<'a>) -> Result<bool, Failure> {
        if self.len() != other.len() {
            return Ok(false);
        }
        match self.list_type() {
            Some(ListType::Set) => {
                let own = self.values()?;
                let index = Index::of(&own);
                for value in other.iter() {
                    let value = value?;
                    let digest = index.digest(&value);
                    let is = |at: usize| own[at].equals(&value) == Ok(true);
                    if index.find(digest, is)?.is_none() {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
            Some(ListType::Map(keys)) => {
                let own = self.values()?;
                let keyed = Keyed::of(&own, keys);
                for value in other.iter() {
                    let value = value?;
                    match keyed.find(&key_of(&value, keys))? {
                        Some(at) if own[at].equals(&value)? => {}
                        _ => return Ok(false),
                    }
                }
                return Ok(true);
            }
            _ => {}
        }
        for (a, b) in self.iter().zip(other.iter()) {
            match a.and_then(|a| a.equals(&b?)) {
                Ok(true) => {}
                Err(error) if self.declared.is_some() => return Err(error),
                // What cannot be compared makes no list of the expression's own different.
                Err(_) => {}
                Ok(false) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A map: an object of the JSON, or entries.
#[derive(Clone, Debug)]
pub(crate) enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>, &'a Decl),
    Entries(Arc<Entries<'a>>),
}

/// Entries in the order in which they were added; found by a hash of the key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    positions: std::collections::HashMap<Key, usize>,
}

/// A key of a map, so that keys that are equal are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Bool(bool),
    Integer(i128),
    Double(u64),
    String(Box<str>),
    Other(Box<str>),
}

fn key(value: &Value<'_>) -> Key {
    match value {
        Value::Bool(value) => Key::Bool(*value),
        Value::Int(value) => Key::Integer(i128::from(*value)),
        Value::Uint(value) => Key::Integer(i128::from(*value)),
        Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e18 => Key::Integer(*value as i128),
        Value::Double(value) => Key::Double(value.to_bits()),
        Value::String(text) => Key::String((&**text).into()),
        other => Key::Other(other.to_string().into()),
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn find(&self, wanted: &Value<'a>) -> Option<&Value<'a>> {
        self.positions
            .get(&key(wanted))
            .map(|position| &self.entries[*position].1)
    }

    /// Bytes that it holds, about, beside those of its values.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * (2 * size_of::<Value<'_>>() + size_of::<(Key, usize)>())
    }

    /// Adds an entry, or replaces its value.
    pub(crate) fn set(&mut self, name: Value<'a>, value: Value<'a>) {
        match self.positions.entry(key(&name)) {
            std::collections::hash_map::Entry::Occupied(position) => self.entries[*position.get()].1 = value,
            std::collections::hash_map::Entry::Vacant(position) => {
                position.insert(self.entries.len());
                self.entries.push((name, value));
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &Value<'a>) {
        if let Some(position) = self.positions.remove(&key(name)) {
            self.entries.remove(position);
            self.positions
                .values_mut()
                .filter(|other| **other > position)
                .for_each(|other| *other -= 1);
        }
    }
}

impl<'a> Map<'a> {
    pub(crate) fn new(entries: Entries<'a>) -> Map<'a> {
        Map::Entries(Arc::new(entries))
    }

    /// Whether a schema says what it has.
    pub(crate) fn is_declared(&self) -> bool {
        matches!(self, Map::Json(_, decl) if !matches!(decl.what, What::Raw))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Json(object, _) => object.len(),
            Map::Entries(entries) => entries.entries.len(),
        }
    }

    /// The value of a key, if there is one.
    pub(crate) fn find(&self, wanted: &Value<'a>) -> Result<Option<Value<'a>>, Failure> {
        match self {
            Map::Entries(entries) => Ok(entries.find(wanted).cloned()),
            Map::Json(object, decl) => match wanted {
                Value::String(name) => json::property(object, decl, name),
                _ => Err(Failure::no_overload()),
            },
        }
    }

    /// Whether it has a key itself: a value may be found where it has none.
    pub(crate) fn has(&self, wanted: &Value<'a>) -> Result<bool, Failure> {
        match (self, wanted) {
            (Map::Json(object, decl), Value::String(name)) if decl.is_of_device() => Ok(object.contains_key(&**name)),
            _ => self.find(wanted).map(|found| found.is_some()),
        }
    }

    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Entries(entries) => entries.entries.iter().map(|(name, _)| name.clone()).collect(),
            Map::Json(object, decl) => json::names(object, decl),
        }
    }

    fn equals(&self, other: &Map<'a>) -> Result<bool, Failure> {
        if self.len() != other.len() {
            return Ok(false);
        }
        match self {
            Map::Json(object, decl) if self.is_declared() => json::equals(object, decl, other),
            _ => {
                for name in self.keys() {
                    let Some(value) = self.find(&name)? else { continue };
                    match other.find(&name) {
                        Ok(Some(found)) if value.equals(&found) != Ok(false) => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
        }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::String(Text::Owned(text.into()))
    }

    /// The name of its type at run time.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Type(_) => "type",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Ip(_) => "net.IP",
            Value::Cidr(..) => "net.CIDR",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Unknown(_) => "unknown",
        }
    }

    /// Whether two values are equal; numbers are across their types.
    pub(crate) fn equals(&self, other: &Value<'a>) -> Result<bool, Failure> {
        if matches!(self, Value::Null) || matches!(other, Value::Null) {
            return Ok(matches!((self, other), (Value::Null, Value::Null)));
        }
        Ok(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::List(a), Value::List(b)) => return a.equals(b),
            (Value::Map(a), Value::Map(b)) => return a.equals(b),
            (Value::List(List { declared: Some(_), .. }), _) => return Err(Failure::no_overload()),
            (Value::Map(map), _) if map.is_declared() => return Err(Failure::no_overload()),
            (Value::Optional(None), Value::Optional(None)) => true,
            (Value::Optional(Some(a)), Value::Optional(Some(b))) => return a.equals(b),
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a, bits), Value::Cidr(b, other)) => a == b && bits == other,
            (Value::Quantity(a), Value::Quantity(b)) => a.cmp(b) == Ordering::Equal,
            (Value::Url(a), Value::Url(b)) => a == b,
            (Value::Semver(a), Value::Semver(b)) => a.compare(b) == Ordering::Equal,
            (Value::Format(a), Value::Format(b)) => std::ptr::eq(*a, *b),
            (
                Value::Ip(_)
                | Value::Cidr(..)
                | Value::Quantity(_)
                | Value::Url(_)
                | Value::Semver(_)
                | Value::Format(_),
                _,
            ) => return Err(Failure::no_overload()),
            (Value::Unknown(a), other) => json::is_same(a, other),
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        })
    }

    /// How two numbers compare; `None` where one is none.
    fn compare_numbers(&self, other: &Value<'a>) -> Option<Ordering> {
        let integer = |value: &Value<'a>| match value {
            Value::Int(value) => Some(i128::from(*value)),
            Value::Uint(value) => Some(i128::from(*value)),
            _ => None,
        };
        match (self, other) {
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Double(a), _) => compare_double(*a, integer(other)?),
            (_, Value::Double(b)) => compare_double(*b, integer(self)?).map(Ordering::reverse),
            _ => Some(integer(self)?.cmp(&integer(other)?)),
        }
    }

    pub(crate) fn compare(&self, other: &Value<'a>) -> Result<Ordering, Failure> {
        Ok(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
                let order = self.compare_numbers(other);
                return order.ok_or_else(|| Failure::new("NaN values cannot be ordered"));
            }
            _ => return Err(Failure::no_overload()),
        })
    }

    /// Its size where it has one; what has none counts as one.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Ip(IpAddr::V4(_)) => 4,
            Value::Ip(IpAddr::V6(_)) => 16,
            Value::Cidr(_, bits) => u64::from(*bits).div_ceil(8),
            _ => return None,
        })
    }
}

fn compare_double(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a >= 1e30 {
        return Some(Ordering::Greater);
    }
    if a <= -1e30 {
        return Some(Ordering::Less);
    }
    let whole = a.trunc() as i128;
    Some(whole.cmp(&b).then(a.fract().partial_cmp(&0.0)?))
}
