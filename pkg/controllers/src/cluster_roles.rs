//! ClusterRoles that are made of others: one with an `aggregationRule` has the rules of all that its selectors find
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles>).
//!
//! Watches ClusterRoles; writes `rules` of those that aggregate, by server-side apply, and nothing else. A role is looked at when it
//! changes itself, and when one comes, changes or goes that it selects: what selects it is found before and after the change.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::core::{Request, Selector, SelectorExt};
use mk8s_client::{Event, Index, Informer, Partial};
use serde_json::{Value, json};

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const GROUP: &str = "rbac.authorization.k8s.io";
const PATH: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
/// Whose the fields are: upstream's name, so that a cluster that moves here has one owner of them.
const MANAGER: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 1;

struct Controller {
    ctx: Context,
    roles: Informer<Partial>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let roles = Partial::informer(&ctx.informers, GROUP, "ClusterRole", "clusterroles");
    let aggregating = roles.index("aggregating", |role| match role.aggregation_rule {
        Some(_) => vec![String::new()],
        None => Vec::new(),
    });
    let mut driver = Driver::new("cluster-role-aggregator", &ctx.scope);
    driver.watch(&roles, move |event| concerned(event, &aggregating));
    driver.run(WORKERS, Controller { ctx, roles }).await
}

/// The roles that a change may change.
fn concerned(event: &Event<Partial>, aggregating: &Index<Partial>) -> Vec<Key> {
    let (before, now) = match event {
        Event::Applied { old, new } => (old.as_ref(), Some(new)),
        Event::Deleted(old) => (Some(old), None),
    };
    let same =
        |old: &Arc<Partial>, new: &Arc<Partial>| meta::labels(&**old) == meta::labels(&**new) && old.rules == new.rules;
    let mut keys: Vec<Key> = Vec::new();
    if let Some(new) = now.filter(|new| new.aggregation_rule.is_some()) {
        keys.push(Key::of(&**new));
    }
    if before.zip(now).is_some_and(|(old, new)| same(old, new)) {
        return keys;
    }
    let changed: Vec<_> = before.into_iter().chain(now).collect();
    for role in aggregating.get("") {
        // One with a selector that can't be read is told of when it is looked at.
        let selectors = selectors(&role).unwrap_or_default();
        if changed.iter().any(|changed| selected(&selectors, changed)) {
            keys.push(Key::of(&*role));
        }
    }
    keys
}

fn selectors(role: &Partial) -> Result<Vec<Selector>, Error> {
    let rule = role.aggregation_rule.as_ref();
    let texts = rule.and_then(|rule| rule["clusterRoleSelectors"].as_array());
    let selector = |text: &Value| {
        let selector: LabelSelector =
            serde_json::from_value(text.clone()).map_err(|e| Error::Invalid(format!("invalid label selector: {e}")))?;
        meta::selector(&selector)
    };
    texts.into_iter().flatten().map(selector).collect()
}

fn selected(selectors: &[Selector], role: &Partial) -> bool {
    selectors.iter().any(|selector| selector.matches(meta::labels(role)))
}

/// What the role's rules are to be: those of the roles that each selector finds, by name; each rule once.
fn aggregated(own: &str, selectors: &[Selector], all: &[Arc<Partial>]) -> Vec<Value> {
    let mut all: Vec<_> = all.iter().filter(|role| meta::name(&***role) != own).collect();
    all.sort_by(|a, b| meta::name(&***a).cmp(meta::name(&***b)));
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        for role in all.iter().filter(|role| selector.matches(meta::labels(&****role))) {
            for rule in rules_of(role) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

fn rules_of(role: &Partial) -> &[Value] {
    role.rules.as_deref().unwrap_or_default()
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let role = self.roles.get(None, &key.name);
        let Some(role) = role.filter(|role| role.aggregation_rule.is_some()) else {
            return Ok(Next::Done);
        };
        let selectors = selectors(&role)?;
        let parts = self.roles.filter(|part| selected(&selectors, part));
        let wanted = aggregated(&key.name, &selectors, &parts);
        if wanted == rules_of(&role) {
            return Ok(Next::Done);
        }
        let what = || format!("write the rules of ClusterRole {key}");
        let mut applied = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
            "metadata": {"name": key.name, "uid": meta::uid(&*role)},
        });
        // An empty list is not written: what was applied before goes when it is not applied again.
        if !wanted.is_empty() {
            applied["rules"] = wanted.into();
        }
        let how = PatchParams::apply(MANAGER).force();
        let asked = Request::new(PATH).patch(&key.name, &how, &Patch::Apply(applied));
        let asked = asked.map_err(|error| Error::Invalid(format!("{}: {error}", what())))?;
        match self.ctx.client.request::<Value>(asked).await.tried_if_exists(what) {
            // Another role of that name by now: its own event brings it here.
            Err(error) if error.is_conflict() => Ok(Next::Done),
            done => done.map(|_| Next::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn role(name: &str, label: &str, verbs: &[&str]) -> Arc<Partial> {
        let rules: Vec<Value> = verbs.iter().map(|verb| json!({"verbs": [verb]})).collect();
        let role = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        Arc::new(serde_json::from_value(role).unwrap())
    }

    #[test]
    fn rules_come_by_selector_then_by_name_and_once() {
        let all = [
            role("b", "x", &["watch", "get"]),
            role("a", "x", &["get", "list"]),
            role("c", "y", &["list", "delete"]),
            role("whole", "x", &["escalate"]),
            role("d", "z", &["bind"]),
        ];
        let selector = |label: &str| json!({"matchLabels": {label: "true"}});
        for (labels, expected) in [
            (vec!["x"], vec!["get", "list", "watch"]),
            (vec!["y", "x"], vec!["list", "delete", "get", "watch"]),
            (vec!["none"], vec![]),
            (vec![], vec![]),
        ] {
            let wanted: Vec<Value> = labels.iter().map(|label| selector(label)).collect();
            let whole = json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": wanted}});
            let whole: Partial = serde_json::from_value(whole).unwrap();
            let rules = aggregated("whole", &selectors(&whole).unwrap(), &all);
            let verbs: Vec<&str> = rules.iter().map(|rule| rule["verbs"][0].as_str().unwrap()).collect();
            assert_eq!(verbs, expected, "{labels:?}");
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_told_of() {
        let expression = json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": []}]});
        let role = json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": [expression]}});
        let role: Partial = serde_json::from_value(role).unwrap();
        assert!(selectors(&role).is_err());
    }
}
