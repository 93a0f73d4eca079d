//! The objects of one kind, read from a feed: begun again when it fails, and anew when its history is lost or it panics.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use mk8s_api::codec::json;
use mk8s_api::stored::Stored;
use mk8s_client::feed::{self, Changes};
use mk8s_client::{Feed, FeedError, Pauses};
use mk8s_supervisor::job;
use serde::Deserialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Change, Kind};

/// Begins to read the objects of a kind; dropped, the guard ends that.
pub(super) fn begin(feed: &Arc<dyn Feed>, kind: &Arc<Kind>) -> (DropGuard, BoxStream<'static, Change>) {
    let stop = CancellationToken::new();
    let reading = Reading {
        feed: feed.clone(),
        kind: kind.clone(),
        changes: None,
        after: None,
        uids: HashSet::new(),
        pauses: Pauses::default(),
        failing: false,
    };
    let read = futures::stream::unfold(reading, |mut reading| async {
        let change = reading.next().await;
        Some((change, reading))
    });
    let read = read.take_until(stop.clone().cancelled_owned()).boxed();
    (stop.drop_guard(), read)
}

/// The objects of one kind, as far as they were read.
struct Reading {
    feed: Arc<dyn Feed>,
    kind: Arc<Kind>,
    changes: Option<Changes>,
    /// The revision to go on from; none while a list is read.
    after: Option<u64>,
    /// What that list has named.
    uids: HashSet<String>,
    pauses: Pauses,
    /// That was told.
    failing: bool,
}

impl Reading {
    async fn next(&mut self) -> Change {
        loop {
            match AssertUnwindSafe(self.read()).catch_unwind().await {
                Ok(Some(Ok(change))) => {
                    self.failing = false;
                    match self.hear(change) {
                        Some(change) => return change,
                        None => continue,
                    }
                }
                Ok(Some(Err(FeedError::Expired))) => self.after = None,
                Ok(Some(Err(error))) if self.failing => {
                    tracing::debug!(kind = self.kind.api.kind, %error, "a metadata watch failed again");
                }
                Ok(Some(Err(error))) => {
                    self.failing = true;
                    tracing::warn!(kind = self.kind.api.kind, %error, "a metadata watch failed and is tried until it works");
                }
                Ok(None) => {}
                Err(panic) => {
                    job::record_panic("metadata watch", panic.as_ref());
                    self.after = None;
                }
            }
            self.changes = None;
            tokio::time::sleep(self.pauses.ended()).await;
        }
    }

    async fn read(&mut self) -> Option<Result<feed::Change, FeedError>> {
        let changes = match &mut self.changes {
            Some(changes) => changes,
            None => {
                if self.after.is_none() {
                    self.uids.clear();
                }
                let selection = self.kind.selection();
                self.pauses.opened();
                self.changes.insert(self.feed.open(&selection, self.after))
            }
        };
        changes.next().await
    }

    fn hear(&mut self, change: feed::Change) -> Option<Change> {
        match change {
            feed::Change::Applied(object) => {
                let meta = self.metadata(&*object)?;
                match &mut self.after {
                    Some(reached) => *reached = object.revision(),
                    None => self.uids.extend(meta.uid.clone()),
                }
                Some(Change::Applied(self.kind.clone(), meta))
            }
            feed::Change::Deleted { object, revision } => {
                self.after = self.after.map(|_| revision);
                Some(Change::Deleted(self.kind.clone(), self.metadata(&*object)?))
            }
            feed::Change::UpTo(revision) => {
                let listed = self.after.replace(revision).is_none();
                listed.then(|| Change::Listed(self.kind.clone(), std::mem::take(&mut self.uids)))
            }
        }
    }

    fn metadata(&self, object: &dyn Stored) -> Option<Box<ObjectMeta>> {
        let read = json::metadata(object.json()).and_then(|text| serde_json::from_str::<Metadata>(text).ok());
        if read.is_none() {
            let (kind, namespace, name) = (&self.kind.api.kind, object.namespace(), object.name());
            tracing::error!(
                kind,
                namespace,
                name,
                "an object's metadata cannot be decoded and is left out"
            );
        }
        read.map(|metadata| Box::new(metadata.into()))
    }
}

/// What is read of an object's metadata.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        ObjectMeta {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            owner_references: metadata.owner_references,
            finalizers: metadata.finalizers,
            deletion_timestamp: metadata.deletion_timestamp,
            ..ObjectMeta::default()
        }
    }
}
