//! The API server: one generic pipeline over the registry's rows, and the only user of the store.

pub mod admission;
pub mod bootstrap;
pub mod config;
pub mod filters;
pub mod identity;
pub mod lookup;
pub mod object;
pub mod request;
pub mod server;
pub mod tokens;
pub mod watch_cache;

pub use config::Config;
pub use identity::User;
pub use object::Object;
pub use server::{ApiServer, OpenError};
pub use watch_cache::Cache;
