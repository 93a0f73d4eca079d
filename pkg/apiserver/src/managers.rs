//! Who owns what of an object that a request writes: the call's side of `mk8s_api::apply`. A tree that is worked on never
//! holds `metadata.managedFields`; they go beside it, from the object that was found to the one that is printed.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::HeaderMap;
use http::header::USER_AGENT;
use mk8s_api::apply::{self, Element, Managed, Node, Operation, Owner, Set, Time, Versions, Writer};
use mk8s_api::registry::{Resource, Served};
use mk8s_api::schema::{self, Schema};
use mk8s_api::validation::MAX_MANAGER;
use mk8s_api::{meta, time};
use serde_json::Value;

use crate::call::Call;
use crate::crd::conversion::Forms;
use crate::guaranteed_update::Current;
use crate::request::Query;
use crate::rows::Row;

/// What the server's own writes are by, as upstream's call themselves.
const SERVER: &str = "kube-apiserver";

/// Who a request's fields will be owned by: as it says, else as its client calls itself.
pub fn name(query: &Query, headers: &HeaderMap) -> String {
    if let Some(name) = query.text("fieldManager") {
        return name.to_string();
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default().split('/').next().unwrap_or_default();
    let printable: String = agent.chars().filter(|letter| !letter.is_control()).collect();
    match &printable[..printable.floor_char_boundary(MAX_MANAGER)] {
        "" => "unknown".into(),
        name => name.into(),
    }
}

/// Now, to the second.
pub fn now() -> Time {
    let text = time::rfc3339(jiff::Timestamp::now());
    text.as_bytes().try_into().unwrap_or(*b"1970-01-01T00:00:00Z")
}

/// Takes what a tree says of managers out of it.
pub fn take(object: &mut Value) -> Option<Value> {
    match object.get_mut("metadata") {
        Some(Value::Object(metadata)) => metadata.remove("managedFields"),
        _ => None,
    }
}

/// Puts managers into a tree that is shown.
pub fn put(object: &mut Value, managed: &Managed) {
    if !managed.is_empty() {
        meta::metadata_mut(object).insert("managedFields".into(), managed.to_value());
    }
}

/// The managers that a write starts from: the object's own, unless the request names others, who may own nothing. None
/// where there are none, or none are wanted.
fn starting_from(own: &Managed, sent: Option<&Value>, versions: &dyn Versions) -> Option<Managed> {
    let known = |managed: &Managed| Some(managed.clone()).filter(|managed| !managed.is_empty());
    let Some(sent) = sent else { return known(own) };
    if apply::is_reset(sent) {
        return None;
    }
    // Clients that do not understand them do not take them away.
    match Managed::from_value(sent) {
        Ok(sent) => Some(apply::fit(&sent, versions)),
        Err(_) => known(own),
    }
}

/// The managers of an object that is created. `object` is in stored form, with its defaults.
pub fn created(call: &Call, object: &Value, sent: Option<&Value>) -> Managed {
    // Versions that a client names of an object that was never there are as good as this one.
    let versions = Resourceful {
        forms: None,
        ..Resourceful::of(call)
    };
    let before = starting_from(&Managed::NOBODY, sent, &versions).unwrap_or_default();
    if !may_be_of(&call.row, &before) {
        return Managed::NOBODY;
    }
    let writer = writer(call, &call.row.api_version, Operation::Update);
    let shown = view(&call.row, object);
    let Some(empty) = call.row.empty() else {
        return before;
    };
    record(&before, empty, &shown, &writer, &versions)
}

/// Whether managers can be those of a row's objects: upstream can't compare a custom object in versions that it never had, nor
/// any in what is no version, and knows no managers then. Others are left out one by one.
fn may_be_of(row: &Row, managed: &Managed) -> bool {
    let mut versions = managed.entries().iter().map(|entry| &*entry.owner().api_version);
    let is_custom = row.served().custom.is_some();
    let known = |version: &str| row.resource.versions.iter().any(|own| own.api_version() == version);
    versions.all(|version| version.matches('/').count() < 2 && (!is_custom || known(version)))
}

/// The managers of an object that is changed; both states are in stored form. Where a webhook has no answer they stay as they
/// were: no write fails for them.
pub async fn changed(call: &Call, current: &Current, new: &Value, sent: Option<&Value>) -> Managed {
    loop {
        let managed = changed_as_known(call, current, new, sent);
        match call.forms.ask(call).await {
            Ok(true) => {}
            Ok(false) => return managed,
            Err(status) => {
                tracing::warn!(
                    error = status.message,
                    "who owns what of an object is not known in all versions"
                );
                return current.managed().clone();
            }
        }
    }
}

fn changed_as_known(call: &Call, current: &Current, new: &Value, sent: Option<&Value>) -> Managed {
    let own = current.managed();
    // Through a subresource nobody edits them.
    let sent = sent.filter(|_| call.info.subresource.is_empty());
    let Some(before) = starting_from(own, sent, &Resourceful::of(call)) else {
        // What nobody was said to own so far belongs to nobody until it is applied.
        return Managed::NOBODY;
    };
    let writer = writer(call, &call.row.api_version, Operation::Update);
    let (old, new) = (view(&call.row, &current.value), view(&call.row, new));
    record(&before, &old, &new, &writer, &Resourceful::of(call))
}

/// The managers of an object that the cluster begins with.
pub fn begun(resource: &Resource, object: &Value) -> Managed {
    match empty(resource, resource.stored()) {
        Some(empty) => by_server(resource, &Managed::default(), &empty, object, ""),
        None => Managed::default(),
    }
}

/// The managers of an object whose status the server itself writes.
pub fn kept_by_server(resource: &Resource, current: &Current, new: &Value, subresource: &str) -> Managed {
    match current.managed() {
        none if none.is_empty() => Managed::default(),
        before => by_server(resource, before, &current.value, new, subresource),
    }
}

fn by_server(resource: &Resource, before: &Managed, old: &Value, new: &Value, subresource: &str) -> Managed {
    let writer = Writer {
        owner: Owner {
            manager: SERVER.into(),
            operation: Operation::Update,
            api_version: resource.api_version().into(),
            subresource: subresource.into(),
        },
        now: now(),
    };
    let versions = Resourceful {
        resource,
        ignored: resource.unowned(subresource),
        forms: None,
    };
    record(before, old, new, &writer, &versions)
}

fn record(before: &Managed, old: &Value, new: &Value, writer: &Writer, versions: &dyn Versions) -> Managed {
    match apply::update(before, old, new, writer, versions) {
        Ok(managed) => managed,
        // Nobody owns what has no identity; validation is going to refuse it.
        Err(error) => {
            tracing::debug!(%error, "managers of an object are not known");
            Managed::default()
        }
    }
}

/// Who writes by a call, in a version.
pub fn writer(call: &Call, api_version: &str, operation: Operation) -> Writer {
    Writer {
        owner: Owner {
            manager: name(&call.query, &call.headers).into(),
            operation,
            api_version: api_version.into(),
            subresource: call.info.subresource.as_str().into(),
        },
        now: now(),
    }
}

/// A stored tree as the row shows it.
pub fn view<'a>(row: &Row, stored: &'a Value) -> Cow<'a, Value> {
    match row.shows_stored() {
        true => Cow::Borrowed(stored),
        false => Cow::Owned(row.show(stored.clone())),
    }
}

/// An object of a version without a field: what its type has from the start.
pub fn empty(resource: &Resource, served: &Served) -> Option<Value> {
    use mk8s_api::codec::{Validation, conform};
    let own = serde_json::json!({"apiVersion": served.api_version(), "kind": resource.kind});
    conform(own, schema(resource, served), Validation::Ignore)
        .ok()
        .map(|decoded| decoded.value)
}

/// What a version's objects are; of custom ones without a schema metadata alone is known.
fn schema<'a>(resource: &Resource, served: &'a Served) -> &'a Schema {
    served.schema(&resource.kind).unwrap_or_else(|| schema::custom())
}

/// Scales, of whichever version.
pub struct Scales;

impl Versions for Scales {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        schema::by_api_version(api_version, "Scale").map(|schema| Node::root(schema))
    }

    fn convert<'a>(&self, object: &'a Value, _: &str) -> Option<Cow<'a, Value>> {
        Some(Cow::Borrowed(object))
    }

    fn ignored(&self, _: &str) -> &Set {
        static NONE: LazyLock<Set> = LazyLock::new(Set::default);
        &NONE
    }
}

/// The managers of an object's Scale.
pub fn of_scale(call: &Call, scale_version: &str, object: &Managed) -> Managed {
    apply::to_scale(object, scale_version, &|api_version| replicas(call, api_version))
}

/// The managers of an object whose Scale has these by now.
pub fn from_scale(call: &Call, object: &Managed, scale: &Managed) -> Managed {
    let path = |api_version: &str| replicas(call, api_version);
    apply::from_scale(object, scale, &call.row.api_version, &path)
}

/// Where a version of the call's kind has its replicas.
fn replicas(call: &Call, api_version: &str) -> Option<Set> {
    let served = Resourceful::of(call).served(api_version)?;
    let mut set = Set::default();
    if let Some(scale) = &served.scale {
        set.insert(scale.spec_replicas.iter().map(|name| Element::field(name)));
    }
    Some(set)
}

/// The managers of a Scale that is changed.
pub fn scaled(call: &Call, scale_version: &str, before: &Managed, old: &Value, new: &Value) -> Managed {
    if before.is_empty() {
        return Managed::default();
    }
    let writer = writer(call, scale_version, Operation::Update);
    record(before, old, new, &writer, &Scales)
}

/// The versions of a resource, to whoever compares objects in them.
pub struct Resourceful<'a> {
    resource: &'a Resource,
    ignored: &'static Set,
    /// What a webhook makes of objects; without, they differ in what they say they are alone.
    forms: Option<&'a Forms>,
}

impl<'a> Resourceful<'a> {
    pub fn of(call: &'a Call) -> Resourceful<'a> {
        Resourceful {
            resource: &call.row.resource,
            ignored: call.row.resource.unowned(&call.info.subresource),
            forms: call.row.webhook().map(|_| &call.forms),
        }
    }

    fn served(&self, api_version: &str) -> Option<&'a Served> {
        let (group, version) = meta::split_api_version(api_version);
        let mut versions = self.resource.versions.iter();
        versions.find(|served| served.name == version && served.group == group)
    }
}

impl Versions for Resourceful<'_> {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        let served = self.served(api_version)?;
        Some(Node::root(schema(self.resource, served)))
    }

    fn convert<'a>(&self, object: &'a Value, api_version: &str) -> Option<Cow<'a, Value>> {
        let own = meta::api_version(object);
        if own == api_version {
            return Some(Cow::Borrowed(object));
        }
        if let Some(forms) = self.forms {
            return forms.find(object, api_version).map(Cow::Owned);
        }
        let (from, to) = (self.served(own)?, self.served(api_version)?);
        let mut object = object.clone();
        from.to_stored(self.resource.stored(), &mut object);
        to.from_stored(self.resource.stored(), &mut object);
        Some(Cow::Owned(object))
    }

    fn ignored(&self, _: &str) -> &Set {
        self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_called_as_they_call_themselves() {
        let of = |query: &str, agent: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(agent) = agent {
                headers.insert(USER_AGENT, agent.parse().expect("a header"));
            }
            name(&Query::parse(Some(query)), &headers)
        };
        assert_eq!(of("", Some("kubectl/v1.35.4 (linux/amd64) kubernetes/0")), "kubectl");
        assert_eq!(of("fieldManager=me", Some("kubectl/v1.35.4")), "me");
        assert_eq!(of("fieldManager=", Some("curl")), "curl");
        assert_eq!(of("", None), "unknown");
        assert_eq!(of("", Some("/x")), "unknown");
        assert_eq!(of("", Some(&"a".repeat(200))).len(), MAX_MANAGER);
    }
}
