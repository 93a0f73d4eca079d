//! Phase, conditions and containers' states, as tables: what the node knows in, what the API shows out.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::containers::FailureKind;
use crate::record::{Exit, Health, Sandbox, SandboxStep, StartError, Verdict};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "a", "image": "i"}]);
    }
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
}

fn instance(exit: Option<i32>) -> Instance {
    Instance {
        id: "1".into(),
        sandbox: "s".into(),
        attempt: 0,
        image: "i".into(),
        image_name: "i:1".into(),
        image_id: "sha".into(),
        started_at: Some(at(100)),
        exit: exit.map(|code| Exit {
            code,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
            finished_at: at(200),
        }),
        stop_signal: None,
        user: None,
    }
}

/// What a container is at, in short.
fn container(state: &str) -> ContainerRecord {
    let (current, ready) = match state {
        "new" => (None, false),
        "running" => (Some(instance(None)), false),
        "ready" => (Some(instance(None)), true),
        code => (Some(instance(code.parse().ok())), false),
    };
    ContainerRecord {
        current,
        health: Health {
            started: ready || state == "running",
            ready,
            ..Health::default()
        },
        ..ContainerRecord::default()
    }
}

fn record(containers: &[(&str, &str)]) -> PodRecord {
    PodRecord {
        admitted: true,
        start_time: Some(at(90)),
        sandbox: SandboxStep::Ready(std::sync::Arc::new(Sandbox {
            id: "s".into(),
            attempt: 0,
            pid: 1,
            netns: None,
            ips: vec!["10.244.0.2".into()],
            cgroup: String::new(),
            handler: String::new(),
        })),
        containers: containers
            .iter()
            .map(|(name, state)| ((*name).to_owned(), container(state)))
            .collect(),
        ..PodRecord::default()
    }
}

fn shown(pod: &Pod, record: &PodRecord) -> Value {
    let status = status(pod, &PodStatus::default(), record, "10.0.0.1", at(300));
    serde_json::to_value(status).unwrap()
}

fn condition<'a>(status: &'a Value, type_: &str) -> (&'a str, &'a str, &'a str) {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|c| c["type"] == type_).unwrap();
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn phases() {
    let sidecar = json!({"name": "s", "image": "i", "restartPolicy": "Always"});
    let two = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    for (spec, containers, expected) in [
        (json!({}), vec![], "Pending"),
        (json!({}), vec![("a", "new")], "Pending"),
        (json!({}), vec![("a", "running")], "Running"),
        (json!({}), vec![("a", "1")], "Running"),
        (json!({"restartPolicy": "Never"}), vec![("a", "0")], "Succeeded"),
        (json!({"restartPolicy": "Never"}), vec![("a", "1")], "Failed"),
        (json!({"restartPolicy": "OnFailure"}), vec![("a", "1")], "Running"),
        (json!({"restartPolicy": "OnFailure"}), vec![("a", "0")], "Succeeded"),
        (
            json!({"containers": two}),
            vec![("a", "ready"), ("b", "new")],
            "Pending",
        ),
        (
            json!({"containers": two, "restartPolicy": "Never"}),
            vec![("a", "0"), ("b", "ready")],
            "Running",
        ),
        (
            json!({"containers": two, "restartPolicy": "Never"}),
            vec![("a", "0"), ("b", "2")],
            "Failed",
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "i"}]}),
            vec![("i", "running")],
            "Pending",
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "i"}], "restartPolicy": "Never"}),
            vec![("i", "1")],
            "Failed",
        ),
        (
            json!({"initContainers": [sidecar]}),
            vec![("s", "ready"), ("a", "ready")],
            "Running",
        ),
        (
            json!({"initContainers": [sidecar], "restartPolicy": "Never"}),
            vec![("s", "0"), ("a", "0")],
            "Succeeded",
        ),
    ] {
        let status = shown(&pod(spec.clone()), &record(&containers));
        assert_eq!(status["phase"], expected, "{spec} {containers:?}");
    }
}

#[test]
fn a_verdict_fails_the_pod_and_a_terminal_phase_stays() {
    let mut turned_away = record(&[]);
    turned_away.admitted = false;
    turned_away.verdict = Some(Verdict {
        reason: "OutOfcpu".into(),
        message: "no cpu".into(),
    });
    let status = shown(&pod(json!({})), &turned_away);
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Failed"), &json!("OutOfcpu"))
    );
    let old: PodStatus = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    let new = super::status(&pod(json!({})), &old, &record(&[("a", "ready")]), "10.0.0.1", at(300));
    assert_eq!(new.phase.as_deref(), Some("Succeeded"));
}

#[test]
fn a_phase_is_terminal_when_nothing_runs_any_more() {
    let old: PodStatus = serde_json::from_value(json!({"phase": "Running"})).unwrap();
    let sidecar =
        json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}], "restartPolicy": "Never"});
    let late = Verdict {
        reason: "DeadlineExceeded".into(),
        message: "too long".into(),
    };
    for (spec, verdict, containers, phase, reason) in [
        (json!({}), Some(&late), [("a", "ready")].as_slice(), "Running", None),
        (
            json!({}),
            Some(&late),
            &[("a", "137")],
            "Failed",
            Some("DeadlineExceeded"),
        ),
        (sidecar.clone(), None, &[("s", "ready"), ("a", "0")], "Running", None),
        (sidecar.clone(), None, &[("s", "ready"), ("a", "1")], "Running", None),
        (sidecar, None, &[("s", "0"), ("a", "0")], "Succeeded", None),
    ] {
        let mut record = record(containers);
        record.verdict = verdict.cloned();
        let status = super::status(&pod(spec), &old, &record, "10.0.0.1", at(300));
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref()),
            (Some(phase), reason),
            "{containers:?}"
        );
    }
}

#[test]
fn a_pod_that_is_held_says_why() {
    let mut held = record(&[]);
    held.admitted = false;
    held.held_by = Some("spec.hostUsers".into());
    let spec = pod(json!({"initContainers": [{"name": "i", "image": "i"}]}));
    let why = json!({"reason": "CreateContainerConfigError", "message": "spec.hostUsers: not in this version of mk8s"});
    let mut status = shown(&spec, &held);
    for list in ["containerStatuses", "initContainerStatuses"] {
        assert_eq!(status[list][0]["state"]["waiting"], why, "{list}");
    }
    assert_eq!(
        (&status["phase"], condition(&status, "Initialized").0),
        (&json!("Pending"), "False")
    );
    // It is told again by the next agent, and not once it can be done.
    held.held_by = Some("spec.resources".into());
    let old: PodStatus = serde_json::from_value(status.take()).unwrap();
    let next = super::status(&spec, &old, &held, "10.0.0.1", at(300));
    let next = serde_json::to_value(next).unwrap();
    let told = &next["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(told, "spec.resources: not in this version of mk8s");
    let taken = super::status(&spec, &old, &record(&[("i", "running")]), "10.0.0.1", at(300));
    let taken = serde_json::to_value(taken).unwrap();
    assert_eq!(
        taken["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
}

#[test]
fn conditions_of_a_pod() {
    let gate = json!({"readinessGates": [{"conditionType": "example.com/g"}]});
    let missing = "corresponding condition of pod readiness gate \"example.com/g\" does not exist.";
    let init = json!({"initContainers": [{"name": "i", "image": "i"}]});
    let unready = ("False", "ContainersNotReady", "containers with unready status: [a]");
    let uninitialized = (
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [i]",
    );
    for (spec, containers, type_, expected) in [
        (json!({}), vec![("a", "ready")], "Ready", ("True", "", "")),
        (json!({}), vec![("a", "running")], "Ready", unready),
        (json!({}), vec![("a", "running")], "ContainersReady", unready),
        (json!({}), vec![("a", "running")], "Initialized", ("True", "", "")),
        (json!({}), vec![], "PodReadyToStartContainers", ("True", "", "")),
        (json!({}), vec![], "PodScheduled", ("True", "", "")),
        (
            gate.clone(),
            vec![("a", "ready")],
            "Ready",
            ("False", "ReadinessGatesNotReady", missing),
        ),
        (gate, vec![("a", "ready")], "ContainersReady", ("True", "", "")),
        (init.clone(), vec![("i", "running")], "Initialized", uninitialized),
        (init, vec![("i", "0"), ("a", "ready")], "Initialized", ("True", "", "")),
        (
            json!({"restartPolicy": "Never"}),
            vec![("a", "0")],
            "Ready",
            ("False", "PodCompleted", ""),
        ),
        (
            json!({"restartPolicy": "Never"}),
            vec![("a", "1")],
            "Ready",
            ("False", "PodFailed", ""),
        ),
    ] {
        let status = shown(&pod(spec.clone()), &record(&containers));
        assert_eq!(condition(&status, type_), expected, "{spec} {containers:?} {type_}");
    }
}

#[test]
fn others_conditions_stay_and_times_change_with_the_status_alone() {
    let old: PodStatus = serde_json::from_value(json!({"conditions": [
        {"type": "example.com/x", "status": "True"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"},
        {"type": "ContainersReady", "status": "False", "lastTransitionTime": "1970-01-01T00:01:00Z"},
    ]}))
    .unwrap();
    let new = super::status(&pod(json!({})), &old, &record(&[("a", "ready")]), "10.0.0.1", at(300));
    let new = serde_json::to_value(new).unwrap();
    let since = |type_: &str| {
        let all = new["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == type_).unwrap()["lastTransitionTime"].clone()
    };
    assert_eq!(condition(&new, "example.com/x").0, "True");
    assert_eq!(since("Ready"), "1970-01-01T00:01:00Z");
    assert_eq!(since("ContainersReady"), "1970-01-01T00:05:00Z");
}

#[test]
fn why_a_container_waits() {
    let failed = |failure: images::Failure, backing_off| ContainerRecord {
        image: ImageStep::Failed {
            failure,
            failed_at: at(290),
            backing_off,
        },
        ..ContainerRecord::default()
    };
    let pull = || images::Failure::Pull("refused".into());
    let config = ContainerRecord {
        start_error: Some(StartError {
            kind: FailureKind::Config,
            message: "configmap \"m\" not found".into(),
            at: at(290),
            left_instance: false,
        }),
        ..ContainerRecord::default()
    };
    let mut crashed = container("1");
    crashed.crash = Some(backoff::next(None, at(200), at(299)));
    if let Some(exit) = crashed.current.as_mut().and_then(|i| i.exit.as_mut()) {
        exit.finished_at = at(299);
    }
    for (record_of_a, reason, message) in [
        (ContainerRecord::default(), "ContainerCreating", None),
        (failed(pull(), false), "ErrImagePull", Some("refused")),
        (
            failed(pull(), true),
            "ImagePullBackOff",
            Some("Back-off pulling image \"i\": ErrImagePull: refused"),
        ),
        (
            failed(images::Failure::NeverPull { image: "i".into() }, true),
            "ErrImageNeverPull",
            Some("Container image \"i\" is not present with pull policy of Never"),
        ),
        (config, "CreateContainerConfigError", Some("configmap \"m\" not found")),
        (
            crashed,
            "CrashLoopBackOff",
            Some("back-off 10s restarting failed container=a pod=p_n(u)"),
        ),
    ] {
        let mut record = record(&[]);
        record.containers.insert("a".into(), record_of_a);
        let status = shown(&pod(json!({})), &record);
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        assert_eq!(waiting["reason"], reason, "{waiting}");
        assert_eq!(waiting["message"].as_str(), message, "{reason}");
    }
}

#[test]
fn a_running_and_an_ended_container() {
    let running = shown(&pod(json!({})), &record(&[("a", "ready")]));
    let a = &running["containerStatuses"][0];
    assert_eq!(a["state"]["running"]["startedAt"], "1970-01-01T00:01:40Z");
    assert_eq!(
        (&a["ready"], &a["started"], &a["containerID"], &a["image"]),
        (&json!(true), &json!(true), &json!("containerd://1"), &json!("i:1"))
    );
    assert_eq!(
        (&running["podIP"], &running["hostIP"]),
        (&json!("10.244.0.2"), &json!("10.0.0.1"))
    );
    let mut starting = record(&[("a", "ready")]);
    if let Some(r) = starting.containers.get_mut("a") {
        r.activity = Activity::Starting;
    }
    let a = shown(&pod(json!({})), &starting)["containerStatuses"][0].clone();
    assert_eq!(
        (&a["ready"], a["state"]["running"].is_null()),
        (&json!(false), true),
        "its hook runs"
    );
    let ended = shown(&pod(json!({"restartPolicy": "Never"})), &record(&[("a", "3")]));
    let terminated = &ended["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&terminated["exitCode"], &terminated["reason"]),
        (&json!(3), &json!("Error"))
    );
}

#[test]
fn what_the_api_lets_not_begin_again_stays_as_it_ended() {
    let init = json!([{"name": "b", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}]);
    for (policy, exit, expected) in [
        ("Always", "0", "running"),
        ("OnFailure", "0", "terminated"),
        ("OnFailure", "3", "running"),
        ("Never", "0", "terminated"),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "initContainers": init}));
        let before = status(
            &pod,
            &PodStatus::default(),
            &record(&[("b", exit), ("s", exit)]),
            "10.0.0.1",
            at(250),
        );
        // In another sandbox they run again, whatever the policy.
        let again = record(&[("b", "running"), ("s", "running")]);
        let after = status(&pod, &before, &again, "10.0.0.1", at(300));
        let after = serde_json::to_value(after).unwrap();
        let state = |index: usize| {
            after["initContainerStatuses"][index]["state"]
                .as_object()
                .unwrap()
                .keys()
                .next()
        };
        assert_eq!(state(0).unwrap(), expected, "{policy} {exit}");
        assert_eq!(state(1).unwrap(), "running", "a sidecar, {policy} {exit}");
    }
}
