//! Whether a node is one of those that a pod asks for: nodeSelector and required node affinity, as the scheduler reads them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};
use mk8s_api::selectors::{Operator, Requirement};

use crate::pod;

/// All labels of the selector, and one of the affinity's terms.
pub fn fits(pod: &Pod, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let spec = pod::spec(pod);
    let mut selector = spec.node_selector.iter().flatten();
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selector.all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_holds(term, node, labels)))
}

/// A term without requirements holds nowhere.
fn term_holds(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |r: &NodeSelectorRequirement| holds(r, labels.get(&r.key).map(String::as_str));
    let field = |r: &NodeSelectorRequirement| holds(r, (r.key == "metadata.name").then_some(node));
    !(expressions.is_empty() && fields.is_empty()) && expressions.iter().all(label) && fields.iter().all(field)
}

/// One that can't be read (validation lets none through) holds nowhere.
fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement::new(&requirement.key, operator, values).is_ok_and(|r| r.matches(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_and_terms() {
        let labels: BTreeMap<String, String> = [("disk", "ssd"), ("cores", "8")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let name = |operator: &str, value: &str| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": [value]}]});
        let both = json!({"matchExpressions": [
            {"key": "disk", "operator": "Exists"}, {"key": "gpu", "operator": "Exists"}]});
        for (selector, terms, expected) in [
            (json!({"disk": "ssd"}), Value::Null, true),
            (json!({"disk": "hdd"}), Value::Null, false),
            (json!({}), json!([expression("disk", "In", &["hdd", "ssd"])]), true),
            (json!({}), json!([expression("disk", "NotIn", &["ssd"])]), false),
            (json!({}), json!([expression("gpu", "NotIn", &["x"])]), true),
            (json!({}), json!([expression("gpu", "Exists", &[])]), false),
            (json!({}), json!([expression("gpu", "DoesNotExist", &[])]), true),
            (json!({}), json!([expression("cores", "Gt", &["4"])]), true),
            (json!({}), json!([expression("cores", "Lt", &["4"])]), false),
            (json!({}), json!([expression("disk", "Gt", &["4"])]), false),
            (json!({}), json!([name("In", "node-a")]), true),
            (json!({}), json!([name("In", "node-b")]), false),
            (json!({}), json!([both]), false),
            (json!({}), json!([both, name("In", "node-a")]), true),
            (json!({}), json!([{}]), false),
            (json!({}), json!([]), false),
            (json!({"disk": "hdd"}), json!([name("In", "node-a")]), false),
        ] {
            let mut spec = json!({"containers": [], "nodeSelector": selector});
            if !terms.is_null() {
                let required = json!({"nodeSelectorTerms": terms});
                spec["affinity"] =
                    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
            }
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(fits(&pod, "node-a", &labels), expected, "{spec}");
        }
    }
}
