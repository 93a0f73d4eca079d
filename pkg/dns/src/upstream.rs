//! The host's resolvers, asked for every name that is not the cluster's. Queries and responses pass as they are.
//!
//! A query that is under way already is not sent a second time: its answer serves both. That also ends a loop (a host
//! resolver that asks this server): the query meets itself and waits, until the first one gives up.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mk8s_network::resolv_conf::{FILES, ResolvConf};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

/// As resolv.conf(5): each server has this long, and after the last one the first is tried once more.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// More servers are not asked.
const SERVERS: usize = 3;
/// How old knowledge of the files may be when they are used.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

type Answer = Option<Arc<[u8]>>;
/// By transport and the query without its id.
type Underway = HashMap<(Transport, Box<[u8]>), watch::Receiver<Option<Answer>>>;

pub struct Upstream {
    own: Ipv4Addr,
    servers: Mutex<Servers>,
    underway: Mutex<Underway>,
}

#[derive(Default)]
struct Servers {
    looked: Option<Instant>,
    seen: Option<[Option<SystemTime>; 2]>,
    addresses: Arc<[SocketAddr]>,
}

impl Upstream {
    /// `own` is this server's address: it is never asked.
    pub fn new(own: Ipv4Addr) -> Self {
        Self {
            own,
            servers: Mutex::default(),
            underway: Mutex::default(),
        }
    }

    /// The response to `query` (bytes with its id), with the same id; None if no server gave any.
    pub async fn ask(&self, transport: Transport, query: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = query.split_at_checked(2)?;
        let key = (transport, Box::from(rest));
        let (sender, receiver) = {
            let mut underway = self.underway.lock();
            match underway.get(&key) {
                Some(receiver) => (None, receiver.clone()),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    underway.insert(key.clone(), receiver.clone());
                    (Some(sender), receiver)
                }
            }
        };
        let answer: Answer = match sender {
            Some(sender) => {
                // Removed on every way out, cancellation too.
                let _done = Done { upstream: self, key };
                let answer: Answer = self.ask_servers(transport, query).await.map(Into::into);
                sender.send_replace(Some(answer.clone()));
                answer
            }
            None => {
                let mut receiver = receiver;
                let answer = receiver.wait_for(Option::is_some).await.ok()?;
                answer.clone().flatten()
            }
        };
        let mut bytes = answer?.to_vec();
        bytes.get_mut(..2)?.copy_from_slice(id);
        Some(bytes)
    }

    async fn ask_servers(&self, transport: Transport, query: &[u8]) -> Option<Vec<u8>> {
        let servers = self.servers();
        for server in std::iter::repeat_n(&servers, ROUNDS).flat_map(|servers| servers.iter()) {
            let asked = async {
                match transport {
                    Transport::Udp => ask_udp(*server, query).await,
                    Transport::Tcp => ask_tcp(*server, query).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver gave no answer"),
                Err(_) => tracing::debug!(%server, "resolver did not answer in time"),
            }
        }
        None
    }

    /// What the host's files say now. They are looked at when somebody asks, at most once a second.
    fn servers(&self) -> Arc<[SocketAddr]> {
        let mut servers = self.servers.lock();
        if servers.looked.is_none_or(|looked| looked.elapsed() > FRESH) {
            servers.looked = Some(Instant::now());
            let seen = FILES.map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok());
            if servers.seen != Some(seen) {
                servers.seen = Some(seen);
                let found = name_servers(&ResolvConf::of_host(), self.own);
                tracing::info!(servers = ?found, "resolvers of the host");
                servers.addresses = found.into();
            }
        }
        servers.addresses.clone()
    }
}

struct Done<'a> {
    upstream: &'a Upstream,
    key: (Transport, Box<[u8]>),
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.upstream.underway.lock().remove(&self.key);
    }
}

/// Whom to ask: those that the host asks, but never this server itself.
fn name_servers(host: &ResolvConf, own: Ipv4Addr) -> Vec<SocketAddr> {
    let addresses = host
        .nameservers
        .iter()
        .filter_map(|server| server.parse::<IpAddr>().ok());
    let others = addresses.filter(|server| *server != IpAddr::V4(own));
    others.take(SERVERS).map(|server| SocketAddr::new(server, 53)).collect()
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    // A socket of its own: another port for each query, and only this server's packets arrive.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id: [u8; 2] = rand::random();
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&id);
    socket.send(&sent).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_response(&buffer[..length], &sent) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if is_response(&answer, query) {
        Ok(answer)
    } else {
        Err(io::Error::other("an answer to another question"))
    }
}

/// The id, the response bit, and the question as it was sent (up to the case of its letters).
fn is_response(answer: &[u8], query: &[u8]) -> bool {
    let Some(header) = answer.get(..12) else { return false };
    if header[..2] != query[..2] || header[2] & 0x80 == 0 {
        return false;
    }
    // Some errors come back without the question.
    if header[4..6] == [0, 0] {
        return true;
    }
    let end = question_end(query);
    match (answer.get(12..end), query.get(12..end)) {
        (Some(a), Some(q)) => a.eq_ignore_ascii_case(q),
        _ => false,
    }
}

/// Where the first question of a query (which has no compressed names) ends.
fn question_end(query: &[u8]) -> usize {
    let mut at = 12;
    while let Some(length) = query.get(at).filter(|length| **length != 0) {
        at += 1 + usize::from(*length);
    }
    at + 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_resolvers() {
        let own = Ipv4Addr::new(10, 96, 0, 10);
        let servers = |text: &str| {
            let found = name_servers(&ResolvConf::parse(text), own);
            let servers: Vec<String> = found.iter().map(|server| server.ip().to_string()).collect();
            servers.join(" ")
        };
        assert_eq!(
            servers("nameserver 1.1.1.1\nnameserver ::1\nnameserver x"),
            "1.1.1.1 ::1"
        );
        assert_eq!(servers("nameserver 10.96.0.10\nnameserver 1.1.1.1"), "1.1.1.1");
        let many = "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4";
        assert_eq!(servers(many), "1.1.1.1 1.1.1.2 1.1.1.3");
    }

    #[test]
    fn only_the_answer_to_the_question() {
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";
        let mut answer = query.to_vec();
        assert!(!is_response(&answer, query), "a query is no response");
        answer[2] |= 0x80;
        answer[13] = b'A';
        assert!(is_response(&answer, query));
        answer[13] = b'x';
        assert!(!is_response(&answer, query));
    }
}
