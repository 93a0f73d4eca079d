//! The libraries: what each function does with values. Which overloads there are for the checker is a table of its own.

mod convert;
pub(crate) mod format;
pub(crate) mod lists;
pub(crate) mod named_format;
mod net;
pub(crate) mod numbers;
mod operators;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
mod strings;
pub(crate) mod time;
pub(crate) mod url;

use std::cmp::Ordering;
use std::sync::Arc;

use quantity::Quantity;
use semver::Semver;

use crate::value::{Failure, Outcome, Value};

/// Bytes of a text that an expression makes: what makes it is charged for what it reads, not for what it writes.
const LARGEST_TEXT: usize = 16 << 20;

/// Calls a function. `overload` is the one that the checker found, or nothing where several fit.
pub(crate) fn call<'a>(function: &'static str, overload: &'static str, args: &[Value<'a>]) -> Outcome<'a> {
    worded(function, args, dispatch(function, overload, args))
}

/// What a function came to, with its arguments' types where it is for no such arguments.
pub(crate) fn worded<'a>(function: &str, args: &[Value<'a>], outcome: Outcome<'a>) -> Outcome<'a> {
    match outcome {
        Err(Failure::NoOverload) => {
            let types: Vec<&str> = args.iter().map(Value::type_name).collect();
            Err(Failure::new(format!(
                "no such overload: {function}({})",
                types.join(", ")
            )))
        }
        outcome => outcome,
    }
}

fn dispatch<'a>(function: &'static str, overload: &'static str, args: &[Value<'a>]) -> Outcome<'a> {
    match function {
        "_+_" => operators::add(args),
        "_-_" => operators::subtract(args),
        "_*_" => operators::multiply(args),
        "_/_" => operators::divide(args),
        "_%_" => operators::modulo(args),
        "-_" => operators::negate(args),
        "!_" => operators::not(args),
        "_<_" => operators::compare(args, "_<_", Ordering::is_lt),
        "_<=_" => operators::compare(args, "_<=_", Ordering::is_le),
        "_>_" => operators::compare(args, "_>_", Ordering::is_gt),
        "_>=_" => operators::compare(args, "_>=_", Ordering::is_ge),
        "@in" => operators::is_in(args),
        "size" => operators::size(args),
        "bool" => convert::to_bool(args),
        "bytes" => convert::to_bytes(args),
        "double" => convert::to_double(args),
        "duration" => convert::to_duration(args),
        "dyn" => convert::to_dyn(args),
        "int" => convert::to_int(args),
        "string" => convert::to_text(args),
        "timestamp" => convert::to_timestamp(args),
        "type" => convert::type_of(args),
        "uint" => convert::to_uint(args),
        "matches" | "find" | "findAll" => regex::call(function, args, None),
        "cel.@mapInsert" => lists::map_insert(args),
        "optional.none" => Ok(Value::Optional(None)),
        "optional.of" => lists::some(args),
        "optional.ofNonZeroValue" => lists::some_unless_zero(args),
        "optional.unwrap" | "unwrapOpt" => lists::unwrap(args),
        "value" => lists::held(args),
        "hasValue" => lists::is_held(args),
        _ if overload.starts_with("string") || matches!(args.first(), Some(Value::String(_))) => text(function, args),
        _ => other(function, overload, args),
    }
}

/// Functions whose first argument is a string.
fn text<'a>(function: &'static str, args: &[Value<'a>]) -> Outcome<'a> {
    match function {
        "charAt" => strings::char_at(args),
        "contains" => strings::contains(args, |text, part| text.contains(part)),
        "endsWith" => strings::contains(args, |text, part| text.ends_with(part)),
        "startsWith" => strings::contains(args, |text, part| text.starts_with(part)),
        "format" => format::format(args),
        "indexOf" => strings::index_of(args),
        "lastIndexOf" => strings::last_index_of(args),
        "lowerAscii" => strings::lower_ascii(args),
        "upperAscii" => strings::upper_ascii(args),
        "trim" => strings::trim(args),
        "replace" => strings::replace(args),
        "split" => strings::split(args),
        "substring" => strings::substring(args),
        "strings.quote" => strings::quote(args),
        "ip" => net::ip(args),
        "isIP" => net::is_ip(args),
        "ip.isCanonical" => net::is_canonical(args),
        "cidr" => net::cidr(args),
        "isCIDR" => net::is_cidr(args),
        "url" => one_text(args, |text| match url::parse(text) {
            Ok(url) => Ok(Value::Url(Arc::new(url))),
            Err(error) => Err(format!("URL parse error during conversion from string: {error}")),
        }),
        "isURL" => one_text(args, |text| Ok(Value::Bool(url::parse(text).is_ok()))),
        "quantity" => one_text(args, |text| {
            Quantity::parse(text).map(Value::Quantity).map_err(String::from)
        }),
        "isQuantity" => one_text(args, |text| Ok(Value::Bool(Quantity::parse(text).is_ok()))),
        "semver" => version(args)?
            .map_err(Failure::new)
            .map(|version| Value::Semver(Arc::new(version))),
        "isSemver" => Ok(Value::Bool(version(args)?.is_ok())),
        "format.named" => named_format::named(args),
        _ => Err(Failure::NoOverload),
    }
}

fn one_text<'a>(args: &[Value<'a>], make: impl Fn(&str) -> Result<Value<'a>, String>) -> Outcome<'a> {
    match args {
        [Value::String(text)] => make(text).map_err(Failure::new),
        _ => Err(Failure::NoOverload),
    }
}

fn version(args: &[Value<'_>]) -> Result<Result<Semver, String>, Failure> {
    match args {
        [Value::String(text), Value::Bool(true)] => Ok(Semver::parse_lenient(text)),
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Ok(Semver::parse(text)),
        _ => Err(Failure::NoOverload),
    }
}

fn other<'a>(function: &'static str, overload: &'static str, args: &[Value<'a>]) -> Outcome<'a> {
    match function {
        "contains" | "endsWith" | "startsWith" => Err(Failure::no_overload()),
        "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate" | "getDayOfWeek" | "getHours"
        | "getMinutes" | "getSeconds" | "getMilliseconds" => time::part(function, args),
        "join" => strings::join(args),
        "isSorted" => lists::is_sorted(args),
        "sum" => lists::sum(args, overload),
        "max" => lists::extreme(args, "max", Ordering::Less),
        "min" => lists::extreme(args, "min", Ordering::Greater),
        "indexOf" => lists::index_of(args, false),
        "lastIndexOf" => lists::index_of(args, true),
        "slice" => lists::slice(args),
        "flatten" => lists::flatten(args),
        "sort" => lists::sort(args),
        "@sortByAssociatedKeys" => lists::sort_by(args),
        "lists.range" => lists::range(args),
        "reverse" => lists::reverse(args),
        "distinct" => lists::distinct(args),
        "first" => lists::end(args, false),
        "last" => lists::end(args, true),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => lists::sets(args, function),
        "ip" => net::ip(args),
        "family" => net::family(args),
        "isUnspecified" | "isLoopback" | "isLinkLocalMulticast" | "isLinkLocalUnicast" | "isGlobalUnicast" => {
            net::is(args, function)
        }
        "containsIP" => net::contains_ip(args),
        "containsCIDR" => net::contains_cidr(args),
        "prefixLength" => net::prefix_length(args),
        "masked" => net::mask(args),
        "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" | "getQuery" => {
            url::part(function, args)
        }
        "validate" => named_format::validate(args),
        _ if function.starts_with("format.") => named_format::constant(function),
        _ => numbered(function, args),
    }
}

/// Functions of quantities and versions.
fn numbered<'a>(function: &'static str, args: &[Value<'a>]) -> Outcome<'a> {
    let order = match args {
        [Value::Quantity(a), Value::Quantity(b)] => Some(a.cmp(b)),
        [Value::Semver(a), Value::Semver(b)] => Some(a.compare(b)),
        _ => None,
    };
    if let Some(order) = order {
        match function {
            "isGreaterThan" => return Ok(Value::Bool(order.is_gt())),
            "isLessThan" => return Ok(Value::Bool(order.is_lt())),
            "compareTo" => return Ok(Value::Int(order as i64)),
            _ => {}
        }
    }
    Ok(match (function, args) {
        ("sign", [Value::Quantity(a)]) => Value::Int(a.sign()),
        ("isInteger", [Value::Quantity(a)]) => Value::Bool(a.as_int().is_some()),
        ("asInteger", [Value::Quantity(a)]) => Value::Int(
            a.as_int()
                .ok_or_else(|| Failure::new("cannot convert value to integer"))?,
        ),
        ("asApproximateFloat", [Value::Quantity(a)]) => Value::Double(a.as_double()),
        ("add", [Value::Quantity(a), Value::Quantity(b)]) => Value::Quantity(a.plus(*b)),
        ("add", [Value::Quantity(a), Value::Int(b)]) => Value::Quantity(a.plus(Quantity::from_int(*b))),
        ("sub", [Value::Quantity(a), Value::Quantity(b)]) => Value::Quantity(a.minus(*b)),
        ("sub", [Value::Quantity(a), Value::Int(b)]) => Value::Quantity(a.minus(Quantity::from_int(*b))),
        ("major", [Value::Semver(version)]) => Value::Int(version.major as i64),
        ("minor", [Value::Semver(version)]) => Value::Int(version.minor as i64),
        ("patch", [Value::Semver(version)]) => Value::Int(version.patch as i64),
        _ => return Err(Failure::NoOverload),
    })
}
