//! A remote command's streams in a WebSocket (RFC 6455): one message is one piece of one channel, whose number is its
//! first byte (or digit, with base64).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mk8s_supervisor::job;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::session::{Client, ERROR, RESIZE, STDIN, Size, piece};
use super::status::Outcome;

/// Since version 5: what follows is the number of a channel that the client closes.
const CLOSE: u8 = 255;
/// How long a client may take to answer our goodbye.
const LINGER: Duration = Duration::from_secs(10);
/// Pieces on their way, in each direction.
pub const QUEUE: usize = 8;
/// Some clients send a whole file as one message.
const MESSAGE_LIMIT: usize = 16 << 20;
pub const INPUT_QUEUE: usize = 1;
/// Of what has come from a client and was not taken yet. Who does not read what is sent to it keeps no more than this in memory,
/// or one longer message, beside the message that is being read.
const UNTAKEN: usize = 1 << 20;

/// The room of one connection, for all of its channels together.
pub struct Room(Arc<Semaphore>);

/// Has its part of the room until the last who holds its bytes is done with them.
struct Held {
    data: Bytes,
    _part: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Room {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(UNTAKEN)))
    }

    /// Waits until there is room. A message that is longer than all of it has it alone.
    pub async fn hold(&self, data: Bytes) -> Bytes {
        let part = data.len().min(UNTAKEN) as u32;
        match self.0.clone().acquire_many_owned(part).await {
            Ok(part) => Bytes::from_owner(Held { data, _part: part }),
            // It is never closed.
            Err(_) => data,
        }
    }
}

/// The versions differ in little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub closes: bool,
    /// The error channel carries a Status, not a text.
    pub structured: bool,
    pub base64: bool,
}

impl Dialect {
    pub fn of(protocol: Option<&str>) -> Self {
        let protocol = protocol.unwrap_or_default();
        let closes = protocol.starts_with("v5.");
        Self {
            closes,
            structured: closes || protocol.starts_with("v4."),
            base64: protocol.contains("base64."),
        }
    }

    pub fn encode(self, piece: Bytes) -> Message {
        match piece.split_first() {
            Some((channel, data)) if self.base64 => {
                Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data)))
            }
            _ => Message::Binary(piece),
        }
    }

    /// A channel's number and data.
    pub fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        let channel = *data.first()?;
        if !self.base64 {
            return Some((channel, data.slice(1..)));
        }
        let channel = channel.checked_sub(b'0')?;
        Some((channel, STANDARD.decode(&data[1..]).ok()?.into()))
    }
}

pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

pub async fn open(connection: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(limits())).await
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT))
}

/// Serves one command: `run` gets the client's end of the streams, its outcome is told last.
pub async fn serve<F: Future<Output = Option<Outcome>>>(
    connection: Upgraded,
    dialect: Dialect,
    stdin: bool,
    lowest: u8,
    run: impl FnOnce(Client) -> F,
) {
    let (sink, stream) = open(connection).await.split();
    let (out, pieces) = mpsc::channel(QUEUE);
    let (input, from_input) = mpsc::channel(INPUT_QUEUE);
    let (sizes, from_sizes) = mpsc::channel(QUEUE);
    let gone = CancellationToken::new();
    let reader = job::spawn(
        "websocket-reader",
        read(stream, dialect, stdin.then_some(input), sizes, gone.clone()),
    );
    let writer = job::spawn("websocket-writer", write(sink, dialect, pieces));
    if !dialect.closes {
        // Old clients wait for this: the connection is there.
        let _ = out.send(piece(lowest, b"")).await;
    }
    let client = Client {
        stdin: stdin.then_some(from_input),
        sizes: from_sizes,
        out: out.clone(),
        gone,
    };
    if let Some(outcome) = run(client).await {
        let said = outcome.said(dialect.structured);
        if !said.is_empty() {
            let _ = out.send(piece(ERROR, said.as_bytes())).await;
        }
    }
    drop(out);
    // A client that went away has ended both.
    let _ = writer.await;
    end(reader).await;
}

/// Closing with bytes unread would be a reset, which may overtake what was sent last: the client closes first.
pub async fn end(reader: job::Job<()>) {
    let _ = tokio::time::timeout(LINGER, reader.abort_on_drop()).await;
}

async fn write(mut sink: SplitSink<Socket, Message>, dialect: Dialect, mut pieces: mpsc::Receiver<Bytes>) {
    while let Some(piece) = pieces.recv().await {
        if sink.send(dialect.encode(piece)).await.is_err() {
            return;
        }
    }
    goodbye(&mut sink).await;
}

/// One stream, without channels: each piece is a message. An empty one before them tells that the connection is there.
pub async fn send_all(connection: Upgraded, base64: bool, mut pieces: mpsc::Receiver<std::io::Result<Bytes>>) {
    let (mut sink, mut stream) = open(connection).await.split();
    let encode = |piece: Bytes| {
        if base64 {
            Message::text(STANDARD.encode(piece))
        } else {
            Message::Binary(piece)
        }
    };
    let sending = async {
        sink.send(encode(Bytes::new())).await?;
        while let Some(Ok(piece)) = pieces.recv().await {
            sink.send(encode(piece)).await?;
        }
        goodbye(&mut sink).await;
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    };
    let leaving = async {
        while let Some(Ok(message)) = stream.next().await {
            if message.is_close() {
                return;
            }
        }
    };
    tokio::select! {
        _ = sending => {}
        () = leaving => {}
    }
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Clients take any code but this one for a failure.
pub async fn goodbye(sink: &mut SplitSink<Socket, Message>) {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(frame))).await;
}

async fn read(
    mut stream: SplitStream<Socket>,
    dialect: Dialect,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    sizes: mpsc::Sender<Size>,
    gone: CancellationToken,
) {
    let room = Room::new();
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            break;
        }
        let Some((channel, data)) = dialect.decode(message) else {
            continue;
        };
        match channel {
            STDIN if !data.is_empty() => {
                if let Some(sender) = &stdin
                    && sender.send(room.hold(data).await).await.is_err()
                {
                    stdin = None;
                }
            }
            RESIZE => {
                if let Ok(size) = serde_json::from_slice(&data) {
                    let _ = sizes.send(size).await;
                }
            }
            CLOSE if dialect.closes && data.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
    gone.cancel();
    // Reading on is what sends the answer to the client's goodbye.
    while let Some(Ok(_)) = stream.next().await {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    /// In frames, of which each has its own bound.
    #[tokio::test]
    async fn a_message_is_as_long_as_may_be_kept() {
        let half = MESSAGE_LIMIT / 2;
        for (lengths, is_taken) in [([half, half], true), ([half, half + 1], false)] {
            let (near, far) = tokio::io::duplex(1 << 20);
            let mut server = WebSocketStream::from_raw_socket(near, Role::Server, Some(limits())).await;
            let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            let sending = job::spawn("client", async move {
                let kinds = [(Data::Binary, false), (Data::Continue, true)];
                for (length, (kind, is_last)) in lengths.into_iter().zip(kinds) {
                    let frame = Frame::message(vec![0; length], OpCode::Data(kind), is_last);
                    let _ = client.send(Message::Frame(frame)).await;
                }
                client
            });
            assert_eq!(server.next().await.unwrap().is_ok(), is_taken);
            sending.abort();
        }
    }

    #[test]
    fn messages() {
        let plain = Dialect::of(Some("v5.channel.k8s.io"));
        let base64 = Dialect::of(Some("base64.channel.k8s.io"));
        assert_eq!((plain.closes, plain.structured, plain.base64), (true, true, false));
        assert_eq!((base64.closes, base64.structured, base64.base64), (false, false, true));
        for (dialect, message) in [
            (plain, Message::binary(&b"\x01hello"[..])),
            (base64, Message::text("1aGVsbG8=")),
        ] {
            assert_eq!(dialect.decode(message.clone()), Some((1, Bytes::from("hello"))));
            assert_eq!(dialect.encode(piece(1, b"hello")), message);
        }
        for (dialect, message) in [
            (plain, Message::binary(&b""[..])),
            (base64, Message::text("")),
            (base64, Message::text("1*")),
            (plain, Message::Ping(Bytes::new())),
        ] {
            assert_eq!(dialect.decode(message), None);
        }
    }
}
