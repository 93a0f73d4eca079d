//! Pods with claims of devices.

use super::nominated::full_node;
use super::*;
use crate::change::Change;

/// A node with devices, and a pod whose claim keeps the search for them busy: of many that are alike it wants some, and one that is like
/// them and is not.
fn busy(state: &mut Scheduler) {
    full_node(state);
    let device = |at: usize| {
        let model = if at == 0 { "small" } else { "large" };
        json!({"name": format!("d{at}"), "attributes": {"model": {"string": model}}})
    };
    let devices: Vec<_> = (0..100).map(device).collect();
    let pool = json!({"name": "n", "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "x", "nodeName": "n", "pool": pool, "devices": devices});
    let slice = serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
    state.cluster.claims.set_slice(&Arc::new(slice));
    let class = serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}})).unwrap();
    state.cluster.claims.set_class(Arc::new(class));
    let request = |model: &str, count: i64| {
        let selectors = json!([{"cel": {"expression": format!("device.attributes[\"x\"].model == \"{model}\"")}}]);
        json!({"name": model, "exactly": {"deviceClassName": "c", "allocationMode": "ExactCount", "count": count, "selectors": selectors}})
    };
    let devices = json!({"requests": [request("large", 20), request("small", 1)], "constraints": [{"matchAttribute": "x/model"}]});
    let claim = json!({"metadata": {"namespace": "d", "name": "c", "uid": "c"}, "spec": {"devices": devices}});
    let claim = serde_json::from_value(claim).unwrap();
    state.cluster.claims.set(Arc::new(claim));
    state.pod_applied(&claiming());
}

fn claiming() -> Pod {
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}});
    serde_json::from_value(pod).unwrap()
}

/// Not by an event, whichever: they would come all the time.
#[tokio::test]
async fn a_pod_that_there_was_no_time_for_backs_off() {
    let mut state = without_informers();
    busy(&mut state);
    state.schedule_next();
    assert_eq!(state.reports.len(), 1, "it is told of");
    for (waited, tried) in [(0, false), (1100, true)] {
        state
            .queue
            .tick(Instant::now() + std::time::Duration::from_millis(waited));
        state.wake_for(|_| Some(Change::DeviceClass));
        assert_eq!(state.queue.has_next(), tried, "{waited}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_tasks_go_on_while_devices_are_searched_for() {
    let deciding = mk8s_supervisor::job::spawn("deciding", async {
        let mut state = without_informers();
        let pod = PodInfo::new(&claiming(), &mut state.cluster.kins);
        let (tell, told) = std::sync::mpsc::channel();
        let other = mk8s_supervisor::job::spawn("other", async move { tell.send(()) });
        let heard = state.decided(&pod, |_, _| told.recv_timeout(std::time::Duration::from_secs(5)));
        let _ = other.await;
        heard
    });
    assert_eq!(deciding.await.unwrap(), Some(Ok(())));
}

/// An API server that has this pod, if it answers at all; what was asked of claims and pods one by one.
fn with_pod(answer: (u16, serde_json::Value)) -> (Client, Arc<parking_lot::Mutex<Vec<String>>>) {
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = asked.clone();
    let serve = move |request: http::Request<Body>| {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (code, body) = match (method.as_str(), &*path) {
            ("GET", "/api/v1/namespaces/d/pods/p") => answer.clone(),
            _ => (200, json!({"metadata": {}})),
        };
        if path.ends_with("/pods/p") || method == "PATCH" && path.contains("resourceclaims") {
            log.lock().push(method.to_string());
        }
        let answer = http::Response::builder().status(code);
        async move { Ok::<_, Infallible>(answer.body(Body::from(body.to_string().into_bytes())).unwrap()) }
    };
    (Client::new(tower::service_fn(serve), "d"), asked)
}

fn status(code: u16, reason: &str) -> serde_json::Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code})
}

#[tokio::test]
async fn what_a_pod_was_given_is_its_own_where_its_binding_may_have_come_about() {
    let pod = |uid: &str, node: Option<&str>| json!({"metadata": {"namespace": "d", "name": "p", "uid": uid}, "spec": {"containers": [], "nodeName": node}});
    let lost = || kube::Error::Service("connection reset".into()).into();
    let said = |code: u16, reason: &str| {
        let status: kube::core::Status = serde_json::from_value(status(code, reason)).unwrap();
        kube::Error::Api(status.boxed()).into()
    };
    let refused = || said(409, "Conflict");
    let late = || said(504, "Timeout");
    let cancelled = || JobError::Cancelled { job: "binding" }.into();
    let rows: [(&dyn Fn() -> BindError, _, &[&str]); 8] = [
        (&refused, (200, pod("p", None)), &["PATCH"]),
        (&lost, (200, pod("p", None)), &["GET", "PATCH"]),
        (&late, (200, pod("p", Some("n"))), &["GET"]),
        (&lost, (200, pod("p", Some("n"))), &["GET"]),
        (&lost, (200, pod("q", Some("n"))), &["GET", "PATCH"]),
        (&lost, (404, status(404, "NotFound")), &["GET", "PATCH"]),
        (&lost, (500, status(500, "InternalError")), &["GET"]),
        (&cancelled, (200, pod("p", Some("n"))), &["GET"]),
    ];
    for (error, answer, expected) in rows {
        let (client, asked) = with_pod(answer.clone());
        let mut state = scheduler(&client, &Supervisor::new(CancellationToken::new()));
        full_node(&mut state);
        let held = json!({"metadata": {"namespace": "d", "name": "c", "uid": "c"}, "spec": {}, "status": {"allocation": {},
            "reservedFor": [{"resource": "pods", "name": "p", "uid": "p"}]}});
        state.cluster.claims.set(serde_json::from_value(held).unwrap());
        state.pod_applied(&claiming());
        let pod = state.queue.pop().unwrap();
        let node = state.cluster.find("n").unwrap().id;
        state.assign(pod.clone(), node);
        let binding = Binding { pod, node: "n".into() };
        state.bound(binding, Err(error()));
        while state.evictions.next().await.is_some() {}
        assert_eq!(*asked.lock(), expected, "{} {answer:?}", error());
    }
}
