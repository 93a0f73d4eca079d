//! How deep an object may be: as deep in every format, and what goes beyond is refused before it fills the stack.
#![allow(clippy::unwrap_used)]

use mk8s_api::codec::protobuf::{self, ProtobufError};
use mk8s_api::codec::{DecodeError, MAX_DEPTH, Validation, conform, json, yaml};
use mk8s_api::schema::{self, Schema};
use serde_json::{Value, json};

/// `["["…"]"]`: so many levels.
fn nested_text(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

fn custom() -> Option<&'static Schema> {
    Some(schema::custom())
}

/// An object of so many levels, as JSON, which YAML is too.
fn object(levels: usize) -> String {
    format!(r#"{{"kind":"A","spec":{}}}"#, nested_text(levels - 1))
}

#[test]
fn text_is_as_deep_as_it_may_be() {
    let most = usize::from(MAX_DEPTH);
    let value = json::decode(object(most).as_bytes(), custom(), Validation::Warn)
        .unwrap()
        .value;
    let of_yaml = yaml::decode(object(64).as_bytes(), custom(), Validation::Warn).unwrap();
    assert_eq!(of_yaml.value, serde_json::from_str::<Value>(&object(64)).unwrap());
    assert_eq!(
        conform(value.clone(), schema::custom(), Validation::Warn)
            .unwrap()
            .value,
        value
    );
    for levels in [most + 1, 127, 128, 1_000, 100_000, 1_000_000] {
        let text = object(levels);
        for ty in [None, custom()] {
            let refused = json::decode(text.as_bytes(), ty, Validation::Warn);
            assert_eq!(refused, Err(DecodeError::TooDeep), "{levels}");
            let refused = yaml::decode(text.as_bytes(), ty, Validation::Warn);
            // Its scanner looks ahead, and may give up before the levels are counted.
            assert!(refused.is_err(), "{levels}");
            assert!(levels > most + 1 || refused == Err(DecodeError::TooDeep));
        }
    }
    let deeper = json!({"spec": value});
    assert_eq!(
        conform(deeper, schema::custom(), Validation::Warn),
        Err(DecodeError::TooDeep)
    );
}

#[test]
fn what_is_dropped_fills_no_stack_either() {
    let pod = schema::by_gvk("", "v1", "Pod");
    let text = format!(r#"{{"spec":{{"unknown":{}}}}}"#, nested_text(100_000));
    let decoded = json::decode(text.as_bytes(), pod, Validation::Warn).unwrap();
    assert_eq!(decoded.problems, [r#"unknown field "spec.unknown""#]);
    let _ = yaml::decode(text.as_bytes(), pod, Validation::Warn);
}

#[test]
fn aliases_do_not_multiply_a_text() {
    let anchors: String = (0..200).map(|index| format!("- &b{index} x\n")).collect();
    let text = format!("- &a {}\n{anchors}{}", "x".repeat(1 << 20), "- *a\n".repeat(2_000));
    assert!(yaml::decode(text.as_bytes(), None, Validation::Warn).is_err());
}

/// A message's field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A ControllerRevision whose data is `raw`.
fn revision(raw: &[u8]) -> Vec<u8> {
    protobuf::envelope("apps/v1", "ControllerRevision", &field(2, &field(1, raw)))
}

#[test]
fn an_embedded_object_lies_within_the_depth_of_the_whole() {
    // The object, and what is embedded in it.
    let most = usize::from(MAX_DEPTH) - 1;
    let value = protobuf::decode(&revision(nested_text(most).as_bytes())).unwrap();
    let expected: Value = serde_json::from_str(&nested_text(most)).unwrap();
    assert_eq!(value["data"], expected);
    for levels in [most + 1, 126, 100_000] {
        let refused = protobuf::decode(&revision(nested_text(levels).as_bytes()));
        assert_eq!(refused, Err(ProtobufError::TooDeep), "{levels}");
    }
    let envelopes = |count: usize| (1..count).fold(revision(b"{}"), |inner, _| revision(&inner));
    assert!(protobuf::decode(&envelopes(most)).is_ok());
    for count in [most + 1, 4_000] {
        assert_eq!(
            protobuf::decode(&envelopes(count)),
            Err(ProtobufError::TooDeep),
            "{count}"
        );
    }
}

#[test]
fn messages_in_lists_count_as_text_counts_them() {
    // properties: a map of schemas, two levels each, as in JSON.
    let schema_of = |levels: usize| {
        (1..levels).fold(Vec::new(), |inner: Vec<u8>, _| {
            // JSONSchemaProps.properties is field 29, a map's entry has key 1 and value 2.
            let entry = [field(1, b"a"), field(2, &inner)].concat();
            let mut out = vec![0xea, 0x01];
            out.extend_from_slice(&field(0, &entry)[1..]);
            out
        })
    };
    let crd = |levels: usize| {
        let props = schema_of(levels);
        // spec.versions[0].schema.openAPIV3Schema
        let version = [field(1, b"v1"), field(4, &field(1, &props))].concat();
        protobuf::envelope(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            &field(2, &field(7, &version)),
        )
    };
    let depth = |value: &Value| {
        fn of(value: &Value) -> usize {
            match value {
                Value::Array(items) => 1 + items.iter().map(of).max().unwrap_or(0),
                Value::Object(map) => 1 + map.values().map(of).max().unwrap_or(0),
                _ => 0,
            }
        }
        of(value)
    };
    let deepest = (1..100)
        .take_while(|levels| protobuf::decode(&crd(*levels)).is_ok())
        .last()
        .unwrap();
    let value = protobuf::decode(&crd(deepest)).unwrap();
    assert!(depth(&value) <= usize::from(MAX_DEPTH) && depth(&value) + 2 > usize::from(MAX_DEPTH));
    let text = value.to_string();
    assert!(json::decode(text.as_bytes(), custom(), Validation::Warn).is_ok());
    assert_eq!(protobuf::decode(&crd(deepest + 1)), Err(ProtobufError::TooDeep));
}
