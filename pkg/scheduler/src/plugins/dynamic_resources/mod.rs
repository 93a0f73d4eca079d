//! Pods get the devices that they claim (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>): a
//! node is right where the claims' devices are, or where there are some to allocate; these are given before the pod is bound.
//!
//! As upstream has it with its default features: administrators' access and lists of choices, but no taints of devices, no shared
//! counters or capacities, no extended resources of devices, no conditions for binding.

mod ask;
mod binding;
mod claims;
mod picks;
mod result;
mod search;
mod supply;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use kube::Client;
use mk8s_client::NodeTerms;

use self::ask::{Ask, key};
use self::claims::{Named, asks_nothing, is_reserved_for, named};
use self::picks::{Pick, found};
use self::search::{Unfound, search};
use crate::change::{Change, Kind};
use crate::cluster::claims::{Found, Reserved, allocation};
use crate::cluster::{Claims, Cluster, NodeId, NodeInfo};
use crate::framework::{Filter, Objection, Plugin, PostFilter, PreBind, PreFilter, Score, StepError, Write, scale};
use crate::pod::PodInfo;

const NAME: &str = "DynamicResources";
const UNAVAILABLE: &str = "resourceclaim not available on the node";
/// The first choice of a list is worth this, each after it less by one (resource.k8s.io's limit of choices).
const MOST_CHOICES: i64 = 8;

/// Upstream's DynamicResources.
pub struct DynamicResources {
    /// The search for devices takes so long at most, over all nodes of a decision: nobody else is decided for meanwhile. So it is less
    /// than upstream's 10 s for each node. None: as long as it takes.
    pub filter_timeout: Option<Duration>,
}

impl Default for DynamicResources {
    fn default() -> Self {
        DynamicResources {
            filter_timeout: Some(Duration::from_secs(1)),
        }
    }
}

/// What a pod claims.
struct Wanted<'a> {
    /// Where each claim that has its devices can be used.
    available: Vec<(&'a Arc<ResourceClaim>, NodeTerms)>,
    /// Of those that have none yet and ask for some. An error is one of the claim, which only shows where a node is looked at.
    asks: Result<Vec<Ask<'a>>, String>,
    cluster: &'a Claims,
}

/// The claims of a pod. None is wrong wherever it goes.
fn own<'a>(pod: &PodInfo, all: &'a Claims) -> Result<Named<'a>, Objection> {
    let claims = named(pod, all).map_err(Objection::unresolvable)?;
    for claim in claims.iter().filter(|claim| allocation(claim).is_none()) {
        claims::check(claim, all)?;
    }
    Ok(claims)
}

/// Where each of those that have their devices can be used.
fn available<'a>(claims: &Named<'a>) -> Vec<(&'a Arc<ResourceClaim>, NodeTerms)> {
    let places = claims.iter().filter_map(|claim| {
        let selector = allocation(claim)?.node_selector.as_ref()?;
        Some((*claim, NodeTerms::of_selector(Some(selector))))
    });
    places.collect()
}

/// Those of them that this node does not reach.
fn unavailable<'a>(
    available: &[(&'a Arc<ResourceClaim>, NodeTerms)],
    node: &NodeInfo,
) -> impl Iterator<Item = &'a Arc<ResourceClaim>> {
    let away = available.iter().filter(|(_, nodes)| !node.is_one_of(nodes));
    away.map(|(claim, _)| *claim)
}

fn asks<'a>(claims: &Named<'a>, all: &'a Claims) -> Result<Vec<Ask<'a>>, String> {
    let asking = claims
        .iter()
        .filter(|claim| allocation(claim).is_none() && !asks_nothing(claim));
    asking.map(|claim| Ask::new(claim, all)).collect()
}

/// The claims of a pod that is to go to a node, each with what it is to get there.
fn reserved(pod: &PodInfo, node: &NodeInfo, cluster: &Claims) -> Result<Vec<Reserved>, String> {
    let claims = own(pod, cluster).map_err(|objection| objection.reasons.join(", "))?;
    let mut allocations = allocations(&asks(&claims, cluster)?, node, cluster)?.into_iter();
    let all = claims.iter().map(|claim| {
        let allocation = match allocation(claim) {
            Some(_) => None,
            None if asks_nothing(claim) => Some(nothing(claim, cluster)?),
            None => allocations.next(),
        };
        let holds = is_reserved_for(claim, pod);
        Ok(Reserved::new((*claim).clone(), allocation, holds))
    });
    all.collect()
}

fn allocations(asks: &[Ask<'_>], node: &NodeInfo, cluster: &Claims) -> Result<Vec<AllocationResult>, String> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let known = cluster.found().on(node.id).and_then(|solution| solution.picks);
    let picks = match known {
        Some(known) => found(&known, asks.len(), cluster, node),
        None => search(asks, cluster, node).map_err(|_| "claim allocation not found for node".to_owned())?,
    };
    let each = asks.iter().zip(&picks).map(|(ask, picks)| {
        result::result(ask, picks).map_err(|why| format!("create NodeSelector for claim {}: {why}", key(ask.claim)))
    });
    each.collect()
}

/// What a claim has that asks for no devices: its configuration alone.
fn nothing(claim: &ResourceClaim, claims: &Claims) -> Result<AllocationResult, String> {
    result::result(&Ask::new(claim, claims)?, &[])
}

impl Wanted<'_> {
    /// Whether there are devices for the claims that have none yet. Which ones is kept: a node may be asked about several times.
    fn search(&self, node: &NodeInfo) -> Result<(), Unfound> {
        let asks = self.asks.as_ref().map_err(|error| Unfound::Failed(error.clone()))?;
        let found = self.cluster.found();
        if asks.is_empty() || found.on(node.id).is_some() {
            return Ok(());
        }
        let picks = search(asks, self.cluster, node)?;
        let worth = asks.iter().zip(&picks).map(|(ask, picks)| worth(ask, picks)).sum();
        let all = (0..).zip(&picks);
        let all: Vec<_> = all
            .flat_map(|(claim, picks)| picks.iter().map(move |pick| pick.places(claim)))
            .collect();
        found.keep(node.id, worth, &all);
        Ok(())
    }
}

impl Filter for Wanted<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        match self.search(node) {
            Err(Unfound::None) => Some(Objection::unresolvable("cannot allocate all claims")),
            Err(Unfound::InvalidPools) => Some(Objection::unresolvable("invalid resource pools were encountered")),
            Err(Unfound::TimedOut) => Some(Objection::unfinished("timed out trying to allocate devices")),
            Err(Unfound::Failed(error)) => Some(Objection::failed(error)),
            Ok(()) => {
                let away = unavailable(&self.available, node).next().is_some();
                away.then(|| Objection::unresolvable(UNAVAILABLE))
            }
        }
    }
}

/// The earlier the choices of its lists that a node has for a pod, the better.
struct Worth<'a>(&'a Found);

impl Score for Worth<'_> {
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores) {
            *score = self.0.on(node.id).map_or(0, |solution| solution.worth);
        }
    }

    fn normalise(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        scale(scores, false);
    }
}

fn worth(ask: &Ask<'_>, picks: &[Pick<'_>]) -> i64 {
    let listed = ask.requests.iter().enumerate().filter(|(_, request)| request.listed);
    let choices = listed.filter_map(|(at, _)| picks.iter().find(|pick| pick.request == at));
    let worth = choices.map(|pick| MOST_CHOICES - i64::try_from(pick.choice).unwrap_or(MOST_CHOICES));
    worth.sum()
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pre_enqueue(&self, pod: &PodInfo, cluster: &Cluster) -> bool {
        pod.wishes().claims.is_empty() || named(pod, &cluster.claims).is_ok()
    }

    fn prepare(&self, pod: &PodInfo, cluster: &mut Cluster) {
        if pod.wishes().claims.is_empty() {
            return;
        }
        let claims: Vec<_> = match named(pod, &cluster.claims) {
            Ok(claims) => claims.into_iter().cloned().collect(),
            Err(_) => Vec::new(),
        };
        cluster.claims.prepare(&claims, self.filter_timeout);
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        let all = &cluster.claims;
        match own(pod, all) {
            Ok(claims) if claims.is_empty() => PreFilter::Skip,
            Ok(claims) => PreFilter::Check(Box::new(Wanted {
                available: available(&claims),
                asks: asks(&claims, all),
                cluster: all,
            })),
            Err(objection) => PreFilter::Refuse(objection),
        }
    }

    /// A claim may keep the pod to where it cannot go. Nobody else needs the devices there: others may do.
    fn post_filter(
        &self,
        pod: &PodInfo,
        cluster: &Cluster,
        refused: &mut dyn Iterator<Item = (&NodeInfo, &Objection)>,
    ) -> Option<PostFilter> {
        let Some(claims) = own(pod, &cluster.claims).ok().filter(|claims| !claims.is_empty()) else {
            let words = "no new claims to deallocate".into();
            return Some(PostFilter { words, write: None });
        };
        let mut away = refused.filter(|(_, objection)| objection.reasons.iter().any(|reason| reason == UNAVAILABLE));
        let available = available(&claims);
        let given = away.find_map(|(node, _)| {
            let mut claims = unavailable(&available, node);
            claims.find(|claim| claims::is_reserved_only_for(claim, pod))
        });
        Some(match given {
            Some(claim) => PostFilter {
                words: "deallocation of ResourceClaim completed".into(),
                write: Some(binding::deallocate(claim)),
            },
            None => PostFilter {
                words: "still not schedulable".into(),
                write: None,
            },
        })
    }

    fn pre_score<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        if pod.wishes().claims.is_empty() {
            return None;
        }
        let claims = named(pod, &cluster.claims).ok()?;
        let mut unallocated = claims.iter().filter(|claim| allocation(claim).is_none());
        if !unallocated.any(|claim| claims::has_choices(claim)) {
            return None;
        }
        Some(Box::new(Worth(cluster.claims.found())))
    }

    fn reserve(&self, pod: &PodInfo, node: NodeId, cluster: &mut Cluster) -> Result<(), StepError> {
        let changed = |what| StepError::Changed { plugin: NAME, what };
        let claims = reserved(pod, cluster.node(node), &cluster.claims).map_err(changed)?;
        if !claims.is_empty() {
            cluster.claims.reserve(pod, claims);
        }
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, cluster: &mut Cluster) -> Option<Write> {
        if pod.wishes().claims.is_empty() {
            return None;
        }
        cluster.claims.unreserve(pod);
        // That one of them is gone by now keeps the others from nobody.
        let had = claims::those_there(pod, &cluster.claims)
            .filter(|claim| allocation(claim).is_some() && is_reserved_for(claim, pod));
        binding::release(pod, &had.collect::<Vec<_>>())
    }

    fn pre_bind(&self, pod: &PodInfo, _: NodeId, cluster: &Cluster, client: &Client) -> Option<PreBind> {
        let claims = cluster.claims.reserved(pod).iter();
        let missing: Vec<_> = claims.filter(|own| own.written.get().is_none()).cloned().collect();
        (!missing.is_empty()).then(|| binding::bind(client, pod, missing))
    }

    fn wakes_on(&self) -> u32 {
        Kind::NodeAdded as u32
            | Kind::NodeLabels as u32
            | Kind::NodeAllocatable as u32
            | Kind::DeviceClaim as u32
            | Kind::DeviceClass as u32
            | Kind::ResourceSlice as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, cluster: &Cluster) -> bool {
        match change {
            Change::DeviceClaim { before, now } => claims::helps(pod, *before, now, &cluster.claims),
            _ => true,
        }
    }
}
