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
use crate::managers;
use crate::services;
use crate::state::State;
use crate::watch_cache::{EventKind, Next, ResourceCache};
use crate::write::{self, Printed, WriteError};

/// Brings into being, in one transaction, what the cluster has to begin with; how many objects that were. What can't be made
/// (somebody else's Service has the address by now) is told in the log, and ends no start.
pub async fn bootstrap(state: &State, facts: &Facts) -> Result<usize, Status> {
    // First what Services hold already: the addresses below are chosen beside them.
    if let Some(stored) = state.cache().resource("", "services") {
        let lacks = services::missing(state.services(), stored.list("").iter().cloned())?;
        commit(state, lacks).await?;
    }
    let written = write(state, bootstrap::plan(&**state.cache(), facts)).await?;
    Ok(written.made)
}

struct Written {
    made: usize,
    refused: usize,
}

async fn write(state: &State, planned: Vec<Planned>) -> Result<Written, Status> {
    let (mut ops, mut written) = (Vec::new(), Written { made: 0, refused: 0 });
    for one in planned {
        let object = format!("{} {}", one.plural, meta::name(&one.object));
        match prepared(state, one) {
            Ok(all) => {
                ops.extend(all);
                written.made += 1;
            }
            Err(status) => {
                tracing::error!(
                    object,
                    error = status.message,
                    "what the cluster begins with can't be made"
                );
                written.refused += 1;
            }
        }
    }
    commit(state, ops).await?;
    Ok(written)
}

/// How long what was deleted is away: nothing spins with somebody who deletes it again and again.
const AWAY: Duration = Duration::from_secs(1);
/// How long what may not be changed stays so, at most.
const CHANGED: Duration = Duration::from_secs(60);
/// What can't be made is tried again so often, as upstream does.
const REFUSED: Duration = Duration::from_secs(10);

/// Makes again what the cluster can't be without, whenever it is deleted, and what is changed that may not be.
pub async fn keep(state: Arc<State>, facts: Facts) {
    let cache = |group, plural| state.cache().resource(group, plural);
    let all = [
        cache("", "namespaces"),
        cache("", "services"),
        cache("", "endpoints"),
        cache("", "configmaps"),
        cache("discovery.k8s.io", "endpointslices"),
        cache("networking.k8s.io", "servicecidrs"),
        cache("flowcontrol.apiserver.k8s.io", "flowschemas"),
        cache("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ];
    let watches = all.into_iter().flatten().map(|cache| gone(cache).boxed());
    let mut watches = futures::stream::select_all(watches);
    loop {
        let planned = bootstrap::missing(&**state.cache(), &facts);
        if planned.is_empty() {
            // Nothing tells of what somebody only changed.
            let _ = tokio::time::timeout(CHANGED, watches.next()).await;
            tokio::time::sleep(AWAY).await;
            continue;
        }
        let refused = write_again(&state, planned).await;
        tokio::time::sleep(if refused { REFUSED } else { AWAY }).await;
    }
}

/// Whether any of it is still to be written. Flow objects are in a transaction of their own: whoever changes one just then
/// would keep the API's own Service away.
async fn write_again(state: &State, planned: Vec<Planned>) -> bool {
    let (flows, others): (Vec<_>, Vec<_>) = planned
        .into_iter()
        .partition(|one| one.group == bootstrap::FLOW_CONTROL);
    let mut refused = false;
    for part in [others, flows] {
        let written = write(state, part).await;
        if let Err(status) = &written {
            tracing::error!(error = status.message, "what the cluster begins with can't be written");
        }
        refused |= written.is_err() || written.is_ok_and(|written| written.refused > 0);
    }
    refused
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

fn prepared(state: &State, planned: Planned) -> Result<Vec<Op>, Status> {
    let mut object = planned.object;
    let cache = state.cache().resource(planned.group, planned.plural);
    let cache = cache.ok_or_else(|| Status::internal(format!("no resource {}", planned.plural)))?;
    let resource = cache.resource();
    let filled = resource.stored().fill(&mut object);
    filled.map_err(|error| Status::internal(error.to_string()))?;
    let mut ops = Vec::new();
    if resource.semantics.holds_addresses && planned.replaces.is_none() {
        ops.extend(state.services().on_create(&mut object, false)?);
    }
    let key = cache.key(meta::namespace(&object), meta::name(&object));
    let expect = planned.replaces.map_or(Expect::Absent, Expect::Revision);
    let managed = managers::begun(&resource, &object);
    ops.push(Printed::of(&resource, &object, &managed)?.put(key, expect).0);
    Ok(ops)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_api::{registry, validation};
    use mk8s_pki::serviceaccount::Keys;

    use crate::lookup::MapLookup;
    use crate::{ApiServer, Config};

    use super::*;

    /// What is stored is what was wanted, so that nobody writes it in a circle; and a client may write it back.
    #[tokio::test]
    async fn what_a_cluster_begins_with_has_nothing_to_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let address = [192, 0, 2, 1].into();
        let config = Config::new(dir.path(), address, Arc::new(Keys::generate().unwrap()));
        let server = ApiServer::open(config).unwrap();
        let facts = Facts {
            service_cidr: server.config().service_cidr,
            advertise_address: address,
            secure_port: 6443,
            ca: "CA".into(),
            front_proxy_ca: "CA".into(),
            server_url: "https://192.0.2.1:6443".into(),
        };
        let wanted = bootstrap::plan(&MapLookup::default(), &facts);
        assert_eq!(server.bootstrap(&facts).await.unwrap(), wanted.len());
        let cache = server.state().cache();
        assert_eq!(bootstrap::missing(&**cache, &facts), []);
        assert_eq!(bootstrap::plan(&**cache, &facts), []);
        for Planned {
            group, plural, object, ..
        } in wanted
        {
            let cache = cache.resource(group, plural).unwrap();
            let stored = cache.get(meta::namespace(&object), meta::name(&object)).unwrap();
            let (resource, mut stored) = (cache.resource(), stored.value().unwrap());
            drop(meta::remove(&mut stored, &["metadata", "resourceVersion"]));
            let version = registry::find(group, &resource.stored().name, plural).unwrap().stored();
            let errors = validation::create(&resource, version, &stored);
            assert!(errors.is_empty(), "{stored}: {errors:?}");
        }
        server.close().await;
    }
}
