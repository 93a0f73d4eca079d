//! Every kind, filled by upstream's own types and encoded by its own encoders, through the codecs.
#![allow(clippy::unwrap_used)]

use mk8s_api::codec::{Validation, json};
use mk8s_api::schema;
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
