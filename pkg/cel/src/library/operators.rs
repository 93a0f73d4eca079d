//! Operators: arithmetic that never overflows silently, comparisons, indexes and membership.

use std::cmp::Ordering;

use crate::value::{Failure, Outcome, Value};

fn overflow() -> Failure {
    Failure::new("integer overflow")
}

fn unsigned_overflow() -> Failure {
    Failure::new("unsigned integer overflow")
}

/// What a function says of operands it is not for: by its name where the first has no such function at all. Types with
/// methods of their own are asked for it first, and do not say.
pub(super) fn unfit(first: &Value<'_>, function: &str, knows: fn(&Value<'_>) -> bool) -> Failure {
    let has_methods = matches!(first, Value::String(_) | Value::Duration(_) | Value::Timestamp(_));
    if has_methods || knows(first) {
        Failure::no_overload()
    } else {
        Failure::new(format!("no such overload: {function}"))
    }
}

pub(super) fn add<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [a, b] = args else { return Err(Failure::NoOverload) };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => Value::text([&**a, &**b].concat()),
        (Value::Bytes(a), Value::Bytes(b)) => Value::Bytes([&**a, &**b].concat().into()),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Timestamp(time), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(time)) => {
            Value::Timestamp(time.add(*nanos)?)
        }
        (Value::List(a), Value::List(b)) => return a.clone().concat(b),
        _ => {
            return Err(unfit(a, "_+_", |a| {
                use Value::{Bytes, Double, Duration, Int, List, String, Timestamp, Uint};
                matches!(
                    a,
                    Int(_) | Uint(_) | Double(_) | String(_) | Bytes(_) | Duration(_) | Timestamp(_) | List(_)
                )
            }));
        }
    })
}

pub(super) fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [a, b] = args else { return Err(Failure::NoOverload) };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Timestamp(time), Value::Duration(nanos)) => {
            Value::Timestamp(time.add(nanos.checked_neg().ok_or_else(overflow)?)?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Value::Duration(a.since(*b)?),
        _ => {
            return Err(unfit(a, "_-_", |a| {
                matches!(
                    a,
                    Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_) | Value::Timestamp(_)
                )
            }));
        }
    })
}

fn is_number(value: &Value<'_>) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

pub(super) fn multiply<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_mul(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_mul(*b).ok_or_else(unsigned_overflow)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return Err(unfit(&args[0], "_*_", is_number)),
    })
}

pub(super) fn divide<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            return Err(Failure::new("division by zero"));
        }
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_div(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a / b),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return Err(unfit(&args[0], "_/_", is_number)),
    })
}

pub(super) fn modulo<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            return Err(Failure::new("modulus by zero"));
        }
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_rem(*b).ok_or_else(overflow)?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a % b),
        _ => return Err(unfit(&args[0], "_%_", |a| matches!(a, Value::Int(_) | Value::Uint(_)))),
    })
}

pub(super) fn negate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::Int(a)] => Value::Int(a.checked_neg().ok_or_else(overflow)?),
        [Value::Double(a)] => Value::Double(-a),
        [Value::Duration(a)] => Value::Duration(a.checked_neg().ok_or_else(overflow)?),
        _ => return Err(unfit(&args[0], "-_", |a| matches!(a, Value::Bool(_)))),
    })
}

pub(super) fn not<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(a)] => Ok(Value::Bool(!a)),
        _ => Err(Failure::no_overload()),
    }
}

pub(super) fn compare<'a>(args: &[Value<'a>], operator: &str, holds: fn(Ordering) -> bool) -> Outcome<'a> {
    let [a, b] = args else { return Err(Failure::NoOverload) };
    match a.compare(b) {
        Ok(order) => Ok(Value::Bool(holds(order))),
        Err(Failure::Error(message)) if &*message == "no such overload" => Err(unfit(a, operator, |a| {
            use Value::{Bool, Bytes, Double, Duration, Int, String, Timestamp, Uint};
            matches!(
                a,
                Bool(_) | Int(_) | Uint(_) | Double(_) | String(_) | Bytes(_) | Duration(_) | Timestamp(_)
            )
        })),
        Err(error) => Err(error),
    }
}

pub(super) fn is_in<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [wanted, Value::List(list)] => list.contains(wanted).map(Value::Bool),
        [wanted, Value::Map(map)] => map.has(wanted).map(Value::Bool),
        _ => Err(Failure::no_overload()),
    }
}

pub(super) fn size<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Ok(Value::Int(value.size().unwrap_or(0) as i64))
        }
        _ => Err(unfit(&args[0], "size", |_| false)),
    }
}
