//! The registry: one row per resource, read by discovery, OpenAPI, tables, RBAC, storage and the handlers alike.
//! A built-in kind is a row in one of the group files here; a custom resource becomes the same row at run time.

mod admission;
mod apps;
mod authentication;
mod autoscaling;
mod batch;
pub mod columns;
mod core;
pub mod custom;
pub mod events;
mod extensions;
mod gates;
mod internal;
mod networking;
mod policy;
mod rbac;
mod removed;
mod resource;
mod row;
mod semantics;
mod served;
mod storage;
mod strategies;
mod unowned;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

pub(crate) use custom::checking;
pub use semantics::{ChangeOrder, Deletion, Dependents, Handler, Semantics, Strategy};
pub use served::{Convert, Field, Served, newest_first};

use crate::json_path::JsonPath;
use crate::validation::Errors;

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// The request verbs a resource (or subresource) answers, as discovery names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbs(pub u16);

impl Verbs {
    pub const CREATE: Verbs = Verbs(1);
    pub const DELETE: Verbs = Verbs(2);
    pub const DELETECOLLECTION: Verbs = Verbs(4);
    pub const GET: Verbs = Verbs(8);
    pub const LIST: Verbs = Verbs(16);
    pub const PATCH: Verbs = Verbs(32);
    pub const UPDATE: Verbs = Verbs(64);
    pub const WATCH: Verbs = Verbs(128);
    /// What nearly every stored resource answers.
    pub const ALL: Verbs = Verbs(255);
    pub const GET_PATCH_UPDATE: Verbs = Verbs(8 | 32 | 64);
    /// Virtual resources (reviews): create alone.
    pub const CREATE_ONLY: Verbs = Verbs(1);

    pub const fn contains(self, other: Verbs) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn union(self, other: Verbs) -> Verbs {
        Verbs(self.0 | other.0)
    }

    /// The verbs' names in discovery's (alphabetical) order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [&str; 8] = [
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ];
        NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }
}

/// A subresource as discovery shows it: `status`, `scale`, `binding`, …
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: Cow<'static, str>,
    pub handler: Handler,
    pub verbs: Verbs,
    /// Kind of the request and answer when it is not the parent's: (group, version, kind), e.g. ("autoscaling", "v1", "Scale").
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    /// A `Warning` for every request, where it is not that of the version it is in.
    pub deprecated: Option<Cow<'static, str>>,
}

/// A printed column (metav1.TableColumnDefinition) and how its cell is computed.
#[derive(Clone)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub type_: Cow<'static, str>,
    /// `name` for the first column; what a custom resource's column says.
    pub format: Cow<'static, str>,
    pub description: Cow<'static, str>,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
    pub cell: Cell,
}

/// How a cell is computed.
#[derive(Clone)]
pub enum Cell {
    /// Object and the time of printing → cell.
    Of(fn(&Value, jiff::Timestamp) -> Value),
    /// What a path leads to, printed as the column's type.
    At(JsonPath),
}

/// The few pure functions that make a kind special, on its stored form; the default of each does nothing.
#[derive(Clone, Copy)]
pub struct Hooks {
    pub validate: fn(&Value, &mut Errors),
    /// (version that the object is sent in, new, old): runs besides `validate` on every write of the main resource.
    pub validate_write: fn(&Served, &Value, Option<&Value>, &mut Errors),
    /// (new, old): runs besides `validate` on update and patch.
    pub validate_update: fn(&Value, &Value, &mut Errors),
    /// (new, old): what is wrong with a status, written through a subresource.
    pub validate_status: fn(&Value, &Value, &mut Errors),
    /// The strategy's PrepareForCreate: drops status, sets what the server owns. Generation, uid and times are set generically.
    pub prepare_create: fn(&mut Value),
    /// (new, old): the strategy's PrepareForUpdate of the main resource (status is restored generically).
    pub prepare_update: fn(&mut Value, &Value),
    /// (new, old): the same of a write of the status, whose other fields are restored generically.
    pub prepare_status: fn(&mut Value, &Value),
    /// (new, old) → `Warning` header texts (deprecated fields, stored-only kinds).
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
}

impl Hooks {
    pub const NONE: Hooks = Hooks {
        validate: |_, _| {},
        validate_write: |_, _, _, _| {},
        validate_update: |_, _, _| {},
        validate_status: |_, _, _| {},
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        prepare_status: |_, _| {},
        warnings: |_, _| Vec::new(),
    };
}

/// How the name of an object is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    DnsSubdomain,
    DnsLabel,
    /// RFC 1035 label (Services before relaxed validation).
    Dns1035Label,
    /// An IP address as it is printed.
    Address,
    /// Any path segment (RBAC roles and the like: no `/` or `%`, not `.` or `..`).
    PathSegment,
}

/// Resources that are accepted, listed or refused, as this version of mk8s says it of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Acted upon.
    Full,
    /// Stored; writes answer a `Warning` that nothing acts on it yet.
    StoredOnly,
    /// Writes are refused with 403, reads show an empty list.
    ReadOnly,
    /// Nothing is stored: a review, answered by its own code.
    Virtual,
}

/// A kind: what it is and what is stored of it, once, and the versions in which it is served.
#[derive(Clone)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    /// `PodList`
    pub list_kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub singular: Cow<'static, str>,
    pub short_names: Vec<Cow<'static, str>>,
    pub categories: Vec<Cow<'static, str>>,
    pub scope: Scope,
    pub verbs: Verbs,
    /// Whether `metadata.generation` counts changes of spec.
    pub generation: bool,
    pub name_rule: NameRule,
    pub support: Support,
    pub hooks: Hooks,
    pub semantics: Semantics,
    /// The stored one among them.
    pub versions: Vec<Served>,
    /// Which of `versions` is stored.
    pub storage: usize,
    /// The selectable fields of all versions, each place in the stored object once: what is kept beside a cached object.
    pub index: Vec<Field>,
    /// What converts a custom resource between its versions, where that is a webhook.
    pub webhook: Option<custom::Webhook>,
}

/// The fields that lead from an object to a value.
pub type Path = Vec<Cow<'static, str>>;

/// Where `/scale` finds its numbers.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    pub spec_replicas: Path,
    pub status_replicas: Path,
    /// A metav1.LabelSelector, a map or a string; empty: there is none.
    pub selector: Path,
}

/// Every built-in resource, group by group.
pub fn builtin() -> &'static [Arc<Resource>] {
    &TABLE.rows
}

/// Resources of which objects are stored that no request reaches.
pub fn unserved() -> &'static [Arc<Resource>] {
    static ROWS: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| internal::rows().into_iter().map(Arc::new).collect());
    &ROWS
}

/// The resource that serves a group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    let found = TABLE.by_plural.get(&(group, plural))?;
    found
        .iter()
        .map(|&index| &TABLE.rows[index])
        .find(|row| row.serving(group, version).is_some())
}

/// The resource of a group, version and kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    builtin()
        .iter()
        .find(|row| row.kind == kind && row.serving(group, version).is_some())
}

/// A served version and the resource that it is of.
pub type Row<'a> = (&'a Arc<Resource>, usize);

/// The groups in discovery's order: that of upstream's APIServices' priorities. Those of custom resources come after them, by
/// name; `extensions`, from which everything moved, is the last.
const GROUPS: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Every served version of some resources, in discovery's order: of groups, of versions, of plurals.
pub fn in_order(resources: &[Arc<Resource>]) -> Vec<Row<'_>> {
    let rank = |group: &str| match group {
        "extensions" => usize::MAX,
        _ => GROUPS.iter().position(|own| *own == group).unwrap_or(GROUPS.len()),
    };
    let mut rows: Vec<(usize, &Served, Row<'_>)> = Vec::with_capacity(resources.len());
    for resource in resources {
        for (at, served) in resource.versions.iter().enumerate().filter(|(_, own)| own.served) {
            rows.push((rank(&served.group), served, (resource, at)));
        }
    }
    rows.sort_by(|(a_rank, a, (a_of, _)), (b_rank, b, (b_of, _))| {
        (a_rank, &a.group)
            .cmp(&(b_rank, &b.group))
            .then_with(|| newest_first(&a.name, &b.name))
            .then_with(|| a_of.plural.cmp(&b_of.plural))
    });
    rows.into_iter().map(|(_, _, row)| row).collect()
}

struct Table {
    rows: Vec<Arc<Resource>>,
    by_plural: HashMap<(&'static str, &'static str), Vec<usize>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let groups: [fn() -> Vec<Resource>; 20] = [
        core::rows,
        extensions::apiregistration,
        apps::rows,
        authentication::authentication,
        authentication::authorization,
        autoscaling::rows,
        batch::rows,
        authentication::certificates,
        networking::networking,
        policy::policy,
        rbac::rows,
        storage::rows,
        admission::rows,
        extensions::apiextensions,
        policy::scheduling,
        policy::coordination,
        policy::node,
        networking::discovery,
        resource::rows,
        policy::flowcontrol,
    ];
    let rows = groups.iter().flat_map(|rows| rows());
    let rows: Vec<Arc<Resource>> = rows.map(|row| Arc::new(removed::with_removed(row).indexed())).collect();
    let mut by_plural: HashMap<(&'static str, &'static str), Vec<usize>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let Cow::Borrowed(plural) = row.plural else { continue };
        for served in &row.versions {
            if let Cow::Borrowed(group) = served.group {
                by_plural.entry((group, plural)).or_default().push(index);
            }
        }
    }
    Table { rows, by_plural }
});

/// `apps.Deployment`: the Go type of a kind in its group's internal version.
pub fn go_type(group: &str, kind: &str) -> String {
    let package = match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("{package}.{kind}")
}

impl Resource {
    /// The version in which requests to a group and version are served.
    pub fn serving(&self, group: &str, version: &str) -> Option<&Served> {
        self.versions
            .iter()
            .find(|own| own.served && own.name == version && own.group == group)
    }

    /// The version that is stored.
    pub fn stored(&self) -> &Served {
        &self.versions[self.storage]
    }

    /// `v1`, `apps/v1`: what stored objects say of themselves.
    pub fn api_version(&self) -> String {
        self.stored().api_version()
    }

    /// What the server makes of a new object before it is validated.
    pub fn prepare_create(&self, new: &mut Value) {
        self.drop_disabled(new, None);
        (self.hooks.prepare_create)(new);
    }

    /// What the server makes of a changed status before it is validated.
    pub fn prepare_status(&self, new: &mut Value, old: &Value) {
        (self.hooks.prepare_status)(new, old);
        self.drop_disabled(new, Some(old));
    }

    /// What the server makes of a changed object before it is validated.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        (self.hooks.prepare_update)(new, old);
        self.drop_disabled(new, Some(old));
    }

    /// Fields that upstream's defaults leave off go, also from a status.
    pub fn drop_disabled(&self, new: &mut Value, old: Option<&Value>) {
        for part in self.semantics.gates {
            part.drop_disabled(new, old);
        }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `*apps.DeploymentList`: what messages call a Go type of the group's internal version.
    pub fn go_type(&self, kind: &str) -> String {
        format!("*{}", go_type(&self.group, kind))
    }

    /// `pods`, `deployments.apps`
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    /// The values of the fields of `index` in a stored object, in their order.
    pub fn selectable<'a>(&'a self, object: &'a Value) -> impl Iterator<Item = Cow<'a, str>> {
        self.index.iter().map(|field| field.value(object))
    }

    /// The resource with all its versions' fields in its index.
    #[must_use]
    pub fn indexed(mut self) -> Self {
        let mut index: Vec<Field> = Vec::new();
        for field in self.versions.iter_mut().flat_map(|served| &mut served.fields) {
            let found = index.iter().position(|own| own.path == field.path);
            field.at = found.unwrap_or(index.len());
            if found.is_none() {
                index.push(field.clone());
            }
        }
        self.index = index;
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_row_is_found_by_its_names() {
        for row in builtin() {
            for served in &row.versions {
                let by_plural = find(&served.group, &served.name, &row.plural).unwrap();
                assert!(Arc::ptr_eq(row, by_plural), "{}", row.qualified());
                let by_kind = find_kind(&served.group, &served.name, &row.kind).unwrap();
                assert!(Arc::ptr_eq(row, by_kind));
            }
        }
        assert!(find("apps", "v1beta1", "nothings").is_none());
        assert_eq!(builtin().len(), 64);
    }

    #[test]
    fn absent_fields_are_go_zero_values() {
        let nodes = find("", "v1", "nodes").unwrap();
        let values: Vec<_> = nodes.selectable(&Value::Null).collect();
        assert_eq!(values, ["false"]);
    }

    #[test]
    fn one_object_has_a_field_once_whatever_the_versions_call_it() {
        let events = find("events.k8s.io", "v1", "events").unwrap();
        assert!(Arc::ptr_eq(events, find("", "v1", "events").unwrap()));
        let at = |group: &str, label: &str| {
            let fields = &events.serving(group, "v1").unwrap().fields;
            fields.iter().find(|field| field.label == label).map(|field| field.at)
        };
        assert!(at("", "involvedObject.kind").is_some());
        assert_eq!(at("", "involvedObject.kind"), at("events.k8s.io", "regarding.kind"));
        assert_eq!(at("", "regarding.kind"), None);
    }
}
