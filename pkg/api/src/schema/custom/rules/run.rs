//! Runs the rules of an object, from its root down, at a bounded cost for all of them.

use std::collections::HashMap;

use mk8s_cel::{Answer, Binding, Evaluation, Failure, MOST_COMPARED};
use serde_json::Value;

use super::super::correlate::Old;
use super::super::{declared, items, parts};
use super::{Compiled, Rule, Rules, compile};
use crate::bounded::MOST_FINDINGS;
use crate::schema::{Node, What};
use crate::status::{ErrorKind, FieldError};
use crate::validation::Errors;
use crate::validation::path::Path;

/// What all rules of an object may cost together, and one run of one.
pub(in crate::schema::custom) const BUDGET: u64 = 10_000_000;
const PER_CALL: u64 = 1_000_000;
/// Bytes of a message that an expression makes.
const LONGEST_MESSAGE: usize = 5 * 1024;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What rules found.
#[derive(Debug, Default)]
pub struct Ruling {
    pub errors: Errors,
    /// What was as wrong before the change.
    pub warnings: Vec<String>,
}

/// Runs the rules of an object, new or changed from `old`. `found` is what is wrong with it otherwise: where that is about
/// its form, no rule is run.
pub fn check_rules(new: &Value, old: Option<&Value>, schema: &Node, found: &[FieldError]) -> Ruling {
    let mut run = Run::new(BUDGET);
    if !is_ruled(schema) {
        return run.ruling;
    }
    let blocks = |error: &FieldError| {
        use ErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
        matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
    };
    if found.iter().any(blocks) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        run.ruling.errors.push(FieldError::invalid("<nil>", Value::Null, why));
        return run.ruling;
    }
    let place = Place {
        node: schema,
        value: new,
        old,
        before: old.map(|old| Before {
            old: Old::root(old),
            value: new,
            node: schema,
        }),
        around: None,
    };
    let _ = run.at(&place, &Path::ROOT);
    run.ruling
}

/// Runs the rules of a default, as of a value that stays and as of one that is new, at a cost that all defaults of a schema
/// share: what is wrong, and what is left of that; none where it was too little.
pub(in crate::schema::custom) fn check_default_rules(
    default: &Value,
    schema: &Node,
    path: &Path<'_>,
    budget: u64,
) -> (Errors, Option<u64>) {
    let mut left = budget;
    for old in [Some(default), None] {
        let mut run = Run::new(budget);
        let place = Place {
            node: schema,
            value: default,
            old,
            before: None,
            around: None,
        };
        let stopped = run.at(&place, path).is_err();
        left = left.min(run.budget);
        if stopped || !run.ruling.errors.is_empty() {
            return (run.ruling.errors, (!stopped).then_some(left));
        }
    }
    (Errors::new(), Some(left))
}

fn is_ruled(node: &Node) -> bool {
    parts(node).is_some_and(|(_, constraints)| constraints.ruled)
}

/// A value with its node.
struct Place<'v> {
    node: &'v Node,
    value: &'v Value,
    /// What `oldSelf` is.
    old: Option<&'v Value>,
    /// What it was before, and what it is in was, to tell whether anything changed.
    before: Option<Before<'v>>,
    around: Option<Before<'v>>,
}

#[derive(Clone, Copy)]
struct Before<'v> {
    old: Old<'v>,
    value: &'v Value,
    node: &'v Node,
}

/// No further rule is run.
struct Stop;

struct Run {
    budget: u64,
    /// How many comparisons are left, which cost next to nothing and take their time.
    comparisons: u32,
    ruling: Ruling,
    /// Whether a value is what it was: all new items of a list ask that of the list.
    unchanged: HashMap<*const Value, bool>,
}

impl Run {
    fn new(budget: u64) -> Run {
        Run {
            budget,
            comparisons: MOST_COMPARED,
            ruling: Ruling::default(),
            unchanged: HashMap::new(),
        }
    }

    fn at(&mut self, place: &Place<'_>, path: &Path<'_>) -> Result<(), Stop> {
        if place.value.is_null() || !is_ruled(place.node) {
            return Ok(());
        }
        let Some((_, constraints)) = parts(place.node) else {
            return Ok(());
        };
        if let Some(rules) = &constraints.rules {
            self.rules(rules, place, path)?;
        }
        match place.value {
            Value::Array(list) => self.list(list, place, path),
            Value::Object(object) => {
                for (key, value) in object {
                    let Some(node) = declared(place.node, key) else {
                        continue;
                    };
                    let old = place.old.and_then(|old| old.as_object()?.get(key));
                    let place = field(
                        place,
                        key,
                        Place {
                            node,
                            value,
                            old,
                            before: None,
                            around: None,
                        },
                    );
                    match place.0 {
                        What::Map(_) => self.at(&place.1, &path.key(key))?,
                        _ => self.at(&place.1, &path.child(key))?,
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn list(&mut self, list: &[Value], place: &Place<'_>, path: &Path<'_>) -> Result<(), Stop> {
        let Some(node) = items(place.node) else {
            return Ok(());
        };
        let old_items = place.old.map(|old| Old::root(old).list(place.node));
        for (i, value) in list.iter().enumerate() {
            let old = old_items.as_ref().and_then(|old| old.item(value));
            let before = place.before.and(old).map(|old| Before { old, value, node });
            let around = place.before.or(place.around);
            let place = Place {
                node,
                value,
                old: old.map(|old| old.value()),
                before,
                around,
            };
            self.at(&place, &path.index(i))?;
        }
        Ok(())
    }

    fn rules(&mut self, rules: &Rules, place: &Place<'_>, path: &Path<'_>) -> Result<(), Stop> {
        let compiled = rules.compiled(place.node);
        if !compiled.decl.is_typed() {
            let why = "rule compiler initialization error: failed to convert to declType for CEL validation rules";
            self.error(invalid(path, place.node, why));
            return Ok(());
        }
        for ((rule, program), field) in rules.said.iter().zip(&compiled.rules).zip(&compiled.paths) {
            if self.budget == 0 {
                self.error(invalid(path, place.node, OUT_OF_BUDGET));
                return Err(Stop);
            }
            self.rule(rule, program, field, compiled, place, path)?;
            self.more()?;
        }
        Ok(())
    }

    /// Whether the value, or where it is new what it is in, is what it was.
    fn is_unchanged(&mut self, place: &Place<'_>) -> bool {
        let Some(Before { old, value, node }) = place.before.or(place.around) else {
            return false;
        };
        let known = self.unchanged.entry(std::ptr::from_ref(value));
        *known.or_insert_with(|| old.is_unchanged(value, node))
    }

    fn error(&mut self, error: FieldError) {
        self.ruling.errors.push(error);
    }

    /// Where so much is wrong, nothing more is looked for.
    fn more(&self) -> Result<(), Stop> {
        match self.ruling.errors.is_full() {
            true => Err(Stop),
            false => Ok(()),
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        compiled: &compile::Compiled,
        field: &str,
        all: &Compiled,
        place: &Place<'_>,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        let program = match &compiled.program {
            None => return Ok(()),
            Some(Ok(program)) => program,
            Some(Err(error)) => {
                self.error(invalid(path, place.node, format!("rule compile error: {error}")));
                return Ok(());
            }
        };
        let optional = rule.optional_old == Some(true);
        let old = place.old.filter(|old| !old.is_null());
        if compiled.uses_old && old.is_none() && !optional {
            return Ok(());
        }
        let old = match old {
            old if optional => Binding::Optional(old.map(|old| (old, &*all.decl))),
            Some(old) => Binding::Declared(old, &all.decl),
            None => Binding::Unset,
        };
        let bindings = [Binding::Declared(place.value, &all.decl), old];
        let evaluation = program.evaluate(&bindings, PER_CALL);
        if self.spend(&evaluation).is_err() {
            self.error(invalid(path, place.node, OUT_OF_BUDGET));
            return Err(Stop);
        }
        let called = rule.called();
        match evaluation.outcome {
            Ok(Answer::Bool(true)) => Ok(()),
            Err(error @ Failure::Cost) => {
                let why = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {called}"
                );
                self.error(invalid(path, place.node, why));
                Err(Stop)
            }
            Err(error) => {
                let text = error.to_string();
                let why = if text.starts_with("no such overload") {
                    format!(
                        "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {called}"
                    )
                } else {
                    format!("{text} evaluating rule: {called}")
                };
                self.error(invalid(path, place.node, why));
                Ok(())
            }
            Ok(_) => self.broken(rule, compiled, field, &bindings, place, path),
        }
    }

    /// Takes what an evaluation cost from what is left; one that was stopped says so itself.
    fn spend(&mut self, evaluation: &Evaluation) -> Result<(), Stop> {
        self.budget = self.budget.checked_sub(evaluation.cost).ok_or(Stop)?;
        if evaluation.outcome != Err(Failure::Cost) {
            self.comparisons = self.comparisons.checked_sub(evaluation.compared).ok_or(Stop)?;
        }
        Ok(())
    }

    /// A rule that does not hold.
    fn broken(
        &mut self,
        rule: &Rule,
        compiled: &compile::Compiled,
        field: &str,
        bindings: &[Binding<'_>],
        place: &Place<'_>,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        let mut at = path.to_string();
        if !field.is_empty() {
            at = if path.is_root() {
                field.to_string()
            } else {
                format!("{at}.{field}")
            };
        }
        let at = if at.is_empty() { "<nil>".to_string() } else { at };
        let tolerated = !compiled.uses_old && self.is_unchanged(place);
        let mut message = None;
        if let Some(Ok((program, _))) = &compiled.message {
            match self.message(&rule.message_expression, program, bindings) {
                Ok(made) => message = made,
                Err(why) => {
                    let word = Value::from(word(place.node));
                    self.tell(FieldError::invalid(at, word, why), tolerated);
                    return Err(Stop);
                }
            }
        }
        let message = message.unwrap_or_else(|| match rule.message.is_empty() {
            true => format!("failed rule: {}", rule.called()),
            false => rule.message.trim().to_string(),
        });
        let kind = match rule.reason.as_deref() {
            Some("FieldValueForbidden") => ErrorKind::Forbidden,
            Some("FieldValueRequired") => ErrorKind::Required,
            Some("FieldValueDuplicate") => ErrorKind::Duplicate,
            _ => ErrorKind::Invalid,
        };
        let shown = !matches!(word(place.node), "object" | "array");
        let error = FieldError {
            kind,
            field: at,
            value: shown.then(|| place.value.clone()),
            detail: if kind == ErrorKind::Duplicate {
                String::new()
            } else {
                message
            },
        };
        self.tell(error, tolerated);
        Ok(())
    }

    /// An error, or a warning of what was so before.
    fn tell(&mut self, error: FieldError, tolerated: bool) {
        match tolerated {
            true if self.ruling.warnings.len() < MOST_FINDINGS => self.ruling.warnings.push(error.to_string()),
            true => {}
            false => self.error(error),
        }
    }

    /// The message that an expression makes; none where it makes none that can be shown. An error ends everything.
    fn message(
        &mut self,
        expression: &str,
        program: &mk8s_cel::Program,
        bindings: &[Binding<'_>],
    ) -> Result<Option<String>, String> {
        // It is told of no optional.
        let old = match bindings[1] {
            Binding::Optional(Some((value, decl))) => Binding::Declared(value, decl),
            Binding::Optional(None) => Binding::Unset,
            plain => plain,
        };
        let evaluation = program.evaluate(&[bindings[0], old], PER_CALL);
        if self.spend(&evaluation).is_err() {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".into());
        }
        match evaluation.outcome {
            Err(Failure::Cost) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {expression:?}"
            )),
            Ok(Answer::String(text)) => {
                let text = text.trim();
                let shown = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
                Ok(shown.then(|| text.to_string()))
            }
            _ => Ok(None),
        }
    }
}

/// The place of a field, beside what its object is.
fn field<'v>(of: &Place<'v>, key: &str, mut place: Place<'v>) -> (&'v What, Place<'v>) {
    place.around = of.before.or(of.around);
    place.before = match of.before {
        // Of the object itself, what it is called always counts as changed.
        Some(_) if of.around.is_none() && matches!(key, "apiVersion" | "kind") => {
            place.around = None;
            None
        }
        Some(before) => before.old.field(key).map(|old| Before {
            old,
            value: place.value,
            node: place.node,
        }),
        None => None,
    };
    (&of.node.what, place)
}

fn word(node: &Node) -> &'static str {
    use crate::schema::Type;
    match parts(node).and_then(|(_, constraints)| constraints.types) {
        None | Some(Type::IntOrString) => "",
        Some(types) => types.words(),
    }
}

/// An error that shows the value's type.
fn invalid(path: &Path<'_>, node: &Node, why: impl Into<String>) -> FieldError {
    let at = path.to_string();
    FieldError::invalid(if at.is_empty() { "<nil>".into() } else { at }, word(node), why)
}
