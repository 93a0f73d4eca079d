//! What this host, and root on it, can give a container: found out once, passed to the pure builder.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Root's own bounding set; more than this nobody here can hand on.
    pub capabilities: u64,
    pub cgroup_v2: bool,
    pub apparmor: bool,
    /// The memory controller accounts swap (`memory.memsw.*`, `memory.swap.max`).
    pub swap_limit: bool,
    /// Own oom_score_adj: a lower one can be set with CAP_SYS_RESOURCE only.
    pub oom_score_adj: i32,
}

const CAP_SYS_RESOURCE: u32 = 24;

impl Host {
    pub fn detect() -> Host {
        let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Host {
            capabilities: bounding_set(&read("/proc/self/status")),
            cgroup_v2,
            apparmor: read("/sys/module/apparmor/parameters/enabled").starts_with('Y')
                && Path::new("/sys/kernel/security/apparmor").exists(),
            swap_limit: cgroup_v2 || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
            oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or_default(),
        }
    }

    /// The adjustment to ask for: one that would fail is left out, since a container without it beats none.
    pub(crate) fn oom_score_adj(&self, wanted: Option<i32>) -> Option<i32> {
        let wanted = wanted?;
        if wanted >= self.oom_score_adj || self.capabilities & (1 << CAP_SYS_RESOURCE) != 0 {
            return Some(wanted);
        }
        static TOLD: OnceLock<()> = OnceLock::new();
        TOLD.get_or_init(|| {
            let own = self.oom_score_adj;
            tracing::warn!(
                wanted,
                own,
                "root lacks CAP_SYS_RESOURCE: a lower oom_score_adj is left as it is"
            );
        });
        None
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn bounding_set(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_bounding_set() {
        assert_eq!(
            bounding_set("Name:\tx\nCapEff:\t0\nCapBnd:\t000001fffeffffff\n"),
            0x1ff_feff_ffff
        );
    }

    #[test]
    fn oom_score_adj_that_cannot_be_lowered_is_left() {
        let mut host = Host {
            capabilities: 0,
            cgroup_v2: false,
            apparmor: false,
            swap_limit: false,
            oom_score_adj: 0,
        };
        assert_eq!(host.oom_score_adj(Some(-998)), None);
        assert_eq!(host.oom_score_adj(Some(1000)), Some(1000));
        host.capabilities = 1 << CAP_SYS_RESOURCE;
        assert_eq!(host.oom_score_adj(Some(-998)), Some(-998));
    }
}
