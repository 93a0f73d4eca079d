//! The controllers and the scheduler together, against the API server in this process.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::too_many_lines,
    reason = "a test tells one story from its beginning to its end"
)]

mod cluster;
#[path = "../harness/mod.rs"]
mod harness;
mod lease;
mod start;

use cluster::{Cluster, holds, template, until};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

fn deployment(replicas: i32, version: &str) -> serde_json::Value {
    let mut template = template("web", "run");
    template["metadata"]["labels"]["version"] = json!(version);
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_behind_a_service_rolls_out_scales_and_goes() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.node("n2").await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    until("each node has its share of the pod network", || async {
        let all = nodes.list(&ListParams::default()).await.unwrap();
        let shares: Vec<_> = all.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone()).collect();
        holds(shares.len() == 2 && shares[0] != shares[1], shares)
    })
    .await;
    until("namespace default has its service account and CA", || async {
        let account = cluster
            .api::<ServiceAccount>("default")
            .get_opt("default")
            .await
            .unwrap();
        let ca = cluster
            .api::<ConfigMap>("default")
            .get_opt("kube-root-ca.crt")
            .await
            .unwrap();
        holds(account.is_some() && ca.is_some(), (account.is_some(), ca.is_some()))
    })
    .await;

    cluster.create::<Deployment>("default", deployment(3, "1")).await;
    cluster
        .create::<Service>(
            "default",
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        )
        .await;
    let deployments = cluster.api::<Deployment>("default");
    let available = |n: i32| {
        let deployments = deployments.clone();
        move || {
            let deployments = deployments.clone();
            async move {
                let d = deployments.get("web").await.unwrap();
                let status = d.status.clone().unwrap_or_default();
                let settled =
                    status.observed_generation == d.metadata.generation && status.unavailable_replicas.is_none();
                let done = status.available_replicas == Some(n)
                    && status.updated_replicas == Some(n)
                    && status.replicas == Some(n);
                holds(settled && done, status)
            }
        }
    };
    until("three pods are available", available(3)).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let web = ListParams::default().labels("kubernetes.io/service-name=web");
    until("the service has three endpoints", || async {
        let all = slices.list(&web).await.unwrap();
        let ready: Vec<_> = all
            .iter()
            .flat_map(|s| s.endpoints.iter().map(|e| (e.conditions.clone(), s.ports.clone())))
            .collect();
        let ports: Vec<_> = all
            .iter()
            .flat_map(|s| s.ports.iter().flatten().map(|p| p.port))
            .collect();
        holds(ready.len() == 3 && ports == [Some(8080)], ready)
    })
    .await;
    until("so has its Endpoints object", || async {
        let found = cluster.api::<Endpoints>("default").get_opt("web").await.unwrap();
        let count = found
            .iter()
            .flat_map(|e| e.subsets.iter().flatten())
            .flat_map(|s| s.addresses.iter().flatten())
            .count();
        holds(count == 3, found)
    })
    .await;
    let pods = cluster.api::<Pod>("default");
    let spread: std::collections::BTreeSet<_> = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .filter_map(|p| p.spec.as_ref()?.node_name.clone())
        .collect();
    assert_eq!(spread.len(), 2, "pods are spread over both nodes");

    let patch = json!({"spec": {"replicas": 5, "template": {"metadata": {"labels": {"version": "2"}}}}});
    deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    until("five new pods are available", available(5)).await;
    let sets = cluster.api::<ReplicaSet>("default");
    until("the old set is empty and kept", || async {
        let all = sets.list(&ListParams::default()).await.unwrap();
        let mut sizes: Vec<_> = all
            .iter()
            .map(|s| s.status.as_ref().map_or(-1, |s| s.replicas))
            .collect();
        sizes.sort_unstable();
        holds(sizes == [0, 5], sizes)
    })
    .await;
    let revision = deployments
        .get("web")
        .await
        .unwrap()
        .metadata
        .annotations
        .unwrap_or_default();
    assert_eq!(
        revision.get("deployment.kubernetes.io/revision").map(String::as_str),
        Some("2")
    );

    cluster
        .create::<PodDisruptionBudget>(
            "default",
            json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        )
        .await;
    until("the budget allows one disruption", || async {
        let budget = cluster.api::<PodDisruptionBudget>("default").get("web").await.unwrap();
        let status = budget.status.unwrap_or_default();
        holds(status.disruptions_allowed == 1 && status.expected_pods == 5, status)
    })
    .await;

    let events = cluster.api::<Event>("default");
    until("what happened was told", || async {
        let all = events.list(&ListParams::default()).await.unwrap();
        let reasons: std::collections::BTreeSet<_> = all.iter().filter_map(|e| e.reason.clone()).collect();
        let wanted = ["Scheduled", "ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"];
        holds(wanted.iter().all(|r| reasons.contains(*r)), reasons)
    })
    .await;

    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    until("sets, pods and then the deployment are gone", || async {
        let deployment = deployments.get_opt("web").await.unwrap();
        let left = pods.list(&ListParams::default()).await.unwrap().items.len();
        let sets = sets.list(&ListParams::default()).await.unwrap().items.len();
        holds(
            deployment.is_none() && left == 0 && sets == 0,
            (deployment.is_some(), left, sets),
        )
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_pods_stay_and_are_adopted_again() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "s"}}, "template": template("s", "run")}});
    let made: ReplicaSet = cluster.create("default", set.clone()).await;
    let (sets, pods) = (cluster.api::<ReplicaSet>("default"), cluster.api::<Pod>("default"));
    let owners = || async {
        let all = pods.list(&ListParams::default().labels("app=s")).await.unwrap();
        all.iter()
            .map(|p| {
                p.metadata
                    .owner_references
                    .iter()
                    .flatten()
                    .map(|o| o.uid.clone())
                    .next()
            })
            .collect::<Vec<_>>()
    };
    until("two pods are there", || async {
        let found = owners().await;
        holds(found == [made.metadata.uid.clone(), made.metadata.uid.clone()], found)
    })
    .await;
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    sets.delete("s", &orphan).await.unwrap();
    until("the set is gone, the pods belong to nobody", || async {
        let (set, found) = (sets.get_opt("s").await.unwrap(), owners().await);
        holds(set.is_none() && found == [None, None], (set.is_some(), found))
    })
    .await;
    let again: ReplicaSet = cluster.create("default", set).await;
    until("a new set takes them", || async {
        let found = owners().await;
        holds(found == [again.metadata.uid.clone(), again.metadata.uid.clone()], found)
    })
    .await;
    sets.delete("s", &DeleteParams::background()).await.unwrap();
    until("they go with it", || async {
        let found = owners().await;
        holds(found.is_empty(), found)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_each_pod_once_and_end() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let job = |name: &str, outcome: &str, spec: serde_json::Value| {
        let mut template = template(name, outcome);
        template["spec"]["restartPolicy"] = json!("Never");
        let mut job = json!({"metadata": {"name": name}, "spec": {"template": template}});
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        job
    };
    cluster
        .create::<Job>(
            "default",
            job("good", "succeed", json!({"completions": 5, "parallelism": 2})),
        )
        .await;
    cluster
        .create::<Job>("default", job("bad", "fail", json!({"backoffLimit": 0})))
        .await;
    let indexed = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"});
    cluster
        .create::<Job>("default", job("indexed", "succeed", indexed))
        .await;
    let brief = json!({"completions": 1, "ttlSecondsAfterFinished": 1});
    cluster.create::<Job>("default", job("brief", "succeed", brief)).await;
    let jobs = cluster.api::<Job>("default");
    let conditions = |job: &Job| -> Vec<String> {
        let all = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
        all.map(|c| format!("{} {}", c.type_, c.reason.clone().unwrap_or_default()))
            .collect()
    };
    until("the good one is complete", || async {
        let found = jobs.get("good").await.unwrap();
        let done = conditions(&found) == ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"];
        let status = found.status.clone().unwrap_or_default();
        let counted = status.succeeded == Some(5) && status.failed.is_none() && status.ready == Some(0);
        holds(done && counted && status.completion_time.is_some(), status)
    })
    .await;
    until("the bad one has failed", || async {
        let found = jobs.get("bad").await.unwrap();
        let done = conditions(&found) == ["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"];
        holds(
            done && found.status.as_ref().and_then(|s| s.failed) == Some(1),
            found.status,
        )
    })
    .await;
    until("the indexed one has all indexes", || async {
        let found = jobs.get("indexed").await.unwrap();
        let status = found.status.clone().unwrap_or_default();
        holds(
            status.completed_indexes.as_deref() == Some("0-3") && status.completion_time.is_some(),
            status,
        )
    })
    .await;
    until("the brief one is gone, with its pod", || async {
        let found = jobs.get_opt("brief").await.unwrap();
        let pods = cluster
            .api::<Pod>("default")
            .list(&ListParams::default().labels("app=brief"))
            .await
            .unwrap();
        holds(found.is_none() && pods.items.is_empty(), (found, pods.items.len()))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_goes_with_all_that_is_in_it() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    let new: Namespace = serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap();
    namespaces.create(&PostParams::default(), &new).await.unwrap();
    until("it has a service account", || async {
        holds(
            cluster
                .api::<ServiceAccount>("ns")
                .get_opt("default")
                .await
                .unwrap()
                .is_some(),
            "none",
        )
    })
    .await;
    cluster.create::<Deployment>("ns", deployment(2, "1")).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    cluster.create::<ConfigMap>("ns", held).await;
    until("its pods run", || async {
        let pods = cluster.api::<Pod>("ns").list(&ListParams::default()).await.unwrap();
        let running = pods
            .iter()
            .filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"))
            .count();
        holds(running == 2, running)
    })
    .await;
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    until(
        "only what a finalizer holds is left, and the namespace says so",
        || async {
            let found = namespaces.get("ns").await.unwrap();
            let conditions = found.status.clone().unwrap_or_default().conditions.unwrap_or_default();
            let said = conditions.iter().any(|c| {
                c.type_ == "NamespaceFinalizersRemaining"
                    && c.message
                        .as_deref()
                        .is_some_and(|m| m.contains("example.com/hold in 1"))
            });
            let pods = cluster
                .api::<Pod>("ns")
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .len();
            holds(said && pods == 0, conditions)
        },
    )
    .await;
    let free = json!({"metadata": {"finalizers": null}});
    cluster
        .api::<ConfigMap>("ns")
        .patch("held", &PatchParams::default(), &Patch::Merge(free))
        .await
        .unwrap();
    until("then it is gone", || async {
        let found = namespaces.get_opt("ns").await.unwrap();
        holds(found.is_none(), found)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_room_and_leave_tainted_nodes() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let pod = |name: &str, cpu: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu}}}]}})
    };
    until("pods may be made", || async {
        holds(
            cluster
                .api::<ServiceAccount>("default")
                .get_opt("default")
                .await
                .unwrap()
                .is_some(),
            "none",
        )
    })
    .await;
    cluster.create::<Pod>("default", pod("first", "3")).await;
    cluster.create::<Pod>("default", pod("second", "3")).await;
    let pods = cluster.api::<Pod>("default");
    until("one of them waits, and says why", || async {
        let all = pods.list(&ListParams::default()).await.unwrap();
        let messages: Vec<_> = all
            .iter()
            .flat_map(|p| p.status.iter().flat_map(|s| s.conditions.iter().flatten()))
            .filter(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
            .filter_map(|c| c.message.clone())
            .collect();
        holds(
            messages.len() == 1 && messages[0].starts_with("0/1 nodes are available: 1 Insufficient cpu."),
            messages,
        )
    })
    .await;
    cluster.node("n2").await;
    until("a new node takes it", || async {
        let all = pods.list(&ListParams::default()).await.unwrap();
        let bound: std::collections::BTreeSet<_> =
            all.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
        holds(bound.len() == 2, bound)
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let taint = json!({"spec": {"taints": [{"key": "example.com/out", "effect": "NoExecute"}]}});
    nodes
        .patch("n2", &PatchParams::default(), &Patch::Strategic(taint))
        .await
        .unwrap();
    until("the pod on the tainted node is evicted", || async {
        let left = pods.list(&ListParams::default()).await.unwrap();
        let on: Vec<_> = left.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
        holds(on == ["n1"], on)
    })
    .await;
    cluster.stop().await;
}

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
    until("cluster-info is signed by the token", || async {
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
    until("the token's holder gets a node's client certificate", issued("client")).await;

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
    until(
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
    until("the node renews its own client certificate", issued("renewal")).await;
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

    until("the token goes when it expires, and its signature with it", || async {
        let secret = secrets.get_opt(&token.secret_name()).await.unwrap();
        let data = maps.get("cluster-info").await.unwrap().data.unwrap_or_default();
        let signed = data.contains_key(&format!("jws-kubeconfig-{}", token.id));
        holds(secret.is_none() && !signed, (secret.is_some(), signed))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_made_endpoints_are_mirrored() {
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    cluster.create::<Service>("default", service).await;
    let endpoints =
        json!({"metadata": {"name": "db"}, "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 5432}]}]});
    cluster.create::<Endpoints>("default", endpoints).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let found = || async {
        let all = slices
            .list(&ListParams::default().labels("kubernetes.io/service-name=db"))
            .await
            .unwrap();
        all.iter()
            .flat_map(|s| s.endpoints.iter().flat_map(|e| e.addresses.clone()))
            .collect::<Vec<_>>()
    };
    until("a slice has the address", || async {
        let found = found().await;
        holds(found == ["1.2.3.4"], found)
    })
    .await;
    let kubernetes = slices
        .list(&ListParams::default().labels("kubernetes.io/service-name=kubernetes"))
        .await
        .unwrap();
    assert_eq!(
        kubernetes.items.len(),
        1,
        "the API server's own endpoints are not mirrored"
    );
    cluster
        .api::<Endpoints>("default")
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    until("it goes with the Endpoints", || async {
        let found = found().await;
        holds(found.is_empty(), found)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreating_deployment_ends_the_old_pods_first_and_can_go_back() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let mut recreate = deployment(2, "1");
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create::<Deployment>("default", recreate).await;
    let (deployments, pods) = (cluster.api::<Deployment>("default"), cluster.api::<Pod>("default"));
    let versions = || async {
        let all = pods.list(&ListParams::default()).await.unwrap();
        let version = |p: &Pod| {
            p.metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("version").cloned())
                .unwrap_or_default()
        };
        all.iter().map(version).collect::<Vec<_>>()
    };
    until("the first pods are there", || async {
        let found = versions().await;
        holds(found == ["1", "1"], found)
    })
    .await;
    let to = |version: &str| json!({"spec": {"template": {"metadata": {"labels": {"version": version}}}}});
    let history = || async {
        let d = deployments.get("web").await.unwrap();
        let revision = d
            .metadata
            .annotations
            .unwrap_or_default()
            .remove("deployment.kubernetes.io/revision");
        let available = d.status.unwrap_or_default().available_replicas;
        (revision.unwrap_or_default(), available)
    };
    for (version, revision) in [("2", "2"), ("1", "3")] {
        deployments
            .patch("web", &PatchParams::default(), &Patch::Strategic(to(version)))
            .await
            .unwrap();
        until("the next pods follow the last ones", || async {
            let found = versions().await;
            assert!(found.iter().all(|v| *v == found[0]), "never both at once: {found:?}");
            let known = history().await;
            holds(
                found == [version, version] && known == (revision.to_owned(), Some(2)),
                (found, known),
            )
        })
        .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_dies_loses_its_endpoints_then_its_pods() {
    let settings = mk8s_controllers::context::Settings {
        node_grace_period: std::time::Duration::from_millis(1500),
        ..Default::default()
    };
    let cluster = Cluster::start_with(settings).await;
    let (_alive, dying) = (cluster.beat("n1"), cluster.beat("n2"));
    cluster.node("n1").await;
    cluster.node("n2").await;
    let mut web = deployment(2, "1");
    web["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}]);
    cluster.create::<Deployment>("default", web).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.create::<Service>("default", service).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let ready = || async {
        let all = slices
            .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
            .await
            .unwrap();
        let endpoints = all.iter().flat_map(|s| s.endpoints.iter());
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
        let mut nodes: Vec<_> = ready.filter_map(|e| e.node_name.clone()).collect();
        nodes.sort();
        nodes
    };
    until("an endpoint is on each node", || async {
        let found = ready().await;
        holds(found == ["n1", "n2"], found)
    })
    .await;
    dying.cancel();
    until("the dead node's endpoint leaves the service", || async {
        let found = ready().await;
        holds(found == ["n1"], found)
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    until("the node is Unknown and tainted", || async {
        let node = nodes.get("n2").await.unwrap();
        let taints: Vec<_> = node
            .spec
            .iter()
            .flat_map(|s| s.taints.iter().flatten())
            .map(|t| (t.key.clone(), t.effect.clone()))
            .collect();
        let effects = ["NoSchedule", "NoExecute"];
        let all = effects
            .iter()
            .all(|e| taints.contains(&("node.kubernetes.io/unreachable".to_owned(), (*e).to_owned())));
        holds(all, taints)
    })
    .await;
    until("its pod is replaced on the other", || async {
        let found = ready().await;
        holds(found == ["n1", "n1"], found)
    })
    .await;
    let _again = cluster.beat("n2");
    let posted = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2024-02-01T00:00:00Z"}]}});
    nodes
        .patch_status("n2", &PatchParams::default(), &Patch::Strategic(posted))
        .await
        .unwrap();
    until("a node that is back has no taint", || async {
        let taints = nodes.get("n2").await.unwrap().spec.and_then(|s| s.taints);
        holds(taints.as_ref().is_none_or(Vec::is_empty), taints)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_in_another_namespace_owns_nothing() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    let new: Namespace = serde_json::from_value(json!({"metadata": {"name": "far"}})).unwrap();
    namespaces.create(&PostParams::default(), &new).await.unwrap();
    let named = |name: &str| json!({"metadata": {"name": name}});
    let far = cluster.create::<ConfigMap>("far", named("owner")).await;
    let near = cluster.create::<ConfigMap>("default", named("owner")).await;
    let reference = |owner: &ConfigMap| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid});
    let owned =
        |name: &str, owners: Vec<serde_json::Value>| json!({"metadata": {"name": name, "ownerReferences": owners}});
    cluster
        .create::<ConfigMap>("default", owned("stray", vec![reference(&far)]))
        .await;
    cluster
        .create::<ConfigMap>("default", owned("kept", vec![reference(&far), reference(&near)]))
        .await;
    let roles: Api<ClusterRole> = Api::all(cluster.admin.clone());
    let role: ClusterRole = serde_json::from_value(owned("wide", vec![reference(&far)])).unwrap();
    roles.create(&PostParams::default(), &role).await.unwrap();

    let maps = cluster.api::<ConfigMap>("default");
    until("what has no other owner goes", || async {
        let found = maps.get_opt("stray").await.unwrap();
        holds(found.is_none(), found)
    })
    .await;
    until("what has one stays, and names it alone", || async {
        let owners = maps.get("kept").await.unwrap().metadata.owner_references;
        let uids: Vec<_> = owners.iter().flatten().map(|o| Some(o.uid.clone())).collect();
        holds(uids == [near.metadata.uid.clone()], uids)
    })
    .await;
    until("each of them is told of it, the cluster-scoped one too", || async {
        let events = cluster.api::<Event>("default").list(&ListParams::default()).await;
        let told = events.unwrap().items.into_iter();
        let told = told.filter(|e| e.reason.as_deref() == Some("OwnerRefInvalidNamespace"));
        let of: std::collections::BTreeSet<_> = told.filter_map(|e| e.involved_object.name).collect();
        holds(of.iter().eq(["kept", "stray", "wide"]), of)
    })
    .await;
    assert!(
        roles.get_opt("wide").await.unwrap().is_some(),
        "what can't be looked up is not deleted"
    );
    cluster.stop().await;
}
