//! Keeps the index at what the informers say, and serves from it.

use std::{collections::BTreeSet, io, net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use mk8s_client::{Event, Informers, ServiceSlices, services_of};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::{Config, index::entry, server::Server};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for DNS on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("DNS on {address} failed: {source}")]
    Serve { address: SocketAddr, source: io::Error },
}

/// Until the token is cancelled, or a socket fails.
pub async fn run(config: Config, informers: Informers, token: CancellationToken) -> Result<(), Error> {
    let address = SocketAddr::from((config.address, 53));
    let listen = |source| Error::Listen { address, source };
    let udp = listen_udp(address).map_err(listen)?;
    let tcp = listen_tcp(address).map_err(listen)?;
    let server = Arc::new(Server::new(config));
    tokio::select! {
        () = token.cancelled() => Ok(()),
        () = follow(&server, &informers) => Ok(()),
        served = server.clone().serve(udp, tcp) => served.map_err(|source| Error::Serve { address, source }),
    }
}

/// Free of whether the address is there yet: it comes with the node's bridge, and again with the next one.
fn listen_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    UdpSocket::from_std(socket.into())
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

const BACKLOG: u32 = 128;

/// The Service of an event, and those whose slices another changed, are looked up anew: by `NAMESPACE/NAME`.
async fn follow(server: &Server, informers: &Informers) {
    let (of_services, of_slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    let by_service = ServiceSlices::of(&of_slices);
    let (mut services, mut slices) = (of_services.subscribe(), of_slices.subscribe());
    tokio::join!(of_services.wait_synced(), of_slices.wait_synced());
    let settle = |key: &str| {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let slices = by_service.get(key);
        let service = of_services.get(Some(namespace), name);
        let now = service.and_then(|service| entry(&service, slices.iter().map(AsRef::as_ref)));
        server.index.write().set(namespace, name, now);
    };
    let mut all = BTreeSet::new();
    while let Some(event) = slices.try_next() {
        all.extend(services_of(&event));
    }
    while let Some(event) = services.try_next() {
        all.insert(key(&event));
    }
    all.iter().for_each(|key| settle(key));
    server.ready.send_replace(true);
    loop {
        let changed = tokio::select! {
            event = services.next() => vec![key(&event)],
            event = slices.next() => services_of(&event),
        };
        changed.iter().for_each(|key| settle(key));
    }
}

fn key(event: &Event<Service>) -> String {
    let metadata = &event.object().metadata;
    let of = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", of(&metadata.namespace), of(&metadata.name))
}
