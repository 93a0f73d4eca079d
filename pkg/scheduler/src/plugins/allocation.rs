//! How much of each resource a node would have given away with the pod on it: what the two plugins that score resources go by.

use crate::cluster::NodeInfo;
use crate::pod::PodInfo;

/// A resource that scores, and its share of the score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    pub name: Box<str>,
    pub weight: i64,
}

/// CPU and memory, the same: upstream's default.
pub fn cpu_and_memory() -> Vec<Weighed> {
    ["cpu", "memory"]
        .map(|name| Weighed {
            name: name.into(),
            weight: 1,
        })
        .into()
}

/// A resource as one pod asks for it.
pub enum Asked<'a> {
    Cpu(i64),
    Memory(i64),
    EphemeralStorage(i64),
    Scalar(&'a str, i64),
}

/// Whose sums are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// What pods ask for.
    Requested,
    /// The same, where a container that asks for no CPU or memory counts as a small one.
    Nonzero,
}

/// What of the weighed resources a pod asks for, each with its place in `weighed`; one that it doesn't ask for scores only where
/// every pod uses it.
pub fn asked<'a>(pod: &PodInfo, weighed: &'a [Weighed], sums: Sums) -> Vec<(Asked<'a>, i64)> {
    let own = match sums {
        Sums::Requested => &pod.requests,
        Sums::Nonzero => pod.wishes().scored.as_deref().unwrap_or(&pod.nonzero),
    };
    let asked = weighed.iter().filter_map(|resource| {
        let asked = match &*resource.name {
            "cpu" => Asked::Cpu(own.milli_cpu),
            "memory" => Asked::Memory(own.memory),
            "ephemeral-storage" => Asked::EphemeralStorage(own.ephemeral_storage),
            name => Asked::Scalar(name, Some(own.scalar(name)).filter(|amount| *amount != 0)?),
        };
        Some((asked, resource.weight))
    });
    asked.collect()
}

impl Asked<'_> {
    /// The pod's own.
    pub fn amount(&self) -> i64 {
        match self {
            Asked::Cpu(own) | Asked::Memory(own) | Asked::EphemeralStorage(own) | Asked::Scalar(_, own) => *own,
        }
    }

    /// What would be given away of it, and what there is.
    pub fn of(&self, node: &NodeInfo, sums: Sums) -> (i64, i64) {
        let all = &node.allocatable;
        let used = match sums {
            Sums::Requested => &node.requested,
            Sums::Nonzero => &node.nonzero,
        };
        match self {
            Asked::Cpu(own) => (used.milli_cpu + own, all.milli_cpu),
            Asked::Memory(own) => (used.memory + own, all.memory),
            Asked::EphemeralStorage(own) => (node.requested.ephemeral_storage + own, all.ephemeral_storage),
            Asked::Scalar(name, own) => (node.requested.scalar(name) + own, all.scalar(name)),
        }
    }
}
