//! `metadata.managedFields`, packed: what an object keeps of it is per manager a pointer to the manager's name, one to the
//! text of the fields it owns, and a time. Both are shared with all objects that have the same; pods of one template do.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields_v1;
use super::intern::{Interned, Weigh};
use super::set::Set;
use crate::codec::json;

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who owns fields: what tells one entry from another, and in which version its fields are named.
#[derive(Clone, Debug)]
pub struct Owner {
    pub manager: Box<str>,
    pub operation: Operation,
    pub api_version: Box<str>,
    /// Empty: the object itself.
    pub subresource: Box<str>,
}

impl Owner {
    /// Whether two are entries of one manager. Who applies has one entry, in whichever version he did it last.
    pub(super) fn is_same(&self, other: &Owner) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// An owner, and the text around what it owns.
#[derive(Debug)]
pub(super) struct Printed {
    pub owner: Owner,
    /// Up to the value of `fieldsV1`.
    head: Box<str>,
    /// From there to the time, or the end.
    tail: Box<str>,
}

impl Printed {
    fn of(owner: Owner) -> Printed {
        let quoted = |text: &str| Value::from(text).to_string();
        let head = format!(
            r#"{{"apiVersion":{},"fieldsType":"FieldsV1","fieldsV1":"#,
            quoted(&owner.api_version)
        );
        let mut tail = String::new();
        if !owner.manager.is_empty() {
            tail = format!(r#","manager":{}"#, quoted(&owner.manager));
        }
        tail.push_str(&format!(r#","operation":"{}""#, owner.operation.as_str()));
        if !owner.subresource.is_empty() {
            tail.push_str(r#","subresource":"#);
            tail.push_str(&quoted(&owner.subresource));
        }
        Printed {
            owner,
            head: head.into(),
            tail: tail.into(),
        }
    }
}

impl PartialEq for Printed {
    fn eq(&self, other: &Printed) -> bool {
        self.head == other.head && self.tail == other.tail
    }
}

impl Eq for Printed {}

impl Hash for Printed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.head.hash(state);
        self.tail.hash(state);
    }
}

impl Weigh for Printed {
    fn weight(&self) -> usize {
        let owner = &self.owner;
        let names = owner.manager.len() + owner.api_version.len() + owner.subresource.len();
        size_of::<Printed>() + names + self.head.len() + self.tail.len()
    }
}

impl AsRef<Printed> for Printed {
    fn as_ref(&self) -> &Printed {
        self
    }
}

static OWNERS: LazyLock<Interned<Printed>> = LazyLock::new(Interned::new);
static FIELDS: LazyLock<Interned<str>> = LazyLock::new(Interned::new);

/// A second in RFC 3339, as text: it sorts like the time that it is.
pub type Time = [u8; 20];

/// The text of a time, where it is one to the second in UTC.
pub(super) fn time(text: &str) -> Option<Time> {
    text.as_bytes().try_into().ok()
}

/// What one manager owns.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) printed: Arc<Printed>,
    /// Canonical FieldsV1.
    pub(super) fields: Arc<str>,
    pub(super) time: Option<Time>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.printed == other.printed && self.fields == other.fields && self.time == other.time
    }
}

impl Entry {
    pub(super) fn new(owner: Owner, fields: &Set, time: Option<Time>) -> Entry {
        Entry::printed(owner, fields_v1::print(fields), time)
    }

    /// Of fields in canonical FieldsV1.
    pub(super) fn printed(owner: Owner, fields: String, time: Option<Time>) -> Entry {
        Entry {
            printed: OWNERS.get(Printed::of(owner)),
            fields: FIELDS.get(fields),
            time,
        }
    }

    pub fn owner(&self) -> &Owner {
        &self.printed.owner
    }

    /// What it owns, in canonical FieldsV1.
    pub fn fields(&self) -> &str {
        &self.fields
    }

    /// When it last changed that, where somebody said so.
    pub fn time(&self) -> Option<&str> {
        self.time.as_ref().and_then(|time| std::str::from_utf8(time).ok())
    }

    /// The fields as a tree.
    pub fn set(&self) -> Set {
        // It was printed from one.
        fields_v1::parse(&self.fields).unwrap_or_default()
    }

    pub(super) fn with(&self, fields: &Set) -> Entry {
        Entry {
            fields: FIELDS.get(fields_v1::print(fields)),
            ..self.clone()
        }
    }

    pub(super) fn owns_nothing(&self) -> bool {
        &*self.fields == fields_v1::EMPTY
    }
}

/// The managers of an object, in the order in which clients see them. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed(Option<Arc<[Entry]>>);

/// Why a client's `managedFields` are not what the object's become.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    #[error("error decoding set: {0}")]
    Fields(#[from] fields_v1::FieldsError),
    #[error("not a list of managers")]
    NotAList,
}

impl Managed {
    /// Whether the same managers have the same fields, whenever they wrote last.
    pub fn same_but_times(&self, other: &Managed) -> bool {
        let entries = |managed: &Managed| managed.0.clone().unwrap_or_default();
        let (own, others) = (entries(self), entries(other));
        let same = |(own, other): (&Entry, &Entry)| own.printed == other.printed && own.fields == other.fields;
        own.len() == others.len() && own.iter().zip(others.iter()).all(same)
    }

    pub const NOBODY: Managed = Managed(None);

    /// Of entries in any order, of which those that own nothing are left out.
    pub(super) fn of(mut entries: Vec<Entry>) -> Managed {
        entries.retain(|entry| !entry.owns_nothing());
        if entries.is_empty() {
            return Managed(None);
        }
        entries.sort_by(|one, two| {
            let (a, b) = (one.owner(), two.owner());
            let order = a.operation.cmp(&b.operation).then_with(|| one.time.cmp(&two.time));
            let order = order.then_with(|| a.manager.cmp(&b.manager));
            order
                .then_with(|| a.api_version.cmp(&b.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        Managed(Some(entries.into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn entries(&self) -> &[Entry] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Bytes that [`print`](Managed::print) appends, about.
    pub fn printed_len(&self) -> usize {
        let entries = self.entries().iter();
        entries
            .map(|entry| entry.printed.head.len() + entry.fields.len() + entry.printed.tail.len() + 40)
            .sum()
    }

    /// Appends the JSON list.
    pub fn print(&self, into: &mut Vec<u8>) {
        into.push(b'[');
        for (at, entry) in self.entries().iter().enumerate() {
            if at > 0 {
                into.push(b',');
            }
            into.extend_from_slice(entry.printed.head.as_bytes());
            into.extend_from_slice(entry.fields.as_bytes());
            into.extend_from_slice(entry.printed.tail.as_bytes());
            if let Some(time) = &entry.time {
                into.extend_from_slice(br#","time":""#);
                into.extend_from_slice(time);
                into.push(b'"');
            }
            into.push(b'}');
        }
        into.push(b']');
    }

    /// The same as a tree.
    pub fn to_value(&self) -> Value {
        let mut text = Vec::with_capacity(self.printed_len());
        self.print(&mut text);
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Reads what [`print`](Managed::print) printed.
    ///
    /// # Errors
    /// It is not that.
    pub fn parse(text: &[u8]) -> Result<Managed, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stored<'a> {
            api_version: Box<str>,
            #[serde(borrow, rename = "fieldsV1")]
            fields_v1: &'a RawValue,
            #[serde(default)]
            manager: Box<str>,
            operation: Box<str>,
            #[serde(default)]
            subresource: Box<str>,
            time: Option<&'a str>,
        }
        let stored: Vec<Stored<'_>> = serde_json::from_slice(text)?;
        let entries = stored.into_iter().map(|stored| {
            let owner = Owner {
                manager: stored.manager,
                operation: match &*stored.operation {
                    "Apply" => Operation::Apply,
                    _ => Operation::Update,
                },
                api_version: stored.api_version,
                subresource: stored.subresource,
            };
            Entry {
                printed: OWNERS.get(Printed::of(owner)),
                fields: FIELDS.get(stored.fields_v1.get().to_string()),
                time: stored.time.and_then(time),
            }
        });
        Ok(Managed::of(entries.collect()))
    }

    /// Reads a client's `managedFields`. Of two entries of one manager the later one counts.
    ///
    /// # Errors
    /// What is wrong with them, in upstream's words.
    pub fn from_value(list: &Value) -> Result<Managed, ManagedError> {
        let list = list.as_array().ok_or(ManagedError::NotAList)?;
        let mut entries = HashMap::with_capacity(list.len());
        for (at, value) in list.iter().enumerate() {
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagedError::Operation),
            };
            if text("apiVersion").is_empty() {
                return Err(ManagedError::ApiVersion);
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(ManagedError::NoFieldsType(at)),
                other => return Err(ManagedError::FieldsType(other.into(), at)),
            }
            let set = match value.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => fields_v1::parse_value(fields)?,
            };
            let owner = Owner {
                manager: text("manager").into(),
                operation,
                api_version: text("apiVersion").into(),
                subresource: text("subresource").into(),
            };
            // What tells managers apart, as in `is_same`.
            let version = match operation {
                Operation::Apply => "",
                Operation::Update => text("apiVersion"),
            };
            let manager = (operation, text("manager"), text("subresource"), version);
            entries.insert(manager, Entry::new(owner, &set, time(text("time"))));
        }
        Ok(Managed::of(entries.into_values().collect()))
    }
}

/// Whether a client's `managedFields` ask for none: an empty list, or a list of one entry that says nothing.
pub fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.values().all(|value| value.is_null() || value == ""),
        _ => false,
    }
}

/// A text's JSON, where it stands in an object's metadata before another field.
pub fn print_field(managed: &Managed, into: &mut Vec<u8>) {
    json::print_key("managedFields", into);
    managed.print(into);
    into.push(b',');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_read_and_printed() {
        let list = json!([
            {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}, "manager": "b\"",
             "operation": "Apply", "time": "2026-01-02T03:04:05Z"},
            {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}}}, "manager": "a",
             "operation": "Update", "time": "2026-01-01T03:04:05Z"},
            {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}, "manager": "a",
             "operation": "Update", "subresource": "status", "time": "2026-01-02T03:04:05Z"},
        ]);
        let managed = Managed::from_value(&list).unwrap();
        let mut text = Vec::new();
        managed.print(&mut text);
        assert!(text.len() <= managed.printed_len() + 2);
        let mut expected = list.clone();
        expected[1]["fieldsV1"] = json!({"f:data": {}});
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
        assert_eq!(managed.to_value(), expected);
        assert_eq!(Managed::parse(&text).unwrap(), managed);
        let again = Managed::parse(&text).unwrap();
        for (one, other) in managed.entries().iter().zip(again.entries()) {
            assert!(Arc::ptr_eq(&one.printed, &other.printed) && Arc::ptr_eq(&one.fields, &other.fields));
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let entry = json!({"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}, "operation": "Update"});
        for (key, value) in [
            ("operation", json!("Delete")),
            ("apiVersion", json!("")),
            ("fieldsType", json!("")),
            ("fieldsType", json!("FieldsV2")),
            ("fieldsV1", json!({"x": {}})),
        ] {
            let mut entry = entry.clone();
            entry[key] = value;
            assert!(Managed::from_value(&json!([entry])).is_err(), "{entry}");
        }
        assert!(Managed::from_value(&json!([entry])).unwrap().is_empty());
        assert!(is_reset(&json!([])) && is_reset(&json!([{}])));
        assert!(!is_reset(&json!([entry])) && !is_reset(&json!([{}, {}])) && !is_reset(&Value::Null));
    }
}
