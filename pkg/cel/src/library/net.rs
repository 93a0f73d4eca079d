//! Addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::value::{Failure, Outcome, Value};

fn address(text: &str) -> Result<IpAddr, Failure> {
    let failed = |why: String| {
        Failure::new(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {why}"
        ))
    };
    let (plain, zone) = text
        .split_once('%')
        .map_or((text, None), |(plain, zone)| (plain, Some(zone)));
    let address = if plain.contains(':') {
        plain
            .parse::<Ipv6Addr>()
            .map(IpAddr::V6)
            .map_err(|_| failed("unable to parse IP".into()))?
    } else {
        plain
            .parse::<Ipv4Addr>()
            .map(IpAddr::V4)
            .map_err(|_| failed(why_no_ipv4(text).into()))?
    };
    if let Some(zone) = zone {
        if zone.is_empty() || address.is_ipv4() {
            return Err(failed("zone must be a non-empty string".into()));
        }
        return Err(Failure::new(format!(
            "IP address {text:?} with zone value is not allowed"
        )));
    }
    if is_mapped(&address) {
        return Err(Failure::new(format!(
            "IPv4-mapped IPv6 address {text:?} is not allowed"
        )));
    }
    Ok(address)
}

fn why_no_ipv4(text: &str) -> &'static str {
    if !text.contains('.') {
        return "unable to parse IP";
    }
    let fields: Vec<&str> = text.split('.').collect();
    for field in &fields {
        if field.is_empty() {
            return "IPv4 field must have at least one digit";
        }
        if !field.bytes().all(|b| b.is_ascii_digit()) {
            return "unexpected character";
        }
        if field.len() > 1 && field.starts_with('0') {
            return "IPv4 field has octet with leading zero";
        }
        if field.parse::<u32>().map_or(true, |value| value > 255) {
            return "IPv4 field has value >255";
        }
    }
    if fields.len() > 4 {
        "IPv4 address too long"
    } else {
        "IPv4 address too short"
    }
}

fn is_mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

fn network(text: &str) -> Result<(IpAddr, u8), Failure> {
    let failed = |why: &str| {
        let parse = "network address parse error during conversion from string";
        Failure::new(format!("{parse}: netip.ParsePrefix({text:?}): {why}"))
    };
    let (plain, bits) = text.rsplit_once('/').ok_or_else(|| failed("no '/'"))?;
    let unable = || failed(&format!("ParseAddr({plain:?}): unable to parse IP"));
    let address: IpAddr = plain.parse().map_err(|_| unable())?;
    let good = (1..=3).contains(&bits.len())
        && bits.bytes().all(|b| b.is_ascii_digit())
        && (bits.len() == 1 || !bits.starts_with('0'));
    let length: u32 = bits
        .parse()
        .ok()
        .filter(|_| good)
        .ok_or_else(|| failed(&format!("bad bits after slash: {bits:?}")))?;
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return Err(failed("prefix length out of range"));
    }
    if is_mapped(&address) {
        return Err(Failure::new(format!(
            "IPv4-mapped IPv6 address {text:?} is not allowed"
        )));
    }
    Ok((address, length as u8))
}

fn network_of(text: &str) -> Result<(IpAddr, u8), Failure> {
    let outer = |error: Failure| {
        Failure::new(format!(
            "network address parse error during conversion from string: {error}"
        ))
    };
    network(text).map_err(outer)
}

/// An address with all bits after the first `bits` cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

fn contains(network: (IpAddr, u8), address: IpAddr) -> bool {
    network.0.is_ipv4() == address.is_ipv4() && masked(network.0, network.1) == masked(address, network.1)
}

pub(super) fn ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => address(text).map(Value::Ip),
        [Value::Cidr(address, _)] => Ok(Value::Ip(*address)),
        _ => Err(Failure::NoOverload),
    }
}

pub(super) fn is_ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Bool(address(text).is_ok()))
}

pub(super) fn is_canonical<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Bool(address(text)?.to_string() == **text))
}

pub(super) fn family<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Ip(address)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 }))
}

/// `isLoopback` and its like.
pub(super) fn is<'a>(args: &[Value<'a>], function: &str) -> Outcome<'a> {
    let [Value::Ip(address)] = args else {
        return Err(Failure::NoOverload);
    };
    let unicast_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    };
    Ok(Value::Bool(match function {
        "isUnspecified" => address.is_unspecified(),
        "isLoopback" => address.is_loopback(),
        "isLinkLocalUnicast" => unicast_link_local,
        "isLinkLocalMulticast" => match address {
            IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
            IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
        },
        _ => {
            let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || unicast_link_local
                || broadcast)
        }
    }))
}

pub(super) fn cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else {
        return Err(Failure::NoOverload);
    };
    network_of(text).map(|(address, bits)| Value::Cidr(address, bits))
}

pub(super) fn is_cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Bool(network(text).is_ok()))
}

pub(super) fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(match args {
        [Value::Cidr(own, bits), Value::Ip(other)] => contains((*own, *bits), *other),
        // What is no address is an argument of the wrong type here.
        [Value::Cidr(own, bits), Value::String(other)] => {
            contains((*own, *bits), address(other).map_err(|_| Failure::no_overload())?)
        }
        _ => return Err(Failure::NoOverload),
    }))
}

pub(super) fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (own, other) = match args {
        [Value::Cidr(own, bits), Value::Cidr(other, other_bits)] => ((*own, *bits), (*other, *other_bits)),
        [Value::Cidr(own, bits), Value::String(other)] => ((*own, *bits), network_of(other)?),
        _ => return Err(Failure::NoOverload),
    };
    Ok(Value::Bool(own.1 <= other.1 && contains(own, other.0)))
}

pub(super) fn prefix_length<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Cidr(_, bits)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Int(i64::from(*bits)))
}

pub(super) fn mask<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Cidr(address, bits)] = args else {
        return Err(Failure::NoOverload);
    };
    Ok(Value::Cidr(masked(*address, *bits), *bits))
}
