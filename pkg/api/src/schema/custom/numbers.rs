//! Bounds of numbers. A bound is a float, but an integer is compared with its whole part, as upstream does.

use serde_json::{Number, Value};

use super::check::invalid;
use crate::float;
use crate::schema::Checks;
use crate::status::FieldError;
use crate::validation::path::Path;

/// In upstream's order: multiple, least, most.
pub(super) fn check(number: &Number, checks: &Checks, path: &Path<'_>) -> Vec<FieldError> {
    let multiple = checks.multiple_of.as_ref().and_then(|of| multiple_of(number, of, path));
    let least = checks.minimum.as_ref().and_then(|least| {
        let words = ["greater than or equal to", "greater than"];
        bound(
            number,
            least,
            checks.exclusive_minimum,
            |value, least| value > least,
            words,
            path,
        )
    });
    let most = checks.maximum.as_ref().and_then(|most| {
        let words = ["less than or equal to", "less than"];
        bound(
            number,
            most,
            checks.exclusive_maximum,
            |value, most| value < most,
            words,
            path,
        )
    });
    [multiple, least, most].into_iter().flatten().collect()
}

/// Within its bound, or at it where that is allowed.
fn bound(
    number: &Number,
    bound: &Number,
    exclusive: bool,
    inside: fn(f64, f64) -> bool,
    words: [&str; 2],
    path: &Path<'_>,
) -> Option<FieldError> {
    let limit = bound.as_f64()?;
    let (good, shown) = match number.as_i64() {
        Some(value) => {
            let limit = integer(limit);
            let order = value.cmp(&limit);
            let inside = order.is_ne() && inside(if order.is_lt() { -1.0 } else { 1.0 }, 0.0);
            (inside || order.is_eq() && !exclusive, limit.to_string())
        }
        None => {
            let value = number.as_f64()?;
            (
                inside(value, limit) || value == limit && !exclusive,
                float::plain(limit),
            )
        }
    };
    let what = || format!("should be {} {shown}", words[usize::from(exclusive)]);
    (!good).then(|| invalid(path, Value::Number(number.clone()), what()))
}

fn multiple_of(number: &Number, factor: &Number, path: &Path<'_>) -> Option<FieldError> {
    let factor = factor.as_f64()?;
    let (positive, multiple, shown) = match number.as_i64() {
        Some(value) => {
            let factor = integer(factor);
            let multiple = factor > 0 && value % factor == 0;
            (factor > 0, multiple, factor.to_string())
        }
        None => {
            let value = number.as_f64()?;
            let times = if factor < 1.0 {
                1.0 / factor * value
            } else {
                value / factor
            };
            (factor > 0.0, is_whole(times), float::plain(factor))
        }
    };
    if !positive {
        let why = format!("factor MultipleOf declared for {path} must be positive: {shown}");
        let value = shown.parse().map_or(Value::Null, Value::Number);
        return Some(FieldError::invalid(path, value, why));
    }
    (!multiple).then(|| {
        let what = format!("should be a multiple of {shown}");
        invalid(path, Value::Number(number.clone()), what)
    })
}

/// The whole part; what does not fit is the least integer, as processors convert it.
fn integer(float: f64) -> i64 {
    const END: f64 = -(i64::MIN as f64);
    if (-END..END).contains(&float) {
        float as i64
    } else {
        i64::MIN
    }
}

/// Near enough to an integer, and one that JSON can hold.
pub(super) fn is_whole(number: f64) -> bool {
    const NEAR: f64 = 1e-9;
    let whole = number.trunc();
    if number.abs() >= (1u64 << 53) as f64 || !number.is_finite() {
        return false;
    }
    number == whole || (whole != 0.0 && (number - whole).abs() / (number.abs() + whole.abs()) < NEAR)
}
