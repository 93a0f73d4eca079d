//! Extenders take part in decisions, over HTTP.
#![allow(clippy::unwrap_used)]

mod api;

use std::sync::Arc;
use std::time::Duration;

use api::Api;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use k8s_openapi::ByteString;
use mk8s_scheduler::config::Config;
use mk8s_supervisor::Supervisor;
use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Answers a verb and its question.
type Answer = fn(&str, &Value) -> (u16, Value);

/// An extender that notes what it is asked.
#[derive(Clone)]
struct Fake {
    answer: Answer,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    url: String,
    /// Lets answers about slow pods through.
    gate: Arc<Semaphore>,
}

async fn respond(State(fake): State<Fake>, uri: Uri, body: String) -> (StatusCode, String) {
    let verb = uri.path().trim_start_matches("/x/").to_owned();
    let question: Value = serde_json::from_str(&body).unwrap();
    fake.asked.lock().push((verb.clone(), question.clone()));
    let name = question.pointer("/Pod/metadata/name").and_then(Value::as_str);
    if name.is_some_and(|name| name.starts_with("slow")) {
        fake.gate.acquire().await.unwrap().forget();
    }
    let (code, answer) = (fake.answer)(&verb, &question);
    (StatusCode::from_u16(code).unwrap(), answer.to_string())
}

impl Fake {
    async fn start(answer: Answer) -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake {
            answer,
            asked: Arc::default(),
            url: format!("http://{}/x/", listener.local_addr().unwrap()),
            gate: Arc::new(Semaphore::new(0)),
        };
        let router = Router::new().fallback(respond).with_state(fake.clone());
        drop(mk8s_supervisor::job::spawn("extender", async move {
            axum::serve(listener, router).await.unwrap();
        }));
        fake
    }

    fn verbs(&self) -> Vec<String> {
        self.asked.lock().iter().map(|(verb, _)| verb.clone()).collect()
    }

    fn question(&self, verb: &str) -> Value {
        let asked = self.asked.lock();
        asked.iter().find(|(own, _)| own == verb).unwrap().1.clone()
    }

    /// A configuration in which it is asked so.
    fn config(&self, fields: &str) -> Config {
        let extender = format!("{{urlPrefix: '{}', {fields}}}", self.url);
        config(&extender)
    }
}

fn config(extenders: &str) -> Config {
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration";
    Config::read(&format!("{head}\nextenders: [{extenders}]")).unwrap().0
}

fn three_nodes() -> Api {
    let api = Api::default();
    for name in ["a", "b", "c"] {
        api.node(name, json!({"cpu": "4", "memory": "4Gi", "pods": "9"}));
    }
    api
}

fn plain() -> Value {
    json!({"containers": [{"name": "c"}]})
}

async fn told(api: &Api, scope: Supervisor, lines: usize) -> Vec<String> {
    for _ in 0..500 {
        if api.told().len() >= lines {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(scope.shutdown(Duration::from_secs(10)).await);
    api.told()
}

#[tokio::test]
async fn nodes_are_filtered_then_scored() {
    const VERBS: &str = "filterVerb: filter, prioritizeVerb: prioritize, weight: 3";
    let by_name: Answer = |verb, _| match verb {
        "filter" => (200, json!({"NodeNames": ["b", "c"], "FailedNodes": {"a": "no"}})),
        _ => (200, json!([{"Host": "b", "Score": 2}, {"Host": "c", "Score": 9}])),
    };
    let whole: Answer = |verb, question| match verb {
        "filter" => {
            let nodes = question.pointer("/Nodes/items").unwrap().as_array().unwrap();
            let kept = nodes.iter().filter(|node| node["metadata"]["name"] != "a");
            (200, json!({"nodes": {"items": kept.collect::<Vec<_>>()}}))
        }
        _ => (200, json!([{"host": "c", "score": 9}])),
    };
    for (answer, capable) in [(by_name, true), (whole, false)] {
        let fake = Fake::start(answer).await;
        let api = three_nodes();
        api.pod("p", plain());
        let scope = api.run(fake.config(&format!("{VERBS}, nodeCacheCapable: {capable}")));
        let told = told(&api, scope, 2).await;
        assert_eq!(told[0], "bind p to c");
        let question = fake.question("prioritize");
        assert_eq!(question["Pod"]["metadata"]["name"], "p");
        let names = question["NodeNames"].as_array().map(Vec::len);
        let items = question["Nodes"]["items"].as_array().map(Vec::len);
        let expected = if capable { (Some(2), None) } else { (None, Some(2)) };
        assert_eq!((names, items), expected);
    }
}

#[tokio::test]
async fn what_extenders_refuse_is_told_in_their_words() {
    let fake = Fake::start(|_, _| {
        let failed = json!({"a": "no device", "b": "asleep"});
        (
            200,
            json!({"NodeNames": [], "FailedNodes": failed, "FailedAndUnresolvableNodes": {"b": "broken", "c": "broken"}}),
        )
    })
    .await;
    let api = three_nodes();
    api.pod("p", plain());
    let scope = api.run(fake.config("filterVerb: filter, nodeCacheCapable: true"));
    assert_eq!(
        told(&api, scope, 1).await,
        [
            "p FailedScheduling by default-scheduler default-scheduler-host: 0/3 nodes are available: 1 no device, 2 broken. \
             no new claims to deallocate, preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, \
             2 Preemption is not helpful for scheduling."
        ]
    );
}

#[tokio::test]
async fn an_extender_that_fails_fails_the_try_unless_it_is_ignorable() {
    let fails: Answer = |_, _| (500, json!("boom"));
    let errs: Answer = |_, _| (200, json!({"Error": "out of order"}));
    let strange: Answer = |_, _| (200, json!({"NodeNames": ["z"]}));
    for (answer, said) in [
        (fails, "failed filter with extender at URL ATfilter, code 500"),
        (errs, "out of order"),
        (
            strange,
            "extender \"AT\" claims a filtered node \"z\" which is not found in the input node list",
        ),
    ] {
        for ignorable in [false, true] {
            let fake = Fake::start(answer).await;
            let api = three_nodes();
            api.pod("p", plain());
            let scope = api.run(fake.config(&format!(
                "filterVerb: filter, nodeCacheCapable: true, ignorable: {ignorable}"
            )));
            let told = told(&api, scope, if ignorable { 2 } else { 1 }).await;
            match ignorable {
                true => assert!(told[0].starts_with("bind p to "), "{told:?}"),
                false => assert!(told[0].ends_with(&said.replace("AT", &fake.url)), "{told:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_extender_may_bind() {
    let binds: Answer = |_, _| (200, json!({"Error": ""}));
    let fails: Answer = |_, _| (200, json!({"Error": "no binding today"}));
    for (answer, ignorable, expected) in [
        (
            binds,
            false,
            "p Scheduled by default-scheduler default-scheduler-host: Successfully assigned d/p to a",
        ),
        (
            fails,
            false,
            "p FailedScheduling by default-scheduler default-scheduler-host: no binding today",
        ),
        (fails, true, "bind p to a"),
    ] {
        let fake = Fake::start(answer).await;
        let api = Api::default();
        api.node("a", json!({"cpu": "4", "memory": "4Gi", "pods": "9"}));
        api.pod("p", plain());
        let scope = api.run(fake.config(&format!("bindVerb: bind, ignorable: {ignorable}")));
        let told = told(&api, scope, 1).await;
        assert_eq!(told[0], expected);
        let expected = json!({"PodName": "p", "PodNamespace": "d", "PodUID": "p", "Node": "a"});
        assert_eq!(fake.question("bind"), expected);
    }
}

#[tokio::test]
async fn it_is_asked_about_pods_that_ask_for_its_resources_and_others_do_not_wait() {
    let fake = Fake::start(|_, _| (200, json!({"NodeNames": ["b"]}))).await;
    let api = three_nodes();
    let device = json!({"containers": [{"name": "c", "resources": {"requests": {"a.b/device": "1"}}}]});
    for (name, spec) in [("slow-1", device.clone()), ("other", plain()), ("slow-2", device)] {
        api.pod(name, spec);
    }
    let managed = "managedResources: [{name: a.b/device, ignoredByScheduler: true}]";
    let scope = api.run(fake.config(&format!("filterVerb: filter, nodeCacheCapable: true, {managed}")));
    while fake.verbs().is_empty() || !api.told().iter().any(|line| line.starts_with("bind other")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let slow = |line: &String| line.starts_with("bind slow");
    assert!(!api.told().iter().any(slow), "the others do not wait");
    assert_eq!(fake.verbs(), ["filter"], "one at a time");
    fake.gate.add_permits(2);
    let told = told(&api, scope, 6).await;
    for expected in ["bind slow-1 to b", "bind slow-2 to b"] {
        assert!(told.iter().any(|line| line == expected), "{told:?}");
    }
    assert_eq!(fake.verbs(), ["filter", "filter"]);
}

#[tokio::test]
async fn extenders_choose_who_goes() {
    let chooses: Answer = |_, question| {
        let meta = question["NodeNameToMetaVictims"].as_object();
        let shown = meta.or(question["NodeNameToVictims"].as_object()).unwrap();
        assert_eq!(shown.len(), 2, "both nodes are candidates: {question}");
        (
            200,
            json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "on-b"}]}}}),
        )
    };
    let none: Answer = |_, _| (200, json!({"NodeNameToMetaVictims": {}}));
    let strange: Answer = |_, _| (200, json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "u"}]}}}));
    let said = |why: &str| {
        format!(
            "p FailedScheduling by default-scheduler default-scheduler-host: 0/2 nodes are available: 2 Insufficient cpu.{why}"
        )
    };
    for (answer, fields, expected) in [
        (chooses, "nodeCacheCapable: true", "delete on-b".to_owned()),
        (chooses, "nodeCacheCapable: false", "delete on-b".to_owned()),
        (
            none,
            "nodeCacheCapable: true",
            said(" no new claims to deallocate, preemption: no candidate node for preemption"),
        ),
        (
            strange,
            "nodeCacheCapable: true",
            said(
                " preemption: extender: AT claims to preempt pod (UID: u) on node: b, but the pod is not found on that node",
            ),
        ),
        (strange, "ignorable: true", "delete on-a".to_owned()),
    ] {
        let fake = Fake::start(answer).await;
        let api = Api::default();
        let spec = |priority: i32, node: Option<&str>| {
            let container = json!({"name": "c", "resources": {"requests": {"cpu": "3"}}});
            json!({"priority": priority, "nodeName": node, "containers": [container]})
        };
        for (node, pod, priority) in [("a", "on-a", 1), ("b", "on-b", 2)] {
            api.node(node, json!({"cpu": "4", "memory": "4Gi", "pods": "9"}));
            api.pod(pod, spec(priority, Some(node)));
        }
        api.pod("p", spec(9, None));
        let scope = api.run(fake.config(&format!("preemptVerb: preempt, {fields}")));
        let expected = expected.replace("AT", &fake.url);
        let told = told(&api, scope, if expected.starts_with("delete") { 3 } else { 1 }).await;
        assert!(told.contains(&expected), "{expected}: {told:?}");
    }
}

#[tokio::test]
async fn it_is_sent_the_whole_pod() {
    let fake = Fake::start(|_, _| (200, json!({"NodeNames": ["b"]}))).await;
    let api = three_nodes();
    let spec = json!({"containers": [{"name": "c", "args": ["x"], "command": ["y"], "env": [{"name": "E", "value": "1"}],
        "livenessProbe": {"exec": {"command": ["z"]}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]});
    api.pod("p", spec.clone());
    let scope = api.run(fake.config("filterVerb: filter, nodeCacheCapable: true"));
    assert_eq!(told(&api, scope, 2).await[0], "bind p to b");
    assert_eq!(fake.question("filter")["Pod"]["spec"], spec);
}

/// Serves over TLS, to those alone whom the authority vouches for.
fn serve_tls(listener: tokio::net::TcpListener, router: Router, authority: &mk8s_pki::ca::Authority) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let own = mk8s_pki::issue::server(authority, "extender", &["extender.test".into()], 600).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(
            own.certified_key().unwrap().as_ref().clone(),
        )));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    drop(mk8s_supervisor::job::spawn("extender over TLS", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = server
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        }
    }));
}

#[tokio::test]
async fn an_extender_is_reached_over_tls_and_shown_who_asks() {
    let authority = mk8s_pki::ca::create("extenders").unwrap();
    let client = mk8s_pki::issue::client(&authority, "scheduler", None, 600).unwrap();
    let data = |pem: &str| serde_json::to_string(&ByteString(pem.as_bytes().to_vec())).unwrap();
    let trusts = format!(
        "caData: {}, serverName: extender.test",
        data(authority.certificate_pem())
    );
    let shows = format!(
        "certData: {}, keyData: {}",
        data(&client.certificate_pem),
        data(&client.key_pem)
    );
    for (tls, reached) in [
        (format!("{trusts}, {shows}"), true),
        (format!("serverName: extender.test, {shows}"), false),
        (format!("insecure: true, {shows}"), true),
        (format!("caData: {}, {shows}", data(authority.certificate_pem())), false),
        (trusts, false),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let binds = Router::new().fallback(|| async { "{}" });
        serve_tls(listener, binds, &authority);
        let api = three_nodes();
        api.pod("p", plain());
        let scope = api.run(config(&format!(
            "{{urlPrefix: '{url}', bindVerb: bind, tlsConfig: {{{tls}}}}}"
        )));
        let told = told(&api, scope, 1).await;
        assert_eq!(told[0].starts_with("p Scheduled"), reached, "{tls}: {told:?}");
    }
}
