//! The strings that Go types read themselves (times, base64, quantities, durations): checked, and brought to the form in
//! which Go prints them. `Ok(None)`: it has that form already.

use std::borrow::Cow;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::Quantity;

/// Text as Go reads it: what is no UTF-8 is replaced. The standard library's own replacing reader takes a twelfth of a
/// decode where there is nothing to replace.
pub(super) fn mended(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

type Canonical = Result<Option<Value>, String>;

/// Whether a text is a time as metav1.Time takes it.
///
/// # Errors
/// Why not, in Go's words.
pub fn check_time(text: &str) -> Result<(), String> {
    time(text).map(drop)
}

/// metav1.Time: RFC 3339 in UTC, to the second.
pub(super) fn time(text: &str) -> Canonical {
    if let (true, Ok(_)) = (is_plain_time(text), text.parse::<Timestamp>()) {
        return Ok(None);
    }
    let timestamp = parse_time(text, "2006-01-02T15:04:05Z07:00")?;
    Ok(Some(print_time(timestamp.as_second()).into()))
}

/// metav1.MicroTime: RFC 3339 in UTC, always six decimals.
pub(super) fn micro_time(text: &str) -> Canonical {
    const LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";
    let timestamp = parse_time(text, LAYOUT)?;
    six_decimals(&text[19..]).map_err(|why| format!("parsing time {text:?} as {LAYOUT:?}: {why}"))?;
    let micros = timestamp.as_microsecond();
    let printed = print_micro_time(micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    Ok((printed != text).then(|| printed.into()))
}

/// What stands behind the seconds has as many decimals as Go's layout, no more and no fewer.
fn six_decimals(rest: &str) -> Result<(), String> {
    let digits = rest.strip_prefix('.').unwrap_or("").bytes();
    match digits.take_while(u8::is_ascii_digit).count() {
        6 => Ok(()),
        0..6 => Err(format!("cannot parse {rest:?} as \".000000\"")),
        _ => Err(format!("cannot parse {:?} as \"Z07:00\"", &rest[7..])),
    }
}

/// `2026-01-02T03:04:05Z`
fn is_plain_time(text: &str) -> bool {
    text.len() == 20 && text.as_bytes()[19] == b'Z' && text.as_bytes()[10] == b'T'
}

fn parse_time(text: &str, layout: &str) -> Result<Timestamp, String> {
    // jiff takes a space or a lower-case t where RFC 3339 as Go reads it does not.
    let shaped = text.len() >= 20 && text.as_bytes()[10] == b'T';
    match text.parse::<Timestamp>() {
        Ok(timestamp) if shaped => Ok(timestamp),
        _ => Err(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
        )),
    }
}

pub(super) fn print_time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => String::new(),
    }
}

pub(super) fn print_micro_time(seconds: i64, micros: i64) -> String {
    let mut text = print_time(seconds);
    // "…Z" → "….000000Z"
    text.pop();
    text.push_str(&format!(".{micros:06}Z"));
    text
}

/// Seconds and nanoseconds of a time in either form.
pub(super) fn time_parts(text: &str) -> Option<(i64, i32)> {
    let timestamp: Timestamp = text.parse().ok()?;
    let (seconds, nanos) = (timestamp.as_second(), timestamp.subsec_nanosecond());
    // Protobuf's nanos count up from the second also before 1970.
    Some(if nanos < 0 {
        (seconds - 1, nanos + 1_000_000_000)
    } else {
        (seconds, nanos)
    })
}

pub(super) fn base64(text: &str) -> Canonical {
    match decode_base64(text) {
        Ok(_) => Ok(None),
        Err(at) => Err(format!("illegal base64 data at input byte {at}")),
    }
}

pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, usize> {
    let engine = &base64::engine::general_purpose::STANDARD;
    match engine.decode(text) {
        Ok(bytes) => Ok(bytes),
        Err(_) => {
            // Go skips line breaks.
            let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            engine.decode(&joined).map_err(|error| match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(length) => length / 4 * 4,
                base64::DecodeError::InvalidPadding => joined.len(),
            })
        }
    }
}

pub(super) fn encode_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Canonical as upstream prints it.
pub(super) fn quantity(text: &str) -> Canonical {
    match text.trim().parse::<Quantity>() {
        Ok(quantity) => {
            let printed = quantity.to_string();
            Ok((printed != text).then(|| printed.into()))
        }
        Err(error) => Err(error.to_string()),
    }
}
