//! Doubles as text: with and without an exponent, as short as can be or with a precision.

/// Without an exponent, with as many digits as it takes.
pub(crate) fn fixed(value: f64) -> String {
    if value.is_finite() {
        format!("{value}")
    } else {
        unbounded(value)
    }
}

fn unbounded(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value > 0.0 {
        "+Inf".into()
    } else {
        "-Inf".into()
    }
}

/// As short as can be, with an exponent where the number is below 0.0001 or a million at least.
pub(crate) fn general(value: f64) -> String {
    if !value.is_finite() {
        return unbounded(value);
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return fixed(value);
    }
    with_exponent(digits, exponent)
}

/// With an exponent and so many digits after the point.
pub(crate) fn scientific(value: f64, precision: usize) -> String {
    if !value.is_finite() {
        return unbounded(value);
    }
    let text = format!("{value:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    with_exponent(digits, exponent.parse().unwrap_or(0))
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
