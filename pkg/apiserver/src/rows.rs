//! The registry's rows as the handlers look them up: by group, version and plural, each with its part of the cache.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use mk8s_api::meta;
use mk8s_api::registry::{self, Resource, Support};
use mk8s_api::schema::{self, TypeRef};
use mk8s_api::validation::{self, Errors};
use serde_json::Value;

use crate::metrics::Requests;
use crate::watch_cache::{Cache, ResourceCache};

/// One served version of a resource.
pub struct Row {
    pub resource: Arc<Resource>,
    /// `v1`
    pub version: String,
    /// `apps/v1`
    pub api_version: String,
    pub schema: Option<TypeRef>,
    /// How many requests it answered.
    pub requests: Requests,
    /// None for virtual resources.
    pub cache: Option<Arc<ResourceCache>>,
    /// What stored objects say of themselves; differs from `api_version` where the row is another view of them.
    pub stored_api_version: String,
}

impl Row {
    /// `pods`, `deployments.apps`
    pub fn group(&self) -> &str {
        &self.resource.group
    }

    pub fn plural(&self) -> &str {
        &self.resource.plural
    }

    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// Whether stored bytes can be sent as they are.
    pub fn shows_stored(&self) -> bool {
        self.api_version == self.stored_api_version
    }

    /// Whether metadata is the same in this row's view: a conversion may keep fields in annotations.
    pub fn shows_stored_metadata(&self) -> bool {
        self.resource.convert.is_none()
    }

    /// A stored object as this row shows it.
    pub fn show(&self, mut stored: Value) -> Value {
        if let Some(convert) = &self.resource.convert {
            (convert.from_stored)(&mut stored);
        }
        if !self.shows_stored() {
            meta::set(&mut stored, &["apiVersion"], self.api_version.as_str());
        }
        stored
    }

    /// The other way.
    pub fn to_stored(&self, shown: &mut Value) {
        if let Some(convert) = &self.resource.convert {
            // What a version leaves unsaid is its own matter; what the stored one adds comes after.
            (self.resource.hooks.default)(shown);
            (convert.to_stored)(shown);
        }
        if !self.shows_stored() {
            meta::set(shown, &["apiVersion"], self.stored_api_version.as_str());
        }
    }

    /// What is wrong with a stored form, in the words and fields of this row's version.
    pub fn check_create(&self, object: &Value) -> Errors {
        validation::create(&self.resource, &self.view(object))
    }

    /// What is wrong with a change of the main resource.
    pub fn check_update(&self, new: &Value, old: &Value) -> Errors {
        validation::update(&self.resource, &self.view(new), &self.view(old))
    }

    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let old = old.map(|old| self.view(old));
        validation::warnings(&self.resource, &self.view(new), old.as_deref())
    }

    /// Hooks see objects in their row's form.
    fn view<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        match self.resource.convert {
            None => Cow::Borrowed(stored),
            Some(_) => Cow::Owned(self.show(stored.clone())),
        }
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
    pub fn new(resources: &[Arc<Resource>], cache: &Cache) -> Rows {
        let mut rows = Rows {
            groups: HashMap::new(),
            all: Vec::new(),
        };
        for resource in resources {
            for version in resource.versions.iter().filter(|version| version.served) {
                rows.add(resource, &version.name, cache);
            }
        }
        rows
    }

    fn add(&mut self, resource: &Arc<Resource>, version: &str, cache: &Cache) {
        let (group, plural) = match resource.stored_as {
            Some((group, plural)) => (group, plural),
            None => (&*resource.group, &*resource.plural),
        };
        let api_version = meta::join_api_version(&resource.group, version);
        let stored = registry::stored_row(resource).unwrap_or(resource);
        let row = Arc::new(Row {
            resource: resource.clone(),
            version: version.to_string(),
            api_version,
            requests: Requests::default(),
            stored_api_version: stored.api_version(),
            schema: schema::by_gvk(&resource.group, version, &resource.kind),
            cache: (resource.support != Support::Virtual)
                .then(|| cache.resource(group, plural).cloned())
                .flatten(),
        });
        self.all.push(row.clone());
        self.groups
            .entry(resource.group.to_string())
            .or_default()
            .entry(resource.plural.to_string())
            .or_default()
            .push(row);
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        let versions = self.groups.get(group)?.get(plural)?;
        versions.iter().find(|row| row.version == version)
    }

    /// In any version.
    pub fn any(&self, group: &str, plural: &str) -> Option<&Arc<Row>> {
        self.groups.get(group)?.get(plural)?.first()
    }

    /// In the registry's order.
    pub fn all(&self) -> &[Arc<Row>] {
        &self.all
    }
}
