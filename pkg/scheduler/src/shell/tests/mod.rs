//! The scheduler without its informers: events are handed to it one by one.
#![allow(clippy::unwrap_used)]
mod devices;

use std::convert::Infallible;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::client::Body;
use mk8s_client::{Event, Raw};
use mk8s_supervisor::JobError;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::extending::{Answer, Question};
use super::*;
use crate::change::Kind;
use crate::cycle::extended;
use crate::profile::{ANY, EXTENDERS};

mod nominated;

fn scheduler(client: &Client, scope: &Supervisor) -> Scheduler {
    let config = Config::default();
    let recorders = Recorders::new(client, &config.profiles, "test", scope);
    let informers = Informers::new(client.clone(), scope);
    Scheduler::new(client.clone(), &informers, config, recorders)
}

#[tokio::test]
async fn room_of_a_binding_that_failed_is_free_unless_the_pod_is_there() {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let pod = |deleted: bool, node: Option<&str>| -> Arc<Pod> {
        let deleted = deleted.then_some("2024-01-01T00:00:00Z");
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p", "deletionTimestamp": deleted},
            "spec": {"containers": [{"name": "c"}], "nodeName": node}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    for (meanwhile, counted, queued) in [
        (None, false, true),
        (Some(pod(true, None)), false, false),
        (Some(pod(false, Some("n"))), true, false),
        (Some(pod(true, Some("n"))), true, false),
    ] {
        let mut state = scheduler(&client, &scope);
        let node = json!({"metadata": {"name": "n"}});
        state.cluster.set_node(&serde_json::from_value(node).unwrap());
        state.pod_applied(&pod(false, None));
        let info = state.queue.pop().unwrap();
        let node = state.cluster.find("n").unwrap().id;
        state.assign(info.clone(), node);
        if let Some(event) = meanwhile {
            state.pod_applied(&event);
        }
        let binding = Binding {
            pod: info,
            node: "n".into(),
        };
        state.bound(binding, Err(JobError::Cancelled { job: "binding" }.into()));
        assert_eq!(state.queue.get("p").is_some(), queued);
        assert_eq!(state.cluster.remove("p").is_some(), counted);
    }
}

/// As resizes do it, of the pod or of what its node has given it.
#[tokio::test]
async fn who_waits_for_room_is_tried_again_when_a_pod_gets_smaller() {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let mut state = scheduler(&client, &scope);
    let pod = |name: &str, cpu: &str, node: Option<&str>| -> Arc<Pod> {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name},
            "spec": {"containers": [container], "nodeName": node}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let applied = |old: Option<Arc<Pod>>, new: Arc<Pod>| Event::Applied { old, new };
    state.pod_event(applied(None, pod("runs", "4", Some("n"))));
    state.pod_event(applied(None, pod("waits", "3", None)));
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "5", "pods": "9"}}});
    state.cluster.set_node(&serde_json::from_value(node).unwrap());
    state.schedule_next();
    assert!(!state.queue.has_next(), "it does not fit");
    for (before, now, tried) in [("4", "5", false), ("5", "1", true)] {
        state.pod_event(applied(
            Some(pod("runs", before, Some("n"))),
            pod("runs", now, Some("n")),
        ));
        assert_eq!(state.queue.has_next(), tried, "{before} {now}");
    }
}
fn client() -> Client {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    Client::new(tower::service_fn(serve), "d")
}

fn claim(namespace: &str, owner: Option<&str>) -> Event<ResourceClaim> {
    let owner =
        owner.map(|uid| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}));
    let meta = json!({"namespace": namespace, "name": "c", "uid": "c", "ownerReferences": owner.map(|owner| [owner])});
    let new = serde_json::from_value(json!({"metadata": meta, "spec": {}})).unwrap();
    Event::Applied { old: None, new }
}

#[tokio::test]
async fn a_pod_is_not_tried_before_its_claims_are_there() {
    let by_name = json!({"name": "r", "resourceClaimName": "c"});
    let by_template = json!({"name": "r", "resourceClaimTemplateName": "t"});
    let made = json!({"resourceClaimStatuses": [{"name": "r", "resourceClaimName": "c"}]});
    for (named, status, event, tried) in [
        (&by_name, json!({}), claim("d", None), true),
        (&by_name, json!({}), claim("e", None), false),
        (&by_template, json!({}), claim("d", Some("p")), false),
        (&by_template, made.clone(), claim("d", Some("p")), true),
        (&by_template, made, claim("d", Some("q")), false),
    ] {
        let scope = Supervisor::new(CancellationToken::new());
        let mut state = scheduler(&client(), &scope);
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"},
            "spec": {"containers": [{"name": "c"}], "resourceClaims": [named]}, "status": status});
        let pod: Arc<Pod> = serde_json::from_value(pod).unwrap();
        state.pod_applied(&pod);
        assert!(!state.queue.has_next(), "{pod:?}");
        state.resource_claim_event(event);
        assert_eq!(state.queue.has_next(), tried, "{pod:?}");
        assert_eq!(state.reports.len(), 0, "nothing is said of it");
    }
}

#[tokio::test]
async fn devices_of_a_pod_that_is_deleted_while_it_is_bound_are_free() {
    let scope = Supervisor::new(CancellationToken::new());
    let mut state = scheduler(&client(), &scope);
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}});
    let pod: Arc<Pod> = serde_json::from_value(pod).unwrap();
    let event = claim("d", None);
    let wanted = event.object().clone();
    state.resource_claim_event(event);
    state
        .cluster
        .set_node(&serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap());
    state.pod_applied(&pod);
    let info = state.queue.pop().unwrap();
    let node = state.cluster.find("n").unwrap().id;
    state.assign(info.clone(), node);
    assert!(state.cluster.claims.is_pending(&wanted));
    state.pod_event(Event::Deleted(pod));
    let binding = Binding {
        pod: info,
        node: "n".into(),
    };
    state.bound(binding, Err(JobError::Cancelled { job: "binding" }.into()));
    assert!(!state.cluster.claims.is_pending(&wanted));
}

#[tokio::test]
async fn whom_extenders_refused_is_tried_again_whatever_happens() {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    for (rows, tried) in [(1, false), (EXTENDERS, true), (EXTENDERS | 1, true), (ANY, false)] {
        let mut state = scheduler(&client, &scope);
        let pod = |name: &str, node: Option<&str>| -> Arc<Pod> {
            let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name},
                "spec": {"containers": [{"name": "c"}], "nodeName": node}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        state.pod_applied(&pod("waits", None));
        let waits = state.queue.pop().unwrap();
        state.queue.unschedulable(&waits.uid, rows, Instant::now());
        let node = Arc::new(serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap());
        state.cluster.set_node(&node);
        state.node_event(Event::Applied { old: None, new: node });
        assert!(!state.queue.has_next(), "{rows}: nothing of the node changed");
        state.pod_applied(&pod("placed", Some("n")));
        assert_eq!(state.queue.has_next(), tried, "{rows}");
    }
}

#[tokio::test]
async fn what_happened_while_extenders_were_asked_helps_whom_it_concerns() {
    let fits = |plugin: &str| {
        let profile = Profile::default();
        let row = profile.rows.iter().position(|row| row.plugin.name() == plugin);
        1 << row.unwrap()
    };
    let fit = fits("NodeResourcesFit");
    for (rows, happened, tried) in [
        (EXTENDERS, 0, false),
        (EXTENDERS, Kind::PodPlaced as u32, true),
        (fit, Kind::PodPlaced as u32, false),
        (fit, Kind::PodPlaced as u32 | Kind::PodGone as u32, true),
        (fit | EXTENDERS, Kind::PodPlaced as u32, true),
        (ANY, Kind::NodeAdded as u32, true),
    ] {
        let mut state = without_informers();
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": []}});
        state.pod_applied(&serde_json::from_value(pod).unwrap());
        let pod = state.queue.pop().unwrap();
        state.queue.unschedulable("p", rows, Instant::now());
        state.try_again_if(happened, &pod);
        assert_eq!(state.queue.has_next(), tried, "{rows} {happened}");
    }
}

/// Of three pods that extenders refuse: one is looked at again where something happened meanwhile, and one that is gone is forgotten.
#[tokio::test]
async fn what_happens_while_extenders_are_asked_is_not_missed() {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let pod = |name: &str, node: Option<&str>| -> Arc<Pod> {
        let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name},
            "spec": {"containers": [{"name": "c"}], "nodeName": node}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    for (happens, waits, tried) in [
        (None, true, false),
        (
            Some(Event::Applied {
                old: None,
                new: pod("other", Some("n")),
            }),
            true,
            true,
        ),
        (Some(Event::Deleted(pod("p", None))), false, false),
    ] {
        let mut state = scheduler(&client, &scope);
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"pods": "9"}}});
        state.cluster.set_node(&serde_json::from_value(node).unwrap());
        state.pod_applied(&pod("p", None));
        let info = state.queue.pop().unwrap();
        cycle::prepare(&info, &Profile::default(), &mut state.cluster);
        let candidates = extended::candidates(&info, &Profile::default(), &state.cluster, 0, false, |_| 0).unwrap();
        if let Some(event) = happens {
            state.pod_event(event);
        }
        let answer = Answer::Nodes(crate::extender::Verdict::default());
        state.answered(Question::Nodes(info, candidates), Ok(Ok(answer)));
        assert_eq!((state.queue.get("p").is_some(), state.queue.has_next()), (waits, tried));
        assert!(state.assumed.is_empty());
    }
}

fn without_informers() -> Scheduler {
    scheduler(&client(), &Supervisor::new(CancellationToken::new()))
}

#[tokio::test]
async fn an_attachment_that_is_made_anew_elsewhere_is_not_where_it_was() {
    let mut state = without_informers();
    let volume = json!({"metadata": {"name": "v"}, "spec": {"csi": {"driver": "d", "volumeHandle": "v"}}});
    let volume = Raw::new(volume).unwrap();
    state.cluster.set_volume(&volume);
    for name in ["a", "b"] {
        let node = json!({"metadata": {"name": name}});
        state.cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    let attachment = |uid: &str, node: &str| -> Arc<Raw> {
        let spec = json!({"nodeName": node, "attacher": "d", "source": {"persistentVolumeName": "v"}});
        let object = json!({"metadata": {"name": "x", "uid": uid}, "spec": spec});
        Arc::new(Raw::new(object).unwrap())
    };
    let (first, second) = (attachment("1", "a"), attachment("2", "b"));
    for (old, new, expected) in [
        (None, first.clone(), [1, 0]),
        (Some(first.clone()), first.clone(), [1, 0]),
        (Some(first), second, [0, 1]),
    ] {
        state.attachment_event(Event::Applied { old, new });
        let volumes = &state.cluster.volumes;
        let count = |node: &str| volumes.uses(state.cluster.find(node).unwrap()).count("d");
        assert_eq!(["a", "b"].map(count), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_volumes_that_others_make() {
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = asked.clone();
    let serve = move |request: http::Request<Body>| {
        let path = request.uri().path().to_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        log.lock().push(format!("{} {name}", request.method()));
        async { Ok::<_, Infallible>(http::Response::new(Body::from(b"{\"metadata\": {}}".to_vec()))) }
    };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let mut state = scheduler(&client, &scope);
    let raw = |object| Raw::new(object).unwrap();
    state.cluster.set_class(&raw(
        json!({"metadata": {"name": "c"}, "provisioner": "d", "volumeBindingMode": "WaitForFirstConsumer"}),
    ));
    state.cluster.set_claim(&raw(json!({"metadata": {"name": "v", "namespace": "d", "uid": "v", "resourceVersion": "1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "resources": {"requests": {"storage": "1Gi"}}}})));
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"pods": "9"}}});
    state.cluster.set_node(&serde_json::from_value(node).unwrap());
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]);
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": [{"name": "c"}], "volumes": volumes}});
    state.pod_applied(&serde_json::from_value(pod).unwrap());
    state.schedule_next();
    assert_eq!(state.bindings.len(), 1);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), state.finish());
    assert!(ended.await.is_ok());
    let asked = asked.lock();
    assert!(asked.contains(&"PATCH v".to_owned()), "{asked:?}");
    assert!(
        !asked
            .iter()
            .any(|line| line.contains("events") || line.contains("binding")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn the_labels_of_namespaces_are_heard_of() {
    let mut state = without_informers();
    let namespace = |team: &str| {
        let namespace = json!({"metadata": {"name": "d", "labels": {"team": team}}});
        Arc::new(serde_json::from_value::<k8s_openapi::api::core::v1::Namespace>(namespace).unwrap())
    };
    let team = |state: &Scheduler| {
        state
            .cluster
            .namespaces()
            .labels("d")
            .map(|labels| labels["team"].clone())
    };
    for name in ["x", "y"] {
        let new = namespace(name);
        state.namespace_event(Event::Applied { old: None, new });
        assert_eq!(team(&state).as_deref(), Some(name));
    }
    state.namespace_event(Event::Deleted(namespace("y")));
    assert_eq!(team(&state), None);
}

#[tokio::test]
async fn who_is_to_be_spread_is_tried_again_when_an_empty_domain_goes() {
    let mut state = without_informers();
    let node = |name: &str, cordoned: bool| {
        let node = json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": {"unschedulable": cordoned},
            "status": {"allocatable": {"cpu": "5", "memory": "1Gi", "pods": "9"}}});
        Arc::new(serde_json::from_value::<k8s_openapi::api::core::v1::Node>(node).unwrap())
    };
    let pod = |name: &str, node: Option<&str>| {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
        let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c"}], "nodeName": node, "topologySpreadConstraints": [constraint]}});
        serde_json::from_value::<Pod>(pod).unwrap()
    };
    for (name, cordoned) in [("a", false), ("b", true)] {
        let new = node(name, cordoned);
        state.node_event(Event::Applied { old: None, new });
    }
    state.pod_applied(&pod("runs", Some("a")));
    state.pod_applied(&pod("waits", None));
    state.schedule_next();
    assert!(!state.queue.has_next(), "it would be one too many in a");
    state.node_event(Event::Deleted(node("b", true)));
    assert!(state.queue.has_next());
}
