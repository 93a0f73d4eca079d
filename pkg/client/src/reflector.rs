//! Keeps an informer as the API server has it: reads its feed, and opens it again when it ends.

use std::sync::{Arc, LazyLock};

use futures::StreamExt;
use mk8s_supervisor::metrics;
use nohash_hasher::IntSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::feed::{Change, Feed, FeedError, Selection};
use crate::informer::{Key, Shared};
use crate::kind::Kind;
use crate::pauses::Pauses;

/// By kind.
static UNDECODABLE: LazyLock<Family<Vec<(&'static str, String)>, Counter>> = LazyLock::new(|| {
    let counts = Family::default();
    let what = "States of objects that an informer could not decode";
    metrics::register(|registry| registry.register("mk8s_informer_undecodable", what, Family::clone(&counts)));
    counts
});

/// Runs for ever. Started anew after a panic, it lists again, and what did not change stays as it is.
pub(crate) async fn reflect<K: Kind>(feed: Arc<dyn Feed>, selection: Selection, shared: Arc<Shared<K>>) {
    let mut pauses = Pauses::default();
    let mut failing = false;
    let mut place = Place::default();
    loop {
        pauses.opened();
        let mut changes = feed.open(&selection, place.begin());
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    failing = false;
                    let object = match &change {
                        Change::Applied(object) => Some(object.clone()),
                        _ => None,
                    };
                    if let (Err(error), Some(object)) = (place.hear(&shared, change), object) {
                        let (kind, namespace, name) = (&selection.kind, object.namespace(), object.name());
                        tracing::error!(%kind, namespace, name, %error, "an object cannot be decoded and stays as it was known");
                        UNDECODABLE.get_or_create(&vec![("kind", kind.clone())]).inc();
                    }
                    // All handlers have heard of it by now: of many changes others get this thread in between.
                    tokio::task::coop::consume_budget().await;
                    continue;
                }
                Err(FeedError::Expired) => place = Place::default(),
                // Told once: a server that is down is so for every kind, again and again.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(kind = %selection.kind, %error, "a watch failed and is tried until it works");
                }
                Err(error) => tracing::debug!(kind = %selection.kind, %error, "a watch failed again"),
            }
        }
        tokio::time::sleep(pauses.ended()).await;
    }
}

/// How far a feed has been read.
#[derive(Default)]
struct Place {
    /// The revision to go on from; none while a list is read.
    revision: Option<u64>,
    /// What the list that is read has named so far.
    listed: IntSet<Key>,
}

impl Place {
    /// Where to open the feed. A list that was not read to its end begins anew.
    fn begin(&mut self) -> Option<u64> {
        self.listed.clear();
        self.revision
    }

    fn hear<K: Kind>(&mut self, shared: &Shared<K>, change: Change) -> serde_json::Result<()> {
        let (revision, heard) = match change {
            Change::UpTo(revision) => {
                if self.revision.is_none() {
                    shared.retain(&std::mem::take(&mut self.listed));
                    self.revision = Some(revision);
                }
                (revision, Ok(()))
            }
            Change::Applied(object) => {
                if self.revision.is_none() {
                    self.listed.insert(Key::of(&*object));
                }
                (object.revision(), shared.apply(object))
            }
            Change::Deleted { object, revision } => {
                shared.delete(&Key::of(&*object), Some(object));
                (revision, Ok(()))
            }
        };
        if let Some(reached) = &mut self.revision {
            *reached = revision;
            shared.reached(revision);
        }
        heard
    }
}
