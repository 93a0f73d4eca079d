//! resource.Quantity: fixed point numbers with SI suffixes and one canonical form
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// The suffix family a quantity was written in, which its canonical form keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// Nano units: every quantity that anything can hold fits.
const NANO: i128 = 1_000_000_000;
/// Upstream's bound for powers of two; decimal quantities go as far as the integer does.
const MAX_BINARY: i128 = i64::MAX as i128 * NANO;
const MAX: i128 = 10i128.pow(37);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };

    pub const fn from_value(value: i64, format: Format) -> Self {
        Quantity {
            nanos: value as i128 * NANO,
            format,
        }
    }

    pub const fn from_milli(milli: i64) -> Self {
        Quantity {
            nanos: milli as i128 * 1_000_000,
            format: Format::DecimalSi,
        }
    }

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(QuantityError::Format);
        }
        let negative = bytes[0] == b'-';
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        let whole_end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, rest) = rest.split_at(whole_end);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let (multiplier, format) = Self::suffix(suffix)?;
        let mut nanos = match multiplier {
            Multiplier::Binary(shift) => scale(whole, fraction, 9, 1i128 << shift).min(MAX_BINARY),
            Multiplier::Decimal(exponent) => scale(whole, fraction, 9 + exponent, 1),
        };
        let format = if format == Format::BinarySi && nanos > 0 && nanos < NANO {
            // less than one byte cannot be shown in powers of two
            Format::DecimalSi
        } else {
            format
        };
        if negative {
            nanos = -nanos;
        }
        Ok(Quantity { nanos, format })
    }

    fn suffix(suffix: &str) -> Result<(Multiplier, Format), QuantityError> {
        let decimal = |exponent| Ok((Multiplier::Decimal(exponent), Format::DecimalSi));
        let binary = |shift| Ok((Multiplier::Binary(shift), Format::BinarySi));
        match suffix {
            "" => decimal(0),
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            _ => {
                let Some(digits) = suffix.strip_prefix(['e', 'E']) else {
                    return if suffix_shape(suffix) {
                        Err(QuantityError::Suffix)
                    } else {
                        Err(QuantityError::Format)
                    };
                };
                let exponent: i32 = digits.parse().map_err(|_| {
                    if suffix_shape(suffix) {
                        QuantityError::Suffix
                    } else {
                        QuantityError::Format
                    }
                })?;
                Ok((Multiplier::Decimal(exponent), Format::DecimalExponent))
            }
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Whole units, rounded away from zero; bounded by i64.
    pub fn value(&self) -> i64 {
        clamp(div_up(self.nanos, NANO))
    }

    /// Thousandths, rounded away from zero; bounded by i64.
    pub fn milli_value(&self) -> i64 {
        clamp(div_up(self.nanos, NANO / 1000))
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether the value is a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Rounds up to thousandths, as the API does with resource lists.
    #[must_use]
    pub fn round_up_milli(mut self) -> Self {
        let milli = NANO / 1000;
        self.nanos = div_up(self.nanos, milli) * milli;
        self
    }

    fn combine(self, nanos: i128, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity {
            nanos: nanos.clamp(-MAX, MAX),
            format,
        }
    }
}

enum Multiplier {
    Decimal(i32),
    Binary(u32),
}

/// Whether a suffix fits upstream's regular expression (then it is merely unknown).
fn suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

/// `whole.fraction × 10^exponent × factor` as an integer, rounded up, capped at the largest quantity.
fn scale(whole: &str, fraction: &str, exponent: i32, factor: i128) -> i128 {
    let digits = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|byte| i128::from(byte - b'0'));
    let total = whole.len() + fraction.len();
    // the digits that count for an integer, the rest only says whether to round up
    let keep = whole.len() as i64 + i64::from(exponent);
    // with a factor a few of the digits past the point count: work in units of 10^-6 then
    let extra = if factor > 1 { 6 } else { 0 };
    let mut value: i128 = 0;
    let mut inexact = false;
    for (index, digit) in digits.enumerate() {
        if (index as i64) < keep + extra {
            value = value.saturating_mul(10).saturating_add(digit);
            if value > MAX {
                return MAX;
            }
        } else if digit != 0 {
            inexact = true;
        }
    }
    if keep + extra < 0 {
        return i128::from(inexact || value != 0);
    }
    for _ in total as i64..keep + extra {
        if value == 0 {
            break;
        }
        value = value.saturating_mul(10);
        if value > MAX {
            return MAX;
        }
    }
    if factor > 1 {
        let product = value.saturating_mul(factor);
        let quotient = product / 1_000_000;
        inexact |= product % 1_000_000 != 0;
        value = quotient;
    }
    if inexact {
        value += 1;
    }
    value.min(MAX)
}

fn div_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 {
        quotient
    } else {
        quotient + value.signum()
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.nanos % NANO == 0 {
            let mut value = self.nanos / NANO;
            let mut power = 0;
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            value /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{value}"),
            (Format::DecimalExponent, _) => write!(f, "{value}e{exponent}"),
            _ => {
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
                write!(f, "{value}{suffix}")
            }
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Self) -> Self {
        self.combine(self.nanos + other.nanos, other)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Self) -> Self {
        self.combine(self.nanos - other.nanos, other)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// The quantity of a JSON value: text or a bare number, as Go's decoder takes it.
pub fn from_json(value: &serde_json::Value) -> Result<Quantity, QuantityError> {
    match value {
        serde_json::Value::String(text) => Quantity::parse(text.trim()),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Ok(Quantity::from_value(whole, Format::DecimalSi)),
            None => Quantity::parse(&number.to_string()),
        },
        _ => Err(QuantityError::Format),
    }
}

/// Rewrites a quantity in place as upstream prints it again; what does not parse stays for validation.
pub fn canonicalize(value: &mut serde_json::Value) {
    rewrite(value, false);
}

/// The same with rounding up to thousandths: entries of resource lists.
pub fn canonicalize_rounded(value: &mut serde_json::Value) {
    rewrite(value, true);
}

fn rewrite(value: &mut serde_json::Value, rounded: bool) {
    match value {
        serde_json::Value::String(text) => {
            if is_canonical_integer(text) || kept_scale(text).is_some_and(|scale| !rounded || scale >= -3) {
                return;
            }
        }
        serde_json::Value::Number(_) => {}
        _ => return,
    }
    if let Ok(quantity) = from_json(value) {
        let quantity = if rounded { quantity.round_up_milli() } else { quantity };
        let canonical = quantity.to_string();
        if value.as_str() != Some(&canonical) {
            *value = canonical.into();
        }
    }
}

/// Upstream prints some texts again as they were read, though they are not quite canonical (`04Gi`, `1.500`); then the
/// decimal scale of the number.
fn kept_scale(text: &str) -> Option<i32> {
    if text == "0" {
        return Some(0);
    }
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
    let whole_end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let (whole, rest) = rest.split_at(whole_end);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let whole = if whole.is_empty() { "0" } else { whole };
    let digits = whole.len() + fraction.len();
    match Quantity::suffix(suffix).ok()? {
        (Multiplier::Binary(shift), _) => {
            let precise = 15 - digits as i64 - i64::from(shift * 3 / 10) > 0;
            let value: i64 = if fraction.is_empty() && precise {
                whole.parse().ok()?
            } else {
                return None;
            };
            (value & 7 != 0 && value.checked_mul(1i64 << shift).is_some()).then_some(0)
        }
        (Multiplier::Decimal(exponent), _) => {
            let scale = exponent.checked_sub(fraction.len() as i32)?;
            let last = if fraction.is_empty() { whole } else { fraction };
            let thousands = last.ends_with("000")
                || (fraction.len() < 3 && !fraction.is_empty() && format!("{whole}{fraction}").ends_with("000"));
            (digits <= 18 && scale >= -9 && scale % 3 == 0 && !thousands && !whole.starts_with('0')).then_some(scale)
        }
    }
}

/// The commonest case without any arithmetic: a short whole number that no suffix shortens.
fn is_canonical_integer(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=12).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_digit)
        && bytes[0] != b'0'
        && !text.ends_with("000")
}

/// What the containers of a pod ask for of one resource, summed up as they are gone through.
#[derive(Default)]
struct Needs {
    running: Option<Quantity>,
    sidecars: Option<Quantity>,
    most: Option<Quantity>,
}

impl Needs {
    fn run_first(&mut self, own: Quantity, stays: bool) {
        let at_once = self.sidecars.map_or(own, |sidecars| own + sidecars);
        if stays {
            self.run(own);
            self.sidecars = Some(at_once);
        }
        // Of equal ones the first keeps its form.
        self.most = Some(at_once).max(self.most);
    }

    fn run(&mut self, own: Quantity) {
        self.running = Some(self.running.map_or(own, |running| running + own));
    }
}

/// What a pod's containers need at once of each resource that their `key` names: all that run beside each other, or one that
/// runs before them.
pub fn aggregate<'a>(spec: &'a serde_json::Map<String, serde_json::Value>, key: &str) -> BTreeMap<&'a str, Quantity> {
    let containers = |list: &str| {
        spec.get(list)
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
    };
    let named = |container: &'a serde_json::Value| {
        let own = crate::meta::map_at(container, &["resources", key]);
        own.into_iter()
            .flatten()
            .filter_map(|(name, own)| Some((name.as_str(), from_json(own).ok()?)))
    };
    let mut needs: BTreeMap<&str, Needs> = BTreeMap::new();
    for (name, own) in containers("containers").flat_map(named) {
        needs.entry(name).or_default().run(own);
    }
    for container in containers("initContainers") {
        let stays = crate::meta::string(container, &["restartPolicy"]) == "Always";
        for (name, own) in named(container) {
            needs.entry(name).or_default().run_first(own, stays);
        }
    }
    let sums = needs.into_iter();
    sums.filter_map(|(name, own)| Some((name, own.most.max(own.running)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1024Ki", "1Mi"),
            ("1Gi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("6562.5Ki", "6720000"),
            ("1023", "1023"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("1e-3", "1e-3"),
            ("12e0", "12"),
            ("-1", "-1"),
            ("+1", "1"),
            ("-1.5Ki", "-1536"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("100Ei", "9223372036854775807"),
            ("-", "0"),
            ("Ki", "0"),
            ("10E", "10E"),
            ("53e19", "530e18"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        for text in [
            "", "1.5.5", "1 Mi", "a", "1ki", "1mm", "1K", "1e", "1e1.5", "--1", "1Mi1",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        assert_eq!(Quantity::parse("1x"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1K"), Err(QuantityError::Suffix));
    }

    #[test]
    fn texts_as_upstream_prints_them_again() {
        for (text, plain, rounded) in [
            ("04Gi", "04Gi", "04Gi"),
            ("1024Mi", "1Gi", "1Gi"),
            ("1500m", "1500m", "1500m"),
            ("1000m", "1", "1"),
            ("+7M", "+7M", "+7M"),
            ("0.5", "500m", "500m"),
            ("1.5", "1500m", "1500m"),
            ("1.500", "1.500", "1.500"),
            ("1.000", "1", "1"),
            ("5u", "5u", "1m"),
            ("+1024Mi", "1Gi", "1Gi"),
        ] {
            let mut value: serde_json::Value = text.into();
            canonicalize(&mut value);
            assert_eq!(value, plain, "{text}");
            let mut value: serde_json::Value = text.into();
            canonicalize_rounded(&mut value);
            assert_eq!(value, rounded, "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let quantity = Quantity::parse("1500m").unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1500));
        assert_eq!(Quantity::parse("1n").unwrap().round_up_milli().to_string(), "1m");
        let sum = Quantity::parse("1Gi").unwrap() + Quantity::parse("512Mi").unwrap();
        assert_eq!(sum.to_string(), "1536Mi");
    }

    proptest! {
        #[test]
        fn canonical_form_is_stable(value in -1_000_000_000i64..1_000_000_000, suffix in "(n|u|m|k|M|G|Ki|Mi|Gi|e3|e-3|)") {
            let parsed = Quantity::parse(&format!("{value}{suffix}")).unwrap();
            let text = parsed.to_string();
            let again = Quantity::parse(&text).unwrap();
            prop_assert_eq!(parsed, again);
            prop_assert_eq!(again.to_string(), text);
        }

        #[test]
        fn never_panics(text in ".{0,24}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn digits_never_panic(text in "[-+]?[0-9]{0,40}\\.?[0-9]{0,40}([eE][-+]?[0-9]{1,12}|[KMGTPE]i|)") {
            if let Ok(quantity) = Quantity::parse(&text) {
                prop_assert_eq!(Quantity::parse(&quantity.to_string()).unwrap(), quantity);
            }
        }
    }
}
