//! Addresses and ranges that are read, though they are not written as they should be.

use std::net::{IpAddr, Ipv4Addr};

use crate::validation::Path;

/// An address as Go's older parser reads it: with leading zeros, in decimal.
fn sloppy(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

/// An address as Go's `net.IP` prints it: what is an IPv4 address in IPv6 clothes is one.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

pub(super) fn ip(text: &str, path: &Path<'_>, warnings: &mut Vec<String>) {
    let Some(address) = sloppy(text) else { return };
    if text.parse::<IpAddr>().is_err() || plain(address) != address {
        let plain = plain(address).to_string();
        warnings.push(format!(
            "{path}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use {plain:?}"
        ));
    } else if address.is_ipv6() && address.to_string() != text {
        let canonical = address.to_string();
        warnings.push(format!(
            "{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
}

pub(super) fn cidr(text: &str, path: &Path<'_>, warnings: &mut Vec<String>) {
    let Some((address, length)) = text.split_once('/') else {
        return;
    };
    let is_standard = address.parse::<IpAddr>().is_ok();
    let (Some(written), Ok(length)) = (sloppy(address), length.parse::<u8>()) else {
        return;
    };
    let address = plain(written);
    let length = if address == written {
        length
    } else {
        length.saturating_sub(96)
    };
    let Ok(net) = ipnet::IpNet::new(address, length) else {
        return;
    };
    let before = warnings.len();
    if net.network() != address {
        let (range, alone) = (net.trunc().to_string(), format!("{address}/{}", net.max_prefix_len()));
        warnings.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {range:?} or {alone:?}?)"
        ));
    }
    if !is_standard || address != written {
        let range = net.trunc().to_string();
        warnings.push(format!(
            "{path}: non-standard CIDR value {text:?} will be considered invalid in a future Kubernetes release: use {range:?}"
        ));
    }
    let canonical = net.to_string();
    if warnings.len() == before && address.is_ipv6() && canonical != text {
        warnings.push(format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: fn(&str, &Path<'_>, &mut Vec<String>), text: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        check(text, &Path::new("f"), &mut warnings);
        warnings
    }

    #[test]
    fn addresses_are_wanted_as_they_are_printed() {
        let future = "will be considered invalid in a future Kubernetes release: use";
        for text in ["10.0.0.1", "fd00::1", "nonsense", ""] {
            assert!(told(ip, text).is_empty(), "{text}");
        }
        assert_eq!(
            told(ip, "010.0.0.1"),
            [format!(r#"f: non-standard IP address "010.0.0.1" {future} "10.0.0.1""#)]
        );
        let mapped = "::ffff:10.0.0.1";
        assert_eq!(
            told(ip, mapped),
            [format!(r#"f: non-standard IP address "{mapped}" {future} "10.0.0.1""#)]
        );
        assert_eq!(
            told(ip, "FD00:0::1"),
            [r#"f: IPv6 address "FD00:0::1" should be in RFC 5952 canonical format ("fd00::1")"#]
        );
    }

    #[test]
    fn ranges_are_wanted_as_they_are_printed() {
        for text in ["10.0.0.0/8", "fd00::/64", "nonsense", "10.0.0.0/99"] {
            assert!(told(cidr, text).is_empty(), "{text}");
        }
        assert_eq!(
            told(cidr, "10.1.2.3/8"),
            [r#"f: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)"#]
        );
        assert_eq!(
            told(cidr, "FD00::/64"),
            [r#"f: IPv6 CIDR value "FD00::/64" should be in RFC 5952 canonical format ("fd00::/64")"#]
        );
        assert_eq!(told(cidr, "010.0.0.0/8").len(), 1);
    }
}
