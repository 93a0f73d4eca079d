//! What an account with few rights or none may send, and must not get out of it: the server's end, others' objects.
#![allow(clippy::unwrap_used)]

mod harness;

use axum::body::Body;
use harness::{Api, read};
use http::Request;
use mk8s_api::codec::protobuf;
use mk8s_apiserver::User;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A message's field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_within_objects_end_at_a_depth_and_not_at_the_stacks_end() {
    let api = Api::open().await;
    let router = api.server().router_as(User::authenticated("nobody", []));
    let revision = |raw: &[u8]| protobuf::envelope("apps/v1", "ControllerRevision", &field(2, &field(1, raw)));
    let nested = (0..4_000).fold(revision(b"{}"), |inner, _| revision(&inner));
    let post = |uri: &str, body: Vec<u8>| {
        let request = Request::post(uri).header("content-type", protobuf::MEDIA_TYPE);
        router.clone().oneshot(request.body(Body::from(body)).unwrap())
    };
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    // On a worker of the runtime, whose stack is what a request has.
    let response = tokio::spawn(post(reviews, nested.clone())).await.unwrap().unwrap();
    let (code, status) = read(response).await;
    assert_eq!(code, 400, "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("unknown conversion"), "refused by its kind: {message}");

    // The kind that is expected, with the same inside.
    let admin = api
        .server()
        .router_as(User::authenticated("admin", ["system:masters".into()]));
    let request = Request::post("/apis/apps/v1/namespaces/default/controllerrevisions")
        .header("content-type", protobuf::MEDIA_TYPE)
        .body(Body::from(nested))
        .unwrap();
    let response = tokio::spawn(admin.oneshot(request)).await.unwrap().unwrap();
    let (code, status) = read(response).await;
    assert_eq!(code, 400, "{status}");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("nests deeper than 100 levels")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_patch_has_the_same_depth() {
    let api = Api::open().await;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let text = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{{"name":"a"}},"revision":1,"data":{{"a":{open}{close}}}}}"#
        )
    };
    for kind in ["application/json", "application/yaml"] {
        for levels in [99, 3_000, 200_000] {
            let body = text(levels);
            let (code, status) = read(api.send("POST", revisions, kind, body).await).await;
            assert_eq!(code, 400, "{kind} {levels}: {status}");
        }
    }
    let (code, made) = read(api.send("POST", revisions, "application/json", text(98)).await).await;
    assert_eq!(code, 201, "{made}");
    // Whatever is stored can be read in every form, and written again.
    let one = format!("{revisions}/a");
    for accept in ["application/json", "application/yaml", protobuf::MEDIA_TYPE] {
        assert_eq!(api.accept(&one, accept).await.0, 200, "{accept}");
    }
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(api.patch(&one, "application/merge-patch+json", &label).await.0, 200);

    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bomb"}, "data": {"a": "x"}});
    api.post("/api/v1/namespaces/default/configmaps", &config_map).await;
    let bomb: Vec<Value> = (0..2_000)
        .map(|index| json!({"op": "copy", "from": "/data", "path": format!("/data/{index}")}))
        .collect();
    let (code, status) = api
        .patch(
            "/api/v1/namespaces/default/configmaps/bomb",
            "application/json-patch+json",
            &bomb.into(),
        )
        .await;
    assert_eq!(code, 422, "{status}");
}

/// A router for a user with the given rules in namespace `default`.
async fn granted(api: &Api, user: &str, rules: Value) -> axum::Router {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(api.post(&format!("{RBAC}/roles"), &role).await.0, 201);
    assert_eq!(api.post(&format!("{RBAC}/rolebindings"), &binding).await.0, 201);
    api.server().router_as(User::authenticated(user, []))
}

async fn get(router: &axum::Router, uri: &str) -> http::Response<Body> {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_watch_of_one_name_shows_that_one_alone() {
    let api = Api::open().await;
    let one_secret =
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own"], "verbs": ["watch"]}]);
    let router = granted(&api, "jane", one_secret).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["another", "own", "third"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        assert_eq!(api.post(secrets, &secret).await.0, 201);
    }
    let watched = "/api/v1/watch/namespaces/default/secrets";
    for selector in ["", "&fieldSelector=metadata.name%3Down"] {
        let uri = format!(
            "{watched}/own?allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan{selector}"
        );
        let response = get(&router, &uri).await;
        assert_eq!(response.status(), 200);
        let events = harness::events_until(response.into_body(), |event| event["type"] == "BOOKMARK").await;
        let names: Vec<&Value> = events
            .iter()
            .map(|event| &event["object"]["metadata"]["name"])
            .collect();
        assert_eq!(names, [&json!("own"), &Value::Null], "{selector}");
    }
    for contradiction in [
        "metadata.name%3Danother",
        "metadata.namespace%3Ddefault",
        "metadata.name!%3Down",
    ] {
        let uri = format!("{watched}/own?fieldSelector={contradiction}");
        let (code, status) = read(get(&router, &uri).await).await;
        assert_eq!(code, 400, "{contradiction}");
        assert_eq!(
            status["message"],
            "fieldSelector metadata.name doesn't match requested name"
        );
    }
    assert_eq!(get(&router, watched).await.status(), 403);
    assert_eq!(get(&router, &format!("{watched}/another")).await.status(), 403);
    // A cluster-scoped one whose path looks like a namespace's.
    let namespace = format!("/api/v1/watch/namespaces/default?resourceVersion=0");
    let response = api.watch(&namespace).await;
    let namespaces = "/api/v1/namespaces";
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    assert_eq!(api.post(namespaces, &other).await.0, 201);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = api
        .patch(&format!("{namespaces}/default"), "application/merge-patch+json", &label)
        .await;
    assert_eq!(patched.0, 200);
    let events = harness::events_until(response, |event| event["object"]["metadata"]["labels"]["a"] == "b").await;
    assert!(
        events
            .iter()
            .all(|event| event["object"]["metadata"]["name"] == "default"),
        "{events:#?}"
    );
    // The prefix is for watching.
    let (code, _) = api.post("/api/v1/watch/namespaces/default/secrets", &json!({})).await;
    assert_eq!(code, 405);
}

#[tokio::test]
async fn a_name_beyond_ascii_is_somebody_else() {
    let api = Api::open().await;
    for (header, value) in [
        ("impersonate-user", "josé"),
        ("impersonate-group", "größe"),
        ("impersonate-uid", "ü"),
        ("impersonate-extra-team", "é"),
    ] {
        let admin = api
            .server()
            .router_as(User::authenticated("admin", ["system:masters".into()]));
        let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let send = |value: http::HeaderValue| {
            let request = Request::post(reviews).header("content-type", "application/json");
            let request = request.header("impersonate-user", "joe").header(header, "x");
            let mut request = request
                .body(Body::from(json!({"kind": "SelfSubjectReview"}).to_string()))
                .unwrap();
            request.headers_mut().insert(header, value);
            admin.clone().oneshot(request)
        };
        let (code, review) = read(send(value.parse().unwrap()).await.unwrap()).await;
        assert_eq!(code, 201, "{review}");
        assert!(review["status"]["userInfo"].to_string().contains(value), "{review}");
        let response = send(http::HeaderValue::from_bytes(b"jos\xe9").unwrap()).await.unwrap();
        assert_eq!(read(response).await.0, 400, "{header}");
    }
}
