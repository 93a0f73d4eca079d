//! The registry: one row per resource, read by discovery, OpenAPI, tables, RBAC, storage and the handlers alike.
//! A built-in kind is a row in one of the group files here; a custom resource becomes the same row at run time.

mod admission;
mod apps;
mod authentication;
mod autoscaling;
mod batch;
pub mod columns;
mod core;
pub mod events;
mod extensions;
mod internal;
mod networking;
mod policy;
mod rbac;
mod resource;
mod row;
mod semantics;
mod storage;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

pub use semantics::{Deletion, Dependents, Handler, Semantics};

use crate::meta;
use crate::status::FieldError;

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

/// A served version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    pub name: Cow<'static, str>,
    pub served: bool,
    pub storage: bool,
}

/// A subresource as discovery shows it: `status`, `scale`, `binding`, …
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: Cow<'static, str>,
    pub handler: Handler,
    pub verbs: Verbs,
    /// Kind of the request and answer when it is not the parent's: (group, version, kind), e.g. ("autoscaling", "v1", "Scale").
    pub kind: Option<(&'static str, &'static str, &'static str)>,
}

/// A printed column (metav1.TableColumnDefinition) and how its cell is computed.
#[derive(Clone)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub type_: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    pub description: Cow<'static, str>,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
    /// Object and the time of printing → cell.
    pub cell: fn(&Value, jiff::Timestamp) -> Value,
}

/// The few pure functions that make a kind special; the default of each does nothing.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Fills in what upstream's `SetDefaults_*` fill in; runs before and after mutating admission.
    pub default: fn(&mut Value),
    pub validate: fn(&Value, &mut Vec<FieldError>),
    /// (new, old): runs besides `validate` on update and patch.
    pub validate_update: fn(&Value, &Value, &mut Vec<FieldError>),
    /// (new, old): what is wrong with a status, written through a subresource.
    pub validate_status: fn(&Value, &Value, &mut Vec<FieldError>),
    /// The strategy's PrepareForCreate: drops status, sets what the server owns. Generation, uid and times are set generically.
    pub prepare_create: fn(&mut Value),
    /// (new, old): the strategy's PrepareForUpdate of the main resource (status is restored generically).
    pub prepare_update: fn(&mut Value, &Value),
    /// (new, old) → `Warning` header texts (deprecated fields, stored-only kinds).
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
}

impl Hooks {
    pub const NONE: Hooks = Hooks {
        default: |_| {},
        validate: |_, _| {},
        validate_update: |_, _, _| {},
        validate_status: |_, _, _| {},
        prepare_create: |_| {},
        prepare_update: |_, _| {},
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

/// One row.
#[derive(Clone)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    pub versions: Vec<Version>,
    pub kind: Cow<'static, str>,
    /// `PodList`
    pub list_kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub singular: Cow<'static, str>,
    pub short_names: Vec<Cow<'static, str>>,
    pub categories: Vec<Cow<'static, str>>,
    pub scope: Scope,
    pub verbs: Verbs,
    pub subresources: Vec<Subresource>,
    /// Whether `metadata.generation` counts changes of spec.
    pub generation: bool,
    pub name_rule: NameRule,
    pub support: Support,
    /// Selectable fields besides metadata.name and metadata.namespace: label → JSON path (`spec.nodeName`) in the
    /// stored object. Indexed when an object enters the watch cache: see `selectable`.
    pub fields: Vec<(Cow<'static, str>, Vec<Cow<'static, str>>)>,
    pub columns: Vec<Column>,
    pub hooks: Hooks,
    pub semantics: Semantics,
    /// (group, plural) of the row whose objects this one shows in another version (events.k8s.io → core events).
    pub stored_as: Option<(&'static str, &'static str)>,
    /// With `stored_as`: the two directions between this row's form and the stored row's (apiVersion included).
    pub convert: Option<Convert>,
    /// Default paths of `/scale`: (specReplicasPath, statusReplicasPath, labelSelectorPath) as JSON paths.
    pub scale: Option<ScalePaths>,
    /// A `Warning` for every request of a kind that is deprecated (the types' APILifecycleDeprecated).
    pub deprecated: Option<&'static str>,
}

/// In place, both ways, without loss.
#[derive(Clone, Copy)]
pub struct Convert {
    pub to_stored: fn(&mut Value),
    pub from_stored: fn(&mut Value),
}

/// Where `/scale` finds its numbers.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    pub spec_replicas: &'static [&'static str],
    pub status_replicas: &'static [&'static str],
    /// A metav1.LabelSelector, a map or a string.
    pub selector: &'static [&'static str],
}

/// Every built-in row, in discovery's order of groups, preferred version first, plurals sorted within a version.
pub fn builtin() -> &'static [Arc<Resource>] {
    &TABLE.rows
}

/// Rows of which objects are stored that no request reaches.
pub fn unserved() -> &'static [Arc<Resource>] {
    static ROWS: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| internal::rows().into_iter().map(Arc::new).collect());
    &ROWS
}

/// The row that serves a group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    TABLE
        .by_plural
        .get(&(group, plural))?
        .iter()
        .map(|&index| &TABLE.rows[index])
        .find(|row| row.serves(version))
}

/// The row of a group, version and kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    builtin()
        .iter()
        .find(|row| row.group == group && row.kind == kind && row.serves(version))
}

/// The row whose objects are in the store, for a row that shows them in another version.
pub fn stored_row(row: &Arc<Resource>) -> Option<&'static Arc<Resource>> {
    let (group, plural) = row.stored_as?;
    TABLE
        .by_plural
        .get(&(group, plural))?
        .iter()
        .map(|&index| &TABLE.rows[index])
        .find(|row| row.stored_as.is_none())
}

struct Table {
    rows: Vec<Arc<Resource>>,
    by_plural: HashMap<(&'static str, &'static str), Vec<usize>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let groups: [fn() -> Vec<Resource>; 21] = [
        core::rows,
        extensions::apiregistration,
        apps::rows,
        events::rows,
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
    let rows: Vec<Arc<Resource>> = groups.iter().flat_map(|rows| rows()).map(Arc::new).collect();
    let mut by_plural: HashMap<(&'static str, &'static str), Vec<usize>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        if let (Cow::Borrowed(group), Cow::Borrowed(plural)) = (&row.group, &row.plural) {
            by_plural.entry((group, plural)).or_default().push(index);
        }
    }
    Table { rows, by_plural }
});

impl Resource {
    pub fn serves(&self, version: &str) -> bool {
        self.versions.iter().any(|own| own.served && own.name == version)
    }

    /// The version that is stored (the only one, for built-in kinds).
    pub fn storage_version(&self) -> &str {
        self.versions
            .iter()
            .find(|version| version.storage)
            .or(self.versions.first())
            .map_or("", |version| &version.name)
    }

    pub fn api_version(&self) -> String {
        meta::join_api_version(&self.group, self.storage_version())
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// `pods`, `deployments.apps`
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    /// Whether a field selector may name this field.
    pub fn is_selectable(&self, label: &str) -> bool {
        label == "metadata.name"
            || (label == "metadata.namespace" && self.is_namespaced())
            || self.fields.iter().any(|(own, _)| own == label)
    }

    /// The values of the selectable fields of a stored object, in the order of `fields`; Go's zero values count.
    pub fn selectable<'a>(&'a self, object: &'a Value) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.fields
            .iter()
            .map(|(label, path)| (label.as_ref(), field_value(object, label, path)))
    }
}

fn field_value<'a>(object: &'a Value, label: &str, path: &[Cow<'static, str>]) -> Cow<'a, str> {
    let mut current = Some(object);
    for key in path {
        current = current.and_then(|value| value.as_object()?.get(key.as_ref()));
    }
    match current {
        Some(Value::String(text)) if !text.is_empty() => Cow::Borrowed(text.as_str()),
        Some(Value::Bool(true)) => Cow::Borrowed("true"),
        Some(Value::Bool(false)) => Cow::Borrowed("false"),
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        _ => Cow::Borrowed(match label {
            "spec.hostNetwork" | "spec.unschedulable" => "false",
            "status.replicas" | "status.successful" => "0",
            // an event of the newer API names its source as the reporting component
            "source" => meta::string(object, &["reportingComponent"]),
            "reportingController" | "reportingComponent" => meta::string(object, &["source", "component"]),
            _ => "",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_row_is_found_by_its_names() {
        for row in builtin() {
            let version = row.storage_version();
            let by_plural = find(&row.group, version, &row.plural).unwrap();
            assert!(Arc::ptr_eq(row, by_plural), "{}", row.qualified());
            assert!(Arc::ptr_eq(row, find_kind(&row.group, version, &row.kind).unwrap()));
            if row.stored_as.is_some() {
                assert!(stored_row(row).is_some());
            }
        }
        assert!(find("apps", "v1beta1", "deployments").is_none());
        assert_eq!(builtin().len(), 66);
    }

    #[test]
    fn absent_fields_are_go_zero_values() {
        let nodes = find("", "v1", "nodes").unwrap();
        let values: Vec<_> = nodes.selectable(&Value::Null).collect();
        assert_eq!(values, [("spec.unschedulable", Cow::Borrowed("false"))]);
    }
}
