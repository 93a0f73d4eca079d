//! What Services hold and nobody wrote down: found at a start (a cluster from before there were such objects) and when an
//! IPAddress in use is deleted. Each is made again, on the condition that the Service is still as it was read.

use std::sync::Arc;
use std::time::Duration;

use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_store::{Change, Expect, Op};
use smallvec::SmallVec;

use super::claims::{Claim, holds};
use super::{Services, claims_of};
use crate::object::Object;
use crate::state::State;
use crate::watch_cache::{EventKind, Next};
use crate::write::{self, WriteError};

/// Where the store takes no writes.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What has to be written so that each stored Service holds what it says.
pub fn missing(services: &Services, stored: impl Iterator<Item = Arc<Object>>) -> Result<Vec<Op>, Status> {
    let mut ops = Vec::new();
    let mut taken: Vec<Claim> = Vec::new();
    for object in stored {
        // A damaged one has been logged; it holds nothing.
        let Ok(service) = object.value() else { continue };
        for claim in claims_of(&service) {
            match services.holders.holder(claim) {
                None if !taken.contains(&claim) => {
                    taken.push(claim);
                    ops.push(services.holders.take(claim, &service)?);
                }
                Some(holder) if holder.value().is_ok_and(|holder| holds(&holder, &service)) => {}
                _ => {
                    let service = &object.key;
                    tracing::warn!(%service, ?claim, "a Service holds what belongs to somebody else");
                }
            }
        }
    }
    Ok(ops)
}

/// Makes deleted IPAddresses again, as long as their Services use them.
pub async fn run(state: Arc<State>) {
    let cache = state.cache();
    let (Some(addresses), Some(stored)) = (
        cache.resource("networking.k8s.io", "ipaddresses"),
        cache.resource("", "services"),
    ) else {
        return;
    };
    let (_, mut watcher) = addresses.watch_with_snapshot("", None);
    let mut taken = Vec::new();
    loop {
        taken.clear();
        if let Next::TooOld = watcher.take(&mut taken) {
            // What was missed is found by looking at all.
            (_, watcher) = addresses.watch_with_snapshot("", None);
            for service in stored.list("").iter() {
                repair(&state, service).await;
            }
            continue;
        }
        for event in taken.iter().filter(|event| event.kind == EventKind::Deleted) {
            let Ok(parent) = event.object.value() else { continue };
            let of = |key| meta::string(&parent, &["spec", "parentRef", key]).to_string();
            if let Some(service) = stored.get(&of("namespace"), &of("name"))
                && service.value().is_ok_and(|service| holds(&parent, &service))
            {
                repair(&state, &service).await;
            }
        }
        if taken.is_empty() {
            watcher.changed().await;
        }
    }
}

/// Tries until what the Service says and what is written down agree, or the Service is gone.
pub async fn repair(state: &State, service: &Arc<Object>) {
    let key = service.key.clone();
    let mut found = Some(service.clone());
    while let Some(service) = found {
        match write_down(state, &service).await {
            Ok(()) => return,
            // Written meanwhile, by others or by this: what it holds by now is looked at again.
            Err(WriteError::Conflict | WriteError::Unknown) => {}
            Err(WriteError::Status(status)) => {
                tracing::error!(service = %key, error = status.message, "a Service's address is not written down");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
        found = state
            .cache()
            .resource("", "services")
            .and_then(|cache| cache.get_key(&key));
    }
}

async fn write_down(state: &State, service: &Arc<Object>) -> Result<(), WriteError> {
    let lacks = missing(state.services(), std::iter::once(service.clone()))?;
    if lacks.is_empty() {
        return Ok(());
    }
    let unchanged = Op {
        key: service.key.clone(),
        expect: Expect::Revision(service.revision),
        change: Change::Check,
    };
    let mut ops = SmallVec::from_iter([unchanged]);
    ops.extend(lacks);
    write::commit(state.store(), ops).await.map(drop)
}
