//! Who may do what, through the whole pipeline: tokens, nodes, reviews, admission's words and warnings.
#![allow(clippy::unwrap_used)]

mod harness;

use axum::Router;
use axum::body::Body;
use harness::{Api, read};
use http::Request;
use mk8s_apiserver::User;
use serde_json::{Value, json};
use tower::ServiceExt as _;

async fn ask(router: &Router, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> (u16, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    read(router.clone().oneshot(request.body(body).unwrap()).await.unwrap()).await
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn a_token_opens_what_its_account_is_granted_and_dies_with_its_pod() {
    let api = Api::open().await;
    let router = api.server().router();
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(ask(&router, "GET", pods, None, None).await.0, 401);
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    assert_eq!(ask(&router, "GET", info, None, None).await.0, 200);

    let (code, made) = api.post(pods, &pod("web", json!({}))).await;
    assert_eq!(code, 201, "{made}");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web"}}});
    let (code, issued) = api
        .post("/api/v1/namespaces/default/serviceaccounts/default/token", &request)
        .await;
    assert_eq!(code, 201, "{issued}");
    let token = issued["status"]["token"].as_str().unwrap();
    let (code, refused) = ask(&router, "GET", pods, Some(token), None).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "view"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(api.post(bindings, &binding).await.0, 201);
    assert_eq!(
        ask(&router, "GET", pods, Some(token), None).await.0,
        200,
        "granted at once"
    );
    assert_eq!(
        ask(&router, "POST", pods, Some(token), Some(&pod("x", json!({}))))
            .await
            .0,
        403
    );
    let escalating = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "all"}});
    assert_eq!(
        ask(&router, "POST", bindings, Some(token), Some(&escalating)).await.0,
        403
    );

    let (code, _) = api
        .delete(&format!("{pods}/web"), Some(&json!({"gracePeriodSeconds": 0})))
        .await;
    assert_eq!(code, 200);
    assert_eq!(
        ask(&router, "GET", pods, Some(token), None).await.0,
        401,
        "its pod is gone"
    );
}

#[tokio::test]
async fn a_node_sees_and_writes_its_own_alone() {
    let api = Api::open().await;
    let node = |name: &str| {
        api.server().router_as(User::authenticated(
            format!("system:node:{name}"),
            ["system:nodes".to_string()],
        ))
    };
    let (one, two) = (node("one"), node("two"));
    let own =
        |labels: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one", "labels": labels}});
    let steering = own(json!({"node-role.kubernetes.io/control-plane": ""}));
    assert_eq!(ask(&one, "POST", "/api/v1/nodes", None, Some(&steering)).await.0, 403);
    let (code, made) = ask(
        &one,
        "POST",
        "/api/v1/nodes",
        None,
        Some(&own(json!({"kubernetes.io/hostname": "one"}))),
    )
    .await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    assert_eq!(
        ask(&two, "POST", "/api/v1/nodes", None, Some(&own(json!({})))).await.0,
        403
    );

    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["mine", "other"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        assert_eq!(api.post(secrets, &secret).await.0, 201);
    }
    let spec = json!({"nodeName": "one", "volumes": [{"name": "v", "secret": {"secretName": "mine"}}]});
    let (code, made) = api.post("/api/v1/namespaces/default/pods", &pod("web", spec)).await;
    assert_eq!(code, 201, "{made}");
    let code = async |router: &Router, path: &str| ask(router, "GET", path, None, None).await.0;
    assert_eq!(code(&one, &format!("{secrets}/mine")).await, 200);
    assert_eq!(code(&one, &format!("{secrets}/other")).await, 403);
    assert_eq!(code(&two, &format!("{secrets}/mine")).await, 403);
    assert_eq!(code(&one, secrets).await, 403);
    assert_eq!(code(&one, "/api/v1/pods?fieldSelector=spec.nodeName%3Done").await, 200);
    assert_eq!(code(&one, "/api/v1/pods").await, 403);
    assert_eq!(
        code(&one, "/apis/discovery.k8s.io/v1/endpointslices").await,
        200,
        "its proxy"
    );
    let status = json!({"status": {"phase": "Running"}});
    let path = "/api/v1/namespaces/default/pods/web/status";
    for (router, wanted) in [(&two, 403), (&one, 200)] {
        let request = Request::patch(path).header("content-type", "application/merge-patch+json");
        let request = request.body(Body::from(status.to_string())).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status(), wanted);
    }
}

#[tokio::test]
async fn a_node_says_nothing_of_its_taints_with_its_status() {
    let api = Api::open().await;
    let user = User::authenticated("system:node:one", ["system:nodes".to_string()]);
    let one = api.server().router_as(user);
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}});
    let (code, made) = ask(&one, "POST", "/api/v1/nodes", None, Some(&own)).await;
    assert_eq!(code, 201, "{made}");
    let status = "/api/v1/nodes/one/status";
    let mut next = made.clone();
    next["status"]["nodeInfo"]["kernelVersion"] = "6".into();
    let (code, put) = ask(&one, "PUT", status, None, Some(&next)).await;
    assert_eq!(
        (code, &put["status"]["nodeInfo"]["kernelVersion"]),
        (200, &json!("6")),
        "{put}"
    );
    next["metadata"]["resourceVersion"] = "".into();
    next["spec"]["taints"] = json!([]);
    let untainted = "nodes \"one\" is forbidden: node \"one\" is not allowed to modify taints";
    for (method, content_type) in [("PUT", "application/json"), ("PATCH", "application/merge-patch+json")] {
        let request = Request::builder()
            .method(method)
            .uri(status)
            .header("content-type", content_type);
        let request = request.body(Body::from(next.to_string())).unwrap();
        let (code, refused) = read(one.clone().oneshot(request).await.unwrap()).await;
        assert_eq!((code, refused["message"].as_str()), (403, Some(untainted)), "{method}");
    }
}

#[tokio::test]
async fn pod_security_refuses_and_warns() {
    let api = Api::open().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tight",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}});
    assert_eq!(api.post("/api/v1/namespaces", &namespace).await.0, 201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    assert_eq!(
        api.post("/api/v1/namespaces/tight/serviceaccounts", &account).await.0,
        201
    );
    let pods = "/api/v1/namespaces/tight/pods";
    let (code, refused) = api.post(pods, &pod("bad", json!({"hostNetwork": true}))).await;
    assert_eq!(code, 403);
    let words =
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert!(refused["message"].as_str().unwrap().starts_with(words), "{refused}");
    let body = pod("meek", json!({})).to_string();
    let response = api.send("POST", pods, "application/json", body).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert!(
        warning.contains("would violate PodSecurity \\\"restricted:latest\\\""),
        "{warning}"
    );
}

#[tokio::test]
async fn reviews_and_impersonation() {
    let api = Api::open().await;
    let review = |user: &str, verb: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {"verb": verb, "resource": "endpointslices", "group": "discovery.k8s.io"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for (user, verb, allowed) in [
        ("system:kube-proxy", "list", true),
        ("system:kube-proxy", "delete", false),
        (
            "system:serviceaccount:kube-system:endpointslice-controller",
            "delete",
            true,
        ),
    ] {
        let (code, answer) = api.post(path, &review(user, verb)).await;
        assert_eq!(
            (code, &answer["status"]["allowed"]),
            (201, &json!(allowed)),
            "{user} {verb} {answer}"
        );
    }
    let (code, _) = read(
        api.send_with("GET", "/api/v1/nodes", &[("impersonate-user", "joe")])
            .await,
    )
    .await;
    assert_eq!(code, 403);
    let (code, _) = read(api.send_with("GET", "/api", &[("impersonate-user", "joe")]).await).await;
    assert_eq!(code, 200);
}
