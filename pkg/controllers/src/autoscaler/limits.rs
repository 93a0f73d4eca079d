//! How fast replicas may come and go: what was recommended and done of late, and the rules that bound the next step. Pure in `now`.
//! (<https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#configurable-scaling-behavior>)

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How long the highest recommendation holds where no behavior is given. Upstream's window.
const STABLE: i32 = 300;

/// What an autoscaler remembers of itself. It is gone with the process, as upstream's.
#[derive(Debug, Default)]
pub struct History {
    recommended: Vec<(i32, Timestamp)>,
    /// By how many it grew.
    grew: Vec<(i32, Timestamp)>,
    shrank: Vec<(i32, Timestamp)>,
}

/// What bounds a step.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    pub least: i32,
    pub most: i32,
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
}

/// A reason and its words.
pub type Said = (&'static str, &'static str);

/// What is to be done, and why not more or less.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub replicas: i32,
    /// Of condition `AbleToScale`.
    pub stabilized: Said,
    /// Of condition `ScalingLimited`, and whether it is.
    pub limited: (bool, Said),
}

const MATCHES: Said = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: Said = ("DesiredWithinRange", "the desired count is within the acceptable range");
const HIGHER: Said = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const LOWER: Said = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const TOO_FAST_UP: Said = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const TOO_FAST_DOWN: Said = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: Said = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: Said = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);

fn before(now: Timestamp, seconds: i32) -> Timestamp {
    let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    now.checked_sub(time).unwrap_or(Timestamp::MIN)
}

fn window(rules: Option<&HPAScalingRules>, otherwise: i32) -> i32 {
    rules.and_then(|r| r.stabilization_window_seconds).unwrap_or(otherwise)
}

fn longest(rules: Option<&HPAScalingRules>) -> i32 {
    let policies = rules.iter().flat_map(|r| r.policies.iter().flatten());
    policies.map(|p| p.period_seconds).max().unwrap_or(0)
}

impl History {
    /// Begins with the size there is, so that a start is no reason to shrink at once.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((current, now));
        }
    }

    /// The step from `current` towards `desired`.
    pub fn step(&mut self, current: i32, desired: i32, bounds: Bounds<'_>, now: Timestamp) -> Step {
        let (stable, said) = self.stabilize(current, desired, bounds, now);
        let (replicas, limited) = match bounds.behavior {
            None => by_default(current, stable, bounds),
            Some(behavior) => self.by_rules(current, stable, bounds, behavior, now),
        };
        Step {
            replicas,
            stabilized: if stable == desired { MATCHES } else { said },
            limited: (replicas != stable, limited),
        }
    }

    fn stabilize(&mut self, current: i32, desired: i32, bounds: Bounds<'_>, now: Timestamp) -> (i32, Said) {
        let up = window(bounds.behavior.and_then(|b| b.scale_up.as_ref()), 0);
        let down = window(bounds.behavior.and_then(|b| b.scale_down.as_ref()), STABLE);
        let since = |seconds: i32, at: &Timestamp| *at > before(now, seconds);
        let (mut least, mut most) = (desired, desired);
        for (recommended, at) in &self.recommended {
            if since(up, at) {
                least = least.min(*recommended);
            }
            if since(down, at) {
                most = most.max(*recommended);
            }
        }
        self.recommended.retain(|(_, at)| since(up.max(down), at));
        self.recommended.push((desired, now));
        if bounds.behavior.is_none() {
            return (most, HIGHER);
        }
        let said = if desired >= current { LOWER } else { HIGHER };
        (current.max(least).min(most), said)
    }

    fn by_rules(
        &self,
        current: i32,
        desired: i32,
        bounds: Bounds<'_>,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Timestamp,
    ) -> (i32, Said) {
        if desired > current {
            let rate = self.most(current, behavior.scale_up.as_ref(), now).max(current);
            let (most, said) = if bounds.most > rate {
                (rate, TOO_FAST_UP)
            } else {
                (bounds.most, TOO_MANY)
            };
            if desired > most {
                return (most, said);
            }
        } else if desired < current {
            let rate = self.least(current, behavior.scale_down.as_ref(), now).min(current);
            let (least, said) = if bounds.least < rate {
                (rate, TOO_FAST_DOWN)
            } else {
                (bounds.least, TOO_FEW)
            };
            if desired < least {
                return (least, said);
            }
        }
        (desired, WITHIN)
    }

    /// The size at the begin of a policy's period.
    fn at_begin(&self, current: i32, period: i32, now: Timestamp) -> i32 {
        let since = before(now, period);
        let sum = |events: &[(i32, Timestamp)]| -> i32 {
            events.iter().filter(|(_, at)| *at > since).map(|(by, _)| by).sum()
        };
        current - sum(&self.grew) + sum(&self.shrank)
    }

    fn most(&self, current: i32, rules: Option<&HPAScalingRules>, now: Timestamp) -> i32 {
        let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
        let policies = rules.iter().flat_map(|r| r.policies.iter().flatten());
        let sizes = policies.map(|policy| {
            let begin = self.at_begin(current, policy.period_seconds, now);
            match policy.type_.as_str() {
                "Pods" => begin.saturating_add(policy.value),
                // Up, or a percentage of few would never add any.
                _ => (f64::from(begin) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        });
        match select {
            "Disabled" => current,
            "Min" => sizes.min().unwrap_or(i32::MAX),
            _ => sizes.max().unwrap_or(i32::MIN),
        }
    }

    fn least(&self, current: i32, rules: Option<&HPAScalingRules>, now: Timestamp) -> i32 {
        let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
        let policies = rules.iter().flat_map(|r| r.policies.iter().flatten());
        let sizes = policies.map(|policy| {
            let begin = self.at_begin(current, policy.period_seconds, now);
            match policy.type_.as_str() {
                "Pods" => begin.saturating_sub(policy.value),
                _ => (f64::from(begin) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        match select {
            "Disabled" => current,
            "Min" => sizes.max().unwrap_or(i32::MIN),
            _ => sizes.min().unwrap_or(i32::MAX),
        }
    }

    /// Notes what was done; it counts for as long as a policy looks back.
    pub fn note(&mut self, from: i32, to: i32, behavior: Option<&HorizontalPodAutoscalerBehavior>, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (events, rules, by) = if to > from {
            (&mut self.grew, behavior.scale_up.as_ref(), to - from)
        } else {
            (&mut self.shrank, behavior.scale_down.as_ref(), from - to)
        };
        let since = before(now, longest(rules));
        events.retain(|(_, at)| *at >= since);
        events.push((by, now));
    }
}

/// Without a behavior: at most twice as many, and four at once.
fn by_default(current: i32, desired: i32, bounds: Bounds<'_>) -> (i32, Said) {
    let rate = current.saturating_mul(2).max(4);
    let (most, said) = if bounds.most > rate {
        (rate, TOO_FAST_UP)
    } else {
        (bounds.most, TOO_MANY)
    };
    if desired < bounds.least {
        (bounds.least, TOO_FEW)
    } else if desired > most {
        (most, said)
    } else {
        (desired, WITHIN)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    /// What comes of a course of recommendations, each `(second, current, desired)`; every step is done.
    fn course(behavior: Option<Value>, steps: &[(i64, i32, i32)]) -> Vec<(i32, &'static str, &'static str)> {
        let behavior: Option<HorizontalPodAutoscalerBehavior> = behavior.map(|b| serde_json::from_value(b).unwrap());
        let bounds = Bounds {
            least: 1,
            most: 20,
            behavior: behavior.as_ref(),
        };
        let mut history = History::default();
        let done = |(second, current, desired): &(i64, i32, i32)| {
            let now = at(*second);
            history.begin(*current, now);
            let step = history.step(*current, *desired, bounds, now);
            history.note(*current, step.replicas, bounds.behavior, now);
            (step.replicas, step.stabilized.0, step.limited.1.0)
        };
        steps.iter().map(done).collect()
    }

    #[test]
    fn without_a_behavior_it_doubles_and_shrinks_after_five_minutes() {
        let found = course(
            None,
            &[
                (0, 3, 9),
                (15, 6, 30),
                (30, 12, 4),
                (200, 12, 4),
                (315, 12, 4),
                (330, 12, 4),
                (345, 4, 0),
            ],
        );
        assert_eq!(
            found,
            [
                (6, "ReadyForNewScale", "ScaleUpLimit"),
                (12, "ReadyForNewScale", "ScaleUpLimit"),
                (20, "ScaleDownStabilized", "TooManyReplicas"),
                (20, "ScaleDownStabilized", "TooManyReplicas"),
                (4, "ReadyForNewScale", "DesiredWithinRange"),
                (4, "ReadyForNewScale", "DesiredWithinRange"),
                (4, "ScaleDownStabilized", "DesiredWithinRange"),
            ]
        );
    }

    #[test]
    fn rules_bound_the_rate_and_the_window() {
        let rules = json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
                {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 100, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 30, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]},
        });
        let found = course(
            Some(rules),
            &[
                (0, 4, 10),
                (15, 6, 10),
                (61, 6, 10),
                (70, 8, 1),
                (130, 8, 1),
                (145, 4, 1),
                (191, 4, 0),
            ],
        );
        assert_eq!(
            found,
            [
                (6, "ReadyForNewScale", "ScaleUpLimit"),
                // Two were added in this minute.
                (6, "ReadyForNewScale", "ScaleUpLimit"),
                (8, "ReadyForNewScale", "ScaleUpLimit"),
                // More were recommended a moment ago.
                (8, "ScaleDownStabilized", "DesiredWithinRange"),
                (4, "ReadyForNewScale", "ScaleDownLimit"),
                (4, "ReadyForNewScale", "ScaleDownLimit"),
                (2, "ReadyForNewScale", "ScaleDownLimit"),
            ]
        );
        let disabled = json!({"scaleDown": {"selectPolicy": "Disabled"}, "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}});
        assert_eq!(
            course(Some(disabled), &[(0, 4, 2), (400, 4, 2)])[1],
            (4, "ReadyForNewScale", "ScaleDownLimit")
        );
    }
}
