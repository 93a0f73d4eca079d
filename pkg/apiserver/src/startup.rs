//! What the server writes itself, before it answers and whenever it is deleted: the objects that a cluster begins with. These
//! pass no admission (there is nobody to be refused) and are one transaction, but have their rows' defaults, addresses and
//! print like all others.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_store::{Expect, Op};
use smallvec::SmallVec;

use crate::bootstrap::{self, Facts, Planned};
use crate::services;
use crate::state::State;
use crate::watch_cache::{EventKind, Next, ResourceCache};
use crate::write::{self, Printed, WriteError};

/// Brings into being, in one transaction, what the cluster has to begin with; how many objects that were.
pub async fn bootstrap(state: &State, facts: &Facts) -> Result<usize, Status> {
    // First what Services hold already: the addresses below are chosen beside them.
    if let Some(stored) = state.cache().resource("", "services") {
        let lacks = services::missing(state.services(), stored.list("").iter().cloned())?;
        commit(state, lacks).await?;
    }
    write(state, bootstrap::plan(&**state.cache(), facts)).await
}

async fn write(state: &State, planned: Vec<Planned>) -> Result<usize, Status> {
    let count = planned.len();
    let mut ops = Vec::with_capacity(count + 1);
    for one in planned {
        add(state, one, &mut ops)?;
    }
    commit(state, ops).await?;
    Ok(count)
}

/// How long what was deleted is away: nothing spins with somebody who deletes it again and again.
const AWAY: Duration = Duration::from_secs(1);

/// Makes again what the cluster can't be without, whenever it is deleted.
pub async fn keep(state: Arc<State>, facts: Facts) {
    let cache = |group, plural| state.cache().resource(group, plural).cloned();
    let all = [
        cache("", "namespaces"),
        cache("", "services"),
        cache("", "endpoints"),
        cache("", "configmaps"),
        cache("discovery.k8s.io", "endpointslices"),
        cache("networking.k8s.io", "servicecidrs"),
    ];
    let watches = all.into_iter().flatten().map(|cache| gone(cache).boxed());
    let mut watches = futures::stream::select_all(watches);
    loop {
        let planned = bootstrap::missing(&**state.cache(), &facts);
        if planned.is_empty() {
            watches.next().await;
        } else if let Err(status) = write(&state, planned).await {
            tracing::error!(
                error = status.message,
                "what the cluster begins with is missing and can't be made"
            );
        }
        tokio::time::sleep(AWAY).await;
    }
}

/// Says so when objects of a resource were deleted.
fn gone(cache: Arc<ResourceCache>) -> impl Stream<Item = ()> + Send {
    let (_, watcher) = cache.watch_with_snapshot("", None);
    futures::stream::unfold((cache, watcher), |(cache, mut watcher)| async move {
        let mut taken = Vec::new();
        loop {
            taken.clear();
            if let Next::TooOld = watcher.take(&mut taken) {
                (_, watcher) = cache.watch_with_snapshot("", None);
                return Some(((), (cache, watcher)));
            }
            if taken.iter().any(|event| event.kind == EventKind::Deleted) {
                return Some(((), (cache, watcher)));
            }
            if taken.is_empty() {
                watcher.changed().await;
            }
        }
    })
}

async fn commit(state: &State, ops: Vec<Op>) -> Result<(), Status> {
    if ops.is_empty() {
        return Ok(());
    }
    match write::commit(state.store(), SmallVec::from_vec(ops)).await {
        Ok(_) => Ok(()),
        Err(WriteError::Status(status)) => Err(status),
        Err(WriteError::Conflict | WriteError::Unknown) => {
            Err(Status::internal("something else writes what the cluster begins with"))
        }
    }
}

fn add(state: &State, planned: Planned, ops: &mut Vec<Op>) -> Result<(), Status> {
    let mut object = planned.object;
    let cache = state.cache().resource(planned.group, planned.plural);
    let cache = cache.ok_or_else(|| Status::internal(format!("no resource {}", planned.plural)))?;
    let resource = cache.resource();
    (resource.hooks.default)(&mut object);
    if resource.semantics.holds_addresses && planned.replaces.is_none() {
        ops.extend(state.services().on_create(&mut object)?);
    }
    let key = cache.key(meta::namespace(&object), meta::name(&object));
    let expect = planned.replaces.map_or(Expect::Absent, Expect::Revision);
    ops.push(Printed::of(resource, &object)?.put(key, expect).0);
    Ok(())
}
