//! Where API servers are: nodes keep these addresses from Services and pods. A name may be unknown when an agent starts, which is when
//! a name server is likeliest away, and it may lead elsewhere later: names are looked up again.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use futures::future::join_all;
use mk8s_supervisor::{OnExit, Supervisor};
use tokio::sync::watch;

/// Within which a name server answers, or the node goes on without.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until the next look, where one answer lacks.
const UNKNOWN: Duration = Duration::from_secs(60);
const KNOWN: Duration = Duration::from_secs(3600);

/// Addresses of API servers, as they are known now.
pub type ApiServers = watch::Receiver<BTreeSet<SocketAddrV4>>;

/// One endpoint, and where it led last.
#[derive(Clone)]
struct Server {
    /// `HOST:PORT`
    name: String,
    addresses: BTreeSet<SocketAddrV4>,
    /// Why it was not found in the last look.
    unknown: Option<String>,
}

impl Server {
    fn note(&mut self, answer: Result<BTreeSet<SocketAddrV4>, String>) {
        let server = &self.name;
        match answer {
            Ok(addresses) => {
                if self.unknown.take().is_some() {
                    tracing::info!(server, ?addresses, "an API server is found");
                }
                self.addresses = addresses;
            }
            // Said once. What was known counts on: a name server that is away moves nobody.
            Err(error) if self.unknown.as_ref() != Some(&error) => {
                tracing::warn!(server, error, known = ?self.addresses, "it is not known where an API server is, and no \
                    address but those known is protected: looked up again each minute");
                self.unknown = Some(error);
            }
            Err(_) => {}
        }
    }
}

fn ipv4(answer: io::Result<Vec<SocketAddr>>) -> Result<BTreeSet<SocketAddrV4>, String> {
    let all = answer.map_err(|error| error.to_string())?;
    let ipv4: BTreeSet<SocketAddrV4> = all
        .iter()
        .filter_map(|address| match address {
            SocketAddr::V4(address) => Some(*address),
            SocketAddr::V6(_) => None,
        })
        .collect();
    match ipv4.is_empty() {
        true => Err(format!("it has no IPv4 address among its {}", all.len())),
        false => Ok(ipv4),
    }
}

/// All endpoints, asked at once; how long the answers hold.
async fn look<F: Future<Output = io::Result<Vec<SocketAddr>>>>(
    servers: &mut [Server],
    resolve: impl Fn(String) -> F,
) -> Duration {
    let asked = servers
        .iter()
        .map(|server| tokio::time::timeout(PATIENCE, resolve(server.name.clone())));
    let answers = join_all(asked).await;
    for (server, answer) in servers.iter_mut().zip(answers) {
        server.note(answer.map_err(|_| "nobody answers".to_owned()).and_then(ipv4));
    }
    match servers.iter().any(|server| server.unknown.is_some()) {
        true => UNKNOWN,
        false => KNOWN,
    }
}

fn addresses(servers: &[Server]) -> BTreeSet<SocketAddrV4> {
    servers.iter().flat_map(|server| &server.addresses).copied().collect()
}

async fn resolve(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}

/// Where endpoints like `https://10.0.0.1:6443` are, as a task of `owner`'s finds them. Returns after the first look, which takes five
/// seconds at most.
pub async fn api_servers(endpoints: &[String], owner: &Supervisor) -> ApiServers {
    follow(endpoints, owner, resolve).await
}

async fn follow<F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static>(
    endpoints: &[String],
    owner: &Supervisor,
    resolve: impl Fn(String) -> F + Copy + Send + Sync + 'static,
) -> ApiServers {
    let names = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.strip_prefix("https://"));
    let mut servers: Vec<Server> = names
        .map(|name| Server {
            name: name.to_owned(),
            addresses: BTreeSet::new(),
            unknown: None,
        })
        .collect();
    let holds = look(&mut servers, resolve).await;
    let (sender, receiver) = watch::channel(addresses(&servers));
    owner.spawn("api-servers", OnExit::Restart, move |token| {
        let (mut servers, mut holds, sender) = (servers.clone(), holds, sender.clone());
        async move {
            while token.run_until_cancelled(tokio::time::sleep(holds)).await.is_some() {
                holds = look(&mut servers, resolve).await;
                let found = addresses(&servers);
                sender.send_if_modified(|known| {
                    let moved = *known != found;
                    *known = found;
                    moved
                });
            }
            Ok(())
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use parking_lot::Mutex;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn all(addresses: &[&str]) -> BTreeSet<SocketAddrV4> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn an_endpoint_is_an_address_or_a_name() {
        let owner = Supervisor::new(CancellationToken::new());
        let endpoints = ["https://10.0.0.1:6443", "https://localhost:6444", "10.0.0.2:1"].map(str::to_owned);
        let found = api_servers(&endpoints, &owner).await;
        assert_eq!(*found.borrow(), all(&["10.0.0.1:6443", "127.0.0.1:6444"]));
    }

    /// What the name server says of `api:1`; None: it is away. When it was asked.
    static SAID: Mutex<(Option<&str>, Vec<Instant>)> = Mutex::new((None, Vec::new()));

    async fn said(name: String) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let said = {
            let mut said = SAID.lock();
            said.1.push(Instant::now());
            said.0
        };
        match said {
            Some(address) => Ok(vec![address.parse().unwrap()]),
            None => std::future::pending().await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_again() {
        let owner = Supervisor::new(CancellationToken::new());
        let endpoints = ["https://10.0.0.1:6443", "https://api:1"].map(str::to_owned);
        let start = Instant::now();
        let mut known = follow(&endpoints, &owner, said).await;
        assert_eq!(start.elapsed(), PATIENCE, "a node starts all the same");
        assert_eq!(*known.borrow_and_update(), all(&["10.0.0.1:6443"]));
        // Said, how long after the last time it is asked for, what is known then.
        for (said, after, last, moves) in [
            (Some("[fd00::1]:1"), PATIENCE + UNKNOWN, None, false),
            (Some("10.0.0.7:1"), UNKNOWN, Some("10.0.0.7:1"), true),
            (Some("10.0.0.8:1"), KNOWN, Some("10.0.0.8:1"), true),
            // It is away, and comes back.
            (None, KNOWN, Some("10.0.0.8:1"), false),
            (Some("10.0.0.8:1"), PATIENCE + UNKNOWN, Some("10.0.0.8:1"), false),
            (Some("10.0.0.9:1"), KNOWN, Some("10.0.0.9:1"), true),
        ] {
            let asked = {
                let mut now = SAID.lock();
                now.0 = said;
                now.1.len()
            };
            let due = *SAID.lock().1.last().unwrap() + after;
            tokio::time::sleep_until(due - Duration::from_millis(5)).await;
            assert_eq!(SAID.lock().1.len(), asked, "{said:?}");
            tokio::time::sleep_until(due + PATIENCE + Duration::from_millis(5)).await;
            assert_eq!(SAID.lock().1.len(), asked + 1, "{said:?}");
            let expected: Vec<&str> = ["10.0.0.1:6443"].into_iter().chain(last).collect();
            assert_eq!(known.has_changed().unwrap(), moves, "{said:?}");
            assert_eq!(*known.borrow_and_update(), all(&expected), "{said:?}");
        }
    }
}
