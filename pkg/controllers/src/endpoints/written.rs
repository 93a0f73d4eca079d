//! What was written to slices and has not come back as an event yet: until it has, the slices that the informer shows must not be counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;

use super::plan::Changes;
use crate::context::Context;
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

/// An event that does not come in this time was lost with a watch that was relisted.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The revision written (None for a deletion), and when.
type Note = (Option<u64>, Instant);

/// By owner, then by slice.
#[derive(Default)]
pub struct Written(Mutex<HashMap<Key, HashMap<String, Note>>>);

impl Written {
    fn note(&self, owner: &Key, slice: &str, revision: Option<u64>) {
        let note = (revision, Instant::now());
        self.0
            .lock()
            .entry(owner.clone())
            .or_default()
            .insert(slice.to_owned(), note);
    }

    /// Has the informer shown every write? Those it has are forgotten.
    pub fn seen(&self, owner: &Key, slices: &[Arc<EndpointSlice>]) -> bool {
        let mut all = self.0.lock();
        let Some(written) = all.get_mut(owner) else {
            return true;
        };
        let shown: HashMap<&str, u64> = slices.iter().map(|s| (meta::name(&**s), revision(s))).collect();
        written.retain(|name, (revision, at)| {
            let missing = match (shown.get(name.as_str()), revision) {
                (Some(shown), Some(written)) => *shown < *written,
                (None, Some(_)) | (Some(_), None) => true,
                (None, None) => false,
            };
            missing && at.elapsed() < PATIENCE
        });
        let seen = written.is_empty();
        if seen {
            all.remove(owner);
        }
        seen
    }

    /// A slice went, by whomever.
    pub fn deleted(&self, owner: &Key, slice: &str) {
        if let Some(written) = self.0.lock().get_mut(owner) {
            written.remove(slice);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.0.lock().remove(owner);
    }
}

fn revision(slice: &EndpointSlice) -> u64 {
    meta::revision(slice).parse().unwrap_or(0)
}

/// Writes the changes, and notes each.
pub async fn write(ctx: &Context, written: &Written, owner: &Key, changes: Changes) -> Result<(), Error> {
    let api = ctx.api::<EndpointSlice>(&owner.namespace);
    // New ones before old ones go: no moment in which a pod is in none.
    for slice in changes.create {
        let made = api.create(&PostParams::default(), &slice).await;
        let made = made.tried(|| format!("create EndpointSlice of {owner}"))?;
        written.note(owner, meta::name(&made), Some(revision(&made)));
    }
    for slice in changes.update {
        let name = meta::name(&slice);
        let made = api.replace(name, &PostParams::default(), &slice).await;
        let made = made.tried(|| format!("update EndpointSlice {}/{name}", owner.namespace))?;
        written.note(owner, name, Some(revision(&made)));
    }
    for name in changes.delete {
        let done = api.delete(&name, &DeleteParams::default()).await;
        let done = done.tried_if_exists(|| format!("delete EndpointSlice {}/{name}", owner.namespace))?;
        if done.is_some() {
            written.note(owner, &name, None);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn writes_count_as_seen_when_the_informer_has_them() {
        let (written, key) = (Written::default(), Key::new("d", "web"));
        let slice = |name: &str, revision: u64| {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: Some(revision.to_string()),
                ..ObjectMeta::default()
            };
            Arc::new(EndpointSlice {
                metadata,
                ..EndpointSlice::default()
            })
        };
        written.note(&key, "a", Some(7));
        written.note(&key, "b", None);
        assert!(!written.seen(&key, &[slice("b", 3)]));
        assert!(!written.seen(&key, &[slice("a", 6)]));
        assert!(written.seen(&key, &[slice("a", 7)]));
        written.note(&key, "c", Some(9));
        written.deleted(&key, "c");
        assert!(written.seen(&key, &[]));
    }
}
