//! One served version of a resource: what is a version's own matter. A request is decoded and defaulted in the version that
//! it names, converted to the stored one, and answered in its own again.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::custom::Custom;
use super::{Column, Handler, ScalePaths, Subresource};
use crate::meta;
use crate::schema::custom::TooLarge;
use crate::schema::{self, Schema};
use crate::validation::Errors;

/// See the module.
#[derive(Clone)]
pub struct Served {
    /// The group that requests name: the resource's own, but for kinds that moved to another (`extensions`).
    pub group: Cow<'static, str>,
    /// `v1`
    pub name: Cow<'static, str>,
    /// Whether discovery gives the resource's short names and categories to it: kubectl warns of a short name that two
    /// groups have, and shows twice what two groups have of a category.
    pub aliased: bool,
    /// Whether requests reach it: a custom resource may be stored in a version that is served no more.
    pub served: bool,
    pub subresources: Vec<Subresource>,
    pub columns: Vec<Column>,
    /// Selectable fields besides metadata.name and metadata.namespace.
    pub fields: Vec<Field>,
    /// Where `/scale` finds its numbers.
    pub scale: Option<ScalePaths>,
    /// Fills in what upstream's `SetDefaults_*` of this version fill in; runs before and after mutating admission.
    pub default: fn(&mut Value),
    /// To and from the stored version; None where they differ in `apiVersion` at most.
    pub convert: Option<Convert>,
    /// What is wrong with an object (in stored form) that is sent in this version, where upstream asks that of the
    /// version; None: what the resource's hooks say.
    pub validate: Option<fn(&Value, &mut Errors)>,
    /// (new, old): the same of a change, where it is another question.
    pub validate_update: Option<fn(&Value, &Value, &mut Errors)>,
    /// A custom resource's schema.
    pub custom: Option<Arc<Custom>>,
    /// A `Warning` for every request (the types' APILifecycleDeprecated, a CRD's deprecationWarning).
    pub deprecated: Option<Cow<'static, str>>,
}

/// In place, both ways, without loss. Who calls it sets `apiVersion`.
#[derive(Clone, Copy)]
pub struct Convert {
    pub to_stored: fn(&mut Value),
    pub from_stored: fn(&mut Value),
}

/// A selectable field.
#[derive(Clone, Debug)]
pub struct Field {
    /// As field selectors name it.
    pub label: Cow<'static, str>,
    /// Where it stands in the stored object.
    pub path: super::Path,
    /// Where it stands among the fields of `Resource::index`.
    pub at: usize,
}

impl Field {
    /// The value in a stored object; Go's zero values count.
    pub fn value<'a>(&self, object: &'a Value) -> Cow<'a, str> {
        let mut current = Some(object);
        for key in &self.path {
            current = current.and_then(|value| value.as_object()?.get(key.as_ref()));
        }
        match current {
            Some(Value::String(text)) if !text.is_empty() => Cow::Borrowed(text.as_str()),
            Some(Value::Bool(true)) => Cow::Borrowed("true"),
            Some(Value::Bool(false)) => Cow::Borrowed("false"),
            Some(Value::Number(number)) => Cow::Owned(number.to_string()),
            _ => Cow::Borrowed(match self.label.as_ref() {
                "spec.hostNetwork" | "spec.unschedulable" => "false",
                "status.replicas" | "status.successful" => "0",
                // an event of the newer API names its source as the reporting component
                "source" => meta::string(object, &["reportingComponent"]),
                "reportingController" | "reportingComponent" => meta::string(object, &["source", "component"]),
                _ => "",
            }),
        }
    }
}

impl Served {
    /// A version with nothing of its own said yet.
    pub fn of(group: Cow<'static, str>, name: Cow<'static, str>) -> Served {
        Served {
            group,
            name,
            aliased: true,
            served: true,
            subresources: Vec::new(),
            columns: super::columns::default(),
            fields: Vec::new(),
            scale: None,
            default: |_| {},
            convert: None,
            validate: None,
            validate_update: None,
            custom: None,
            deprecated: None,
        }
    }

    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        meta::join_api_version(&self.group, &self.name)
    }

    /// The shape of its objects; `kind` is the resource's.
    pub fn schema(&self, kind: &str) -> Option<&Schema> {
        match &self.custom {
            Some(custom) => Some(custom.form()),
            None => schema::by_gvk(&self.group, &self.name, kind),
        }
    }

    /// Fills in what an object of this version leaves unsaid.
    ///
    /// # Errors
    /// A definition's defaults have no room.
    pub fn fill(&self, object: &mut Value) -> Result<(), TooLarge> {
        (self.default)(object);
        match &self.custom {
            Some(custom) => custom.fill(object),
            None => Ok(()),
        }
    }

    /// Whether its objects look as the stored ones of that version do.
    pub fn is_stored_as(&self, stored: &Served) -> bool {
        self.name == stored.name && self.group == stored.group
    }

    /// Makes the stored form of an object of this version. What a built-in version leaves unsaid is its own matter and is filled
    /// in first; what the stored version adds comes after. A custom object is checked in the version that it came in, and filled
    /// in for that.
    pub fn to_stored(&self, stored: &Served, object: &mut Value) {
        if self.is_stored_as(stored) {
            return;
        }
        if self.custom.is_none() {
            (self.default)(object);
        }
        if let Some(convert) = &self.convert {
            (convert.to_stored)(object);
        }
        meta::set(object, &["apiVersion"], stored.api_version());
    }

    /// The other way. Of a custom object what its version lacks is not shown; defaults are the stored version's.
    pub fn from_stored(&self, stored: &Served, object: &mut Value) {
        if self.is_stored_as(stored) {
            return;
        }
        if let Some(convert) = &self.convert {
            (convert.from_stored)(object);
        }
        meta::set(object, &["apiVersion"], self.api_version());
        if let Some(custom) = &self.custom {
            custom.prune(object);
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether it has a status that is written apart.
    pub fn has_status(&self) -> bool {
        let status = |subresource: &Subresource| subresource.handler == Handler::Status;
        self.subresources.iter().any(status)
    }
}

/// How new a version is by its name, the newest first: general availability before beta before alpha, the higher number
/// before the lower, anything else after them in alphabetical order
/// (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#version-priority>).
pub fn newest_first(a: &str, b: &str) -> std::cmp::Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// (maturity, major, minor) of `v1`, `v2beta1`.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let major = number(major)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (maturity, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (None, Some(minor)) => (0, minor),
        (None, None) => return None,
    };
    Some((maturity, major, number(minor)?))
}

/// A number as such a name has it: digits, not beginning with 0.
fn number(text: &str) -> Option<u64> {
    let valid = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let sorted = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
            "v01",
        ];
        let mut mixed = sorted;
        mixed.reverse();
        mixed.sort_by(|a, b| newest_first(a, b));
        assert_eq!(mixed, sorted);
    }
}
