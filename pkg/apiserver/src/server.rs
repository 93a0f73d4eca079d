//! The API server as a whole, whichever way requests come in: the router over the state that all of its parts share.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use http::{Request, Response};
use mk8s_api::status::Status;
use mk8s_store::Store;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::Facts;
use crate::call::Call;
use crate::config::Config;
use crate::filters::impersonation;
use crate::identity::User;
use crate::negotiate::Output;
use crate::request::{Query, RequestInfo};
use crate::state::{OpenError, State};
use crate::{dispatch, expiry, nonresource, respond, services, startup, transport};

/// How long a request may take that is no watch or stream: upstream's bound.
const PATIENCE: Duration = Duration::from_secs(34);

/// A handle on the running server.
pub struct ApiServer {
    state: Arc<State>,
}

impl ApiServer {
    /// Opens the store, fills the watch cache and starts the committer. Needs a tokio runtime around it.
    pub fn open(config: Config) -> Result<Arc<ApiServer>, OpenError> {
        Ok(ApiServer::over(State::open(config)?))
    }

    /// The same on a store that is open: one that several servers share, or another than the embedded one.
    pub fn open_on(config: Config, store: Arc<dyn Store>) -> Result<Arc<ApiServer>, OpenError> {
        Ok(ApiServer::over(State::open_on(config, store)?))
    }

    fn over(state: Arc<State>) -> Arc<ApiServer> {
        state.spawn(expiry::run(state.clone()));
        state.spawn(services::repair(state.clone()));
        Arc::new(ApiServer { state })
    }

    pub fn config(&self) -> &Config {
        self.state.config()
    }

    /// What the server's parts share.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Brings into being what the cluster has to begin with; how many objects that were.
    pub async fn bootstrap(&self, facts: &Facts) -> Result<usize, Status> {
        startup::bootstrap(&self.state, facts).await
    }

    /// Ends connections and tasks, lets the committer finish what waits, and closes the store.
    pub async fn close(&self) {
        self.state.close().await;
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
        let server = self.clone();
        let handle = move |request| server.clone().handle(request);
        transport::serve(handle, listener, tls, token).await
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
        let state = &self.state;
        let deadline = Instant::now() + PATIENCE;
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let inside = parts.extensions.remove::<Arc<User>>();
        // Components of this process are few, and have no one to be protected from.
        let _permit = if inside.is_some() || is_long_running(&info) {
            None
        } else {
            let pool = if matches!(info.verb, "get" | "list" | "head") {
                &state.reading
            } else {
                &state.writing
            };
            Some(pool.try_acquire().map_err(|_| {
                state.metrics().dropped();
                Status::too_many_requests("Too many requests, please try again later.", 1)
            })?)
        };
        let user = match inside {
            Some(user) => user,
            None => {
                let connection = parts.extensions.get::<transport::Peer>();
                let peer = connection.and_then(|peer| peer.0.as_ref());
                state.authenticator().authenticate(peer, &parts.headers, &info)?
            }
        };
        let user = impersonation::apply(state.authorizer(), &user, &parts.headers)?;
        state.authorizer().authorize(&user, &info)?;
        if !info.is_resource {
            return nonresource::handle(state, &info, &parts, &query, body).await;
        }
        let row = state.rows().get(&info.group, &info.version, &info.resource);
        let row = row.ok_or_else(respond::no_such_path)?.clone();
        let output = Output::negotiate(&parts.headers, &query, info.verb != "create", row.schema.is_some())?;
        let (verb, counted) = (info.verb, row.clone());
        let call = Call {
            server: state.clone(),
            info,
            query,
            user,
            row,
            headers: std::mem::take(&mut parts.headers),
            output,
            deadline,
        };
        let result = Box::pin(dispatch::resource(call, parts, body)).await;
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
