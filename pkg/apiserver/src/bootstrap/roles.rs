//! What upstream's API server creates at its start, from `upstream.jsonl` (made by hack/update-bootstrap.sh): one JSON
//! object per line; the first line is the node authorizer's static rules.

use std::sync::LazyLock;

use serde_json::Value;

use super::flow_control;
use crate::filters::authz::rules::{Rule, RuleSet};

const UPSTREAM: &str = include_str!("upstream.jsonl");

/// What every node may do beyond what the node authorizer decides by object.
pub fn node_rules() -> &'static [Rule] {
    static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
        let first = UPSTREAM.lines().next().unwrap_or_default();
        serde_json::from_str(first).unwrap_or_default()
    });
    &RULES
}

/// Roles, bindings, priority classes, flow schemas, priority levels.
pub fn upstream() -> Vec<Value> {
    let mut objects: Vec<Value> = lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    aggregate(&mut objects);
    objects.iter_mut().for_each(flow_control::with_level);
    objects
}

/// Their texts.
pub fn lines() -> impl Iterator<Item = &'static str> {
    UPSTREAM.lines().skip(1).filter(|line| !line.is_empty())
}

/// Fills the rules of aggregating ClusterRoles (admin, edit, view) with those of the roles they select.
fn aggregate(objects: &mut [Value]) {
    let selected = |selector: &Value, role: &Value| {
        selector["matchLabels"].as_object().is_some_and(|labels| {
            labels
                .iter()
                .all(|(key, value)| role["metadata"]["labels"].get(key) == Some(value))
        })
    };
    // admin aggregates edit, which aggregates view: each pass carries the rules one level up.
    for _ in 0..3 {
        let now: Vec<Value> = objects
            .iter()
            .filter(|object| object["kind"] == "ClusterRole")
            .cloned()
            .collect();
        for object in objects.iter_mut().filter(|object| !object["aggregationRule"].is_null()) {
            let selectors = object["aggregationRule"]["clusterRoleSelectors"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let mut rules: Vec<Value> = Vec::new();
            for role in &now {
                if role["metadata"]["name"] != object["metadata"]["name"]
                    && selectors.iter().any(|selector| selected(selector, role))
                {
                    for rule in role["rules"].as_array().into_iter().flatten() {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            object["rules"] = rules.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let objects = upstream();
        let count = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
        assert!(count("ClusterRole") > 60, "{}", count("ClusterRole"));
        assert!(count("ClusterRoleBinding") > 40);
        assert!(count("FlowSchema") >= 11);
        assert_eq!(count("PriorityClass"), 2);
        assert!(node_rules().len() > 10);
        let admin = objects
            .iter()
            .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "admin");
        assert!(admin.is_some_and(|admin| admin["rules"].as_array().is_some_and(|rules| rules.len() > 10)));
    }
}
