//! A remote command's streams as SPDY streams, told apart by their `streamType` header.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mk8s_supervisor::job;
use tokio::sync::mpsc;
use tokio_util::codec::{BytesCodec, FramedWrite};

use super::remotecommand::Options;
use super::session::{Client, ERROR, RESIZE, STDERR, STDIN, STDOUT, Size};
use super::spdy::{Session, Stream, Writer};
use super::status::Outcome;
use super::websocket::QUEUE;

/// The client has this long to open its streams.
const CREATION: Duration = Duration::from_secs(30);

fn channel(stream_type: &str) -> Option<u8> {
    Some(match stream_type {
        "stdin" => STDIN,
        "stdout" => STDOUT,
        "stderr" => STDERR,
        "error" => ERROR,
        "resize" => RESIZE,
        _ => return None,
    })
}

/// The channels that the client is going to open streams for. Sizes came with version 3.
fn expected(options: &Options, protocol: &str) -> Vec<u8> {
    let resizes = options.tty && (protocol.starts_with("v4.") || protocol.starts_with("v3."));
    let all = [
        (true, ERROR),
        (options.stdin, STDIN),
        (options.stdout, STDOUT),
        (options.stderr, STDERR),
        (resizes, RESIZE),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, c)| c).collect()
}

async fn collect(incoming: &mut mpsc::Receiver<Stream>, expected: &[u8]) -> Option<BTreeMap<u8, Stream>> {
    let mut streams = BTreeMap::new();
    while !expected.iter().all(|c| streams.contains_key(c)) {
        let stream = incoming.recv().await?;
        match channel(stream.headers.get("streamtype")) {
            Some(channel) => drop(streams.insert(channel, stream)),
            None => stream.writer.refuse().await,
        }
    }
    Some(streams)
}

/// Serves one command: `run` gets the client's end of the streams, its outcome is told last.
pub async fn serve<F: Future<Output = Option<Outcome>>>(
    connection: Upgraded,
    protocol: Option<&str>,
    options: &Options,
    run: impl FnOnce(Client) -> F,
) {
    let protocol = protocol.unwrap_or_default();
    let (from, to) = tokio::io::split(TokioIo::new(connection));
    let to = FramedWrite::new(to, BytesCodec::new());
    let mut session = Session::start(tokio::io::BufReader::new(from), to);
    let expected = expected(options, protocol);
    let streams = tokio::time::timeout(CREATION, collect(&mut session.incoming, &expected)).await;
    let Ok(Some(mut streams)) = streams else {
        tracing::debug!(?expected, "the client did not open its streams");
        return session.close().await;
    };
    let writers: BTreeMap<u8, Writer> = streams.iter().map(|(c, s)| (*c, s.writer.clone())).collect();
    let (out, pieces) = mpsc::channel(QUEUE);
    let (sizes, from_sizes) = mpsc::channel(QUEUE);
    if let Some(stream) = streams.remove(&RESIZE) {
        drop(job::spawn("spdy-sizes", read_sizes(stream.data, sizes)));
    }
    let stdin = streams.remove(&STDIN).filter(|_| options.stdin).map(|s| s.data);
    let writing = job::spawn("spdy-output", write(pieces, writers));
    let client = Client {
        stdin,
        sizes: from_sizes,
        out: out.clone(),
        gone: session.gone.clone(),
    };
    if let Some(outcome) = run(client).await {
        let said = outcome.said(protocol.starts_with("v4."));
        if !said.is_empty() {
            let _ = out.send(super::session::piece(ERROR, said.as_bytes())).await;
        }
    }
    drop(out);
    let _ = writing.await;
    session.close().await;
}

async fn write(mut pieces: mpsc::Receiver<Bytes>, writers: BTreeMap<u8, Writer>) {
    while let Some(piece) = pieces.recv().await {
        let Some((channel, data)) = piece.split_first() else {
            continue;
        };
        if let Some(writer) = writers.get(channel).filter(|_| !data.is_empty()) {
            writer.write(data).await;
        }
    }
    for writer in writers.values() {
        writer.finish().await;
    }
}

/// Sizes come one JSON object after another, cut anywhere.
async fn read_sizes(mut data: mpsc::Receiver<Bytes>, sizes: mpsc::Sender<Size>) {
    let mut pending = Vec::new();
    while let Some(piece) = data.recv().await {
        pending.extend_from_slice(&piece);
        let Some(found) = take_sizes(&mut pending) else {
            return;
        };
        for size in found {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// The whole sizes at the beginning; None where it isn't sizes.
fn take_sizes(pending: &mut Vec<u8>) -> Option<Vec<Size>> {
    let mut found = Vec::new();
    let mut stream = serde_json::Deserializer::from_slice(pending).into_iter::<Size>();
    let mut taken = 0;
    loop {
        match stream.next() {
            Some(Ok(size)) => {
                found.push(size);
                taken = stream.byte_offset();
            }
            Some(Err(error)) if !error.is_eof() => return None,
            _ => break,
        }
    }
    pending.drain(..taken);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_pieces() {
        let mut pending = Vec::new();
        for (piece, expected) in [
            (r#"{"Width":80,"Height":24}{"Wi"#, Some(vec![(80, 24)])),
            (r#"dth":1,"Height":2}"#, Some(vec![(1, 2)])),
            ("\n", Some(vec![])),
            (
                r#"{"Width":3,"Height":4}{"Width":5,"Height":6}"#,
                Some(vec![(3, 4), (5, 6)]),
            ),
            ("[]", None),
        ] {
            pending.extend_from_slice(piece.as_bytes());
            let got = take_sizes(&mut pending);
            let got = got.map(|all| all.into_iter().map(|s| (s.width, s.height)).collect::<Vec<_>>());
            assert_eq!(got, expected, "{piece}");
        }
    }

    #[test]
    fn streams_awaited() {
        let options = |stdin, tty| Options {
            stdin,
            tty,
            stdout: true,
            stderr: !tty,
            command: Vec::new(),
        };
        for (options, protocol, channels) in [
            (options(false, false), "v4.channel.k8s.io", &[ERROR, STDOUT, STDERR][..]),
            (
                options(true, true),
                "v4.channel.k8s.io",
                &[ERROR, STDIN, STDOUT, RESIZE],
            ),
            (options(true, true), "v2.channel.k8s.io", &[ERROR, STDIN, STDOUT]),
        ] {
            assert_eq!(expected(&options, protocol), channels);
        }
    }
}
