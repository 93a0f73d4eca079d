//! What authentication, authorization and admission read of the cluster: the watch cache behind a small trait, so that
//! these parts are pure functions over JSON bytes and can be tested on a map.

use bytes::Bytes;
use serde_json::Value;

/// An object as a read finds it.
#[derive(Clone, Debug)]
pub struct Found {
    pub json: Bytes,
    /// The store's at the object's last change: another one means another text.
    pub revision: u64,
}

/// Reads that never touch the disk and never wait.
pub trait Lookup: Send + Sync + 'static {
    /// An object. `namespace` is empty for cluster-scoped resources.
    fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Found>;
    /// Every object of a resource, of one namespace or (empty) of all.
    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Bytes>;
    /// The revision of the last change of any object of the resource; 0 before the first.
    fn revision(&self, group: &str, plural: &str) -> u64;
    /// Another number after each change of any object of a group.
    fn changes(&self, group: &str) -> u64;
    /// The pods of one namespace (or, empty, of all) whose `spec.nodeName` is `node`.
    fn pods_on_node(&self, namespace: &str, node: &str) -> Vec<Bytes>;

    /// The object's JSON.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes> {
        self.find(group, plural, namespace, name).map(|found| found.json)
    }

    /// The object as a tree.
    fn value(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        serde_json::from_slice(&self.get(group, plural, namespace, name)?).ok()
    }
}

/// The watch cache itself.
impl Lookup for crate::watch_cache::Cache {
    fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Found> {
        let object = self.resource(group, plural)?.get(namespace, name)?;
        Some(Found {
            json: object.json.clone(),
            revision: object.revision,
        })
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

    fn changes(&self, group: &str) -> u64 {
        crate::watch_cache::Cache::changes(self, group)
    }

    fn pods_on_node(&self, namespace: &str, node: &str) -> Vec<Bytes> {
        let Some(pods) = self.resource("", "pods") else {
            return Vec::new();
        };
        let on_node = pods.list_indexed(namespace, node).unwrap_or_default().0;
        on_node.iter().map(|pod| pod.json.clone()).collect()
    }
}

/// A cluster in a map: what the tables of tests run against.
#[cfg(test)]
pub(crate) use map::MapLookup;

#[cfg(test)]
mod map {
    use std::collections::{BTreeMap, HashMap};

    use bytes::Bytes;
    use parking_lot::RwLock;
    use serde_json::Value;

    use super::{Found, Lookup};

    #[derive(Default)]
    struct Table {
        revision: u64,
        /// (namespace, name) → object
        objects: BTreeMap<(String, String), Found>,
    }

    #[derive(Default)]
    struct State {
        revision: u64,
        tables: HashMap<(String, String), Table>,
    }

    #[derive(Default)]
    pub struct MapLookup(RwLock<State>);

    impl MapLookup {
        fn change(&self, group: &str, plural: &str, change: impl FnOnce(&mut Table)) {
            let mut state = self.0.write();
            state.revision += 1;
            let revision = state.revision;
            let table = state.tables.entry((group.to_string(), plural.to_string())).or_default();
            table.revision = revision;
            change(table);
        }

        pub fn put(&self, group: &str, plural: &str, object: &Value) {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_string();
            let key = (text("namespace"), text("name"));
            self.change(group, plural, |table| {
                let found = Found {
                    json: Bytes::from(object.to_string()),
                    revision: table.revision,
                };
                table.objects.insert(key, found);
            });
        }

        pub fn remove(&self, group: &str, plural: &str, namespace: &str, name: &str) {
            self.change(group, plural, |table| {
                table.objects.remove(&(namespace.to_string(), name.to_string()));
            });
        }

        fn read<T>(&self, group: &str, plural: &str, read: impl FnOnce(&Table) -> T) -> Option<T> {
            let state = self.0.read();
            state.tables.get(&(group.to_string(), plural.to_string())).map(read)
        }
    }

    impl Lookup for MapLookup {
        fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Found> {
            let key = (namespace.to_string(), name.to_string());
            self.read(group, plural, |table| table.objects.get(&key).cloned())
                .flatten()
        }

        fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Bytes> {
            let wanted = |own: &str| namespace.is_empty() || own == namespace;
            let list = |table: &Table| {
                table
                    .objects
                    .iter()
                    .filter(|((own, _), _)| wanted(own))
                    .map(|(_, found)| found.json.clone())
                    .collect()
            };
            self.read(group, plural, list).unwrap_or_default()
        }

        fn revision(&self, group: &str, plural: &str) -> u64 {
            self.read(group, plural, |table| table.revision).unwrap_or(0)
        }

        fn changes(&self, _group: &str) -> u64 {
            self.0.read().revision
        }

        fn pods_on_node(&self, namespace: &str, node: &str) -> Vec<Bytes> {
            let on_node = |bytes: &Bytes| {
                serde_json::from_slice::<Value>(bytes).is_ok_and(|pod| pod["spec"]["nodeName"].as_str() == Some(node))
            };
            self.list("", "pods", namespace).into_iter().filter(on_node).collect()
        }
    }
}
