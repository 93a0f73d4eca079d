//! Writes slices as a plan has it, and notes what was written until it has come back.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use mk8s_client::Seen;

use super::plan::Changes;
use crate::context::Context;
use crate::delete::delete;
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

/// Writes the changes to the slices of `owner`.
pub async fn write(ctx: &Context, seen: &Seen<Key>, owner: &Key, changes: Changes) -> Result<(), Error> {
    let api = ctx.api::<EndpointSlice>(&owner.namespace);
    // New ones before old ones go: no moment in which a pod is in none.
    for slice in changes.create {
        let made = api.create(&PostParams::default(), &slice).await;
        let made = made.tried(|| format!("create EndpointSlice of {owner}"))?;
        seen.wrote(owner, made.revision);
    }
    for slice in changes.update {
        let name = meta::name(&slice);
        let made = api.replace(name, &PostParams::default(), &slice).await;
        let made = made.tried(|| format!("update EndpointSlice {}/{name}", owner.namespace))?;
        seen.wrote(owner, made.revision);
    }
    for slice in changes.delete {
        if delete(&api, &slice, DeleteParams::default()).await? {
            seen.deleted(owner, &slice);
        }
    }
    Ok(())
}
