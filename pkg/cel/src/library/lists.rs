//! Functions of lists, sets and optionals.

use std::cmp::Ordering;
use std::sync::Arc;

use super::operators;
use crate::value::{Entries, Failure, List, Map, Outcome, Value};

/// Items that `lists.range` makes at most: what the limit of a call's cost allows anyway.
const MOST: i64 = 1_000_000;

fn made<'a>(values: Vec<Value<'a>>) -> Outcome<'a> {
    Ok(Value::List(List::new(values)))
}

fn list_of<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, Failure> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let items = list_of(args)?.values()?;
    for pair in items.windows(2) {
        // What cannot be compared is in order.
        if pair[0].compare(&pair[1]) == Ok(Ordering::Greater) {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

/// The sum; of nothing, a zero of the type that the overload is for.
pub(super) fn sum<'a>(args: &[Value<'a>], overload: &str) -> Outcome<'a> {
    let mut sum = match overload {
        "list_uint_sum_uint" => Value::Uint(0),
        "list_double_sum_double" => Value::Double(0.0),
        "list_duration_sum_duration" => Value::Duration(0),
        _ => Value::Int(0),
    };
    for (i, item) in list_of(args)?.iter().enumerate() {
        let item = item?;
        if i == 0 && overload.is_empty() {
            sum = item;
        } else {
            sum = operators::add(&[sum, item])?;
        }
    }
    Ok(sum)
}

pub(super) fn extreme<'a>(args: &[Value<'a>], function: &str, wanted: Ordering) -> Outcome<'a> {
    let mut found: Option<Value<'a>> = None;
    for item in list_of(args)?.iter() {
        let item = item?;
        let better = match &found {
            None => true,
            Some(found) => found.compare(&item) == Ok(wanted),
        };
        if better {
            found = Some(item);
        }
    }
    found.ok_or_else(|| Failure::new(format!("{function} called on empty list")))
}

pub(super) fn index_of<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let [Value::List(list), wanted] = args else {
        return Err(Failure::NoOverload);
    };
    let is = |index: &usize| {
        list.get(*index)
            .is_some_and(|item| item.and_then(|item| item.equals(wanted)) == Ok(true))
    };
    let mut indexes = 0..list.len();
    let found = if last { indexes.rfind(is) } else { indexes.find(is) };
    Ok(Value::Int(found.map_or(-1, |index| index as i64)))
}

pub(super) fn slice<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return Err(Failure::NoOverload);
    };
    let complain = |why: &str| Err(Failure::new(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return complain("negative indexes not supported");
    };
    if from > to {
        return complain("start index must be less than or equal to end index");
    }
    if list.len() < to {
        return complain(&format!("list is length {}", list.len()));
    }
    made(
        (from..to)
            .filter_map(|index| list.get(index))
            .collect::<Result<_, _>>()?,
    )
}

pub(super) fn flatten<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let depth = match args {
        [Value::List(_)] => 1,
        [Value::List(_), Value::Int(depth)] => *depth,
        [other, rest @ ..] => {
            let rest: Vec<&str> = rest.iter().map(Value::type_name).collect();
            let (of, rest) = (other.type_name(), rest.join(", "));
            return Err(Failure::new(format!("no such overload: {of}.flatten({rest})")));
        }
        [] => return Err(Failure::NoOverload),
    };
    if depth < 0 {
        return Err(Failure::new("level must be non-negative"));
    }
    let mut flat = Vec::new();
    flatten_into(list_of(args)?, depth, &mut flat)?;
    made(flat)
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, flat: &mut Vec<Value<'a>>) -> Result<(), Failure> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, flat)?,
            item => flat.push(item),
        }
    }
    Ok(())
}

pub(super) fn sort<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else {
        return Err(operators::unfit(&args[0], "sort", |_| false));
    };
    let items = list.values()?;
    let keys = items.clone();
    sorted(items, keys)
}

pub(super) fn sort_by<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::List(keys)] = args else {
        return Err(Failure::NoOverload);
    };
    if list.len() != keys.len() {
        return Err(Failure::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    sorted(list.values()?, keys.values()?)
}

fn sorted<'a>(items: Vec<Value<'a>>, keys: Vec<Value<'a>>) -> Outcome<'a> {
    let Some(first) = keys.first() else { return made(items) };
    if first.compare(first).is_err() && !matches!(first, Value::Double(_)) {
        return Err(Failure::new("list elements must be comparable"));
    }
    if keys.iter().any(|key| key.type_name() != first.type_name()) {
        return Err(Failure::new("list elements must have the same type"));
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items).collect();
    pairs.sort_by(|a, b| a.0.compare(&b.0).unwrap_or(Ordering::Equal));
    made(pairs.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn range<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Int(count)] = args else {
        return Err(Failure::NoOverload);
    };
    if *count > MOST {
        return Err(Failure::Cost);
    }
    made((0..*count).map(Value::Int).collect())
}

pub(super) fn reverse<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut items = list_of(args)?.values()?;
    items.reverse();
    made(items)
}

pub(super) fn distinct<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut found: Vec<Value<'a>> = Vec::new();
    for item in list_of(args)?.iter() {
        let item = item?;
        if !found.iter().any(|has| item.equals(has) == Ok(true)) {
            found.push(item);
        }
    }
    made(found)
}

fn has_all<'a>(list: &List<'a>, part: &List<'a>) -> Result<bool, Failure> {
    for item in part.iter() {
        if !list.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn sets<'a>(args: &[Value<'a>], function: &str) -> Outcome<'a> {
    let [Value::List(a), Value::List(b)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Bool(match function {
        "sets.contains" => has_all(a, b)?,
        "sets.equivalent" => has_all(a, b)? && has_all(b, a)?,
        _ => {
            for item in a.iter() {
                if b.contains(&item?) == Ok(true) {
                    return Ok(Value::Bool(true));
                }
            }
            false
        }
    }))
}

/// `{…}` with an entry more, or all of another map: no key may be there already.
pub(super) fn map_insert<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (map, added): (_, Vec<(Value<'a>, Value<'a>)>) = match args {
        [Value::Map(map), key, value] => (map, vec![(key.clone(), value.clone())]),
        [Value::Map(map), Value::Map(more)] => {
            let find = |key: Value<'a>| Ok(more.find(&key)?.map(|value| (key, value)));
            let added: Result<Vec<_>, Failure> = more.keys().into_iter().map(find).collect();
            (map, added?.into_iter().flatten().collect())
        }
        _ => return Err(Failure::NoOverload),
    };
    let mut entries = match map {
        Map::Entries(entries) => (**entries).clone(),
        Map::Json(..) => {
            let mut entries = Entries::default();
            for key in map.keys() {
                if let Some(value) = map.find(&key)? {
                    entries.set(key, value);
                }
            }
            entries
        }
    };
    insert_all(&mut entries, added)?;
    Ok(Value::Map(Map::new(entries)))
}

pub(crate) fn insert_all<'a>(
    entries: &mut Entries<'a>,
    added: impl IntoIterator<Item = (Value<'a>, Value<'a>)>,
) -> Result<(), Failure> {
    for (key, value) in added {
        if entries.find(&key).is_some() {
            return Err(Failure::new(format!("insert failed: key {key} already exists")));
        }
        entries.set(key, value);
    }
    Ok(())
}

pub(super) fn end<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let list = list_of(args)?;
    let item = if last { list.len().checked_sub(1) } else { Some(0) }.and_then(|index| list.get(index));
    Ok(Value::Optional(item.transpose()?.map(Arc::new)))
}

pub(super) fn some<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::Optional(Some(Arc::new(value.clone())))),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn some_unless_zero<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return Err(Failure::NoOverload) };
    let zero = match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(number) => *number == 0.0,
        // A list or map of the JSON is never taken for empty.
        Value::List(List { declared: Some(_), .. }) => false,
        Value::Map(map) if map.is_declared() => false,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == Some(0),
        _ => false,
    };
    if zero { Ok(Value::Optional(None)) } else { some(args) }
}

pub(super) fn held<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(Failure::new("optional.none() dereference")),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn is_held<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut held = Vec::new();
    for item in list_of(args)?.iter() {
        match item? {
            Value::Optional(Some(value)) => held.push((*value).clone()),
            Value::Optional(None) => {}
            other => return Err(Failure::new(format!("value {other} is not optional"))),
        }
    }
    made(held)
}
