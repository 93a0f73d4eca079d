//! A pod's claims have to have, or get, volumes that its node reaches. What a decision gives them is written before the pod is bound, and
//! waited for.

mod claims;
#[cfg(test)]
mod tests;
mod writes;

use std::time::Duration;

use futures::FutureExt;
use kube::Client;

use self::claims::Claims;
use crate::change::{Change, Kind};
use crate::cluster::{Cluster, Decided, NodeId, NodeInfo};
use crate::framework::{Filter, Objection, Plugin, PreBind, PreFilter, StepError, Write};
use crate::pod::PodInfo;

const NAME: &str = "VolumeBinding";

/// Upstream's VolumeBinding.
#[derive(Debug)]
pub struct VolumeBinding {
    /// So long claims are waited for (`bindTimeoutSeconds`).
    pub timeout: Duration,
}

impl Default for VolumeBinding {
    fn default() -> Self {
        VolumeBinding {
            timeout: Duration::from_secs(600),
        }
    }
}

impl Filter for Claims<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        self.on(node).err()
    }
}

/// What becomes of the claims that are not bound.
fn decided(pod: &PodInfo, node: &NodeInfo, cluster: &Cluster) -> Result<Decided, Objection> {
    let Some(claims) = Claims::of(pod, cluster)? else {
        return Ok(Decided::new());
    };
    let decided = claims.on(node)?.into_iter();
    Ok(decided.map(|(claim, volume)| (claim.into(), volume.cloned())).collect())
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        match Claims::of(pod, cluster) {
            Ok(None) => PreFilter::Skip,
            Ok(Some(claims)) => PreFilter::Check(Box::new(claims)),
            Err(objection) => PreFilter::Refuse(objection),
        }
    }

    fn reserve(&self, pod: &PodInfo, node: NodeId, cluster: &mut Cluster) -> Result<(), StepError> {
        let decided = decided(pod, cluster.node(node), cluster).map_err(|objection| StepError::Changed {
            plugin: NAME,
            what: objection.reasons.join(", "),
        })?;
        if !decided.is_empty() {
            cluster.assume(&pod.uid, node, decided);
        }
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, cluster: &mut Cluster) -> Option<Write> {
        cluster.volumes.forget_binding(&pod.uid, None);
        None
    }

    fn pre_bind(&self, pod: &PodInfo, node: NodeId, cluster: &Cluster, client: &Client) -> Option<PreBind> {
        let (parts, ended) = cluster.volumes.binding_of(&pod.uid)?;
        let writes = writes::writes(parts, &cluster.node(node).name, &cluster.volumes);
        Some(writes::bound(writes, client.clone(), ended, self.timeout).boxed())
    }

    fn wakes_on(&self) -> u32 {
        Kind::ClassAdded as u32
            | Kind::ClassChanged as u32
            | Kind::ClaimAdded as u32
            | Kind::ClaimChanged as u32
            | Kind::VolumeAdded as u32
            | Kind::VolumeChanged as u32
            | Kind::NodeAdded as u32
            | Kind::NodeLabels as u32
            | Kind::CsiNodeAdded as u32
            | Kind::CsiNodeChanged as u32
            | Kind::RoomIgnored as u32
            | Kind::RoomAdded as u32
            | Kind::RoomChanged as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, cluster: &Cluster) -> bool {
        let Some(volumes) = &pod.volumes else { return false };
        match change {
            Change::Class { before, now } => before.is_none_or(|before| before.topologies != now.topologies),
            Change::Claim { key, .. } => volumes.uses(key),
            Change::CsiNode { before, now } => before.is_none_or(|before| now.migrates_otherwise(before)),
            Change::Room { before, now } => before.is_none_or(|before| now.grew(before)),
            // Upstream asks for volumes of the driver that the pod itself names, which no claim is.
            Change::RoomIgnored(driver) => volumes.claims.iter().any(|own| {
                let claim = cluster.volumes.claim(&own.key);
                let class = claim.and_then(|claim| cluster.volumes.class(&claim.class));
                class.is_some_and(|class| *class.provisioner == **driver)
            }),
            _ => true,
        }
    }
}
