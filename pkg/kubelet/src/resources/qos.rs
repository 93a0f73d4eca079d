//! QoS class of a pod, and the kernel's numbers that follow from it (shares, quota, OOM score).

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{limit, request};
use crate::pod;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Guaranteed => "Guaranteed",
            Class::Burstable => "Burstable",
            Class::BestEffort => "BestEffort",
        }
    }
}

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The length of the accounting period that a quota is a part of, in microseconds.
pub const CPU_PERIOD: u64 = 100_000;
const MIN_QUOTA: i64 = 1_000;
/// The kernel refuses more, and no host has as much.
const MAX_QUOTA: i64 = (1 << 44) - 1;
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// The pause container dies last of the pod.
pub const PAUSE_OOM_SCORE_ADJ: i32 = -998;
const GUARANTEED_OOM_SCORE_ADJ: i32 = -997;

pub fn class(pod: &Pod) -> Class {
    match pod::status(pod).qos_class.as_deref() {
        Some("Guaranteed") => return Class::Guaranteed,
        Some("Burstable") => return Class::Burstable,
        Some("BestEffort") => return Class::BestEffort,
        _ => {}
    }
    let mut any = false;
    let mut guaranteed = true;
    for container in pod::all_containers(pod) {
        for resource in ["cpu", "memory"] {
            let limit = limit(container, resource).filter(|v| *v > 0);
            let request = request(container, resource).filter(|v| *v > 0).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => Class::BestEffort,
        (true, true) => Class::Guaranteed,
        (true, false) => Class::Burstable,
    }
}

pub fn shares(milli_cpu: i64) -> u64 {
    if milli_cpu <= 0 {
        return MIN_SHARES;
    }
    ((milli_cpu as u64).saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

pub fn quota(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu.saturating_mul(CPU_PERIOD as i64) / 1000).clamp(MIN_QUOTA, MAX_QUOTA))
}

/// cgroup v2's weight for v1's shares, by the mapping that runc uses.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - 2) * 9999 / 262_142
}

/// The kernel's limits of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub memory: Option<i64>,
    pub pids: Option<i64>,
}

pub fn container_limits(container: &Container) -> Limits {
    let cpu_limit = limit(container, "cpu").unwrap_or(0);
    let cpu = request(container, "cpu").unwrap_or(cpu_limit);
    Limits {
        shares: Some(shares(cpu)),
        quota: quota(cpu_limit),
        memory: limit(container, "memory").filter(|m| *m > 0),
        pids: None,
    }
}

/// Limits of the pod's own cgroup: a limit holds for the pod only when every container has one.
pub fn pod_limits(pod: &Pod) -> Limits {
    let requests = super::pod_requests(pod);
    let cpu_request = requests.get("cpu").copied().unwrap_or(0);
    let total = |resource: &str| -> Option<i64> {
        let all: Option<Vec<i64>> = pod::containers(pod)
            .iter()
            .map(|c| limit(c, resource).filter(|v| *v > 0))
            .collect();
        let sum = all?.into_iter().fold(0, i64::saturating_add);
        let init = pod::init_containers(pod)
            .iter()
            .map(|c| limit(c, resource).filter(|v| *v > 0));
        let init: Option<Vec<i64>> = init.collect();
        Some(init?.into_iter().max().unwrap_or(0).max(sum))
    };
    match class(pod) {
        Class::BestEffort => Limits {
            shares: Some(MIN_SHARES),
            ..Limits::default()
        },
        Class::Guaranteed | Class::Burstable => Limits {
            shares: Some(shares(cpu_request)),
            quota: total("cpu").and_then(quota),
            memory: total("memory"),
            pids: None,
        },
    }
}

/// Who the kernel kills first when memory runs out: those who asked for the least.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i32 {
    if pod::spec(pod).priority.unwrap_or(0) >= SYSTEM_CRITICAL_PRIORITY {
        return GUARANTEED_OOM_SCORE_ADJ;
    }
    match class(pod) {
        Class::Guaranteed => GUARANTEED_OOM_SCORE_ADJ,
        Class::BestEffort => 1000,
        Class::Burstable => {
            let request = request(container, "memory").unwrap_or(0);
            let adjust = 1000 - request.saturating_mul(1000) / memory_capacity.max(1);
            adjust.clamp(i64::from(1000 + GUARANTEED_OOM_SCORE_ADJ), 999) as i32
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(resources: &[serde_json::Value]) -> Pod {
        let containers: Vec<_> = resources
            .iter()
            .enumerate()
            .map(|(i, r)| json!({"name": format!("c{i}"), "image": "x", "resources": r}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        for (resources, expected) in [
            (vec![json!({})], Class::BestEffort),
            (vec![full.clone()], Class::Guaranteed),
            (vec![full.clone(), json!({})], Class::Burstable),
            (vec![json!({"requests": {"cpu": "10m"}})], Class::Burstable),
            (vec![json!({"limits": {"cpu": "1"}})], Class::Burstable),
            (vec![json!({"limits": {"example.com/gpu": "1"}})], Class::BestEffort),
        ] {
            assert_eq!(class(&pod(&resources)), expected, "{resources:?}");
        }
    }

    #[test]
    fn numbers() {
        for (milli, expected) in [
            (0, 2),
            (1, 2),
            (100, 102),
            (1000, 1024),
            (300_000_000, 262_144),
            (i64::MAX, 262_144),
        ] {
            assert_eq!(shares(milli), expected, "{milli}");
        }
        for (milli, expected) in [
            (0, None),
            (1, Some(1000)),
            (500, Some(50_000)),
            (2000, Some(200_000)),
            // A limit of 10^12 CPUs, and more than can be counted.
            (1_000_000_000_000_000, Some(MAX_QUOTA)),
            (i64::MAX, Some(MAX_QUOTA)),
        ] {
            assert_eq!(quota(milli), expected, "{milli}");
        }
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn limits_that_no_number_holds_are_the_largest_there_is() {
        let huge = json!({"limits": {"cpu": "1T", "memory": "7Ei"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let limits = pod_limits(&pod(&[huge.clone(), huge]));
        assert_eq!((limits.quota, limits.memory), (Some(MAX_QUOTA), Some(i64::MAX)));
    }

    #[test]
    fn oom_scores() {
        let capacity = 8 << 30;
        for (resources, expected) in [
            (json!({}), 1000),
            (json!({"requests": {"memory": "4Gi"}}), 500),
            (json!({"requests": {"memory": "1"}}), 999),
            (json!({"requests": {"memory": "8Gi"}}), 3),
            (json!({"requests": {"memory": "7Ei"}}), 3),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), -997),
        ] {
            let pod = pod(std::slice::from_ref(&resources));
            assert_eq!(
                oom_score_adj(&pod, &pod::containers(&pod)[0], capacity),
                expected,
                "{resources}"
            );
        }
    }
}
