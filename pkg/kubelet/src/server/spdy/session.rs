//! A connection full of streams: one task reads frames and hands data to the streams, one writes.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt};
use mk8s_supervisor::job::{self, Job};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::{self, Control, Head, Kind};
use super::headers::{Deflater, Headers, Inflater};

/// Pieces on their way to one stream, and frames on theirs to the client.
const QUEUE: usize = 8;
/// Streams opened and not yet looked at.
const BACKLOG: usize = 64;
/// A longer frame of data comes in pieces.
const PIECE: usize = 64 << 10;
/// Old clients lose what they have not read yet when the connection ends: so it's theirs to end it, within this time.
const LINGER: Duration = Duration::from_secs(30);

/// A stream that the client opened.
pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    /// What the client sends, until it ends its half.
    pub data: mpsc::Receiver<Bytes>,
    /// Resolves, with whatever, when the client gave the whole stream up, or the connection ended.
    pub reset: oneshot::Receiver<()>,
    pub writer: Writer,
}

/// Our half of a stream. Writing to a connection that is gone is as good as writing to one that nobody reads: the
/// session tells of it.
#[derive(Clone)]
pub struct Writer {
    id: u32,
    out: mpsc::Sender<Outgoing>,
}

impl Writer {
    pub async fn write(&self, data: &[u8]) {
        self.send(frame::data(self.id, false, data)).await;
    }

    /// Ends our half.
    pub async fn finish(&self) {
        self.send(frame::data(self.id, true, b"")).await;
    }

    pub async fn refuse(&self) {
        self.send(frame::rst_stream(self.id, frame::PROTOCOL_ERROR)).await;
    }

    async fn send(&self, frame: Bytes) {
        let _ = self.out.send(Outgoing::Frame(frame)).await;
    }
}

enum Outgoing {
    Frame(Bytes),
    End,
}

pub struct Session<S> {
    pub incoming: mpsc::Receiver<Stream>,
    /// The client has closed the connection.
    pub gone: CancellationToken,
    out: mpsc::Sender<Outgoing>,
    reader: Job<()>,
    writer: Job<S>,
}

impl<S: Sink<Bytes, Error = io::Error> + Unpin + Send + 'static> Session<S> {
    /// Begins to serve what reads from the one and writes to the other.
    pub fn start(from: impl AsyncRead + Unpin + Send + 'static, to: S) -> Self {
        let (streams, incoming) = mpsc::channel(BACKLOG);
        let (out, outgoing) = mpsc::channel(QUEUE);
        let gone = CancellationToken::new();
        let (replies, ended) = (out.clone(), gone.clone());
        let reader = job::spawn("spdy-reader", async move {
            // Also if the reader panics.
            let _ended = ended.drop_guard();
            let reader = Reader {
                from,
                streams,
                out: replies,
                open: HashMap::new(),
            };
            if let Err(error) = reader.run().await {
                tracing::debug!(%error, "a SPDY connection ended");
            }
        });
        Self {
            incoming,
            gone,
            out,
            reader,
            writer: job::spawn("spdy-writer", write(to, outgoing)),
        }
    }

    /// Sends what is queued, waits for the client to leave, and closes.
    pub async fn close(mut self) {
        self.incoming.close();
        let _ = self.out.send(Outgoing::End).await;
        let sink = self.writer.await;
        let _ = tokio::time::timeout(LINGER, self.reader.abort_on_drop()).await;
        if let Ok(mut sink) = sink {
            let _ = tokio::time::timeout(Duration::from_secs(1), sink.close()).await;
        }
    }
}

async fn write<S: Sink<Bytes, Error = io::Error> + Unpin>(mut to: S, mut outgoing: mpsc::Receiver<Outgoing>) -> S {
    while let Some(Outgoing::Frame(frame)) = outgoing.recv().await {
        let sent = async {
            to.feed(frame).await?;
            if outgoing.is_empty() {
                to.flush().await?;
            }
            Ok::<(), io::Error>(())
        };
        if sent.await.is_err() {
            return to;
        }
    }
    let _ = to.flush().await;
    to
}

/// What the reader knows of a stream.
struct Open {
    /// None: the client has ended its half, or nobody wants to hear more.
    data: Option<mpsc::Sender<Bytes>>,
    reset: oneshot::Sender<()>,
}

struct Reader<R> {
    from: R,
    streams: mpsc::Sender<Stream>,
    out: mpsc::Sender<Outgoing>,
    open: HashMap<u32, Open>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] frame::Error),
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> Result<(), Error> {
        let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new()?);
        let mut head = [0; frame::HEAD];
        loop {
            match self.from.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let head = Head::parse(&head)?;
            match head.kind {
                Kind::Data { stream } => self.data(stream, head).await?,
                Kind::Control { type_ } => {
                    let mut payload = BytesMut::zeroed(head.length);
                    self.from.read_exact(&mut payload).await?;
                    let control = Control::parse(type_, head.flags, payload.freeze())?;
                    self.control(control, &mut inflater, &mut deflater).await?;
                }
            }
        }
    }

    async fn data(&mut self, stream: u32, head: Head) -> Result<(), Error> {
        let mut left = head.length;
        while left > 0 {
            let mut piece = BytesMut::zeroed(left.min(PIECE));
            self.from.read_exact(&mut piece).await?;
            left -= piece.len();
            let Some(open) = self.open.get_mut(&stream) else {
                continue;
            };
            if let Some(sender) = &open.data
                && sender.send(piece.freeze()).await.is_err()
            {
                open.data = None;
            }
        }
        if head.flags & frame::FIN != 0 {
            self.end(stream);
        }
        Ok(())
    }

    fn end(&mut self, stream: u32) {
        if let Some(open) = self.open.get_mut(&stream) {
            open.data = None;
        }
    }

    async fn control(
        &mut self,
        control: Control,
        inflater: &mut Inflater,
        deflater: &mut Deflater,
    ) -> Result<(), Error> {
        match control {
            Control::SynStream { stream, fin, block } => {
                let headers = inflater.headers(&block)?;
                let reply = frame::syn_reply(stream, &deflater.empty()?);
                self.syn(stream, fin, headers, reply).await;
            }
            // Every block has to pass through the one zlib stream.
            Control::SynReply { block, .. } => drop(inflater.headers(&block)?),
            Control::Headers { stream, fin, block } => {
                inflater.headers(&block)?;
                if fin {
                    self.end(stream);
                }
            }
            Control::RstStream { stream, status } => {
                tracing::trace!(stream, status, "the client reset a stream");
                if let Some(open) = self.open.remove(&stream) {
                    let _ = open.reset.send(());
                }
            }
            // Odd ones are the client's, and we send none.
            Control::Ping { id } => self.send(frame::ping(id)).await,
            // It opens no more streams, and has yet to close the connection.
            Control::GoAway | Control::Other => {}
        }
        Ok(())
    }

    async fn syn(&mut self, id: u32, fin: bool, headers: Headers, reply: Bytes) {
        if self.open.contains_key(&id) || self.streams.is_closed() {
            self.send(reply).await;
            return self.send(frame::rst_stream(id, frame::CANCEL)).await;
        }
        // Those whose other end here is gone.
        self.open.retain(|_, open| !open.reset.is_closed());
        let (sender, data) = mpsc::channel(QUEUE);
        let (reset, was_reset) = oneshot::channel();
        let open = Open {
            data: (!fin).then_some(sender),
            reset,
        };
        self.open.insert(id, open);
        self.send(reply).await;
        let writer = Writer {
            id,
            out: self.out.clone(),
        };
        let stream = Stream {
            id,
            headers,
            data,
            reset: was_reset,
            writer,
        };
        let _ = self.streams.send(stream).await;
    }

    async fn send(&mut self, frame: Bytes) {
        let _ = self.out.send(Outgoing::Frame(frame)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio_util::codec::{BytesCodec, FramedWrite};

    use super::*;

    fn session() -> (
        Session<FramedWrite<tokio::io::WriteHalf<DuplexStream>, BytesCodec>>,
        DuplexStream,
    ) {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (from, to) = tokio::io::split(server);
        (Session::start(from, FramedWrite::new(to, BytesCodec::new())), client)
    }

    /// SYN_STREAM as a client sends it.
    fn syn(id: u32, deflater: &mut Deflater) -> Vec<u8> {
        let block = deflater.empty().unwrap();
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend(((10 + block.len()) as u32).to_be_bytes());
        frame.extend(id.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(block);
        frame
    }

    async fn receive(client: &mut DuplexStream) -> (Head, Bytes) {
        let mut head = [0; frame::HEAD];
        client.read_exact(&mut head).await.unwrap();
        let head = Head::parse(&head).unwrap();
        let mut payload = vec![0; head.length];
        client.read_exact(&mut payload).await.unwrap();
        (head, payload.into())
    }

    #[tokio::test]
    async fn a_stream_from_its_beginning_to_both_ends() {
        let (mut session, mut client) = session();
        let mut deflater = Deflater::new().unwrap();
        client.write_all(&syn(1, &mut deflater)).await.unwrap();
        client.write_all(&frame::ping(7)).await.unwrap();
        client.write_all(&frame::data(1, false, b"hello")).await.unwrap();
        client.write_all(&frame::data(1, true, b"")).await.unwrap();
        // Nobody's data is dropped.
        client.write_all(&frame::data(9, false, b"?")).await.unwrap();
        let mut stream = session.incoming.recv().await.unwrap();
        assert_eq!(receive(&mut client).await.0.kind, Kind::Control { type_: 2 });
        assert_eq!(receive(&mut client).await.1[..], 7u32.to_be_bytes());
        assert_eq!(stream.data.recv().await.unwrap(), "hello");
        assert_eq!(stream.data.recv().await, None);
        stream.writer.write(b"bye").await;
        stream.writer.finish().await;
        let (head, data) = receive(&mut client).await;
        assert_eq!((head.kind, &data[..]), (Kind::Data { stream: 1 }, &b"bye"[..]));
        let (head, data) = receive(&mut client).await;
        assert_eq!((head.flags, data.len()), (frame::FIN, 0));
        drop(client);
        session.gone.cancelled().await;
        session.close().await;
    }

    #[tokio::test]
    async fn a_reset_is_told_and_so_is_a_lost_connection() {
        let (mut session, mut client) = session();
        let mut deflater = Deflater::new().unwrap();
        for id in [1, 3] {
            client.write_all(&syn(id, &mut deflater)).await.unwrap();
        }
        let first = session.incoming.recv().await.unwrap();
        let second = session.incoming.recv().await.unwrap();
        client.write_all(&frame::rst_stream(1, frame::CANCEL)).await.unwrap();
        let _ = first.reset.await;
        assert!(!session.gone.is_cancelled());
        drop(client);
        let _ = second.reset.await;
        session.gone.cancelled().await;
        assert!(session.incoming.recv().await.is_none());
    }
}
