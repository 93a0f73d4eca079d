//! JSON in: one pass from bytes to the tree of a type. JSON out: a tree as the compact text that is stored and sent.

use std::fmt;

use serde::de::{DeserializeSeed as _, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::typed::{Context, Decoded, Validation};
use super::{DecodeError, syntax};
use crate::float;
use crate::schema::Schema;

/// Decodes a body. Without a type any JSON passes as it is (patches), and only keys that come twice are noted.
///
/// ```
/// use mk8s_api::codec::{json, Validation};
/// let decoded = json::decode(br#"{"a":1,"a":2}"#, None, Validation::Strict).expect("JSON");
/// assert_eq!(decoded.problems, [r#"duplicate field "a""#]);
/// ```
pub fn decode(bytes: &[u8], ty: Option<&Schema>, validation: Validation) -> Result<Decoded, DecodeError> {
    // Checked as a whole it is cheaper than string by string.
    let text = super::scalar::mended(bytes);
    match read(&text, ty, validation) {
        Ok(decoded) => Ok(decoded),
        Err(DecodeError::TooDeep) => Err(DecodeError::TooDeep),
        // A text that is none is told so, even where a value of the wrong type stands before its fault.
        Err(own) => match syntax::fault(bytes) {
            Some(fault) => Err(DecodeError::Syntax(fault)),
            None => match syntax::without_halves(&text) {
                Some(text) => read(&text, ty, validation),
                None => Err(own),
            },
        },
    }
}

fn read(text: &str, ty: Option<&Schema>, validation: Validation) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(validation);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = context
        .seed(ty)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(value) => Ok(context.finish(value)),
        Err(error) => Err(context.error(&error)),
    }
}

/// The text of an object's metadata; none where there is none. Reads no further: metadata stands near the beginning of an
/// object, and what follows is long.
///
/// ```
/// use mk8s_api::codec::json;
/// assert_eq!(json::metadata(br#"{"kind":"A","metadata":{"name":"a"},"spec":{}}"#), Some(r#"{"name":"a"}"#));
/// ```
pub fn metadata(object: &[u8]) -> Option<&str> {
    struct Beginning<'a, 'de>(&'a mut Option<&'de RawValue>);

    impl<'de> Visitor<'de> for Beginning<'_, 'de> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<&str>()? {
                if key == "metadata" {
                    *self.0 = Some(map.next_value()?);
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut metadata = None;
    // Once it is found, the error is that the text was not read to its end.
    let _ = serde_json::Deserializer::from_slice(object).deserialize_map(Beginning(&mut metadata));
    metadata.map(RawValue::get)
}

/// An object of which the named fields are a tree and the others stay text, in the text's order; none where it is none.
///
/// ```
/// use mk8s_api::codec::json;
/// let (tree, others) = json::split(br#"{"kind":"A","spec":{"b":1}}"#, &["kind"]).expect("an object");
/// assert_eq!((tree.to_string().as_str(), others), (r#"{"kind":"A"}"#, vec![("spec".to_string(), r#"{"b":1}"#)]));
/// ```
pub fn split<'a>(object: &'a [u8], read: &[&str]) -> Option<(Value, Vec<(String, &'a str)>)> {
    struct Fields<'a>(&'a [&'a str]);

    impl<'de> Visitor<'de> for Fields<'_> {
        type Value = (Map<String, Value>, Vec<(String, &'de RawValue)>);

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut tree, mut others) = (Map::new(), Vec::new());
            while let Some(key) = map.next_key::<String>()? {
                if self.0.contains(&key.as_str()) {
                    tree.insert(key, map.next_value()?);
                } else {
                    others.push((key, map.next_value()?));
                }
            }
            Ok((tree, others))
        }
    }

    let mut deserializer = serde_json::Deserializer::from_slice(object);
    let (tree, others) = deserializer.deserialize_map(Fields(read)).ok()?;
    let others = others.into_iter().map(|(key, raw)| (key, raw.get()));
    Some((Value::Object(tree), others.collect()))
}

/// Appends a tree's text, byte for byte as serde_json prints it, but for floats, which are Go's. Every write prints an object: what takes serde_json's
/// generic writer a call per comma and a look at each byte of each string is a copy here.
pub fn print(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Null => text.extend_from_slice(b"null"),
        Value::Bool(true) => text.extend_from_slice(b"true"),
        Value::Bool(false) => text.extend_from_slice(b"false"),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            (None, Some(float)) if number.is_f64() => text.extend_from_slice(float::json(float).as_bytes()),
            _ => text.extend_from_slice(number.to_string().as_bytes()),
        },
        Value::String(string) => print_string(string, text),
        Value::Array(items) => {
            text.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                print(item, text);
            }
            text.push(b']');
        }
        Value::Object(map) => {
            text.push(b'{');
            print_fields(map, text);
            text.push(b'}');
        }
    }
}

fn print_fields(map: &Map<String, Value>, text: &mut Vec<u8>) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        print_key(key, text);
        print(value, text);
    }
}

/// A key and its colon.
pub fn print_key(key: &str, text: &mut Vec<u8>) {
    print_string(key, text);
    text.push(b':');
}

fn print_string(string: &str, text: &mut Vec<u8>) {
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    // No early end: so the compiler looks at many bytes at once.
    if string.bytes().fold(false, |found, byte| found | special(byte)) {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(text, string);
        return;
    }
    text.reserve(string.len() + 2);
    text.push(b'"');
    text.extend_from_slice(string.as_bytes());
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_the_objects_own() {
        for (object, expected) in [
            (
                r#"{"metadata":{"labels":{"metadata":"}"}},"spec":{}}"#,
                Some(r#"{"labels":{"metadata":"}"}}"#),
            ),
            (
                r#"{"spec":{"metadata":{"a":1}},"metadata":{"b":2}}"#,
                Some(r#"{"b":2}"#),
            ),
            (r#"{"metadata":null}"#, Some("null")),
            (r#"{"spec":{"metadata":{}}}"#, None),
            ("{}", None),
            ("1", None),
            (r#"{"metadata":{"a":"#, None),
        ] {
            assert_eq!(metadata(object.as_bytes()), expected, "{object}");
        }
    }

    /// As Go reads them, which v1.35.4 was asked of.
    #[test]
    fn half_a_pair_of_surrogates_is_the_replacement_character() {
        for (escaped, expected) in [
            (r"\ud800", "\u{fffd}"),
            (r"a\uDC00b", "a\u{fffd}b"),
            (r"\ud800\ud800", "\u{fffd}\u{fffd}"),
            (r"\udc00\ud800", "\u{fffd}\u{fffd}"),
            (r"\ud800\u0041", "\u{fffd}A"),
            (r"\ud800\n", "\u{fffd}\n"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\\ud800\ud800", "\\ud800\u{fffd}"),
        ] {
            let text = format!(r#"{{"{escaped}":"{escaped}"}}"#);
            let decoded = decode(text.as_bytes(), None, Validation::Strict).expect("JSON");
            assert_eq!(decoded.value, serde_json::json!({ expected: expected }), "{text}");
        }
        let broken = decode(br#"{"a":"\ud800"x}"#, None, Validation::Strict);
        let why = "invalid character 'x' after object key:value pair";
        assert_eq!(broken, Err(DecodeError::Syntax(why.into())));
    }

    #[test]
    fn floats_are_printed_as_go_does() {
        let mut printed = Vec::new();
        print(&serde_json::json!([1.0, 1e100, 0.5, -1e-7]), &mut printed);
        assert_eq!(String::from_utf8_lossy(&printed), "[1,1e+100,0.5,-1e-7]");
    }

    #[test]
    fn printing_is_serde_jsons() {
        let texts = [
            r#"{"":{},"a":[],"b":[1,-2,18446744073709551615,0.5,null,true,false],"c":{"d":{"e":"f"}}}"#,
            r#"{"a\"b\\c\n":"tab\t quote\" back\\slash \u0001\u001f","long":"0123456789012345678901234567890123456789\""}"#,
            r#"["é","\u007f","日本語 / <&>"]"#,
        ];
        for text in texts {
            let value: Value = serde_json::from_str(text).expect("JSON");
            let mut printed = Vec::new();
            print(&value, &mut printed);
            assert_eq!(String::from_utf8_lossy(&printed), value.to_string());
        }
    }
}
