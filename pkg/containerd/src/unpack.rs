//! Unpacking an image's layers, so that what counts as present is on disk.
//!
//! containerd syncs the database in which it notes a committed snapshot, and leaves the snapshot's files to the page
//! cache: after a power cut the note is there and the files are empty. So each snapshot that is unpacked here says so in
//! a label, and gets a second one when its file system has been synced:
//!
//! ```text
//!  absent ─▶ extracted ─▶ committed, labelled as ours ─▶ syncfs ─▶ labelled as on disk: present
//!                              └── found by a later process: removed with all that stands on it, unpacked again
//! ```
//!
//! What others unpacked is taken as it is.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use mk8s_supervisor::job;
use parking_lot::Mutex;
use prost_types::FieldMask;

use crate::client::{Containerd, call};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::snapshot::LABEL_CONTAINER;
use crate::task::TaskStatus;

/// Unpacked by mk8s.
const LABEL_UNPACKED: &str = "mk8s.io/unpacked";
/// Its file system was synced after that.
const LABEL_ON_DISK: &str = "mk8s.io/on-disk";
/// What the keys of our own short-lived snapshots begin with.
pub(crate) const OWN_KEY: &str = "mk8s-";

/// What this process knows about chains of snapshots, by chain id.
#[derive(Default)]
pub(crate) struct Unpacked {
    /// Committed by this process and not labelled as on disk yet: no power cut can have come in between.
    fresh: Mutex<HashSet<String>>,
    /// Tops of chains that were found whole. One that somebody removes since shows itself when a container wants it.
    whole: Mutex<HashSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// On disk, or somebody else's.
    Whole,
    /// Ours, and not known to have reached the disk.
    Unsynced,
}

fn state(info: Option<&snap::Info>) -> State {
    match info.map(|info| &info.labels) {
        None => State::Absent,
        Some(labels) if labels.contains_key(LABEL_UNPACKED) && !labels.contains_key(LABEL_ON_DISK) => State::Unsynced,
        Some(_) => State::Whole,
    }
}

impl Containerd {
    /// Makes sure, once in this process's life, that all of the image's layers are unpacked and on disk.
    pub(crate) async fn ensure_unpacked(&self, image: &Image) -> Result<()> {
        if image.chain_id.is_empty() || self.shared.unpacked.whole.lock().contains(&image.chain_id) {
            return Ok(());
        }
        self.unpack(image).await
    }

    /// Makes what the image's chain of committed snapshots lacks.
    pub(crate) async fn unpack(&self, image: &Image) -> Result<()> {
        self.shared.unpacked.whole.lock().remove(&image.chain_id);
        let chain = image.chain_ids();
        let states = self.states(&chain).await?;
        if states.iter().all(|state| *state == State::Whole) {
            self.shared.unpacked.whole.lock().insert(image.chain_id.clone());
            return Ok(());
        }
        let lease = self.lease().await?;
        let unpacked = lease.client.unpack_leased(image).await;
        lease.end().await;
        unpacked
    }

    pub(crate) async fn unpack_leased(&self, image: &Image) -> Result<()> {
        let mut parent = String::new();
        for (index, chain_id) in image.chain_ids().into_iter().enumerate() {
            self.unpack_layer(image, index, &parent, &chain_id).await?;
            parent = chain_id;
        }
        self.finish_unpacking(image).await
    }

    /// The last step, when every layer is there: they reach the disk, and the image's config holds them.
    pub(crate) async fn finish_unpacking(&self, image: &Image) -> Result<()> {
        self.put_on_disk(&image.chain_ids()).await?;
        self.keep_snapshot(image).await?;
        self.shared.unpacked.whole.lock().insert(image.chain_id.clone());
        Ok(())
    }

    /// In the order of the chain.
    async fn states(&self, chain: &[String]) -> Result<Vec<State>> {
        if chain.is_empty() {
            return Ok(Vec::new());
        }
        let filters = chain.iter().map(|id| format!("name=={id:?}")).collect();
        let found = self.list_snapshots(filters).await?;
        let info = |id: &String| found.iter().find(|info| &info.name == id);
        Ok(chain.iter().map(|id| state(info(id))).collect())
    }

    /// One layer, unless it is there: extracted by containerd's diff service into a fresh snapshot, then committed under
    /// its chain id.
    pub(crate) async fn unpack_layer(&self, image: &Image, index: usize, parent: &str, chain_id: &str) -> Result<()> {
        let _turn = self.shared.locks.lock(chain_id).await;
        let is_fresh = self.shared.unpacked.fresh.lock().contains(chain_id);
        match self.states(&[chain_id.to_owned()]).await?[..] {
            [State::Whole] => return Ok(()),
            [State::Unsynced] if is_fresh => return Ok(()),
            [State::Unsynced] => {
                tracing::warn!(
                    snapshot = chain_id,
                    "unpacked, but not known to be on disk: unpacking it again"
                );
                self.remove_with_children(chain_id).await?;
            }
            _ => {}
        }
        let (layer, diff_id) = (&image.layers[index], &image.diff_ids[index]);
        let what = format!("unpack layer {}", layer.digest);
        let key = extract_key(chain_id);
        let mounts = self.prepare(&key, parent, HashMap::new()).await?;
        let request = api::ApplyRequest {
            diff: Some(layer.clone().into()),
            mounts,
            payloads: HashMap::new(),
            // Only containerd 2 knows it, and it would cost a sync per layer.
            sync_fs: false,
        };
        // Extraction of a large layer takes its time: no limit here.
        let applied = self.diff_api().apply(request).await.map_err(|e| Error::rpc(&what, e));
        let applied = applied.map(|answer| answer.into_inner().applied.unwrap_or_default().digest);
        let committed = match applied {
            Ok(digest) if &digest == diff_id => self.commit_snapshot(chain_id, &key).await,
            Ok(digest) => Err(Error::malformed(
                &what,
                format!("unpacked to {digest}, the image says {diff_id}"),
            )),
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => Ok(()),
            Err(error) => {
                let _ = self.remove_snapshot(self.snapshotter(), &key).await;
                // Another unpacker of the same layer was first.
                if error.is_already_exists() { Ok(()) } else { Err(error) }
            }
        }
    }

    async fn commit_snapshot(&self, name: &str, key: &str) -> Result<()> {
        let request = snap::CommitSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            // The lease holds it until the image's config does.
            labels: HashMap::from([(LABEL_UNPACKED.to_owned(), "true".to_owned())]),
        };
        call(&format!("commit snapshot {name}"), self.snapshots_api().commit(request)).await?;
        self.shared.unpacked.fresh.lock().insert(name.to_owned());
        Ok(())
    }

    /// Syncs the snapshots' file system, then labels those of the chain that are ours and lack the label.
    async fn put_on_disk(&self, chain: &[String]) -> Result<()> {
        let states = self.states(chain).await?;
        let unsynced: Vec<&String> = (chain.iter().zip(states))
            .filter(|(_, state)| *state == State::Unsynced)
            .map(|(id, _)| id)
            .collect();
        if unsynced.is_empty() {
            return Ok(());
        }
        let root = self.image_dir().map(Path::to_owned);
        job::blocking("containerd-syncfs", move || sync(root.as_deref()))
            .await
            .map_err(|ended| Error::malformed("sync the snapshots", ended))??;
        for id in unsynced {
            self.label_on_disk(id).await?;
            self.shared.unpacked.fresh.lock().remove(id);
        }
        Ok(())
    }

    async fn label_on_disk(&self, name: &str) -> Result<()> {
        let request = snap::UpdateSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            info: Some(snap::Info {
                name: name.to_owned(),
                labels: HashMap::from([(LABEL_ON_DISK.to_owned(), "true".to_owned())]),
                ..Default::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec![format!("labels.{LABEL_ON_DISK}")],
            }),
        };
        call(&format!("label snapshot {name}"), self.snapshots_api().update(request))
            .await
            .map(|_| ())
    }

    /// Removes a snapshot of ours and everything that stands on it, the topmost first. Stops at one that somebody else
    /// made, or whose container runs.
    pub(crate) async fn remove_with_children(&self, name: &str) -> Result<()> {
        for child in self.list_snapshots(vec![format!("parent=={name:?}")]).await? {
            if !self.may_remove(&child).await? {
                return Err(Error::InUse {
                    what: format!("snapshot {name}"),
                    by: child.name,
                });
            }
            Box::pin(self.remove_with_children(&child.name)).await?;
        }
        self.shared.unpacked.whole.lock().remove(name);
        self.remove_snapshot(self.snapshotter(), name).await
    }

    async fn may_remove(&self, snapshot: &snap::Info) -> Result<bool> {
        if snapshot.labels.contains_key(LABEL_CONTAINER) {
            return match self.task(&snapshot.name).await {
                Ok(task) => Ok(task.status == TaskStatus::Stopped),
                Err(error) if error.is_not_found() => Ok(true),
                Err(error) => Err(error),
            };
        }
        Ok(snapshot.labels.contains_key(LABEL_UNPACKED) || snapshot.name.starts_with(OWN_KEY))
    }

    /// The image's config blob refers to the top snapshot, as containerd's own unpacker leaves it.
    async fn keep_snapshot(&self, image: &Image) -> Result<()> {
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter());
        self.label_blob(&image.id, HashMap::from([(label, image.chain_id.clone())]))
            .await
    }
}

/// Writes out the file system that a directory lies on; all of them where containerd doesn't tell which.
fn sync(root: Option<&Path>) -> Result<()> {
    let Some(root) = root else {
        nix::unistd::sync();
        return Ok(());
    };
    let directory = File::open(root).map_err(|e| Error::path("open", root, e))?;
    nix::unistd::syncfs(&directory).map_err(|errno| Error::path("sync the file system of", root, errno.into()))
}

/// Unlike any other extraction of the same layer that may run at the time.
fn extract_key(chain_id: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!("{OWN_KEY}extract-{nanos:x}-{count:x} {chain_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_unlabelled_snapshots_are_doubted() {
        let with = |labels: &[&str]| {
            let labels = labels.iter().map(|label| ((*label).to_owned(), "true".to_owned()));
            state(Some(&snap::Info {
                labels: labels.collect(),
                ..Default::default()
            }))
        };
        assert_eq!(state(None), State::Absent);
        assert_eq!(with(&[]), State::Whole);
        assert_eq!(with(&[LABEL_UNPACKED]), State::Unsynced);
        assert_eq!(with(&[LABEL_UNPACKED, LABEL_ON_DISK]), State::Whole);
    }
}
