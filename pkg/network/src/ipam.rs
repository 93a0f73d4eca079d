//! Which pod has which address of the node's range: a file beside the node's other state, replaced atomically.
//!
//! Addresses are handed out round the range, so that one that was just freed is the last to be given again: peers'
//! connection tracking and neighbour tables have forgotten it by then.

use std::{
    collections::BTreeMap,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pod_cidr: Ipv4Net,
    last: Ipv4Addr,
    /// By pod uid.
    addresses: BTreeMap<String, Ipv4Addr>,
}

impl Pool {
    pub fn new(pod_cidr: Ipv4Net) -> Self {
        Self {
            pod_cidr,
            last: gateway(pod_cidr),
            addresses: BTreeMap::new(),
        }
    }

    pub fn get(&self, uid: &str) -> Option<Ipv4Addr> {
        self.addresses.get(uid).copied()
    }

    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.addresses.keys().map(String::as_str)
    }

    /// The pod's address: the one it has, or the next free one.
    pub fn allocate(&mut self, uid: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.get(uid) {
            return Some(address);
        }
        let used: std::collections::HashSet<u32> = self.addresses.values().map(|&a| u32::from(a)).collect();
        // The network's and the broadcast address and the gateway are nobody's.
        let first = u32::from(gateway(self.pod_cidr)) + 1;
        let end = u32::from(self.pod_cidr.broadcast());
        let start = (u32::from(self.last) + 1).max(first);
        let free = (start..end)
            .chain(first..start.min(end))
            .find(|candidate| !used.contains(candidate))?;
        let address = Ipv4Addr::from(free);
        self.last = address;
        self.addresses.insert(uid.to_owned(), address);
        Some(address)
    }

    pub fn release(&mut self, uid: &str) -> Option<Ipv4Addr> {
        self.addresses.remove(uid)
    }
}

/// The first address of the node's range is the bridge's: every pod's gateway.
pub fn gateway(pod_cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(pod_cidr.network()) + 1)
}

/// A pool and the file it is kept in.
#[derive(Debug)]
pub struct Ipam {
    pub pool: Pool,
    file: PathBuf,
}

impl Ipam {
    /// What the file holds, or an empty pool where there is none or the node was given another range.
    pub fn open(dir: &Path, pod_cidr: Ipv4Net) -> Result<Self> {
        let file = dir.join("addresses.json");
        fs::create_dir_all(dir).map_err(|source| Error::io(format!("create {}", dir.display()), source))?;
        let pool = match fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice::<Pool>(&bytes) {
                Ok(pool) if pool.pod_cidr == pod_cidr => pool,
                Ok(pool) => {
                    tracing::warn!(was = %pool.pod_cidr, now = %pod_cidr, "the node has another pod range");
                    Pool::new(pod_cidr)
                }
                // Whoever lost the file's end lost the pods as well (see `save`): nothing to keep, and no reason to stop.
                Err(error) => {
                    let aside = file.with_extension("damaged");
                    tracing::warn!(file = %file.display(), aside = %aside.display(), %error, "damaged: begun anew");
                    fs::rename(&file, &aside)
                        .map_err(|source| Error::io(format!("rename {}", file.display()), source))?;
                    Pool::new(pod_cidr)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Pool::new(pod_cidr),
            Err(source) => return Err(Error::io(format!("read {}", file.display()), source)),
        };
        Ok(Self { pool, file })
    }

    /// Replaces the file. Not synced to disk: after a crash of the machine no pod has its namespace any more, and a
    /// crash of the process loses nothing.
    pub fn save(&self) -> Result<()> {
        let error = |source| Error::io(format!("write {}", self.file.display()), source);
        let bytes = serde_json::to_vec(&self.pool).map_err(|source| error(source.into()))?;
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, bytes)
            .and_then(|()| fs::rename(&fresh, &self.file))
            .map_err(error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn goes_round_the_range() {
        let mut pool = Pool::new("10.244.3.0/29".parse().unwrap());
        let given: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|uid| pool.allocate(uid).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4]);
        assert_eq!(pool.allocate("b").unwrap().octets()[3], 3, "a pod keeps its address");
        pool.release("b");
        assert_eq!(pool.allocate("d").unwrap().octets()[3], 5, "the freed one comes last");
        assert_eq!(pool.allocate("e").unwrap().octets()[3], 6);
        assert_eq!(pool.allocate("f").unwrap().octets()[3], 3);
        assert_eq!(pool.allocate("g"), None, "7 is the broadcast address");
    }

    #[test]
    fn survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let cidr = "10.244.0.0/24".parse().unwrap();
        // A power cut may leave the file without its content.
        fs::write(dir.path().join("addresses.json"), "").unwrap();
        let mut ipam = Ipam::open(dir.path(), cidr).unwrap();
        let address = ipam.pool.allocate("a").unwrap();
        ipam.save().unwrap();
        assert_eq!(Ipam::open(dir.path(), cidr).unwrap().pool.get("a"), Some(address));
        assert_eq!(
            Ipam::open(dir.path(), "10.244.1.0/24".parse().unwrap())
                .unwrap()
                .pool
                .get("a"),
            None
        );
    }
}
