//! Formats that a text can be held against by name: `format.dns1123Label().validate(self.name)`.

use std::sync::Arc;

use super::{regex, time, url};
use crate::value::{Failure, List, Outcome, Value};

/// A format.
#[derive(Debug)]
pub(crate) struct NamedFormat {
    name: &'static str,
    /// What the cost of a validation is estimated from.
    pub regex_size: u64,
    validate: fn(&str) -> Vec<String>,
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat {
        name: "dns1123Label",
        regex_size: 30,
        validate: |text| dns1123_label(text),
    },
    NamedFormat {
        name: "dns1123Subdomain",
        regex_size: 60,
        validate: |text| dns1123_subdomain(text),
    },
    NamedFormat {
        name: "dns1035Label",
        regex_size: 30,
        validate: |text| dns1035_label(text),
    },
    NamedFormat {
        name: "qualifiedName",
        regex_size: 60,
        validate: |text| qualified_name(text),
    },
    NamedFormat {
        name: "dns1123LabelPrefix",
        regex_size: 30,
        validate: |text| dns1123_label(&without_dash(text)),
    },
    NamedFormat {
        name: "dns1123SubdomainPrefix",
        regex_size: 60,
        validate: |text| dns1123_subdomain(&without_dash(text)),
    },
    NamedFormat {
        name: "dns1035LabelPrefix",
        regex_size: 30,
        validate: |text| dns1035_label(&without_dash(text)),
    },
    NamedFormat {
        name: "labelValue",
        regex_size: 40,
        validate: |text| label_value(text),
    },
    NamedFormat {
        name: "uri",
        regex_size: 1103,
        validate: |text| url::parse(text).err().into_iter().collect(),
    },
    NamedFormat {
        name: "uuid",
        regex_size: 70,
        validate: |text| unless(is_uuid(text), "does not match the UUID format"),
    },
    NamedFormat {
        name: "byte",
        regex_size: 84,
        validate: |text| unless(is_base64(text), "invalid base64"),
    },
    NamedFormat {
        name: "date",
        regex_size: 71,
        validate: |text| unless(time::Time::parse_date(text).is_some(), "invalid date"),
    },
    NamedFormat {
        name: "datetime",
        regex_size: 71,
        validate: |text| unless(time::Time::parse(text).is_some(), "invalid datetime"),
    },
];

fn find(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|format| format.name == name)
}

fn unless(good: bool, complaint: &str) -> Vec<String> {
    if good { Vec::new() } else { vec![complaint.into()] }
}

/// `format.dns1123Label()` and its like.
pub(super) fn constant<'a>(function: &str) -> Outcome<'a> {
    let format = function.strip_prefix("format.").and_then(find);
    format.map(Value::Format).ok_or(Failure::NoOverload)
}

pub(super) fn named<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(name)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Optional(
        find(name).map(|format| Arc::new(Value::Format(format))),
    ))
}

pub(super) fn validate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Format(format), Value::String(text)] = args else {
        return Err(Failure::NoOverload);
    };
    let complaints: Vec<Value<'a>> = (format.validate)(text).into_iter().map(Value::text).collect();
    Ok(Value::Optional(
        (!complaints.is_empty()).then(|| Arc::new(Value::List(List::new(complaints)))),
    ))
}

/// A generated name's prefix may end in a dash.
fn without_dash(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.into(),
    }
}

fn too_long(text: &str, most: usize, complaints: &mut Vec<String>) {
    if text.len() > most {
        complaints.push(format!("must be no more than {most} bytes"));
    }
}

fn is_alphanumeric_lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| is_alphanumeric_lower(*b));
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| is_alphanumeric_lower(*b) || *b == b'-')
}

fn dns1123_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    too_long(text, 63, &mut complaints);
    if !is_label(text) {
        complaints.push(if text.split('.').all(is_label) {
            "must not contain dots".into()
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".into()
        });
    }
    complaints
}

fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    too_long(text, 253, &mut complaints);
    if !text.split('.').all(is_label) {
        complaints.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into());
    }
    complaints
}

fn dns1035_label(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    too_long(text, 63, &mut complaints);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        complaints.push("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".into());
    }
    complaints
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn qualified_name(text: &str) -> Vec<String> {
    const PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut complaints = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".into());
            } else {
                complaints.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|complaint| format!("prefix part {complaint}")),
                );
            }
            name
        }
        _ => {
            return vec!["a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into()];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        complaints.push("name part must be no more than 63 bytes".into());
    }
    if !is_name_part(name) {
        complaints.push(PART.into());
    }
    complaints
}

fn label_value(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    too_long(text, 63, &mut complaints);
    if !text.is_empty() && !is_name_part(text) {
        complaints.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    complaints
}

fn is_uuid(text: &str) -> bool {
    const PATTERN: &str = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    regex::compile(PATTERN).is_ok_and(|regex| regex.is_match(text))
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
