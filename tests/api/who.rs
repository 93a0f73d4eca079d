//! Who may: certificates, service accounts' tokens, nobody; RBAC, impersonation, reviews.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Identity, eventually};

async fn code_of(client: Client) -> u16 {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    match maps.list(&ListParams::default()).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
    }
}

/// A token of the ServiceAccount default.
async fn account_token(cluster: &Cluster) -> String {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.admin.clone());
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 600}})).unwrap();
    let issued = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    issued.status.unwrap().token
}

/// A token whose claims name another account, and one whose signature is another point of the curve; both are whole JWTs, so
/// that nothing but the check of the signature can refuse them.
fn forged(token: &str) -> [String; 2] {
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("{token} is no JWT")
    };
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let other = text.replace(
        "system:serviceaccount:default:default",
        "system:serviceaccount:kube-system:other",
    );
    assert_ne!(text, other);
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[40] ^= 1;
    [
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(other)),
        format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(bytes)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn identities() {
    let cluster = Cluster::start().await;
    let token = account_token(&cluster).await;
    // Well-formed: another account's claims under this signature, and another signature under these claims.
    let [forged_claims, forged_signature] = forged(&token);
    let rows = [
        (Identity::User("someone", "system:masters"), 200),
        (Identity::User("someone", "nobodies"), 403),
        (Identity::Bearer(&token), 403),
        (Identity::Bearer(&forged_claims), 401),
        (Identity::Bearer(&forged_signature), 401),
        (Identity::Bearer("nonsense"), 401),
        (Identity::Nobody, 401),
    ];
    for (index, (identity, code)) in rows.iter().enumerate() {
        assert_eq!(code_of(cluster.client(identity)).await, *code, "row {index}");
    }

    // What a join reads before it is anybody, and the health.
    let nobody = cluster.client(&Identity::Nobody);
    let public: Api<ConfigMap> = Api::namespaced(nobody.clone(), "kube-public");
    assert!(
        public
            .get("cluster-info")
            .await
            .unwrap()
            .data
            .unwrap()
            .contains_key("kubeconfig")
    );
    assert_eq!(
        nobody
            .request_text(http::Request::get("/readyz").body(Vec::new()).unwrap())
            .await
            .unwrap(),
        "ok"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_reviews() {
    let cluster = Cluster::start().await;
    let token = account_token(&cluster).await;
    // A role and its binding are in force at once; another namespace and another verb are not in it.
    let base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    cluster.send("POST", &format!("{base}/roles"), &[], &role).await.json();
    let binding = json!({
        "metadata": {"name": "maps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    });
    cluster
        .send("POST", &format!("{base}/rolebindings"), &[], &binding)
        .await
        .json();
    eventually(|| async { code_of(cluster.client(&Identity::Bearer(&token))).await == 200 }).await;
    let account = cluster.client(&Identity::Bearer(&token));
    let secrets: Api<Secret> = Api::default_namespaced(account.clone());
    assert!(secrets.list(&ListParams::default()).await.is_err());
    let elsewhere: Api<ConfigMap> = Api::namespaced(account, "kube-system");
    assert!(elsewhere.list(&ListParams::default()).await.is_err());

    // kubectl's --as, and what auth can-i asks.
    let path = "/api/v1/namespaces/default/configmaps";
    let headers = [("impersonate-user", "system:serviceaccount:default:default")];
    assert_eq!(cluster.send("GET", path, &headers, &Value::Null).await.code(), 200);
    let (code, reason, message) = cluster.send("DELETE", path, &headers, &Value::Null).await.refusal();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "configmaps is forbidden: User \"system:serviceaccount:default:default\" cannot deletecollection resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    for (verb, allowed) in [("list", true), ("delete", false)] {
        let review =
            json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": verb, "resource": "configmaps"}}});
        let answer = cluster
            .send(
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                &headers,
                &review,
            )
            .await
            .json();
        assert_eq!(answer["status"]["allowed"], allowed);
    }
    let review = json!({"spec": {"token": token}});
    let answer = cluster
        .send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &[], &review)
        .await
        .json();
    assert_eq!(
        answer["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );
}
