//! Rules when a definition is written: their texts, their types, and what they can cost.

use mk8s_cel::{Decl, Source};
use serde_json::Value;

use super::{Rule, compile, field_path};
use crate::go;
use crate::status::{ErrorKind, FieldError};
use crate::validation::Errors;
use crate::validation::path::Path;

/// What one rule and all of a schema may be estimated to cost.
const RULE_LIMIT: u64 = 10_000_000;
const SCHEMA_LIMIT: u64 = 100_000_000;

const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// What is wrong with the texts of a schema's own rules; `path` is the schema's.
pub fn check_words(schema: &Value, path: &str) -> Errors {
    let (path, mut errors) = (Path::new(path), Errors::new());
    let rules_path = path.child("x-kubernetes-validations");
    for (i, said) in rules(schema).iter().enumerate() {
        let at = rules_path.index(i);
        let rule = Rule::new(said);
        let message = rule.message.trim();
        if rule.rule.trim().is_empty() {
            errors.push(FieldError::required(at.child("rule"), "rule is not specified"));
        } else if !rule.message.is_empty() && message.is_empty() {
            errors.push(FieldError::invalid(
                at.child("message"),
                rule.message.clone(),
                "must be non-empty if specified",
            ));
        } else if has_line_breaks(message) {
            errors.push(FieldError::invalid(
                at.child("message"),
                rule.message.clone(),
                "must not contain line breaks",
            ));
        } else if has_line_breaks(rule.rule.trim()) && message.is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(at.child("message"), why));
        }
        if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(at.child("messageExpression"), why));
        }
        if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
            errors.push(FieldError::not_supported(at.child("reason"), reason, &REASONS));
        }
        check_field_path(&rule.field_path, schema, &at.child("fieldPath"), &mut errors);
    }
    errors
}

fn check_field_path(path: &str, schema: &Value, at: &Path<'_>, errors: &mut Errors) {
    if path.is_empty() {
        return;
    }
    let mut complain = |why: &str| errors.push(FieldError::invalid(*at, path, why));
    if path.trim().is_empty() {
        complain("must be non-empty if specified");
    }
    if has_line_breaks(path) {
        complain("must not contain line breaks");
    }
    if field_path::resolve(path, schema, true).is_err() {
        complain("must be a valid path");
    }
}

fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

fn rules(schema: &Value) -> &[Value] {
    schema["x-kubernetes-validations"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// What is wrong with the rules of a whole schema that is otherwise right; `path` is the schema's. Of a schema that was
/// there before, no single rule is too expensive.
pub fn check_definition(schema: &Value, path: &str, was_there: bool) -> Errors {
    let path = &Path::new(path);
    let mut check = Check {
        errors: Errors::new(),
        was_there,
        total: 0,
        expensive: Vec::new(),
    };
    check.at(
        schema,
        path,
        &Scope {
            most: Some(1),
            uncorrelatable: None,
            root: true,
        },
    );
    if check.total > SCHEMA_LIMIT {
        for (_, at) in &check.expensive {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            check.errors.push(FieldError::forbidden(at.clone(), why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(FieldError::forbidden(
            path.to_string(),
            too_expensive(what, check.total, SCHEMA_LIMIT),
        ));
    }
    check.errors
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_string()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Where in a schema a part of it is.
struct Scope {
    /// How many values of the part an object has at most; none where nothing says.
    most: Option<u64>,
    /// The list around it whose items are not known to be what they were.
    uncorrelatable: Option<String>,
    root: bool,
}

struct Check {
    errors: Errors,
    was_there: bool,
    total: u64,
    /// The four rules that cost most, with at least a hundredth of what all may.
    expensive: Vec<(u64, String)>,
}

impl Check {
    fn at(&mut self, schema: &Value, path: &Path<'_>, scope: &Scope) {
        let most = scope
            .most
            .and_then(|most| Some(most.saturating_mul(most_inside(schema)?)));
        let inside = |uncorrelatable: Option<String>| Scope {
            most,
            uncorrelatable,
            root: false,
        };
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            self.at(
                values,
                &path.child("additionalProperties"),
                &inside(scope.uncorrelatable.clone()),
            );
        }
        let properties = path.child("properties");
        for (name, of) in schema["properties"].as_object().into_iter().flatten() {
            self.at(of, &properties.key(name), &inside(scope.uncorrelatable.clone()));
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            let correlates = schema["x-kubernetes-list-type"] == "map";
            let own = (!correlates).then(|| path.to_string());
            self.at(
                items,
                &path.child("items"),
                &inside(scope.uncorrelatable.clone().or(own)),
            );
        }
        self.own(schema, path, scope);
    }

    /// A schema's own rules.
    fn own(&mut self, schema: &Value, path: &Path<'_>, scope: &Scope) {
        let said = rules(schema);
        if said.is_empty() {
            return;
        }
        let path = path.child("x-kubernetes-validations");
        let decl = Decl::new(schema, scope.root || schema.is_embedded());
        if !decl.is_typed() {
            let why = "Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            let field = path.to_string();
            let detail = why.trim_start_matches("Internal error: ").to_string();
            self.errors.push(FieldError {
                kind: ErrorKind::Internal,
                field,
                value: None,
                detail,
            });
            return;
        }
        let said: Vec<Rule> = said.iter().map(Rule::new).collect();
        let most = scope.most.unwrap_or_else(|| decl.max_cardinality());
        for (i, (rule, compiled)) in said.iter().zip(compile::all(&said, &decl)).enumerate() {
            self.rule(rule, &compiled, &path.index(i), most, scope);
        }
    }

    fn rule(&mut self, rule: &Rule, compiled: &compile::Compiled, path: &Path<'_>, most: u64, scope: &Scope) {
        let at = path.child("rule");
        self.spend("estimated rule cost", compiled.cost.saturating_mul(most), &at);
        if let Some(Err(error)) = &compiled.program {
            self.errors.push(shown_with_rule(&at, rule, error));
        }
        let message_at = path.child("messageExpression");
        match &compiled.message {
            None => {}
            Some(Err(error)) => self.errors.push(shown_with_rule(&message_at, rule, error)),
            Some(Ok((_, cost))) => self.spend("estimated messageExpression cost", *cost, &message_at),
        }
        match (&scope.uncorrelatable, compiled.uses_old, rule.optional_old) {
            (Some(list), true, _) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                self.errors.push(FieldError::invalid(at, rule.rule.clone(), why));
            }
            (_, false, Some(optional)) => {
                let why = "may not be set if oldSelf is not used in rule";
                self.errors
                    .push(FieldError::invalid(path.child("optionalOldSelf"), optional, why));
            }
            _ => {}
        }
    }

    fn spend(&mut self, what: &str, cost: u64, at: &Path<'_>) {
        if !self.was_there && cost > RULE_LIMIT {
            self.errors
                .push(FieldError::forbidden(*at, too_expensive(what, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, at.to_string()));
            self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.expensive.truncate(4);
        }
    }
}

/// How many values of each part a value has at most.
fn most_inside(schema: &Value) -> Option<u64> {
    let bound = |key: &str| Some(schema[key].as_i64()?.max(0) as u64);
    match schema["type"].as_str() {
        Some("object") if !schema["additionalProperties"].is_null() => bound("maxProperties"),
        Some("array") => bound("maxItems"),
        _ => Some(1),
    }
}

/// An error that shows the whole rule, in the order in which upstream's own form has its parts.
fn shown_with_rule(at: &Path<'_>, rule: &Rule, why: &str) -> FieldError {
    let parts = [
        ("Rule", Value::from(rule.rule.as_str())),
        ("Message", rule.message.as_str().into()),
        ("MessageExpression", rule.message_expression.as_str().into()),
        ("Reason", rule.reason.as_deref().into()),
        ("FieldPath", rule.field_path.as_str().into()),
        ("OptionalOldSelf", rule.optional_old.into()),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(name, value)| format!("\"{name}\":{}", go::json(&value)))
        .collect();
    let detail = format!("{{{}}}: {why}", parts.join(","));
    FieldError {
        kind: ErrorKind::Invalid,
        field: at.to_string(),
        value: None,
        detail,
    }
}
