//! Items of lists of type set and map are there once.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::metadata::step;
use super::{declared, items};
use crate::bounded::MOST_FINDINGS;
use crate::schema::{ListType, Name, Node, What};
use crate::status::FieldError;
use crate::validation::Errors;
use crate::validation::path::Path;

pub(super) fn check(value: &Value, node: &Node, path: &Path<'_>, errors: &mut Errors) {
    if errors.is_full() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(child) = declared(node, key) {
                    check(value, child, &step(node, path, key), errors);
                }
            }
        }
        Value::Array(list) => {
            if let What::List(of) = &node.what {
                match of.list_type {
                    ListType::Set => check_set(list, path, errors),
                    ListType::Map => check_map(list, &of.keys, path, errors),
                    _ => {}
                }
            }
            let Some(child) = items(node) else { return };
            for (index, item) in list.iter().enumerate() {
                check(item, child, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn check_set(list: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for index in doubles(list.iter()) {
        errors.push(FieldError::duplicate(path.index(index), list[index].clone()));
    }
}

fn check_map(list: &[Value], keys: &[Name], path: &Path<'_>, errors: &mut Errors) {
    if let Some(index) = list.iter().position(|item| !item.is_null() && !item.is_object()) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(path.index(index), list[index].clone(), why));
        return;
    }
    let key_of = |item: &Value| {
        let of = |key: &Name| Some((key.to_string(), item.get(key.as_str())?.clone()));
        Value::Object(keys.iter().filter_map(of).collect::<Map<_, _>>())
    };
    let found: Vec<Value> = list.iter().map(key_of).collect();
    for index in doubles(found.iter()) {
        errors.push(FieldError::duplicate(path.index(index), found[index].clone()));
    }
}

/// Where what was there is there a second time; the third is not told.
fn doubles<'v>(list: impl ExactSizeIterator<Item = &'v Value>) -> Vec<usize> {
    let mut seen: HashMap<&Value, u32> = HashMap::with_capacity(list.len());
    let mut doubles = Vec::new();
    for (index, item) in list.enumerate() {
        let times = seen.entry(item).or_default();
        *times += 1;
        if *times == 2 && doubles.len() < MOST_FINDINGS {
            doubles.push(index);
        }
    }
    doubles
}
