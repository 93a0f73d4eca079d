//! Where an informer's objects come from. A feed tells what exists and then every change, as text that nobody has decoded:
//! over HTTP ([`HttpFeed`](crate::HttpFeed)), or, in the API server's own process, straight from its watch cache.

use std::sync::Arc;

use futures::stream::BoxStream;
use mk8s_api::stored::Stored;

/// Which objects are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `Pod`
    pub kind: String,
    /// As in paths: `pods`.
    pub plural: String,
    /// Empty: all namespaces, or an object of the cluster.
    pub namespace: String,
    /// `spec.nodeName=a`; empty: no restriction.
    pub field_selector: String,
}

/// What a feed tells.
#[derive(Clone)]
pub enum Change {
    /// The object exists in this state.
    Applied(Arc<dyn Stored>),
    /// The object is gone, or no longer selected; its last known state, and the revision of its end.
    Deleted {
        /// As it was last.
        object: Arc<dyn Stored>,
        /// Of the deletion.
        revision: u64,
    },
    /// Everything up to this revision has been told. The first one closes the list of what exists.
    UpTo(u64),
}

/// Why a feed ended.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The history no longer reaches back to where the reader stopped: it has to begin anew.
    #[error("the revision is too old to be watched from")]
    Expired,
    /// The API server refuses, or cannot be reached.
    #[error(transparent)]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// A stream of [`Change`]s; it ends after an error, and may end without one.
pub type Changes = BoxStream<'static, Result<Change, FeedError>>;

/// A source of objects, read as one identity: who opens it must be allowed to list and to watch them.
pub trait Feed: Send + Sync + 'static {
    /// Begins with all objects selected, or, `after` a revision that was told before, with what happened since.
    fn open(&self, selection: &Selection, after: Option<u64>) -> Changes;
}
