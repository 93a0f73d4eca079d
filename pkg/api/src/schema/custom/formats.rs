//! The formats of strings that a schema may ask for, as upstream's registry judges them, oddities included. Formats that
//! it does not know are not checked.

use std::net::{Ipv4Addr, Ipv6Addr};

type Judge = fn(&str) -> bool;

/// By their names without dashes.
const FORMATS: [(&str, Judge); 27] = [
    ("bsonobjectid", |text| text.len() == 24 && hex(text)),
    ("byte", base64),
    ("cidr", cidr),
    ("creditcard", credit_card),
    ("date", date),
    ("datetime", date_time),
    ("duration", duration),
    ("email", email),
    ("hexcolor", |text| {
        let digits = text.strip_prefix('#').unwrap_or(text);
        matches!(digits.len(), 3 | 6) && hex(digits)
    }),
    ("hostname", hostname),
    ("ipv4", |text| text.contains('.') && ip(text)),
    ("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    ("isbn", |text| isbn10(text) || isbn13(text)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("k8slongname", |text| {
        text.len() <= 253 && text.split('.').all(short_name)
    }),
    ("k8sshortname", |text| text.len() <= 63 && short_name(text)),
    ("mac", mac),
    ("password", |_| true),
    ("rgbcolor", rgb_color),
    ("ssn", social_security_number),
    ("uri", uri),
    ("uuid", |text| uuid(text, None, "")),
    ("uuid3", |text| uuid(text, Some('3'), "")),
    ("uuid4", |text| uuid(text, Some('4'), "89ab")),
    ("uuid5", |text| uuid(text, Some('5'), "89ab")),
    ("", |_| true),
];

fn judge(format: &str) -> Option<Judge> {
    let name = format.replace('-', "");
    let found = FORMATS.iter().find(|(known, _)| *known == name)?;
    Some(found.1)
}

pub(crate) fn is_known(format: &str) -> bool {
    judge(format).is_some()
}

pub(super) fn matches(format: &str, text: &str) -> bool {
    judge(format).is_none_or(|judge| judge(text))
}

fn hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn base64(text: &str) -> bool {
    let padding = text.len() - text.trim_end_matches('=').len();
    let (body, whole) = (&text[..text.len() - padding], text.len().is_multiple_of(4));
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    !text.is_empty() && whole && padding <= 2 && body.bytes().all(is_digit)
}

/// Leading zeros are decimal, as they once were.
fn ip(text: &str) -> bool {
    let plain = |text: &str| -> Option<String> {
        let parts: Vec<&str> = text.split('.').collect();
        let short = |part: &&str| (1..=3).contains(&part.trim_start_matches('0').len().max(1)) && digits(part);
        if parts.len() != 4 || !parts.iter().all(|part| !part.is_empty() && short(part)) {
            return None;
        }
        let bare = parts.iter().map(|part| part.trim_start_matches('0'));
        let bare: Vec<&str> = bare.map(|part| if part.is_empty() { "0" } else { part }).collect();
        Some(bare.join("."))
    };
    match plain(text) {
        Some(plain) => plain.parse::<Ipv4Addr>().is_ok(),
        None => text.parse::<Ipv6Addr>().is_ok(),
    }
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let most = if address.contains(':') { 128 } else { 32 };
    let length = Some(length).filter(|length| !length.is_empty() && length.len() <= 3 && digits(length));
    ip(address)
        && length
            .and_then(|length| length.parse::<u32>().ok())
            .is_some_and(|length| length <= most)
}

fn credit_card(text: &str) -> bool {
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    let begins = |prefixes: &[&str], lengths: &[usize]| {
        lengths.contains(&number.len()) && prefixes.iter().any(|prefix| number.starts_with(prefix))
    };
    let known = begins(&["4"], &[13, 16])
        || begins(&["51", "52", "53", "54", "55"], &[16])
        || begins(&["6011", "65"], &[16])
        || begins(&["34", "37"], &[15])
        || begins(&["300", "301", "302", "303", "304", "305", "36", "38"], &[14])
        || begins(&["2131", "1800"], &[15])
        || begins(&["35"], &[16]);
    let sum: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| luhn(at, u32::from(digit - b'0')))
        .sum();
    known && sum.is_multiple_of(10)
}

fn luhn(at: usize, digit: u32) -> u32 {
    match (at % 2, digit * 2) {
        (0, _) => digit,
        (_, twice) if twice >= 10 => twice % 10 + 1,
        (_, twice) => twice,
    }
}

fn date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok() && text.as_bytes()[4] == b'-'
}

fn date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(day), Some(time)) = (parts.next(), parts.next()) else {
        return false;
    };
    let clock = time.as_bytes();
    let shaped = clock.len() >= 9 && clock[2] == b':' && clock[5] == b':' && time.is_char_boundary(8);
    if !date(day) || !shaped {
        return false;
    }
    let two = |at: usize| time.get(at..at + 2).filter(|two| digits(two));
    let (Some(hour), Some(minute), Some(second)) = (two(0), two(3), two(6)) else {
        return false;
    };
    hour <= "23" && minute <= "59" && second <= "59" && zone(&time[8..])
}

/// A fraction behind any sign, then the zone.
fn zone(text: &str) -> bool {
    let is_zone = |text: &str| {
        let bytes = text.as_bytes();
        let numeric = bytes.len() == 6 && matches!(bytes[0], b'+' | b'-') && bytes[3] == b':';
        text == "z" || numeric && digits(&text[1..3]) && digits(&text[4..])
    };
    let mut rest = text.chars();
    let fraction = rest
        .next()
        .map(|_| rest.as_str().trim_start_matches(|c: char| c.is_ascii_digit()));
    let has_digits = fraction.is_some_and(|after| after.len() < rest.as_str().len());
    is_zone(text) || has_digits && fraction.is_some_and(is_zone)
}

/// Go's durations, or any text with an amount of a unit somewhere (`2 weeks`).
fn duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let is_unit = |unit: &str| {
        UNITS.iter().any(|names| {
            let long = names.last().is_some_and(|long| unit.starts_with(long));
            long || names.contains(&unit)
        })
    };
    if go_duration(text) {
        return true;
    }
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let amount = rest[start..].trim_start_matches(|c: char| c.is_ascii_digit());
        let unit = amount.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
        let end = unit
            .find(|c: char| !(c.is_ascii_alphabetic() || c == 'µ'))
            .unwrap_or(unit.len());
        if end > 0 && is_unit(&unit[..end].to_lowercase()) {
            return true;
        }
        rest = amount;
    }
    false
}

fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let amount = &rest[..rest.len() - unit.len()];
        let end = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let number = amount.bytes().any(|byte| byte.is_ascii_digit()) && amount.matches('.').count() <= 1;
        if !number || !matches!(&unit[..end], "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = &unit[end..];
    }
    true
}

/// An address, or one behind a name in angle brackets.
fn email(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    let address = match (text.strip_suffix('>'), text.rfind('<')) {
        (Some(bracketed), Some(start)) => &bracketed[start + 1..],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let is_atom = |c: char| c.is_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let dot_atom = |text: &str| {
        text.split('.')
            .all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    (quoted || dot_atom(local)) && (literal.is_some_and(ip) || dot_atom(domain))
}

/// One label with a dash behind its first letter at most, or several that end in letters.
fn hostname(text: &str) -> bool {
    let is_symbol = |c: char| match c {
        '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => true,
        c => !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace() && !c.is_control(),
    };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c.is_alphabetic() || is_symbol(c);
    let single = |label: &str| {
        let mut chars = label.chars();
        let first = chars.next().is_some_and(is_letter);
        let rest = chars.as_str();
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        first && rest.chars().count() <= 62 && rest.chars().all(is_letter)
    };
    let label = |label: &str| {
        let inner = label.chars().all(|c| is_letter(c) || c == '-') && label.chars().count() <= 63;
        inner && label.starts_with(is_letter) && label.ends_with(is_letter)
    };
    let several = || {
        let Some((labels, last)) = text.rsplit_once('.') else {
            return false;
        };
        let top = (2..=63).contains(&last.chars().count()) && last.chars().all(char::is_alphabetic);
        top && labels.split('.').all(label)
    };
    (single(text) || several()) && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63)
}

fn bare_isbn(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '-' | ' ' | '\t' | '\n' | '\r' | '\u{c}'))
        .collect()
}

fn isbn10(text: &str) -> bool {
    let number = bare_isbn(text);
    let body = number.strip_suffix('X').unwrap_or(&number);
    if number.len() != 10 || !matches!(body.len(), 9 | 10) || !digits(body) {
        return false;
    }
    let value = |digit: u8| if digit == b'X' { 10 } else { usize::from(digit - b'0') };
    let sum: usize = number
        .bytes()
        .enumerate()
        .map(|(at, digit)| (at + 1) * value(digit))
        .sum();
    sum.is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let number = bare_isbn(text);
    let weigh = |(at, digit): (usize, u8)| [1, 3][at % 2] * u32::from(digit - b'0');
    number.len() == 13 && digits(&number) && number.bytes().enumerate().map(weigh).sum::<u32>().is_multiple_of(10)
}

fn short_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = text.chars().all(|c| is_letter(c) || c == '-');
    inner && text.starts_with(is_letter) && text.ends_with(is_letter)
}

fn mac(text: &str) -> bool {
    let of = |separator: char, width: usize| {
        let groups: Vec<&str> = text.split(separator).collect();
        let shaped = groups.iter().all(|group| group.len() == width && hex(group));
        shaped && matches!(groups.len() * width / 2, 6 | 8 | 20)
    };
    of(':', 2) || of('-', 2) || of('.', 4)
}

fn rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let parts: Vec<&str> = inner.unwrap_or_default().split(',').map(str::trim_ascii).collect();
    let is_part = |part: &&str| {
        let plain = digits(part) && (*part == "0" || !part.starts_with('0'));
        plain && part.parse::<u8>().is_ok()
    };
    parts.len() == 3 && parts.iter().all(is_part)
}

fn social_security_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    let separators = bytes.len() == 11 && matches!(bytes[3], b'-' | b' ') && matches!(bytes[6], b'-' | b' ');
    separators && text.is_ascii() && digits(&text[..3]) && digits(&text[4..6]) && digits(&text[7..])
}

fn uuid(text: &str, version: Option<char>, variants: &str) -> bool {
    let mut rest = text;
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((group, after)) = rest.split_at_checked(length).filter(|(group, _)| hex(group)) else {
            return false;
        };
        let first = group.chars().next().unwrap_or_default().to_ascii_lowercase();
        let fits = match at {
            2 => version.is_none_or(|version| version == first),
            3 => variants.is_empty() || variants.contains(first),
            _ => true,
        };
        if !fits {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// What Go's url.ParseRequestURI reads: an absolute URI or path.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return false;
    }
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let scheme = text
        .split_once(':')
        .filter(|(scheme, _)| scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_scheme));
    let rest = scheme.map_or(text, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    if !rest.starts_with('/') {
        return scheme.is_some() || text == "*";
    }
    let authority = rest.strip_prefix("//").filter(|_| scheme.is_some());
    let Some(authority) = authority else {
        return escapes(rest);
    };
    let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = match host.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':').or(Some(after).filter(|after| after.is_empty())),
        None => Some(host.split_once(':').map_or("", |(_, port)| port)),
    };
    let bad = |c: char| c.is_ascii() && (c == ' ' || "\"<>\\^`{|}".contains(c));
    port.is_some_and(digits) && !host.contains(bad) && escapes(authority) && escapes(path)
}

/// A percent sign begins two digits.
fn escapes(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| part.get(..2).is_some_and(hex))
}
