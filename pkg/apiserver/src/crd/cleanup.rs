//! The end of a custom resource: its objects go first, each when its finalizers let it, then its definition.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_supervisor::job;
use serde_json::Value;

use super::conditions::Condition;
use super::{CLEANUP, SOON, definitions};
use crate::at_once;
use crate::object::Object;
use crate::own_write;
use crate::state::State;
use crate::watch_cache::{Next, ResourceCache};

const TERMINATING: &str = "Terminating";

/// Begins to clean up after a definition, where that is not under way.
pub fn begin(state: &Arc<State>, stored: &Arc<ResourceCache>, name: String) {
    if !state.definitions().lock().begins_cleanup(&name) {
        return;
    }
    let (of, stored) = (state.clone(), stored.clone());
    state.spawn("custom-resource-cleanup", async move {
        loop {
            let (state, stored, own) = (of.clone(), stored.clone(), name.clone());
            let work = async move { clean_up(&state, &stored, &own).await };
            match job::spawn("custom-resource-cleanup", work).abort_on_drop().await {
                Ok(Ok(())) => break,
                Ok(Err(status)) => tracing::warn!(
                    name,
                    error = status.message,
                    "objects of a custom resource are not removed yet"
                ),
                // A panic, which is counted and told of.
                Err(_) => {}
            }
            tokio::time::sleep(SOON).await;
        }
        of.definitions().lock().ends_cleanup(&name);
    });
}

async fn clean_up(state: &State, stored: &Arc<ResourceCache>, name: &str) -> Result<(), Status> {
    let Some(object) = stored.get("", name) else {
        return Ok(());
    };
    let deleted = object.value()?;
    if !meta::is_deleting(&deleted) {
        // Another of the name: the one that was deleted is gone.
        return Ok(());
    }
    let uid = meta::uid(&deleted);
    let say = |condition: Condition, ends: bool| {
        own_write::change(state, stored, ("", name), "status", move |object| {
            let mut definition = object.value()?;
            if meta::uid(&definition) != uid {
                return Ok(None);
            }
            condition.put(&mut definition);
            if ends {
                remove_finalizer(&mut definition);
            }
            Ok(Some(definition))
        })
    };
    let message = "CustomResource deletion is in progress";
    say(
        Condition::new(TERMINATING, true, "InstanceDeletionInProgress", message),
        false,
    )
    .await?;
    let ended = if definitions::overlaps(&deleted) {
        let message = "instances overlap with built-in resources in storage";
        Condition::new(TERMINATING, false, "OverlappingBuiltInResource", message)
    } else {
        let resource = state.definitions().lock().resource(name, uid);
        let instances = resource.and_then(|resource| state.cache().resource(&resource.group, &resource.plural));
        match instances {
            Some(instances) => {
                remove_all(state, &instances).await?;
                Condition::new(TERMINATING, false, "InstanceDeletionCompleted", "removed all instances")
            }
            None => Condition::new(TERMINATING, false, "NeverEstablished", "resource was never established"),
        }
    };
    say(ended, true).await
}

fn remove_finalizer(definition: &mut Value) {
    let left: Vec<Value> = meta::finalizers(definition)
        .filter(|own| *own != CLEANUP)
        .map(Value::from)
        .collect();
    meta::set(definition, &["metadata", "finalizers"], left);
}

/// Deletes every object, and waits until the last one is gone: also those whose creation had begun before.
async fn remove_all(state: &State, instances: &Arc<ResourceCache>) -> Result<(), Status> {
    instances.close_and_wait().await;
    let (snapshot, mut watcher) = instances.watch_with_snapshot("", None);
    let all: Vec<Arc<Object>> = snapshot.iter().cloned().collect();
    drop(snapshot);
    let mut deletions = pin!(at_once::each(all, |object| own_write::delete(
        state,
        instances,
        object.key.clone(),
        None
    )));
    while let Some(done) = deletions.next().await {
        done?;
    }
    let mut events = Vec::new();
    while !instances.is_empty() {
        events.clear();
        match watcher.take(&mut events) {
            Next::Events if events.is_empty() => watcher.changed().await,
            Next::Events => {}
            // Also where the definition changed: what its objects are called now, they are still there.
            Next::TooOld | Next::Ended => (_, watcher) = instances.watch_with_snapshot("", None),
        }
    }
    Ok(())
}
