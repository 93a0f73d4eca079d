//! The API server as a whole, whichever way requests come in: the router over the state that all of its parts share.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use http_body::Body as _;
use mk8s_api::status::Status;
use mk8s_client::Feed;
use mk8s_store::Store;
use mk8s_supervisor::job;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::Facts;
use crate::call::Call;
use crate::config::Config;
use crate::feed::CacheFeed;
use crate::filters::legacy_tokens;
use crate::identity::User;
use crate::layers::Request;
use crate::negotiate::Output;
use crate::options::ListOptions;
use crate::request::is_escaped_well;
use crate::routes::{self, Route};
use crate::state::{OpenError, State};
use crate::unsent::Source;
use crate::{crd, dispatch, expiry, nonresource, pieces, respond, services, startup, transport, whole};

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
        let of = state.clone();
        state.keep("events-expiry", move || expiry::run(of.clone()));
        let of = state.clone();
        state.keep("custom-resources", move || crd::run(of.clone()));
        let of = state.clone();
        state.keep("service-addresses", move || services::repair(of.clone()));
        let of = state.clone();
        state.keep("leaked-addresses", move || services::clean(of.clone()));
        let of = state.clone();
        state.keep("token-uses", move || legacy_tokens::run(of.clone()));
        Arc::new(ApiServer { state })
    }

    /// Controllers and scheduler run in this process, until the token is cancelled: componentstatuses tell so.
    pub fn components_run(&self, until: CancellationToken) {
        self.state.components.run_here(until);
    }

    /// Controllers and scheduler run wherever this Lease is held.
    pub fn components_elected(&self, namespace: &str, name: &str) {
        self.state.components.run_by_lease(namespace, name);
    }

    pub fn config(&self) -> &Config {
        self.state.config()
    }

    /// What the server's parts share.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Brings into being what the cluster has to begin with, and from then on what it can't be without whenever that is
    /// deleted; how many objects were made.
    pub async fn bootstrap(&self, facts: &Facts) -> Result<usize, Status> {
        let made = startup::bootstrap(&self.state, facts).await?;
        let (state, facts) = (self.state.clone(), facts.clone());
        self.state
            .keep("cluster-objects", move || startup::keep(state.clone(), facts.clone()));
        Ok(made)
    }

    /// Ends connections and tasks, lets the committer finish what waits, and closes the store.
    pub async fn close(&self) {
        self.state.close().await;
    }

    /// The whole pipeline; who asks comes from a `User` in the request's extensions, or from authentication.
    pub fn router(self: &Arc<Self>) -> Router {
        let server = self.clone();
        Router::new().fallback(move |request: http::Request<Body>| server.clone().handle(request))
    }

    /// The same with the identity given: for components in this process.
    pub fn router_as(self: &Arc<Self>, user: User) -> Router {
        self.router().layer(axum::Extension(Arc::new(user)))
    }

    /// What informers of this process read, as this user.
    pub fn feed(&self, user: User) -> Arc<dyn Feed> {
        Arc::new(CacheFeed {
            state: self.state.clone(),
            user,
        })
    }

    /// TLS, h2 and HTTP/1.1, until the token is cancelled. A box, so that all of it is compiled here, for speed: the body of
    /// an async function is compiled where it is awaited, and with it what it calls, as that crate is.
    pub fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        token: CancellationToken,
    ) -> BoxFuture<'static, std::io::Result<()>> {
        let server = self.clone();
        let handle = move |request| server.clone().handle(request);
        transport::serve(handle, listener, tls, token, self.config().unread).boxed()
    }

    /// One request, whatever carried it.
    pub async fn handle(self: Arc<Self>, request: http::Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if !is_escaped_well(parts.uri.path()) {
            return respond::bytes(StatusCode::BAD_REQUEST, respond::TEXT, "400 Bad Request");
        }
        let request = Request::new(self.state.clone(), parts, !body.is_end_stream());
        let refusal = Output::of_refusal(&request.parts.headers, &request.query);
        let run = std::panic::AssertUnwindSafe(self.run(request, body, refusal)).catch_unwind();
        match run.await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => respond::status(&status, refusal),
            Err(panic) => {
                job::record_panic("apiserver-request", &*panic);
                let status = Status::internal("the handler of this request panicked");
                respond::status(&status, refusal)
            }
        }
    }

    /// Where a request leads. What a definition changed is in the cache a moment before it is in the registry.
    async fn route(&self, request: &Request) -> Result<Option<Route>, Status> {
        loop {
            let swapped = self.state.swapped();
            let route = routes::find(self.state.registry().rows(), &request.parts.method, &request.info)?;
            if !route.as_ref().is_some_and(|route| route.row.is_past()) {
                return Ok(route);
            }
            let waiting = tokio::time::timeout_at(request.deadline, swapped);
            waiting
                .await
                .map_err(|_| Status::timeout("the definition of this resource is changing"))?;
        }
    }

    async fn run(
        self: &Arc<Self>,
        mut request: Request,
        body: Body,
        refusal: Output,
    ) -> Result<Response<Body>, Status> {
        request.pass()?;
        let guard = std::mem::take(&mut request.guard);
        let account = request.account();
        if let Some(account) = &account {
            account.room(Source::Own, request.deadline).await?;
        }
        let route = self.route(&request).await?;
        let relayed = route.as_ref().is_some_and(Route::relays);
        if let Some(account) = &account
            && route.as_ref().is_some_and(Route::relays_bodies)
        {
            // Nothing ends those that lie unread: an answer would begin, and stand still for as long as they do.
            account.room(Source::Relayed, request.deadline).await?;
        }
        let response = match route {
            Some(route) => resource(request, route, body, refusal).await?,
            None => {
                let Request {
                    state,
                    info,
                    parts,
                    query,
                    ..
                } = &request;
                nonresource::handle(state, info, parts, query).await?
            }
        };
        let response = guard.hang_on_own(response);
        let response = match account {
            Some(account) => account.count(response, relayed),
            None => response,
        };
        Ok(match relayed {
            true => pieces::relayed(response),
            false => whole::lend(&self.state, response),
        })
    }
}

/// `refusal`: how the client is told of one.
async fn resource(request: Request, route: Route, body: Body, refusal: Output) -> Result<Response<Body>, Status> {
    let (headers, verb) = (&request.parts.headers, request.info.verb);
    route.negotiate(&request.parts.method, headers)?;
    let output = match route.relays() {
        // The other end answers as it likes.
        true => Output::JSON,
        false => {
            let output = Output::negotiate(headers, &request.query, route.shapes(), route.row.schema.is_some());
            if output.is_err() && matches!(verb, "list" | "watch") {
                // Whose options are judged first.
                ListOptions::parse(&request.query, &request.info)?;
            }
            output?
        }
    };
    let Route { row, place } = route;
    let counted = row.clone();
    let subresource = request.info.subresource.clone();
    let mut parts = request.parts;
    let call = Call {
        server: request.state,
        info: request.info,
        query: request.query,
        user: request.user,
        row,
        headers: std::mem::take(&mut parts.headers),
        output,
        deadline: request.deadline,
        waits_for_body: request.waits_for_body,
        place: None,
        turn: None,
        beginning: OnceLock::new(),
        forms: crd::conversion::Forms::default(),
    };
    let result = Box::pin(dispatch::resource(call, place, parts, body)).await;
    let mut response = result.unwrap_or_else(|status| respond::status(&status, refusal));
    counted.requests.count(verb, response.status().as_u16());
    if let Some(warning) = counted.deprecated(&subresource) {
        respond::warn_first(&mut response, warning);
    }
    Ok(response)
}
