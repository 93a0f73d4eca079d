//! Every name that mk8s leaves in the kernel's network. Found again, and removed, by these alone.

use std::net::Ipv4Addr;

pub const BRIDGE: &str = "mk8s0";
pub const VXLAN: &str = "mk8s-vxlan";
pub const VXLAN_PORT: u16 = 8472;
pub const VXLAN_ID: u32 = 1;
/// Host side of a pod's veth: this and ten hex digits.
pub const VETH_PREFIX: &str = "mk8sv";
/// A pod's network namespace is /run/netns/mk8s-UID.
pub const NETNS_PREFIX: &str = "mk8s-";
/// The protocol number that marks a route as mk8s's ('m'; the kernel and /etc/iproute2/rt_protos leave it free).
pub const ROUTE_PROTOCOL: u8 = 109;
/// Masquerading and the guard of the DNS address. Services have a table of their own, so that each is rebuilt alone.
pub const TABLE: &str = "mk8s-network";
/// Services and host ports.
pub const SERVICE_TABLE: &str = "mk8s";

/// The host side of a pod's veth. A hash, since a link's name holds 15 bytes and a pod's uid 36.
pub fn veth(uid: &str) -> String {
    // FNV-1a: stable over versions, and needs no crate.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{VETH_PREFIX}{:010x}", hash & 0xff_ffff_ffff)
}

pub fn netns(uid: &str) -> String {
    format!("{NETNS_PREFIX}{uid}")
}

/// The hardware address of a pod, or of the bridge, follows from its IP address, so that nobody needs to ask for it.
pub fn pod_mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The hardware address of a node's VXLAN device: peers compute it from the node's address.
pub fn vxlan_mac(node: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [0x0e, 0x6d, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        let veth = veth("5f1c4a0e-8f0f-4d9a-9f67-2f3f6a1f0b11");
        assert_eq!(veth.len(), 15);
        assert_ne!(veth, super::veth("5f1c4a0e-8f0f-4d9a-9f67-2f3f6a1f0b12"));
        for name in [BRIDGE, VXLAN] {
            assert!(name.len() <= 15 && !name.starts_with(VETH_PREFIX));
        }
    }
}
