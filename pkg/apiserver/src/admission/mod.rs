//! Admission: what may change or refuse a write between its authorization and its storing. One file per plugin; the table
//! of them, in upstream's order, is in `plugins`. Every write passes both phases, also of what is not the object itself
//! (a Scale, a Binding, an Eviction, a token, a connection, each object of a collection), and again at each retry.
//! DeviceAdminAccess and RoleEscalation are upstream's strategies' checks, which need what admission looks up.
//!
//! Of the plugins that v1.35 has on by default these are not in the table:
//!
//! | plugin | why |
//! |---|---|
//! | LimitRanger, ResourceQuota | their kinds are refused as yet |
//! | MutatingAdmissionWebhook, ValidatingAdmissionWebhook, MutatingAdmissionPolicy, ValidatingAdmissionPolicy | so are theirs |
//! | CertificateApproval, CertificateSubjectRestriction | parts of CertificateSigning |
//! | ClusterTrustBundleAttest | its kind is not served by default |
//! | NodeDeclaredFeatureValidator | behind a gate that is off |

pub mod certificates;
mod claim_resize;
mod default_class;
pub mod default_toleration_seconds;
mod device_admin;
pub mod namespace_lifecycle;
pub mod namespaces;
pub mod node_restriction;
mod plugins;
pub mod pod_security;
mod pod_topology_labels;
pub mod priority;
pub mod runtime_class;
pub mod service_account;
mod storage_protection;
pub mod taint_nodes_by_condition;

use std::sync::Arc;

use futures::future::BoxFuture;
use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::filters::authz::Authorizer;
use crate::identity::User;
use crate::lookup::Lookup;
use crate::object::Object;
use crate::options::{DeleteOptions, WriteOptions};

pub use plugins::PLUGINS;

/// What the caller does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// The options that came with the request.
#[derive(Clone, Copy)]
pub enum Options<'a> {
    /// CreateOptions, UpdateOptions, PatchOptions
    Write(WriteOptions),
    Delete(&'a DeleteOptions),
    /// A connection's are the object itself.
    Connect,
}

impl Options<'_> {
    fn dry_run(&self) -> bool {
        match self {
            Options::Write(options) => options.dry_run,
            Options::Delete(options) => options.dry_run,
            Options::Connect => false,
        }
    }
}

/// (group, version, kind) or (group, version, plural)
pub type Versioned<'a> = (&'a str, &'a str, &'a str);

/// What a plugin sees. The object itself travels beside it: mutating plugins get `&mut Value`, validating ones `&Value`;
/// null where there is none (delete, connect).
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a User,
    /// The resource whose object is stored, in whatever version or group the request shows it: what plugins match on.
    pub resource: &'a Resource,
    /// What the request itself names: the kind of its object, and its resource.
    pub requested_kind: Versioned<'a>,
    pub requested_resource: Versioned<'a>,
    pub operation: Operation,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// The object before the change; none on create. Of a change through `/status` it has what such a change reads alone,
    /// as the object itself has: neither says anything of the spec.
    pub old: Option<&'a Value>,
    /// As it is stored, where that is at hand.
    pub stored: Option<&'a Object>,
    pub options: Options<'a>,
}

impl Attributes<'_> {
    /// Whether this is about a resource of the core group (the subresource is looked at apart).
    fn is_core(&self, plural: &str) -> bool {
        self.is("", plural)
    }

    fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// Whether an object of the resource is created or changed, not through a subresource.
    fn writes_itself(&self) -> bool {
        self.writes() && self.subresource.is_empty()
    }

    fn writes(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }

    /// A selectable field of the object before the change, whether it was read or not.
    fn old_field(&self, label: &str) -> &str {
        if let Some(field) = self.stored.and_then(|stored| stored.field(label)) {
            return field;
        }
        let path: Vec<&str> = label.split('.').collect();
        self.old.map_or("", |old| mk8s_api::meta::string(old, &path))
    }

    /// Whether nothing may come of it: a plugin that acts elsewhere leaves that undone.
    pub fn dry_run(&self) -> bool {
        self.options.dry_run()
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
        let (group, _, plural) = self.requested_resource;
        Status::forbidden(group, plural, name, why)
    }
}

/// What plugins have to say beside yes and no.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// For `Warning` headers.
    pub warnings: Vec<String>,
    /// Key and value, for the event that an audit log keeps of the request.
    pub audit: Vec<(&'static str, String)>,
}

/// What plugins ask.
pub struct Facts {
    lookup: Arc<dyn Lookup>,
    authorizer: Arc<Authorizer>,
    namespaces: namespaces::Namespaces,
    accounts: service_account::Accounts,
    priorities: priority::Classes,
    nodes: pod_topology_labels::Nodes,
}

type Verdict = Result<(), Status>;

/// A plugin's part in the first phase. It may be run again on what it made.
#[derive(Clone, Copy)]
pub enum Mutate {
    Nothing,
    Now(fn(&Facts, &Attributes<'_>, &mut Value) -> Verdict),
    /// It may have to wait.
    Waits(for<'a> fn(&'a Facts, &'a Attributes<'a>, &'a mut Value) -> BoxFuture<'a, Verdict>),
}

/// A plugin's part in the second phase, after the object's own validation.
#[derive(Clone, Copy)]
pub enum Validate {
    Nothing,
    Now(fn(&Facts, &Attributes<'_>, &Value, &mut Notes) -> Verdict),
    /// It may have to wait.
    Waits(for<'a> fn(&'a Facts, &'a Attributes<'a>, &'a Value, &'a mut Notes) -> BoxFuture<'a, Verdict>),
}

/// One row of the table.
pub struct Plugin {
    /// Upstream's name of it.
    pub name: &'static str,
    /// Whether a call concerns it.
    pub matches: fn(&Attributes<'_>) -> bool,
    pub mutate: Mutate,
    pub validate: Validate,
}

/// The chain of plugins.
pub struct Admission(Facts);

impl Admission {
    pub fn new(lookup: Arc<dyn Lookup>, authorizer: Arc<Authorizer>) -> Self {
        Admission(Facts {
            namespaces: namespaces::Namespaces::default(),
            accounts: service_account::Accounts::default(),
            priorities: priority::Classes::default(),
            nodes: pod_topology_labels::Nodes::default(),
            lookup,
            authorizer,
        })
    }

    /// The mutating phase.
    ///
    /// # Errors
    /// The first plugin's refusal.
    pub async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Verdict {
        for plugin in PLUGINS.iter().filter(|plugin| (plugin.matches)(attributes)) {
            match plugin.mutate {
                Mutate::Nothing => {}
                Mutate::Now(mutate) => mutate(&self.0, attributes, object)?,
                Mutate::Waits(mutate) => mutate(&self.0, attributes, object).await?,
            }
        }
        Ok(())
    }

    /// The validating phase. What plugins note goes to the caller even where one of them refuses.
    ///
    /// # Errors
    /// The first plugin's refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>, object: &Value, notes: &mut Notes) -> Verdict {
        for plugin in PLUGINS.iter().filter(|plugin| (plugin.matches)(attributes)) {
            match plugin.validate {
                Validate::Nothing => {}
                Validate::Now(validate) => validate(&self.0, attributes, object, notes)?,
                Validate::Waits(validate) => validate(&self.0, attributes, object, notes).await?,
            }
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
                resource: &resource,
                requested_kind: (self.group, &resource.stored().name, &resource.kind),
                requested_resource: (self.group, &resource.stored().name, self.plural),
                operation: self.operation,
                namespace: self.namespace,
                name: self.name,
                subresource: self.subresource,
                old,
                stored: None,
                options: Options::Write(WriteOptions::default()),
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
