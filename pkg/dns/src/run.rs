//! Keeps the index at what the informers say, and serves from it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::Arc,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use mk8s_client::{Event, Informers};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    index::{Index, entry},
    server::Server,
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

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

type ServiceKey = (String, String);

/// The objects that count.
#[derive(Default)]
struct State {
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
}

async fn follow(server: &Server, informers: &Informers) {
    let (of_services, of_slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    let (mut services, mut slices) = (of_services.subscribe(), of_slices.subscribe());
    tokio::join!(of_services.wait_synced(), of_slices.wait_synced());
    let mut state = State::default();
    let mut all = BTreeSet::new();
    while let Some(event) = slices.try_next() {
        all.extend(state.slice(event));
    }
    while let Some(event) = services.try_next() {
        all.insert(state.service(event));
    }
    for key in all {
        state.settle(&key, &mut server.index.write());
    }
    server.ready.send_replace(true);
    loop {
        let changed = tokio::select! {
            event = services.next() => vec![state.service(event)],
            event = slices.next() => state.slice(event),
        };
        for key in changed {
            state.settle(&key, &mut server.index.write());
        }
    }
}

impl State {
    fn service(&mut self, event: Event<Service>) -> ServiceKey {
        let metadata = &event.object().metadata;
        let key = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        match event {
            Event::Applied { new, .. } => self.services.insert(key.clone(), new),
            Event::Deleted(_) => self.services.remove(&key),
        };
        key
    }

    /// The Services whose slices changed: one that the slice was of, one that it is of.
    fn slice(&mut self, event: Event<EndpointSlice>) -> Vec<ServiceKey> {
        let name = event.object().metadata.name.clone().unwrap_or_default();
        let (old, new) = match &event {
            Event::Applied { old, new } => (old.as_deref().and_then(service_of), service_of(new)),
            Event::Deleted(old) => (service_of(old), None),
        };
        if let Some(key) = &old
            && let Some(slices) = self.slices.get_mut(key)
        {
            slices.remove(&name);
            if slices.is_empty() {
                self.slices.remove(key);
            }
        }
        if let (Some(key), Event::Applied { new, .. }) = (&new, event) {
            self.slices.entry(key.clone()).or_default().insert(name, new);
        }
        let mut keys: Vec<ServiceKey> = old.into_iter().chain(new).collect();
        keys.dedup();
        keys
    }

    fn settle(&self, key: &ServiceKey, index: &mut Index) {
        let slices = self
            .slices
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(AsRef::as_ref);
        let now = self.services.get(key).and_then(|service| entry(service, slices));
        index.set(&key.0, &key.1, now);
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
