//! Ports of this node's own addresses that Services have: held open, so that no Service takes what a process of the host listens
//! on, and no process believes that it listens where a Service is. kube-proxy did so while it still opened its Services' ports.
//!
//! What is bound here is never answered: packets are sent on before they arrive. An address that is no host's own needs no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::rules::{Dest, Proto};

/// A process that ends tells nobody: what it had is asked for so often, as long as a Service waits for it.
const RETRY: Duration = Duration::from_secs(30);

/// A port that is held: by the socket, or by nobody, since the address is not this host's.
enum Hold {
    Tcp { _socket: TcpListener },
    Udp { _socket: UdpSocket },
    Elsewhere,
}

/// Which ports are held for which Services (NAMESPACE/NAME).
#[derive(Default)]
pub struct Held {
    ports: BTreeMap<Dest, (Hold, BTreeSet<Arc<str>>)>,
    of: BTreeMap<Arc<str>, BTreeSet<Dest>>,
    waiting: BTreeSet<Arc<str>>,
    retry: Option<Instant>,
}

impl Held {
    /// The Service wants these; which of them somebody else listens on.
    pub fn set(&mut self, service: &Arc<str>, wanted: BTreeSet<Dest>) -> BTreeSet<Dest> {
        let before = self.of.remove(service).unwrap_or_default();
        for dest in before.difference(&wanted) {
            self.release(service, dest);
        }
        let mut refused = BTreeSet::new();
        for dest in &wanted {
            if let Some((_, owners)) = self.ports.get_mut(dest) {
                owners.insert(service.clone());
            } else if let Some(hold) = hold(dest) {
                self.ports.insert(*dest, (hold, BTreeSet::from([service.clone()])));
            } else {
                refused.insert(*dest);
            }
        }
        if refused.is_empty() {
            self.waiting.remove(service);
        } else {
            self.waiting.insert(service.clone());
            self.retry.get_or_insert_with(|| Instant::now() + RETRY);
        }
        let got: BTreeSet<Dest> = wanted.difference(&refused).copied().collect();
        if !got.is_empty() {
            self.of.insert(service.clone(), got);
        }
        refused
    }

    fn release(&mut self, service: &Arc<str>, dest: &Dest) {
        if let Some((_, owners)) = self.ports.get_mut(dest) {
            owners.remove(service);
            if owners.is_empty() {
                self.ports.remove(dest);
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
        assert_eq!(refused, BTreeSet::from([own]), "the foreign address is no host's own");
        assert!(
            held.retry.is_some() && held.take_due().is_empty(),
            "not before its time"
        );
        drop(process);
        held.retry = Some(Instant::now());
        assert_eq!(held.take_due(), std::slice::from_ref(&web));
        assert_eq!(held.set(&web, BTreeSet::from([own])), BTreeSet::new());
        assert!(held.retry.is_none());
        assert_eq!(
            TcpListener::bind(("0.0.0.0", port)).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        // Two Services that share it: it is held until the last lets go.
        assert_eq!(held.set(&service("d/other"), BTreeSet::from([own])), BTreeSet::new());
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
            BTreeSet::from([own])
        );
        let other = Dest {
            proto: Proto::Tcp,
            ..own
        };
        assert_eq!(held.set(&service("d/dns"), BTreeSet::from([other])), BTreeSet::new());
    }
}
