//! What the host itself can tell: its name and the address it would speak from.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::failure::{Failure, Result};

/// The host's name as a node's name: lower case, as kubeadm takes it.
pub fn name() -> Result<String> {
    let name = nix::unistd::gethostname().map_err(|error| Failure::of("read the host's name", error))?;
    Ok(name.to_string_lossy().trim().to_lowercase())
}

/// The source address of the route to `target`. A connected UDP socket tells it without sending anything.
pub fn source_address(target: SocketAddr) -> Result<Ipv4Addr> {
    let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    match found.map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) if !address.is_unspecified() => Ok(address),
        Ok(other) => Err(Failure::new(format!(
            "the route to {target} starts at {other}, which is no IPv4 address"
        ))),
        Err(error) => Err(Failure::of(format!("find the route to {target}"), error)),
    }
}

/// The address that others reach this host by, as far as the default route tells.
pub fn advertise_address() -> Result<Ipv4Addr> {
    source_address(SocketAddr::from(([192, 0, 2, 1], 9)))
        .or_else(|_| first_address())
        .map_err(|_| Failure::new("this host has no default route and no address: give --apiserver-advertise-address"))
}

/// The first address that is not loopback.
fn first_address() -> Result<Ipv4Addr> {
    let addresses = nix::ifaddrs::getifaddrs().map_err(|error| Failure::of("list the host's addresses", error))?;
    addresses
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .find(|address| !address.is_loopback() && !address.is_link_local())
        .ok_or_else(|| Failure::new("this host has no address but loopback"))
}

/// Whether `address` is one of this host's.
pub fn has_address(address: Ipv4Addr) -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|interfaces| {
        interfaces.into_iter().any(|interface| {
            interface
                .address
                .and_then(|own| own.as_sockaddr_in().map(|own| own.ip()))
                == Some(address)
        })
    })
}
