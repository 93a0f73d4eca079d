//! Snapshots: an image's layers unpacked once, and a writable one per container on top.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;

use crate::client::{Containerd, Options, call, message};
use crate::error::{Error, Result, gone_is_fine};
use crate::image::Image;

/// Keeps a container's snapshot from being collected before its record names it. Everything else that is made here is
/// made under a lease, so that a crash leaves nothing for good.
const GC_ROOT: &str = "containerd.io/gc.root";
/// Tells ours from others' roots, for [`Containerd::sweep_leftovers`].
pub(crate) const LABEL_CONTAINER: &str = "mk8s.io/container";

/// What a directory of ours holds. No entry has a name that is no text.
fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::path("list", directory, error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    entries
        .filter_map(|entry| entry.map(name).transpose())
        .collect::<io::Result<_>>()
        .map_err(failed)
}

impl Containerd {
    /// The writable snapshot of a container; unpacks the image first where that has not been done.
    pub(crate) async fn prepare_snapshot(&self, key: &str, image: &Image) -> Result<Vec<Mount>> {
        let parent = image.chain_id.as_str();
        let labels = || HashMap::from([GC_ROOT, LABEL_CONTAINER].map(|label| (label.to_owned(), "true".to_owned())));
        self.ensure_unpacked(image).await?;
        match self.prepare(key, parent, labels()).await {
            Err(error) if error.is_not_found() => {
                // It was there once: somebody removed it since.
                self.unpack(image).await?;
                self.prepare(key, parent, labels()).await
            }
            Err(error) if error.is_already_exists() => {
                if self.container(key).await.is_ok() {
                    return Err(error);
                }
                // Left over from an attempt that ended half-way.
                self.remove_snapshot(self.snapshotter(), key).await?;
                self.prepare(key, parent, labels()).await
            }
            other => other,
        }
    }

    pub(crate) async fn prepare(&self, key: &str, parent: &str, labels: HashMap<String, String>) -> Result<Vec<Mount>> {
        let request = snap::PrepareSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let answer = call(
            &format!("prepare snapshot {key}"),
            self.snapshots_api().prepare(request),
        )
        .await?;
        Ok(answer.mounts)
    }

    /// A read-only snapshot; to be asked for under a lease.
    pub(crate) async fn view_snapshot(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        let request = snap::ViewSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        Ok(
            call(&format!("view snapshot {parent}"), self.snapshots_api().view(request))
                .await?
                .mounts,
        )
    }

    /// Removes snapshots, volumes and stdio of containers that have no record, and of commands that were run in some: a crash
    /// left them. To be called before containers are created, by the one process that creates any. Answers how many of
    /// them it was.
    pub async fn sweep_leftovers(&self) -> Result<usize> {
        let ours = format!("labels.{LABEL_CONTAINER:?}==true");
        let snapshots = self.list_snapshots(vec![ours]).await?.into_iter().map(|info| info.name);
        let Options {
            io_dir, volumes_dir, ..
        } = &self.shared.options;
        let mut ids: BTreeSet<String> = snapshots.collect();
        ids.extend(names(io_dir)?);
        ids.extend(names(volumes_dir)?);
        let mut swept = 0;
        for id in ids {
            match self.container(&id).await {
                Err(error) if error.is_not_found() => {
                    self.remove_snapshot(self.snapshotter(), &id).await?;
                    self.remove_image_volumes(&id).await?;
                    self.remove_stdio(&id)?;
                    swept += 1;
                }
                // What is not known to be gone stays.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(swept)
    }

    pub(crate) async fn snapshot_mounts(&self, snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
        let request = snap::MountsRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        };
        Ok(call(
            &format!("mounts of snapshot {key}"),
            self.snapshots_api().mounts(request),
        )
        .await?
        .mounts)
    }

    pub(crate) async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let request = snap::RemoveSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        };
        gone_is_fine(call(&format!("remove snapshot {key}"), self.snapshots_api().remove(request)).await)
    }

    /// What the snapshotter has; one filter of several is enough to be listed.
    pub(crate) async fn list_snapshots(&self, filters: Vec<String>) -> Result<Vec<snap::Info>> {
        let what = "list snapshots";
        let request = snap::ListSnapshotsRequest {
            snapshotter: self.snapshotter().to_owned(),
            filters,
        };
        let mut stream = call(what, self.snapshots_api().list(request)).await?;
        let mut found = Vec::new();
        while let Some(part) = message(what, &mut stream).await? {
            found.extend(part.info);
        }
        Ok(found)
    }

    /// Bytes and inodes that a container has written into its root filesystem.
    pub async fn rootfs_usage(&self, id: &str) -> Result<(u64, u64)> {
        let request = snap::UsageRequest {
            snapshotter: self.snapshotter().to_owned(),
            key: id.to_owned(),
        };
        let answer = call(&format!("usage of snapshot {id}"), self.snapshots_api().usage(request)).await?;
        Ok((
            u64::try_from(answer.size).unwrap_or_default(),
            u64::try_from(answer.inodes).unwrap_or_default(),
        ))
    }
}
