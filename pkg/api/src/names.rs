//! Checks of names, label keys and values, ports, addresses and percentages, in upstream's words (clients and tests
//! compare them), and the alphabet of generated names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const DNS_LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const DNS_LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const DNS_SUBDOMAIN_REGEX: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS_SEARCH_REGEX: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const DNS_1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const DNS_1035_REGEX: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_WORDS: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const WILDCARD_WORDS: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const LABEL_VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_REGEX: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

pub const MAX_LABEL: usize = 63;
pub const MAX_SUBDOMAIN: usize = 253;

/// `words (e.g. 'a',  or 'b', regex used for validation is 'r')`, spaced as upstream's `RegexError` spaces it.
pub fn regex_error(words: &str, regex: &str, examples: &[&str]) -> String {
    let mut text = format!("{words} (");
    for (index, example) in examples.iter().enumerate() {
        text.push_str(if index == 0 { "e.g. " } else { " or " });
        text.push('\'');
        text.push_str(example);
        text.push_str("', ");
    }
    text.push_str("regex used for validation is '");
    text.push_str(regex);
    text.push_str("')");
    text
}

pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// Upstream's newer half counts labels in bytes and says so.
fn max_bytes_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &[u8]) -> bool {
    match (text.first(), text.last()) {
        (Some(&first), Some(&last)) => {
            lower_alnum(first) && lower_alnum(last) && text.iter().all(|&byte| lower_alnum(byte) || byte == b'-')
        }
        _ => false,
    }
}

fn is_qualified(text: &[u8]) -> bool {
    match (text.first(), text.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && text
                    .iter()
                    .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// RFC 1123 label; what is wrong with it, nothing when it is one.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_LABEL {
        problems.push(max_len_error(MAX_LABEL));
    }
    if !is_label(text.as_bytes()) {
        if text.split('.').all(|part| is_label(part.as_bytes())) {
            problems.push("must not contain dots".to_string());
        } else {
            problems.push(regex_error(DNS_LABEL_WORDS, DNS_LABEL_REGEX, &["my-name", "123-abc"]));
        }
    }
    problems
}

pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(max_len_error(MAX_SUBDOMAIN));
    }
    if !text.split('.').all(|part| is_label(part.as_bytes())) {
        problems.push(regex_error(DNS_SUBDOMAIN_WORDS, DNS_SUBDOMAIN_REGEX, &["example.com"]));
    }
    problems
}

/// `*.example.com`
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(max_len_error(MAX_SUBDOMAIN));
    }
    if !text
        .strip_prefix("*.")
        .is_some_and(|rest| rest.split('.').all(|part| is_label(part.as_bytes())))
    {
        let regex = format!("\\*\\.{DNS_SUBDOMAIN_REGEX}");
        problems.push(regex_error(WILDCARD_WORDS, &regex, &["*.example.com"]));
    }
    problems
}

/// A subdomain, or with a dash at the end the start of one.
pub fn dns_subdomain_prefix(text: &str) -> Vec<String> {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => dns_subdomain(&format!("{rest}a")),
        _ => dns_subdomain(text),
    }
}

/// A search path of a resolver: a subdomain whose labels may hold underscores.
pub fn dns_search(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(max_len_error(MAX_SUBDOMAIN));
    }
    // an inner underscore counts as a dash: neither may be at an end, but one underscore may lead
    let label = |part: &str| {
        let plain = part.strip_prefix('_').unwrap_or(part).replace('_', "-");
        is_label(plain.as_bytes())
    };
    if !text.split('.').all(label) {
        problems.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            DNS_SEARCH_REGEX,
            &["example.com"],
        ));
    }
    problems
}

pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_LABEL {
        problems.push(max_len_error(MAX_LABEL));
    }
    if !is_label(text.as_bytes()) || !text.as_bytes()[0].is_ascii_lowercase() {
        problems.push(regex_error(DNS_1035_WORDS, DNS_1035_REGEX, &["my-name", "abc-123"]));
    }
    problems
}

/// Why a condition is as it is.
pub fn condition_reason(text: &str) -> Vec<String> {
    const WORDS: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    const REGEX: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    let bytes = text.as_bytes();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let good = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|byte| word(byte) || b",:".contains(byte));
    if good {
        return Vec::new();
    }
    vec![regex_error(
        WORDS,
        REGEX,
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// `[prefix/]name`: keys of labels and annotations, resource names, finalizers.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                problems.push("prefix part must be non-empty".to_string());
            } else {
                problems.extend(
                    dns_subdomain(first)
                        .into_iter()
                        .map(|problem| format!("prefix part {problem}")),
                );
            }
            name
        }
        (Some(_), Some(_)) => {
            let words = regex_error(
                QUALIFIED_WORDS.trim_start_matches("name part "),
                QUALIFIED_REGEX,
                &["MyName", "my.name", "123-abc"],
            );
            problems.push(format!(
                "a valid label key {words} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return problems;
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_string());
    } else if name.len() > MAX_LABEL {
        problems.push(format!("name part {}", max_bytes_error(MAX_LABEL)));
    }
    if !is_qualified(name.as_bytes()) {
        problems.push(regex_error(
            QUALIFIED_WORDS,
            QUALIFIED_REGEX,
            &["MyName", "my.name", "123-abc"],
        ));
    }
    problems
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_LABEL {
        problems.push(max_bytes_error(MAX_LABEL));
    }
    if !text.is_empty() && !is_qualified(text.as_bytes()) {
        problems.push(regex_error(
            LABEL_VALUE_WORDS,
            LABEL_VALUE_REGEX,
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// A name that is one segment of a URL path (RBAC).
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|illegal| text.contains(**illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// `IANA_SVC_NAME`: a port's name.
pub fn port_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > 15 {
        problems.push(max_len_error(15));
    }
    let bytes = text.as_bytes();
    if !bytes.iter().all(|&byte| lower_alnum(byte) || byte == b'-') || bytes.is_empty() {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        problems.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".to_string());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_string());
    }
    problems
}

pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_string()]
    }
}

pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

/// `12%`
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Vec::new()
    } else {
        vec![regex_error(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )]
    }
}

pub fn ip(text: &str) -> Vec<String> {
    if text.parse::<IpAddr>().is_ok() {
        Vec::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_string()]
    }
}

/// An address in the one form that it has.
pub fn strict_ip(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let padded = legacy_ip(text).is_empty();
        return if padded {
            vec!["must not have leading 0s".to_string()]
        } else {
            ip(text)
        };
    };
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_string()];
    }
    let canonical = address.to_string();
    if canonical == text {
        return Vec::new();
    }
    vec![format!("must be in canonical form ({canonical:?})")]
}

/// An address in a field that is older than strict parsing: leading zeros are forgiven.
pub fn legacy_ip(text: &str) -> Vec<String> {
    let plain = |part: &str| part.parse::<u8>().is_ok() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.split('.').count() == 4 && text.split('.').all(plain) {
        return Vec::new();
    }
    ip(text)
}

pub fn ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

pub fn ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// A range as it is printed: nothing is set behind its prefix.
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let Some((address, bits)) = sloppy_cidr(text) else {
        return vec![NO_CIDR.to_string()];
    };
    let is_read_by_all = text
        .split_once('/')
        .is_some_and(|(address, bits)| address.parse::<IpAddr>().is_ok() && (bits == "0" || !bits.starts_with('0')));
    let is_mapped = matches!(address, IpAddr::V6(own) if own.to_ipv4_mapped().is_some());
    let wrong = match ipnet::IpNet::new(address, bits) {
        Err(_) => NO_CIDR.to_string(),
        Ok(_) if !is_read_by_all => "must not have leading 0s in IP or prefix length".to_string(),
        Ok(_) if is_mapped => "must not have an IPv4-mapped IPv6 address".to_string(),
        Ok(net) if net.trunc() != net => "must not have bits set beyond the prefix length".to_string(),
        Ok(net) if net.to_string() != text => format!("must be in canonical form ({:?})", net.to_string()),
        Ok(_) => return Vec::new(),
    };
    vec![wrong]
}

/// An address and how much of it is a prefix, as Go's older parser reads them: with leading zeros, in decimal.
fn sloppy_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let part = |part: &str| part.parse::<u8>().ok().filter(|_| !part.starts_with('+'));
    let (address, bits) = text.split_once('/')?;
    let parts: Option<Vec<u8>> = address.split('.').map(part).collect();
    let padded = parts
        .and_then(|parts| <[u8; 4]>::try_from(parts).ok())
        .map(IpAddr::from);
    Some((padded.or_else(|| address.parse().ok())?, part(bits)?))
}

/// An interface's address with its prefix, in the one form that it has.
pub fn interface_address(text: &str) -> Vec<String> {
    let (address, bits) = match sloppy_cidr(text) {
        Some((IpAddr::V4(own), bits @ 0..=32)) => (IpAddr::V4(own), bits),
        Some((IpAddr::V6(own), bits @ 0..=128)) => match own.to_ipv4_mapped() {
            Some(mapped) => (
                IpAddr::V4(mapped),
                if bits > 32 { bits.saturating_sub(96) } else { bits },
            ),
            None => (IpAddr::V6(own), bits),
        },
        _ => return vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_string()],
    };
    let canonical = format!("{address}/{bits}");
    if canonical == text {
        return Vec::new();
    }
    vec![format!("must be in canonical form ({canonical:?})")]
}

/// A name in a program.
pub fn c_identifier(text: &str) -> Vec<String> {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = text.bytes();
    if bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// `1.2.3-rc.1+build`, as semver.org has it.
pub fn semantic_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let (rest, build) = text
        .split_once('+')
        .map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest
        .split_once('-')
        .map_or((rest, None), |(core, before)| (core, Some(before)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| {
            before
                .split('.')
                .all(|part| word(part) && (!digits(part) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// `10.0.0.0/8`
pub fn cidr(text: &str) -> Vec<String> {
    if text.parse::<ipnet::IpNet>().is_ok() {
        Vec::new()
    } else {
        vec![NO_CIDR.to_string()]
    }
}

/// An environment variable's name: any printable ASCII but `=`.
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        vec!["environment variable name must be non-empty".to_string()]
    } else if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
        Vec::new()
    } else {
        vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_string(),
        ]
    }
}

pub fn http_header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        Vec::new()
    } else {
        vec![regex_error(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )]
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > MAX_SUBDOMAIN {
        problems.push(max_len_error(MAX_SUBDOMAIN));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(legal) {
        problems.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if text == "." || text == ".." {
        problems.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        problems.push("must not start with '..'".to_string());
    }
    problems
}

/// What random name suffixes are made of: no vowels, nothing that reads as another character.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `generateName` + five random characters; too long a prefix is cut, as upstream cuts it.
pub fn generate(prefix: &str, random: u64) -> String {
    const LENGTH: usize = 5;
    let mut end = prefix.len().min(MAX_LABEL - LENGTH);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = String::with_capacity(end + LENGTH);
    name.push_str(&prefix[..end]);
    let mut rest = random;
    for _ in 0..LENGTH {
        name.push(SUFFIX_ALPHABET[(rest % 27) as usize] as char);
        rest /= 27;
    }
    name
}

/// Maps any text onto the suffix alphabet (hashes of pod templates).
pub fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| SUFFIX_ALPHABET[usize::from(byte) % SUFFIX_ALPHABET.len()] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        for (text, wrong) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("fe80::42:1dff:fe84:f9e2", None),
            ("010.0.0.1", Some("leading 0s")),
            ("::ffff:10.0.0.1", Some("IPv4-mapped")),
            ("FD00::1", Some("canonical form (\"fd00::1\")")),
            ("fd00:0::1", Some("canonical form (\"fd00::1\")")),
            ("host", Some("must be a valid IP address")),
            ("", Some("must be a valid IP address")),
        ] {
            let found = strict_ip(text);
            match wrong {
                None => assert!(found.is_empty(), "{text}: {found:?}"),
                Some(words) => assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn names() {
        for (text, label, subdomain, dns1035) in [
            ("a", true, true, true),
            ("1a", true, true, false),
            ("a.b", false, true, false),
            ("a-", false, false, false),
            ("A", false, false, false),
            ("", false, false, false),
            ("a..b", false, false, false),
        ] {
            assert_eq!(dns_label(text).is_empty(), label, "{text}");
            assert_eq!(dns_subdomain(text).is_empty(), subdomain, "{text}");
            assert_eq!(dns_1035_label(text).is_empty(), dns1035, "{text}");
        }
        assert_eq!(
            dns_subdomain("Bad_Name"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert!(qualified_name("example.com/My_Name").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(!qualified_name("/b").is_empty());
        assert!(port_name("http-1").is_empty());
        assert!(!port_name("1234").is_empty());
        assert!(percent("12%").is_empty() && !percent("12").is_empty());
        assert_eq!(generate("web-", 0), "web-bbbbb");
        assert_eq!(generate(&"x".repeat(80), 1).len(), 63);
    }

    #[test]
    fn ranges_have_one_form() {
        for (text, wrong) in [
            ("10.0.0.0/8", None),
            ("2001:db8::/64", None),
            ("0.0.0.0/0", None),
            ("10.0.0.0", Some(NO_CIDR)),
            ("10.0.0.0/33", Some(NO_CIDR)),
            ("010.0.0.0/8", Some("must not have leading 0s in IP or prefix length")),
            ("10.0.0.0/08", Some("must not have leading 0s in IP or prefix length")),
            ("::ffff:10.0.0.0/104", Some("must not have an IPv4-mapped IPv6 address")),
            ("10.0.0.1/8", Some("must not have bits set beyond the prefix length")),
            ("2001:DB8::/64", Some("must be in canonical form (\"2001:db8::/64\")")),
        ] {
            assert_eq!(canonical_cidr(text).first().map(String::as_str), wrong, "{text}");
        }
    }
}
