//! How the server changes an object for itself: admitted by nobody, and tried again where somebody else wrote first.

use std::sync::Arc;
use std::time::Duration;

use mk8s_api::meta;
use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use serde_json::Value;
use tokio::time::Instant;

use crate::guaranteed_update::{Attempt, Current, Reads, Step, Target, guaranteed_update};
use crate::handlers::delete::as_planned;
use crate::managers;
use crate::object::Object;
use crate::options::DeleteOptions;
use crate::state::State;
use crate::watch_cache::ResourceCache;
use crate::write::Printed;

/// How long a write is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// Changes an object, or its subresource (empty: itself); None keeps it as it is, which is also what becomes of one that is there
/// no more.
pub async fn change(
    state: &State,
    stored: &Arc<ResourceCache>,
    (namespace, name): (&str, &str),
    subresource: &'static str,
    next: impl FnMut(&Object) -> Result<Option<Value>, Status> + Send,
) -> Result<(), Status> {
    let own = Own {
        resource: stored.resource(),
        subresource,
        next,
    };
    write(state, stored, stored.key(namespace, name), own).await
}

/// Deletes an object as a request does that says nothing of how: one with finalizers waits for these. With a revision, only what
/// is still at that.
pub async fn delete(
    state: &State,
    stored: &Arc<ResourceCache>,
    key: Arc<str>,
    revision: Option<u64>,
) -> Result<(), Status> {
    write(state, stored, key, Deletion { revision }).await
}

async fn write(
    state: &State,
    stored: &Arc<ResourceCache>,
    key: Arc<str>,
    mut attempt: impl Attempt,
) -> Result<(), Status> {
    let target = Target {
        store: state.store(),
        cache: stored,
        known_as: None,
        key,
        deadline: Instant::now() + PATIENCE,
        dry_run: false,
        reads: Reads::Whole,
        looks: true,
        turn: None,
    };
    match guaranteed_update(target, &mut attempt).await {
        Err(status) if status.code == 404 => Ok(()),
        done => done.map(drop),
    }
}

struct Deletion {
    revision: Option<u64>,
}

impl Attempt for Deletion {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let Some(object) = current.object.clone() else {
            return Err(Status::not_found("", "", ""));
        };
        if self.revision.is_some_and(|revision| revision != object.revision) {
            return Ok(Step::Keep);
        }
        as_planned(object.resource(), current, &DeleteOptions::default(), Vec::new()).await
    }
}

struct Own<N> {
    resource: Arc<Resource>,
    subresource: &'static str,
    next: N,
}

impl<N> Attempt for Own<N>
where
    N: FnMut(&Object) -> Result<Option<Value>, Status> + Send,
{
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let Some(object) = &current.object else {
            return Err(Status::not_found(&self.resource.group, &self.resource.plural, ""));
        };
        let Some(mut new) = (self.next)(object)? else {
            return Ok(Step::Keep);
        };
        let managed = managers::kept_by_server(&self.resource, &current, &new, self.subresource);
        if meta::is_deleting(&new) && meta::finalizers(&new).next().is_none() {
            managers::put(&mut new, &managed);
            return Ok(Step::Remove(new, Vec::new()));
        }
        Ok(Step::Put(Printed::of(&self.resource, &new, &managed)?, Vec::new()))
    }
}
