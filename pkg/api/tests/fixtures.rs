//! Every kind, filled by upstream's own types and encoded by its own encoders, through the codecs.
#![allow(clippy::unwrap_used)]

use mk8s_api::apply::Managed;
use mk8s_api::codec::{Validation, conform, json, protobuf};
use mk8s_api::{patch, schema};
use serde_json::Value;

fn fixtures() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    include_str!("fixtures/objects.tsv").lines().map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        (cells[0], cells[1], cells[2], cells[3])
    })
}

#[test]
fn json_of_every_kind_stays_as_upstream_prints_it() {
    for (api_version, kind, text, _) in fixtures() {
        let ty =
            schema::by_api_version(api_version, kind).unwrap_or_else(|| panic!("no type for {api_version} {kind}"));
        let decoded = json::decode(text.as_bytes(), Some(ty), Validation::Strict).unwrap();
        assert_eq!(decoded.problems, Vec::<String>::new(), "{kind}");
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(decoded.value, expected, "{kind}");
    }
}

fn decoded_base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn upstreams_protobuf_of_every_kind_is_read() {
    for (_, kind, text, encoded) in fixtures() {
        let expected: Value = serde_json::from_str(text).unwrap();
        let value = protobuf::decode(&decoded_base64(encoded)).unwrap();
        assert_eq!(value, expected, "{kind}");
    }
}

#[test]
fn protobuf_of_every_kind_comes_back_the_same() {
    for (api_version, kind, text, _) in fixtures() {
        let expected: Value = serde_json::from_str(text).unwrap();
        let encoded = protobuf::encode(&expected).unwrap();
        assert_eq!(protobuf::decode(&encoded).unwrap(), expected, "{kind}");
        let ty = schema::by_api_version(api_version, kind).unwrap();
        let raw = protobuf::raw_from_json(ty, text.as_bytes(), &Managed::NOBODY).unwrap();
        let again = protobuf::decode(&protobuf::envelope(api_version, kind, &raw)).unwrap();
        assert_eq!(again, expected, "{kind} from text");
        let item = protobuf::item_from_json(ty, text.as_bytes(), &Managed::NOBODY).unwrap();
        assert_eq!(protobuf::item_raw(&item), raw, "{kind}");
    }
}

#[test]
fn strategic_merge_makes_of_patches_what_upstream_makes() {
    let ty = schema::by_gvk("", "v1", "Pod").unwrap();
    for line in include_str!("fixtures/patches.tsv").lines() {
        let values: Vec<Value> = line
            .split('\t')
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        let mut target = values[0].clone();
        patch::strategic(&mut target, &values[1], ty).unwrap();
        // Nulls in added items fall away when a server decodes the result.
        let conformed = |value: &Value| conform(value.clone(), ty, Validation::Strict).unwrap();
        let (made, expected) = (conformed(&target), conformed(&values[2]));
        assert_eq!(made, expected, "{} of {}", values[1], values[0]);
    }
}
