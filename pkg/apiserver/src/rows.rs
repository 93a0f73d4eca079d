//! The registry's rows as the handlers look them up: by group, version and plural, each with its part of the cache.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mk8s_api::registry::custom::Webhook;
use mk8s_api::registry::{self, Resource, Served, Subresource, Support};
use mk8s_api::schema::{self, Schema};
use mk8s_api::status::FieldError;
use mk8s_api::table::Printed;
use mk8s_api::validation::{self, Errors};
use serde_json::Value;

use crate::managers;
use crate::metrics::Requests;
use crate::watch_cache::{Cache, ResourceCache};

/// One served version of a resource.
pub struct Row {
    pub resource: Arc<Resource>,
    /// Which of the resource's versions it is.
    at: usize,
    /// `apps/v1`
    pub api_version: String,
    pub schema: Option<Schema>,
    /// How many requests it answered.
    pub requests: Requests,
    /// An object of this version without a field.
    empty: OnceLock<Option<Value>>,
    /// None for virtual resources.
    pub cache: Option<Arc<ResourceCache>>,
}

impl Row {
    fn new(resource: &Arc<Resource>, at: usize, cache: &Cache) -> Row {
        let served = &resource.versions[at];
        let stores = resource.support != Support::Virtual;
        let stored = stores.then(|| cache.resource(&resource.group, &resource.plural));
        Row {
            resource: resource.clone(),
            at,
            api_version: served.api_version(),
            schema: schema::by_gvk(&served.group, &served.name, &resource.kind).cloned(),
            requests: Requests::default(),
            empty: OnceLock::new(),
            cache: stored.flatten(),
        }
    }

    pub fn served(&self) -> &Served {
        &self.resource.versions[self.at]
    }

    /// An object of this version without a field: what its type has from the start.
    pub fn empty(&self) -> Option<&Value> {
        let empty = self
            .empty
            .get_or_init(|| managers::empty(&self.resource, self.served()));
        empty.as_ref()
    }

    /// The version by which a write of this row is filled in and checked: a built-in kind's stored one; of a custom kind, which
    /// no version is the internal form of, the request's.
    pub fn working(&self) -> &Served {
        match self.served().custom {
            Some(_) => self.served(),
            None => self.resource.stored(),
        }
    }

    /// The group that requests name.
    pub fn group(&self) -> &str {
        &self.served().group
    }

    /// `v1`
    pub fn version(&self) -> &str {
        &self.served().name
    }

    pub fn plural(&self) -> &str {
        &self.resource.plural
    }

    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// By which bodies are decoded: a custom kind's by what every object has, and by its own schema afterwards (`admit`).
    pub fn form(&self) -> Option<&Schema> {
        match self.served().custom {
            Some(_) => Some(schema::custom()),
            None => self.schema.as_ref(),
        }
    }

    /// Takes what the schema of a custom kind lacks out of an object that was decoded: the problems that strict decoding
    /// has with it.
    ///
    /// # Errors
    /// Metadata of an object in it is malformed.
    pub fn admit(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        let Some(custom) = &self.served().custom else {
            return Ok(Vec::new());
        };
        let pruned = custom.admit(object)?;
        Ok(pruned
            .into_iter()
            .map(|path| format!("unknown field {path:?}"))
            .collect())
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.served().subresource(name)
    }

    /// The webhook that makes this version's form of what is stored, and the other way. What handlers of such a row are given
    /// was converted before (`crd::conversion`): to them it is what is stored.
    pub fn webhook(&self) -> Option<&Webhook> {
        self.resource.webhook.as_ref()
    }

    /// What every request to it, or to a subresource, is warned of.
    pub fn deprecated(&self, subresource: &str) -> Option<&str> {
        let own = self.subresource(subresource).and_then(|own| own.deprecated.as_ref());
        own.or(self.served().deprecated.as_ref()).map(|warning| &**warning)
    }

    /// Whether stored bytes can be sent as they are.
    pub fn shows_stored(&self) -> bool {
        self.at == self.resource.storage || self.webhook().is_some()
    }

    /// A stored object as this row shows it.
    pub fn show(&self, mut stored: Value) -> Value {
        if self.webhook().is_some() {
            return stored;
        }
        self.served().from_stored(self.resource.stored(), &mut stored);
        stored
    }

    /// The other way.
    pub fn to_stored(&self, shown: &mut Value) {
        if self.webhook().is_some() {
            return;
        }
        self.served().to_stored(self.resource.stored(), shown);
    }

    /// A stored object on its way into a table: `shown` is what `show` makes of it.
    pub fn printed<'a>(&'a self, stored: &'a Value, shown: &'a Value) -> Printed<'a> {
        Printed {
            resource: &self.resource,
            served: self.served(),
            cells_of: stored,
            shown,
        }
    }

    /// What is wrong with a new object, in stored form.
    pub fn check_create(&self, object: &Value) -> Errors {
        validation::create(&self.resource, self.served(), object)
    }

    /// What is wrong with a change of the main resource.
    pub fn check_update(&self, new: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
        validation::update(&self.resource, self.served(), new, old, warnings)
    }

    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        validation::warnings(&self.resource, new, old)
    }

    /// Whether the cache is another resource's by now, or nobody's: another registry is about to be in place.
    pub fn is_past(&self) -> bool {
        let cache = self.cache.as_ref().filter(|_| self.served().custom.is_some());
        cache.is_some_and(|cache| !cache.is_of(&self.resource))
    }

    pub fn is_virtual(&self) -> bool {
        self.cache.is_none()
    }
}

/// group → plural → versions
pub struct Rows {
    groups: HashMap<String, HashMap<String, Vec<Arc<Row>>>>,
    all: Vec<Arc<Row>>,
}

impl Rows {
    /// The rows of some resources; one that `before` has is the same.
    pub fn new(resources: &[Arc<Resource>], cache: &Cache, before: Option<&Rows>) -> Rows {
        let mut rows = Rows {
            groups: HashMap::new(),
            all: Vec::with_capacity(resources.len()),
        };
        for (resource, at) in registry::in_order(resources) {
            let served = &resource.versions[at];
            let known = before.and_then(|before| before.get(&served.group, &served.name, &resource.plural));
            let known = known.filter(|row| Arc::ptr_eq(&row.resource, resource) && row.at == at);
            let row = known.cloned();
            let row = row.unwrap_or_else(|| Arc::new(Row::new(resource, at, cache)));
            rows.all.push(row.clone());
            let group = rows.groups.entry(row.group().to_string()).or_default();
            group.entry(row.plural().to_string()).or_default().push(row);
        }
        rows
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        let versions = self.groups.get(group)?.get(plural)?;
        versions.iter().find(|row| row.version() == version)
    }

    /// In any version.
    pub fn any(&self, group: &str, plural: &str) -> Option<&Arc<Row>> {
        self.groups.get(group)?.get(plural)?.first()
    }

    /// Whether a group has kinds that are built in.
    pub fn has_own(&self, group: &str) -> bool {
        let rows = self.groups.get(group).into_iter().flat_map(HashMap::values).flatten();
        rows.into_iter().any(|row| row.schema.is_some())
    }

    /// In discovery's order.
    pub fn all(&self) -> &[Arc<Row>] {
        &self.all
    }
}
