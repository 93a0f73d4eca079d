//! What authentication, authorization and admission read of the cluster: the watch cache behind a small trait, so that
//! these parts are pure functions over JSON bytes and can be tested on a map.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::Value;

/// Reads that never touch the disk and never wait.
pub trait Lookup: Send + Sync + 'static {
    /// The object's JSON. `namespace` is empty for cluster-scoped resources.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes>;
    /// Every object of a resource, of one namespace or (empty) of all.
    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Bytes>;
    /// The revision of the last change of any object of the resource; 0 before the first.
    fn revision(&self, group: &str, plural: &str) -> u64;
    /// The pods of one namespace (or, empty, of all) whose `spec.nodeName` is `node`.
    fn pods_on_node(&self, namespace: &str, node: &str) -> Vec<Bytes>;

    /// The object as a tree.
    fn value(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        serde_json::from_slice(&self.get(group, plural, namespace, name)?).ok()
    }
}

/// (group, plural) → (namespace, name) → JSON.
type Tables = HashMap<(String, String), BTreeMap<(String, String), Bytes>>;

/// A cluster in a map: what the tables of tests run against.
#[derive(Default)]
pub struct MapLookup {
    tables: RwLock<(u64, Tables, HashMap<(String, String), u64>)>,
}

impl MapLookup {
    pub fn put(&self, group: &str, plural: &str, object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_string();
        let key = (group.to_string(), plural.to_string());
        let mut guard = self.tables.write();
        let (revision, tables, changed) = &mut *guard;
        *revision += 1;
        changed.insert(key.clone(), *revision);
        let bytes = Bytes::from(object.to_string());
        tables
            .entry(key)
            .or_default()
            .insert((text("namespace"), text("name")), bytes);
    }

    pub fn remove(&self, group: &str, plural: &str, namespace: &str, name: &str) {
        let key = (group.to_string(), plural.to_string());
        let mut guard = self.tables.write();
        let (revision, tables, changed) = &mut *guard;
        *revision += 1;
        changed.insert(key.clone(), *revision);
        if let Some(table) = tables.get_mut(&key) {
            table.remove(&(namespace.to_string(), name.to_string()));
        }
    }
}

impl Lookup for MapLookup {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let guard = self.tables.read();
        let table = guard.1.get(&(group.to_string(), plural.to_string()))?;
        table.get(&(namespace.to_string(), name.to_string())).cloned()
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Bytes> {
        let guard = self.tables.read();
        let Some(table) = guard.1.get(&(group.to_string(), plural.to_string())) else {
            return Vec::new();
        };
        let wanted = table
            .iter()
            .filter(|((ns, _), _)| namespace.is_empty() || ns == namespace);
        wanted.map(|(_, bytes)| bytes.clone()).collect()
    }

    fn revision(&self, group: &str, plural: &str) -> u64 {
        let guard = self.tables.read();
        guard
            .2
            .get(&(group.to_string(), plural.to_string()))
            .copied()
            .unwrap_or(0)
    }

    fn pods_on_node(&self, namespace: &str, node: &str) -> Vec<Bytes> {
        let on_node = |bytes: &Bytes| {
            serde_json::from_slice::<Value>(bytes).is_ok_and(|pod| pod["spec"]["nodeName"].as_str() == Some(node))
        };
        self.list("", "pods", namespace).into_iter().filter(on_node).collect()
    }
}

/// The watch cache itself.
impl Lookup for crate::watch_cache::Cache {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes> {
        self.resource(group, plural)?
            .get(namespace, name)
            .map(|object| object.json.clone())
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Bytes> {
        let resource = self.resource(group, plural);
        resource.map_or_else(Vec::new, |cache| {
            cache.list(namespace).iter().map(|object| object.json.clone()).collect()
        })
    }

    fn revision(&self, group: &str, plural: &str) -> u64 {
        self.resource(group, plural).map_or(0, |cache| cache.revision())
    }

    fn pods_on_node(&self, namespace: &str, node: &str) -> Vec<Bytes> {
        let Some(pods) = self.resource("", "pods") else {
            return Vec::new();
        };
        let on_node = pods.list_indexed(namespace, node).unwrap_or_default().0;
        on_node.iter().map(|pod| pod.json.clone()).collect()
    }
}
