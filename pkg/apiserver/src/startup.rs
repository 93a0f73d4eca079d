//! What the server writes itself before it answers: the objects that a cluster begins with.

use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_store::{Change, Expect, Op, Txn};

use crate::bootstrap::{self, Facts, Planned};
use crate::object::Selectable;
use crate::server::ApiServer;
use crate::write;

impl ApiServer {
    /// Brings into being, in one transaction, what the cluster has to begin with; how many objects that were.
    pub async fn bootstrap(&self, facts: &Facts) -> Result<usize, Status> {
        let planned = bootstrap::plan(&**self.cache(), facts);
        if planned.is_empty() {
            return Ok(0);
        }
        let count = planned.len();
        let mut txn = Txn::default();
        for one in planned {
            txn.ops.push(self.planned_op(one)?);
        }
        let committed = self.store().txn(txn).await;
        committed.map_err(|error| Status::internal(format!("writing what the cluster begins with: {error}")))?;
        Ok(count)
    }

    fn planned_op(&self, planned: Planned) -> Result<Op, Status> {
        let mut object = planned.object;
        let cache = self.cache().resource(&planned.group, planned.plural);
        let cache = cache.ok_or_else(|| Status::internal(format!("no resource {}", planned.plural)))?;
        let resource = cache.resource();
        (resource.hooks.default)(&mut object);
        if resource.kind == "Service" && resource.group.is_empty() {
            let mut reserved = match planned.replaces {
                None => self.services().before_create(&mut object)?,
                Some(_) => self.services().nothing(),
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
}
