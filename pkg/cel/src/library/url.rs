//! URLs as expressions know them: absolute, or absolute paths. Which are taken and how their parts read is what clients of the
//! API have seen for years, which is not quite the standard of browsers.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use crate::value::{Entries, Failure, List, Map, Outcome, Text, Value};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: String,
    host: String,
    escaped_path: String,
    query: String,
    /// What is told apart beside the parts above.
    user: String,
    opaque: String,
    fragment: String,
}

/// Parses one; the error is worded for the user.
pub(crate) fn parse(text: &str) -> Result<Url, String> {
    let failed = |why: String| format!("parse {text:?}: {why}");
    // As a whole first, where a fragment is a part of the path or query.
    parse_parts(text).map_err(failed)?;
    let (without, fragment) = text.split_once('#').unwrap_or((text, ""));
    let url = parse_parts(without).map_err(failed)?;
    Ok(Url {
        fragment: fragment.into(),
        ..url
    })
}

fn parse_parts(text: &str) -> Result<Url, String> {
    if text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if text.is_empty() {
        return Err("empty url".into());
    }
    if text == "*" {
        return Ok(Url {
            escaped_path: "*".into(),
            ..Url::default()
        });
    }
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url {
        scheme: scheme.to_ascii_lowercase(),
        query: query.into(),
        ..Url::default()
    };
    if !rest.starts_with('/') {
        if url.scheme.is_empty() {
            return Err("invalid URI for request".into());
        }
        url.opaque = rest.into();
        return Ok(url);
    }
    let mut path = rest;
    if !url.scheme.is_empty()
        && let Some(authority) = rest.strip_prefix("//")
    {
        let end = authority.find('/').unwrap_or(authority.len());
        let (authority, after) = authority.split_at(end);
        path = after;
        let host = match authority.rsplit_once('@') {
            Some((user, host)) => {
                if !user.bytes().all(is_userinfo) {
                    return Err("net/url: invalid userinfo".into());
                }
                unescape(user, Part::User)?;
                url.user = user.into();
                host
            }
            None => authority,
        };
        url.host = parse_host(&url.scheme, host)?;
    }
    url.escaped_path = escaped_path(path)?;
    Ok(url)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn is_userinfo(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b)
}

fn parse_host(scheme: &str, host: &str) -> Result<String, String> {
    let port = |text: &str| {
        let good = text.is_empty()
            || text
                .strip_prefix(':')
                .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
        if good {
            Ok(())
        } else {
            Err(format!("invalid port {text:?} after host"))
        }
    };
    match host.rfind('[') {
        Some(0) => {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            port(&host[end + 1..])?;
            let name = unescape(&host[1..end], Part::Host)?;
            let address = name.split('%').next().unwrap_or_default();
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| format!("invalid host: ParseAddr({name:?}): unable to parse IP"))?;
            return Ok(format!("[{name}]{}", &host[end + 1..]));
        }
        Some(_) => return Err("invalid IP-literal".into()),
        None => {}
    }
    if let Some(first) = host.find(':') {
        let strict = matches!(scheme, "http" | "https");
        port(
            &host[if strict {
                first
            } else {
                host.rfind(':').unwrap_or(first)
            }..],
        )?;
    }
    unescape(host, Part::Host)
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Host,
    Path,
    User,
    Query,
}

fn unescape(text: &str, part: Part) -> Result<String, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '%' {
            let digits = rest
                .get(1..3)
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                let shown: String = rest.chars().take(3).collect();
                return Err(format!("invalid URL escape {shown:?}"));
            };
            if part == Part::Host && byte < 0x80 && &rest[..3] != "%25" {
                return Err(format!("invalid URL escape {:?}", &rest[..3]));
            }
            decoded.push(byte);
            rest = &rest[3..];
            continue;
        }
        if part == Part::Host && c.is_ascii() && !is_host(c) {
            return Err(format!("invalid character {:?} in host name", c.to_string()));
        }
        if part == Part::Query && c == '+' {
            decoded.push(b' ');
        } else {
            decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        rest = &rest[c.len_utf8()..];
    }
    Ok(String::from_utf8_lossy(&decoded).into_owned())
}

fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"".contains(c)
}

/// The path as it is sent: as it was written where that is a way to write it.
fn escaped_path(path: &str) -> Result<String, String> {
    unescape(path, Part::Path)?;
    let written = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b);
    if path.bytes().all(written) {
        return Ok(path.into());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
    let mut escaped = String::with_capacity(path.len() + 8);
    for b in unescape(path, Part::Path)?.bytes() {
        if plain(b) {
            escaped.push(char::from(b));
        } else {
            escaped.push_str(&format!("%{b:02X}"));
        }
    }
    Ok(escaped)
}

impl Url {
    fn port(&self) -> Option<(&str, &str)> {
        let (name, port) = self.host.rsplit_once(':')?;
        (!port.contains(']')).then_some((name, port))
    }
}

/// `getHost` and its like.
pub(super) fn part<'a>(function: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Url(url)] = args else {
        return Err(Failure::NoOverload);
    };
    let text: &str = match function {
        "getScheme" => &url.scheme,
        "getHost" => &url.host,
        "getHostname" => {
            let name = url.port().map_or(&*url.host, |(name, _)| name);
            name.strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .unwrap_or(name)
        }
        "getPort" => url.port().map_or("", |(_, port)| port),
        "getEscapedPath" => &url.escaped_path,
        _ => return Ok(Value::Map(Map::new(query(&url.query)))),
    };
    Ok(Value::text(text))
}

/// Names with all their values. What cannot be decoded is left out.
fn query<'a>(query: &str) -> Entries<'a> {
    let mut found: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Ok(name), Ok(value)) = (unescape(name, Part::Query), unescape(value, Part::Query)) else {
            continue;
        };
        let value = Value::text(value);
        match places.get(&name) {
            Some(&place) => found[place].1.push(value),
            None => {
                places.insert(name.clone(), found.len());
                found.push((name, vec![value]));
            }
        }
    }
    let mut entries = Entries::default();
    for (name, values) in found {
        entries.set(Value::String(Text::Owned(name.into())), Value::List(List::new(values)));
    }
    entries
}
