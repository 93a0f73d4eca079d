//! Quantities as expressions know them: exact numbers, and whether one was written as an integer.

use std::cmp::Ordering;

/// Nano units: what is finer is rounded up, away from zero.
const NANO: i128 = 1_000_000_000;
const LARGEST: i128 = 10i128.pow(37);
const LARGEST_BINARY: i128 = i64::MAX as i128 * NANO;

const FORMAT: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const NUMERIC: &str = "unable to parse numeric part of quantity";
const SUFFIX: &str = "unable to parse quantity's suffix";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantity {
    nanos: i128,
    /// Value and power of ten, where it is kept as such: only then can it be an integer.
    small: Option<(i64, i32)>,
}

impl Quantity {
    pub(crate) fn from_int(value: i64) -> Quantity {
        Quantity {
            nanos: i128::from(value) * NANO,
            small: Some((value, 0)),
        }
    }

    /// Reads one; the error is worded for the user.
    pub(crate) fn parse(text: &str) -> Result<Quantity, &'static str> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if text.is_empty() {
            return Err(FORMAT);
        }
        let number_length = unsigned
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count();
        let (number, suffix) = unsigned.split_at(number_length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let well_formed = !fraction.contains('.') && is_suffix(suffix);
        if !well_formed {
            return Err(FORMAT);
        }
        let (base, exponent) = interpret(suffix).ok_or(SUFFIX)?;
        let whole = whole.trim_start_matches('0');
        let digits = format!("{whole}{fraction}");
        let small =
            small(whole, fraction, base, exponent).map(|(value, scale)| (if negative { -value } else { value }, scale));
        if small.is_none() && !number.bytes().any(|b| b.is_ascii_digit()) {
            return Err(NUMERIC);
        }
        let nanos = match small {
            Some((value, scale)) => {
                let exact = i128::from(value.unsigned_abs()).checked_mul(10i128.pow((scale + 9) as u32));
                exact.map_or(LARGEST, |exact| exact.min(LARGEST))
            }
            None => nanos(&digits, fraction.len() as i32, base, exponent),
        };
        Ok(Quantity {
            nanos: if negative { -nanos } else { nanos },
            small,
        })
    }

    pub(crate) fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }

    pub(crate) fn sign(&self) -> i64 {
        self.nanos.signum() as i64
    }

    /// Its value where it is an integer that was not written with a fraction.
    pub(crate) fn as_int(&self) -> Option<i64> {
        let (value, scale) = self.small?;
        value.checked_mul(10i64.checked_pow(u32::try_from(scale).ok()?)?)
    }

    pub(crate) fn as_double(&self) -> f64 {
        match self.small {
            Some((value, scale)) => value as f64 * 10f64.powi(scale),
            None => self.nanos as f64 / NANO as f64,
        }
    }

    pub(crate) fn plus(self, other: Quantity) -> Quantity {
        let small = match (self.small, other.small) {
            (Some(a), Some(b)) => add_small(a, b),
            _ => None,
        };
        Quantity {
            nanos: (self.nanos + other.nanos).clamp(-LARGEST, LARGEST),
            small,
        }
    }

    pub(crate) fn minus(self, other: Quantity) -> Quantity {
        let small = other
            .small
            .and_then(|(value, scale)| Some((value.checked_neg()?, scale)));
        self.plus(Quantity {
            nanos: -other.nanos,
            small,
        })
    }
}

fn add_small(a: (i64, i32), b: (i64, i32)) -> Option<(i64, i32)> {
    if b.0 == 0 {
        return Some(a);
    }
    if a.0 == 0 {
        return Some(b);
    }
    let scale = a.1.min(b.1);
    let at = |(value, own): (i64, i32)| value.checked_mul(10i64.checked_pow((own - scale) as u32)?);
    Some((at(a)?.checked_add(at(b)?)?, scale))
}

/// Letters of suffixes, then a sign, then digits.
fn is_suffix(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

/// Base and exponent of a suffix.
fn interpret(suffix: &str) -> Option<(u32, i32)> {
    const DECIMAL: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    const BINARY: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((10, *exponent));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((2, *exponent));
    }
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i64 = digits.parse().ok()?;
    Some((10, i32::try_from(exponent).ok()?))
}

/// The quantity as a value and a power of ten, where it is short enough.
fn small(whole: &str, fraction: &str, base: u32, exponent: i32) -> Option<(i64, i32)> {
    let num = if whole.is_empty() { "0" } else { whole };
    let (precision, scale, mantissa) = if base == 10 {
        (18 - (num.len() + fraction.len()) as i32, exponent, 1)
    } else if fraction.is_empty() {
        (
            15 - num.len() as i32 - (exponent as f32 * 3.0 / 10.0) as i32 - 1,
            0,
            1i64 << exponent,
        )
    } else {
        return None;
    };
    let scale = scale.saturating_sub(fraction.len() as i32);
    if precision < 0 || !(-9..=27).contains(&scale) {
        return None;
    }
    let value: i64 = format!("{num}{fraction}").parse().ok()?;
    Some((value.checked_mul(mantissa)?, scale))
}

/// The same exactly, rounded up to nano units.
fn nanos(digits: &str, places: i32, base: u32, exponent: i32) -> i128 {
    let limit = if base == 2 { LARGEST_BINARY } else { LARGEST };
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() {
        return 0;
    }
    let exponent_of_ten = if base == 10 { i64::from(exponent) } else { 0 };
    let mut shift = 9 - i64::from(places) + exponent_of_ten;
    // Digits beyond what an i128 holds only matter for the rounding.
    let kept = &trimmed[..trimmed.len().min(36)];
    let lost = trimmed[kept.len()..].bytes().any(|b| b != b'0');
    shift += (trimmed.len() - kept.len()) as i64;
    let Ok(mut value) = kept.parse::<i128>() else {
        return limit;
    };
    if base == 2 {
        // Split, so that the product fits: the binary suffixes are bounded far below.
        let factor = 1i128 << exponent;
        let Some(product) = value.checked_mul(factor) else {
            return limit;
        };
        value = product;
    }
    let mut rounded = lost;
    while shift > 0 {
        let Some(product) = value.checked_mul(10).filter(|product| *product <= limit) else {
            return limit;
        };
        value = product;
        shift -= 1;
    }
    while shift < 0 && value > 0 {
        rounded |= value % 10 != 0;
        value /= 10;
        shift += 1;
    }
    (value + i128::from(rounded)).min(limit)
}
