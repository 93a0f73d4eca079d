//! The plugins that there are, in upstream's default order, and how each is made of its arguments.

use mk8s_api::status::FieldError;
use mk8s_api::validation::Path;
use mk8s_client::NodeTerms;
use serde_json::Value;

use super::Told;
use super::args::{
    Args, BalancedAllocationArgs, DefaultPreemptionArgs, DynamicResourcesArgs, Errors, FitArgs, InterPodAffinityArgs,
    NodeAffinityArgs, PodTopologySpreadArgs, ResourceSpec, StrategyType, VolumeBindingArgs,
};
use super::decode;
use super::points::Point::{self, *};
use crate::framework::Plugin;
use crate::plugins::{self, Defaults, Strategy, Weighed};
use crate::profile::Preemption;
use crate::spread::Rule;

/// A plugin that a configuration may name.
pub struct Known {
    pub name: &'static str,
    /// Where upstream's has something to say.
    pub points: &'static [Point],
    /// Of its score among the default plugins; 0: as one that says none.
    pub weight: i32,
    pub make: fn(&mut Given<'_>) -> Made,
}

/// What a plugin is here.
pub enum Made {
    Plugin(Box<dyn Plugin>),
    /// Preemption, which comes after all plugins have refused.
    Preemption(Preemption),
    /// A part of every decision, which can't be switched off.
    Fixed,
}

impl Known {
    pub fn has(&self, point: Point) -> bool {
        self.points.contains(&point)
    }
}

/// One that upstream has by this name.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

const fn row(name: &'static str, points: &'static [Point], weight: i32, make: fn(&mut Given<'_>) -> Made) -> Known {
    Known {
        name,
        points,
        weight,
        make,
    }
}

const FILTERS: &[Point] = &[PreFilter, Filter];
const FILTERS_AND_SCORES: &[Point] = &[PreFilter, Filter, PreScore, Score];
const BINDS_VOLUMES: &[Point] = &[PreFilter, Filter, Reserve, PreScore, Score, PreBind];
const BINDS_DEVICES: &[Point] = &[PreEnqueue, PreFilter, Filter, PostFilter, Score, Reserve, PreBind];

/// All of them; each is one of the default plugins, which come in this order.
pub const KNOWN: [Known; 19] = [
    row("SchedulingGates", &[PreEnqueue], 0, fixed),
    row("PrioritySort", &[QueueSort], 0, fixed),
    row("NodeUnschedulable", &[Filter], 0, |given| {
        given.plain(plugins::NodeUnschedulable)
    }),
    row("NodeName", &[Filter], 0, |given| given.plain(plugins::NodeName)),
    row("TaintToleration", &[Filter, PreScore, Score], 3, |given| {
        given.plain(plugins::TaintToleration)
    }),
    row("NodeAffinity", FILTERS_AND_SCORES, 2, node_affinity),
    row("NodePorts", FILTERS, 0, |given| given.plain(plugins::NodePorts)),
    row("NodeResourcesFit", FILTERS_AND_SCORES, 1, node_resources_fit),
    row("VolumeRestrictions", FILTERS, 0, |given| {
        given.plain(plugins::VolumeRestrictions)
    }),
    row("NodeVolumeLimits", FILTERS, 0, |given| {
        given.plain(plugins::NodeVolumeLimits)
    }),
    row("VolumeBinding", BINDS_VOLUMES, 0, volume_binding),
    row("VolumeZone", FILTERS, 0, |given| given.plain(plugins::VolumeZone)),
    row("PodTopologySpread", FILTERS_AND_SCORES, 2, pod_topology_spread),
    row("InterPodAffinity", FILTERS_AND_SCORES, 2, inter_pod_affinity),
    row("DynamicResources", BINDS_DEVICES, 2, dynamic_resources),
    row("DefaultPreemption", &[PostFilter, PreEnqueue], 0, default_preemption),
    row(
        "NodeResourcesBalancedAllocation",
        &[PreScore, Score],
        1,
        balanced_allocation,
    ),
    row("ImageLocality", &[Score], 1, |given| {
        given.plain(plugins::ImageLocality)
    }),
    row("DefaultBinder", &[Bind], 0, fixed),
];

/// What a profile gives a plugin.
pub struct Given<'g> {
    pub plugin: &'static str,
    pub args: Option<&'g Value>,
    /// Where the arguments stand.
    pub path: String,
    /// Resources that extenders look after alone; they take the place of those that the arguments name.
    pub ignored_resources: &'g [String],
    pub told: &'g mut Told,
}

impl Given<'_> {
    /// The arguments, in order; defaults where something is wrong with them.
    fn read<A: Args>(&mut self) -> A {
        let mut args = match decode::args::<A>(self.plugin, self.args) {
            Ok(args) => args,
            Err(error) => {
                let at = self.path.trim_end_matches(".args");
                let plugin = self.plugin;
                self.told
                    .error(format!("decoding .{at}: decoding args for plugin {plugin}: {error}"));
                A::default()
            }
        };
        args.default_unset();
        let mut errors = Errors::new();
        args.check(&Path::new(&self.path), &mut errors);
        self.told.errors.extend(errors.iter().map(ToString::to_string));
        args
    }

    /// Upstream passes over arguments of a plugin that takes none.
    fn takes_none(&mut self) {
        let given = self.args.filter(|args| !args.is_null()).is_some();
        if given {
            let why = format!("{} takes no arguments", self.plugin);
            self.told.error(FieldError::forbidden(&*self.path, why));
        }
    }

    fn plain(&mut self, plugin: impl Plugin + 'static) -> Made {
        self.takes_none();
        Made::Plugin(Box::new(plugin))
    }
}

fn fixed(given: &mut Given<'_>) -> Made {
    given.takes_none();
    Made::Fixed
}

fn node_affinity(given: &mut Given<'_>) -> Made {
    let added = given.read::<NodeAffinityArgs>().added_affinity.unwrap_or_default();
    Made::Plugin(Box::new(plugins::NodeAffinity {
        added: NodeTerms::of_selector(added.required_during_scheduling_ignored_during_execution.as_ref()),
        added_preferred: NodeTerms::weighed(
            added
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten(),
        ),
    }))
}

fn node_resources_fit(given: &mut Given<'_>) -> Made {
    let args: FitArgs = given.read();
    let strategy = args.scoring_strategy.unwrap_or_default();
    let boxed = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    if strategy.requested_to_capacity_ratio.is_some()
        && strategy.named() != Some(StrategyType::RequestedToCapacityRatio)
    {
        given.told.warnings.push(format!(
            "{}.scoringStrategy.requestedToCapacityRatio: not used: the strategy is {}",
            given.path, strategy.kind
        ));
    }
    Made::Plugin(Box::new(plugins::NodeResourcesFit {
        ignored: match given.ignored_resources {
            [] => boxed(&args.ignored_resources),
            own => boxed(own),
        },
        ignored_groups: boxed(&args.ignored_resource_groups),
        resources: weighed(&strategy.resources),
        strategy: match strategy.named() {
            Some(StrategyType::MostAllocated) => Strategy::MostAllocated,
            Some(StrategyType::RequestedToCapacityRatio) => {
                // The document's scores end at 10, a plugin's at 100.
                let points = strategy.shape().iter();
                let line = points.map(|point| (i64::from(point.utilization), i64::from(point.score) * 10));
                Strategy::RequestedToCapacityRatio(line.collect())
            }
            Some(StrategyType::LeastAllocated) | None => Strategy::LeastAllocated,
        },
    }))
}

fn balanced_allocation(given: &mut Given<'_>) -> Made {
    let args: BalancedAllocationArgs = given.read();
    Made::Plugin(Box::new(plugins::BalancedAllocation {
        resources: weighed(&args.resources),
    }))
}

fn weighed(resources: &[ResourceSpec]) -> Vec<Weighed> {
    let each = resources.iter().map(|own| Weighed {
        name: own.name.as_str().into(),
        weight: own.weight,
    });
    each.collect()
}

fn default_preemption(given: &mut Given<'_>) -> Made {
    Made::Preemption(given.read::<DefaultPreemptionArgs>().preemption())
}

fn volume_binding(given: &mut Given<'_>) -> Made {
    Made::Plugin(Box::new(plugins::VolumeBinding {
        timeout: given.read::<VolumeBindingArgs>().bind_timeout(),
    }))
}

fn pod_topology_spread(given: &mut Given<'_>) -> Made {
    let args: PodTopologySpreadArgs = given.read();
    let defaults = match args.system_defaulted() {
        true => Defaults::System,
        false => Defaults::List(args.default_constraints.iter().map(Rule::new).collect()),
    };
    Made::Plugin(Box::new(plugins::PodTopologySpread { defaults }))
}

fn inter_pod_affinity(given: &mut Given<'_>) -> Made {
    let args: InterPodAffinityArgs = given.read();
    Made::Plugin(Box::new(plugins::InterPodAffinity {
        hard_weight: args.hard_weight().into(),
        ignores_preferred: args.ignore_preferred_terms_of_existing_pods,
    }))
}

fn dynamic_resources(given: &mut Given<'_>) -> Made {
    Made::Plugin(Box::new(plugins::DynamicResources {
        filter_timeout: given.read::<DynamicResourcesArgs>().filter_timeout(),
    }))
}
