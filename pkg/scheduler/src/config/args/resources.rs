//! Arguments of the two plugins that score resources.

use std::collections::HashSet;

use mk8s_api::names;
use mk8s_api::status::FieldError;
use mk8s_api::validation::Path;
use serde::Deserialize;

use super::{Args, Errors};
use crate::config::document::or_empty;

/// NodeResourcesFitArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FitArgs {
    #[serde(deserialize_with = "or_empty")]
    pub ignored_resources: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub ignored_resource_groups: Vec<String>,
    pub scoring_strategy: Option<ScoringStrategy>,
}

/// ScoringStrategy.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScoringStrategy {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "or_empty")]
    pub resources: Vec<ResourceSpec>,
    pub requested_to_capacity_ratio: Option<RequestedToCapacityRatio>,
}

/// RequestedToCapacityRatioParam.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RequestedToCapacityRatio {
    #[serde(deserialize_with = "or_empty")]
    pub shape: Vec<ShapePoint>,
}

/// UtilizationShapePoint.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct ShapePoint {
    pub utilization: i32,
    pub score: i32,
}

/// ResourceSpec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ResourceSpec {
    pub name: String,
    /// 0: 1.
    #[serde(deserialize_with = "or_empty")]
    pub weight: i64,
}

/// NodeResourcesBalancedAllocationArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BalancedAllocationArgs {
    #[serde(deserialize_with = "or_empty")]
    pub resources: Vec<ResourceSpec>,
}

/// Which strategy a strategy's `type` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyType {
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio,
}

impl ScoringStrategy {
    const TYPES: [(&str, StrategyType); 3] = [
        ("LeastAllocated", StrategyType::LeastAllocated),
        ("MostAllocated", StrategyType::MostAllocated),
        ("RequestedToCapacityRatio", StrategyType::RequestedToCapacityRatio),
    ];

    /// None: there is no such strategy.
    pub fn named(&self) -> Option<StrategyType> {
        let found = Self::TYPES.iter().find(|(name, _)| *name == self.kind);
        found.map(|(_, named)| *named)
    }

    /// The points of the curve; none but RequestedToCapacityRatio's.
    pub fn shape(&self) -> &[ShapePoint] {
        self.requested_to_capacity_ratio.as_ref().map_or(&[], |own| &own.shape)
    }
}

fn default_resources(resources: &mut Vec<ResourceSpec>) {
    if resources.is_empty() {
        resources.extend(["cpu", "memory"].map(|name| ResourceSpec {
            name: name.into(),
            weight: 1,
        }));
    }
    for resource in resources.iter_mut().filter(|resource| resource.weight == 0) {
        resource.weight = 1;
    }
}

impl Args for FitArgs {
    fn default_unset(&mut self) {
        let strategy = self.scoring_strategy.get_or_insert_with(|| ScoringStrategy {
            kind: "LeastAllocated".into(),
            ..ScoringStrategy::default()
        });
        default_resources(&mut strategy.resources);
    }

    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        let ignored = path.child("ignoredResources");
        for (index, name) in self.ignored_resources.iter().enumerate() {
            label_name(name, &ignored.index(index), errors);
        }
        let groups = path.child("ignoredResourceGroups");
        for (index, group) in self.ignored_resource_groups.iter().enumerate() {
            let path = groups.index(index);
            if group.contains('/') {
                let why = "resource group name can't contain '/'";
                errors.push(FieldError::invalid(path, &**group, why));
            }
            label_name(group, &path, errors);
        }
        if let Some(strategy) = &self.scoring_strategy {
            strategy.check(&path.child("scoringStrategy"), errors);
        }
    }
}

impl ScoringStrategy {
    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        if self.named().is_none() {
            let supported = Self::TYPES.map(|(name, _)| name);
            errors.push(FieldError::not_supported(path.child("type"), &*self.kind, &supported));
        }
        let resources = path.child("resources");
        for (index, resource) in self.resources.iter().enumerate() {
            if !(1..=100).contains(&resource.weight) {
                let why = format!("resource weight of {} not in valid range (0, 100]", resource.name);
                errors.push(FieldError::invalid(
                    resources.index(index).child("weight"),
                    resource.weight,
                    why,
                ));
            }
        }
        let shape = path.child("shape");
        match (&self.requested_to_capacity_ratio, self.named()) {
            (Some(ratio), _) => check_shape(&ratio.shape, &shape, errors),
            // Upstream builds no score of it, and does not start.
            (None, Some(StrategyType::RequestedToCapacityRatio)) => check_shape(&[], &shape, errors),
            (None, _) => {}
        }
    }
}

fn check_shape(points: &[ShapePoint], path: &Path<'_>, errors: &mut Errors) {
    if points.is_empty() {
        return errors.push(FieldError::required(path, "at least one point must be specified"));
    }
    let mut pairs = points.iter().zip(points.iter().skip(1)).enumerate();
    if let Some((index, (_, next))) = pairs.find(|(_, (one, next))| one.utilization >= next.utilization) {
        let path = path.index(index + 1);
        let why = "values must be sorted in increasing order";
        errors.push(FieldError::invalid(path.child("utilization"), next.utilization, why));
    }
    for (index, point) in points.iter().enumerate() {
        let path = path.index(index);
        for (field, value, most) in [("utilization", point.utilization, 100), ("score", point.score, 10)] {
            if !(0..=most).contains(&value) {
                let why = format!("not in valid range [0, {most}]");
                errors.push(FieldError::invalid(path.child(field), value, why));
            }
        }
    }
}

impl Args for BalancedAllocationArgs {
    fn default_unset(&mut self) {
        default_resources(&mut self.resources);
    }

    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        let mut seen = HashSet::new();
        let resources = path.child("resources");
        for (index, resource) in self.resources.iter().enumerate() {
            let path = resources.index(index);
            if !seen.insert(&resource.name) {
                errors.push(FieldError::duplicate(path.child("name"), &*resource.name));
            }
            if resource.weight != 1 {
                errors.push(FieldError::invalid(path.child("weight"), resource.weight, "must be 1"));
            }
        }
    }
}

/// What metav1's ValidateLabelName says.
pub(super) fn label_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let problems = names::qualified_name(name);
    errors.extend(problems.into_iter().map(|why| FieldError::invalid(path, name, why)));
}
