//! Arguments that say for all pods of a profile where they go: added node affinity, and constraints that spread those without any.

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use mk8s_api::status::FieldError;
use mk8s_api::validation::{self, Path};
use serde::Deserialize;

use super::resources::label_name;
use super::{Args, Errors};
use crate::config::document::or_empty;

/// NodeAffinityArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinityArgs {
    pub added_affinity: Option<NodeAffinity>,
}

/// PodTopologySpreadArgs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTopologySpreadArgs {
    #[serde(deserialize_with = "or_empty")]
    pub default_constraints: Vec<TopologySpreadConstraint>,
    #[serde(deserialize_with = "or_empty")]
    pub defaulting_type: String,
}

/// Constraints of Kubernetes' own.
const SYSTEM: &str = "System";
const LIST: &str = "List";

impl Args for NodeAffinityArgs {
    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        let affinity = self.added_affinity.as_ref().map(serde_json::to_value);
        if let Some(Ok(affinity)) = affinity {
            validation::node_affinity(&affinity, &path.child("addedAffinity"), errors);
        }
    }
}

impl PodTopologySpreadArgs {
    /// The constraints are Kubernetes' own.
    pub fn system_defaulted(&self) -> bool {
        self.defaulting_type == SYSTEM
    }
}

impl Args for PodTopologySpreadArgs {
    fn default_unset(&mut self) {
        if self.defaulting_type.is_empty() {
            self.defaulting_type = SYSTEM.into();
        }
    }

    fn check(&self, path: &Path<'_>, errors: &mut Errors) {
        let (kind, given) = (&*self.defaulting_type, !self.default_constraints.is_empty());
        let at = path.child("defaultingType");
        match kind {
            SYSTEM if given => errors.push(FieldError::invalid(at, kind, "when .defaultConstraints are not empty")),
            SYSTEM | LIST => {}
            _ => errors.push(FieldError::not_supported(at, kind, &[SYSTEM, LIST])),
        }
        let list = path.child("defaultConstraints");
        for (index, constraint) in self.default_constraints.iter().enumerate() {
            let path = list.index(index);
            check_constraint(constraint, &path, errors);
            let key = |own: &TopologySpreadConstraint| (own.topology_key.clone(), own.when_unsatisfiable.clone());
            let mut before = self.default_constraints.iter().take(index);
            if before.any(|other| key(other) == key(constraint)) {
                let (topology, action) = key(constraint);
                errors.push(FieldError::duplicate(path, format!("{{{topology}, {action}}}")));
            }
        }
    }
}

fn check_constraint(constraint: &TopologySpreadConstraint, path: &Path<'_>, errors: &mut Errors) {
    if constraint.max_skew <= 0 {
        let why = "not in valid range (0, inf)";
        errors.push(FieldError::invalid(path.child("maxSkew"), constraint.max_skew, why));
    }
    let at = path.child("topologyKey");
    match constraint.topology_key.as_str() {
        "" => errors.push(FieldError::required(at, "can not be empty")),
        key => label_name(key, &at, errors),
    }
    let at = path.child("whenUnsatisfiable");
    match constraint.when_unsatisfiable.as_str() {
        "" => errors.push(FieldError::required(at, "can not be empty")),
        "DoNotSchedule" | "ScheduleAnyway" => {}
        action => errors.push(FieldError::not_supported(
            at,
            action,
            &["DoNotSchedule", "ScheduleAnyway"],
        )),
    }
    if constraint.label_selector.is_some() {
        let why = "constraint must not define a selector, as they deduced for each pod";
        errors.push(FieldError::forbidden(path.child("labelSelector"), why));
    }
}
