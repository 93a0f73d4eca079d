//! One stored object as the watch cache holds it: the bytes clients receive, its managers, and what selectors ask of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use mk8s_api::apply::{self, Managed};
use mk8s_api::codec::json;
use mk8s_api::codec::protobuf::{self, ProtobufError};
use mk8s_api::registry::Resource;
use mk8s_api::schema::{self, Schema};
use mk8s_api::status::Status;
use serde_json::Value;

use crate::{crd, managers, stored_form};

/// Labels and selectable fields: made by the task of the request that wrote the object, or on first use after a start.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selectable {
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// In the order of the row's `fields`.
    pub fields: Box<[Box<str>]>,
}

impl Selectable {
    pub fn of(resource: &Resource, object: &Value) -> Selectable {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        let labels = labels.and_then(Value::as_object).map(|labels| {
            labels
                .iter()
                .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()))
                .collect()
        });
        let fields = resource.selectable(object).map(|value| Box::from(&*value));
        Selectable {
            labels: labels.unwrap_or_default(),
            fields: fields.collect(),
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(own, _)| &**own == key);
        found.map(|(_, value)| &**value)
    }
}

/// An object of the cache. Cheap to share, never changed.
pub struct Object {
    /// The store's key.
    pub key: Arc<str>,
    /// JSON text with apiVersion, kind and metadata.resourceVersion: stored = cached = sent, but for managedFields, which
    /// are put in when it is sent.
    pub json: Bytes,
    pub managed: Managed,
    pub revision: u64,
    pub create_revision: u64,
    /// What the store has, where that is read as another text: an object of a custom kind, whose schema says more now.
    original: Option<Box<Original>>,
    /// Where in `json` the digits of the revision stand.
    revision_at: u32,
    namespace: (u16, u16),
    name_from: u16,
    resource: Arc<Resource>,
    selectable: OnceLock<Selectable>,
    proto: OnceLock<Result<Bytes, Box<Status>>>,
}

impl Object {
    pub(crate) fn new(resource: Arc<Resource>, stored: mk8s_store::Entry, noted: Option<Noted>) -> Object {
        let (selectable, managed) = match noted {
            Some(noted) => (Some(noted.selectable), Some(noted.managed)),
            None => (None, None),
        };
        let mk8s_store::Entry {
            key,
            value,
            revision_at,
            create_revision,
            mod_revision: revision,
        } = stored;
        let (json, managed) = parts(&key, value, managed);
        let (namespace, name_from) = split_key(&key, resource.scope);
        let cell = OnceLock::new();
        if let Some(selectable) = selectable {
            let _ = cell.set(selectable);
        }
        Object {
            // No value is as long.
            revision_at: u32::try_from(revision_at).unwrap_or(u32::MAX),
            key,
            json,
            managed,
            revision,
            create_revision,
            original: None,
            namespace,
            name_from,
            resource,
            selectable: cell,
            proto: OnceLock::new(),
        }
    }

    /// The same object as it is read for another resource, or for the same in another shape.
    pub(crate) fn read_as(&self, resource: &Arc<Resource>, read: &dyn Fn(Object) -> Object) -> Object {
        read(Object::new(resource.clone(), self.entry(), None))
    }

    /// The object as who took it for one of a resource knows it, though a definition changed since: in that one's stored
    /// version, by its schema.
    pub(crate) fn known_as(self: Arc<Self>, resource: &Arc<Resource>) -> Arc<Object> {
        if Arc::ptr_eq(&self.resource, resource) {
            return self;
        }
        Arc::new(self.read_as(resource, &crd::read))
    }

    /// The object in the form in which it is read, of what the store has.
    pub(crate) fn read_from(mut self, stored: &Object, is_cut: bool) -> Object {
        let entry = stored.entry();
        self.original = Some(Box::new(Original { entry, is_cut }));
        self
    }

    /// Whether the store has another text.
    pub fn is_read_otherwise(&self) -> bool {
        self.original.is_some()
    }

    /// Whether the store has another text, which the next write mends though it changes nothing.
    pub fn is_stale(&self) -> bool {
        let Some(original) = &self.original else { return false };
        self.stored_without_the_rest().is_none() || !is_in(&original.entry.value, &self.resource.api_version())
    }

    /// Whether it is read in a version.
    pub fn is_in(&self, api_version: &str) -> bool {
        is_in(&self.json, api_version)
    }

    /// What the store has, where there may be no room for what is read of it.
    fn stored_without_the_rest(&self) -> Option<&mk8s_store::Entry> {
        let original = self.original.as_ref()?;
        let has_room = !original.is_cut && self.json.len() + self.managed.printed_len() < ROOM;
        (!has_room).then_some(&original.entry)
    }

    /// The tree that the store has, where there may be no room for what is read of it.
    pub(crate) fn shorter(&self) -> Option<Value> {
        let original = self.stored_without_the_rest()?;
        let (text, _) = stored_form::split(&original.value);
        let mut tree: Value = serde_json::from_slice(&original.value[..text]).ok()?;
        if self.resource.webhook.is_none() {
            tree["apiVersion"] = self.resource.api_version().into();
        }
        Some(tree)
    }

    /// Whether there is one.
    pub(crate) fn is_longer_than_stored(&self) -> bool {
        self.stored_without_the_rest().is_some()
    }

    /// The object in the form in which it is read, of what the store has by now: that says the same at another revision.
    pub(crate) fn stored_as(mut self, entry: mk8s_store::Entry) -> Object {
        let at = self.revision_at as usize;
        let before = at..at + decimal_len(self.revision);
        self.revision = entry.mod_revision;
        self.create_revision = entry.create_revision;
        let mut text = Vec::from(self.json);
        text.splice(before, self.revision.to_string().into_bytes());
        self.json = text.into();
        if let Some(original) = &mut self.original {
            original.entry = entry;
        }
        self
    }

    /// What the store handed on.
    pub(crate) fn entry(&self) -> mk8s_store::Entry {
        if let Some(original) = &self.original {
            return original.entry.clone();
        }
        mk8s_store::Entry {
            key: self.key.clone(),
            value: self.stored(),
            revision_at: self.revision_at as usize,
            create_revision: self.create_revision,
            mod_revision: self.revision,
        }
    }

    /// The value as the store has it.
    fn stored(&self) -> Bytes {
        if self.managed.is_empty() {
            return self.json.clone();
        }
        let mut value = self.json.to_vec();
        stored_form::append(&mut value, &self.managed);
        value.into()
    }

    /// Whether this is a text as it was sent to the store, where the revision was still to be put in.
    pub fn was_printed_as(&self, text: &[u8], managed: &Managed) -> bool {
        if self.managed != *managed {
            return false;
        }
        let (stored, at) = match &self.original {
            Some(original) => (&original.entry.value, original.entry.revision_at),
            None => (&self.json, self.revision_at as usize),
        };
        let stored = &stored[..stored_form::split(stored).0];
        let after = at + decimal_len(self.revision);
        at <= text.len() && stored.get(..at) == Some(&text[..at]) && stored.get(after..) == Some(&text[at..])
    }

    pub fn namespace(&self) -> &str {
        &self.key[usize::from(self.namespace.0)..usize::from(self.namespace.1)]
    }

    pub fn name(&self) -> &str {
        &self.key[usize::from(self.name_from)..]
    }

    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// The object as a tree, with its managers: as clients see it.
    pub fn whole(&self) -> Result<Value, Status> {
        let mut value = self.value()?;
        managers::put(&mut value, &self.managed);
        Ok(value)
    }

    /// The object as a tree, without its managers. Costs a parse: for writers and slow paths. What is stored is JSON unless
    /// it was damaged; nobody may go on with nothing in its place.
    pub fn value(&self) -> Result<Value, Status> {
        serde_json::from_slice(&self.json).map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, why: &dyn fmt::Display) -> Status {
        tracing::error!(key = %self.key, revision = self.revision, %why, "a stored object can't be read");
        Status::internal(format!("the stored object {} can't be read: {why}", self.key))
    }

    /// What selectors ask. A damaged object has no labels and no fields.
    pub fn selectable(&self) -> &Selectable {
        self.selectable
            .get_or_init(|| Selectable::of(&self.resource, &self.value().unwrap_or_default()))
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.selectable().label(key)
    }

    /// A selectable field by its label in field selectors.
    pub fn field(&self, label: &str) -> Option<&str> {
        match label {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => {
                let index = self.resource.index.iter().position(|own| own.label == label)?;
                self.selectable().fields.get(index).map(|field| &**field)
            }
        }
    }

    /// The text as it is sent, with a resourceVersion: a DELETED event shows another.
    pub fn json_at(&self, revision: u64) -> Bytes {
        if revision == self.revision && self.managed.is_empty() {
            return self.json.clone();
        }
        let mut text = Vec::with_capacity(self.sent_len());
        self.print_at(revision, &mut text);
        text.into()
    }

    /// Bytes of that text, about.
    pub fn sent_len(&self) -> usize {
        self.json.len() + self.managed.printed_len() + 32
    }

    /// Appends that text.
    pub fn print_at(&self, revision: u64, into: &mut Vec<u8>) {
        self.print_from(0, revision, into);
    }

    /// Appends it without its first fields, `{"apiVersion":…,"kind":…,`, which a list says for all of its items; false
    /// where it does not begin with those.
    pub fn print_item(&self, first: &[u8], into: &mut Vec<u8>) -> bool {
        let begins = self.json.starts_with(first);
        if begins {
            into.push(b'{');
            self.print_from(first.len(), self.revision, into);
        }
        begins
    }

    /// The text without managers, with a resourceVersion.
    fn bare_at(&self, revision: u64) -> Cow<'_, [u8]> {
        if revision == self.revision {
            return Cow::Borrowed(&self.json);
        }
        let mut text = Vec::with_capacity(self.json.len() + 20);
        self.print_bare(0, revision, &mut text);
        Cow::Owned(text)
    }

    fn print_from(&self, mut from: usize, revision: u64, into: &mut Vec<u8>) {
        let at = self.revision_at as usize;
        if !self.managed.is_empty()
            && let Some(field) = at.checked_sub(REVISION.len())
        {
            into.extend_from_slice(&self.json[from..field]);
            apply::print_field(&self.managed, into);
            from = field;
        }
        self.print_bare(from, revision, into);
    }

    fn print_bare(&self, from: usize, revision: u64, into: &mut Vec<u8>) {
        let at = self.revision_at as usize;
        if revision == self.revision {
            into.extend_from_slice(&self.json[from..]);
            return;
        }
        into.extend_from_slice(&self.json[from..at]);
        into.extend_from_slice(itoa::Buffer::new().format(revision).as_bytes());
        into.extend_from_slice(&self.json[at + decimal_len(self.revision)..]);
    }

    /// The object's metadata alone, in JSON as PartialObjectMetadata of that version: its text, found without a tree. That
    /// of every object of the cluster is sent to those who watch owners.
    pub fn partial_metadata(&self, revision: u64, api_version: &str) -> Result<Vec<u8>, Status> {
        let json = self.json_at(revision);
        let metadata = json::metadata(&json).ok_or_else(|| self.unreadable(&"it has no metadata"))?;
        let head = [
            br#"{"apiVersion":""#,
            api_version.as_bytes(),
            br#"","kind":"PartialObjectMetadata","metadata":"#,
        ];
        let mut text = Vec::with_capacity(80 + metadata.len());
        head.iter().for_each(|part| text.extend_from_slice(part));
        text.extend_from_slice(metadata.as_bytes());
        text.push(b'}');
        Ok(text)
    }

    /// The object in Kubernetes protobuf, in its stored version, framed as a list's item; made once.
    pub fn proto_item(&self) -> Result<&Bytes, Status> {
        let made = self.proto.get_or_init(|| {
            let item = self.encode(|schema| protobuf::item_from_json(schema, &self.json, &self.managed));
            item.map(Bytes::from).map_err(Box::new)
        });
        made.as_ref().map_err(|status| Status::clone(status))
    }

    /// Its message alone, with another resourceVersion.
    pub fn proto_at(&self, revision: u64) -> Result<Vec<u8>, Status> {
        self.encode(|schema| protobuf::raw_from_json(schema, &self.bare_at(revision), &self.managed))
    }

    fn encode(&self, encode: impl FnOnce(&Schema) -> Result<Vec<u8>, ProtobufError>) -> Result<Vec<u8>, Status> {
        let kind = &self.resource.kind;
        match schema::by_api_version(&self.resource.api_version(), kind) {
            Some(schema) => encode(schema).map_err(|error| self.unreadable(&error)),
            None => Err(Status::not_acceptable(format!("{kind} has no protobuf form"))),
        }
    }

    fn original_len(&self) -> usize {
        self.original.as_ref().map_or(0, |original| original.entry.value.len())
    }

    /// Approximate bytes held by now: with the protobuf form where somebody asked for one, and as if nobody else had its managers.
    pub fn weight(&self) -> usize {
        let proto = self.proto.get().and_then(|made| made.as_ref().ok());
        self.json.len() + self.managed.printed_len() + self.original_len() + 256 + proto.map_or(0, Bytes::len)
    }

    /// Approximate bytes that it may come to hold: the protobuf form is hardly longer than the text that is sent.
    pub fn most(&self) -> usize {
        self.json.len() + self.managed.printed_len() + self.original_len() + self.sent_len() + 256
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}

/// What the request's task knows of an object that it writes.
pub(crate) struct Noted {
    /// What the writer took the resource for.
    pub resource: Arc<Resource>,
    pub selectable: Selectable,
    pub managed: Managed,
    /// As it is read, where that is another text than what is stored: at a revision that is over by then.
    pub read: Option<Box<Object>>,
}

/// What the store has of an object that is read as another text.
struct Original {
    entry: mk8s_store::Entry,
    /// There was no room for all that is to be read of it.
    is_cut: bool,
}

/// A text that is shorter can be stored, with its managers.
const ROOM: usize = mk8s_store::MAX_VALUE - (512 << 10);

/// What stands before the revision's digits: managers are put in before it.
const REVISION: &str = r#""resourceVersion":""#;

/// A stored value's text and managers. The text is a value of its own: behind it stands what other objects have too.
fn parts(key: &str, value: Bytes, managed: Option<Managed>) -> (Bytes, Managed) {
    let (text, list) = stored_form::split(&value);
    if list.is_empty() {
        return (value, Managed::default());
    }
    let managed = managed.unwrap_or_else(|| {
        Managed::parse(&value[list]).unwrap_or_else(|error| {
            tracing::error!(key, %error, "a stored object's managers can't be read");
            Managed::default()
        })
    });
    (Bytes::copy_from_slice(&value[..text]), managed)
}

/// Whether a text is one of a version, which each begins with.
fn is_in(text: &[u8], api_version: &str) -> bool {
    text.starts_with(format!("{{\"apiVersion\":\"{api_version}\",").as_bytes())
}

fn decimal_len(number: u64) -> usize {
    itoa::Buffer::new().format(number).len()
}

/// `/registry/core/pods/ns/name` → the namespace's range and where the name starts.
fn split_key(key: &str, scope: mk8s_api::registry::Scope) -> ((u16, u16), u16) {
    let narrow = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
    let mut slashes = memchr::memchr_iter(b'/', key.as_bytes()).skip(3);
    let first = slashes.next().map_or(key.len(), |at| at + 1);
    if scope == mk8s_api::registry::Scope::Cluster {
        return ((narrow(first), narrow(first)), narrow(first));
    }
    let second = slashes.next().map_or(first, |at| at + 1);
    (
        (narrow(first), narrow(second.saturating_sub(1).max(first))),
        narrow(second),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mk8s_api::registry::Scope;

    /// Rings and pins are bounded by what their objects weigh.
    #[test]
    fn managers_are_weighed_however_they_are_kept() {
        let resource = mk8s_api::registry::find("", "v1", "pods").cloned();
        let fields = serde_json::json!({format!("f:{}", "k".repeat(2 << 20)): {}});
        let managers = serde_json::json!([{"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields, "operation": "Update"}]);
        let text = br#"{"metadata":{"resourceVersion":"7"}}"#;
        let mut value = text.to_vec();
        stored_form::append(&mut value, &Managed::from_value(&managers).expect("managers"));
        let stored = mk8s_store::Entry {
            key: "/registry/core/pods/a/b".into(),
            value: value.into(),
            revision_at: text.len() - 4,
            create_revision: 7,
            mod_revision: 7,
        };
        let object = Object::new(resource.expect("a row"), stored, None);
        assert!(!object.managed.is_empty());
        assert!(
            object.weight() > 2 << 20 && object.most() > 4 << 20,
            "{}",
            object.weight()
        );
    }

    /// A text is stored with its managers: where both do not fit, it is left as it is.
    #[test]
    fn there_is_room_for_a_text_with_its_managers() {
        let resource = mk8s_api::registry::find("", "v1", "configmaps").expect("a row");
        let owned = |size: usize| {
            let fields = serde_json::json!({format!("f:{}", "k".repeat(size)): {}});
            let managers = serde_json::json!([{"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields, "operation": "Update"}]);
            Managed::from_value(&managers).expect("managers")
        };
        let long = "x".repeat(ROOM - (1 << 20));
        let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": long}});
        for (managers, has_room) in [(512 << 10, true), (2 << 20, false)] {
            let made = crate::write::object_at(resource.clone(), "/registry/core/configmaps/a/a".into(), &map, 7, 7);
            let mut object = made.expect("an object");
            object.managed = owned(managers);
            let stored = Object::new(resource.clone(), object.entry(), None);
            assert_eq!(object.read_from(&stored, false).is_longer_than_stored(), !has_room);
        }
    }

    #[test]
    fn metadata_alone_has_the_revision_asked_for() {
        let resource = mk8s_api::registry::builtin()
            .iter()
            .find(|row| row.plural == "pods")
            .cloned();
        let json =
            br#"{"kind":"Pod","metadata":{"labels":{"metadata":"}"},"resourceVersion":"7"},"spec":{"metadata":{}}}"#;
        let stored = mk8s_store::Entry {
            key: "/registry/core/pods/a/b".into(),
            value: Bytes::from_static(json),
            revision_at: json.windows(3).position(|three| three == br#""7""#).expect("digits") + 1,
            create_revision: 7,
            mod_revision: 7,
        };
        let object = Object::new(resource.expect("a row"), stored, None);
        for revision in [7, 11] {
            let text = object.partial_metadata(revision, "meta.k8s.io/v1").expect("JSON");
            let expected = serde_json::json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"labels": {"metadata": "}"}, "resourceVersion": revision.to_string()}});
            assert_eq!(serde_json::from_slice::<Value>(&text).expect("JSON"), expected);
        }
        let before = object.weight();
        let proto = object.proto_item().expect("protobuf");
        assert_eq!(object.weight(), before + proto.len());
        assert!(object.weight() <= object.most());
    }

    #[test]
    fn keys_split() {
        let key = "/registry/core/pods/ns/name";
        let ((from, to), name) = split_key(key, Scope::Namespaced);
        assert_eq!(&key[from as usize..to as usize], "ns");
        assert_eq!(&key[name as usize..], "name");
        let key = "/registry/core/nodes/n1";
        let ((from, to), name) = split_key(key, Scope::Cluster);
        assert_eq!((from, to), (name, name));
        assert_eq!(&key[name as usize..], "n1");
    }
}
