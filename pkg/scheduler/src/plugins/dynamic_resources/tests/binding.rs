//! What is written of claims, and in which order.

use std::convert::Infallible;

use http::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

/// An API server with one claim: it stores what is written with the revision that it has.
struct Server {
    claim: Value,
    /// What was asked, in short.
    asked: Vec<String>,
    /// So many writes find that somebody was faster.
    conflicts: usize,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let part = if path.ends_with("/status") { "status" } else { "claim" };
        self.asked.push(format!("{method} {part}"));
        let revision = |claim: &Value| {
            claim["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let now = revision(&self.claim);
        match *method {
            Method::PUT if self.conflicts > 0 || revision(body) != now => {
                self.conflicts = self.conflicts.saturating_sub(1);
                self.claim["metadata"]["resourceVersion"] = json!((now + 1).to_string());
                return (
                    409,
                    json!({"kind": "Status", "status": "Failure", "message": "conflict", "reason": "Conflict", "code": 409}),
                );
            }
            Method::PUT if part == "status" => self.claim["status"] = body["status"].clone(),
            Method::PUT => self.claim["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone(),
            Method::PATCH => self.asked.push(body["status"].to_string()),
            _ => {}
        }
        if *method == Method::PUT {
            self.claim["metadata"]["resourceVersion"] = json!((now + 1).to_string());
        }
        (200, self.claim.clone())
    }
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    let serve = move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = server.lock().answer(&head.method, head.uri.path(), &body);
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    };
    Client::new(tower::service_fn(serve), "d")
}

/// Reserves the claim for the pod on a, and writes that. What was asked then, and what became of it.
async fn bind(claim: &Arc<ResourceClaim>, server: &Arc<Mutex<Server>>) -> (Cluster, Arc<PodInfo>, Result<(), String>) {
    let mut cluster = machines();
    cluster.claims.set(claim.clone());
    let asks = pod(&mut cluster, &["c"]);
    let plugin = DynamicResources::default();
    let node = cluster.find("a").unwrap().id;
    plugin.prepare(&asks, &mut cluster);
    plugin.reserve(&asks, node, &mut cluster).unwrap();
    let written = plugin.pre_bind(&asks, node, &cluster, &client(server)).unwrap().await;
    (cluster, asks, written.map_err(|error| error.to_string()))
}

fn server(claim: &ResourceClaim, conflicts: usize) -> Arc<Mutex<Server>> {
    Arc::new(Mutex::new(Server {
        claim: serde_json::to_value(claim).unwrap(),
        asked: Vec::new(),
        conflicts,
    }))
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_protected_before_it_has_devices() {
    let wanted = claim("c", &json!({"requests": [exactly("r", 1)]}), &json!({}));
    let once = ["PUT claim", "PUT status"];
    for (conflicts, asked, fails) in [
        (0, once.to_vec(), false),
        (1, [&["PUT claim", "GET claim"][..], &once].concat(), false),
        (
            9,
            [&["PUT claim", "GET claim"].repeat(4)[..], &["PUT claim"]].concat(),
            true,
        ),
    ] {
        let server = server(&wanted, conflicts);
        let (_, _, written) = bind(&wanted, &server).await;
        assert_eq!(written.is_err(), fails, "{written:?}");
        let server = server.lock();
        assert_eq!(server.asked, asked);
        if !fails {
            let finalizers = &server.claim["metadata"]["finalizers"];
            assert_eq!(finalizers, &json!(["resource.kubernetes.io/delete-protection"]));
            let status = &server.claim["status"];
            assert_eq!(status["allocation"]["devices"]["results"][0]["device"], "a0");
            assert_eq!(
                status["reservedFor"],
                json!([{"resource": "pods", "name": "p", "uid": "p"}])
            );
        }
    }
}

#[tokio::test]
async fn a_claim_that_has_devices_is_reserved_alone() {
    let shared = claim("c", &json!({}), &given("a", "a0", &["x"]));
    let server = server(&shared, 0);
    let (_, _, written) = bind(&shared, &server).await;
    assert_eq!(written, Ok(()));
    let server = server.lock();
    assert_eq!(server.asked, ["PUT status"]);
    let holders: Vec<_> = server.claim["status"]["reservedFor"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["uid"].clone())
        .collect();
    assert_eq!(holders, ["x", "p"]);
}

#[tokio::test(start_paused = true)]
async fn what_others_did_meanwhile_stands() {
    let wanted = claim("c", &json!({"requests": [exactly("r", 1)]}), &json!({}));
    let going = json!("2026-01-01T00:00:00Z");
    for (field, value, expected) in [
        (
            "/status",
            given("b", "b0", &["x"]),
            "plugin \"DynamicResources\": claim d/c got allocated elsewhere in the meantime",
        ),
        (
            "/metadata/deletionTimestamp",
            going,
            "plugin \"DynamicResources\": claim d/c got deleted in the meantime",
        ),
        (
            "/metadata/uid",
            json!("of another"),
            "plugin \"DynamicResources\": claim d/c got deleted in the meantime",
        ),
    ] {
        let server = server(&wanted, 1);
        server.lock().claim["metadata"]["deletionTimestamp"] = Value::Null;
        *server.lock().claim.pointer_mut(field).unwrap() = value;
        let (mut cluster, pod, written) = bind(&wanted, &server).await;
        assert_eq!(written, Err(expected.to_owned()));
        assert!(DynamicResources::default().unreserve(&pod, &mut cluster).is_none());
        assert!(!cluster.claims.is_pending(&wanted));
    }
}

#[tokio::test]
async fn a_pod_that_is_not_bound_gives_its_claim_back_and_the_claim_keeps_its_devices() {
    let wanted = claim("c", &json!({"requests": [exactly("r", 2)]}), &json!({}));
    let server = server(&wanted, 0);
    let (mut cluster, pod, written) = bind(&wanted, &server).await;
    assert_eq!(written, Ok(()));
    let plugin = DynamicResources::default();
    let write = plugin.unreserve(&pod, &mut cluster).unwrap();
    write.run(client(&server)).await.unwrap();
    let without = json!({"reservedFor": [{"$patch": "delete", "uid": "p"}]});
    assert_eq!(
        server.lock().asked[2..],
        ["PATCH status".to_owned(), without.to_string()]
    );
    // No event has told of it yet, and nobody else gets them all the same.
    let known = cluster.claims.get("d", "c").unwrap();
    assert!(allocation(known).is_some());
    cluster
        .claims
        .set(claim("e", &json!({"requests": [exactly("r", 1)]}), &json!({})));
    let other = super::pod(&mut cluster, &["e"]);
    assert!(judge(&mut cluster, &other).starts_with("a: cannot allocate all claims; b: r=b0"));
}

#[tokio::test]
async fn what_a_pod_holds_is_given_back_whatever_became_of_its_other_claims() {
    let held = claim("c", &json!({}), &given("a", "a0", &["p"]));
    let server = server(&held, 0);
    let mut cluster = machines();
    cluster.claims.set(held.clone());
    let asks = pod(&mut cluster, &["gone", "c"]);
    let write = DynamicResources::default().unreserve(&asks, &mut cluster).unwrap();
    write.run(client(&server)).await.unwrap();
    let without = json!({"reservedFor": [{"$patch": "delete", "uid": "p"}]});
    assert_eq!(server.lock().asked, ["PATCH status".to_owned(), without.to_string()]);
}

#[tokio::test]
async fn devices_are_free_again_when_a_claim_went_of_a_pod_that_held_another() {
    let wanted = claim("c", &json!({"requests": [exactly("r", 2)]}), &json!({}));
    let held = claim("held", &json!({}), &given("a", "other", &["p"]));
    let server = server(&wanted, 0);
    let mut cluster = machines();
    cluster.claims.set(wanted.clone());
    cluster.claims.set(held);
    let asks = pod(&mut cluster, &["c", "held"]);
    let (plugin, node) = (DynamicResources::default(), cluster.find("a").unwrap().id);
    plugin.prepare(&asks, &mut cluster);
    plugin.reserve(&asks, node, &mut cluster).unwrap();
    let written = plugin.pre_bind(&asks, node, &cluster, &client(&server)).unwrap();
    written.await.unwrap();
    assert_eq!(
        server.lock().asked,
        ["PUT claim", "PUT status"],
        "what it holds is not written"
    );
    let told: ResourceClaim = serde_json::from_value(server.lock().claim.clone()).unwrap();
    cluster.claims.set(Arc::new(told.clone()));
    cluster.claims.remove(&told);
    cluster
        .claims
        .set(claim("e", &json!({"requests": [exactly("r", 2)]}), &json!({})));
    let other = pod(&mut cluster, &["e"]);
    assert!(judge(&mut cluster, &other).starts_with("a: r=a0 r=a1"));
}
