//! What the API server, which gives addresses out, and the controller of ranges agree on.

use std::net::IpAddr;

use ipnet::IpNet;

/// The label of an IPAddress that the API server made for a Service, and its value: upstream's words.
pub const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// Whether an address of a range can be a Service's: neither the network's own nor the broadcast address, which IPv6 has not.
pub fn gives(range: &IpNet, address: IpAddr) -> bool {
    let broadcast = address.is_ipv4() && address == range.broadcast();
    range.contains(&address) && address != range.network() && !broadcast
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_that_a_service_can_have() {
        for (range, address, expected) in [
            ("10.1.0.0/24", "10.1.0.0", false),
            ("10.1.0.0/24", "10.1.0.1", true),
            ("10.1.0.0/24", "10.1.0.255", false),
            ("10.1.0.0/24", "10.1.1.1", false),
            ("fd00::/112", "fd00::", false),
            ("fd00::/112", "fd00::ffff", true),
            ("10.1.0.0/24", "fd00::1", false),
        ] {
            let gives = gives(&range.parse().unwrap(), address.parse().unwrap());
            assert_eq!(gives, expected, "{range} {address}");
        }
    }
}
