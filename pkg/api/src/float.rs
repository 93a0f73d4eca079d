//! Floats as Go prints them: one has no fraction where it is whole, and an exponent where it is large or small.

/// As Go's JSON writer does: `1`, `0.5`, `1e+21`, `1e-7`.
pub fn json(number: f64) -> String {
    if number == 0.0 || (1e-6..1e21).contains(&number.abs()) {
        return number.to_string();
    }
    let (digits, sign, exponent) = scientific(number);
    format!("{digits}e{sign}{exponent}")
}

/// As Go's `%v` does: `1`, `0.5`, `1e+06`, `1e-05`.
pub fn plain(number: f64) -> String {
    if number == 0.0 || (1e-4..1e6).contains(&number.abs()) {
        return number.to_string();
    }
    let (digits, sign, exponent) = scientific(number);
    format!("{digits}e{sign}{exponent:0>2}")
}

fn scientific(number: f64) -> (String, char, String) {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(exponent) => (digits.into(), '-', exponent.into()),
        None => (digits.into(), '+', exponent.into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn floats_are_gos() {
        for (number, json, plain) in [
            (0.0, "0", "0"),
            (10.0, "10", "10"),
            (-2.5, "-2.5", "-2.5"),
            (999999.5, "999999.5", "999999.5"),
            (1e6, "1000000", "1e+06"),
            (123456789.5, "123456789.5", "1.234567895e+08"),
            (1e20, "100000000000000000000", "1e+20"),
            (1e21, "1e+21", "1e+21"),
            (1.5e300, "1.5e+300", "1.5e+300"),
            (0.0001, "0.0001", "0.0001"),
            (0.00001, "0.00001", "1e-05"),
            (0.0000001, "1e-7", "1e-07"),
        ] {
            assert_eq!(
                (super::json(number).as_str(), super::plain(number).as_str()),
                (json, plain)
            );
        }
    }
}
