//! Query strings: keys may be repeated (an exec's `command`), and a flag is on by more than one word.

/// Keys and values in their order.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let pairs = query.split('&').filter(|p| !p.is_empty());
    pairs
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

pub fn is_on(value: &str) -> bool {
    !matches!(value, "" | "0" | "false")
}
