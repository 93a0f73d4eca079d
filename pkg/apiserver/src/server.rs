//! The API server as a whole: opened once, shared by every request, whichever way it comes in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use http::{Request, Response};
use mk8s_api::registry;
use mk8s_api::status::Status;
use mk8s_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::filters::authn::Authenticator;
use crate::filters::authz::Authorizer;
use crate::filters::impersonation;
use crate::handlers::{self, Call};
use crate::identity::User;
use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::negotiate::Output;
use crate::openapi::Documents;
use crate::request::{Query, RequestInfo};
use crate::rows::Rows;
use crate::services::Services;
use crate::subresources::nodes::{self, NodeClient};
use crate::watch_cache::{Cache, CacheFollower};
use crate::{expiry, nonresource, respond, transport};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("opening the store in {dir}: {source}")]
    Store {
        dir: PathBuf,
        #[source]
        source: StoreError,
    },
}

pub struct ApiServer {
    config: Config,
    store: Store,
    cache: Arc<Cache>,
    rows: Rows,
    services: Services,
    authenticator: Authenticator,
    authorizer: Arc<Authorizer>,
    admission: Admission,
    node_client: Option<NodeClient>,
    discovery: Discovery,
    documents: Documents,
    metrics: Metrics,
    reading: Semaphore,
    writing: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    pins_watched: AtomicBool,
}

impl ApiServer {
    /// Opens the store, fills the watch cache and starts the committer. Needs a tokio runtime around it.
    pub fn open(config: Config) -> Result<Arc<ApiServer>, OpenError> {
        let dir = config.data_dir.join("db");
        let failed = |source| OpenError::Store {
            dir: dir.clone(),
            source,
        };
        let store = Store::open(&dir).map_err(failed)?;
        let cache = Arc::new(Cache::new(registry::builtin().iter(), store.current_revision()));
        let follower = CacheFollower::new(&cache);
        for entry in store.load().map_err(failed)? {
            follower.load(entry.key, entry.value, entry.create_revision, entry.mod_revision);
        }
        store.start(Box::new(follower)).map_err(failed)?;
        let rows = Rows::new(registry::builtin(), &cache);
        let services = Services::new(config.service_cidr, config.node_port_range.clone());
        if let Some(stored) = cache.resource("", "services") {
            for service in stored.list("").iter() {
                services.hold(&service.value());
            }
        }
        let lookup: Arc<dyn Lookup> = cache.clone();
        let authorizer = Arc::new(Authorizer::new(lookup.clone()));
        let server = Arc::new(ApiServer {
            authenticator: Authenticator::new(lookup.clone(), config.tokens.clone()),
            admission: Admission::new(lookup, authorizer.clone()),
            authorizer,
            node_client: config.kubelet_client.clone().map(nodes::client),
            discovery: Discovery::new(&rows, &config),
            documents: Documents::default(),
            metrics: Metrics::default(),
            reading: Semaphore::new(config.max_in_flight.0),
            writing: Semaphore::new(config.max_in_flight.1),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            pins_watched: AtomicBool::new(false),
            config,
            store,
            cache,
            rows,
            services,
        });
        server.spawn(expiry::run(server.clone()));
        Ok(server)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub fn rows(&self) -> &Rows {
        &self.rows
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

    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn node_client(&self) -> Option<&NodeClient> {
        self.node_client.as_ref()
    }

    /// Cancelled when the server stops.
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs something beside the requests, until it ends or the server stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ends connections and tasks, lets the committer finish what waits, and closes the store.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }

    /// Drops paging snapshots when their time is over, without looking while there are none.
    pub fn schedule_pin_expiry(self: &Arc<Self>) {
        if self.pins_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let server = self.clone();
        self.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(61)).await;
                let left = server.cache.resources().filter(|cache| cache.expire_pins()).count();
                if left == 0 {
                    server.pins_watched.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }

    /// The whole pipeline; who asks comes from a `User` in the request's extensions, or from authentication.
    pub fn router(self: &Arc<Self>) -> Router {
        let server = self.clone();
        Router::new().fallback(move |request: Request<Body>| server.clone().handle(request))
    }

    /// The same with the identity given: for components in this process.
    pub fn router_as(self: &Arc<Self>, user: User) -> Router {
        self.router().layer(axum::Extension(Arc::new(user)))
    }

    /// TLS, h2 and HTTP/1.1, until the token is cancelled.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        token: CancellationToken,
    ) -> std::io::Result<()> {
        transport::serve(self.clone(), listener, tls, token).await
    }

    /// One request, whatever carried it.
    pub async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let run = std::panic::AssertUnwindSafe(self.run(request)).catch_unwind();
        match run.await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::status(&status),
            Err(_) => respond::status(&Status::internal("the handler of this request panicked")),
        }
    }

    async fn run(self: &Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let inside = parts.extensions.remove::<Arc<User>>();
        // Components of this process are few, and have no one to be protected from.
        let _permit = if inside.is_some() || is_long_running(&info) {
            None
        } else {
            let pool = if matches!(info.verb, "get" | "list" | "head") {
                &self.reading
            } else {
                &self.writing
            };
            Some(pool.try_acquire().map_err(|_| {
                self.metrics.dropped();
                Status::too_many_requests("Too many requests, please try again later.", 1)
            })?)
        };
        let user = match inside {
            Some(user) => user,
            None => {
                let connection = parts.extensions.get::<transport::Peer>();
                let peer = connection.and_then(|peer| peer.0.as_ref());
                self.authenticator.authenticate(peer, &parts.headers, &info)?
            }
        };
        let user = impersonation::apply(&self.authorizer, &user, &parts.headers)?;
        self.authorizer.authorize(&user, &info, &query)?;
        if !info.is_resource {
            return nonresource::handle(self, &info, &parts, &query, body).await;
        }
        let row = self.rows.get(&info.group, &info.version, &info.resource);
        let row = row.ok_or_else(nonresource::not_found)?.clone();
        let output = Output::negotiate(&parts.headers, &query, info.verb != "create", row.schema.is_some())?;
        let (verb, counted) = (info.verb, row.clone());
        let call = Call {
            server: self.clone(),
            info,
            query,
            user,
            row,
            headers: std::mem::take(&mut parts.headers),
            output,
        };
        let result = Box::pin(handlers::dispatch(call, parts, body)).await;
        let mut response = result.unwrap_or_else(|status| respond::status(&status));
        counted.requests.count(verb, response.status().as_u16());
        if let Some(warning) = counted.resource.deprecated {
            respond::warn(&mut response, &[warning.to_string()]);
        }
        Ok(response)
    }
}

fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == "watch" || matches!(&*info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}
