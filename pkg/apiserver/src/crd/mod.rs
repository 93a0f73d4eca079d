//! Custom resources: what follows from CustomResourceDefinitions. One task follows them: it accepts their names, serves what
//! they define, and says so in their status, in this order, so that whoever sees a definition established finds its kind
//! served. One more task for each that is deleted removes the objects of its kind first
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>).

mod cleanup;
mod conditions;
pub mod conversion;
mod definitions;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mk8s_api::registry::{Resource, Served};
use mk8s_api::status::Status;
use mk8s_api::{meta, time};
use mk8s_supervisor::backoff::Backoff;
use mk8s_supervisor::job;
use serde_json::Value;
use tokio::time::Instant;

use conditions::Condition;
pub use definitions::Definitions;

use crate::object::Object;
use crate::own_write;
use crate::state::State;
use crate::watch_cache::{Cache, Next, ResourceCache};
use crate::write;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// The finalizer that holds a definition while objects of its kind are left.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// How soon what failed is looked at again, at first and at last.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(60);

/// What is served for the definitions that are stored when the server starts.
pub fn load(cache: &Cache) -> Definitions {
    let mut definitions = Definitions::default();
    let Some(stored) = cache.resource(GROUP, PLURAL) else {
        return definitions;
    };
    for object in stored.list("").iter() {
        match object.value() {
            Ok(definition) => drop(definitions.changed(&definition, cache)),
            Err(status) => tracing::error!(
                name = object.name(),
                error = status.message,
                "a definition is not served"
            ),
        }
    }
    definitions
}

/// A stored object of a custom resource as it is read: in the stored version, where no webhook makes that, without fields
/// that the schema lacks, and with its defaults.
pub(crate) fn read(object: Object) -> Object {
    let resource = object.resource().clone();
    let read = read_tree(&resource, &object).and_then(|read| match read {
        Some((tree, is_cut)) => Ok(Some((write::in_form(&object, resource, &tree)?, is_cut))),
        None => Ok(None),
    });
    match read {
        Ok(Some((read, is_cut))) => read.read_from(&object, is_cut),
        Ok(None) => object,
        Err(status) => {
            tracing::error!(key = %object.key, error = status.message, "a stored object is shown as it is");
            object
        }
    }
}

/// The tree of what is read, and whether there was no room for all of it, where it is another than what is stored.
fn read_tree(resource: &Resource, object: &Object) -> Result<Option<(Value, bool)>, Status> {
    let stored = object.value()?;
    let mut tree = stored.clone();
    let served = match resource.webhook {
        None => {
            meta::set(&mut tree, &["apiVersion"], resource.api_version());
            resource.stored()
        }
        Some(_) => {
            let of = |served: &&Served| served.api_version() == meta::api_version(&stored);
            resource.versions.iter().find(of).unwrap_or(resource.stored())
        }
    };
    let custom = served.custom.as_ref();
    let is_cut = custom.is_some_and(|custom| custom.read(&mut tree, object.json.len()).is_err());
    if is_cut {
        tracing::warn!(key = %object.key, "a stored object is shown without all of its defaults: they are too many");
    }
    Ok((is_cut || tree != stored).then_some((tree, is_cut)))
}

/// The first deletion of a definition marks it, and lets no object of its kind begin.
pub fn mark_deleted(definition: &mut Value, now: jiff::Timestamp) {
    let mut finalizers: Vec<Value> = meta::finalizers(definition).map(Value::from).collect();
    if !finalizers.iter().any(|own| own == CLEANUP) {
        finalizers.push(CLEANUP.into());
    }
    let metadata = meta::metadata_mut(definition);
    metadata.insert("deletionTimestamp".into(), time::rfc3339(now).into());
    metadata.insert("finalizers".into(), finalizers.into());
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    Condition::new("Terminating", true, "InstanceDeletionPending", message).put(definition);
}

/// Follows the definitions until the server stops.
pub async fn run(state: Arc<State>) {
    let Some(stored) = state.cache().resource(GROUP, PLURAL) else {
        return;
    };
    let (snapshot, mut watcher) = stored.watch_with_snapshot("", None);
    let mut dirty: Vec<String> = snapshot.iter().map(|object| object.name().to_string()).collect();
    drop(snapshot);
    let (mut events, mut again) = (Vec::new(), Again::default());
    loop {
        dirty.extend(again.due());
        if !dirty.is_empty() {
            let failed = settle(&state, &stored, dirty.clone()).await;
            again.settled(&dirty, failed);
            dirty.clear();
        }
        events.clear();
        match watcher.take(&mut events) {
            Next::Events => {}
            Next::TooOld | Next::Ended => {
                let (snapshot, fresh) = stored.watch_with_snapshot("", None);
                dirty.extend(snapshot.iter().map(|object| object.name().to_string()));
                dirty.extend(state.definitions().lock().names());
                watcher = fresh;
                continue;
            }
        }
        dirty.extend(events.iter().map(|event| event.object.name().to_string()));
        if dirty.is_empty() {
            tokio::select! {
                () = watcher.changed() => {}
                () = again.wait() => {}
            }
        }
    }
}

/// Definitions that are to be looked at again, each after a pause of its own: others do not wait with it, and what fails for
/// ever costs little.
#[derive(Default)]
struct Again(BTreeMap<String, (Backoff, Instant)>);

impl Again {
    fn settled(&mut self, looked_at: &[String], failed: Vec<String>) {
        for name in looked_at.iter().filter(|name| !failed.contains(name)) {
            self.0.remove(name);
        }
        for name in failed {
            let first = || (Backoff::new(SOON, LATE), Instant::now());
            let (backoff, due) = self.0.entry(name).or_insert_with(first);
            *due = Instant::now() + backoff.next_delay();
        }
    }

    fn due(&self) -> impl Iterator<Item = String> {
        let now = Instant::now();
        let due = self.0.iter().filter(move |(_, (_, due))| *due <= now);
        due.map(|(name, _)| name.clone())
    }

    /// Ends when one is due.
    async fn wait(&self) {
        match self.0.values().map(|(_, due)| *due).min() {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

/// Does what follows from some definitions; those that are to be looked at again.
async fn settle(state: &Arc<State>, stored: &Arc<ResourceCache>, dirty: Vec<String>) -> Vec<String> {
    // It may read all objects of a kind: not on a thread that serves requests.
    let (of, definitions, again) = (state.clone(), stored.clone(), dirty.clone());
    let looked = job::blocking("custom-resources", move || look(&of, &definitions, dirty)).await;
    let Ok(found) = looked else { return again };
    for name in found.cleans_up {
        cleanup::begin(state, stored, name);
    }
    let writes = found
        .statuses
        .into_iter()
        .map(|(name, revision, definition)| async move {
            let written = write_status(state, stored, &name, revision, definition).await;
            let failed = written.inspect_err(|status| {
                tracing::warn!(name, error = status.message, "a definition's status is not written");
            });
            failed.is_err().then_some(name)
        });
    let mut again = found.again;
    again.extend(futures::future::join_all(writes).await.into_iter().flatten());
    again
}

#[derive(Default)]
struct Found {
    /// Name, revision that was looked at, and the definition with its status.
    statuses: Vec<(String, u64, Value)>,
    cleans_up: Vec<String>,
    again: Vec<String>,
}

/// Looks at some definitions, and at those of their groups whose names they freed, and serves what they define. A panic is
/// one definition's failure: what the others changed is served all the same.
fn look(state: &Arc<State>, stored: &Arc<ResourceCache>, dirty: Vec<String>) -> Found {
    let mut found = Found::default();
    let mut definitions = state.definitions().lock();
    let mut open: Vec<String> = dirty;
    let (mut seen, mut serves_other) = (BTreeSet::new(), false);
    open.reverse();
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(object) = stored.get("", &name) else {
            if let Some((served, group)) = definitions.removed(&name, state.cache()) {
                serves_other |= served;
                let freed = definitions.others(&group, &name);
                seen.retain(|name| !freed.contains(name));
                open.extend(freed);
            }
            continue;
        };
        let definition = match object.value() {
            Ok(definition) => definition,
            Err(status) => {
                tracing::error!(name, error = status.message, "a definition is not served");
                continue;
            }
        };
        let told = std::panic::AssertUnwindSafe(|| definitions.changed(&definition, state.cache()));
        let told = match std::panic::catch_unwind(told) {
            Ok(told) => told,
            Err(panic) => {
                job::record_panic("custom-resources", &*panic);
                serves_other = true;
                found.again.push(name);
                continue;
            }
        };
        serves_other |= told.serves_other;
        if told.cleans_up {
            found.cleans_up.push(name.clone());
        }
        found
            .statuses
            .extend(told.status.map(|now| (name, object.revision, now)));
    }
    if serves_other {
        state.serve(definitions.resources());
    }
    found
}

/// Writes a definition's status, where the definition is still the one that was looked at.
async fn write_status(
    state: &State,
    stored: &Arc<ResourceCache>,
    name: &str,
    revision: u64,
    definition: Value,
) -> Result<(), Status> {
    own_write::change(state, stored, ("", name), "status", |current| {
        let same = current.revision == revision;
        Ok(same.then(|| definition.clone()))
    })
    .await
}

/// A kind and an object of it that is read much longer than it is stored: there is no room for its defaults.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn long_car() -> (Arc<Resource>, Value) {
    use serde_json::json;

    let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(1000)}}});
    let spec = json!({"type": "object", "properties": {"l": {"type": "array", "items": item}}});
    let definition = json!({
        "spec": {"group": "example.org", "scope": "Cluster", "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]},
        "status": {"acceptedNames": {"plural": "cars", "kind": "Car", "listKind": "CarList", "singular": "car"}}});
    let resource = Arc::new(mk8s_api::registry::custom::resource(&definition).unwrap());
    let items = vec![json!({}); 60_000];
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"l": items}});
    (resource, car)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Body;
    use mk8s_pki::serviceaccount::Keys;
    use serde_json::json;
    use tower::ServiceExt as _;

    use crate::{ApiServer, Config, User};

    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.org")},
            "spec": {"group": "example.org", "scope": "Cluster", "names": {"plural": plural, "kind": kind},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_looked_at_ever_less_often_and_holds_up_nothing_else() {
        let (mut again, begun, mut looks) = (Again::default(), Instant::now(), 0);
        let (bad, other) = (["bad".to_string()], ["other".to_string()]);
        while begun.elapsed() < Duration::from_secs(3600) {
            again.settled(&bad, bad.to_vec());
            again.wait().await;
            assert!(again.due().eq(bad.clone()));
            looks += 1;
        }
        assert!((50..80).contains(&looks), "{looks}");
        again.settled(&bad, bad.to_vec());
        again.settled(&other, other.to_vec());
        let begun = Instant::now();
        again.wait().await;
        assert!(begun.elapsed() <= 2 * SOON && again.due().eq(other.clone()));
        again.settled(&other, Vec::new());
        again.settled(&bad, Vec::new());
        let waited = tokio::time::timeout(Duration::from_secs(3600), again.wait()).await;
        assert!(waited.is_err() && again.due().next().is_none());
    }

    /// What one definition makes the server trip over is no other's matter, however they come together.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_definition_that_can_not_be_looked_at_holds_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::generate().unwrap());
        let server = ApiServer::open(Config::new(dir.path(), [127, 0, 0, 1].into(), keys)).unwrap();
        server.state().definitions().lock().panics_at = Some("bad.example.org");
        let router = server.router_as(User::authenticated("admin", ["system:masters".to_string()]));
        let send = async |method: &str, path: &str, body: &Value| {
            let request = http::Request::builder().method(method).uri(path);
            let request = request
                .header("content-type", "application/json")
                .body(Body::from(body.to_string()));
            router
                .clone()
                .oneshot(request.unwrap())
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for (plural, kind) in [("bad", "Bad"), ("good", "Good"), ("fine", "Fine")] {
            assert_eq!(send("POST", path, &definition(plural, kind)).await, 201);
        }
        for plural in ["good", "fine"] {
            let served = async || send("GET", &format!("/apis/example.org/v1/{plural}"), &Value::Null).await == 200;
            let begun = std::time::Instant::now();
            while !served().await {
                assert!(begun.elapsed() < Duration::from_secs(20), "{plural} is not served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // And it is looked at again.
        server.state().definitions().lock().panics_at = None;
        let begun = std::time::Instant::now();
        while send("GET", "/apis/example.org/v1/bad", &Value::Null).await != 200 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.close().await;
    }
}
