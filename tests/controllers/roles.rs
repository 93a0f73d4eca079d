//! ClusterRoles made of others.

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, holds};

#[tokio::test(flavor = "multi_thread")]
async fn a_labelled_role_joins_view_edit_and_admin_and_leaves_them() {
    let cluster = Cluster::start().await;
    let roles: Api<ClusterRole> = Api::all(cluster.admin.clone());
    let read = |name: &'static str| {
        let roles = roles.clone();
        async move { roles.get(name).await.unwrap() }
    };
    let before = [read("view").await, read("edit").await, read("admin").await];
    let watches = json!({"apiGroups": ["example.com"], "resources": ["cars"], "verbs": ["get"]});
    let part: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": "cars-view", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [watches],
    }))
    .unwrap();
    roles.create(&PostParams::default(), &part).await.unwrap();
    let cars = |role: &ClusterRole| {
        let rules = role.rules.iter().flatten();
        rules
            .filter(|rule| rule.resources.iter().flatten().any(|of| of == "cars"))
            .map(|rule| rule.verbs.clone())
            .collect::<Vec<_>>()
    };
    for name in ["view", "edit", "admin"] {
        cluster
            .until("the rule is a part of it", || async {
                let found = cars(&read(name).await);
                holds(found == [["get"]], (name, found))
            })
            .await;
    }
    let managers = read("view").await.metadata.managed_fields.unwrap();
    let owner = managers
        .iter()
        .find(|m| m.manager.as_deref() == Some("clusterrole-aggregation-controller"));
    assert_eq!(owner.and_then(|m| m.operation.as_deref()), Some("Apply"));

    let more = json!({"rules": [{"apiGroups": ["example.com"], "resources": ["cars"], "verbs": ["get", "list"]}]});
    let how = PatchParams::default();
    roles.patch("cars-view", &how, &Patch::Merge(more)).await.unwrap();
    cluster
        .until("a rule that changes, changes there", || async {
            let found = cars(&read("admin").await);
            holds(found == [["get", "list"]], found)
        })
        .await;
    roles.delete("cars-view", &DeleteParams::default()).await.unwrap();
    // What init wrote is, to the order of rules, what the controller makes: at rest it writes nothing.
    for was in before {
        cluster
            .until("each is as it began", || async {
                let now = roles.get(was.metadata.name.as_deref().unwrap()).await.unwrap();
                holds(now.rules == was.rules, now.rules)
            })
            .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_ones_own_aggregates_and_at_rest_nothing_is_written() {
    let cluster = Cluster::start().await;
    let roles: Api<ClusterRole> = Api::all(cluster.admin.clone());
    let role = |value| serde_json::from_value::<ClusterRole>(value).unwrap();
    let whole = role(json!({
        "metadata": {"name": "monitoring"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"monitoring": "yes"}}]},
    }));
    roles.create(&PostParams::default(), &whole).await.unwrap();
    let part = role(json!({
        "metadata": {"name": "monitoring-pods", "labels": {"monitoring": "yes"}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }));
    roles.create(&PostParams::default(), &part).await.unwrap();
    cluster
        .until("the whole has its part", || async {
            let found = roles.get("monitoring").await.unwrap().rules;
            holds(found == part.rules, found)
        })
        .await;
    // What a cluster begins with is what the controller makes of it: nothing was to be written.
    let view = roles.get("view").await.unwrap().metadata;
    assert_eq!(view.managed_fields.iter().flatten().count(), 1, "{view:?}");
    let unlabelled = json!({"metadata": {"labels": {"monitoring": null}}});
    let (how, unlabelled) = (PatchParams::default(), Patch::Merge(unlabelled));
    roles.patch("monitoring-pods", &how, &unlabelled).await.unwrap();
    cluster
        .until("a part without the label is none", || async {
            let found = roles.get("monitoring").await.unwrap();
            holds(found.rules.as_ref().is_none_or(Vec::is_empty), found)
        })
        .await;
    cluster.stop().await;
}
