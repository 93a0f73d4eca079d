//! The one HTTP client of this binary: of API servers, nodes, webhooks, registries and extenders. The code of hyper's client is made
//! anew for every type of connector and body, a quarter of a megabyte each time: here both are behind one type.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::MaybeHttpsStream;
pub use hyper_util::client::legacy::{Builder, Error};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

/// A connection to a server, with TLS or without.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

type Body = UnsyncBoxBody<Bytes, BoxError>;
type Connector = BoxCloneSyncService<Uri, Stream, BoxError>;

/// Sends requests over connections that it keeps. A clone shares them.
#[derive(Clone, Debug)]
pub struct Client(hyper_util::client::legacy::Client<Connector, Body>);

impl Client {
    /// Over the connections that `connector` makes.
    pub fn new<C>(builder: &Builder, connector: C) -> Client
    where
        C: Service<Uri, Response = Stream> + Clone + Send + Sync + 'static,
        C::Future: Send + 'static,
        C::Error: Into<BoxError>,
    {
        Client::over(builder, Connector::new(connector.map_err(Into::into)))
    }

    fn over(builder: &Builder, connector: Connector) -> Client {
        Client(builder.build(connector))
    }

    /// The head of the answer, whose body comes as it is read.
    ///
    /// # Errors
    /// There is no connection, or it broke before the answer's head had come.
    pub fn request<B>(&self, request: Request<B>) -> BoxFuture<'static, Result<Response<Incoming>, Error>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send(request.map(|body| body.map_err(Into::into).boxed_unsync()))
    }

    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Incoming>, Error>> {
        Box::pin(self.0.request(request))
    }
}

impl<B> Service<Request<B>> for Client
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.request(request)
    }
}
