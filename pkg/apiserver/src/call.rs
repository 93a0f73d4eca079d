//! One request to a resource, after authentication and authorization: what handlers and the pipeline work with.

use std::sync::Arc;

use http::HeaderMap;
use mk8s_api::registry::Support;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::admission::{Attributes, Operation};
use crate::identity::User;
use crate::negotiate::Output;
use crate::object::Object;
use crate::request::{Query, RequestInfo};
use crate::rows::Row;
use crate::state::State;
use crate::watch_cache::ResourceCache;

/// One request to a resource, after authentication and authorization.
pub struct Call {
    pub server: Arc<State>,
    pub info: RequestInfo,
    pub query: Query,
    pub user: Arc<User>,
    pub row: Arc<Row>,
    pub headers: HeaderMap,
    pub output: Output,
}

/// How often a read-modify-write loop inside the server is tried before its conflict is the caller's.
pub const RETRIES: usize = 10;

impl Call {
    pub fn cache(&self) -> Result<&Arc<ResourceCache>, Status> {
        let cache = self.row.cache.as_ref();
        cache.ok_or_else(|| Status::method_not_allowed(format!("{} has no stored objects", self.row.plural())))
    }

    /// The stored object that the path names.
    pub fn object(&self) -> Result<Arc<Object>, Status> {
        let cache = self.row.cache.as_ref().ok_or_else(|| self.not_found())?;
        let found = cache.get(&self.info.namespace, self.info.path_name());
        found.ok_or_else(|| self.not_found())
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(self.row.group(), self.row.plural(), &self.info.name)
    }

    pub fn conflict(&self) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(self.row.group(), self.row.plural(), &self.info.name, why)
    }

    pub fn attributes<'a>(
        &'a self,
        operation: Operation,
        name: &'a str,
        old: Option<&'a Value>,
        dry_run: bool,
    ) -> Attributes<'a> {
        Attributes {
            user: &self.user,
            request: &self.info,
            resource: &self.row.resource,
            operation,
            namespace: &self.info.namespace,
            name,
            subresource: &self.info.subresource,
            old,
            dry_run,
        }
    }

    /// Both phases of admission, for what stores no object of its own: delete, connect, binding, eviction.
    pub async fn admit(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let admission = self.server.admission();
        let mut sent = object.cloned().unwrap_or_default();
        admission.mutate(attributes, &mut sent).await?;
        admission.validate(attributes, object, &mut Vec::new())
    }

    /// Kinds that promise what this version can't hold are not written.
    pub fn refuse_unsupported(&self) -> Result<(), Status> {
        if self.row.resource.support != Support::ReadOnly {
            return Ok(());
        }
        Err(self.not_in_this_version(self.row.kind()))
    }

    pub fn not_in_this_version(&self, what: &str) -> Status {
        Status::forbidden(
            self.row.group(),
            self.row.plural(),
            &self.info.name,
            &format!("{what}: not in this version of mk8s"),
        )
    }
}

/// What a write came to: the stored object, or with dry-run the tree that would have been stored.
pub enum Written {
    Stored(Arc<Object>),
    Tree(Value),
}

impl Written {
    /// The tree as stored (dry-run: as it would be).
    pub fn value(&self) -> Value {
        match self {
            Written::Stored(object) => object.value(),
            Written::Tree(value) => value.clone(),
        }
    }
}
