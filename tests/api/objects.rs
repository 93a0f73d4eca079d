//! Writing: creation, conflicts, dry runs, field validation, patches, deletion with its propagation.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::params::ValidationDirective;
use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> ConfigMap {
    from(json!({"metadata": {"name": name, "labels": {"made": "here"}}, "data": {"a": "1"}}))
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// The code and reason of an error that the server answered.
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_update_delete() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let rehearsal = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    assert!(maps.create(&rehearsal, &map("a")).await.unwrap().metadata.uid.is_some());
    assert!(maps.get_opt("a").await.unwrap().is_none());

    let made = maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let again = maps.create(&PostParams::default(), &map("a")).await;
    assert_eq!(refusal(again), (409, "AlreadyExists".into()));
    let mut changed = made.clone();
    changed.data.as_mut().unwrap().insert("b".into(), "2".into());
    let updated = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(updated.metadata.resource_version, made.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &changed).await;
    assert_eq!(refusal(stale), (409, "Conflict".into()));

    let of_another = DeleteParams::default().preconditions(Preconditions {
        uid: Some("another".into()),
        resource_version: None,
    });
    assert_eq!(refusal(maps.delete("a", &of_another).await).0, 409);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(maps.get("a").await), (404, "NotFound".into()));

    let generated: ConfigMap = from(json!({"metadata": {"generateName": "g-"}}));
    let generated = maps.create(&PostParams::default(), &generated).await.unwrap();
    assert!(generated.metadata.name.as_deref().unwrap().starts_with("g-"));
    let mut held: ConfigMap = map("held");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    let held = maps.create(&PostParams::default(), &held).await.unwrap();
    let ours = ListParams::default().fields("metadata.name!=kube-root-ca.crt");
    let deleted = maps.delete_collection(&DeleteParams::default(), &ours).await.unwrap();
    // Each as it was found, whatever becomes of it.
    let deleted = deleted.left().unwrap().items;
    assert_eq!(deleted, [generated, held]);
    let waits = maps.get("held").await.unwrap();
    assert!(waits.metadata.deletion_timestamp.is_some());
    let released = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(released))
        .await
        .unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    maps.create(&PostParams::default(), &map("p")).await.unwrap();
    let plain = PatchParams::default();
    let merged = maps
        .patch("p", &plain, &Patch::Merge(json!({"data": {"a": null, "b": "2"}})))
        .await;
    assert_eq!(json!(merged.unwrap().data), json!({"b": "2"}));

    // A JSON patch whose test fails changes nothing.
    let one = format!("{MAPS}/p");
    let headers = [("content-type", "application/json-patch+json")];
    let jsoned = |test: &str| json!([{"op": "test", "path": "/data/b", "value": test}, {"op": "add", "path": "/data/c", "value": "3"}]);
    let (code, ..) = cluster.send("PATCH", &one, &headers, &jsoned("0")).await.refusal();
    assert_eq!(code, 422);
    let patched = cluster.send("PATCH", &one, &headers, &jsoned("2")).await.json();
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));

    let applied = maps
        .patch("p", &PatchParams::apply("test"), &Patch::Apply(map("p")))
        .await;
    // Who applies shares what is said already, and takes nothing from others.
    let applied = applied.unwrap();
    assert_eq!(json!(applied.data), json!({"a": "1", "b": "2", "c": "3"}));
    let managers = applied.metadata.managed_fields.unwrap_or_default();
    assert!(managers.iter().any(|entry| entry.manager.as_deref() == Some("test")));

    // A strategic merge goes by the lists' keys: the port is changed, the other stays.
    let services = "/api/v1/namespaces/default/services";
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    cluster.send("POST", services, &[], &service).await.json();
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let patch = json!({"spec": {"ports": [{"port": 2, "name": "c"}]}});
    let patched = cluster
        .send("PATCH", &format!("{services}/s"), &headers, &patch)
        .await
        .json();
    let ports: Vec<_> = patched["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (&port["port"], &port["name"]))
        .collect();
    assert_eq!(json!(ports), json!([[1, "a"], [2, "c"]]));
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn fields_are_validated() {
    let cluster = Cluster::start().await;
    let typo = json!({"metadata": {"name": "f"}, "dat": {"a": "1"}});
    let send = |mode: &'static str| {
        let (cluster, typo) = (&cluster, &typo);
        async move {
            cluster
                .send("POST", &format!("{MAPS}?fieldValidation={mode}"), &[], typo)
                .await
        }
    };
    let (code, _, message) = send("Strict").await.refusal();
    assert_eq!(
        (code, message.contains("unknown field \"dat\"")),
        (400, true),
        "{message}"
    );
    let warned = send("Warn").await;
    assert_eq!(warned.code(), 201);
    assert_eq!(warned.header("warning"), "299 - \"unknown field \\\"dat\\\"\"");
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let strict = PatchParams::default().validation(ValidationDirective::Strict);
    let patched = maps.patch("f", &strict, &Patch::Merge(json!({"dat": {}}))).await;
    assert_eq!(refusal(patched).0, 422);

    // Table: a body, the code, what the message has to say.
    let pod = |spec: Value| json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec});
    let rows = [
        (
            "pods",
            pod(json!({"containers": []})),
            422,
            "spec.containers: Required value",
        ),
        (
            "pods",
            pod(json!({"containers": "x"})),
            400,
            "cannot unmarshal string into Go struct field PodSpec.spec.containers",
        ),
        (
            "pods",
            pod(
                json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "persistentVolumeClaim": {}}]}),
            ),
            422,
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        ),
        (
            "configmaps",
            json!({"metadata": {"name": "Upper"}}),
            422,
            "a lowercase RFC 1123 subdomain",
        ),
        (
            "configmaps",
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}}),
            400,
            "cannot be handled as a ConfigMap",
        ),
        (
            "limitranges",
            json!({"metadata": {"name": "x"}, "spec": {"limits": []}}),
            403,
            "not in this version of mk8s",
        ),
        (
            "nothings",
            json!({"metadata": {"name": "x"}}),
            404,
            "could not find the requested resource",
        ),
    ];
    for (resource, body, code, message) in rows {
        let path = format!("/api/v1/namespaces/default/{resource}");
        let answer = cluster.send("POST", &path, &[], &body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.code(), code, "{body}: {text}");
        assert!(text.contains(message) || code == 404, "{body}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_propagates() {
    let cluster = Cluster::start().await;
    let sets: Api<ReplicaSet> = Api::default_namespaced(cluster.admin.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.admin.clone());
    let rows = [
        (PropagationPolicy::Background, false),
        (PropagationPolicy::Foreground, false),
        (PropagationPolicy::Orphan, true),
    ];
    for (policy, stays) in rows {
        let name = format!("{policy:?}").to_lowercase();
        let set: ReplicaSet = from(json!({
            "metadata": {"name": name},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        }));
        let owner = sets.create(&PostParams::default(), &set).await.unwrap();
        let mut owned = map(&name);
        owned.metadata.owner_references = Some(vec![from(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": owner.metadata.uid, "blockOwnerDeletion": true,
        }))]);
        maps.create(&PostParams::default(), &owned).await.unwrap();
        let params = DeleteParams {
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        sets.delete(&name, &params).await.unwrap();
        eventually(|| async { sets.get_opt(&name).await.unwrap().is_none() }).await;
        if stays {
            let kept = maps.get(&name).await.unwrap();
            assert_eq!(kept.metadata.owner_references.unwrap_or_default().len(), 0);
        } else {
            eventually(|| async { maps.get_opt(&name).await.unwrap().is_none() }).await;
        }
    }
}
