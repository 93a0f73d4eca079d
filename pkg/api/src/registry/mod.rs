//! The registry: one row per resource, read by discovery, OpenAPI, tables, RBAC, storage and the handlers alike.
//! A built-in kind is a row in one of the group files here; a custom resource becomes the same row at run time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

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
    /// Selectable fields besides metadata.name and metadata.namespace: label → JSON path (`spec.nodeName`).
    /// Indexed when an object enters the watch cache.
    pub fields: Vec<(Cow<'static, str>, Vec<Cow<'static, str>>)>,
    pub columns: Vec<Column>,
    pub hooks: Hooks,
    /// (group, plural) of the row whose objects this one shows in another version (events.k8s.io → core events).
    pub stored_as: Option<(&'static str, &'static str)>,
    /// Default paths of `/scale`: (specReplicasPath, statusReplicasPath, labelSelectorPath) as JSON paths.
    pub scale: Option<ScalePaths>,
    pub extra: BTreeMap<&'static str, Value>,
}

/// Where `/scale` finds its numbers.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    pub spec_replicas: &'static [&'static str],
    pub status_replicas: &'static [&'static str],
    /// A metav1.LabelSelector, a map or a string.
    pub selector: &'static [&'static str],
}
