//! Where the store's committed batches enter the cache, in revision order, by the committer's one thread.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use mk8s_store::{Commit, Committed, Follower};

use super::resource::{Change, ResourceCache};
use super::{Cache, Shared};
use crate::object::{Object, Selectable};

/// What a request's task sends along with its write, and where it finds the cached object afterwards.
pub(crate) struct Note {
    pub selectable: Selectable,
    pub made: Arc<OnceLock<Arc<Object>>>,
}

pub(crate) struct CacheFollower {
    /// By the key's prefix, `/registry/core/pods/`.
    resources: HashMap<String, Arc<ResourceCache>>,
    shared: Arc<Shared>,
}

impl CacheFollower {
    pub fn new(cache: &Cache) -> CacheFollower {
        let resources = cache
            .resources()
            .map(|resource| (super::key_prefix(resource.resource()), resource.clone()))
            .collect();
        CacheFollower {
            resources,
            shared: cache.shared().clone(),
        }
    }

    /// Puts a stored object into the cache before the committer starts.
    pub fn load(&self, key: Arc<str>, value: Bytes, create_revision: u64, mod_revision: u64) {
        let Some(cache) = self.resources.get(prefix(&key)) else {
            tracing::warn!(%key, "a stored object of a resource that this version does not have");
            return;
        };
        let resource = cache.resource().clone();
        let object = Object::new(resource, key, value, mod_revision, create_revision, None);
        cache.load(Arc::new(object));
    }
}

/// Up to and with the third slash after the first: `/registry/core/pods/`.
fn prefix(key: &str) -> &str {
    match memchr::memchr_iter(b'/', key.as_bytes()).nth(3) {
        Some(at) => &key[..=at],
        None => key,
    }
}

impl Follower for CacheFollower {
    fn committed(&mut self, batch: Vec<Commit>) {
        let now = Instant::now();
        let Some(last) = batch.iter().map(|commit| commit.revision).max() else {
            return;
        };
        // A resource's part of the batch goes in under one lock, in order.
        let mut parts: Vec<(&Arc<ResourceCache>, Vec<Change>)> = Vec::new();
        for commit in batch {
            let Some(cache) = self.resources.get(prefix(&commit.key)) else {
                continue;
            };
            let change = change(cache, commit);
            match parts.iter_mut().find(|(own, _)| Arc::ptr_eq(own, cache)) {
                Some((_, changes)) => changes.push(change),
                None => parts.push((cache, vec![change])),
            }
        }
        for (cache, changes) in parts {
            cache.apply(changes.into_iter(), now);
        }
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
        Committed::Put { value, attachment } => {
            let note = attachment.and_then(|attachment| attachment.downcast::<Note>().ok());
            let (selectable, made) = match note {
                Some(note) => (Some(note.selectable), Some(note.made)),
                None => (None, None),
            };
            let resource = cache.resource().clone();
            let object = Object::new(resource, key.clone(), value, revision, create_revision, selectable);
            let object = Arc::new(object);
            if let Some(made) = made {
                let _ = made.set(object.clone());
            }
            Some(object)
        }
    };
    Change { key, revision, object }
}
