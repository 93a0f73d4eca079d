//! The plan as tables: pods are told by `ordinal:revision:state`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::{Plan, Step, View};
use super::*;

/// A set of three with these fields of its spec, whose revisions are `old` and `new`.
fn set(changes: &Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "set", "generation": 4},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        },
    });
    for (key, value) in changes.as_object().unwrap() {
        set["spec"][key] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

/// States: `ok`, `young` (ready since two seconds), `unready`, `pending`, `failed`, `succeeded`, `going` (being deleted).
fn pods(text: &str) -> Vec<Arc<Pod>> {
    let pod = |text: &str| -> Arc<Pod> {
        let [ordinal, revision, state] = text.split(':').collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        let name = format!("web-{ordinal}");
        let (phase, ready) = match state {
            "ok" | "going" => ("Running", Some("2024-01-01T00:00:00Z")),
            "young" => ("Running", Some("2024-01-01T00:00:58Z")),
            "unready" => ("Running", None),
            "pending" => ("Pending", None),
            "failed" => ("Failed", None),
            "succeeded" => ("Succeeded", None),
            _ => panic!("{text}"),
        };
        let conditions: Vec<Value> = ready
            .map(|since| json!({"type": "Ready", "status": "True", "lastTransitionTime": since}))
            .into_iter()
            .collect();
        let deleted = (state == "going").then_some("2024-01-01T00:00:59Z");
        let labels = json!({"controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name});
        let metadata =
            json!({"name": name, "uid": format!("uid{ordinal}"), "labels": labels, "deletionTimestamp": deleted});
        let status = json!({"phase": phase, "conditions": conditions});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
    };
    text.split_whitespace().map(pod).collect()
}

fn told(plan: &Plan) -> String {
    let step = |step: &Step| match step {
        Step::Create { ordinal, current } => format!("+{ordinal}:{}", if *current { "old" } else { "new" }),
        Step::Replace { ordinal, .. } => format!("!{ordinal}"),
        Step::Tend { ordinal, .. } => format!("~{ordinal}"),
        Step::Delete(pod) => format!("-{}", meta::name(&**pod).trim_start_matches("web-")),
    };
    let phases = plan.phases.iter().filter(|phase| !phase.is_empty());
    let phases: Vec<String> = phases
        .map(|phase| phase.iter().map(step).collect::<Vec<_>>().join(" "))
        .collect();
    phases.join(" | ")
}

fn with<T>(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    claims: &BTreeMap<&str, ObjectMeta>,
    ask: impl Fn(&View<'_>) -> T,
) -> T {
    ask(&View {
        set,
        current: "old",
        update: "new",
        pods,
        claim: &|name| claims.get(name).cloned(),
        now: "2024-01-01T00:01:00Z".parse().unwrap(),
    })
}

fn check(changes: &Value, rows: &[(&str, &str)]) {
    let set = set(changes);
    for (found, expected) in rows {
        let plan = with(&set, &pods(found), &BTreeMap::new(), |view| view.plan());
        assert_eq!(told(&plan), *expected, "{found} {changes}");
    }
}

#[test]
fn ordered_pods_are_made_one_after_the_other() {
    let rows = [
        ("", "+0:new"),
        ("0:new:pending", ""),
        ("0:new:unready", ""),
        ("0:new:ok", "+1:new"),
        ("0:new:ok 1:new:ok", "+2:new"),
        ("0:new:ok 1:new:ok 2:new:ok", ""),
        // A hole is filled first, and nothing after it is touched.
        ("1:new:ok 2:old:ok", "+0:new"),
        ("0:new:going 1:new:ok", ""),
        ("0:new:failed 1:new:ok", "!0"),
        ("0:new:succeeded", "!0"),
    ];
    check(&json!({}), &rows);
    check(
        &json!({"minReadySeconds": 5}),
        &[("0:new:young", ""), ("0:new:ok", "+1:new")],
    );
    check(
        &json!({"ordinals": {"start": 7}}),
        &[("", "+7:new"), ("7:new:ok", "+8:new"), ("0:new:ok", "+7:new")],
    );
    check(&json!({"replicas": 0}), &[("", "")]);
}

#[test]
fn ordered_pods_go_one_after_the_other_from_the_last() {
    let rows = [
        ("0:new:ok 1:new:ok 2:new:ok", "-2"),
        ("0:new:ok 1:new:ok 2:new:going", ""),
        // One that is unwell waits for those before it, unless it is the first of them.
        ("0:new:ok 1:new:ok 2:new:unready", "-2"),
        ("0:new:ok 1:new:unready 2:new:unready", ""),
        ("0:new:ok 1:new:unready 2:new:ok", "-2"),
        ("0:new:unready 1:new:ok 2:new:ok", ""),
        ("0:new:ok 10:new:ok 9:new:ok", "-10"),
    ];
    check(&json!({"replicas": 1}), &rows);
    check(
        &json!({"replicas": 1, "minReadySeconds": 5}),
        &[("0:new:ok 1:new:young", "-1"), ("0:new:young 1:new:ok", "")],
    );
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let rows = [
        ("", "+0:new +1:new +2:new"),
        ("1:new:pending", "+0:new +2:new"),
        (
            "0:new:failed 1:new:going 3:new:unready 4:new:going 5:new:ok",
            "!0 +2:new | -5 -3",
        ),
        // Old revisions are replaced one by one all the same.
        ("0:old:ok 1:old:ok 2:old:ok", "-2"),
        ("0:old:ok 1:old:ok 2:new:unready", ""),
        ("0:old:ok 1:old:ok 2:old:failed", "!2"),
    ];
    check(&json!({"podManagementPolicy": "Parallel"}), &rows);
    let huge = set(&json!({"podManagementPolicy": "Parallel", "replicas": i32::MAX}));
    let plan = with(&huge, &[], &BTreeMap::new(), |view| view.plan());
    assert_eq!(plan.phases[0].len(), crate::replicas::BURST);
}

#[test]
fn a_rollout_replaces_pods_from_the_last_to_the_partition() {
    let rows = [
        ("0:old:ok 1:old:ok 2:old:ok", "-2"),
        ("0:old:ok 1:old:ok 2:new:unready", ""),
        ("0:old:ok 1:old:ok 2:new:ok", "-1"),
        ("0:old:ok 1:new:ok 2:new:ok", "-0"),
        // A broken pod stops an ordered rollout, also that which would mend it.
        ("0:old:ok 1:old:ok 2:old:unready", ""),
    ];
    check(&json!({}), &rows);
    let rolling = |partition: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    check(
        &rolling(2),
        &[
            ("0:old:ok 1:old:ok 2:old:ok", "-2"),
            ("0:old:ok 1:old:ok 2:new:ok", ""),
            // What is below the partition comes back as it was.
            ("0:old:ok 2:new:ok", "+1:old"),
            ("0:old:ok 1:old:ok", "+2:new"),
        ],
    );
    check(&rolling(9), &[("0:old:ok 1:old:ok 2:old:ok", "")]);
    check(
        &json!({"updateStrategy": {"type": "OnDelete"}}),
        &[("0:old:ok 1:old:ok 2:old:ok", ""), ("0:old:ok 1:old:ok", "+2:new")],
    );
    let mut started = rolling(1);
    started["ordinals"] = json!({"start": 5});
    check(
        &started,
        &[("5:old:ok 6:old:ok 7:new:ok", "-6"), ("6:new:ok 7:new:ok", "+5:old")],
    );
}

#[test]
fn claims_are_made_and_go_with_whom_the_policy_says() {
    let spec = json!({
        "replicas": 2, "podManagementPolicy": "Parallel", "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {}}],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
    });
    let volumes = |pods: Vec<Arc<Pod>>| -> Vec<Arc<Pod>> {
        let claimed = |pod: &Arc<Pod>| {
            let mut value = serde_json::to_value(&**pod).unwrap();
            let claim = format!("v-{}", meta::name(&**pod));
            let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
            value["spec"] = json!({"containers": [], "volumes": [volume]});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        pods.iter().map(claimed).collect()
    };
    let owned = |pod: &str| -> ObjectMeta {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": "uid2", "controller": true});
        serde_json::from_value(json!({"ownerReferences": [owner]})).unwrap()
    };
    let free = ObjectMeta::default;
    let both = || BTreeMap::from([("v-web-0", free()), ("v-web-1", free())]);
    let lacking = BTreeMap::from([("v-web-0", free())]);
    let scaled = BTreeMap::from([("v-web-2", free())]);
    let given = BTreeMap::from([("v-web-2", owned("web-2"))]);
    let stale = BTreeMap::from([("v-web-0", owned("web-0"))]);
    for (found, claims, expected) in [
        ("0:new:ok 1:new:pending", both(), ""),
        // Nobody makes a claim anew under a pod that runs.
        ("0:new:ok 1:new:pending", lacking, "~1"),
        ("0:new:ok 1:new:ok", BTreeMap::new(), ""),
        // The owner is there before the pod goes.
        ("0:new:ok 1:new:ok 2:new:ok", scaled, "~2 | -2"),
        ("0:new:ok 1:new:ok 2:new:ok", given, "-2"),
        ("1:new:ok", stale, ""),
    ] {
        let plan = with(&set(&spec), &volumes(pods(found)), &claims, |view| view.plan());
        assert_eq!(told(&plan), expected, "{found} {claims:?}");
    }
}

#[test]
fn the_status_counts_pods_and_ends_a_rollout() {
    let status = |changes: &Value, found: &str| {
        with(&set(changes), &pods(found), &BTreeMap::new(), |view| {
            view.status(view.plan().outdated, Some(0))
        })
    };
    let numbers = |changes: &Value, found: &str| {
        let s = status(changes, found);
        let n = |n: Option<i32>| n.unwrap_or(0);
        let counts = [
            s.replicas,
            n(s.ready_replicas),
            n(s.available_replicas),
            n(s.current_replicas),
            n(s.updated_replicas),
        ];
        (counts, s.current_revision.unwrap())
    };
    let row = |counts: [i32; 5], current: &str| (counts, current.to_owned());
    let slow = json!({"minReadySeconds": 5});
    assert_eq!(numbers(&json!({}), ""), row([0, 0, 0, 0, 0], "old"));
    assert_eq!(
        numbers(&slow, "0:old:ok 1:old:young 2:new:unready"),
        row([3, 2, 1, 2, 1], "old")
    );
    // The one that goes for the update is no current one any more; one that is being deleted is none either, but is there.
    assert_eq!(
        numbers(&json!({}), "0:old:ok 1:old:ok 2:old:ok"),
        row([3, 3, 3, 2, 0], "old")
    );
    assert_eq!(
        numbers(&json!({}), "0:old:ok 1:old:ok 2:old:going"),
        row([3, 3, 3, 2, 0], "old")
    );
    assert_eq!(
        numbers(&json!({}), "0:new:ok 1:new:ok 2:new:ok"),
        row([3, 3, 3, 3, 3], "new")
    );
    let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
    assert_eq!(
        numbers(&on_delete, "0:new:ok 1:new:ok 2:new:ok"),
        row([3, 3, 3, 0, 3], "old")
    );
    let found = status(&json!({}), "0:new:ok");
    assert_eq!((found.observed_generation, found.collision_count), (Some(4), Some(0)));
    assert_eq!(found.update_revision.as_deref(), Some("new"));
}
