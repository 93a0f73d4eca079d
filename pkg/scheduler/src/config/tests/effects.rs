//! What a profile's arguments do to decisions.
use std::sync::Arc;

use serde_json::json;

use super::profile;
use crate::cluster::Cluster;
use crate::cycle;
use crate::pod::PodInfo;

/// Which of three nodes a pod gets that asks for a CPU and `own`: "full" has 3 of 4 CPUs given away, "half" 2, "poor" has no
/// disk and no device, and nothing is on it.
fn decided(fields: &str, own: &[&str]) -> Result<String, String> {
    let (config, _) = profile(fields).unwrap();
    let profile = config.profiles.iter().next().unwrap();
    let mut cluster = Cluster::default();
    for (name, disk, used) in [("full", "ssd", 3), ("half", "ssd", 2), ("poor", "none", 0)] {
        let mut all = json!({"cpu": "4", "memory": "8Gi", "pods": "9"});
        if disk == "ssd" {
            all["a.b/device"] = json!("1");
        }
        let node = json!({"metadata": {"name": name, "labels": {"disk": disk}}, "status": {"allocatable": all}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
        let other = pod(&mut cluster, name, &used.to_string(), &[]);
        cluster.place(other, name);
    }
    let pod = pod(&mut cluster, "p", "1", own);
    cycle::prepare(&pod, profile, &mut cluster);
    let decision = cycle::decide(&pod, profile, &cluster, 0, |_| 0);
    let node = decision.node.map(|id| cluster.node(id).name.to_string());
    node.map_err(|refusal| refusal.message)
}

fn pod(cluster: &mut Cluster, uid: &str, cpu: &str, own: &[&str]) -> Arc<PodInfo> {
    let mut requests = json!({"cpu": cpu, "memory": format!("{}Gi", cpu.parse::<u32>().unwrap() * 2)});
    own.iter().for_each(|name| requests[*name] = json!("1"));
    let pod = json!({"metadata": {"uid": uid, "name": uid}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

#[test]
fn arguments_reach_their_plugins() {
    let config = |plugin: &str, args: &str| format!("pluginConfig: [{{name: {plugin}, args: {{{args}}}}}]");
    let curve = |points: &str| {
        let ratio = format!("requestedToCapacityRatio: {{shape: [{points}]}}");
        config(
            "NodeResourcesFit",
            &format!("scoringStrategy: {{type: RequestedToCapacityRatio, {ratio}}}"),
        )
    };
    let required = |value: &str| {
        let term = format!("matchExpressions: [{{key: disk, operator: In, values: [{value}]}}]");
        let terms = format!("nodeSelectorTerms: [{{{term}}}]");
        config(
            "NodeAffinity",
            &format!("addedAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{{terms}}}}}"),
        )
    };
    let preferred = "addedAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 9, preference: \
                     {matchExpressions: [{key: disk, operator: In, values: [ssd]}]}}]}";
    for (fields, own, expected) in [
        (String::new(), &[][..], "poor"),
        (
            config("NodeResourcesFit", "scoringStrategy: {type: MostAllocated}"),
            &[],
            "full",
        ),
        (
            curve("{utilization: 50, score: 0}, {utilization: 75, score: 10}, {utilization: 76, score: 0}"),
            &[],
            "half",
        ),
        (required("ssd"), &[], "half"),
        (required("none"), &[], "poor"),
        (config("NodeAffinity", preferred), &[], "half"),
        (String::new(), &["a.b/device"], "half"),
        (
            config("NodeResourcesFit", "ignoredResources: [a.b/device]"),
            &["a.b/device"],
            "poor",
        ),
        (
            config("NodeResourcesFit", "ignoredResourceGroups: [a.b]"),
            &["a.b/device"],
            "poor",
        ),
    ] {
        assert_eq!(decided(&fields, own).as_deref(), Ok(expected), "{fields}");
    }
    let refused = decided(&required("hdd"), &[]).unwrap_err();
    assert!(
        refused.starts_with("0/3 nodes are available: 3 node(s) didn't match scheduler-enforced node affinity."),
        "{refused}"
    );
}

#[test]
fn what_is_switched_off_is_not_asked() {
    for (point, plugin, own, expected) in [
        ("multiPoint", "NodeResourcesFit", &["no.such/device"][..], true),
        ("multiPoint", "NodeName", &["no.such/device"], false),
        ("multiPoint", "DefaultPreemption", &["no.such/device"], false),
    ] {
        let fields = format!("plugins: {{{point}: {{disabled: [{{name: {plugin}}}]}}}}");
        let decision = decided(&fields, own);
        assert_eq!(decision.is_ok(), expected, "{plugin}");
        let preempts = decision.is_err_and(|said| said.contains("preemption: "));
        assert_eq!(preempts, plugin == "NodeName", "{plugin}");
    }
}
