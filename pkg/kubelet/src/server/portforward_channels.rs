//! Port-forward in channels of a WebSocket, as kube-rs and the Python client do it: the query names the ports, the n-th
//! has channel 2n for data and 2n+1 for an error, and each channel begins with the port's number.

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use mk8s_supervisor::job;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::dial::{self, Outlet, Target};
use super::websocket::{self, Dialect, INPUT_QUEUE, QUEUE, Room};
use super::{portforward, query};

/// Two channels each, numbered by a byte; the last number is not a channel's.
const LIMIT: usize = 127;

pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    let pairs = query::pairs(query);
    let texts = pairs.iter().filter(|(key, _)| key == "port" || key == "ports");
    let ports: Vec<u16> = texts
        .flat_map(|(_, text)| text.split(','))
        .map(portforward::port)
        .collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        1..=LIMIT => Ok(ports),
        more => Err(format!("{more} ports are more than {LIMIT}")),
    }
}

pub async fn serve(connection: Upgraded, dialect: Dialect, ports: &[u16], target: &Target) {
    let (mut sink, stream) = websocket::open(connection).await.split();
    let (out, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
    let writer = job::spawn("portforward-writer", async move {
        while let Some(piece) = pieces.recv().await {
            if sink.send(dialect.encode(piece)).await.is_err() {
                return;
            }
        }
        websocket::goodbye(&mut sink).await;
    });
    let gone = CancellationToken::new();
    let (senders, receivers): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(INPUT_QUEUE)).unzip();
    let reader = job::spawn("portforward-reader", read(stream, dialect, senders, gone.clone()));
    let forwards = ports.iter().zip(receivers).enumerate().map(|(index, (port, from))| {
        let number = (2 * index) as u8;
        let data = Outlet::Channel(number, out.clone());
        let error = Outlet::Channel(number + 1, out.clone());
        async move {
            let greeting = port.to_le_bytes();
            data.write(&greeting).await;
            error.write(&greeting).await;
            if let Err(text) = dial::forward(target, *port, from, &data).await {
                error.write(text.as_bytes()).await;
            }
        }
    });
    tokio::select! {
        _ = futures::future::join_all(forwards) => {}
        () = gone.cancelled() => {}
    }
    drop(out);
    let _ = writer.await;
    websocket::end(reader).await;
}

async fn read(
    mut stream: impl Stream<Item = tungstenite::Result<Message>> + Unpin,
    dialect: Dialect,
    senders: Vec<mpsc::Sender<Bytes>>,
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
        if let Some(sender) = senders.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0) {
            // A forward that has ended wants no more.
            let _ = sender.send(room.hold(data).await).await;
        }
    }
    gone.cancel();
    while let Some(Ok(_)) = stream.next().await {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn message(channel: usize, length: usize) -> Message {
        let mut data = vec![0; length];
        data[0] = channel as u8;
        Message::binary(data)
    }

    /// Ports to which somebody listens who reads nothing, and messages for each of them.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_bounded_over_all_ports() {
        const LENGTH: usize = 3 << 20;
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..LIMIT).map(|_| mpsc::channel(INPUT_QUEUE)).unzip();
        let read_so_far = Arc::new(AtomicUsize::new(0));
        let counted = read_so_far.clone();
        let messages = (0..LIMIT).map(move |port| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(message(2 * port, LENGTH))
        });
        let dialect = Dialect::of(Some("v4.channel.k8s.io"));
        let reading = read(
            futures::stream::iter(messages),
            dialect,
            senders,
            CancellationToken::new(),
        );
        let reader = job::spawn("reader", reading);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            read_so_far.load(Ordering::SeqCst),
            2,
            "one is handed on, one waits for room"
        );
        for (port, receiver) in receivers.iter_mut().enumerate() {
            let data = receiver.recv().await.unwrap();
            assert_eq!(data.len(), LENGTH - 1, "port {port}");
        }
        reader.await.unwrap();

        // Small ones pass one another, whoever does not take his.
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(INPUT_QUEUE)).unzip();
        let messages = [Ok(message(0, 1000)), Ok(message(2, 1000))];
        let reading = read(
            futures::stream::iter(messages),
            dialect,
            senders,
            CancellationToken::new(),
        );
        let reader = job::spawn("reader", reading);
        assert_eq!(receivers[1].recv().await.unwrap().len(), 999);
        reader.await.unwrap();
    }

    #[test]
    fn ports_of_a_query() {
        for (query, expected) in [
            ("ports=80", Some(vec![80])),
            ("ports=80&ports=443,8080", Some(vec![80, 443, 8080])),
            ("port=80", Some(vec![80])),
            ("", None),
            ("ports=0", None),
            ("ports=", None),
        ] {
            assert_eq!(ports(query).ok(), expected, "{query}");
        }
    }
}
