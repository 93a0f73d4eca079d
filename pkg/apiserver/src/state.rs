//! What every part of the server may use, opened once: the store and its watch cache, the rows, who decides and who admits.
//! It knows no request and no handler; the router above it (`server.rs`) knows all of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use mk8s_api::registry::{self as rows, Resource};
use mk8s_store::{SledStore, Store, StoreError};
use mk8s_supervisor::job;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::components::Components;
use crate::config::Config;
use crate::crd::{self, Definitions};
use crate::filters::authn::Authenticator;
use crate::filters::authz::Authorizer;
use crate::filters::legacy_tokens;
use crate::lane::AtHome;
use crate::limits::{Pool, Streams};
use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::services::Services;
use crate::subresources::nodes;
use crate::turns::Turns;
use crate::unsent::Unsent;
use crate::watch_cache::{Cache, CacheFollower};
use crate::webhook::Webhooks;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("opening the store in {dir}: {source}")]
    Store {
        dir: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("TLS to what is proxied: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the registry has no kinds for the addresses and ports of services")]
    NoServices,
}

/// What panicked is not begun again at once.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// How long the store may take to write what waits at the end. A disk that hangs does not keep the process.
const CLOSING: Duration = Duration::from_secs(20);

/// See the module.
pub struct State {
    config: Config,
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    registry: ArcSwap<Registry>,
    swapped: Notify,
    definitions: Mutex<Definitions>,
    webhooks: Webhooks,
    pub(crate) components: Components,
    services: Services,
    authenticator: Authenticator,
    /// Of tokens that are kept in Secrets, to be noted.
    pub(crate) token_uses: tokio::sync::Mutex<Receiver<legacy_tokens::Use>>,
    authorizer: Arc<Authorizer>,
    admission: Admission,
    node_client: Option<mk8s_http::Client>,
    /// To what runs on the nodes.
    proxy_client: mk8s_http::Client,
    metrics: Metrics,
    /// Requests that read, and those that write, at once.
    pub(crate) reading: Pool,
    pub(crate) unsent: Unsent,
    pub(crate) writing: Pool,
    /// Long bodies that are coming in at once.
    pub(crate) receiving: Pool,
    pub(crate) streams: Streams,
    /// Long requests that are worked on at once.
    pub(crate) long: Turns,
    home: AtHome,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    pins_watched: AtomicBool,
}

impl State {
    /// Opens the embedded store, and the server on it. Needs a tokio runtime around it.
    pub fn open(config: Config) -> Result<Arc<State>, OpenError> {
        let dir = config.data_dir.join("db");
        let store = SledStore::open(&dir).map_err(|source| OpenError::Store { dir, source })?;
        State::open_on(config, Arc::new(store))
    }

    /// The server on a store, from which the watch cache is filled.
    pub fn open_on(config: Config, store: Arc<dyn Store>) -> Result<Arc<State>, OpenError> {
        let cache = Arc::new(filled(&*store).map_err(|source| OpenError::Store {
            dir: config.data_dir.join("db"),
            source,
        })?);
        let definitions = crd::load(&cache);
        let webhooks = Webhooks::new(cache.clone());
        let registry = Registry::new(served(definitions.resources()), &cache, None);
        let services = Services::new(config.service_cidr, config.node_port_range.clone(), &cache);
        let services = services.ok_or(OpenError::NoServices)?;
        let lookup: Arc<dyn Lookup> = cache.clone();
        let authorizer = Arc::new(Authorizer::new(lookup.clone()));
        let (used, uses) = tokio::sync::mpsc::channel(legacy_tokens::USES);
        Ok(Arc::new(State {
            authenticator: Authenticator::new(lookup.clone(), config.tokens.clone(), used),
            token_uses: tokio::sync::Mutex::new(uses),
            admission: Admission::new(lookup, authorizer.clone()),
            authorizer,
            node_client: config.kubelet_client.clone().map(nodes::client),
            proxy_client: nodes::proxy_client()?,
            metrics: Metrics::default(),
            reading: Pool::new(config.max_in_flight.0),
            unsent: Unsent::default(),
            writing: Pool::new(config.max_in_flight.1),
            receiving: Pool::new(config.max_in_flight.1),
            streams: Streams::default(),
            long: Turns::new(turns()),
            home: AtHome::current(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            pins_watched: AtomicBool::new(false),
            config,
            store,
            cache,
            registry: ArcSwap::from_pointee(registry),
            swapped: Notify::new(),
            definitions: Mutex::new(definitions),
            webhooks,
            components: Components::default(),
            services,
        }))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The definitions of custom resources, as they are known.
    pub(crate) fn definitions(&self) -> &Mutex<Definitions> {
        &self.definitions
    }

    pub fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Serves these custom resources, and no others, beside what is built in.
    pub(crate) fn serve<'a>(&self, custom: impl Iterator<Item = &'a Arc<Resource>>) {
        let next = Registry::new(served(custom), &self.cache, Some(&self.registry()));
        self.registry.store(Arc::new(next));
        self.swapped.notify_waiters();
        self.cache.tell_ended();
    }

    /// Ends when another registry is in place than was when this was called.
    pub(crate) fn swapped(&self) -> Notified<'_> {
        self.swapped.notified()
    }

    /// What is served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    pub fn services(&self) -> &Services {
        &self.services
    }

    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    pub fn authorizer(&self) -> &Arc<Authorizer> {
        &self.authorizer
    }

    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn proxy_client(&self) -> &mk8s_http::Client {
        &self.proxy_client
    }

    pub fn node_client(&self) -> Option<&mk8s_http::Client> {
        self.node_client.as_ref()
    }

    /// Cancelled when the server stops.
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs something beside the requests, until it ends or the server stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.home.spawn(
            name,
            self.tasks.track_future(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = task => {}
                }
            }),
        );
    }

    /// Keeps something running until the server stops. Where it panics it begins again.
    pub fn keep<F>(&self, name: &'static str, run: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, async move {
            while job::spawn(name, run()).abort_on_drop().await.is_err() {
                tokio::time::sleep(AFTER_A_PANIC).await;
            }
        });
    }

    /// Ends connections and tasks, lets the committer finish what waits, and closes the store.
    pub async fn close(&self) {
        self.close_within(CLOSING).await;
    }

    /// The same with another bound of what the store may take.
    pub async fn close_within(&self, bound: Duration) {
        self.shutdown.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        let store = self.store.clone();
        let closing = job::blocking("store-close", move || store.close());
        if tokio::time::timeout(bound, closing).await.is_err() {
            tracing::error!("the disk does not take what still waits: nothing of it was acknowledged");
        }
    }

    /// Drops paging snapshots when their time is over, without looking while there are none.
    pub fn schedule_pin_expiry(self: &Arc<Self>) {
        if self.pins_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let server = self.clone();
        self.spawn("paging-snapshots", async move {
            loop {
                tokio::time::sleep(Duration::from_secs(61)).await;
                let left = server.cache.resources();
                let left = left.iter().filter(|cache| cache.expire_pins()).count();
                if left == 0 {
                    server.pins_watched.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }
}

/// Everything that is served: what is built in, and custom resources.
fn served<'a>(custom: impl Iterator<Item = &'a Arc<Resource>>) -> Vec<Arc<Resource>> {
    rows::builtin().iter().chain(custom).cloned().collect()
}

/// Half of the cores and at least two, as the runtime has workers.
fn turns() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 2).max(2))
}

/// How often what is stored is read again because others wrote meanwhile.
const LOADS: usize = 5;

/// A watch cache that holds what is stored, and follows it.
fn filled(store: &dyn Store) -> Result<Cache, StoreError> {
    let mut tries = 1;
    loop {
        let loaded = store.load()?;
        let cache = Cache::new(rows::builtin().iter().chain(rows::unserved()), loaded.revision);
        let follower = CacheFollower::new(&cache);
        for entry in loaded.entries {
            follower.load(entry);
        }
        match store.follow(loaded.revision, Box::new(follower)) {
            Err(StoreError::Moved { .. }) if tries < LOADS => tries += 1,
            Err(error) => return Err(error),
            Ok(()) => return Ok(cache),
        }
    }
}
