//! Admission: what may change or refuse a write between its authorization and its storing. One file per plugin; the
//! order is upstream's.

pub mod certificates;
pub mod default_toleration_seconds;
mod memo;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod pod_security;
pub mod priority;
pub mod runtime_class;
pub mod service_account;
pub mod taint_nodes_by_condition;

use std::sync::Arc;

use mk8s_api::registry::{Resource, Support};
use mk8s_api::status::Status;
use serde_json::Value;

use crate::filters::authz::{self, Authorizer};
use crate::identity::User;
use crate::lookup::Lookup;
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

impl Attributes<'_> {
    /// Whether this is about a resource of the core group (the subresource is looked at apart).
    fn is_core(&self, plural: &str) -> bool {
        self.resource.group.is_empty() && self.resource.plural == plural
    }

    fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// `pods "x" is forbidden: {why}`
    pub fn forbidden(&self, object: Option<&Value>, why: &str) -> Status {
        let metadata = |field: &str| {
            let text = object.and_then(|object| object.get("metadata")?.get(field)?.as_str());
            text.filter(|text| !text.is_empty())
        };
        let given = Some(self.name).filter(|name| !name.is_empty());
        let name = given
            .or_else(|| metadata("name"))
            .or_else(|| metadata("generateName"))
            .unwrap_or("Unknown");
        Status::forbidden(&self.resource.group, &self.resource.plural, name, why)
    }
}

/// The text of every refusal of what this version does not have.
pub const NOT_IN_THIS_VERSION: &str = "not in this version of mk8s";

/// The chain of plugins.
pub struct Admission {
    lookup: Arc<dyn Lookup>,
    authorizer: Arc<Authorizer>,
    namespaces: namespace_lifecycle::Namespaces,
    accounts: service_account::Accounts,
    priorities: priority::Classes,
}

impl Admission {
    pub fn new(lookup: Arc<dyn Lookup>, authorizer: Arc<Authorizer>) -> Self {
        Admission {
            namespaces: namespace_lifecycle::Namespaces::default(),
            accounts: service_account::Accounts::default(),
            priorities: priority::Classes::default(),
            lookup,
            authorizer,
        }
    }

    /// The mutating phase, also of what stores no object (`Value::Null` then: delete, connect). Waits only for the
    /// `default` service account of a namespace that was just made.
    pub async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        use Operation::{Create, Update};
        if matches!(attributes.operation, Create | Update) && attributes.resource.support == Support::ReadOnly {
            return Err(attributes.forbidden(Some(object), NOT_IN_THIS_VERSION));
        }
        let lookup = &*self.lookup;
        namespace_lifecycle::admit(attributes, object, lookup, &self.namespaces)?;
        if attributes.is_core("pods") && attributes.subresource.is_empty() && attributes.operation == Create {
            service_account::admit(attributes, object, lookup, &self.accounts).await?;
        }
        node_restriction::admit(attributes, object, lookup, &self.authorizer)?;
        if !matches!(attributes.operation, Create | Update) || !attributes.subresource.is_empty() {
            if attributes.subresource == "approval" {
                certificates::stamp(attributes, object);
            }
            return Ok(());
        }
        if attributes.is_core("nodes") && attributes.operation == Create {
            taint_nodes_by_condition::admit(object);
        }
        if attributes.is_core("pods") {
            priority::admit(attributes, object, lookup, &self.priorities)?;
            default_toleration_seconds::admit(object);
            if attributes.operation == Create {
                runtime_class::admit(attributes, object, lookup)?;
            }
        }
        if attributes.is("certificates.k8s.io", "certificatesigningrequests") {
            certificates::requester(attributes, object);
        }
        if attributes.resource.group == authz::rbac::GROUP {
            let (namespace, name) = (attributes.namespace, attributes.name);
            let plural = &attributes.resource.plural;
            let user = attributes.user;
            authz::escalation::check(&self.authorizer, user, plural, namespace, name, object, attributes.old)?;
        }
        Ok(())
    }

    /// The validating phase, after the object's own validation. Warnings go into `Warning` headers.
    pub fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        use Operation::{Create, Update};
        let Some(object) = object else { return Ok(()) };
        if !matches!(attributes.operation, Create | Update) {
            return Ok(());
        }
        let lookup = &*self.lookup;
        pod_security::validate(attributes, object, lookup, &self.namespaces, warnings)?;
        if attributes.is_core("pods") && attributes.subresource.is_empty() && attributes.operation == Create {
            runtime_class::validate(attributes, object, lookup)?;
        }
        if attributes.is("scheduling.k8s.io", "priorityclasses") {
            priority::validate(attributes, object, lookup)?;
        }
        if attributes.is("certificates.k8s.io", "certificatesigningrequests") {
            certificates::validate(attributes, object, &self.authorizer)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used)]
    //! What the plugins' tables of tests share.

    use super::*;
    use crate::lookup::MapLookup;

    pub fn resource(group: &str, plural: &str) -> Arc<Resource> {
        let rows = mk8s_api::registry::builtin();
        let found = rows.iter().find(|row| row.group == group && row.plural == plural);
        found.unwrap_or_else(|| panic!("no row {group}/{plural}")).clone()
    }

    pub struct Request<'a> {
        pub user: User,
        pub group: &'a str,
        pub plural: &'a str,
        pub subresource: &'a str,
        pub namespace: &'a str,
        pub name: &'a str,
        pub operation: Operation,
    }

    impl<'a> Request<'a> {
        pub fn create(plural: &'a str, namespace: &'a str) -> Self {
            let user = User::authenticated("jane", []);
            Request {
                user,
                group: "",
                plural,
                subresource: "",
                namespace,
                name: "",
                operation: Operation::Create,
            }
        }

        pub fn with<T>(&self, old: Option<&Value>, act: impl FnOnce(&Attributes<'_>) -> T) -> T {
            let resource = resource(self.group, self.plural);
            act(&Attributes {
                user: &self.user,
                request: &RequestInfo::default(),
                resource: &resource,
                operation: self.operation,
                namespace: self.namespace,
                name: self.name,
                subresource: self.subresource,
                old,
                dry_run: false,
            })
        }
    }

    /// A cluster with one namespace and its default account.
    pub fn cluster() -> Arc<MapLookup> {
        let lookup = Arc::new(MapLookup::default());
        lookup.put(
            "",
            "namespaces",
            &serde_json::json!({"metadata": {"name": "default"}, "status": {"phase": "Active"}}),
        );
        lookup.put(
            "",
            "serviceaccounts",
            &serde_json::json!({"metadata": {"name": "default", "namespace": "default"}}),
        );
        lookup
    }
}
