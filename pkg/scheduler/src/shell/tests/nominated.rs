//! Nominations, and who pushes others away.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

pub fn full_node(state: &mut Scheduler) {
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "pods": "9"}}});
    state.cluster.set_node(&serde_json::from_value(node).unwrap());
}

/// A pod of two CPUs.
fn large(name: &str, priority: i32, more: serde_json::Value) -> Pod {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "2"}}});
    let mut pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name},
        "spec": {"containers": [container], "priority": priority}});
    mk8s_api::patch::merge(&mut pod, &more).unwrap();
    serde_json::from_value(pod).unwrap()
}

#[tokio::test]
async fn who_pushes_others_away_is_not_tried_before_they_are_seen_going() {
    let mut state = without_informers();
    full_node(&mut state);
    let low = |more| large("low", 0, more);
    state.pod_applied(&low(json!({"spec": {"nodeName": "n"}})));
    state.pod_applied(&large("high", 9, json!({})));
    state.schedule_next();
    assert_eq!(state.cluster.nominated.node_of("high"), Some("n"));
    // Room comes elsewhere meanwhile.
    state.pod_applied(&large("other", 0, json!({"spec": {"nodeName": "m"}})));
    state.pod_event(Event::Deleted(Arc::new(large(
        "other",
        0,
        json!({"spec": {"nodeName": "m"}}),
    ))));
    assert!(!state.queue.has_next());
    let going = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}, "spec": {"nodeName": "n"}});
    state.pod_applied(&low(going));
    assert!(state.queue.has_next(), "what happened meanwhile is not forgotten");
}

/// Its binding was under way, so that it has no node when it goes.
#[tokio::test]
async fn a_victim_that_was_assumed_is_seen_going() {
    let mut state = without_informers();
    full_node(&mut state);
    state.pod_applied(&large("low", 0, json!({})));
    let info = state.queue.pop().unwrap();
    let node = state.cluster.find("n").unwrap().id;
    state.assign(info, node);
    state.pod_applied(&large("high", 9, json!({})));
    state.schedule_next();
    assert_eq!(state.cluster.nominated.node_of("high"), Some("n"));
    let going = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["a/b"]}});
    state.pod_applied(&large("low", 0, going));
    state.queue.retry("high", Instant::now());
    assert!(state.queue.has_next());
}

#[tokio::test]
async fn a_pod_that_is_assumed_is_not_nominated_beside() {
    let mut state = without_informers();
    full_node(&mut state);
    state.pod_applied(&large("p", 0, json!({})));
    let info = state.queue.pop().unwrap();
    let node = state.cluster.find("n").unwrap().id;
    state.assign(info, node);
    state.pod_applied(&large("p", 0, json!({"status": {"nominatedNodeName": "n"}})));
    assert_eq!(state.cluster.nominated.node_of("p"), None);
    assert_eq!(state.cluster.find("n").unwrap().requested.milli_cpu, 2000);
}

#[tokio::test]
async fn room_that_nobody_is_nominated_to_any_more_is_told() {
    for ends in ["goes", "is nominated nowhere"] {
        let mut state = without_informers();
        full_node(&mut state);
        let nominee = large("nominee", 9, json!({"status": {"nominatedNodeName": "n"}}));
        state.pod_applied(&nominee);
        let _ = state.queue.pop();
        state.pod_applied(&large("waits", 1, json!({})));
        state.schedule_next();
        assert!(!state.queue.has_next(), "it is left to the other");
        match ends {
            "goes" => state.pod_event(Event::Deleted(Arc::new(nominee))),
            _ => state.pod_applied(&large("nominee", 9, json!({}))),
        }
        assert!(state.queue.has_next(), "{ends}");
    }
}

#[tokio::test]
async fn an_event_from_before_what_was_reported_undoes_nothing() {
    let mut state = without_informers();
    full_node(&mut state);
    let nominated = |node: &str| large("p", 9, json!({"status": {"nominatedNodeName": node}}));
    state.pod_applied(&nominated("n"));
    let pod = state.queue.get("p").unwrap().clone();
    state.unnominate("p", None);
    state.report(&pod, "Unschedulable", "no".into(), Some("".into()));
    state.pod_applied(&nominated("n"));
    assert_eq!(state.cluster.nominated.node_of("p"), None);
    state.pod_applied(&nominated(""));
    // What comes after it counts again.
    state.pod_applied(&nominated("n"));
    assert_eq!(state.cluster.nominated.node_of("p"), Some("n"));
}

#[tokio::test]
async fn who_names_a_node_that_is_not_there_is_tried_when_it_comes() {
    let mut state = without_informers();
    let node = |name: &str| {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "pods": "9"}}});
        Arc::new(serde_json::from_value::<k8s_openapi::api::core::v1::Node>(node).unwrap())
    };
    state.node_event(Event::Applied {
        old: None,
        new: node("a"),
    });
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["b"]});
    let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
    state.pod_applied(&large("p", 0, json!({"spec": {"affinity": affinity}})));
    state.schedule_next();
    assert!(!state.queue.has_next());
    state.node_event(Event::Applied {
        old: None,
        new: node("b"),
    });
    assert!(state.queue.has_next());
}

#[tokio::test]
async fn who_takes_the_place_of_another_that_was_to_have_it_waits_for_its_own_victims() {
    let mut state = without_informers();
    full_node(&mut state);
    state.pod_applied(&large("low", 0, json!({"spec": {"nodeName": "n"}})));
    state.pod_applied(&large("mid", 5, json!({"status": {"nominatedNodeName": "n"}})));
    state.pod_applied(&large("high", 9, json!({})));
    state.schedule_next();
    assert_eq!(state.cluster.nominated.node_of("high"), Some("n"));
    assert_eq!(state.cluster.nominated.node_of("mid"), None);
    let next: Vec<_> = std::iter::from_fn(|| state.queue.pop())
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(next, ["mid"], "what became free by that is no news for who did it");
}

#[tokio::test]
async fn nothing_is_said_any_more_of_a_pod_that_others_bound() {
    let mut state = without_informers();
    full_node(&mut state);
    state.pod_applied(&large("p", 0, json!({})));
    let pod = state.queue.get("p").unwrap().clone();
    // The first is on its way.
    for message in ["one", "two"] {
        state.report(&pod, "Unschedulable", message.into(), None);
    }
    assert_eq!(state.reports.len(), 2);
    state.pod_applied(&large("p", 0, json!({"spec": {"nodeName": "n"}})));
    assert_eq!(state.reports.len(), 1);
}

#[tokio::test]
async fn what_changed_while_it_was_tried_is_worth_another_try() {
    let mut state = without_informers();
    full_node(&mut state);
    state.pod_applied(&large("p", 0, json!({})));
    let pod = state.queue.pop().unwrap();
    state.pod_applied(&large("p", 0, json!({"metadata": {"labels": {"app": "web"}}})));
    state.wait(&pod, Refusal::of_all("none is good"));
    assert!(state.queue.has_next());
}

#[tokio::test]
async fn of_a_pod_that_others_bound_meanwhile_nothing_is_written() {
    let refused = |code: u16, message: &str| {
        let status = json!({"status": "Failure", "code": code, "reason": "", "message": message});
        let status: kube::core::Status = serde_json::from_value(status).unwrap();
        BindError::from(kube::Error::Api(status.boxed()))
    };
    for (code, written) in [(404, 0), (409, 0), (500, 1)] {
        let mut state = without_informers();
        full_node(&mut state);
        state.pod_applied(&large("p", 0, json!({})));
        let pod = state.queue.pop().unwrap();
        state.assign(pod.clone(), state.cluster.find("n").unwrap().id);
        let error = refused(code, "pod p is already assigned to node \"m\"");
        let said = "running Bind plugin \"DefaultBinder\": pod p is already assigned to node \"m\"";
        assert_eq!(error.to_string(), said);
        let node = "n".into();
        state.bound(Binding { pod, node }, Err(error));
        assert_eq!(state.reports.len(), written, "{code}");
    }
}
