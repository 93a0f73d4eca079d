//! The arithmetic of a rollout: which ReplicaSet is the new one, and how large each may be. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision;
use crate::meta;

/// Tells the pods of a Deployment's ReplicaSets apart.
pub const HASH_LABEL: &str = "pod-template-hash";

/// As long as a name may be.
const LONGEST_NAME: usize = 253;

/// The name of the ReplicaSet of a template with this hash; where both are too long, the hash tells them apart.
pub fn set_name(deployment: &str, hash: &str) -> String {
    let room = LONGEST_NAME.saturating_sub(hash.len() + 1);
    let begin: String = deployment.chars().take(room).collect();
    format!("{begin}-{hash}")
}

/// How a Deployment may move, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    /// All old pods go before the first new one comes.
    pub recreate: bool,
    /// So many pods more than asked for.
    pub surge: i32,
    /// So many of them may be missing.
    pub unavailable: i32,
}

impl Strategy {
    /// Reads a Deployment's strategy; percentages are of its size.
    pub fn of(deployment: &Deployment) -> Self {
        let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return Strategy {
                recreate: true,
                surge: 0,
                unavailable: 0,
            };
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let total = wanted(deployment);
        let surge = scaled(
            rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter),
            total,
            true,
        );
        let mut unavailable = scaled(
            rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter),
            total,
            false,
        );
        if surge == 0 && unavailable == 0 {
            // Both rounded to nothing: without one of them nothing could move.
            unavailable = 1;
        }
        Strategy {
            recreate: false,
            surge,
            unavailable: unavailable.min(total),
        }
    }
}

/// A number, or a percentage of `total`.
pub fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let result = if up {
                (product + 99).div_euclid(100)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(result).unwrap_or(i32::MAX)
        }
    }
}

/// The Deployment's size.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// The size that a set is asked to have.
pub fn replicas_of(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// How many of its pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Has the set the Deployment's template, but for the hash label?
pub fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        if meta.labels.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
            meta.labels = None;
        }
        if meta
            .annotations
            .as_ref()
            .is_some_and(std::collections::BTreeMap::is_empty)
        {
            meta.annotations = None;
        }
        meta.creation_timestamp = None;
        template
    };
    match (&deployment.spec, set.spec.as_ref().and_then(|s| s.template.as_ref())) {
        (Some(spec), Some(template)) => without_hash(&spec.template) == without_hash(template),
        _ => false,
    }
}

/// A Deployment's ReplicaSets, oldest first.
pub struct Sets {
    /// All of them.
    pub all: Vec<Arc<ReplicaSet>>,
    /// Which one has the present template.
    pub new: Option<usize>,
}

impl Sets {
    /// Sorts them; of several with the present template the oldest counts.
    pub fn new(deployment: &Deployment, mut all: Vec<Arc<ReplicaSet>>) -> Self {
        all.sort_by(|a, b| {
            meta::created(&**a)
                .cmp(&meta::created(&**b))
                .then_with(|| meta::name(&**a).cmp(meta::name(&**b)))
        });
        let new = all.iter().position(|set| same_template(deployment, set));
        Sets { all, new }
    }

    /// The new set has just been made.
    pub fn add_new(&mut self, set: Arc<ReplicaSet>) {
        self.new = Some(self.all.len());
        self.all.push(set);
    }

    /// All but the new one.
    pub fn old(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.all.len()).filter(|at| Some(*at) != self.new)
    }

    fn total(&self) -> i32 {
        self.all.iter().map(|set| replicas_of(set)).sum()
    }

    /// One more than the highest of the old ones.
    pub fn next_revision(&self) -> i64 {
        let revisions = self
            .old()
            .filter_map(|at| revision::number(&*self.all[at], revision::REVISION));
        revisions.max().unwrap_or(0_i64) + 1
    }

    /// Was the Deployment scaled since a set was last sized, so that this is all there is to do now? What is recreated gets its
    /// size on the way: sets that share the pods, left by a rolling update, cannot be sized at all before.
    pub fn is_scaled(&self, deployment: &Deployment) -> bool {
        if Strategy::of(deployment).recreate {
            return false;
        }
        self.all.iter().filter(|set| replicas_of(set) > 0).any(|set| {
            revision::number::<_, i32>(&**set, revision::DESIRED).is_some_and(|desired| desired != wanted(deployment))
        })
    }

    fn active(&self) -> Vec<usize> {
        (0..self.all.len())
            .filter(|at| replicas_of(&self.all[*at]) > 0)
            .collect()
    }

    /// The one set that takes the Deployment's size alone: the only active one, or the latest when none is.
    fn only(&self) -> Option<usize> {
        match self.active().as_slice() {
            [] => self.new.or_else(|| self.all.len().checked_sub(1)),
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The new set is up in full.
    fn saturated(&self, deployment: &Deployment) -> bool {
        let Some(set) = self.new.map(|at| &self.all[at]) else {
            return false;
        };
        let wanted = wanted(deployment);
        let desired: Option<i32> = revision::number(&**set, revision::DESIRED);
        replicas_of(set) == wanted && desired == Some(wanted) && available(set) == wanted
    }

    /// The sizes after the Deployment was scaled: in the middle of a rollout every set gets its share.
    pub fn scale(&self, deployment: &Deployment) -> Vec<(usize, i32)> {
        let wanted = wanted(deployment);
        if let Some(only) = self.only() {
            return vec![(only, wanted)];
        }
        if self.saturated(deployment) {
            return self
                .old()
                .filter(|at| replicas_of(&self.all[*at]) > 0)
                .map(|at| (at, 0))
                .collect();
        }
        let strategy = Strategy::of(deployment);
        if strategy.recreate {
            return Vec::new();
        }
        let allowed = if wanted > 0 { wanted + strategy.surge } else { 0 };
        let mut active = self.active();
        let missing = allowed - self.total();
        // The largest first; of equals the newer when growing, the older when shrinking.
        active.sort_by(|a, b| {
            let by_age = if missing > 0 { b.cmp(a) } else { a.cmp(b) };
            replicas_of(&self.all[*b]).cmp(&replicas_of(&self.all[*a])).then(by_age)
        });
        let mut added = 0;
        let mut sizes: Vec<(usize, i32)> = active
            .into_iter()
            .map(|at| {
                let share = self.share(at, deployment, missing, added, allowed);
                added += share;
                (at, replicas_of(&self.all[at]) + share)
            })
            .collect();
        if let Some((_, first)) = sizes.first_mut() {
            *first = (*first + missing - added).max(0);
        }
        sizes
    }

    /// What a set gets of `missing`, in proportion to its share of the largest size there was.
    fn share(&self, at: usize, deployment: &Deployment, missing: i32, added: i32, allowed: i32) -> i32 {
        let size = replicas_of(&self.all[at]);
        if size == 0 || missing == 0 || missing == added {
            return 0;
        }
        let fraction = if wanted(deployment) == 0 {
            -size
        } else {
            let before = revision::number(&*self.all[at], revision::MAX)
                .filter(|max| *max != 0)
                .or_else(|| deployment.status.as_ref().and_then(|s| s.replicas))
                .filter(|before| *before != 0)
                .unwrap_or(allowed);
            rounded(i64::from(size) * i64::from(allowed), i64::from(before)) - size
        };
        if missing > 0 {
            fraction.min(missing - added)
        } else {
            fraction.max(missing - added)
        }
    }
}

/// Divides, rounding half away from zero.
fn rounded(a: i64, b: i64) -> i32 {
    i32::try_from((2 * a + b) / (2 * b)).unwrap_or(i32::MAX)
}

/// How large the new set may be now.
pub fn size_of_new(deployment: &Deployment, sets: &Sets) -> i32 {
    let size = sets.new.map_or(0, |at| replicas_of(&sets.all[at]));
    size_of_new_with(deployment, sets, size)
}

/// The same for a new set of the given size (a set that is not among `sets` yet).
pub fn size_of_new_with(deployment: &Deployment, sets: &Sets, size: i32) -> i32 {
    let (wanted, strategy) = (wanted(deployment), Strategy::of(deployment));
    if strategy.recreate || size >= wanted {
        return wanted;
    }
    let room = wanted + strategy.surge - sets.total();
    if room <= 0 {
        size
    } else {
        size + room.min(wanted - size)
    }
}

/// How far the old sets may shrink now: first what is not healthy anyway, then as far as availability allows.
pub fn shrink_old(deployment: &Deployment, sets: &Sets) -> Vec<(usize, i32)> {
    let old_total: i32 = sets.old().map(|at| replicas_of(&sets.all[at])).sum();
    if old_total == 0 {
        return Vec::new();
    }
    let min_available = wanted(deployment) - Strategy::of(deployment).unavailable;
    let new_unavailable = sets
        .new
        .map_or(0, |at| replicas_of(&sets.all[at]) - available(&sets.all[at]));
    let spare = sets.total() - min_available - new_unavailable;
    if spare <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<(usize, i32)> = sets.old().map(|at| (at, replicas_of(&sets.all[at]))).collect();
    let mut unhealthy = spare;
    for (at, size) in &mut sizes {
        let down = (*size - available(&sets.all[*at])).clamp(0, unhealthy.max(0));
        *size -= down;
        unhealthy -= down;
    }
    let all_available: i32 = sets.all.iter().map(|set| available(set)).sum();
    let mut healthy = all_available - min_available;
    for (_, size) in &mut sizes {
        let down = (*size).min(healthy.max(0));
        *size -= down;
        healthy -= down;
    }
    sizes.retain(|(at, size)| *size != replicas_of(&sets.all[*at]));
    sizes
}

/// The old sets that the history limit leaves no room for, oldest revision first.
pub fn prunable(deployment: &Deployment, sets: &Sets) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|s| s.revision_history_limit)
        .unwrap_or(10);
    let mut old: Vec<&Arc<ReplicaSet>> = sets
        .old()
        .map(|at| &sets.all[at])
        .filter(|set| !meta::deleting(&***set))
        .collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(|set| revision::number::<_, i64>(&***set, revision::REVISION).unwrap_or(0));
    old.into_iter()
        .take(surplus)
        .filter(|set| {
            let status = set.status.clone().unwrap_or_default();
            let seen = set.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0);
            status.replicas == 0 && replicas_of(set) == 0 && seen
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"labels": {"v": "new"}}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}},
        }))
        .unwrap()
    }

    fn set(version: &str, age: i64, replicas: i32, available: i32, max: i32) -> Arc<ReplicaSet> {
        let at = format!("2024-01-01T00:00:{:02}Z", 60 - age);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": version, "creationTimestamp": at, "annotations": {
                    revision::MAX: max.to_string(), revision::DESIRED: "10", revision::REVISION: (60 - age).to_string()}},
                "spec": {"replicas": replicas, "selector": {},
                    "template": {"metadata": {"labels": {"v": version, HASH_LABEL: "x"}}}},
                "status": {"replicas": replicas, "availableReplicas": available},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn strategy_rounds_surge_up_and_unavailable_down_and_always_moves() {
        for (replicas, surge, unavailable, expected) in [
            (3, "25%", "25%", (1, 0)),
            (10, "25%", "25%", (3, 2)),
            (3, "0%", "0%", (0, 1)),
            (4, "50%", "100%", (2, 4)),
        ] {
            let found = Strategy::of(&deployment(replicas, surge, unavailable));
            assert_eq!(
                (found.surge, found.unavailable),
                expected,
                "{replicas} {surge} {unavailable}"
            );
        }
    }

    #[test]
    fn rollout_moves_within_surge_and_unavailability() {
        let d = deployment(10, "30%", "20%");
        // (old: size, available) (new: size, available) → new's next size, old's next size
        for (old, new, size, shrunk) in [
            ((10, 10), (0, 0), 3, Some(8)),
            ((10, 10), (3, 0), 3, Some(8)),
            ((8, 8), (5, 3), 5, Some(5)),
            ((8, 8), (5, 0), 5, None),
            ((10, 5), (3, 0), 3, Some(8)),
            ((0, 0), (10, 10), 10, None),
        ] {
            let sets = Sets::new(
                &d,
                vec![set("old", 9, old.0, old.1, 13), set("new", 1, new.0, new.1, 13)],
            );
            assert_eq!(sets.new, Some(1));
            assert_eq!(size_of_new(&d, &sets), size, "{old:?} {new:?}");
            assert_eq!(shrink_old(&d, &sets).first().map(|s| s.1), shrunk, "{old:?} {new:?}");
        }
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_is_proportional() {
        // From 10 to 15 with surge 3: sizes 8 and 5 of at most 13 get 18 together.
        let d = deployment(15, "3", "2");
        let d = Deployment {
            spec: d.spec.map(|mut s| {
                s.strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().max_surge = Some(IntOrString::Int(3));
                s
            }),
            ..d
        };
        let sets = Sets::new(&d, vec![set("old", 9, 8, 8, 13), set("new", 1, 5, 0, 13)]);
        assert!(sets.is_scaled(&d));
        assert_eq!(sets.scale(&d), [(0, 11), (1, 7)]);
        let only = Sets::new(&d, vec![set("old", 9, 0, 0, 13), set("new", 1, 5, 5, 13)]);
        assert_eq!(only.scale(&d), [(1, 15)]);
        // What is recreated from now on has no shares: first the old one has to go.
        let mut d = d;
        d.spec.as_mut().unwrap().strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
        assert!(!sets.is_scaled(&d));
    }

    #[test]
    fn sets_have_names_that_fit() {
        assert_eq!(set_name("web", "5d4f"), "web-5d4f");
        let long = "x".repeat(253);
        assert_eq!(set_name(&long, "5d4f"), format!("{}-5d4f", &long[..248]));
    }

    #[test]
    fn history_beyond_the_limit_goes_oldest_first() {
        let mut d = deployment(1, "1", "0");
        d.spec.as_mut().unwrap().revision_history_limit = Some(1);
        let sets = Sets::new(
            &d,
            vec![
                set("a", 9, 0, 0, 1),
                set("b", 8, 0, 0, 1),
                set("c", 7, 1, 1, 1),
                set("new", 1, 1, 1, 1),
            ],
        );
        let names: Vec<_> = prunable(&d, &sets)
            .iter()
            .map(|s| meta::name(&**s).to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(sets.next_revision(), 54);
    }
}
