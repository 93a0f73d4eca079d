//! Ports of this node's own addresses that Services have: held open, so that no Service takes what a process of the host listens
//! on, and no process believes that it listens where a Service is. kube-proxy did so while it still opened its Services' ports.
//!
//! What is bound here is never answered: packets are sent on before they arrive. An address that is no host's own needs no socket.
//!
//! Each is a descriptor of a process that needs them for more than this: so many are held and no more, however many ports Services ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::time::Instant;

use crate::rules::{Dest, Proto};

/// A process that ends tells nobody: what it had is asked for so often, as long as a Service waits for it.
const RETRY: Duration = Duration::from_secs(30);

/// The part of the process's descriptors that is for ports.
const SHARE: u64 = 8;
/// No more in all, whatever the process may have: some 50 MB of the kernel.
const MOST: usize = 16_384;
/// The part of all that one Service may have.
const OF_ONE: usize = 4;

/// A port that is held: by the socket, or by nobody, since the address is not this host's.
enum Hold {
    Tcp { _socket: TcpListener },
    Udp { _socket: UdpSocket },
    Elsewhere,
}

impl Hold {
    fn is_socket(&self) -> bool {
        !matches!(self, Hold::Elsewhere)
    }
}

/// Why a Service does not get a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A process listens there.
    InUse,
    /// This Service, or all of them, hold as many as they may.
    TooMany,
}

/// Which ports are held for which Services (NAMESPACE/NAME).
pub struct Held {
    /// How many sockets there may be.
    most: usize,
    sockets: usize,
    ports: BTreeMap<Dest, (Hold, BTreeSet<Arc<str>>)>,
    of: BTreeMap<Arc<str>, BTreeSet<Dest>>,
    /// For processes to end.
    waiting: BTreeSet<Arc<str>>,
    /// For other Services to let go.
    crowded: BTreeSet<Arc<str>>,
    retry: Option<Instant>,
}

impl Default for Held {
    fn default() -> Self {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        Self::at_most(usize::try_from(soft / SHARE).map_or(MOST, |share| share.min(MOST)))
    }
}

impl Held {
    fn at_most(most: usize) -> Self {
        Self {
            most,
            sockets: 0,
            ports: BTreeMap::new(),
            of: BTreeMap::new(),
            waiting: BTreeSet::new(),
            crowded: BTreeSet::new(),
            retry: None,
        }
    }

    /// The Service wants these; which of them it does not get.
    pub fn set(&mut self, service: &Arc<str>, wanted: BTreeSet<Dest>) -> BTreeMap<Dest, Refusal> {
        let before = self.of.remove(service).unwrap_or_default();
        for dest in before.difference(&wanted) {
            self.release(service, dest);
        }
        let refused = self.take(service, &wanted);
        let waits = |why| refused.values().any(|own| *own == why);
        keep(&mut self.crowded, service, waits(Refusal::TooMany));
        keep(&mut self.waiting, service, waits(Refusal::InUse));
        if waits(Refusal::InUse) {
            self.retry.get_or_insert_with(|| Instant::now() + RETRY);
        }
        let got: BTreeSet<Dest> = wanted.into_iter().filter(|dest| !refused.contains_key(dest)).collect();
        if !got.is_empty() {
            self.of.insert(service.clone(), got);
        }
        refused
    }

    fn take(&mut self, service: &Arc<str>, wanted: &BTreeSet<Dest>) -> BTreeMap<Dest, Refusal> {
        let is_held = |dest: &&Dest| self.ports.get(dest).is_some_and(|(hold, _)| hold.is_socket());
        let mut own = wanted.iter().filter(is_held).count();
        let mut refused = BTreeMap::new();
        for dest in wanted {
            if let Some((_, owners)) = self.ports.get_mut(dest) {
                owners.insert(service.clone());
                continue;
            }
            let Some(hold) = hold(dest) else {
                refused.insert(*dest, Refusal::InUse);
                continue;
            };
            if hold.is_socket() {
                if own >= self.most / OF_ONE || self.sockets >= self.most {
                    refused.insert(*dest, Refusal::TooMany);
                    continue;
                }
                own += 1;
                self.sockets += 1;
            }
            self.ports.insert(*dest, (hold, BTreeSet::from([service.clone()])));
        }
        refused
    }

    fn release(&mut self, service: &Arc<str>, dest: &Dest) {
        let Some((hold, owners)) = self.ports.get_mut(dest) else {
            return;
        };
        owners.remove(service);
        if !owners.is_empty() {
            return;
        }
        let was_socket = hold.is_socket();
        self.ports.remove(dest);
        if was_socket {
            self.sockets -= 1;
            if !self.crowded.is_empty() {
                self.waiting.append(&mut self.crowded);
                self.retry = Some(Instant::now());
            }
        }
    }

    /// When those that wait are to be looked at again; never while none does.
    pub async fn due(&self) {
        match self.retry {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// The Services that wait, once it is time to look at them.
    pub fn take_due(&mut self) -> Vec<Arc<str>> {
        if self.retry.is_none_or(|at| at > Instant::now()) {
            return Vec::new();
        }
        self.retry = None;
        self.waiting.iter().cloned().collect()
    }
}

fn keep(all: &mut BTreeSet<Arc<str>>, service: &Arc<str>, waits: bool) {
    if waits {
        all.insert(service.clone());
    } else {
        all.remove(service);
    }
}

/// None: somebody listens there.
fn hold(dest: &Dest) -> Option<Hold> {
    let Some(ip) = dest.ip else {
        return Some(Hold::Elsewhere);
    };
    let address = SocketAddrV4::new(ip, dest.port);
    let held = match dest.proto {
        Proto::Tcp => TcpListener::bind(address).map(|socket| Hold::Tcp { _socket: socket }),
        Proto::Udp => UdpSocket::bind(address).map(|socket| Hold::Udp { _socket: socket }),
        // Nothing of a host's listens on it that could be asked.
        Proto::Sctp => Ok(Hold::Elsewhere),
    };
    match held {
        Ok(held) => Some(held),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Some(Hold::Elsewhere),
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        Err(error) => {
            tracing::warn!(%address, %error, "whether something listens there is not known: it is left alone");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn what_a_process_listens_on_no_service_gets_and_the_other_way_round() {
        let process = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = process.local_addr().unwrap().port();
        let own = Dest::of([127, 0, 0, 1].into(), Proto::Tcp, port);
        let foreign = Dest::of([192, 0, 2, 1].into(), Proto::Tcp, port);
        let mut held = Held::default();
        let web = service("d/web");
        let refused = held.set(&web, BTreeSet::from([own, foreign]));
        assert_eq!(
            refused,
            BTreeMap::from([(own, Refusal::InUse)]),
            "the foreign address is no host's own"
        );
        assert!(
            held.retry.is_some() && held.take_due().is_empty(),
            "not before its time"
        );
        drop(process);
        held.retry = Some(Instant::now());
        assert_eq!(held.take_due(), std::slice::from_ref(&web));
        assert_eq!(held.set(&web, BTreeSet::from([own])), BTreeMap::new());
        assert!(held.retry.is_none());
        assert_eq!(
            TcpListener::bind(("0.0.0.0", port)).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        // Two Services that share it: it is held until the last lets go.
        assert_eq!(held.set(&service("d/other"), BTreeSet::from([own])), BTreeMap::new());
        held.set(&web, BTreeSet::new());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        held.set(&service("d/other"), BTreeSet::new());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
        assert!(held.ports.is_empty() && held.of.is_empty() && held.waiting.is_empty());
    }

    #[test]
    fn datagrams_are_of_one_alone_too() {
        let process = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = process.local_addr().unwrap().port();
        let own = Dest::of([127, 0, 0, 1].into(), Proto::Udp, port);
        let mut held = Held::default();
        assert_eq!(
            held.set(&service("d/dns"), BTreeSet::from([own])),
            BTreeMap::from([(own, Refusal::InUse)])
        );
        let other = Dest {
            proto: Proto::Tcp,
            ..own
        };
        assert_eq!(held.set(&service("d/dns"), BTreeSet::from([other])), BTreeMap::new());
    }

    /// So many ports that nobody listens on, of an address that no other test uses.
    fn free(count: usize) -> Vec<Dest> {
        let processes: Vec<_> = (0..count).map(|_| TcpListener::bind("127.7.7.7:0").unwrap()).collect();
        let port = |process: &TcpListener| process.local_addr().unwrap().port();
        let of = |process| Dest::of([127, 7, 7, 7].into(), Proto::Tcp, port(process));
        processes.iter().map(of).collect()
    }

    #[test]
    fn no_service_uses_up_the_descriptors_and_all_together_do_not() {
        let ports = free(11);
        let foreign = Dest::of([192, 0, 2, 1].into(), Proto::Tcp, 80);
        let mut held = Held::at_most(8);
        let mut set = |name: &str, ports: &[Dest]| held.set(&service(name), ports.iter().copied().collect());
        let beyond = set("d/wide", &[&ports[..4], &[foreign]].concat());
        let all: Vec<_> = beyond.values().collect();
        assert_eq!(
            all,
            [&Refusal::TooMany; 2],
            "a quarter for one; an address elsewhere needs none"
        );
        for (name, at) in [("d/a", 4), ("d/b", 6), ("d/c", 8)] {
            assert!(set(name, &ports[at..at + 2]).is_empty(), "{name}");
        }
        assert_eq!(
            set("d/late", &ports[10..]).into_values().collect::<Vec<_>>(),
            [Refusal::TooMany]
        );
        // It shares what others hold.
        assert!(set("d/shares", &ports[4..5]).is_empty());
        set("d/shares", &[]);
        assert!(
            held.retry.is_none() && held.waiting.is_empty(),
            "no process is waited for"
        );
        held.set(&service("d/a"), BTreeSet::from([ports[4]]));
        assert_eq!(held.take_due(), [service("d/late"), service("d/wide")]);
        assert!(held.set(&service("d/late"), BTreeSet::from([ports[10]])).is_empty());
        for name in ["d/wide", "d/a", "d/b", "d/c", "d/late"] {
            held.set(&service(name), BTreeSet::new());
        }
        assert!(held.sockets == 0 && held.ports.is_empty() && held.crowded.is_empty());
    }
}
