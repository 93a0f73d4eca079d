//! Where the store's committed batches enter the cache, in revision order, by the committer's one thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mk8s_store::{Commit, Committed, Entry, Follower};

use super::resource::{Change, ResourceCache};
use super::{Cache, Shared};
use crate::crd;
use crate::object::{Noted, Object};

/// What a request's task sends along with its write, and where it finds the cached object afterwards.
pub(crate) struct Note {
    pub noted: Noted,
    pub made: Arc<OnceLock<Arc<Object>>>,
}

/// Which resource's cache a stored key belongs to.
#[derive(Default)]
pub(super) struct Placement {
    /// By the key's prefix, `/registry/core/pods/`.
    resources: HashMap<String, Arc<ResourceCache>>,
    /// What is stored of resources that there is no cache for, by prefix and key: their row may come later.
    unplaced: HashMap<String, BTreeMap<Arc<str>, Entry>>,
}

impl Placement {
    /// Gives a resource its cache, with what is stored of it, read as its row reads it.
    pub fn add(&mut self, cache: &Arc<ResourceCache>, read: &dyn Fn(Object) -> Object) {
        let prefix = super::key_prefix(&cache.resource());
        for entry in self
            .unplaced
            .remove(&prefix)
            .into_iter()
            .flatten()
            .map(|(_, entry)| entry)
        {
            cache.load(Arc::new(read(Object::new(cache.resource(), entry, None))));
        }
        self.resources.insert(prefix, cache.clone());
    }

    /// Takes a resource's cache away, and keeps what is stored of it for a row to come.
    pub fn remove(&mut self, cache: &ResourceCache) {
        let prefix = super::key_prefix(&cache.resource());
        self.resources.remove(&prefix);
        let objects = cache.list("");
        let entries = objects.iter().map(|object| (object.key.clone(), object.entry()));
        let entries: BTreeMap<_, _> = entries.collect();
        if !entries.is_empty() {
            self.unplaced.insert(prefix, entries);
        }
    }

    fn keep(&mut self, commit: Commit) {
        let kept = self.unplaced.entry(prefix(&commit.key).to_string()).or_default();
        match commit.change {
            Committed::Delete => drop(kept.remove(&commit.key)),
            Committed::Put { value, revision_at, .. } => {
                let entry = Entry {
                    key: commit.key.clone(),
                    value,
                    revision_at,
                    create_revision: commit.create_revision,
                    mod_revision: commit.revision,
                };
                kept.insert(commit.key, entry);
            }
        }
    }
}

pub(crate) struct CacheFollower {
    shared: Arc<Shared>,
}

impl CacheFollower {
    pub fn new(cache: &Cache) -> CacheFollower {
        CacheFollower {
            shared: cache.shared().clone(),
        }
    }

    /// Puts a stored object into the cache before anything is followed.
    pub fn load(&self, entry: Entry) {
        let mut placement = self.shared.placement.lock();
        match placement.resources.get(prefix(&entry.key)) {
            Some(cache) => load(cache, entry),
            None => {
                let kept = placement.unplaced.entry(prefix(&entry.key).to_string()).or_default();
                kept.insert(entry.key.clone(), entry);
            }
        }
    }
}

fn load(cache: &ResourceCache, entry: Entry) {
    cache.load(Arc::new(Object::new(cache.resource(), entry, None)));
}

/// Up to and with the third slash after the first: `/registry/core/pods/`.
fn prefix(key: &str) -> &str {
    match memchr::memchr_iter(b'/', key.as_bytes()).nth(3) {
        Some(at) => &key[..=at],
        None => key,
    }
}

impl Follower for CacheFollower {
    fn progressed(&mut self, revision: u64) {
        self.shared.publish(revision);
    }

    fn committed(&mut self, batch: Vec<Commit>) {
        let now = Instant::now();
        let Some(last) = batch.iter().map(|commit| commit.revision).max() else {
            return;
        };
        // A resource's part of the batch goes in under one lock, in order.
        let mut parts: Vec<(Arc<ResourceCache>, Vec<Change>)> = Vec::new();
        let mut placement = self.shared.placement.lock();
        for commit in batch {
            let Some(cache) = placement.resources.get(prefix(&commit.key)) else {
                placement.keep(commit);
                continue;
            };
            let change = change(cache, commit);
            match parts.iter_mut().find(|(own, _)| Arc::ptr_eq(own, cache)) {
                Some((_, changes)) => changes.push(change),
                None => parts.push((cache.clone(), vec![change])),
            }
        }
        for (cache, changes) in parts {
            cache.apply(changes.into_iter(), now);
        }
        drop(placement);
        self.shared.publish(last);
    }
}

fn change(cache: &ResourceCache, commit: Commit) -> Change {
    let Commit {
        key,
        revision,
        create_revision,
        change,
    } = commit;
    let object = match change {
        Committed::Delete => None,
        Committed::Put {
            value,
            revision_at,
            attachment,
        } => {
            let note = attachment.and_then(|attachment| attachment.downcast::<Note>().ok());
            let (noted, made) = match note {
                Some(note) => (Some(note.noted), Some(note.made)),
                None => (None, None),
            };
            let resource = cache.resource();
            let stored = Entry {
                key: key.clone(),
                value,
                revision_at,
                create_revision,
                mod_revision: revision,
            };
            let object = match noted.filter(|noted| Arc::ptr_eq(&noted.resource, &resource)) {
                Some(Noted { read: Some(read), .. }) => read.stored_as(stored),
                // Its request began before the definition was what it is now.
                None if resource.stored().custom.is_some() => crd::read(Object::new(resource, stored, None)),
                current => Object::new(resource, stored, current),
            };
            let object = Arc::new(object);
            if let Some(made) = made {
                let _ = made.set(object.clone());
            }
            Some(object)
        }
    };
    Change { key, revision, object }
}

#[cfg(test)]
mod tests {
    use mk8s_api::registry;

    use mk8s_store::Expect;
    use serde_json::json;

    use super::super::Next;
    use super::*;
    use crate::write::{self, Printed};

    fn entry(name: &str, revision: u64) -> Entry {
        let text = format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}}}}"#);
        Entry {
            key: format!("/registry/core/pods/ns/{name}").into(),
            revision_at: text.len() - 3 - revision.to_string().len(),
            value: text.into(),
            create_revision: 1,
            mod_revision: revision,
        }
    }

    fn commit(entry: Entry, delete: bool) -> Commit {
        let put = Committed::Put {
            value: entry.value,
            revision_at: entry.revision_at,
            attachment: None,
        };
        Commit {
            key: entry.key,
            revision: entry.mod_revision,
            create_revision: entry.create_revision,
            change: if delete { Committed::Delete } else { put },
        }
    }

    #[test]
    fn what_is_stored_of_a_resource_waits_for_its_row() {
        let pods = registry::builtin()
            .iter()
            .find(|row| row.plural == "pods")
            .expect("a row");
        let cache = Cache::new(std::iter::empty(), 3);
        let mut follower = CacheFollower::new(&cache);
        for name in ["kept", "changed", "gone"] {
            follower.load(entry(name, 2));
        }
        follower.committed(vec![
            commit(entry("changed", 4), false),
            commit(entry("gone", 5), true),
            commit(entry("new", 6), false),
        ]);
        assert_eq!(cache.revision(), 6);
        let late = Arc::new(ResourceCache::new(
            pods.clone(),
            cache.shared().clone(),
            6,
            Arc::default(),
        ));
        cache.shared().placement.lock().add(&late, &|object| object);
        let shown = |cache: &ResourceCache| -> Vec<String> {
            let list = cache.list("");
            list.iter()
                .map(|object| format!("{}@{}", object.name(), object.revision))
                .collect()
        };
        assert_eq!(shown(&late), ["changed@4", "kept@2", "new@6"]);
        assert!(
            late.get("ns", "changed")
                .is_some_and(|object| object.json_at(12).ends_with(br#""12"}}"#))
        );

        // A batch that is handed on again changes nothing.
        let batch = || vec![commit(entry("kept", 7), false), commit(entry("more", 7), false)];
        follower.committed(batch());
        let (_, mut watcher) = late.watch_with_snapshot("", None);
        follower.committed(batch());
        let mut events = Vec::new();
        watcher.take(&mut events);
        assert!(events.is_empty());
        assert_eq!(shown(&late), ["changed@4", "kept@7", "more@7", "new@6"]);
    }

    /// The committer, for which all writes wait, reads nothing anew that the write's own task has read.
    #[test]
    fn what_a_task_read_of_its_write_is_kept_as_it_is() {
        let (resource, car) = crd::long_car();
        let cache = Cache::new(std::iter::once(&resource), 3);
        let held = cache.resource("example.org", "cars").expect("a cache");
        let made = write::object_at(resource.clone(), held.key("", "a"), &car, 8, 8).expect("an object");
        let mut found = Arc::new(crd::read(made));
        assert!(found.is_longer_than_stored());
        let mut follower = CacheFollower::new(&cache);
        // The second has a digit more.
        for revision in [9, 10] {
            let mut marked = found.value().expect("a tree");
            marked["metadata"]["labels"] = json!({"seen": revision.to_string()});
            let managed = mk8s_api::apply::Managed::NOBODY;
            let printed = Printed::of_fields(&resource, &found, &["metadata"], &marked, &managed).expect("a text");
            let (op, made) = printed.put(found.key.clone(), Expect::Revision(found.revision));
            let mk8s_store::Change::Put {
                mut value,
                revision_at,
                attachment,
            } = op.change
            else {
                panic!("no put");
            };
            let attachment = attachment.expect("a note").downcast::<Note>().expect("a note");
            let read = attachment.noted.read.as_ref().expect("what is read").json.as_ptr();
            value.splice(revision_at..revision_at, revision.to_string().into_bytes());
            let change = Committed::Put {
                value: value.into(),
                revision_at,
                attachment: Some(attachment),
            };
            follower.committed(vec![Commit {
                key: found.key.clone(),
                revision,
                create_revision: 8,
                change,
            }]);
            found = made.get().expect("an object").clone();
            assert!(revision == 10 || found.json.as_ptr() == read, "it was made again");
            // And it is what whoever reads the store finds.
            let again = crd::read(Object::new(resource.clone(), found.entry(), None));
            assert!(again.json == found.json && again.revision == revision && found.create_revision == 8);
            assert_eq!(
                found.value().expect("a tree")["metadata"]["resourceVersion"],
                revision.to_string()
            );
            assert!(found.json_at(77) == again.json_at(77) && found.is_longer_than_stored() && !found.is_stale());
        }
    }

    #[test]
    fn a_resource_that_becomes_another_ends_its_watches_and_loses_nothing() {
        let pods = registry::find("", "v1", "pods").expect("a row");
        let cache = Cache::new(std::iter::once(pods), 3);
        let mut follower = CacheFollower::new(&cache);
        follower.load(entry("kept", 2));
        let held = cache.resource("", "pods").expect("a cache");
        let (_, mut watcher) = held.watch_with_snapshot("", None);
        let reread = |object: Object| {
            let mut entry = object.entry();
            entry.value = String::from_utf8_lossy(&entry.value).replace("kept", "read").into();
            Object::new(object.resource().clone(), entry, None)
        };
        cache.serve(pods, &reread);
        assert!(matches!(watcher.take(&mut Vec::new()), Next::Ended));
        follower.committed(vec![commit(entry("more", 4), false)]);
        // Whoever held the cache sees the same as who asks for it now.
        let object = held.get("ns", "kept").expect("an object");
        assert!(object.json.windows(4).any(|four| four == b"read"));
        assert!(held.get("ns", "more").is_some());
        assert!(held.watch_from("", 2, None).is_err());
        cache.retire("", "pods");
        assert!(cache.resource("", "pods").is_none() && held.get("ns", "more").is_none());
        follower.committed(vec![commit(entry("more", 5), true)]);
        cache.serve(pods, &|object| object);
        let again = cache.resource("", "pods").expect("a cache");
        assert!(again.get("ns", "kept").is_some() && again.get("ns", "more").is_none());
    }
}
