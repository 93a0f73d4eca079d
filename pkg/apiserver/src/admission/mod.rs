//! Admission: what may change or refuse a write between its authorization and its storing. One file per plugin.

use mk8s_api::registry::Resource;
use serde_json::Value;

use crate::identity::User;
use crate::request::RequestInfo;

/// What the caller does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What a plugin sees. The object itself travels beside it: mutating plugins get `&mut Value`, validating ones `&Value`.
pub struct Attributes<'a> {
    pub user: &'a User,
    pub request: &'a RequestInfo,
    pub resource: &'a Resource,
    pub operation: Operation,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// The object before the change; none on create.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}
