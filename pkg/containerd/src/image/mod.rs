//! Images in containerd's store: the records that name them, and what manifest and config say.
//!
//! Records are named as containerd's CRI plugin names them (`docker.io/library/busybox:1`, `…@sha256:…`, and the bare
//! `sha256:…` of the config), so that crictl and the plugin see ours and we see theirs.

mod import;
pub(crate) mod manifest;
mod pause;
mod recent;
pub mod reference;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use containerd_client::services::v1 as api;
use prost_types::FieldMask;

pub use manifest::ImageConfig;
pub(crate) use manifest::{ACCEPTED, Descriptor, sha256};
pub use pause::PAUSE_IMAGE;

use crate::client::{Containerd, call};
use crate::content::Labels;
use crate::error::{Error, Result, gone_is_fine};
use crate::mount;
use crate::spec::accounts::Accounts;
use crate::unpack::OWN_KEY;
use manifest::Resolved;
use recent::Recent;
use reference::Reference;

/// The CRI plugin takes care of records with this label.
const LABEL_CRI: (&str, &str) = ("io.cri-containerd.image", "managed");
/// Pulled by mk8s: what reset removes.
const LABEL_PULLED: (&str, &str) = ("mk8s.io/pulled", "true");
/// Keeps an image from the CRI plugin's (and upstream kubelet's) image collection.
const LABEL_PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// One image, whatever number of names it has.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The record that was asked for.
    pub name: String,
    /// Digest of the config, `sha256:…`: what a pod's status shows as an image id where no digest reference exists.
    pub id: String,
    /// Digest of what the name points to: a manifest or an index.
    pub digest: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Of config and compressed layers.
    pub size: u64,
    pub config: Arc<ImageConfig>,
    pub pinned: bool,
    pub(crate) layers: Arc<Vec<Descriptor>>,
    pub(crate) diff_ids: Arc<Vec<String>>,
    pub(crate) chain_id: String,
}

impl Image {
    pub(crate) fn new(name: &str, digest: &str, resolved: &Resolved) -> Image {
        Image {
            name: name.to_owned(),
            id: resolved.id.clone(),
            digest: digest.to_owned(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: resolved.size,
            config: resolved.config.clone(),
            pinned: false,
            layers: resolved.layers.clone(),
            diff_ids: resolved.diff_ids.clone(),
            chain_id: manifest::chain_ids(&resolved.diff_ids).pop().unwrap_or_default(),
        }
    }

    pub(crate) fn chain_ids(&self) -> Vec<String> {
        manifest::chain_ids(&self.diff_ids)
    }

    /// What `status.containerStatuses[].imageID` shows: a digest reference where there is one, else the id.
    pub fn image_id(&self) -> &str {
        self.repo_digests.first().map_or(self.id.as_str(), String::as_str)
    }
}

/// What can be known for good once a digest is known.
#[derive(Default)]
pub(crate) struct ImageCache {
    resolved: Recent<Resolved>,
    accounts: Recent<Accounts>,
}

impl Containerd {
    /// Finds an image by reference (`busybox`, `registry/x:1@sha256:…`) or id (`sha256:…`, or its hex part).
    pub async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let Some(name) = record_name(reference) else {
            return Ok(None);
        };
        let what = format!("get image {name}");
        let request = api::GetImageRequest { name: name.clone() };
        match call(&what, self.images_api().get(request)).await {
            Ok(answer) => {
                let record = answer.image.ok_or_else(|| Error::malformed(&what, "empty answer"))?;
                self.whole_image(record).await.map(Some)
            }
            Err(error) if error.is_not_found() => self.image_by_id(reference).await,
            Err(error) => Err(error),
        }
    }

    /// An id has a record of its own only where the CRI plugin runs: else the names' configs tell.
    async fn image_by_id(&self, id: &str) -> Result<Option<Image>> {
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let images = self.images().await?;
        Ok(images
            .into_iter()
            .find(|image| image.id.strip_prefix("sha256:") == Some(hex)))
    }

    /// All images, each once.
    pub async fn images(&self) -> Result<Vec<Image>> {
        let request = api::ListImagesRequest { filters: Vec::new() };
        let records = call("list images", self.images_api().list(request)).await?.images;
        let mut by_id: Vec<Image> = Vec::new();
        for record in records {
            // A record whose content is not there (another platform's, half pulled) is no image that can run.
            let Ok(image) = self.image_of(&record).await else {
                continue;
            };
            match by_id.iter_mut().find(|known| known.id == image.id) {
                Some(known) => {
                    known.pinned |= image.pinned;
                    add_name(known, &record.name);
                }
                None => {
                    let mut image = image;
                    add_name(&mut image, &record.name);
                    by_id.push(image);
                }
            }
        }
        for image in &mut by_id {
            image.name = image
                .repo_tags
                .first()
                .or(image.repo_digests.first())
                .unwrap_or(&image.name)
                .clone();
        }
        Ok(by_id)
    }

    async fn image_of(&self, record: &api::Image) -> Result<Image> {
        let what = format!("image {}", record.name);
        let target = record
            .target
            .clone()
            .ok_or_else(|| Error::malformed(&what, "record without a target"))?;
        let resolved = self.resolve(&Descriptor::from(target.clone())).await?;
        let mut image = Image::new(&record.name, &target.digest, &resolved);
        image.pinned = record.labels.contains_key(LABEL_PINNED.0);
        Ok(image)
    }

    /// The image of one record, with its other names.
    async fn whole_image(&self, record: api::Image) -> Result<Image> {
        let mut image = self.image_of(&record).await?;
        let filters = vec![format!("target.digest=={}", image.digest)];
        let request = api::ListImagesRequest { filters };
        for record in call("list an image's names", self.images_api().list(request))
            .await?
            .images
        {
            image.pinned |= record.labels.contains_key(LABEL_PINNED.0);
            add_name(&mut image, &record.name);
        }
        Ok(image)
    }

    /// Manifest and config behind a descriptor, this platform's where it is an index.
    pub(crate) async fn resolve(&self, target: &Descriptor) -> Result<Arc<Resolved>> {
        let cache = &self.shared.images.resolved;
        if let Some(resolved) = cache.get(&target.digest) {
            return Ok(resolved);
        }
        let what = format!("image {}", target.digest);
        let malformed = |message: String| Error::malformed(&what, message);
        let manifest = match manifest::parse(&self.read_blob(&target.digest).await?).map_err(malformed)? {
            manifest::Document::Manifest(manifest) => manifest,
            manifest::Document::Index(index) => {
                let chosen = manifest::choose(&index).ok_or_else(|| malformed(manifest::no_match(&index)))?;
                match manifest::parse(&self.read_blob(&chosen.digest).await?).map_err(malformed)? {
                    manifest::Document::Manifest(manifest) => manifest,
                    manifest::Document::Index(_) => return Err(malformed("an index in an index".to_owned())),
                }
            }
        };
        let config = self.read_blob(&manifest.config.digest).await?;
        let resolved = manifest::resolved(&manifest, &config).map_err(malformed)?;
        Ok(cache.insert(&target.digest, resolved, config.len()))
    }

    /// The image's users and groups, read from a read-only view of it (once per image).
    pub async fn accounts(&self, image: &Image) -> Result<Arc<Accounts>> {
        let cache = &self.shared.images.accounts;
        if let Some(accounts) = cache.get(&image.chain_id) {
            return Ok(accounts);
        }
        if image.chain_id.is_empty() {
            return Ok(Arc::default());
        }
        let files = self.read_image_files(image, vec!["etc/passwd", "etc/group"]).await?;
        let text = |index: usize| String::from_utf8_lossy(files[index].as_deref().unwrap_or_default()).into_owned();
        let (passwd, group) = (text(0), text(1));
        let accounts = Accounts::parse(&passwd, &group);
        Ok(cache.insert(&image.chain_id, accounts, passwd.len() + group.len()))
    }

    /// Files of the image, from a read-only view of it; `None` for one that it lacks.
    pub(crate) async fn read_image_files(
        &self,
        image: &Image,
        files: Vec<&'static str>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.ensure_unpacked(image).await?;
        let lease = self.lease().await?;
        let read = lease.client.read_in_view(image, files).await;
        lease.end().await;
        read
    }

    async fn read_in_view(&self, image: &Image, files: Vec<&'static str>) -> Result<Vec<Option<Vec<u8>>>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let key = format!("{OWN_KEY}view-{:x}-{count:x} {}", std::process::id(), image.chain_id);
        let mounts = match self.view_snapshot(&key, &image.chain_id).await {
            // An earlier process of this number left it.
            Err(error) if error.is_already_exists() => self.snapshot_mounts(self.snapshotter(), &key).await?,
            other => other?,
        };
        let read = mount::read_files(mounts, files).await;
        if let Err(error) = self.remove_snapshot(self.snapshotter(), &key).await {
            tracing::debug!(%error, "a view is left to its lease");
        }
        read
    }

    /// Creates or moves a name.
    pub(crate) async fn put_image_record(&self, name: &str, target: &Descriptor, labels: Labels) -> Result<()> {
        let what = format!("create image {name}");
        let record = api::Image {
            name: name.to_owned(),
            labels,
            target: Some(target.clone().into()),
            ..Default::default()
        };
        let request = api::CreateImageRequest {
            image: Some(record.clone()),
            ..Default::default()
        };
        match call(&what, self.images_api().create(request)).await {
            // An id names one configuration, whichever manifest led to it. The record that is there stays: it may be of an
            // image that was imported by hand, and must outlive the one that is pulled now.
            Err(error) if error.is_already_exists() && name.starts_with("sha256:") => return Ok(()),
            Err(error) if error.is_already_exists() => {}
            other => return other.map(|_| ()),
        }
        let mut paths = vec!["target".to_owned()];
        paths.extend(record.labels.keys().map(|key| format!("labels.{key}")));
        let update_mask = Some(FieldMask { paths });
        let request = api::UpdateImageRequest {
            image: Some(record),
            update_mask,
            ..Default::default()
        };
        call(&what, self.images_api().update(request)).await.map(|_| ())
    }

    /// Removes one image with all its names; containerd then collects what only it used.
    pub async fn remove_image(&self, image: &Image) -> Result<()> {
        let records = self.image_records().await?;
        for record in records {
            let same_target = record
                .target
                .as_ref()
                .is_some_and(|target| target.digest == image.digest);
            if same_target || record.name == image.id {
                self.remove_image_record(&record.name).await?;
            }
        }
        Ok(())
    }

    /// What reset does: removes every image that mk8s pulled or brought along, and the records that the CRI plugin
    /// added for them. An image that somebody else named too keeps that name.
    pub async fn remove_pulled_images(&self) -> Result<Vec<String>> {
        let records = self.image_records().await?;
        let names: Vec<String> = pulled(&records).into_iter().map(str::to_owned).collect();
        for name in &names {
            self.remove_image_record(name).await?;
        }
        Ok(names)
    }

    async fn image_records(&self) -> Result<Vec<api::Image>> {
        let request = api::ListImagesRequest { filters: Vec::new() };
        Ok(call("list images", self.images_api().list(request)).await?.images)
    }

    pub(crate) async fn remove_image_record(&self, name: &str) -> Result<()> {
        let request = api::DeleteImageRequest {
            name: name.to_owned(),
            sync: false,
            target: None,
        };
        gone_is_fine(call(&format!("remove image {name}"), self.images_api().delete(request)).await)
    }
}

/// The name of an image record that a reference stands for.
fn record_name(reference: &str) -> Option<String> {
    if reference.starts_with("sha256:") {
        return Some(reference.to_owned());
    }
    Reference::parse(reference).ok().map(|reference| reference.canonical())
}

fn add_name(image: &mut Image, name: &str) {
    let list = match name {
        id if id.starts_with("sha256:") => return,
        name if name.contains('@') => &mut image.repo_digests,
        _ => &mut image.repo_tags,
    };
    if !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}

/// Labelled as pulled, plus the bare id records of targets that have no name of anybody else's.
fn pulled(records: &[api::Image]) -> Vec<&str> {
    let digest = |record: &api::Image| record.target.as_ref().map(|target| target.digest.clone());
    let is_pulled = |record: &&api::Image| record.labels.contains_key(LABEL_PULLED.0);
    let is_id = |record: &&api::Image| record.name.starts_with("sha256:");
    let foreign: Vec<_> = records
        .iter()
        .filter(|r| !is_pulled(r) && !is_id(r))
        .filter_map(digest)
        .collect();
    let ours: Vec<_> = records.iter().filter(is_pulled).filter_map(digest).collect();
    let goes = |record: &&api::Image| match digest(record) {
        _ if is_pulled(record) && !is_id(record) => true,
        Some(target) if is_id(record) => ours.contains(&target) && !foreign.contains(&target),
        _ => false,
    };
    records.iter().filter(goes).map(|record| record.name.as_str()).collect()
}

/// The labels of a record that mk8s makes.
pub(crate) fn record_labels(pulled: bool, pinned: bool) -> Labels {
    let wanted = [(LABEL_CRI, true), (LABEL_PULLED, pulled), (LABEL_PINNED, pinned)];
    let set = wanted.iter().filter(|(_, set)| *set);
    set.map(|((key, value), _)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_takes_ours_and_their_ids_and_leaves_hand_imported_ones() {
        let record = |name: &str, digest: &str, ours: bool| api::Image {
            name: name.to_owned(),
            labels: record_labels(ours, false),
            target: Some(
                Descriptor {
                    digest: digest.to_owned(),
                    ..Default::default()
                }
                .into(),
            ),
            ..Default::default()
        };
        let records = [
            record("docker.io/library/a:1", "d1", true),
            record("sha256:aa", "d1", false),
            record("docker.io/library/b:1", "d2", true),
            record("mine/b:1", "d2", false),
            record("sha256:bb", "d2", true),
            record("mine/c:1", "d3", false),
            record("sha256:cc", "d3", false),
        ];
        assert_eq!(
            pulled(&records),
            ["docker.io/library/a:1", "sha256:aa", "docker.io/library/b:1"]
        );
    }
}
