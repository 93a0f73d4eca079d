//! Whether an applied configuration fits its schema, in upstream's words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::element::{Element, told_path};
use super::items;
use super::node::{Items, Kind, Node, Scalar};
use crate::bounded::MOST_FINDINGS;
use crate::go;
use crate::quote::quoted;

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `.spec.containers[name="a"]`
    pub path: String,
    pub what: String,
}

/// The problems of a configuration, as one text.
pub fn told(problems: &[Problem]) -> String {
    let one = |problem: &Problem| match problem.path.as_str() {
        "" => problem.what.clone(),
        path => format!("{path}: {}", problem.what),
    };
    match problems {
        [only] => one(only),
        many => many.iter().fold("errors:".to_string(), |mut text, problem| {
            let _ = write!(text, "\n  {}", one(problem));
            text
        }),
    }
}

/// Looks for what a schema does not allow: other types, unknown fields, items without identity or with one that another has.
pub fn check(node: Node<'_>, value: &Value) -> Vec<Problem> {
    Checker::default().found(node, value)
}

/// The same of an object that is there already, in which items may have one identity.
pub fn check_live(node: Node<'_>, value: &Value) -> Vec<Problem> {
    let checker = Checker {
        is_live: true,
        ..Checker::default()
    };
    checker.found(node, value)
}

#[derive(Default)]
struct Checker {
    path: Vec<Element>,
    problems: Vec<Problem>,
    is_live: bool,
}

impl Checker {
    fn found(mut self, node: Node<'_>, value: &Value) -> Vec<Problem> {
        self.at(node, value);
        self.problems
    }

    fn tell(&mut self, what: String) {
        let path = told_path(&self.path);
        self.problems.push(Problem { path, what });
    }

    /// Nothing more is looked for where so much is wrong.
    fn is_full(&self) -> bool {
        self.problems.len() >= MOST_FINDINGS
    }

    fn below(&mut self, step: Element, node: Node<'_>, value: &Value) {
        self.path.push(step);
        self.at(node, value);
        self.path.pop();
    }

    fn at(&mut self, node: Node<'_>, value: &Value) {
        if self.is_full() {
            return;
        }
        match (node.kind(), value) {
            (_, Value::Null) => {}
            (Kind::Scalar(scalar), _) => self.scalar(scalar, value),
            (Kind::List, Value::Array(items)) => self.list(node, items),
            (Kind::List, _) => self.tell(format!("expected list, got &{{{}}}", go::printed(value))),
            (Kind::Map, Value::Object(fields)) => {
                for (key, value) in fields {
                    match node.child(key) {
                        Some(child) => self.below(Element::field(key), child, value),
                        None => {
                            self.path.push(Element::field(key));
                            self.tell("field not declared in schema".into());
                            self.path.pop();
                            return;
                        }
                    }
                }
            }
            (Kind::Map, _) => self.tell(format!("expected map, got &{{{}}}", go::printed(value))),
            (Kind::Deduced | Kind::Untyped, _) => {}
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        let told = match (scalar, value) {
            (Scalar::String, Value::String(_))
            | (Scalar::Number, Value::Number(_))
            | (Scalar::Bool, Value::Bool(_)) => return,
            (Scalar::Any, Value::String(_) | Value::Number(_) | Value::Bool(_)) => return,
            (Scalar::Number, _) => format!("expected numeric (int or float), got {}", go::type_of(value)),
            (Scalar::String, _) => format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_syntax(value)
            ),
            (Scalar::Bool, _) => format!("expected boolean, got &{{{}}}", go::printed(value)),
            (Scalar::Any, _) => format!("expected any scalar, got &{{{}}}", go::printed(value)),
        };
        self.tell(told);
    }

    fn list(&mut self, node: Node<'_>, list: &[Value]) {
        let has_identities = node.items() != Items::Atomic;
        let mut seen = BTreeSet::new();
        for (at, item) in list.iter().enumerate() {
            if self.is_full() {
                return;
            }
            if !has_identities {
                self.below(Element::Index(at as i64), node.item(), item);
                continue;
            }
            let element = match items::element(node, item) {
                Ok(element) => element,
                Err(error) => return self.tell(format!("element {at}: {error}")),
            };
            if !self.is_live && !seen.insert(element.clone()) {
                self.tell(format!("duplicate entries for key {element}"));
            }
            self.below(element, node.item(), item);
        }
    }
}

/// A value as Go prints it with %#v.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", go_syntax(value)));
            format!("map[string]interface {{}}{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::schema;

    #[test]
    fn problems_are_told_as_upstream_does() {
        let node = Node::root(schema::by_gvk("", "v1", "Pod").unwrap());
        let of = |container: Value| json!({"spec": {"containers": [container]}});
        let rows = [
            (json!({"spec": {"x": 1}}), ".spec.x: field not declared in schema"),
            // What is no pointer and always printed is presumed to be there, and for validation to refuse.
            (
                of(json!({"image": 1})),
                r#".spec.containers[name=""].image: expected string, got &value.valueUnstructured{Value:1}"#,
            ),
            (
                of(json!({"name": "c", "tty": "yes"})),
                r#".spec.containers[name="c"].tty: expected boolean, got &{yes}"#,
            ),
            (
                of(json!({"name": "c", "image": 1})),
                r#".spec.containers[name="c"].image: expected string, got &value.valueUnstructured{Value:1}"#,
            ),
            (
                of(json!({"name": "c", "command": "a"})),
                r#".spec.containers[name="c"].command: expected list, got &{a}"#,
            ),
            (
                of(json!({"name": "c", "ports": [{"containerPort": "x"}]})),
                r#".spec.containers[name="c"].ports[containerPort="x",protocol="TCP"].containerPort: expected numeric (int or float), got string"#,
            ),
            (
                json!({"metadata": {"labels": ["a"]}}),
                ".metadata.labels: expected map, got &{[a]}",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}, "spec": {"x": 1}}),
                "errors:\n  .metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}\n  .spec.x: field not declared in schema",
            ),
            (
                json!({"metadata": {"finalizers": ["a", "a"]}}),
                r#".metadata.finalizers: duplicate entries for key [="a"]"#,
            ),
        ];
        for (value, expected) in rows {
            assert_eq!(told(&check(node, &value)), expected);
        }
        assert_eq!(check_live(node, &json!({"metadata": {"finalizers": ["a", "a"]}})), []);
        let node_of_accounts = Node::root(schema::by_gvk("", "v1", "ServiceAccount").unwrap());
        assert_eq!(
            told(&check(node_of_accounts, &json!({"secrets": [{"namespace": "n"}]}))),
            r#".secrets: element 0: associative list with keys has an element that omits all key fields ["name"] (and doesn't have default values for any key fields)"#
        );
        assert!(
            check(
                node,
                &of(json!({"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "tty": null}))
            )
            .is_empty()
        );
    }
}
