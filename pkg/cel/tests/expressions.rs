//! Thousands of expressions with what upstream makes of them: types and messages, estimated and actual costs, values and
//! errors. `hack/update-cel-answers.sh` asks upstream again.

use std::collections::BTreeMap;
use std::sync::Arc;

use mk8s_cel::{Answer, Binding, Decl, Env};
use serde_json::{Map, Value, json};

/// What a call may cost.
const LIMIT: u64 = 1_000_000;

/// A schema with the values of the variables.
struct In {
    env: Env,
    decl: Arc<Decl>,
    this: Option<Value>,
    old: Option<Value>,
}

fn schemas() -> BTreeMap<String, In> {
    let schemas: Map<String, Value> =
        serde_json::from_str(include_str!("schemas.json")).expect("schemas.json is an object");
    let read = |(name, mut given): (String, Value)| {
        let decl = Decl::new(&given["schema"], given["root"] == true);
        let env = Env::default()
            .with_declared("self", "selfType", &decl, false)
            .with_declared("oldSelf", "selfType", &decl, false);
        let mut take = |key: &str| given.as_object_mut().and_then(|given| given.remove(key));
        let (this, old) = (take("self"), take("oldSelf"));
        (name, In { env, decl, this, old })
    };
    schemas.into_iter().map(read).collect()
}

/// What the variables are, in the order in which they are declared.
fn bindings(within: &In) -> Vec<Binding<'_>> {
    [&within.this, &within.old]
        .map(|value| {
            value
                .as_ref()
                .map_or(Binding::Unset, |value| Binding::Declared(value, &within.decl))
        })
        .to_vec()
}

fn answer(expr: &str, within: Option<&In>) -> Map<String, Value> {
    let mut answers = Map::new();
    let bare = Env::default();
    let env = within.map_or(&bare, |within| &within.env);
    let compiled = match env.compile(expr) {
        Ok(compiled) => compiled,
        Err(error) => {
            answers.insert("error".into(), json!(error.to_string()));
            return answers;
        }
    };
    answers.insert("type".into(), json!(compiled.result().to_string()));
    answers.insert("cost".into(), json!([compiled.cost.min, compiled.cost.max]));
    let program = match compiled.program() {
        Ok(program) => program,
        Err(error) => {
            answers.insert("programError".into(), json!(error.to_string()));
            return answers;
        }
    };
    let bindings = within.map(bindings).unwrap_or_default();
    let evaluation = program.evaluate(&bindings, LIMIT);
    answers.insert("actual".into(), json!(evaluation.cost));
    match evaluation.outcome {
        Ok(Answer::Bool(value)) => answers.insert("value".into(), json!(value.to_string())),
        Ok(Answer::String(text)) => answers.insert("string".into(), json!(text)),
        Ok(Answer::Other(value)) => answers.insert("value".into(), json!(value)),
        Err(error) => answers.insert("evalError".into(), json!(error.to_string())),
    };
    answers
}

/// What is answered otherwise, and why.
const DIFFERENT: [(&str, &str); 5] = [
    (
        "1 /* no */ + 2",
        "a third error follows the second upstream, which goes on after it",
    ),
    (
        "self.t",
        "upstream shows what its library for times says, which nobody sees: the schema has refused it before",
    ),
    (
        "((((",
        "100 brackets in each other are enough, and a request's stack is bounded",
    ),
    ("[[[[", "the same"),
    ("a.b(a.b(", "the same"),
];

#[test]
fn expressions_are_answered_as_upstream_does() {
    let schemas = schemas();
    let (mut total, mut different) = (0, Vec::new());
    for line in include_str!("expressions.jsonl").lines() {
        let mut wanted: Map<String, Value> = serde_json::from_str(line).expect("a line is an object");
        let expr = wanted
            .remove("expr")
            .and_then(|expr| expr.as_str().map(String::from))
            .expect("a line has expr");
        let within = wanted.remove("in").and_then(|name| name.as_str().map(String::from));
        let found = answer(&expr, within.as_ref().map(|name| &schemas[name]));
        total += 1;
        let is = |start: &str| start == expr || (expr.len() > 500 && expr.starts_with(start));
        let known = DIFFERENT.iter().any(|(start, _)| is(start));
        match compare(&wanted, &found) {
            Some(_) if known => {}
            Some(difference) => different.push(format!("{} {expr}\n  {difference}", within.unwrap_or_default())),
            None => assert!(!known, "{expr} is no longer answered otherwise"),
        }
    }
    assert!(total > 3_000, "only {total} expressions");
    assert!(
        different.is_empty(),
        "{}\n{} of {total} differ",
        different.join("\n"),
        different.len()
    );
}

fn compare(wanted: &Map<String, Value>, found: &Map<String, Value>) -> Option<String> {
    for key in ["error", "type", "programError", "cost", "evalError", "value", "actual"] {
        let mut own = found.get(key).cloned();
        if key == "value"
            && let Some(text) = found.get("string").and_then(Value::as_str)
        {
            own = Some(json!(text));
            let literal = wanted.get("value").and_then(Value::as_str).unwrap_or_default();
            if unquoted(literal).as_deref() == Some(text) {
                continue;
            }
        }
        if wanted.get(key) != own.as_ref() {
            let show = |value: Option<&Value>| {
                value.map_or("-".into(), |value| match value {
                    Value::String(text) => text.replace('\n', "\n    "),
                    other => other.to_string(),
                })
            };
            return Some(format!(
                "{key}\n    wanted {}\n    found  {}",
                show(wanted.get(key)),
                show(own.as_ref())
            ));
        }
    }
    None
}

/// The text of a quoted literal.
fn unquoted(literal: &str) -> Option<String> {
    match Env::default()
        .compile(literal)
        .ok()?
        .program()
        .ok()?
        .evaluate(&[], LIMIT)
        .outcome
    {
        Ok(Answer::String(text)) => Some(text),
        _ => None,
    }
}
