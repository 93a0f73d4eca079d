//! Snapshots: an image's layers unpacked once, and a writable one per container on top.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;

use crate::client::{Containerd, call};
use crate::error::{Error, Result, gone_is_fine};
use crate::image::Image;

/// Keeps a container's snapshot from being collected before its record names it. Everything else that is made here is
/// made under a lease, so that a crash leaves nothing for good.
const GC_ROOT: &str = "containerd.io/gc.root";
/// Tells ours from others' roots, for [`Containerd::sweep_snapshots`].
const LABEL_CONTAINER: &str = "mk8s.io/container";

impl Containerd {
    /// The writable snapshot of a container; unpacks the image first where that has not been done.
    pub(crate) async fn prepare_snapshot(&self, key: &str, image: &Image) -> Result<Vec<Mount>> {
        let parent = image.chain_id.as_str();
        let labels = || HashMap::from([GC_ROOT, LABEL_CONTAINER].map(|label| (label.to_owned(), "true".to_owned())));
        match self.prepare(key, parent, labels()).await {
            Err(error) if error.is_not_found() => {
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

    async fn prepare(&self, key: &str, parent: &str, labels: HashMap<String, String>) -> Result<Vec<Mount>> {
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

    /// Removes snapshots of containers that have no record: a crash between the two left them. To be called before
    /// containers are created, by the one process that creates any.
    pub async fn sweep_snapshots(&self) -> Result<usize> {
        let what = "list snapshots";
        let request = snap::ListSnapshotsRequest {
            snapshotter: self.snapshotter().to_owned(),
            filters: vec![format!("labels.{LABEL_CONTAINER:?}==true")],
        };
        let mut stream = call(what, self.snapshots_api().list(request)).await?;
        let mut keys = Vec::new();
        while let Some(part) = stream.message().await.map_err(|e| Error::rpc(what, e))? {
            keys.extend(part.info.into_iter().map(|info| info.name));
        }
        let mut swept = 0;
        for key in keys {
            if matches!(self.container(&key).await, Err(error) if error.is_not_found()) {
                self.remove_snapshot(self.snapshotter(), &key).await?;
                self.remove_image_volumes(&key)?;
                swept += 1;
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

    pub(crate) async fn has_snapshot(&self, name: &str) -> Result<bool> {
        let request = snap::StatSnapshotRequest {
            snapshotter: self.snapshotter().to_owned(),
            key: name.to_owned(),
        };
        match call(&format!("look up snapshot {name}"), self.snapshots_api().stat(request)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
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

    /// Makes the image's chain of committed snapshots; layers that are there already are passed over.
    pub(crate) async fn unpack(&self, image: &Image) -> Result<()> {
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
        self.keep_snapshot(image).await
    }

    /// One layer, unless it is there: extracted by containerd's diff service into a fresh snapshot, then committed under its chain id.
    pub(crate) async fn unpack_layer(&self, image: &Image, index: usize, parent: &str, chain_id: &str) -> Result<()> {
        let _turn = self.shared.locks.lock(chain_id).await;
        if self.has_snapshot(chain_id).await? {
            return Ok(());
        }
        let (layer, diff_id) = (&image.layers[index], &image.diff_ids[index]);
        let what = format!("unpack layer {}", layer.digest);
        let key = extract_key(chain_id);
        let mounts = self.prepare(&key, parent, HashMap::new()).await?;
        let request = api::ApplyRequest {
            diff: Some(layer.clone().into()),
            mounts,
            payloads: HashMap::new(),
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
            labels: HashMap::new(),
        };
        call(&format!("commit snapshot {name}"), self.snapshots_api().commit(request))
            .await
            .map(|_| ())
    }

    /// The image's config blob refers to the top snapshot, as containerd's own unpacker leaves it.
    pub(crate) async fn keep_snapshot(&self, image: &Image) -> Result<()> {
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter());
        self.label_blob(&image.id, HashMap::from([(label, image.chain_id.clone())]))
            .await
    }
}

/// Unlike any other extraction of the same layer that may run at the time.
fn extract_key(chain_id: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!("mk8s-extract-{nanos:x}-{count:x} {chain_id}")
}
