//! What the server writes itself before it answers: the objects that a cluster begins with.

use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_store::{Change, Expect, Op, Txn};

use crate::bootstrap::{self, Facts, Planned};
use crate::object::Selectable;
use crate::state::State;
use crate::write;

/// Brings into being, in one transaction, what the cluster has to begin with; how many objects that were.
pub async fn bootstrap(state: &State, facts: &Facts) -> Result<usize, Status> {
    let planned = bootstrap::plan(&**state.cache(), facts);
    if planned.is_empty() {
        return Ok(0);
    }
    let count = planned.len();
    let mut txn = Txn::default();
    for one in planned {
        txn.ops.push(planned_op(state, one)?);
    }
    let committed = state.store().txn(txn).await;
    committed.map_err(|error| Status::internal(format!("writing what the cluster begins with: {error}")))?;
    Ok(count)
}

fn planned_op(state: &State, planned: Planned) -> Result<Op, Status> {
    let mut object = planned.object;
    let cache = state.cache().resource(&planned.group, planned.plural);
    let cache = cache.ok_or_else(|| Status::internal(format!("no resource {}", planned.plural)))?;
    let resource = cache.resource();
    (resource.hooks.default)(&mut object);
    if resource.kind == "Service" && resource.group.is_empty() {
        let mut reserved = match planned.replaces {
            None => state.services().before_create(&mut object)?,
            Some(_) => state.services().nothing(),
        };
        reserved.keep();
    }
    let key = cache.key(meta::namespace(&object), meta::name(&object));
    let selectable = Selectable::of(resource, &object);
    let (value, revision_at) = write::print(&object)?;
    Ok(Op {
        key,
        expect: planned.replaces.map_or(Expect::Absent, Expect::Revision),
        change: Change::Put {
            value,
            revision_at,
            attachment: Some(write::note(selectable)),
        },
    })
}
