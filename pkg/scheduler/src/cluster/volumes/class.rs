//! A StorageClass: who makes its volumes, when, and for which nodes.

use mk8s_api::meta as object;
use mk8s_client::Raw;
use mk8s_client::storage::waits_for_consumer;
use serde_json::Value;

use crate::cluster::Labels;

/// Of a class that makes no volumes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Labels that all have to be there, each with one of its values.
type Term = Box<[(Box<str>, Box<[Box<str>]>)]>;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    pub provisioner: Box<str>,
    /// Its claims are bound when their first pod has its node.
    pub delayed: bool,
    /// The nodes for which volumes can be made; empty: all.
    pub topologies: Box<[Term]>,
}

impl Class {
    pub(super) fn new(class: &Raw) -> Self {
        let topologies = object::items(&class.value, &["allowedTopologies"]).iter();
        Class {
            provisioner: object::string(&class.value, &["provisioner"]).into(),
            delayed: waits_for_consumer(class),
            topologies: topologies.map(term).collect(),
        }
    }

    /// Whether volumes are made at all.
    pub fn provisions(&self) -> bool {
        !self.provisioner.is_empty() && *self.provisioner != *NO_PROVISIONER
    }

    /// Whether volumes are made for a node.
    pub fn allows(&self, labels: &Labels) -> bool {
        let fits = |term: &Term| {
            let has = |key: &str, values: &[Box<str>]| {
                let value = labels.get(key).map(String::as_str);
                value.is_some_and(|value| values.iter().any(|own| **own == *value))
            };
            !term.is_empty() && term.iter().all(|(key, values)| has(key, values))
        };
        self.topologies.is_empty() || self.topologies.iter().any(fits)
    }
}

fn term(term: &Value) -> Term {
    let labels = object::items(term, &["matchLabelExpressions"]).iter();
    let each = labels.map(|label| {
        let values = object::items(label, &["values"]).iter().filter_map(Value::as_str);
        (object::string(label, &["key"]).into(), values.map(Into::into).collect())
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_are_made_where_a_term_holds_as_a_whole() {
        let label = |key: &str, values: &[&str]| json!({"key": key, "values": values});
        let term = |labels: &[Value]| json!({"matchLabelExpressions": labels});
        let node = Labels::from([("zone".to_owned(), "a".to_owned()), ("rack".to_owned(), "1".to_owned())]);
        for (topologies, expected) in [
            (json!([]), true),
            (json!([term(&[label("zone", &["a", "b"])])]), true),
            (json!([term(&[label("zone", &["b"])])]), false),
            (
                json!([term(&[label("zone", &["b"])]), term(&[label("rack", &["1"])])]),
                true,
            ),
            (json!([term(&[label("zone", &["a"]), label("rack", &["2"])])]), false),
            (json!([term(&[label("row", &["a"])])]), false),
            (json!([{}]), false),
        ] {
            let class = json!({"metadata": {}, "provisioner": "p", "allowedTopologies": topologies});
            let class = Class::new(&Raw::new(class).unwrap());
            assert_eq!(class.allows(&node), expected, "{topologies}");
        }
    }
}
