//! The arguments of plugins: their form, upstream's defaults, and what upstream refuses.

mod placement;
mod resources;
mod single;

pub use mk8s_api::validation::Errors;
use mk8s_api::validation::Path;
use serde::de::DeserializeOwned;

pub use placement::{NodeAffinityArgs, PodTopologySpreadArgs};
pub use resources::{BalancedAllocationArgs, FitArgs, ResourceSpec, StrategyType};
pub use single::{DefaultPreemptionArgs, DynamicResourcesArgs, InterPodAffinityArgs, VolumeBindingArgs};

/// Arguments of one plugin.
pub trait Args: Default + DeserializeOwned {
    /// Fills in what upstream's defaults fill in.
    fn default_unset(&mut self) {}

    /// What upstream refuses.
    fn check(&self, path: &Path<'_>, errors: &mut Errors);
}

#[cfg(test)]
mod tests;
