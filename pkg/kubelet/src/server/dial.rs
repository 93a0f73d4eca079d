//! Connections to a port inside a pod's network, and copying between one and a client's stream.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::session::piece;
use super::spdy::Writer;

/// Loopback answers at once, or is full.
const TIMEOUT: Duration = Duration::from_secs(10);
const BUFFER: usize = 32 << 10;

pub struct Target {
    /// None on the host's network.
    pub netns: Option<PathBuf>,
    pub pod: String,
    pub uid: String,
}

/// Where what the pod sends goes.
pub enum Outlet {
    Stream(Writer),
    /// A channel of a WebSocket.
    Channel(u8, mpsc::Sender<Bytes>),
}

impl Outlet {
    pub async fn write(&self, data: &[u8]) {
        match self {
            Self::Stream(writer) => writer.write(data).await,
            Self::Channel(number, out) => drop(out.send(piece(*number, data)).await),
        }
    }
}

/// Connects to the port and copies both ways, until the pod ends its half or the connection breaks.
pub async fn forward(target: &Target, port: u16, from: mpsc::Receiver<Bytes>, to: &Outlet) -> Result<(), String> {
    let failed = |text: String| {
        let Target { pod, uid, .. } = target;
        format!("error forwarding port {port} to pod {pod}, uid {uid}: {text}")
    };
    let (mut read, write) = connect(target.netns.clone(), port).await.map_err(failed)?.into_split();
    let upward = async {
        copy_up(from, write).await;
        // The pod may answer still.
        std::future::pending::<()>().await;
    };
    let downward = async {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match read.read_buf(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(_) => to.write(&buffer).await,
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    };
    tokio::select! {
        result = downward => result,
        () = upward => Ok(()),
    }
}

async fn copy_up(mut from: mpsc::Receiver<Bytes>, mut to: OwnedWriteHalf) {
    while let Some(data) = from.recv().await {
        // The other direction tells what is wrong, if anything is.
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn connect(netns: Option<PathBuf>, port: u16) -> Result<TcpStream, String> {
    let connecting = mk8s_supervisor::job::blocking("portforward-dial", move || match netns {
        None => dial(port),
        Some(path) => mk8s_network::netns::enter(&path, move || dial(port)).unwrap_or_else(|e| Err(e.to_string())),
    });
    let stream = connecting.await.map_err(|error| error.to_string())??;
    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    let stream = stream.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// localhost, whichever family the program in the pod listens on.
fn dial(port: u16) -> Result<std::net::TcpStream, String> {
    let to = |ip: IpAddr| -> io::Result<std::net::TcpStream> {
        std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, port), TIMEOUT)
    };
    to(Ipv4Addr::LOCALHOST.into()).or_else(|v4| {
        to(Ipv6Addr::LOCALHOST.into()).map_err(|v6| {
            format!(
                "failed to connect to localhost:{port} inside the pod's network namespace, \
                 IPv4: dial tcp4 127.0.0.1:{port}: {v4} IPv6: dial tcp6 [::1]:{port}: {v6}"
            )
        })
    })
}
