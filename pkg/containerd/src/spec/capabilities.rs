//! Which capabilities a container gets: CRI's default set, what the pod adds and drops, masked by what root has.

use super::{Security, SpecError};

/// In the kernel's order: the index is the bit.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const ALL: u64 = (1 << NAMES.len()) - 1;

fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|index| 1 << index)
}

fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).sum()
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

/// The set as a bit mask. What root itself lacks is taken out silently: that is the host's doing, not the pod's.
pub(super) fn resolve(security: &Security, host: u64) -> Result<u64, SpecError> {
    if security.privileged {
        return Ok(ALL & host);
    }
    let mut set = default_set();
    if has_all(&security.add_capabilities) {
        set = ALL;
    }
    if has_all(&security.drop_capabilities) {
        set = 0;
    }
    for name in security
        .add_capabilities
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
    {
        set |= bit(name).ok_or_else(|| SpecError::UnknownCapability(name.clone()))?;
    }
    for name in &security.drop_capabilities {
        // Dropping what does not exist is done already.
        set &= !bit(name).unwrap_or_default();
    }
    Ok(set & host)
}

pub(super) fn names(set: u64) -> Vec<String> {
    let is_set = |index: &usize| set & (1 << *index) != 0;
    (0..NAMES.len())
        .filter(is_set)
        .map(|index| format!("CAP_{}", NAMES[index]))
        .collect()
}

pub(super) fn contains(set: u64, name: &str) -> bool {
    bit(name).is_some_and(|bit| set & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(privileged: bool, add: &[&str], drop: &[&str], host: u64) -> Result<u64, SpecError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (add_capabilities, drop_capabilities) = (owned(add), owned(drop));
        resolve(
            &Security {
                privileged,
                add_capabilities,
                drop_capabilities,
                ..Default::default()
            },
            host,
        )
    }

    #[test]
    fn adds_and_drops_in_cris_order() {
        let of = |names: &[&str]| names.iter().filter_map(|n| bit(n)).sum::<u64>();
        let without_resource = ALL & !of(&["SYS_RESOURCE"]);
        let table: [(&[&str], &[&str], u64); 6] = [
            (&[], &[], default_set()),
            (&["NET_ADMIN"], &["KILL"], default_set() | of(&["NET_ADMIN"])),
            (&[], &["ALL"], 0),
            (&["NET_BIND_SERVICE"], &["ALL"], of(&["NET_BIND_SERVICE"])),
            (&["ALL"], &["CHOWN"], without_resource & !of(&["CHOWN"])),
            (&["ALL", "CHOWN"], &["ALL"], of(&["CHOWN"])),
        ];
        for (add, drop, want) in table {
            let want = if drop.contains(&"KILL") {
                want & !of(&["KILL"])
            } else {
                want
            };
            assert_eq!(
                resolved(false, add, drop, without_resource),
                Ok(want),
                "{add:?} {drop:?}"
            );
        }
        assert_eq!(resolved(true, &[], &["ALL"], without_resource), Ok(without_resource));
        assert_eq!(
            resolved(false, &["NOPE"], &[], ALL),
            Err(SpecError::UnknownCapability("NOPE".into()))
        );
    }
}
