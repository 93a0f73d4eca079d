//! Hard eviction thresholds: with less than this left, the node says that it is under pressure and takes only
//! pods that the cluster needs (`admission`).
//! The syntax is that of kubelet's --eviction-hard (Reserve Compute Resources, "Node-pressure Eviction").

use std::str::FromStr;
use std::time::Duration;

use mk8s_api::quantity::Quantity;

use super::machine::Supply;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
}

/// Near a threshold it is looked at this often, as upstream's kubelet always does …
const SOONEST: Duration = Duration::from_secs(10);
/// … and far from all of them this seldom.
const LATEST: Duration = Duration::from_secs(300);

impl Signal {
    /// What a busy machine uses up in a second.
    fn fastest(self) -> i64 {
        match self {
            Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => 512 << 20,
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => 50_000,
            Signal::PidAvailable => 1_000,
        }
    }
}

const SIGNALS: [(&str, Signal); 6] = [
    ("memory.available", Signal::MemoryAvailable),
    ("nodefs.available", Signal::NodefsAvailable),
    ("nodefs.inodesFree", Signal::NodefsInodesFree),
    ("imagefs.available", Signal::ImagefsAvailable),
    ("imagefs.inodesFree", Signal::ImagefsInodesFree),
    ("pid.available", Signal::PidAvailable),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Least {
    Amount(i64),
    /// Of the whole, 0 to 1.
    Share(f64),
}

/// One at most for each signal; a signal without one is never low.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds(Vec<(Signal, Least)>);

/// Upstream's, but for the disk: a tenth of a large one is space that nobody is short of (k3s lowers it for the same
/// reason, to 5 %).
pub const DEFAULT: &str = "memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<5%,imagefs.available<1Gi,\
                           imagefs.inodesFree<5%";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("eviction threshold {text:?}: {why}")]
pub struct Malformed {
    text: String,
    why: String,
}

impl Thresholds {
    /// What has to be left of `size`: bytes, inodes or process ids.
    pub fn least(&self, signal: Signal, size: i64) -> i64 {
        let set = self.0.iter().find(|(of, _)| *of == signal);
        set.map_or(0, |(_, least)| match least {
            Least::Amount(amount) => *amount,
            Least::Share(share) => (size as f64 * share) as i64,
        })
    }

    pub fn low(&self, signal: Signal, supply: Supply) -> bool {
        supply.left < self.least(signal, supply.size)
    }

    /// How long nothing here can become low, or cease to be: there is no event for that, so it is when to look again.
    pub fn certain_for(&self, supplies: &[(Signal, Option<Supply>)]) -> Duration {
        let watched = supplies
            .iter()
            .filter(|(signal, _)| self.0.iter().any(|(of, _)| of == signal));
        let times = watched.filter_map(|(signal, supply)| {
            let supply = (*supply)?;
            let room = supply.left - self.least(*signal, supply.size);
            let seconds = room.max(0) / signal.fastest();
            Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        });
        times.min().unwrap_or(LATEST).clamp(SOONEST, LATEST)
    }
}

impl FromStr for Thresholds {
    type Err = Malformed;

    /// `SIGNAL<AMOUNT` or `SIGNAL<N%`, separated by commas. As kubelet's, the whole replaces the whole default, and 0% or
    /// 100% is no threshold.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut all: Vec<(Signal, Least)> = Vec::new();
        for statement in text.split(',').map(str::trim).filter(|statement| !statement.is_empty()) {
            let malformed = |why: String| Malformed {
                text: statement.to_owned(),
                why,
            };
            let (name, value) = statement
                .split_once('<')
                .ok_or_else(|| malformed("write SIGNAL<AMOUNT or SIGNAL<PERCENT%".to_owned()))?;
            let (_, signal) = SIGNALS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                let known: Vec<&str> = SIGNALS.iter().map(|(known, _)| *known).collect();
                malformed(format!("{name:?} is none of the signals {}", known.join(", ")))
            })?;
            if all.iter().any(|(of, _)| of == signal) {
                return Err(malformed(format!("{name} has two thresholds")));
            }
            let least = value_of(value).map_err(malformed)?;
            if least != Least::Share(0.0) && least != Least::Share(1.0) {
                all.push((*signal, least));
            }
        }
        Ok(Self(all))
    }
}

fn value_of(text: &str) -> Result<Least, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| format!("{text:?} is no percentage"))?;
        return match percent / 100.0 {
            share if (0.0..=1.0).contains(&share) => Ok(Least::Share(share)),
            _ => Err(format!("{text:?} is not between 0% and 100%")),
        };
    }
    let amount = Quantity::parse(text).map_err(|error| error.to_string())?.value();
    if amount > 0 {
        Ok(Least::Amount(amount))
    } else {
        Err(format!("{text:?} is not positive"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GI: i64 = 1 << 30;

    #[test]
    fn amounts_and_shares() {
        let set: Thresholds = "memory.available<100Mi, nodefs.available<10%".parse().unwrap();
        let disk = |left| Supply { size: 100 * GI, left };
        assert!(set.low(Signal::NodefsAvailable, disk(9 * GI)));
        assert!(!set.low(Signal::NodefsAvailable, disk(10 * GI)));
        assert_eq!(set.least(Signal::MemoryAvailable, 8 * GI), 100 << 20);
        assert!(!set.low(Signal::ImagefsAvailable, disk(0)), "replaced whole");
        let none: Thresholds = "nodefs.available<0%,pid.available<100%".parse().unwrap();
        assert_eq!(none, Thresholds(vec![]));
        let all: Thresholds = DEFAULT.parse().unwrap();
        assert_eq!(all.0.len(), 5);
    }

    #[test]
    fn looks_again_when_it_can_matter() {
        let set: Thresholds = "memory.available<1Gi,nodefs.available<10Gi".parse().unwrap();
        for (memory, disk, inodes, expected) in [
            (20 * GI, 900 * GI, 1, 38),
            (200 * GI, 30 * GI, 1, 40),
            (2 * GI, 900 * GI, 1, 10),
            (GI / 2, 900 * GI, 1, 10),
            (900 * GI, 900 * GI, 1, 300),
        ] {
            let supply = |left| Some(Supply { size: 1000 * GI, left });
            let supplies = [
                (Signal::MemoryAvailable, supply(memory)),
                (Signal::NodefsAvailable, supply(disk)),
                // Without a threshold nobody asks for it.
                (Signal::NodefsInodesFree, supply(inodes)),
                (Signal::PidAvailable, None),
            ];
            assert_eq!(
                set.certain_for(&supplies),
                Duration::from_secs(expected),
                "{memory} {disk}"
            );
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("nodefs.available", "SIGNAL<AMOUNT"),
            ("disk.available<1Gi", "nodefs.available, nodefs.inodesFree"),
            ("nodefs.available<1Gi,nodefs.available<5%", "two thresholds"),
            ("nodefs.available<120%", "between"),
            ("nodefs.available<x%", "no percentage"),
            ("nodefs.available<NaN%", "between"),
            ("nodefs.available<0", "not positive"),
            ("nodefs.available<1Zi", "1Zi"),
        ] {
            let error = text.parse::<Thresholds>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
