//! Tokens of service accounts that are kept in Secrets.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use mk8s_controllers::context::Settings;
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

fn secret(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    })
}

async fn token(cluster: &Cluster, name: &str) -> String {
    let secrets = cluster.api::<Secret>("default");
    let read = || async { secrets.get(name).await.unwrap().data.unwrap_or_default() };
    cluster
        .until("the Secret has its token", || async {
            let keys: Vec<_> = read().await.into_keys().collect();
            holds(keys == ["ca.crt", "namespace", "token"], keys)
        })
        .await;
    let data = read().await;
    assert_eq!(data["namespace"].0, b"default");
    assert!(data["ca.crt"].0.starts_with(b"-----BEGIN CERTIFICATE"));
    String::from_utf8(data["token"].0.clone()).unwrap()
}

/// Whom the API server takes the token's bearer for.
async fn reviewed(cluster: &Cluster, token: &str) -> Option<String> {
    let review: TokenReview = serde_json::from_value(json!({"metadata": {}, "spec": {"token": token}})).unwrap();
    let reviews: Api<TokenReview> = Api::all(cluster.admin.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status?.user?.username
}

/// Waits for the day of its use on the Secret: the API server answers first, and notes it then.
async fn use_noted(cluster: &Cluster, name: &str) {
    let secrets = cluster.api::<Secret>("default");
    cluster
        .until("the day of its use is on the Secret", || async {
            let labels = secrets.get(name).await.unwrap().metadata.labels;
            let today = jiff::Timestamp::now().to_string()[..10].to_owned();
            holds(
                labels.as_ref().and_then(|l| l.get(LAST_USED)) == Some(&today),
                (labels, today),
            )
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_gets_a_token_that_works_until_secret_or_account_goes() {
    let cluster = Cluster::start().await;
    let robot = "system:serviceaccount:default:robot";
    let account = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "first"}]});
    cluster.create::<ServiceAccount>("default", account.clone()).await;
    for name in ["first", "second"] {
        cluster.create::<Secret>("default", secret(name)).await;
    }
    let (first, second) = (token(&cluster, "first").await, token(&cluster, "second").await);
    assert_ne!(first, second);
    for token in [&first, &second] {
        assert_eq!(reviewed(&cluster, token).await.as_deref(), Some(robot));
    }
    let (secrets, accounts) = (
        cluster.api::<Secret>("default"),
        cluster.api::<ServiceAccount>("default"),
    );
    use_noted(&cluster, "first").await;
    secrets.delete("first", &DeleteParams::default()).await.unwrap();
    assert_eq!(reviewed(&cluster, &first).await, None);
    cluster
        .until("the account lists it no more", || async {
            let listed = accounts.get("robot").await.unwrap().secrets.unwrap_or_default();
            holds(listed.is_empty(), listed)
        })
        .await;
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    assert_eq!(reviewed(&cluster, &second).await, None);
    cluster
        .until("the other goes with its account", || async {
            let left = secrets.get_opt("second").await.unwrap();
            holds(left.is_none(), left.map(|secret| secret.metadata))
        })
        .await;
    // One of an account that never was goes too.
    cluster.create::<Secret>("default", secret("third")).await;
    cluster
        .until("a Secret of nobody goes", || async {
            let left = secrets.get_opt("third").await.unwrap();
            holds(left.is_none(), left.map(|secret| secret.metadata))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_uses_becomes_invalid_and_goes() {
    let settings = Settings {
        unused_token_period: Duration::from_secs(1),
        ..Settings::default()
    };
    let cluster = Cluster::start_with(settings).await;
    let long_ago = json!({"data": {"since": "2020-01-01"}});
    let tracking = cluster.api::<ConfigMap>("kube-system");
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    let how = PatchParams::default();
    tracking.patch(name, &how, &Patch::Merge(long_ago)).await.unwrap();
    let account = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "made"}, {"name": "mounted"}]});
    cluster.create::<ServiceAccount>("default", account).await;
    cluster.takes_pods("default").await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "busybox"}],
        "volumes": [{"name": "s", "secret": {"secretName": "mounted"}}]}});
    cluster.create::<Pod>("default", pod).await;
    for name in ["made", "mounted", "by-hand"] {
        cluster.create::<Secret>("default", secret(name)).await;
    }
    let made = token(&cluster, "made").await;
    let secrets = cluster.api::<Secret>("default");
    let label = |name: &'static str| {
        let secrets = secrets.clone();
        async move {
            let labels = secrets.get(name).await.unwrap().metadata.labels.unwrap_or_default();
            labels.get(INVALID_SINCE).cloned()
        }
    };
    cluster
        .until("it is marked", || async {
            let found = label("made").await;
            holds(found.is_some(), found)
        })
        .await;
    assert_eq!(reviewed(&cluster, &made).await, None);
    use_noted(&cluster, "made").await;
    let earlier = json!({"metadata": {"labels": {INVALID_SINCE: "2020-01-01", LAST_USED: null}}});
    secrets.patch("made", &how, &Patch::Merge(earlier)).await.unwrap();
    cluster
        .until("it goes", || async {
            let left = secrets.get_opt("made").await.unwrap();
            holds(left.is_none(), left.map(|secret| secret.metadata))
        })
        .await;
    assert_eq!(label("mounted").await, None, "a pod has it");
    assert_eq!(label("by-hand").await, None, "a person made it");
    cluster.stop().await;
}
