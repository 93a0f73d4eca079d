//! One request to a resource, after authentication and authorization: what handlers and the pipeline work with.

use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use mk8s_api::registry::Support;
use mk8s_api::status::Status;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::admission::{Attributes, Notes, Operation, Options};
use crate::components;
use crate::crd::conversion;
use crate::guaranteed_update::{Reads, Target};
use crate::identity::User;
use crate::limits::Permit;
use crate::negotiate::Output;
use crate::object::Object;
use crate::request::{Query, RequestInfo};
use crate::rows::Row;
use crate::state::State;
use crate::turns::Turn;
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
    /// When the request is answered 504.
    pub deadline: Instant,
    /// Whether its place among those that are worked on is taken when its body is here.
    pub waits_for_body: bool,
    pub place: Option<Permit>,
    /// Its turn among long requests.
    pub turn: Option<Turn>,
    /// Held from when it makes an object of a custom kind: the end of the kind waits for that.
    pub beginning: OnceLock<TaskTrackerToken>,
    /// What a webhook made of its objects for the managers of other versions.
    pub forms: conversion::Forms,
}

impl Call {
    pub fn cache(&self) -> Result<&Arc<ResourceCache>, Status> {
        let cache = self.row.cache.as_ref();
        cache.ok_or_else(|| Status::method_not_allowed(format!("{} has no stored objects", self.row.plural())))
    }

    /// The stored object that the path names.
    pub fn object(&self) -> Result<Arc<Object>, Status> {
        let Some(cache) = &self.row.cache else {
            let mut all = components::all(self).into_iter();
            let found = all.find(|object| object.name() == self.info.path_name());
            return found.ok_or_else(|| Status::not_found("", "componentstatus", self.info.path_name()));
        };
        self.check_key()?;
        let found = cache.get(&self.info.namespace, self.info.path_name());
        let found = found.ok_or_else(|| self.not_found())?;
        Ok(found.known_as(&self.row.resource))
    }

    /// The same in the form of the row's version.
    pub async fn shown_object(&self) -> Result<Arc<Object>, Status> {
        let found = vec![self.object()?];
        let shown = conversion::objects(&self.server, &self.row, found).await?;
        shown.into_iter().next().ok_or_else(|| self.not_found())
    }

    /// The object that the path names, to be changed.
    pub fn named_target(&self, dry_run: bool) -> Result<Target<'_>, Status> {
        self.check_key()?;
        self.target(&self.info.namespace, self.info.path_name(), dry_run)
    }

    /// Whether something could be stored under the names in the path.
    pub fn check_key(&self) -> Result<(), Status> {
        self.check_namespace()?;
        check_name(self.info.path_name())
    }

    /// Whether there is a namespace where one is needed.
    pub fn check_namespace(&self) -> Result<(), Status> {
        if self.row.resource.is_namespaced() && self.info.namespace.is_empty() {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        Ok(())
    }

    /// An object of the call's resource, to be changed.
    pub fn target(&self, namespace: &str, name: &str, dry_run: bool) -> Result<Target<'_>, Status> {
        let cache = self.cache()?;
        Ok(Target {
            store: self.server.store(),
            cache,
            known_as: Some(&self.row.resource),
            key: cache.key(namespace, name),
            deadline: self.deadline,
            dry_run,
            reads: Reads::Whole,
            looks: true,
            turn: self.turn.as_ref(),
        })
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(self.row.group(), self.row.plural(), &self.info.name)
    }

    pub fn conflict(&self) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(self.row.group(), self.row.plural(), &self.info.name, why)
    }

    /// What admission sees of the call.
    pub fn attributes<'a>(
        &'a self,
        operation: Operation,
        name: &'a str,
        old: Option<&'a Value>,
        options: Options<'a>,
    ) -> Attributes<'a> {
        let row = &self.row;
        let subresource = row.subresource(&self.info.subresource);
        let own = (row.group(), row.version(), row.kind());
        Attributes {
            user: &self.user,
            resource: &row.resource,
            requested_kind: subresource.and_then(|subresource| subresource.kind).unwrap_or(own),
            requested_resource: (row.group(), row.version(), row.plural()),
            operation,
            namespace: &self.info.namespace,
            name,
            subresource: &self.info.subresource,
            old,
            stored: None,
            options,
        }
    }

    /// Both phases of admission, for what stores no object of its own: delete, connect, eviction, token, review.
    pub async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        self.server.admission().mutate(attributes, object).await?;
        self.validate(attributes, object, warnings).await
    }

    /// The validating phase; of what is noted the warnings go to the client.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let mut notes = Notes::default();
        let verdict = self.server.admission().validate(attributes, object, &mut notes).await;
        warnings.extend(notes.warnings);
        verdict
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

/// Whether a text could be an object's name in a path.
pub fn check_name(name: &str) -> Result<(), Status> {
    let why = match name {
        "" => return Err(Status::bad_request("Name parameter required.")),
        "." | ".." => format!("may not be '{name}'"),
        _ if name.contains('%') => "may not contain '%'".to_string(),
        _ => return Ok(()),
    };
    Err(Status::bad_request(format!("Name parameter invalid: {name:?}: {why}")))
}
