//! Where a pod can't go, and why: one function per reason, asked in upstream's order; the first that objects is the node's answer.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Taint;

use mk8s_api::taints::tolerates;

use crate::info::{NodeInfo, PodInfo};

/// A node's objection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The filter that objected.
    pub filter: Filter,
    /// Upstream's words, one or several reasons.
    pub reasons: Vec<Cow<'static, str>>,
    /// Nothing that happens to other pods would change it.
    pub unresolvable: bool,
}

/// The filters, as bits: an unschedulable pod remembers which ones stood in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The node is cordoned.
    NodeUnschedulable = 1,
    /// The pod names its node.
    NodeName = 2,
    /// The node is tainted.
    TaintToleration = 4,
    /// The pod's nodeSelector or node affinity.
    NodeAffinity = 8,
    /// A host port is taken.
    NodePorts = 16,
    /// Not enough of a resource.
    NodeResourcesFit = 32,
}

/// Every filter's bit.
pub const ANY: u32 = 63;

/// All filters in order.
const FILTERS: [fn(&PodInfo, &NodeInfo) -> Option<Objection>; 6] =
    [unschedulable, node_name, taints, affinity, ports, fit];

/// The first objection of the node against the pod.
pub fn check(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    FILTERS.iter().find_map(|filter| filter(pod, node))
}

fn object(filter: Filter, reason: &'static str, unresolvable: bool) -> Option<Objection> {
    Some(Objection {
        filter,
        reasons: vec![Cow::Borrowed(reason)],
        unresolvable,
    })
}

fn unschedulable(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    let cordoned = node
        .node
        .as_ref()
        .and_then(|n| n.spec.as_ref())
        .and_then(|s| s.unschedulable)
        .unwrap_or(false);
    if !cordoned {
        return None;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        value: None,
        time_added: None,
    };
    if pod.tolerations().iter().any(|t| tolerates(t, &taint)) {
        return None;
    }
    object(Filter::NodeUnschedulable, "node(s) were unschedulable", true)
}

fn node_name(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    let wanted = pod
        .pod
        .spec
        .as_ref()
        .and_then(|s| s.node_name.as_deref())
        .unwrap_or_default();
    if wanted.is_empty() || wanted == node.name {
        return None;
    }
    object(Filter::NodeName, "node(s) didn't match the requested node name", true)
}

fn taints(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    let untolerated = node
        .taints()
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .any(|taint| !pod.tolerations().iter().any(|t| tolerates(t, taint)));
    if untolerated {
        object(Filter::TaintToleration, "node(s) had untolerated taint(s)", true)
    } else {
        None
    }
}

fn affinity(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    if node.is_one_of(&pod.required) {
        return None;
    }
    object(
        Filter::NodeAffinity,
        "node(s) didn't match Pod's node affinity/selector",
        true,
    )
}

fn ports(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    if !pod
        .ports
        .iter()
        .any(|wanted| node.ports.iter().any(|taken| taken.conflicts(wanted)))
    {
        return None;
    }
    object(
        Filter::NodePorts,
        "node(s) didn't have free ports for the requested pod ports",
        false,
    )
}

fn fit(pod: &PodInfo, node: &NodeInfo) -> Option<Objection> {
    let (asked, used, all) = (&pod.requests, &node.requested, &node.allocatable);
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut unresolvable = false;
    let mut lacking = |asked: i64, used: i64, all: i64, reason: &dyn Fn() -> Cow<'static, str>| {
        if asked > 0 && asked > all - used {
            reasons.push(reason());
            unresolvable |= asked > all;
        }
    };
    lacking(1, used.pods, all.pods, &|| "Too many pods".into());
    lacking(asked.milli_cpu, used.milli_cpu, all.milli_cpu, &|| {
        "Insufficient cpu".into()
    });
    lacking(asked.memory, used.memory, all.memory, &|| "Insufficient memory".into());
    lacking(
        asked.ephemeral_storage,
        used.ephemeral_storage,
        all.ephemeral_storage,
        &|| "Insufficient ephemeral-storage".into(),
    );
    for (name, amount) in &asked.scalars {
        lacking(*amount, used.scalar(name), all.scalar(name), &|| {
            format!("Insufficient {name}").into()
        });
    }
    (!reasons.is_empty()).then_some(Objection {
        filter: Filter::NodeResourcesFit,
        reasons,
        unresolvable,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> PodInfo {
        let mut pod = json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [{"name": "c"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn node(spec: Value) -> NodeInfo {
        let mut info = NodeInfo::named("n");
        let node = json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": spec,
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2", "x.y/z": "1"}}});
        info.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        info
    }

    fn needs(resource: &str, amount: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {resource: amount}}}]})
    }

    #[test]
    fn each_filter_objects_in_upstreams_words() {
        let cordoned = json!({"unschedulable": true});
        let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
        for (p, n, expected) in [
            (json!({}), json!({}), None),
            (json!({}), cordoned.clone(), Some(("node(s) were unschedulable", true))),
            (tolerant.clone(), cordoned, None),
            (
                json!({}),
                tainted.clone(),
                Some(("node(s) had untolerated taint(s)", true)),
            ),
            (tolerant, tainted, None),
            (
                json!({}),
                json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}),
                None,
            ),
            (json!({"nodeSelector": {"a": "b"}}), json!({}), None),
            (
                json!({"nodeSelector": {"a": "c"}}),
                json!({}),
                Some(("node(s) didn't match Pod's node affinity/selector", true)),
            ),
            (needs("cpu", "1"), json!({}), None),
            (needs("cpu", "1001m"), json!({}), Some(("Insufficient cpu", true))),
            (needs("memory", "2Gi"), json!({}), Some(("Insufficient memory", true))),
            (needs("x.y/z", "2"), json!({}), Some(("Insufficient x.y/z", true))),
            (
                needs("no.such/thing", "1"),
                json!({}),
                Some(("Insufficient no.such/thing", true)),
            ),
        ] {
            let found = check(&pod(p.clone()), &node(n)).map(|o| (o.reasons[0].to_string(), o.unresolvable));
            assert_eq!(found, expected.map(|(r, u): (&str, bool)| (r.to_owned(), u)), "{p}");
        }
    }

    #[test]
    fn pods_on_the_node_take_its_ports_cpu_and_places() {
        let other = |uid: &str, spec: Value| {
            let mut info = pod(spec);
            let mut changed = (*info.pod).clone();
            changed.metadata.uid = Some(uid.to_owned());
            info.pod = Arc::new(changed);
            Arc::new(info)
        };
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        let mut n = node(json!({}));
        n.add_pod(&other("1", port.clone()));
        assert_eq!(check(&pod(port.clone()), &n).unwrap().filter, Filter::NodePorts);
        n.add_pod(&other("2", needs("cpu", "900m")));
        let objection = check(&pod(needs("cpu", "200m")), &n).unwrap();
        assert_eq!(objection.reasons, ["Too many pods", "Insufficient cpu"]);
        assert!(!objection.unresolvable);
        n.remove_pod("1");
        n.remove_pod("2");
        assert_eq!(check(&pod(port), &n), None);
        assert_eq!(
            n.requested,
            crate::resources::Resources {
                scalars: n.requested.scalars.clone(),
                ..Default::default()
            }
        );
    }
}
