//! The connection: one gRPC channel on containerd's socket, every call in namespace k8s.io and bounded in time.
//!
//! The channel is lazy: when containerd is restarted the next call connects again, nothing has to be rebuilt.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1 as api;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::service::Interceptor;
use containerd_client::tonic::service::interceptor::InterceptedService;
use containerd_client::tonic::transport::{Channel, Endpoint};
use containerd_client::tonic::{Request, Response, Status};
use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tower::service_fn;

use crate::error::{Error, Result};
use crate::image::ImageCache;
use crate::lock::KeyedLocks;
use crate::registry::Puller;
use crate::runtimes::Runtimes;
use crate::unpack::Unpacked;

/// Upstream's kubelet allows a runtime request two minutes.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Between pings of an idle connection, and how long one may stay unanswered.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// containerd answers up to 16 MiB, tonic accepts 4 by default: too little for a list of specs.
const MESSAGE_LIMIT: usize = 64 << 20;

pub(crate) type Grpc = InterceptedService<Channel, Headers>;

/// Where things are. The defaults are a real node's; tests pass their own.
#[derive(Clone, Debug)]
pub struct Options {
    pub socket: PathBuf,
    pub namespace: String,
    /// FIFOs and attach sockets of running containers, one directory each.
    pub io_dir: PathBuf,
    /// Volumes that images declare, one directory per container; on disk, they may grow.
    pub volumes_dir: PathBuf,
    /// The binary that containerd's shim starts as log writer; it must call [`crate::logs::run_if_writer`] first thing.
    pub log_writer: PathBuf,
    /// `None`: overlayfs where containerd has it, else native.
    pub snapshotter: Option<String>,
    /// k3s-format mirror configuration, read again when it changed.
    pub registries: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            socket: PathBuf::from("/run/containerd/containerd.sock"),
            namespace: "k8s.io".to_owned(),
            io_dir: PathBuf::from("/run/mk8s/io"),
            volumes_dir: PathBuf::from("/var/lib/mk8s/node/volumes"),
            log_writer: PathBuf::from("/usr/local/bin/mk8s"),
            snapshotter: None,
            registries: PathBuf::from("/etc/mk8s/registries.yaml"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub version: String,
    pub revision: String,
}

/// The metadata that every call carries.
#[derive(Clone)]
pub(crate) struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// A handle on containerd; clones share the connection.
#[derive(Clone)]
pub struct Containerd {
    pub(crate) shared: Arc<Shared>,
    headers: Headers,
}

struct Snapshotter {
    name: String,
    root: Option<PathBuf>,
}

pub(crate) struct Shared {
    pub(crate) channel: Channel,
    pub(crate) options: Options,
    snapshotter: Snapshotter,
    pub(crate) images: ImageCache,
    pub(crate) unpacked: Unpacked,
    /// Read since the last time that containerd was connected to.
    pub(crate) runtimes: Mutex<Option<Arc<Runtimes>>>,
    pub(crate) puller: Puller,
    /// By digest of a blob, and by chain id of a layer.
    pub(crate) locks: KeyedLocks,
}

impl Containerd {
    /// Connects and picks the snapshotter, so that a wrong socket is found here. Changes nothing; the namespace comes into
    /// being with the first thing in it.
    pub async fn connect(options: Options) -> Result<Containerd> {
        let channel = channel(&options.socket)?;
        let namespace = ascii("namespace", &options.namespace)?;
        let headers = Headers { namespace, lease: None };
        let wanted = options.snapshotter.as_deref();
        let snapshotter = pick_snapshotter(&channel, &headers, &options.socket, wanted).await?;
        Ok(Self::made_of(options, channel, headers, snapshotter))
    }

    /// A handle that has asked containerd nothing yet, for tests of what needs one and does not use it.
    #[doc(hidden)]
    pub fn unconnected(options: Options) -> Result<Containerd> {
        let channel = channel(&options.socket)?;
        Self::over(channel, options)
    }

    /// One that has asked nothing yet, by a channel of the caller's.
    pub(crate) fn over(channel: Channel, options: Options) -> Result<Containerd> {
        let namespace = ascii("namespace", &options.namespace)?;
        let snapshotter = Snapshotter {
            name: options.snapshotter.clone().unwrap_or_default(),
            root: None,
        };
        let headers = Headers { namespace, lease: None };
        Ok(Self::made_of(options, channel, headers, snapshotter))
    }

    fn made_of(options: Options, channel: Channel, headers: Headers, snapshotter: Snapshotter) -> Containerd {
        let shared = Shared {
            channel,
            snapshotter,
            images: ImageCache::default(),
            unpacked: Unpacked::default(),
            runtimes: Mutex::default(),
            puller: Puller::new(options.registries.clone()),
            locks: KeyedLocks::default(),
            options,
        };
        Containerd {
            shared: Arc::new(shared),
            headers,
        }
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The snapshotter in use: overlayfs or native, or what the options name.
    pub fn snapshotter(&self) -> &str {
        &self.shared.snapshotter.name
    }

    /// Where the snapshotter keeps images and containers, as far as containerd tells: kubelet's imagefs.
    pub fn image_dir(&self) -> Option<&Path> {
        self.shared.snapshotter.root.as_deref()
    }

    pub async fn version(&self) -> Result<Version> {
        let mut client = api::version_client::VersionClient::new(self.shared.channel.clone());
        let answer = call("containerd version", client.version(())).await?;
        Ok(Version {
            version: answer.version,
            revision: answer.revision,
        })
    }

    /// The same connection, every call under a lease: what it makes is not collected while the lease lives.
    pub(crate) fn under_lease(&self, id: &str) -> Result<Containerd> {
        let lease = Some(ascii("lease", id)?);
        Ok(Containerd {
            shared: self.shared.clone(),
            headers: Headers {
                lease,
                ..self.headers.clone()
            },
        })
    }
}

macro_rules! services {
    ($($name:ident: $path:path),* $(,)?) => {
        impl Containerd {
            $(pub(crate) fn $name(&self) -> $path {
                <$path>::new(InterceptedService::new(self.shared.channel.clone(), self.headers.clone()))
                    .max_decoding_message_size(MESSAGE_LIMIT)
            })*
        }
    };
}

services! {
    containers_api: api::containers_client::ContainersClient<Grpc>,
    content_api: api::content_client::ContentClient<Grpc>,
    diff_api: api::diff_client::DiffClient<Grpc>,
    events_api: api::events_client::EventsClient<Grpc>,
    images_api: api::images_client::ImagesClient<Grpc>,
    leases_api: api::leases_client::LeasesClient<Grpc>,
    snapshots_api: api::snapshots::snapshots_client::SnapshotsClient<Grpc>,
    tasks_api: api::tasks_client::TasksClient<Grpc>,
}

/// Runs one call within the time that upstream allows, and names it in its error; of a stream, the beginning.
pub(crate) async fn call<T>(
    what: &str,
    response: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> Result<T> {
    Ok(in_time(what, response).await?.into_inner())
}

/// The next message of a stream, within the same time; None: it has ended. Events come when they come, all else is on its way.
pub(crate) async fn message<T>(
    what: &str,
    stream: &mut (impl Stream<Item = std::result::Result<T, Status>> + Unpin),
) -> Result<Option<T>> {
    in_time(what, async { stream.next().await.transpose() }).await
}

/// Waits for one answer of containerd's, and names in the error what it was for.
pub(crate) async fn in_time<T>(what: &str, answer: impl Future<Output = std::result::Result<T, Status>>) -> Result<T> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|status| Error::rpc(what, status)),
        Err(_) => Err(Error::Timeout {
            what: what.to_owned(),
            seconds: CALL_TIMEOUT.as_secs(),
        }),
    }
}

fn ascii(what: &str, value: &str) -> Result<MetadataValue<Ascii>> {
    value
        .parse()
        .map_err(|_| Error::malformed(format!("containerd {what} {value:?}"), "not plain ASCII"))
}

fn channel(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connect = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI is never looked at: the connector knows the socket.
    let endpoint = Endpoint::try_from("http://containerd.invalid").map_err(|e| Error::Connect {
        socket: socket.to_owned(),
        message: e.to_string(),
    })?;
    // One that stands still is as good as gone: its stream of events ends, and the node says so.
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(connect))
}

/// overlayfs is the fast one; where the data directory's filesystem can't carry it, containerd marks it failed.
const SNAPSHOTTERS: [&str; 2] = ["overlayfs", "native"];

async fn pick_snapshotter(
    channel: &Channel,
    headers: &Headers,
    socket: &Path,
    wanted: Option<&str>,
) -> Result<Snapshotter> {
    let broken = |message: String| Error::Connect {
        socket: socket.to_owned(),
        message,
    };
    let mut client = api::introspection_client::IntrospectionClient::with_interceptor(channel.clone(), headers.clone());
    let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
    let answer = client.plugins(api::PluginsRequest { filters });
    let answer = call("list containerd's snapshotters", answer)
        .await
        .map_err(|error| broken(error.to_string()))?;
    let names = wanted.map_or(SNAPSHOTTERS.to_vec(), |name| vec![name]);
    choose_snapshotter(answer.plugins, &names)
        .ok_or_else(|| broken(format!("containerd has no working snapshotter {}", names.join(" or "))))
}

/// The first of the names that works.
fn choose_snapshotter(plugins: Vec<api::Plugin>, names: &[&str]) -> Option<Snapshotter> {
    let working = plugins.into_iter().filter(|plugin| plugin.init_err.is_none());
    let rank = |plugin: &api::Plugin| names.iter().position(|name| *name == plugin.id);
    let (_, mut best) = working
        .filter_map(|plugin| Some((rank(&plugin)?, plugin)))
        .min_by_key(|(rank, _)| *rank)?;
    Some(Snapshotter {
        root: best.exports.remove("root").map(PathBuf::from),
        name: best.id,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chosen(plugins: &[&str]) -> Option<Snapshotter> {
        let plugin = |id: &&str| api::Plugin {
            id: (*id).to_owned(),
            exports: [("root".to_owned(), format!("/var/lib/containerd/{id}"))].into(),
            ..api::Plugin::default()
        };
        choose_snapshotter(plugins.iter().map(plugin).collect(), &SNAPSHOTTERS)
    }

    #[test]
    fn overlayfs_first_native_when_it_failed() {
        let both = chosen(&["native", "overlayfs"]).unwrap();
        assert_eq!(both.name, "overlayfs");
        assert_eq!(both.root.as_deref(), Some(Path::new("/var/lib/containerd/overlayfs")));
        assert_eq!(chosen(&["btrfs", "native"]).unwrap().name, "native");
        assert!(chosen(&["btrfs"]).is_none());
    }
}
