//! Writes that meet other writes, and who may do what by which verb.
#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use harness::{Api, read};
use http::Request;
use mk8s_apiserver::User;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const CMS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn ask(router: &Router, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request = request.body(Body::from(body.to_string())).unwrap();
    read(router.clone().oneshot(request).await.unwrap()).await
}

/// A router as a user whom a ClusterRole allows some verbs of everything.
async fn as_user(api: &Api, name: &str, verbs: &[&str]) -> Router {
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]});
    assert_eq!(api.post(roles, &role).await.0, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
    let (code, made) = api
        .post(&roles.replace("clusterroles", "clusterrolebindings"), &binding)
        .await;
    assert_eq!(code, 201, "{made}");
    api.server().router_as(User::authenticated(name, []))
}

#[tokio::test]
async fn a_put_that_creates_asks_for_create() {
    let api = Api::open().await;
    let updater = as_user(&api, "updater", &["get", "update"]).await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let (code, refused) = ask(&updater, "PUT", path, &lease).await;
    assert_eq!(code, 403, "{refused}");
    let text = "leases.coordination.k8s.io \"l\" is forbidden: User \"updater\" cannot create resource \"leases\" in API group \
                \"coordination.k8s.io\" in the namespace \"default\"";
    assert_eq!(refused["message"], text);
    assert_eq!(api.get(path).await.0, 404);
    let creator = as_user(&api, "creator", &["get", "update", "create"]).await;
    let (code, made) = ask(&creator, "PUT", path, &lease).await;
    assert_eq!(code, 201, "{made}");
    let (code, changed) = ask(&updater, "PUT", path, &made).await;
    assert_eq!(code, 200, "{changed}");
    // Kinds that a PUT does not create are not found, whoever asks.
    assert_eq!(
        ask(&updater, "PUT", &format!("{CMS}/none"), &config_map("none"))
            .await
            .0,
        404
    );
}

/// Writes an object as fast as it goes until told to stop.
async fn disturb(api: &Api, path: &str, stop: &AtomicBool) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let change = json!({"metadata": {"annotations": {"n": written.to_string()}}});
        let (code, answer) = api.patch(path, MERGE, &change).await;
        if code == 404 {
            break;
        }
        assert_eq!(code, 200, "{answer}");
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_asked_for_no_conflict_gets_none() {
    let api = Api::open().await;
    api.post(CMS, &config_map("busy")).await;
    let path = &format!("{CMS}/busy");
    let writers = (0..24).map(|writer| {
        let api = &api;
        async move {
            for round in 0..4 {
                let change = json!({"data": {format!("{writer}-{round}"): "x"}});
                let (code, answer) = api.patch(path, MERGE, &change).await;
                assert_eq!(code, 200, "{answer}");
            }
        }
    });
    futures::future::join_all(writers).await;
    let (_, last) = api.get(path).await;
    assert_eq!(
        last["data"].as_object().unwrap().len(),
        1 + 24 * 4,
        "each one's change is in"
    );
    // An unconditional PUT and a DELETE among the same writers.
    let stop = AtomicBool::new(false);
    let disturbing = futures::future::join_all((0..8).map(|_| disturb(&api, path, &stop)));
    let asking = async {
        for _ in 0..5 {
            let (code, answer) = api.put(path, &config_map("busy")).await;
            assert_eq!(code, 200, "{answer}");
        }
        let (code, answer) = api.delete(path, None).await;
        assert_eq!(code, 200, "{answer}");
        stop.store(true, Ordering::Relaxed);
    };
    futures::join!(disturbing, asking);
    assert_eq!(api.get(path).await.0, 404);
}

#[tokio::test]
async fn who_names_a_version_is_told_of_the_conflict() {
    let api = Api::open().await;
    let (_, made) = api.post(CMS, &config_map("c")).await;
    let path = format!("{CMS}/c");
    api.patch(&path, MERGE, &json!({"data": {"a": "2"}})).await;
    let stale = made["metadata"]["resourceVersion"].clone();
    assert_eq!(api.put(&path, &made).await.0, 409);
    let change = json!({"metadata": {"resourceVersion": stale}, "data": {"a": "3"}});
    assert_eq!(api.patch(&path, MERGE, &change).await.0, 409);
    let options = json!({"preconditions": {"resourceVersion": stale}});
    assert_eq!(api.delete(&path, Some(&options)).await.0, 409);
    let options = json!({"preconditions": {"uid": "another"}});
    assert_eq!(api.delete(&path, Some(&options)).await.0, 409);
    assert_eq!(api.post(CMS, &config_map("c")).await.0, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_binding_that_is_answered_is_bound() {
    let api = Api::open().await;
    for round in 0..4 {
        let name = format!("p{round}");
        let (code, made) = api.post(PODS, &pod(&name)).await;
        assert_eq!(code, 201, "{made}");
        let path = &format!("{PODS}/{name}");
        let stop = AtomicBool::new(false);
        let disturbing = futures::future::join_all((0..8).map(|_| disturb(&api, path, &stop)));
        let binding = async {
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"kind": "Node", "name": "n1"}});
            let (code, answer) = api.post(&format!("{path}/binding"), &binding).await;
            let (_, bound) = api.get(path).await;
            assert_eq!(
                (code, bound["spec"]["nodeName"].as_str()),
                (201, Some("n1")),
                "{answer}"
            );
            let (code, again) = api.post(&format!("{path}/binding"), &binding).await;
            assert_eq!(
                (code, again["reason"].as_str()),
                (409, Some("Conflict")),
                "bound already"
            );
            stop.store(true, Ordering::Relaxed);
        };
        futures::join!(disturbing, binding);
    }
}

#[tokio::test]
async fn a_bindings_labels_and_annotations_are_checked() {
    let api = Api::open().await;
    api.post(PODS, &pod("p")).await;
    let bind = async |metadata: Value| {
        let mut binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": {"kind": "Node", "name": "n1"}});
        binding["metadata"]["name"] = "p".into();
        api.post(&format!("{PODS}/p/binding"), &binding).await
    };
    for bad in [
        json!({"labels": {"a b": "x"}}),
        json!({"labels": {"a": "no such value!"}}),
        json!({"annotations": {"a b": "x"}}),
        json!({"annotations": {"a": "x".repeat(300_000)}}),
    ] {
        let (code, refused) = bind(bad).await;
        assert_eq!(code, 422, "{refused}");
    }
    let (code, bound) = bind(json!({"labels": {"zone": "a"}, "annotations": {"why": "b"}})).await;
    assert_eq!(code, 201, "{bound}");
    let (_, pod) = api.get(&format!("{PODS}/p")).await;
    assert_eq!(
        (
            &pod["metadata"]["labels"]["zone"],
            &pod["metadata"]["annotations"]["why"]
        ),
        (&json!("a"), &json!("b"))
    );
    let (code, _) = api
        .patch(
            &format!("{PODS}/p/status"),
            MERGE,
            &json!({"status": {"phase": "Running"}}),
        )
        .await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn hooks_of_other_versions_run() {
    let api = Api::open().await;
    let autoscalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let autoscaler = |spec: Value| json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": spec});
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let (code, refused) = api
        .post(
            autoscalers,
            &autoscaler(json!({"scaleTargetRef": target, "maxReplicas": 0})),
        )
        .await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.maxReplicas");
    let (code, made) = api
        .post(
            autoscalers,
            &autoscaler(json!({"scaleTargetRef": target, "maxReplicas": 3})),
        )
        .await;
    assert_eq!((code, made["spec"]["minReplicas"].as_i64()), (201, Some(1)), "{made}");
    // The newer version of Events asks for more than the older one.
    let event = |version: &str, about: &str| {
        json!({"apiVersion": version, "kind": "Event", "metadata": {"name": "e"}, "reason": "r", "type": "Normal",
            about: {"kind": "Pod", "name": "p", "namespace": "default"}})
    };
    let (code, refused) = api
        .post(
            "/apis/events.k8s.io/v1/namespaces/default/events",
            &event("events.k8s.io/v1", "regarding"),
        )
        .await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["field"], "eventTime");
    let (code, made) = api
        .post("/api/v1/namespaces/default/events", &event("v1", "involvedObject"))
        .await;
    assert_eq!(code, 201, "{made}");
}

#[tokio::test]
async fn every_way_in_passes_admission() {
    let api = Api::open().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going"}});
    assert_eq!(api.post("/api/v1/namespaces", &namespace).await.0, 201);
    let within = "/api/v1/namespaces/going";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    assert_eq!(api.post(&format!("{within}/serviceaccounts"), &account).await.0, 201);
    assert_eq!(api.post(&format!("{within}/pods"), &pod("p")).await.0, 201);
    assert_eq!(api.delete("/api/v1/namespaces/going", None).await.0, 200);
    // Nothing new comes into a namespace that goes, by whichever subresource.
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}});
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    for (path, body) in [
        ("pods/p/binding", &binding),
        ("bindings", &binding),
        ("serviceaccounts/default/token", &token),
        ("pods/p/eviction", &eviction),
    ] {
        let (code, refused) = api.post(&format!("{within}/{path}"), body).await;
        assert_eq!(
            (code, refused["reason"].as_str()),
            (403, Some("Forbidden")),
            "{path}: {refused}"
        );
    }
    // A node deletes its own pods alone, also among a collection; and connects to none.
    let node = api.server().router_as(User::authenticated(
        "system:node:n",
        ["system:nodes".into(), "system:masters".into()],
    ));
    let (code, refused) = ask(&node, "DELETE", &format!("{within}/pods"), &Value::Null).await;
    assert_eq!(code, 403, "{refused}");
    let exec = Request::post(format!("{within}/pods/p/exec?command=x"))
        .body(Body::empty())
        .unwrap();
    let (code, refused) = read(node.clone().oneshot(exec).await.unwrap()).await;
    assert_eq!(code, 403, "{refused}");
}

/// A write of a status leaves the spec's text alone, and what is asked of the object by its spec.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, each step on what the last one left")]
async fn statuses_are_written_beside_the_spec() {
    let api = Api::open().await;
    let mut own = pod("p");
    own["spec"]["nodeName"] = "n".into();
    own["metadata"]["finalizers"] = json!(["example.org/x"]);
    let (code, made) = api.post(PODS, &own).await;
    assert_eq!(code, 201, "{made}");
    let path = format!("{PODS}/p");
    let status = format!("{path}/status");
    let running = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}});
    for kind in [MERGE, "application/strategic-merge-patch+json"] {
        let (code, shown) = api.patch(&format!("{status}?dryRun=All"), kind, &running).await;
        assert_eq!(
            (code, &shown["spec"], &shown["status"]["phase"]),
            (200, &made["spec"], &json!("Running"))
        );
    }
    let (code, patched) = api.patch(&status, MERGE, &running).await;
    assert_eq!(
        (code, &patched["spec"], &patched["status"]["phase"]),
        (200, &made["spec"], &json!("Running"))
    );
    assert_eq!(patched["metadata"]["generation"], made["metadata"]["generation"]);
    // Whatever it says of the spec is not looked at.
    let both = json!({"status": {"phase": "Failed"}, "spec": {"nodeName": "elsewhere"}});
    let (code, patched) = api.patch(&status, MERGE, &both).await;
    assert_eq!(
        (code, &patched["spec"]["nodeName"], &patched["status"]["phase"]),
        (200, &json!("n"), &json!("Failed"))
    );
    let mut sent = patched.clone();
    sent["spec"] = json!({});
    sent["status"]["phase"] = "Running".into();
    let (code, put) = api.put(&status, &sent).await;
    assert_eq!(
        (code, &put["spec"], &put["status"]["phase"]),
        (200, &made["spec"], &json!("Running"))
    );
    let tested = json!([{"op": "test", "path": "/spec/nodeName", "value": "n"}, {"op": "add", "path": "/status/reason", "value": "r"}]);
    let (code, put) = api.patch(&status, "application/json-patch+json", &tested).await;
    assert_eq!((code, put["status"]["reason"].as_str()), (200, Some("r")));
    let query = "fieldSelector=spec.nodeName%3Dn,status.phase%3DRunning&labelSelector=a%3Db";
    let (_, list) = api.get(&format!("{PODS}?{query}")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (code, refused) = api
        .patch(&status, MERGE, &json!({"metadata": {"labels": {"a b": "c"}}}))
        .await;
    assert_eq!(code, 422, "{refused}");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "status": {"phase": "Failed"}});
    assert_eq!(api.patch(&status, MERGE, &stale).await.0, 409);
    // Nothing new is no write.
    let (_, before) = api.get(&path).await;
    let (_, same) = api
        .patch(&status, MERGE, &json!({"status": {"phase": "Running"}}))
        .await;
    assert_eq!(same, before);
    // A node writes the statuses of its own pods.
    let node = |name: &str| {
        api.server().router_as(User::authenticated(
            format!("system:node:{name}"),
            ["system:nodes".into()],
        ))
    };
    let phase = |phase: &str| {
        let mut sent = same.clone();
        sent["status"]["phase"] = phase.into();
        mk8s_api::meta::remove(&mut sent, &["metadata", "resourceVersion"]);
        sent
    };
    assert_eq!(ask(&node("n"), "PUT", &status, &phase("Succeeded")).await.0, 200);
    assert_eq!(ask(&node("m"), "PUT", &status, &phase("Failed")).await.0, 403);
    // The last finalizer goes by a status, and the answer is the whole object.
    api.delete(&path, Some(&json!({"gracePeriodSeconds": 0}))).await;
    let (code, last) = api
        .patch(&status, MERGE, &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!((code, &last["spec"]), (200, &made["spec"]), "{last}");
    assert_eq!(api.get(&path).await.0, 404);
}

/// Who writes a status does not say whose the object is, by a partial read or a whole one.
#[tokio::test]
async fn a_status_leaves_the_owners_as_they_are() {
    let api = Api::open().await;
    let owner = |name: &str| json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name}]);
    let mut owned = pod("p");
    owned["metadata"]["ownerReferences"] = owner("own");
    let (code, made) = api.post(PODS, &owned).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(api.post(PODS, &pod("q")).await.0, 201);
    let owners = &made["metadata"]["ownerReferences"];
    let status = format!("{PODS}/p/status");
    for foreign in [owner("foreign"), Value::Null] {
        let change = json!({"metadata": {"ownerReferences": foreign}, "status": {"phase": "Running"}});
        let (code, patched) = api.patch(&status, MERGE, &change).await;
        assert_eq!(
            (code, &patched["metadata"]["ownerReferences"]),
            (200, owners),
            "{patched}"
        );
        let mut sent = patched.clone();
        sent["metadata"]["ownerReferences"] = foreign.clone();
        sent["status"]["reason"] = "r".into();
        let (code, put) = api.put(&status, &sent).await;
        assert_eq!((code, &put["metadata"]["ownerReferences"]), (200, owners), "{put}");
    }
    let added = json!([{"op": "add", "path": "/metadata/ownerReferences", "value": owner("foreign")},
        {"op": "add", "path": "/status/reason", "value": "r"}]);
    let one = format!("{PODS}/q/status");
    let (code, put) = api.patch(&one, "application/json-patch+json", &added).await;
    assert_eq!((code, put["status"]["reason"].as_str()), (200, Some("r")), "{put}");
    assert!(put["metadata"].get("ownerReferences").is_none(), "{put}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_s_status_does_not_end_it() {
    let api = Api::open().await;
    let path = "/api/v1/namespaces/ns";
    let new = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
    assert_eq!(api.post("/api/v1/namespaces", &new).await.0, 201);
    assert_eq!(api.delete(path, None).await.0, 200);
    let (_, mut ending) = api.get(path).await;
    assert_eq!(ending["status"]["phase"], "Terminating", "{ending}");
    let told = json!([{"type": "NamespaceContentRemaining", "status": "True", "reason": "r", "message": "m",
        "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
    let status = format!("{path}/status");
    let change = json!({"status": {"conditions": told}});
    assert_eq!(api.patch(&status, MERGE, &change).await.0, 200);
    ending["status"]["conditions"] = told;
    ending["metadata"]["resourceVersion"] = Value::Null;
    ending["status"]["conditions"][0]["message"] = "n".into();
    assert_eq!(api.put(&status, &ending).await.0, 200);
    let (code, still) = api.get(path).await;
    assert_eq!(
        (code, &still["spec"]["finalizers"]),
        (200, &json!(["kubernetes"])),
        "{still}"
    );
}

/// What goes into Go's types without being text before is told as trees are printed, and of an apply as the server's failure.
#[tokio::test]
async fn what_a_patch_makes_of_a_type_is_told_as_upstream_does() {
    let api = Api::open().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(api.post(path, &deployment).await.0, 201);
    let one = format!("{path}/d?fieldManager=me");
    let patch = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": "one", "paused": false}});
    let (code, refused) = api.patch(&one, "application/strategic-merge-patch+json", &patch).await;
    let told = " \"\" is invalid: patch: Invalid value: \"map[metadata:map[labels:map[x:y]] spec:map[paused:false replicas:one]]\": \
                unrecognized type: int32";
    assert_eq!((code, refused["message"].as_str()), (422, Some(told)));
    deployment["spec"]["replicas"] = json!(1.5);
    let forced = format!("{one}&force=true");
    let (code, refused) = api.patch(&forced, "application/apply-patch+yaml", &deployment).await;
    let told = "failed to convert new object (/d; apps/v1, Kind=Deployment) to proper version: unable to convert unstructured object \
                to apps/v1, Kind=Deployment: cannot convert float64 to int32";
    assert_eq!((code, refused["message"].as_str()), (500, Some(told)));
}

/// However many fields a patched text has that nobody reads, and however long the object is that it takes the kind from.
#[tokio::test]
async fn a_patched_text_that_is_none_of_its_kind_is_told_of_in_short() {
    let api = Api::open().await;
    assert_eq!(api.post(CMS, &config_map("a")).await.0, 201);
    let fields = (0..20_000).map(|n| (format!("{n:04}"), json!(0)));
    let mut patch: serde_json::Map<String, Value> = fields.collect();
    patch.insert("apiVersion".into(), Value::Null);
    let patch = Value::from(patch).to_string();
    let told = async |validation: &str| {
        let one = format!("{CMS}/a?fieldValidation={validation}");
        let response = api.send("PATCH", &one, MERGE, patch.clone()).await;
        let warnings = response.headers().get_all("warning").iter().map(|value| value.len());
        let warnings: usize = warnings.sum();
        let (code, body) = read(response).await;
        (code, warnings + body["message"].as_str().map_or(0, str::len))
    };
    let (code, length) = told("Warn").await;
    assert!(code == 400 && length < patch.len(), "{code}: {length} bytes");
    // What was patched is shown, its quotes with a stroke before each.
    let (code, length) = told("Strict").await;
    assert!(code == 422 && length < 2 * patch.len(), "{code}: {length} bytes");
    let unknown =
        (0..5_000).map(|n| json!({"op": "test", "path": "/kind", "value": "ConfigMap", format!("{n:04}"): 0}));
    let patch = Value::from_iter(unknown).to_string();
    let one = format!("{CMS}/a");
    let response = api.send("PATCH", &one, "application/json-patch+json", patch).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().get_all("warning").iter().count(), 100);
}

/// What was patched is shown once in the message, and not once more by the words for what it lacks.
#[tokio::test]
async fn the_words_for_a_missing_version_are_cut() {
    let api = Api::open().await;
    assert_eq!(api.post(CMS, &config_map("a")).await.0, 201);
    let patch = json!({"apiVersion": "v1/", "data": {"a": "x".repeat(1 << 19)}});
    let (code, refused) = api.patch(&format!("{CMS}/a"), MERGE, &patch).await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("Object 'apiVersion' is missing in '{"),
        "{message:.300}"
    );
    assert!(
        code == 422 && message.len() < patch.to_string().len() * 5 / 4,
        "{code}: {} bytes",
        message.len()
    );
}

/// A refusal tells what was noted before it, however late it comes.
#[tokio::test]
async fn refusals_warn() {
    let api = Api::open().await;
    let odd = |mut object: Value| {
        object["odd"] = 1.into();
        object
    };
    assert_eq!(api.post(CMS, &config_map("a")).await.0, 201);
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "none"}, "spec": {"replicas": 1}});
    let json = "application/json";
    for (method, path, media, body, code) in [
        ("POST", CMS.to_string(), json, config_map("Bad_Name"), 422),
        ("POST", CMS.to_string(), json, config_map("a"), 409),
        ("PUT", format!("{CMS}/none"), json, config_map("none"), 404),
        ("PUT", format!("{CMS}/a"), json, config_map("other"), 400),
        (
            "PATCH",
            format!("{CMS}/a"),
            MERGE,
            json!({"data": {"bad/key": "x"}}),
            422,
        ),
        (
            "PUT",
            "/apis/apps/v1/namespaces/default/deployments/none/scale".into(),
            json,
            scale,
            404,
        ),
    ] {
        let response = api.send(method, &path, media, odd(body).to_string()).await;
        assert_eq!(response.status(), code, "{method} {path}");
        let warnings: Vec<_> = response.headers().get_all("warning").iter().collect();
        assert_eq!(warnings, ["299 - \"unknown field \\\"odd\\\"\""], "{method} {path}");
    }
}

/// Who asks for a name that is on its way out is told so.
#[tokio::test]
async fn a_name_that_is_being_deleted_is_not_free_and_says_why() {
    let api = Api::open().await;
    let mut own = pod("p");
    own["metadata"]["finalizers"] = json!(["example.org/x"]);
    assert_eq!(api.post(PODS, &own).await.0, 201);
    let (code, refused) = api.post(PODS, &own).await;
    assert_eq!((code, &refused["message"]), (409, &json!(r#"pods "p" already exists"#)));
    assert_eq!(api.delete(&format!("{PODS}/p"), None).await.0, 200);
    let (code, refused) = api.post(PODS, &own).await;
    let why = r#"object is being deleted: pods "p" already exists"#;
    assert_eq!((code, &refused["message"]), (409, &json!(why)));
}

/// An item without its key is a mistake like others, not the server's.
#[tokio::test]
async fn an_applied_container_without_a_name_is_refused_by_its_field() {
    let api = Api::open().await;
    let own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"image": "i"}]}});
    let path = format!("{PODS}/p?fieldManager=m");
    let (code, refused) = api.patch(&path, "application/apply-patch+yaml", &own).await;
    assert_eq!(code, 422, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("spec.containers[0].name: Required value"), "{message}");
}

/// Events past their time go many at once: each alone would cost the disk a sync.
#[tokio::test]
async fn events_past_their_time_go_in_batches() {
    const MANY: u64 = 600;
    let api = Api::open().await;
    let events = "/api/v1/namespaces/default/events";
    let made = (0..MANY).map(|index| {
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("e{index}")},
            "involvedObject": {"namespace": "default"}, "lastTimestamp": "2020-01-01T00:00:00Z"});
        let api = &api;
        async move { assert_eq!(api.post(events, &event).await.0, 201) }
    });
    futures::future::join_all(made).await;
    let (_, list) = api.get(events).await;
    let revision = |list: &Value| {
        list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(
        list["items"].as_array().unwrap().len() as u64,
        MANY,
        "new ones live an hour from when they are written"
    );
    let api = api.reopen().await;
    let gone = async {
        loop {
            let (_, now) = api.get(events).await;
            if now["items"].as_array().unwrap().is_empty() {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let now = tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    let transactions = revision(&now) - revision(&list);
    assert!(transactions < MANY / 10, "{transactions} transactions");
}

/// As a file of another version of the same kind does with `kubectl patch --patch-file`: upstream reads what it says that it is.
#[tokio::test]
async fn a_patched_text_may_be_in_another_version_of_its_kind() {
    let api = Api::open().await;
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    assert_eq!(api.post(autoscalers, &autoscaler).await.0, 201);
    let path = format!("{autoscalers}/a");
    let merge = "application/merge-patch+json";
    let change = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "spec": {"maxReplicas": 7, "targetCPUUtilizationPercentage": 33}});
    let (code, patched) = api.patch(&path, merge, &change).await;
    assert_eq!(
        (code, &patched["apiVersion"]),
        (200, &json!("autoscaling/v2")),
        "{patched}"
    );
    assert_eq!(patched["spec"]["maxReplicas"], 7);
    assert_eq!(
        patched["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        33
    );
    // What names no kind is of the one that is asked for.
    let change = json!({"apiVersion": "autoscaling/v1", "kind": null, "spec": {"maxReplicas": 8}});
    assert_eq!(api.patch(&path, merge, &change).await.0, 200);
    let (_, read) = api.get(&path).await;
    let named = json!({"apiVersion": read["apiVersion"], "kind": read["kind"], "spec": read["spec"]["maxReplicas"]});
    assert_eq!(
        named,
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": 8})
    );
    // Of another kind it is none.
    let change = json!({"apiVersion": "autoscaling/v1", "kind": "Scale"});
    assert_eq!(api.patch(&path, merge, &change).await.0, 422);
    let change = json!({"apiVersion": "apps/v1"});
    assert_eq!(api.patch(&path, merge, &change).await.0, 422);
}
