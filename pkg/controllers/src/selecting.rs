//! Who selects an object by its labels. Owners are found under one label that all they select have, so that an object asks for those
//! of its own labels alone: of a namespace there may be thousands, and all that happens to its pods asks.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use mk8s_client::{Index, Informer, Kind};

use crate::meta;

/// Owners of one kind.
pub struct Selecting<O> {
    index: Index<O>,
    selector: fn(&O) -> Option<LabelSelector>,
}

impl<O> Clone for Selecting<O> {
    fn clone(&self) -> Self {
        Selecting {
            index: self.index.clone(),
            selector: self.selector,
        }
    }
}

impl<O: Kind> Selecting<O> {
    /// All of an informer's; one without a selector selects nothing. An informer's owners have one selector each.
    pub fn of(owners: &Informer<O>, selector: fn(&O) -> Option<LabelSelector>) -> Self {
        let index = owners.index("selector", move |owner| {
            let Some(selector) = selector(owner) else {
                return Vec::new();
            };
            let labels = selector.match_labels.iter().flatten();
            vec![key(meta::namespace(owner), labels.into_iter().next())]
        });
        Selecting { index, selector }
    }

    /// Those in the object's namespace whose selector its labels satisfy, each with that.
    pub fn who(&self, object: &impl kube::Resource) -> impl Iterator<Item = (Arc<O>, Selector)> {
        let (namespace, labels) = (meta::namespace(object), meta::labels(object));
        let keys = labels.iter().map(Some).chain([None]).map(|label| key(namespace, label));
        let candidates = keys.flat_map(|key| self.index.get(&key));
        candidates.filter_map(|owner| {
            let selector = meta::selector(&(self.selector)(&owner)?).ok()?;
            selector.matches(labels).then_some((owner, selector))
        })
    }
}

/// Under what owners are found whose selectors ask for a label; those that ask for none, but by expressions, under their namespace.
fn key(namespace: &str, label: Option<(&String, &String)>) -> String {
    match label {
        Some((name, value)) => [namespace, "/", name, "=", value].concat(),
        None => namespace.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use mk8s_supervisor::Supervisor;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::told::Tell;

    #[tokio::test]
    async fn owners_are_found_by_a_label_or_an_expression_in_their_namespace() {
        let (mut tell, informers) = Tell::new(&Supervisor::new(CancellationToken::new()));
        for (namespace, name, selector) in [
            ("d", "both", json!({"matchLabels": {"app": "web", "tier": "front"}})),
            ("d", "label", json!({"matchLabels": {"app": "web"}})),
            (
                "d",
                "expression",
                json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
            ),
            ("d", "other", json!({"matchLabels": {"app": "db"}})),
            (
                "d",
                "broken",
                json!({"matchExpressions": [{"key": "app", "operator": "Is"}]}),
            ),
            ("e", "elsewhere", json!({"matchLabels": {"app": "web"}})),
        ] {
            tell.set(&json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"selector": selector}}));
        }
        tell.all_told();
        let sets = informers.of::<ReplicaSet>();
        sets.wait_synced().await;
        let selecting = Selecting::of(&sets, |set| set.spec.as_ref().map(|spec| spec.selector.clone()));
        for (labels, expected) in [
            (json!({"app": "web"}), vec!["expression", "label"]),
            (
                json!({"app": "web", "tier": "front"}),
                vec!["both", "expression", "label"],
            ),
            (json!({"app": "mail"}), vec!["expression"]),
            (json!({"tier": "front"}), vec![]),
            (json!({}), vec![]),
        ] {
            let pod = json!({"metadata": {"namespace": "d", "name": "p", "labels": labels}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let mut found: Vec<_> = selecting
                .who(&pod)
                .map(|(owner, _)| meta::name(&*owner).to_owned())
                .collect();
            found.sort();
            assert_eq!(found, expected, "{labels}");
        }
    }
}
