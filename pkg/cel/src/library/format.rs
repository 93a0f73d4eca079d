//! `'…'.format([…])`: the clauses of a format and what they make of values.

use super::{LARGEST_TEXT, numbers, time};
use crate::value::{Failure, Map, Outcome, Value};

/// What a clause asks for. A precision is that of `%.3f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    Text,
    Decimal,
    Fixed(usize),
    Scientific(usize),
    Binary,
    Hex { upper: bool },
    Octal,
}

/// Digits after the point where none are asked for.
const PRECISION: usize = 6;

/// What is wrong with a format or an argument, with the place of the argument where one is known.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub at: Option<u32>,
    pub message: String,
}

impl Mistake {
    fn new(message: impl Into<String>) -> Mistake {
        Mistake {
            at: None,
            message: message.into(),
        }
    }

    /// An argument of a type that a clause cannot format.
    pub(crate) fn type_at(clause: Clause, of: &str, at: u32) -> Mistake {
        Mistake {
            at: Some(at),
            message: format!("error during formatting: {}", wrong_type(clause, of)),
        }
    }
}

fn wrong_type(clause: Clause, of: &str) -> String {
    let only = match clause {
        Clause::Text => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        Clause::Decimal => "decimal clause can only be used on integers",
        Clause::Fixed(_) => "fixed-point clause can only be used on doubles",
        Clause::Scientific(_) => "scientific clause can only be used on doubles",
        Clause::Binary => "only integers and bools can be formatted as binary",
        Clause::Hex { .. } => "only integers, byte buffers, and strings can be formatted as hex",
        Clause::Octal => "octal clause can only be used on integers",
    };
    format!("{only}, was given {of}")
}

/// Reads a format and has `write` put the text of each clause's argument, of which there are `count`, in.
pub(crate) fn parse(
    text: &str,
    count: usize,
    write: &mut dyn FnMut(usize, Clause) -> Result<String, Mistake>,
) -> Result<String, Mistake> {
    let (mut out, mut rest, mut index) = (String::with_capacity(text.len()), text, 0);
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if index >= count {
            return Err(Mistake::new(format!("index {index} out of range")));
        }
        if rest.is_empty() {
            return Err(Mistake::new("unexpected end of string"));
        }
        let (clause, length) =
            clause(rest).map_err(|message| Mistake::new(format!("could not parse formatting clause: {message}")))?;
        out.push_str(&write(index, clause)?);
        if out.len() > LARGEST_TEXT {
            return Err(Mistake::new("formatted text is too long"));
        }
        rest = &rest[length..];
        index += 1;
    }
    out.push_str(rest);
    Ok(out)
}

fn clause(rest: &str) -> Result<(Clause, usize), String> {
    let mut length = 0;
    let mut precision = PRECISION;
    if let Some(digits) = rest.strip_prefix('.') {
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        if count == digits.len() {
            return Err("error while parsing precision: could not find end of precision specifier".into());
        }
        precision = digits[..count].parse().ok().filter(|precision| *precision <= 10_000).ok_or_else(|| {
            let why = if count == 0 { "invalid syntax" } else { "value out of range" };
            let number = &digits[..count];
            format!("error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {number:?}: {why}")
        })?;
        length = count + 1;
    }
    let letter = rest[length..].chars().next().unwrap_or_default();
    let clause = match letter {
        's' => Clause::Text,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific(precision),
        'b' => Clause::Binary,
        'x' | 'X' => Clause::Hex { upper: letter == 'X' },
        'o' => Clause::Octal,
        _ => return Err(format!("unrecognized formatting clause \"{letter}\"")),
    };
    Ok((clause, length + letter.len_utf8()))
}

pub(super) fn format<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::List(list)] = args else {
        return Err(Failure::NoOverload);
    };
    let written = parse(text, list.len(), &mut |index, clause| {
        let value = list
            .get(index)
            .unwrap_or(Err(Failure::NoOverload))
            .map_err(|error| Mistake::new(error.to_string()))?;
        one(clause, &value).map_err(|message| Mistake::new(format!("error during formatting: {message}")))
    });
    written
        .map(Value::text)
        .map_err(|mistake| Failure::new(mistake.message))
}

fn one(clause: Clause, value: &Value<'_>) -> Result<String, String> {
    let wrong = || wrong_type(clause, value.type_name());
    let double = |value: &Value<'_>| match value {
        Value::Double(number) => Some(*number),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    };
    match clause {
        Clause::Text => text(value).ok_or_else(wrong)?,
        Clause::Decimal => match value {
            Value::Int(number) => Ok(number.to_string()),
            Value::Uint(number) => Ok(number.to_string()),
            _ => Err(wrong()),
        },
        Clause::Fixed(precision) => match double(value).ok_or_else(wrong)? {
            number if number.is_finite() => Ok(grouped(&format!("{number:.precision$}"))),
            number => Ok(localized(number)),
        },
        Clause::Scientific(width) => {
            // What looks like its precision is how wide it is at least.
            let number = double(value).ok_or_else(wrong)?;
            let shown = if number.is_finite() {
                localized_scientific(number)
            } else {
                localized(number)
            };
            Ok(format!("{shown:>width$}"))
        }
        Clause::Binary => match value {
            Value::Bool(set) => Ok(u8::from(*set).to_string()),
            _ => radix(value, |number| format!("{number:b}")).ok_or_else(wrong),
        },
        Clause::Octal => radix(value, |number| format!("{number:o}")).ok_or_else(wrong),
        Clause::Hex { upper } => {
            let hex = match value {
                Value::String(text) => bytes(text.as_bytes()),
                Value::Bytes(value) => bytes(value),
                _ => radix(value, |number| format!("{number:x}")).ok_or_else(wrong)?,
            };
            Ok(if upper { hex.to_uppercase() } else { hex })
        }
    }
}

/// As the language's own locale has it: groups of three digits.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |number| ("-", number));
    let (whole, fraction) = number
        .split_once('.')
        .map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn localized(number: f64) -> String {
    if number.is_nan() {
        "NaN".into()
    } else if number > 0.0 {
        "∞".into()
    } else {
        "-∞".into()
    }
}

fn localized_scientific(number: f64) -> String {
    let text = numbers::scientific(number, PRECISION);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
    let raised = |c: char| match c {
        '+' => None,
        '-' => Some('⁻'),
        _ => "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(c.to_digit(10).unwrap_or(0) as usize),
    };
    format!("{digits}×10{}", exponent.chars().filter_map(raised).collect::<String>())
}

fn bytes(value: &[u8]) -> String {
    value.iter().map(|b| format!("{b:02x}")).collect()
}

/// An integer in another base: the sign, and the digits of what is left.
fn radix(value: &Value<'_>, digits: impl Fn(u64) -> String) -> Option<String> {
    match value {
        Value::Int(number) => Some(format!(
            "{}{}",
            if *number < 0 { "-" } else { "" },
            digits(number.unsigned_abs())
        )),
        Value::Uint(number) => Some(digits(*number)),
        _ => None,
    }
}

/// A value as `%s` shows it; `None` where it cannot be shown.
fn text(value: &Value<'_>) -> Option<Result<String, String>> {
    Some(match value {
        Value::Null => Ok("null".into()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Int(value) => Ok(value.to_string()),
        Value::Uint(value) => Ok(value.to_string()),
        Value::Double(value) => Ok(numbers::general(*value)),
        Value::String(text) => Ok(text.to_string()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => {
                Err("could not convert argument \"invalid UTF-8 in bytes, cannot convert to string\" to string".into())
            }
        },
        Value::Duration(nanos) => Ok(time::duration_text(*nanos)),
        Value::Timestamp(time) => Ok(time.to_text()),
        Value::Type(name) => Ok(name.to_string()),
        Value::List(list) => {
            let items: Result<Vec<String>, String> = list
                .iter()
                .map(|item| item.map_err(|error| error.to_string()).and_then(|item| inside(&item)))
                .collect();
            items.map(|items| format!("[{}]", items.join(", ")))
        }
        Value::Map(map) => entries(map),
        _ => return None,
    })
}

fn entries(map: &Map<'_>) -> Result<String, String> {
    let mut shown = Vec::new();
    for key in map.keys() {
        if !matches!(key, Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_)) {
            return Err(format!(
                "no formatting function for map key of type {}",
                key.type_name()
            ));
        }
        let value = map.find(&key).map_err(|error| error.to_string())?;
        let value = value.ok_or_else(|| format!("could not find key: {key}"))?;
        shown.push((inside(&key)?, inside(&value)?));
    }
    shown.sort();
    let shown: Vec<String> = shown.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", shown.join(", ")))
}

/// A value within a list or a map.
fn inside(value: &Value<'_>) -> Result<String, String> {
    let plain = || text(value).unwrap_or_else(|| Err(format!("no formatting function for {}", value.type_name())));
    Ok(match value {
        Value::String(text) => crate::display::quoted(text),
        Value::Bytes(_) => format!("b{}", crate::display::quoted(&plain()?)),
        Value::Double(number) if number.is_finite() => format!("{number:.PRECISION$}"),
        Value::Double(_) => crate::display::quoted(&plain()?),
        Value::Duration(_) => format!("duration({})", crate::display::quoted(&plain()?)),
        Value::Timestamp(_) => format!("timestamp({})", crate::display::quoted(&plain()?)),
        _ => plain()?,
    })
}
