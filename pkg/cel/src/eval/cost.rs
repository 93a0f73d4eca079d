//! What each call costs at run time, by the sizes of its arguments. `estimate.rs` says the same before, by what sizes can be.

use std::net::IpAddr;

use crate::value::{Outcome, Value};

/// Costs of what makes a list and a map.
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 30;

/// A character's share of a text that is gone through.
const TRAVERSAL: f64 = 0.1;
/// A character's share of a regular expression.
const REGEX: f64 = 0.25;

fn size(arg: Option<&Outcome<'_>>) -> u64 {
    match arg {
        Some(Ok(Value::Optional(Some(value)))) => value.size().unwrap_or(1),
        Some(Ok(value)) => value.size().unwrap_or(1),
        _ => 1,
    }
}

/// The share of a size, rounded up.
fn share(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// What going through a value costs.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list.iter().map(|item| item.as_ref().map_or(1, traversal)).sum(),
        Value::Map(map) => {
            let value = |key: &Value<'_>| map.find(key).ok().flatten().map_or(1, |value| traversal(&value));
            map.keys().iter().map(|key| traversal(key) + value(key)).sum()
        }
        _ => 1,
    }
}

/// The cost of a call, beside those of its arguments.
pub(super) fn call(function: &str, overload: &str, args: &[Outcome<'_>], result: &Outcome<'_>) -> u64 {
    if let Some(cost) = of_overload(overload, args, result) {
        return cost;
    }
    let first = size(args.first());
    let second = size(args.get(1));
    match function {
        "check" => 350_000,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            args.first().and_then(|arg| arg.as_ref().ok()).map_or(1, traversal)
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR" | "quantity"
        | "isQuantity" | "semver" | "isSemver" => share(first, TRAVERSAL),
        "replace" | "split" | "ip.isCanonical" => share(first, 2.0 * TRAVERSAL),
        "join" => share(size(Some(result)), 2.0 * TRAVERSAL),
        "find" | "findAll" => share(first + 1, TRAVERSAL) * share(second, REGEX),
        "ip" if overload != "cidr_ip" => share(first, TRAVERSAL),
        "containsIP" => {
            let text = if overload == "cidr_contains_ip_string" {
                share(second, TRAVERSAL)
            } else {
                0
            };
            share(first * 2, TRAVERSAL) + text
        }
        "containsCIDR" => {
            let text = if overload == "cidr_contains_cidr_string" {
                share(second, TRAVERSAL)
            } else {
                0
            };
            share(first * 2, TRAVERSAL) + share(first, TRAVERSAL) + 1 + text
        }
        "validate" => match args.first() {
            Some(Ok(Value::Format(format))) => share(second + 1, TRAVERSAL) * share(format.regex_size, REGEX),
            _ => 1,
        },
        "_==_" if args.first().is_some_and(is_opaque) => 1,
        _ => standard(overload, first, second),
    }
}

fn is_opaque(arg: &Outcome<'_>) -> bool {
    use Value::{Cidr, Format, Ip, Quantity, Semver, Url};
    matches!(
        arg,
        Ok(Quantity(_) | Ip(IpAddr::V4(_) | IpAddr::V6(_)) | Cidr(..) | Format(_) | Url(_) | Semver(_))
    )
}

/// Overloads of the standard library.
fn standard(overload: &str, first: u64, second: u64) -> u64 {
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => share(first, TRAVERSAL),
        "in_list" => second,
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes"
        | "equals"
        | "not_equals" => share(first.min(second), TRAVERSAL),
        "add_string" | "add_bytes" => share(first + second, TRAVERSAL),
        "matches_string" => share(first + 1, TRAVERSAL) * share(second, REGEX),
        "contains_string" => share(first, TRAVERSAL) * share(second, TRAVERSAL),
        _ => 1,
    }
}

/// Overloads of lists and sets.
fn of_overload(overload: &str, args: &[Outcome<'_>], result: &Outcome<'_>) -> Option<u64> {
    let allocating = |factor: f64, size: u64| (size as f64 * factor) as u64 + 1 + LIST;
    let compared = |arg: Option<&Outcome<'_>>| {
        let count = size(arg);
        let first = match arg {
            Some(Ok(Value::List(list))) => list.get(0),
            _ => None,
        };
        let text = matches!(first, Some(Ok(Value::String(_) | Value::Bytes(_))));
        allocating(if text { 2.1 } else { 2.0 }, count * count)
    };
    Some(match overload {
        "list_slice" | "lists_range" | "list_reverse" => allocating(1.0, size(Some(result))),
        "list_flatten" => allocating(1.0, size(args.first())),
        "list_flatten_int" => {
            let depth = if let Some(Ok(Value::Int(depth))) = args.get(1) {
                *depth as f64
            } else {
                1.0
            };
            allocating(depth, size(args.first()))
        }
        "list_distinct" => compared(args.first()),
        "list_sets_contains_list" | "list_sets_intersects_list" => 1 + size(args.first()) * size(args.get(1)),
        "list_sets_equivalent_list" => 1 + size(args.first()) * size(args.get(1)) * 2,
        _ if overload.ends_with("_sortByAssociatedKeys") => compared(args.get(1)),
        _ if overload.starts_with("list_") && overload.ends_with("_sort") => compared(args.first()),
        _ => return None,
    })
}
