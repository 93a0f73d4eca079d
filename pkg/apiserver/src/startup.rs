//! What the server writes itself before it answers: the objects that a cluster begins with. These pass no admission (there
//! is nobody to be refused) and are one transaction, but have their rows' defaults, addresses and print like all others.

use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_store::{Expect, Op};
use smallvec::SmallVec;

use crate::bootstrap::{self, Facts, Planned};
use crate::services;
use crate::state::State;
use crate::write::{self, Printed, WriteError};

/// Brings into being, in one transaction, what the cluster has to begin with; how many objects that were.
pub async fn bootstrap(state: &State, facts: &Facts) -> Result<usize, Status> {
    // First what Services hold already: the addresses below are chosen beside them.
    if let Some(stored) = state.cache().resource("", "services") {
        let lacks = services::missing(state.services(), stored.list("").iter().cloned())?;
        commit(state, lacks).await?;
    }
    let planned = bootstrap::plan(&**state.cache(), facts);
    let count = planned.len();
    let mut ops = Vec::with_capacity(count + 1);
    for one in planned {
        add(state, one, &mut ops)?;
    }
    commit(state, ops).await?;
    Ok(count)
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
