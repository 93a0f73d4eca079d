//! How many replicas measurements ask for: pure arithmetic over pods and samples
//! (<https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details>). A sample of a pod that is not
//! ready says nothing of its load; one that is missing is taken to speak against a change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use mk8s_api::quantity::Quantity;

use super::metrics::{Sample, Samples};
use crate::{meta, pod};

/// While a pod is that young, what it uses of the processor to start is no load. Upstream's period.
const STARTING: Duration = Duration::from_secs(5 * 60);
/// A pod that became unready within this time of its start was never ready. Upstream's delay.
const FIRST_READINESS: Duration = Duration::from_secs(30);

/// How far use may be from what it is to be before anything changes.
#[derive(Debug, Clone, Copy)]
pub struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn cover(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What a metric asks for, and what it was read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    pub replicas: i32,
    /// Percent of what was requested, where that was asked.
    pub utilization: Option<i32>,
    /// The mean of all pods, or the value itself; in thousandths.
    pub milli: i64,
}

/// What is known of a target's pods at a moment.
#[derive(Clone, Copy)]
pub struct Pods<'a> {
    /// All that its selector selects.
    pub all: &'a [Arc<Pod>],
    pub now: Timestamp,
    /// The replicas that are asked for at present.
    pub replicas: i32,
    pub tolerances: Tolerances,
}

/// What a measurement of each pod is compared with.
pub enum Goal<'a> {
    /// So much of the resource for each pod.
    Mean(i64),
    /// So many percent of what the pods, or one container of each, request.
    Utilization(i32, &'a HashMap<&'a str, i64>),
}

/// A ratio of use to goal, and what goes into a status.
struct Use {
    ratio: f64,
    utilization: Option<i32>,
    milli: i64,
}

type Values<'a> = HashMap<&'a str, i64>;

impl Goal<'_> {
    fn compare(&self, values: &Values<'_>) -> Result<Use, String> {
        match self {
            Goal::Mean(goal) => {
                let milli = values.values().sum::<i64>() / count(values.len()).max(1);
                Ok(Use {
                    ratio: milli as f64 / *goal as f64,
                    utilization: None,
                    milli,
                })
            }
            Goal::Utilization(goal, requests) => {
                let known = values
                    .iter()
                    .filter_map(|(pod, used)| Some((*used, *requests.get(pod)?)));
                let (mut used, mut requested, mut pods) = (0_i64, 0_i64, 0_i64);
                for (of_pod, request) in known {
                    (used, requested, pods) =
                        (used.saturating_add(of_pod), requested.saturating_add(request), pods + 1);
                }
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let percent = i128::from(used) * 100 / i128::from(requested);
                let percent = i32::try_from(percent).unwrap_or(i32::MAX);
                Ok(Use {
                    ratio: f64::from(percent) / f64::from(*goal),
                    utilization: Some(percent),
                    milli: used / pods,
                })
            }
        }
    }

    /// What a pod without a sample is taken to use where the others use too little: enough that nothing is taken away for it.
    fn assumed(&self, pod: &str) -> i64 {
        match self {
            Goal::Mean(goal) => *goal,
            Goal::Utilization(goal, requests) => {
                let request = requests.get(pod).copied().unwrap_or(0);
                request.saturating_mul(i64::from((*goal).max(100))) / 100
            }
        }
    }
}

/// The pods that count, those whose samples do not, and those that have none.
#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: HashSet<&'a str>,
    missing: HashSet<&'a str>,
    ignored: HashSet<&'a str>,
}

impl<'a> Groups<'a> {
    fn of(pods: Pods<'a>, samples: &Samples, of_cpu: bool) -> Self {
        let mut groups = Groups::default();
        for found in pods.all {
            let name = meta::name(&**found);
            if meta::deleting(&**found) || pod::phase(found) == "Failed" {
                groups.ignored.insert(name);
            } else if pod::phase(found) == "Pending" {
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(name) {
                if of_cpu && starts(found, sample, pods.now) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        groups
    }
}

/// Does the pod's use of the processor say nothing of its load yet?
fn starts(found: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = found.status.as_ref().and_then(|s| s.start_time.as_ref());
    let (Some(ready), Some(started)) = (pod::condition(found, "Ready"), started) else {
        return true;
    };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let unready = ready.status == "False";
    let after = |at: Timestamp, time: Duration| at.checked_add(time).unwrap_or(Timestamp::MAX);
    if after(started.0, STARTING) > now {
        unready || sample.at < after(changed, sample.window)
    } else {
        unready && after(started.0, FIRST_READINESS) > changed
    }
}

fn ceil(replicas: f64) -> i32 {
    // Saturates, as such a cast does.
    replicas.ceil() as i32
}

/// Counts are never that large.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// By what was measured of each pod.
pub fn of_samples(pods: Pods<'_>, samples: &Samples, of_cpu: bool, goal: &Goal<'_>) -> Result<Proposal, String> {
    if pods.all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = Groups::of(pods, samples, of_cpu);
    let mut values: Values<'_> = samples
        .iter()
        .map(|(pod, sample)| (pod.as_str(), sample.milli))
        .collect();
    values.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    if values.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let measured = goal.compare(&values)?;
    let ratio = measured.ratio;
    let proposal = |replicas| Proposal {
        replicas,
        utilization: measured.utilization,
        milli: measured.milli,
    };
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        let stays = pods.tolerances.cover(ratio);
        return Ok(proposal(if stays {
            pods.replicas
        } else {
            ceil(ratio * groups.ready as f64)
        }));
    }
    for pod in &groups.missing {
        if ratio < 1.0 {
            values.insert(pod, goal.assumed(pod));
        } else if ratio > 1.0 {
            values.insert(pod, 0);
        }
    }
    if up_with_unready {
        values.extend(groups.unready.iter().map(|pod| (*pod, 0)));
    }
    let careful = goal.compare(&values)?.ratio;
    let turned = (ratio < 1.0 && careful > 1.0) || (ratio > 1.0 && careful < 1.0);
    let replicas = ceil(careful * values.len() as f64);
    let against = (careful < 1.0 && replicas > pods.replicas) || (careful > 1.0 && replicas < pods.replicas);
    let stays = pods.tolerances.cover(careful) || turned || against;
    Ok(proposal(if stays { pods.replicas } else { replicas }))
}

/// By one value that all pods share, which is to be `goal`.
pub fn of_value(pods: Pods<'_>, value: i64, goal: i64) -> Result<Proposal, String> {
    let ratio = value as f64 / goal as f64;
    let replicas = if pods.replicas == 0 {
        ceil(ratio)
    } else if pods.tolerances.cover(ratio) {
        pods.replicas
    } else {
        if pods.all.is_empty() {
            let why = "no pods returned by selector while calculating replica count";
            return Err(format!("unable to calculate ready pods: {why}"));
        }
        let ready = pods
            .all
            .iter()
            .filter(|p| pod::phase(p) == "Running" && pod::is_ready(p));
        ceil(ratio * ready.count() as f64)
    };
    Ok(Proposal {
        replicas,
        utilization: None,
        milli: value,
    })
}

/// By one value of which each of `current` pods is to have `goal`.
pub fn of_share(pods: Pods<'_>, current: i32, value: i64, goal: i64) -> Proposal {
    let ratio = value as f64 / (goal as f64 * f64::from(current));
    let replicas = if pods.tolerances.cover(ratio) {
        current
    } else {
        ceil(value as f64 / goal as f64)
    };
    Proposal {
        replicas,
        utilization: None,
        milli: (value as f64 / f64::from(current)).ceil() as i64,
    }
}

/// What each pod, or the container of that name in each, requests of a resource, in thousandths.
pub fn requests<'a>(
    pods: &'a [Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<HashMap<&'a str, i64>, String> {
    let of = |found: &'a Arc<Pod>| Ok((meta::name(&**found), request(found, resource, container)?));
    pods.iter().map(of).collect()
}

fn request(found: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let name = meta::name(found);
    let Some(spec) = &found.spec else { return Ok(0) };
    // What is said of the whole pod counts before what its containers say.
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    if let (Some(whole), None) = (whole.filter(|r| !r.is_empty()), container)
        && let Some(asked) = whole.get(resource)
    {
        return Ok(parsed(&asked.0));
    }
    let stays = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(stays);
    let mut total = 0_i64;
    for each in spec.containers.iter().chain(sidecars) {
        if container.is_some_and(|wanted| wanted != each.name) {
            continue;
        }
        let asked = each.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
        let Some(asked) = asked else {
            return Err(format!(
                "missing request for {resource} in container {} of Pod {name}",
                each.name
            ));
        };
        total = total.saturating_add(parsed(&asked.0));
        if container.is_some() {
            return Ok(total);
        }
    }
    match container {
        Some(wanted) => Err(format!("container {wanted} not found in Pod {name}")),
        None => Ok(total),
    }
}

fn parsed(quantity: &str) -> i64 {
    Quantity::parse(quantity).map_or(0, |q| q.milli_value())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const NOW: &str = "2024-01-01T01:00:00Z";

    /// `ready`, `unready`, `pending`, `failed`, `deleting`, or `young`: ready since ten seconds, started since then.
    fn pod(name: &str, state: &str) -> Arc<Pod> {
        let (started, since) = if state == "young" {
            ("2024-01-01T00:59:30Z", "2024-01-01T00:59:50Z")
        } else {
            ("2024-01-01T00:00:00Z", "2024-01-01T00:00:10Z")
        };
        let phase = match state {
            "pending" => "Pending",
            "failed" => "Failed",
            _ => "Running",
        };
        let ready = if matches!(state, "ready" | "young") {
            "True"
        } else {
            "False"
        };
        let value = json!({
            "metadata": {"name": name, "deletionTimestamp": (state == "deleting").then_some(NOW)},
            "spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": "600m"}}}, {"name": "b", "resources": {"requests": {"cpu": "400m"}}}]},
            "status": {"phase": phase, "startTime": started,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pods<'a>(all: &'a [Arc<Pod>], replicas: i32) -> Pods<'a> {
        let tolerances = Tolerances { down: 0.1, up: 0.1 };
        let now = NOW.parse().unwrap();
        Pods {
            all,
            now,
            replicas,
            tolerances,
        }
    }

    fn samples(values: &[i64]) -> Samples {
        let sample = |milli| Sample {
            at: NOW.parse().unwrap(),
            window: Duration::from_secs(60),
            milli,
        };
        values
            .iter()
            .enumerate()
            .filter(|(_, v)| **v >= 0)
            .map(|(i, v)| (format!("p{i}"), sample(*v)))
            .collect()
    }

    #[test]
    fn utilization_asks_for_what_brings_it_to_its_goal() {
        for (states, used, replicas, asked) in [
            // Each requests 1000. Twice as much as asked for; and within the tolerance.
            (vec!["ready"; 3], vec![600, 600, 600], 3, Ok((6, 60))),
            (vec!["ready"; 3], vec![320, 320, 340], 3, Ok((3, 32))),
            (vec!["ready"; 4], vec![150, 150, 150, 150], 4, Ok((2, 15))),
            // Who is not ready counts as using nothing where more are asked for, and not at all where fewer are.
            (vec!["ready", "ready", "unready"], vec![900, 900, 900], 3, Ok((6, 90))),
            (vec!["ready", "ready", "pending"], vec![400, 400, -1], 3, Ok((3, 40))),
            (vec!["ready", "ready", "young"], vec![900, 900, 900], 3, Ok((6, 90))),
            // Who has no sample speaks against any change.
            (vec!["ready", "ready", "ready"], vec![100, 100, -1], 3, Ok((3, 10))),
            (vec!["ready"; 4], vec![100, 100, -1, 100], 4, Ok((4, 10))),
            (vec!["ready", "ready", "ready"], vec![600, 600, -1], 3, Ok((4, 60))),
            // Who goes or has failed is not there.
            (vec!["ready", "failed", "deleting"], vec![600, 0, 0], 1, Ok((2, 60))),
            (
                vec!["unready"],
                vec![600],
                1,
                Err("did not receive metrics for targeted pods (pods might be unready)"),
            ),
            (
                vec![],
                vec![],
                1,
                Err("no pods returned by selector while calculating replica count"),
            ),
        ] {
            let all: Vec<_> = states
                .iter()
                .enumerate()
                .map(|(i, state)| pod(&format!("p{i}"), state))
                .collect();
            let requested = requests(&all, "cpu", None).unwrap();
            let found = of_samples(
                pods(&all, replicas),
                &samples(&used),
                true,
                &Goal::Utilization(30, &requested),
            );
            let found = found.map(|p| (p.replicas, p.utilization.unwrap()));
            assert_eq!(found, asked.map_err(str::to_owned), "{states:?} {used:?}");
        }
    }

    #[test]
    fn values_are_compared_as_a_whole_or_by_each_pods_share() {
        let all: Vec<_> = ["ready", "ready", "unready"]
            .iter()
            .enumerate()
            .map(|(i, s)| pod(&format!("p{i}"), s))
            .collect();
        for (value, replicas, asked) in [(200, 3, 4), (105, 3, 3), (50, 3, 1), (250, 0, 3)] {
            assert_eq!(
                of_value(pods(&all, replicas), value, 100).unwrap().replicas,
                asked,
                "{value}"
            );
        }
        for (value, current, asked, mean) in [(900, 3, 9, 300), (310, 3, 3, 104), (100, 3, 1, 34)] {
            let found = of_share(pods(&all, 3), current, value, 100);
            assert_eq!((found.replicas, found.milli), (asked, mean), "{value}");
        }
        assert_eq!(
            of_value(pods(&[], 3), 200, 100).unwrap_err(),
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
        );
    }

    #[test]
    fn requests_are_those_of_the_pod_or_of_one_container() {
        let all = [pod("p0", "ready")];
        let of = |container| requests(&all, "cpu", container).map(|found| found["p0"]);
        assert_eq!((of(None), of(Some("b"))), (Ok(1000), Ok(400)));
        assert_eq!(of(Some("c")).unwrap_err(), "container c not found in Pod p0");
        assert_eq!(
            requests(&all, "memory", None).unwrap_err(),
            "missing request for memory in container a of Pod p0"
        );
    }
}
