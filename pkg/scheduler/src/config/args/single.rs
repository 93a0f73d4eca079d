//! Arguments that are a number or two.

use std::time::Duration;

use mk8s_api::status::FieldError;
use mk8s_api::validation::Path;
use serde::Deserialize;
use serde_json::Value;

use super::{Args, Errors};
use crate::config::decode::Span;
use crate::config::document::or_empty;

/// DefaultPreemptionArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultPreemptionArgs {
    pub min_candidate_nodes_percentage: Option<i32>,
    pub min_candidate_nodes_absolute: Option<i32>,
}

/// InterPodAffinityArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InterPodAffinityArgs {
    pub hard_pod_affinity_weight: Option<i32>,
    #[serde(deserialize_with = "or_empty")]
    pub ignore_preferred_terms_of_existing_pods: bool,
}

/// VolumeBindingArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeBindingArgs {
    pub bind_timeout_seconds: Option<i64>,
    /// Of StorageCapacityScoring, which is off.
    pub shape: Option<Value>,
}

/// DynamicResourcesArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DynamicResourcesArgs {
    /// 0: without end.
    pub filter_timeout: Option<Span>,
    /// Of device binding conditions, which are off.
    pub binding_timeout: Option<Span>,
}

impl DefaultPreemptionArgs {
    fn values(&self) -> (i32, i32) {
        let (percentage, absolute) = (self.min_candidate_nodes_percentage, self.min_candidate_nodes_absolute);
        (percentage.unwrap_or(10), absolute.unwrap_or(100))
    }

    /// What a preemption tries out.
    pub fn preemption(&self) -> crate::profile::Preemption {
        let (percentage, absolute) = self.values();
        crate::profile::Preemption {
            min_candidates_percentage: usize::try_from(percentage).unwrap_or(0),
            min_candidates: usize::try_from(absolute).unwrap_or(0),
        }
    }
}

impl Args for DefaultPreemptionArgs {
    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        let (percentage, absolute) = self.values();
        let (percentage_field, absolute_field) = ("minCandidateNodesPercentage", "minCandidateNodesAbsolute");
        let mut invalid = |field: &str, value: i32, why: &str| {
            errors.push(FieldError::invalid(path.child(field), value, why));
        };
        if !(0..=100).contains(&percentage) {
            invalid(percentage_field, percentage, "not in valid range [0, 100]");
        }
        if absolute < 0 {
            invalid(absolute_field, absolute, "not in valid range [0, inf)");
        }
        if (percentage, absolute) == (0, 0) {
            for (field, other) in [(percentage_field, absolute_field), (absolute_field, percentage_field)] {
                invalid(field, 0, &format!("cannot be zero at the same time as {other}"));
            }
        }
    }
}

impl InterPodAffinityArgs {
    /// What a pod's required affinity counts for in scores of others.
    pub fn hard_weight(&self) -> i32 {
        self.hard_pod_affinity_weight.unwrap_or(1)
    }
}

impl Args for InterPodAffinityArgs {
    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        let weight = self.hard_weight();
        if !(0..=100).contains(&weight) {
            let path = path.child("hardPodAffinityWeight");
            errors.push(FieldError::invalid(path, weight, "not in valid range [0, 100]"));
        }
    }
}

impl VolumeBindingArgs {
    /// How long a pod's volumes may take to be bound.
    pub fn bind_timeout(&self) -> Duration {
        let seconds = self.bind_timeout_seconds.unwrap_or(600);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

impl Args for VolumeBindingArgs {
    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        if let Some(seconds) = self.bind_timeout_seconds.filter(|seconds| *seconds < 0) {
            let why = "invalid BindTimeoutSeconds, should not be a negative value";
            errors.push(FieldError::invalid(path.child("bindTimeoutSeconds"), seconds, why));
        }
        if let Some(shape) = &self.shape {
            let why = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
            errors.push(FieldError::invalid(path.child("shape"), shape.clone(), why));
        }
    }
}

impl DynamicResourcesArgs {
    /// How long the search for devices may take; none: as long as it takes.
    pub fn filter_timeout(&self) -> Option<Duration> {
        let own = self.filter_timeout.map(|span| span.length);
        Some(own.unwrap_or(Duration::from_secs(1))).filter(|length| !length.is_zero())
    }
}

impl Args for DynamicResourcesArgs {
    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        if let Some(span) = self.filter_timeout.filter(|span| span.negative) {
            let path = path.child("filterTimeout");
            errors.push(FieldError::invalid(path, span.text(), "must be zero or positive"));
        }
        if self.binding_timeout.is_some() {
            let why = "DRADeviceBindingConditions or DRAResourceClaimDeviceStatus feature gate is disabled";
            errors.push(FieldError::forbidden(path.child("bindingTimeout"), why));
        }
    }
}
