//! What extenders answer. They are written in many languages, and Go takes their keys in any case.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

/// Which nodes are right.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    pub kept: HashSet<String>,
    /// They were named, and not sent whole.
    pub by_name: bool,
    pub failed: BTreeMap<String, String>,
    /// Nobody's going would make these right.
    pub unresolvable: BTreeMap<String, String>,
}

/// A field's value; none: it is absent, or null.
pub fn field<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    let fields = object.as_object()?;
    let found = fields.get(name).or_else(|| {
        let mut other = fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        other.next().map(|(_, value)| value)
    });
    found.filter(|value| !value.is_null())
}

/// What it says went wrong.
pub fn error(answer: &Value) -> Option<String> {
    let text = field(answer, "Error")?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Reads ExtenderFilterResult. `names`: nodes were sent by their names, and may be answered so.
pub fn filtered(answer: &Value, names: bool) -> Result<Filtered, String> {
    if let Some(error) = error(answer) {
        return Err(error);
    }
    let named = field(answer, "NodeNames").filter(|_| names);
    let kept = match (named, field(answer, "Nodes")) {
        (Some(names), _) => texts(names, |name| name.as_str())?,
        (None, Some(nodes)) => match field(nodes, "items") {
            Some(items) => texts(items, |node| field(field(node, "metadata")?, "name")?.as_str())?,
            None => HashSet::new(),
        },
        (None, None) => HashSet::new(),
    };
    Ok(Filtered {
        kept,
        by_name: named.is_some(),
        failed: reasons(answer, "FailedNodes")?,
        unresolvable: reasons(answer, "FailedAndUnresolvableNodes")?,
    })
}

fn texts(list: &Value, text: fn(&Value) -> Option<&str>) -> Result<HashSet<String>, String> {
    let items = list.as_array().ok_or_else(|| "its nodes are no list".to_owned())?;
    let each = items.iter().map(|item| text(item).map(str::to_owned));
    each.collect::<Option<_>>()
        .ok_or_else(|| "a node of its answer has no name".to_owned())
}

fn reasons(answer: &Value, name: &str) -> Result<BTreeMap<String, String>, String> {
    let Some(map) = field(answer, name) else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_value(map.clone()).map_err(|error| format!("{name}: {error}"))
}

/// Reads HostPriorityList.
pub fn priorities(answer: &Value) -> Result<Vec<(String, i64)>, String> {
    let Some(list) = answer.as_array() else {
        return if answer.is_null() {
            Ok(Vec::new())
        } else {
            Err("its priorities are no list".to_owned())
        };
    };
    let each = list.iter().map(|item| {
        let host = field(item, "Host").and_then(Value::as_str).unwrap_or_default();
        match field(item, "Score") {
            None => Ok((host.to_owned(), 0)),
            Some(score) => {
                let score = score.as_i64().ok_or_else(|| format!("{score} is no score"))?;
                Ok((host.to_owned(), score))
            }
        }
    });
    each.collect()
}

/// Victims by their uids, and how many of them break a budget.
pub type MetaVictims = (Vec<String>, i64);

/// Reads ExtenderPreemptionResult: the victims on each node.
pub fn victims(answer: &Value) -> Result<BTreeMap<String, MetaVictims>, String> {
    let Some(nodes) = field(answer, "NodeNameToMetaVictims") else {
        return Ok(BTreeMap::new());
    };
    let nodes = nodes.as_object().ok_or_else(|| "its victims are no map".to_owned())?;
    let each = nodes.iter().map(|(node, victims)| {
        let uid = |pod: &Value| Some(field(pod, "UID")?.as_str()?.to_owned());
        let pods = field(victims, "Pods").and_then(Value::as_array);
        let uids = pods.into_iter().flatten().map(uid).collect::<Option<Vec<_>>>();
        let uids = uids.ok_or_else(|| format!("a victim on node {node:?} has no UID"))?;
        let breaks = field(victims, "NumPDBViolations").and_then(Value::as_i64);
        Ok((node.clone(), (uids, breaks.unwrap_or(0))))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_named_or_sent_whole() {
        let whole = json!({"items": [{"metadata": {"name": "b"}}]});
        for (answer, names, expected) in [
            (json!({"NodeNames": ["a"]}), true, Ok(&["a"][..])),
            (json!({"nodenames": ["a"]}), true, Ok(&["a"])),
            (json!({"NodeNames": ["a"], "Nodes": whole}), true, Ok(&["a"])),
            (json!({"NodeNames": ["a"], "Nodes": whole}), false, Ok(&["b"])),
            (json!({"NodeNames": null, "nodes": whole}), true, Ok(&["b"])),
            (json!({"NodeNames": ["a"]}), false, Ok(&[])),
            (json!({}), true, Ok(&[])),
            (json!({"NodeNames": [], "Error": ""}), true, Ok(&[])),
            (json!({"NodeNames": ["a"], "Error": "no"}), true, Err("no")),
            (json!({"NodeNames": 1}), true, Err("its nodes are no list")),
            (
                json!({"Nodes": {"items": [{}]}}),
                true,
                Err("a node of its answer has no name"),
            ),
        ] {
            let found = filtered(&answer, names).map(|found| found.kept);
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(found, expected.map_err(str::to_owned), "{answer}");
        }
    }

    #[test]
    fn priorities_and_victims_are_read() {
        let scored = |answer| priorities(&answer);
        assert_eq!(
            scored(json!([{"Host": "a", "Score": 3}, {"host": "b"}])),
            Ok(vec![("a".into(), 3), ("b".into(), 0)])
        );
        assert_eq!(scored(Value::Null), Ok(Vec::new()));
        assert!(scored(json!({})).is_err() && scored(json!([{"Score": "x"}])).is_err());
        let answer =
            json!({"nodeNameToMetaVictims": {"n": {"Pods": [{"UID": "u"}], "NumPDBViolations": 2}, "m": null}});
        let found = victims(&answer).unwrap();
        assert_eq!(found["n"], (vec!["u".to_owned()], 2));
        assert_eq!(found["m"], (Vec::new(), 0));
        assert_eq!(victims(&json!({})), Ok(BTreeMap::new()));
    }
}
