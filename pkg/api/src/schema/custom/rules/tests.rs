//! Rules of custom kinds against what upstream v1.35.4 itself makes of them: `rules.jsonl` was recorded from its packages. A
//! line has a schema and an object (and what it was before), then the causes of its refusal and what is only warned of; or a
//! schema alone, and what is wrong with a definition that has it. `hack/update-cel-answers.sh` records them again.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::{check_definition, check_rules, check_words, compile};
use crate::status::FieldError;
use crate::validation::path::Path;

fn causes(errors: &[FieldError]) -> Value {
    let mut causes: Vec<[String; 2]> = errors.iter().map(|error| [error.field.clone(), error.body()]).collect();
    causes.sort();
    json!(causes)
}

/// What is wrong with the rules of a definition: their texts, and where those are right, what they say.
fn definition_answer(schema: &Value) -> Value {
    fn words(schema: &Value, path: &Path<'_>, errors: &mut crate::validation::Errors) {
        errors.extend(check_words(schema, &path.to_string()));
        let properties = path.child("properties");
        for (name, of) in schema["properties"].as_object().into_iter().flatten() {
            words(of, &properties.key(name), errors);
        }
    }
    let (spec, mut errors) = (Path::new("spec"), crate::validation::Errors::new());
    let validation = spec.child("validation");
    let path = validation.child("openAPIV3Schema");
    words(schema, &path, &mut errors);
    if errors.is_empty() {
        errors = check_definition(schema, &path.to_string(), false);
    }
    json!({"causes": causes(&errors)})
}

fn answer(case: &Value) -> Value {
    let Some(object) = case.get("object") else {
        return definition_answer(&case["schema"]);
    };
    let schema = compile(&case["schema"]).unwrap();
    let mut ruling = check_rules(object, case.get("old"), &schema, &[]);
    ruling.warnings.sort();
    json!({"causes": causes(&ruling.errors), "warnings": ruling.warnings})
}

#[test]
fn answers_are_upstreams() {
    let (mut wrong, mut all) = (0, 0);
    for line in include_str!("../../../../tests/fixtures/rules.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        all += 1;
        let answer = answer(&case);
        for key in ["causes", "warnings"] {
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

/// Items that only comparing tells apart cost next to nothing: all rules of an object share how many are compared.
#[test]
fn all_rules_together_compare_no_more_than_one_may() {
    let item = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"k": {"type": "string"}}});
    let many: Vec<Value> = (0..700).map(|n| json!({"k": "x", "n": n})).collect();
    let mut back = many.clone();
    back.reverse();
    let found = |count: usize| {
        let rule = json!({"rule": "self.l != oldSelf.l", "message": "it is what it was"});
        let schema = compile(
            &json!({"type": "object", "x-kubernetes-validations": vec![rule; count], "properties": {
            "l": {"type": "array", "x-kubernetes-list-type": "set", "items": item}}}),
        );
        let errors = check_rules(&json!({"l": many}), Some(&json!({"l": back})), &schema.unwrap(), &[]).errors;
        let (broken, other): (Vec<_>, Vec<_>) = errors
            .iter()
            .map(FieldError::body)
            .partition(|body| body.contains("it is what it was"));
        (broken.len(), other)
    };
    assert_eq!(found(2), (2, Vec::new()));
    let (broken, other) = found(10);
    assert!((2..10).contains(&broken), "{broken}");
    assert!(
        matches!(&other[..], [only] if only.contains("out of cost budget")),
        "{other:?}"
    );
}
