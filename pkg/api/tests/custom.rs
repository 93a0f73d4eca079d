//! Custom objects and their definitions against what upstream v1.35.4 itself makes of them: `custom.jsonl` was recorded
//! from its packages. A line has a schema and an object (and what it was before), then which fields went, what the object
//! became and the causes of its refusal, sorted; or a definition and the causes. `hack/update-custom-answers.sh` records
//! them again.
#![allow(clippy::unwrap_used)]

use mk8s_api::schema::custom;
use mk8s_api::status::FieldError;
use mk8s_api::{codec, registry, validation};
use serde_json::{Value, json};

fn causes(errors: &[FieldError]) -> Value {
    let mut causes: Vec<[String; 2]> = errors.iter().map(|error| [error.field.clone(), error.body()]).collect();
    causes.sort();
    causes.dedup();
    // Upstream prints versions with all of Go's own fields, in Go's order.
    for [field, body] in &mut causes {
        if field == "spec.versions" {
            *body = body.rsplit("]: ").next().unwrap().to_string();
        }
    }
    json!(causes)
}

fn object_answer(case: &Value) -> Value {
    let schema = custom::compile(&case["schema"]).unwrap();
    let mut object = case["object"].clone();
    let unknown = match custom::admit(&mut object, &schema, false) {
        Ok(unknown) => unknown,
        Err(refused) => return json!({"refused": refused.to_string()}),
    };
    custom::default(&mut object, &schema).unwrap();
    let old = case.get("old");
    let mut errors = custom::check(&object, old, &schema);
    errors.extend(custom::check_lists(&object, old, &schema));
    errors.extend(custom::check_embedded(&object, &schema));
    // As it is stored: whole floats are integers from then on.
    let mut printed = Vec::new();
    codec::json::print(&object, &mut printed);
    let object: Value = serde_json::from_slice(&printed).unwrap();
    json!({"unknown": unknown, "becomes": object, "causes": causes(&errors)})
}

fn definition_answer(case: &Value) -> Value {
    let row = registry::find_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let defaulted = |key: &str| {
        let mut definition = case.get(key)?.clone();
        (row.stored().default)(&mut definition);
        Some(definition)
    };
    let new = defaulted("crd").unwrap();
    let errors = match defaulted("oldCRD") {
        Some(old) => validation::update(row, row.stored(), &new, &old, &mut Vec::new()),
        None => validation::create(row, row.stored(), &new),
    };
    json!({"causes": causes(&errors)})
}

#[test]
fn answers_are_upstreams() {
    let (mut wrong, mut all) = (0, 0);
    for line in include_str!("custom.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        all += 1;
        let answer = match case.get("crd") {
            Some(_) => definition_answer(&case),
            None => object_answer(&case),
        };
        for key in ["refused", "unknown", "becomes", "causes"] {
            let empty = |value: Option<&Value>| value.cloned().filter(|value| value != &json!([])).unwrap_or_default();
            let (mut expected, found) = (empty(case.get(key)), empty(answer.get(key)));
            for cause in expected
                .as_array_mut()
                .into_iter()
                .flatten()
                .filter(|cause| cause[0] == "spec.versions")
            {
                cause[1] = cause[1].as_str().unwrap().rsplit("]: ").next().unwrap().into();
            }
            if expected != found {
                wrong += 1;
                eprintln!("{}: {key}\n  upstream: {expected}\n  here:     {found}", case["name"]);
            }
        }
    }
    assert_eq!(wrong, 0, "of {all} cases");
}

#[test]
fn nothing_more_is_looked_for_where_much_is_shown() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": set}}});
    let schema = custom::compile(&schema).unwrap();
    let long = "x".repeat(100 << 10);
    let object = json!({"l": vec![json!([long, long]); 99]});
    let errors = custom::check_lists(&object, None, &schema);
    assert!((2..30).contains(&errors.len()), "{}", errors.len());
}
