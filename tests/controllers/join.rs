//! What a joining node asks of the controllers: certificates, and a cluster-info that it can trust.

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, holds};

#[tokio::test(flavor = "multi_thread")]
async fn joining_node_gets_its_certificates_and_trusts_cluster_info() {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use k8s_openapi::api::core::v1::Secret;
    use mk8s_pki::bootstrap::Token;
    use mk8s_pki::{issue, jws};

    let cluster = Cluster::start().await;
    let token = Token::generate();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
    let secret: Secret = serde_json::from_value(token.to_secret(Some(soon), "", &[], &[])).unwrap();
    let secrets = cluster.api::<Secret>("kube-system");
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let maps = cluster.api::<ConfigMap>("kube-public");
    cluster
        .until("cluster-info is signed by the token", || async {
            let data = maps.get("cluster-info").await.unwrap().data.unwrap_or_default();
            let signature = data.get(&format!("jws-kubeconfig-{}", token.id));
            let good = signature.is_some_and(|s| jws::verify(&data["kubeconfig"], s, &token));
            holds(good, data.keys().collect::<Vec<_>>())
        })
        .await;

    let requests = |client: kube::Client| Api::<CertificateSigningRequest>::all(client);
    let ask = |name: &str, signer: &str, usage: &str, names: &[&str]| -> CertificateSigningRequest {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let (_, pem) = issue::request("system:node:n9", Some("system:nodes"), &names).unwrap();
        let request = k8s_openapi::ByteString(pem.into_bytes());
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
            "request": request, "signerName": signer, "usages": ["digital signature", usage]}}))
        .unwrap()
    };
    let issued = |name: &'static str| {
        let api = requests(cluster.admin.clone());
        move || {
            let api = api.clone();
            async move {
                let status = api.get(name).await.unwrap().status.unwrap_or_default();
                let pem = status
                    .certificate
                    .clone()
                    .map(|c| String::from_utf8(c.0).unwrap())
                    .unwrap_or_default();
                holds(pem.starts_with("-----BEGIN CERTIFICATE-----"), status)
            }
        }
    };
    let group = mk8s_pki::bootstrap::NODE_GROUP.to_owned();
    let joiner = cluster.client(
        &format!("system:bootstrap:{}", token.id),
        &["system:bootstrappers", &group],
    );
    let client = ask(
        "client",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
        &[],
    );
    requests(joiner).create(&PostParams::default(), &client).await.unwrap();
    cluster
        .until("the token's holder gets a node's client certificate", issued("client"))
        .await;

    let node = cluster.client("system:node:n9", &["system:nodes"]);
    let serving = ask(
        "serving",
        "kubernetes.io/kubelet-serving",
        "server auth",
        &["n9", "10.0.0.9"],
    );
    requests(node.clone())
        .create(&PostParams::default(), &serving)
        .await
        .unwrap();
    let foreign = ask(
        "foreign",
        "kubernetes.io/kubelet-serving",
        "server auth",
        &["n9", "10.0.0.10"],
    );
    requests(node.clone())
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    cluster.node("n9").await;
    cluster
        .until(
            "the node gets a serving certificate when its addresses are known",
            issued("serving"),
        )
        .await;
    let renewal = ask(
        "renewal",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
        &[],
    );
    requests(node).create(&PostParams::default(), &renewal).await.unwrap();
    cluster
        .until("the node renews its own client certificate", issued("renewal"))
        .await;
    let left = requests(cluster.admin.clone())
        .get("foreign")
        .await
        .unwrap()
        .status
        .unwrap_or_default();
    assert!(
        left.conditions.is_none() && left.certificate.is_none(),
        "an address that is not the node's own is left to a person"
    );
    let events = cluster.api::<Event>("default");
    cluster
        .until("why is told of the node", || async {
            let told = events.list(&ListParams::default()).await.unwrap().items;
            let told: Vec<_> = told
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some("n9"))
                .filter(|event| event.reason.as_deref() == Some("CertificateNotApproved"))
                .filter_map(|event| event.message)
                .collect();
            let refused =
                "No certificate of kubernetes.io/kubelet-serving is approved: 10.0.0.10 is no address of the node";
            holds(told == [refused], told)
        })
        .await;

    cluster
        .until("the token goes when it expires, and its signature with it", || async {
            let secret = secrets.get_opt(&token.secret_name()).await.unwrap();
            let data = maps.get("cluster-info").await.unwrap().data.unwrap_or_default();
            let signed = data.contains_key(&format!("jws-kubeconfig-{}", token.id));
            holds(secret.is_none() && !signed, (secret.is_some(), signed))
        })
        .await;
    cluster.stop().await;
}
