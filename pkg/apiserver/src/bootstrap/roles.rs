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
    // In the order in which the aggregation controller has them, which then finds nothing to change.
    let mut order: Vec<usize> = (0..objects.len())
        .filter(|at| objects[*at]["kind"] == "ClusterRole")
        .collect();
    order.sort_by_key(|at| objects[*at]["metadata"]["name"].as_str().map(str::to_owned));
    // admin aggregates edit, which aggregates view: each pass carries the rules one level up.
    for _ in 0..3 {
        for at in &order {
            if objects[*at]["aggregationRule"].is_null() {
                continue;
            }
            let selectors = objects[*at]["aggregationRule"]["clusterRoleSelectors"].as_array();
            let mut rules: Vec<Value> = Vec::new();
            for selector in selectors.into_iter().flatten() {
                let parts = order.iter().filter(|part| *part != at).map(|part| &objects[*part]);
                for rule in parts
                    .filter(|role| selected(selector, role))
                    .flat_map(|role| role["rules"].as_array().into_iter().flatten())
                {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            objects[*at]["rules"] = rules.into();
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
