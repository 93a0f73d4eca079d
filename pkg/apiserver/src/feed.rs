//! What the informers of this process read: the watch cache itself. No request, no frame, no copy: they are handed the
//! cache's own objects. Who reads is authorized to list and to watch, once, when it begins.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use mk8s_api::selectors::FieldSelector;
use mk8s_api::status::Status;
use mk8s_api::stored::Stored;
use mk8s_client::feed::{Change, Changes, Feed, FeedError, Selection};

use crate::filter::Filter;
use crate::filters::authz::Attributes;
use crate::handlers::watch::Scope;
use crate::identity::User;
use crate::object::Object;
use crate::options::ListOptions;
use crate::request::RequestInfo;
use crate::state::State;
use crate::watch_cache::{Event, EventKind, Next, Snapshot, Watcher};

/// Objects of a snapshot that are told in one go.
const AT_ONCE: usize = 256;

/// The watch cache as one user may see it.
pub(crate) struct CacheFeed {
    pub state: Arc<State>,
    pub user: User,
}

impl Stored for Object {
    fn namespace(&self) -> &str {
        Object::namespace(self)
    }

    fn name(&self) -> &str {
        Object::name(self)
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn json(&self) -> &[u8] {
        &self.json
    }
}

impl Feed for CacheFeed {
    fn open(&self, selection: &Selection, after: Option<u64>) -> Changes {
        let reading = self.begin(selection, after);
        let changes = futures::stream::unfold(Some(reading), |reading| async {
            match reading? {
                Err(error) => Some((Err(error), None)),
                Ok(mut reading) => {
                    let change = reading.next().await;
                    let next = change.is_ok().then_some(Ok(reading));
                    Some((change, next))
                }
            }
        });
        changes.boxed()
    }
}

fn refused(status: Status) -> FeedError {
    FeedError::Failed(status.message.into())
}

/// What a request for the same objects would be.
fn info(selection: &Selection) -> RequestInfo {
    let fields = match selection.field_selector.as_str() {
        "" => None,
        text => Some(FieldSelector::parse(text)),
    };
    let mut info = RequestInfo {
        is_resource: true,
        verb: "list",
        group: selection.group.clone(),
        version: selection.version.clone(),
        resource: selection.plural.clone(),
        namespace: selection.namespace.clone(),
        fields,
        ..RequestInfo::default()
    };
    info.name = info
        .field_selector()
        .required("metadata.name")
        .unwrap_or_default()
        .into();
    info
}

impl CacheFeed {
    fn begin(&self, selection: &Selection, after: Option<u64>) -> Result<Reading, FeedError> {
        let Selection {
            group, version, plural, ..
        } = selection;
        let registry = self.state.registry();
        let row = registry.rows().get(group, version, plural);
        // A row that shows another version's objects has text of its own, which only a request makes. Who reads objects of a
        // custom kind here reads what they have in every version, and is told of them as they are stored.
        let row = row.filter(|row| row.shows_stored() || row.served().custom.is_some());
        let served = row.and_then(|row| Some((row, row.cache.as_ref()?)));
        let (row, cache) = served
            .ok_or_else(|| FeedError::Failed(format!("{plural} of {group}/{version} are not what is stored").into()))?;
        let mut info = info(selection);
        let filter = Filter::new(row, &info, &ListOptions::default()).map_err(refused)?;
        for verb in ["list", "watch"] {
            info.verb = verb;
            let asked = Attributes::of_request(&self.user, &info);
            self.state.authorizer().check(&asked).map_err(refused)?;
        }
        let indexed = filter.indexed.clone();
        let (listing, watcher) = match after {
            None => {
                let (snapshot, watcher) = cache.watch_with_snapshot(&selection.namespace, indexed.as_deref());
                (Some(Listing { snapshot, told: None }), watcher)
            }
            Some(revision) => {
                let watcher = cache.watch_from(&selection.namespace, revision, indexed.as_deref());
                (None, watcher.map_err(|_| FeedError::Expired)?)
            }
        };
        if row.is_past() {
            // It began on what a definition made of the resource meanwhile: nothing would end it.
            return Err(FeedError::Expired);
        }
        Ok(Reading {
            scope: Scope::new(cache, &selection.namespace, filter),
            listing,
            watcher,
            events: Vec::new(),
            told: VecDeque::new(),
            up_to: 0,
        })
    }
}

/// The objects that exist, and the last one told.
struct Listing {
    snapshot: Snapshot,
    told: Option<Arc<str>>,
}

struct Reading {
    scope: Scope,
    listing: Option<Listing>,
    watcher: Watcher,
    events: Vec<Arc<Event>>,
    told: VecDeque<Change>,
    up_to: u64,
}

impl Reading {
    async fn next(&mut self) -> Result<Change, FeedError> {
        loop {
            if let Some(change) = self.told.pop_front() {
                return Ok(change);
            }
            if self.listing.is_some() {
                // Nothing of a list is ever waited for: without this, its reader would keep a thread for as long as it takes to
                // decode every object of the cluster.
                tokio::task::yield_now().await;
                self.list();
            } else {
                self.watch().await?;
            }
        }
    }

    fn list(&mut self) {
        let Some(listing) = &mut self.listing else { return };
        let mut last = None;
        for object in listing.snapshot.iter_after(listing.told.as_deref()).take(AT_ONCE) {
            last = Some(object.key.clone());
            if self.scope.covers(object) {
                self.told.push_back(Change::Applied(object.clone()));
            }
        }
        if last.is_some() {
            listing.told = last;
            return;
        }
        self.up_to = listing.snapshot.revision;
        self.told.push_back(Change::UpTo(self.up_to));
        self.listing = None;
    }

    async fn watch(&mut self) -> Result<(), FeedError> {
        self.events.clear();
        if let Next::TooOld | Next::Ended = self.watcher.take(&mut self.events) {
            return Err(FeedError::Expired);
        }
        for event in &self.events {
            let Some((kind, object)) = self.scope.sees(event) else {
                continue;
            };
            self.told.push_back(match kind {
                EventKind::Deleted => Change::Deleted {
                    object: object.clone(),
                    revision: event.revision,
                },
                EventKind::Added | EventKind::Modified => Change::Applied(object.clone()),
            });
        }
        if !self.events.is_empty() {
            return Ok(());
        }
        // Also what others wrote, or what is none of this reader's: who waits for a revision learns that it has passed.
        match self.watcher.caught_up() {
            Some(revision) if revision > self.up_to => {
                self.up_to = revision;
                self.told.push_back(Change::UpTo(revision));
            }
            _ => self.watcher.changed().await,
        }
        Ok(())
    }
}
