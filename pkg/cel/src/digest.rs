//! Finds items that equal a value without comparing it with each: sets and lists of keyed items are megabytes of them. What has
//! no digest is compared all the same, and no evaluation compares without end.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use crate::decl::Decl;
use crate::json;
use crate::value::{Failure, List, Map, Text, Value};

/// How often one evaluation compares an item with another that may be like it: less than a second.
pub const MOST_COMPARED: u32 = 1_000_000;

thread_local! {
    /// How often it has, in the evaluation that this thread is at: values that are compared know nothing of whose they are.
    static COMPARED: Cell<u32> = const { Cell::new(0) };
}

/// Another evaluation begins on this thread.
pub(crate) fn begin() {
    COMPARED.set(0);
}

/// How often the evaluation that ended here has.
pub(crate) fn end() -> u32 {
    COMPARED.take()
}

/// Whether it has compared so much that nothing it says counts.
pub(crate) fn is_over() -> bool {
    COMPARED.get() > MOST_COMPARED
}

fn compared() -> Result<(), Failure> {
    COMPARED.set(COMPARED.get().saturating_add(1));
    if is_over() { Err(Failure::Cost) } else { Ok(()) }
}

/// Places by digests. The digests are keyed: nobody outside can make many values share one.
#[derive(Default)]
pub(crate) struct Index {
    state: RandomState,
    places: HashMap<u64, Vec<usize>>,
    /// Of values that have no digest.
    rest: Vec<usize>,
    count: usize,
}

impl Index {
    pub(crate) fn of<'v, 'a: 'v>(values: impl IntoIterator<Item = &'v Value<'a>>) -> Index {
        let mut index = Index::default();
        for value in values {
            let digest = index.digest(value);
            index.push(digest);
        }
        index
    }

    /// Adds what stands at the next place.
    pub(crate) fn push(&mut self, digest: Option<u64>) {
        match digest {
            Some(digest) => self.places.entry(digest).or_default().push(self.count),
            None => self.rest.push(self.count),
        }
        self.count += 1;
    }

    /// The first place of those that may hold what has this digest at which `is` does.
    ///
    /// # Errors
    /// So much was compared that nothing more is.
    pub(crate) fn find(&self, digest: Option<u64>, is: impl Fn(usize) -> bool) -> Result<Option<usize>, Failure> {
        let first = |places: &mut dyn Iterator<Item = usize>| -> Result<Option<usize>, Failure> {
            for place in places {
                compared()?;
                if is(place) {
                    return Ok(Some(place));
                }
            }
            Ok(None)
        };
        let Some(digest) = digest else {
            return first(&mut (0..self.count));
        };
        let same = self.places.get(&digest).map_or(&[][..], Vec::as_slice);
        let (one, other) = (
            first(&mut same.iter().copied())?,
            first(&mut self.rest.iter().copied())?,
        );
        Ok(match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        })
    }

    /// The same for values that are equal. None: only comparing tells.
    pub(crate) fn digest(&self, value: &Value<'_>) -> Option<u64> {
        digest(&self.state, value)
    }

    /// That of some values together.
    pub(crate) fn digest_all(&self, values: &[Option<Value<'_>>]) -> Option<u64> {
        let mut hasher = self.state.build_hasher();
        for value in values {
            value
                .as_ref()
                .map_or(Some(0), |value| self.digest(value))?
                .hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// Items by the values of their keys.
pub(crate) struct Keyed<'a> {
    index: Index,
    keys: Vec<Vec<Option<Value<'a>>>>,
}

impl<'a> Keyed<'a> {
    pub(crate) fn of(items: &[Value<'a>], keys: &[Box<str>]) -> Keyed<'a> {
        let mut keyed = Keyed {
            index: Index::default(),
            keys: Vec::with_capacity(items.len()),
        };
        items.iter().for_each(|item| keyed.push(key_of(item, keys)));
        keyed
    }

    pub(crate) fn push(&mut self, key: Vec<Option<Value<'a>>>) {
        self.index.push(self.index.digest_all(&key));
        self.keys.push(key);
    }

    pub(crate) fn find(&self, key: &[Option<Value<'a>>]) -> Result<Option<usize>, Failure> {
        let digest = self.index.digest_all(key);
        self.index.find(digest, |at| same_key(&self.keys[at], key))
    }
}

/// The values of the properties that tell an item from others.
pub(crate) fn key_of<'a>(item: &Value<'a>, keys: &[Box<str>]) -> Vec<Option<Value<'a>>> {
    let find = |key: &str| match item {
        Value::Map(map) => map.find(&Value::String(Text::Owned(key.into()))).ok().flatten(),
        _ => None,
    };
    keys.iter().map(|key| find(key)).collect()
}

fn same_key(a: &[Option<Value<'_>>], b: &[Option<Value<'_>>]) -> bool {
    a.iter().zip(b).all(|pair| match pair {
        (None, None) => true,
        (Some(a), Some(b)) => a.equals(b) == Ok(true),
        _ => false,
    })
}

fn digest(state: &RandomState, value: &Value<'_>) -> Option<u64> {
    let of = |kind: u8, value: &dyn Fn(&mut dyn Hasher)| {
        let mut hasher = state.build_hasher();
        hasher.write_u8(kind);
        value(&mut hasher);
        Some(hasher.finish())
    };
    // Numbers are equal across their types, and to their likes as floats.
    let number = |number: f64| of(2, &|hasher| hasher.write_u64((number + 0.0).to_bits()));
    match value {
        Value::Null => of(0, &|_| {}),
        Value::Bool(value) => of(1, &|hasher| hasher.write_u8(u8::from(*value))),
        Value::Int(value) => number(*value as f64),
        Value::Uint(value) => number(*value as f64),
        Value::Double(value) => number(*value),
        Value::String(text) => of(3, &|hasher| hasher.write(text.as_bytes())),
        Value::Bytes(bytes) => of(4, &|hasher| hasher.write(bytes)),
        Value::Duration(nanos) => of(5, &|hasher| hasher.write_i64(*nanos)),
        Value::Timestamp(time) => of(6, &|mut hasher| time.hash(&mut hasher)),
        Value::List(list) => of_list(state, list),
        Value::Map(Map::Json(object, decl)) => of_object(state, object, decl),
        _ => None,
    }
}

/// In whatever order the items stand: of sets it says nothing.
fn of_list(state: &RandomState, list: &List<'_>) -> Option<u64> {
    list.iter().try_fold(list.len() as u64, |sum, item| {
        Some(sum.wrapping_add(state.hash_one(digest(state, &item.ok()?)?)))
    })
}

/// Of an object whose every property is declared, as a map of them.
fn of_object(state: &RandomState, object: &serde_json::Map<String, serde_json::Value>, decl: &Decl) -> Option<u64> {
    let names = json::names(object, decl);
    if names.len() != object.len() {
        return None;
    }
    let map = Map::Json(object, decl);
    names.iter().try_fold(!(object.len() as u64), |sum, name| {
        // A null of a schema's is as good as nothing.
        let value = map.find(name).ok()?.map_or(Some(0), |value| digest(state, &value))?;
        Some(sum.wrapping_add(state.hash_one((digest(state, name)?, value))))
    })
}
