//! What the server serves at one moment: its rows, and the documents that describe them, made together. A request takes one
//! snapshot when it begins; what changes the registry (a custom resource that comes, changes or goes) puts another in its
//! place, and whoever works or watches by the old one goes on.

use std::sync::{Arc, OnceLock};

use mk8s_api::registry::Resource;

use crate::config::Config;
use crate::discovery::Discovery;
use crate::openapi::Documents;
use crate::rows::Rows;
use crate::watch_cache::Cache;

/// See the module.
pub struct Registry {
    rows: Rows,
    documents: Arc<Documents>,
    /// Made when first asked for: a registry may be replaced before anybody does.
    discovery: OnceLock<Discovery>,
}

impl Registry {
    /// A registry of some resources, each with its part of the cache; `before` is the one that it follows.
    pub fn new(resources: Vec<Arc<Resource>>, cache: &Cache, before: Option<&Registry>) -> Registry {
        Registry {
            rows: Rows::new(&resources, cache, before.map(|before| &before.rows)),
            documents: Arc::new(Documents::new(resources)),
            discovery: OnceLock::new(),
        }
    }

    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn documents(&self) -> &Arc<Documents> {
        &self.documents
    }

    pub fn discovery(&self, config: &Config) -> &Discovery {
        self.discovery.get_or_init(|| Discovery::new(&self.rows, config))
    }
}
