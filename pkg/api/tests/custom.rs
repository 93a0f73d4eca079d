//! Custom objects and their definitions against what upstream v1.35.4 itself makes of them: `custom.jsonl` was recorded
//! from its packages. A line has a schema and an object (and what it was before), then which fields went, what the object
//! became and the causes of its refusal, sorted; or a definition and the causes. `hack/update-custom-answers.sh` records
//! them again.
#![allow(clippy::unwrap_used)]

use mk8s_api::codec;
use mk8s_api::schema::custom;
use mk8s_api::status::FieldError;
use serde_json::{Value, json};

fn causes(errors: &[FieldError]) -> Value {
    let mut causes: Vec<[String; 2]> = errors.iter().map(|error| [error.field.clone(), error.body()]).collect();
    causes.sort();
    json!(causes)
}

fn object_answer(case: &Value) -> Value {
    let schema = custom::compile(&case["schema"]).unwrap();
    let mut object = case["object"].clone();
    let unknown = match custom::admit(&mut object, &schema, false) {
        Ok(unknown) => unknown,
        Err(refused) => return json!({"refused": refused.to_string()}),
    };
    custom::default(&mut object, &schema);
    let mut errors = match case.get("old") {
        None => custom::check_create(&object, &schema),
        Some(old) => custom::check_update(&object, old, &schema),
    };
    errors.extend(custom::check_embedded(&object, &schema));
    // As it is stored: whole floats are integers from then on.
    let mut printed = Vec::new();
    codec::json::print(&object, &mut printed);
    let object: Value = serde_json::from_slice(&printed).unwrap();
    json!({"unknown": unknown, "becomes": object, "causes": causes(&errors)})
}

#[test]
fn answers_are_upstreams() {
    let (mut wrong, mut all) = (0, 0);
    for line in include_str!("custom.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        if case.get("crd").is_some() {
            continue;
        }
        all += 1;
        let answer = object_answer(&case);
        for key in ["refused", "unknown", "becomes", "causes"] {
            let empty = |value: Option<&Value>| value.cloned().filter(|value| value != &json!([])).unwrap_or_default();
            let (expected, found) = (empty(case.get(key)), empty(answer.get(key)));
            if expected != found {
                wrong += 1;
                eprintln!("{}: {key}\n  upstream: {expected}\n  here:     {found}", case["name"]);
            }
        }
    }
    assert_eq!(wrong, 0, "of {all} cases");
}
