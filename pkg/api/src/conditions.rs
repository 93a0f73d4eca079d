//! Conditions, which every kind spells in a type of its own: found by type, and put with a transition time that moves with
//! the status alone (API conventions, "Typical status properties").

use k8s_openapi::api::apps::v1::{DeploymentCondition, ReplicaSetCondition};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, Time};

/// What all of them have.
pub trait Condition {
    fn type_(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    fn transition(&self) -> Option<&Time>;
    fn set_transition(&mut self, at: Time);
}

macro_rules! with_optional_time {
    ($($type:ty),*) => {$(
        impl Condition for $type {
            fn type_(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn transition(&self) -> Option<&Time> {
                self.last_transition_time.as_ref()
            }
            fn set_transition(&mut self, at: Time) {
                self.last_transition_time = Some(at);
            }
        }
    )*};
}

with_optional_time!(
    DeploymentCondition,
    HorizontalPodAutoscalerCondition,
    JobCondition,
    NamespaceCondition,
    NodeCondition,
    PodCondition,
    ReplicaSetCondition
);

impl Condition for MetaCondition {
    fn type_(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn transition(&self) -> Option<&Time> {
        Some(&self.last_transition_time)
    }
    fn set_transition(&mut self, at: Time) {
        self.last_transition_time = at;
    }
}

/// The condition of a type.
pub fn find<'a, C: Condition>(all: Option<&'a Vec<C>>, type_: &str) -> Option<&'a C> {
    all?.iter().find(|condition| condition.type_() == type_)
}

/// Is there a condition of this type whose status is `True`?
pub fn is_true<C: Condition>(all: Option<&Vec<C>>, type_: &str) -> bool {
    find(all, type_).is_some_and(|condition| condition.status() == "True")
}

/// Puts a condition in the place of the one of its type, or last. It keeps the time of the old one's transition where the
/// status is the same. False where nothing is changed by it.
pub fn put<C: Condition + PartialEq>(all: &mut Vec<C>, mut new: C) -> bool {
    let Some(old) = all.iter_mut().find(|old| old.type_() == new.type_()) else {
        all.push(new);
        return true;
    };
    if old.status() == new.status()
        && let Some(at) = old.transition()
    {
        new.set_transition(at.clone());
    }
    let changed = *old != new;
    *old = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: &str, reason: &str, at: i64) -> PodCondition {
        PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            last_transition_time: jiff::Timestamp::from_second(at).ok().map(Time),
            ..PodCondition::default()
        }
    }

    #[test]
    fn the_time_moves_with_the_status() {
        let mut all = Vec::new();
        assert!(put(&mut all, condition("False", "a", 1)));
        assert!(!put(&mut all, condition("False", "a", 2)), "nothing new");
        assert!(put(&mut all, condition("False", "b", 3)));
        assert_eq!(all, [condition("False", "b", 1)]);
        assert!(put(&mut all, condition("True", "b", 4)));
        assert_eq!(all, [condition("True", "b", 4)]);
        assert!(is_true(Some(&all), "Ready") && !is_true(Some(&all), "Other"));
    }
}
