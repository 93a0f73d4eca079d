//! Labels of nodes that have other names by now, wherever something selects by them.

use serde_json::Value;

use crate::names;
use crate::validation::{Path, each, has, strings, text};

/// (deprecated label of nodes, what to do)
const OLD: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

pub(super) fn deprecated(key: &str) -> Option<&'static str> {
    OLD.iter().find(|(label, _)| *label == key).map(|(_, what)| *what)
}

/// Of a term of a node selector; a preferred term's values are looked at too.
pub(super) fn term(term: &Value, preferred: bool, path: &Path<'_>, warnings: &mut Vec<String>) {
    let expressions = path.child("matchExpressions");
    for (index, expression) in each(term, "matchExpressions") {
        let path = expressions.index(index);
        key(expression, &path, warnings);
        let values = path.child("values");
        for (index, value) in strings(expression, "values").enumerate().filter(|_| preferred) {
            for why in names::label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {why}", values.index(index)));
            }
        }
    }
}

fn key(expression: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let key = text(expression, "key");
    if let Some(why) = deprecated(key) {
        warnings.push(format!("{}: {key} is {why}", path.child("key")));
    }
}

/// Of a selector of nodes by their labels.
pub(super) fn selector(selector: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let expressions = path.child("matchExpressions");
    for (index, expression) in each(selector, "matchExpressions") {
        key(expression, &expressions.index(index), warnings);
    }
    let labels = path.child("matchLabels");
    for label in has(selector, "matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(label, _)| label)
    {
        if let Some(why) = deprecated(label) {
            warnings.push(format!("{}: {why}", labels.child(label)));
        }
    }
}
