//! The sockets: UDP and TCP at the cluster's DNS address, port 53. Names of the cluster are answered where the query is
//! read; what has to be asked of others gets a task, of which there is a bounded number.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use mk8s_supervisor::{job::Jobs, listener};
use parking_lot::RwLock;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    Config,
    answer::{Decision, MAX_UDP, decide, fit},
    index::Index,
    upstream::{Transport, Upstream},
};

/// Queries that wait for a resolver of the host.
const UNDERWAY: usize = 1000;
const CONNECTIONS: usize = 128;
/// A connection that says nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// For the index's first filling: less than a client's own (5 s).
const PATIENCE: Duration = Duration::from_secs(4);
/// Without EDNS.
const PLAIN_UDP: u16 = 512;

pub struct Server {
    pub config: Config,
    pub index: RwLock<Index>,
    /// Whether the index holds all that there is.
    pub ready: watch::Sender<bool>,
    upstream: Upstream,
    underway: Semaphore,
}

/// What to do for one query.
enum Step {
    Send(Vec<u8>),
    Ask(Box<(Message, Decision)>),
    Nothing,
}

impl Server {
    pub fn new(config: Config) -> Self {
        let upstream = Upstream::new(config.address);
        Self {
            config,
            index: RwLock::default(),
            ready: watch::Sender::new(false),
            upstream,
            underway: Semaphore::new(UNDERWAY),
        }
    }

    fn step(&self, bytes: &[u8], transport: Transport) -> Step {
        let query = match Message::from_vec(bytes) {
            Ok(query) => query,
            Err(_) => {
                // A response to a broken response would be the beginning of a loop.
                let (Some([a, b]), Some(0)) = (bytes.first_chunk(), bytes.get(2).map(|flags| flags & 0x80)) else {
                    return Step::Nothing;
                };
                let error = Message::error_msg(u16::from_be_bytes([*a, *b]), OpCode::Query, ResponseCode::FormErr);
                return error.to_vec().map_or(Step::Nothing, Step::Send);
            }
        };
        if query.metadata.message_type == hickory_proto::op::MessageType::Response {
            return Step::Nothing;
        }
        match decide(&self.config, &self.index.read(), &query, limit(&query, transport)) {
            Decision::Answer(response) if self.is_ready() => {
                fit(response, limit(&query, transport)).map_or(Step::Nothing, Step::Send)
            }
            decision => Step::Ask(Box::new((query, decision))),
        }
    }

    fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Until the index is whole, "no such name" could be a lie, which its asker would keep: the decision waits for it.
    async fn decided(&self, query: &Message, early: Decision, transport: Transport) -> Option<Decision> {
        if self.is_ready() || matches!(early, Decision::Forward) {
            return Some(early);
        }
        let mut ready = self.ready.subscribe();
        timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.ok()?.ok()?;
        let limit = limit(query, transport);
        Some(decide(&self.config, &self.index.read(), query, limit))
    }

    /// What takes time: the host's resolvers, or the index's first filling. A failure is SERVFAIL.
    async fn ask(&self, bytes: &[u8], (query, decision): (Message, Decision), transport: Transport) -> Option<Vec<u8>> {
        // With that many waiting, the resolvers are the ones who fail.
        let permit = self.underway.try_acquire();
        let decision = if permit.is_ok() {
            self.decided(&query, decision, transport).await
        } else {
            None
        };
        let answer = match (&permit, decision) {
            (Err(_), _) | (_, None) => None,
            (Ok(_), Some(Decision::Answer(response))) => fit(response, limit(&query, transport)),
            (Ok(_), Some(Decision::Forward)) => self.upstream.ask(transport, bytes).await,
            (Ok(_), Some(Decision::Chase(response, target))) => self
                .chase(response, target, &query)
                .await
                .and_then(|response| fit(response, limit(&query, transport))),
        };
        answer.or_else(|| {
            let mut failed = Message::error_msg(query.metadata.id, query.metadata.op_code, ResponseCode::ServFail);
            failed.metadata.recursion_desired = query.metadata.recursion_desired;
            failed.metadata.recursion_available = true;
            failed.add_queries(query.queries.iter().cloned());
            failed.to_vec().ok()
        })
    }

    async fn chase(&self, mut response: Message, target: Name, query: &Message) -> Option<Message> {
        let kind = query.queries.first().map_or(RecordType::A, Query::query_type);
        let mut further = Message::query();
        further.metadata.recursion_desired = true;
        further.add_query(Query::query(target, kind));
        // Over TCP: the answer has to be whole, whatever its size.
        let bytes = further.to_vec().ok()?;
        let mut told = Message::from_vec(&self.upstream.ask(Transport::Udp, &bytes).await?).ok()?;
        if told.metadata.truncation {
            told = Message::from_vec(&self.upstream.ask(Transport::Tcp, &bytes).await?).ok()?;
        }
        response.metadata.authoritative = false;
        response.metadata.response_code = told.metadata.response_code;
        response.add_answers(told.answers);
        response.add_authorities(told.authorities);
        Some(response)
    }

    /// Serves until the UDP socket fails.
    pub async fn serve(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener) -> io::Result<()> {
        let connection = |stream| {
            let server = self.clone();
            async move { server.connection(stream).await }
        };
        tokio::select! {
            ended = self.datagrams(udp) => ended,
            () = listener::accept("dns-connection", &tcp, CONNECTIONS, connection) => Ok(()),
        }
    }

    async fn datagrams(self: &Arc<Self>, udp: UdpSocket) -> io::Result<()> {
        let udp = Arc::new(udp);
        let mut jobs: Jobs<(), ()> = Jobs::default();
        let mut buffer = vec![0; 4096];
        loop {
            tokio::select! {
                received = udp.recv_from(&mut buffer) => match received {
                    Ok((length, client)) => self.datagram(&udp, &buffer[..length], client, &jobs).await,
                    // What an earlier answer met (its client is gone) is not this socket's failure.
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                },
                // One that panicked has been logged: its client asks again.
                Some(_) = jobs.next(), if !jobs.is_empty() => {}
            }
        }
    }

    async fn datagram(self: &Arc<Self>, udp: &Arc<UdpSocket>, bytes: &[u8], client: SocketAddr, jobs: &Jobs<(), ()>) {
        match self.step(bytes, Transport::Udp) {
            // A client that does not take its answer asks again.
            Step::Send(answer) => drop(udp.send_to(&answer, client).await),
            Step::Ask(asked) => {
                let (server, udp, bytes) = (self.clone(), udp.clone(), bytes.to_vec());
                jobs.spawn("dns-query", (), async move {
                    if let Some(answer) = server.ask(&bytes, *asked, Transport::Udp).await {
                        drop(udp.send_to(&answer, client).await);
                    }
                });
            }
            Step::Nothing => {}
        }
    }

    async fn connection(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Ok(Ok(length)) = timeout(IDLE, stream.read_u16()).await {
            let mut bytes = vec![0; usize::from(length)];
            if !matches!(timeout(IDLE, stream.read_exact(&mut bytes)).await, Ok(Ok(_))) {
                return;
            }
            let answer = match self.step(&bytes, Transport::Tcp) {
                Step::Send(answer) => answer,
                Step::Ask(asked) => match self.ask(&bytes, *asked, Transport::Tcp).await {
                    Some(answer) => answer,
                    None => return,
                },
                Step::Nothing => return,
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

fn limit(query: &Message, transport: Transport) -> usize {
    match (transport, &query.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().clamp(PLAIN_UDP, MAX_UDP)),
        (Transport::Udp, None) => usize::from(PLAIN_UDP),
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    ) || error.kind() == io::ErrorKind::PermissionDenied
}
