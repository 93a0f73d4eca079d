//! Importing an image archive: a tar of an OCI image layout, as `docker save` (25 and later), skopeo's `oci-archive:`,
//! `podman save --format oci-archive` and `ctr images export` write it. Blobs go straight into the content store.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::manifest::{self, Descriptor, Document, Index};
use super::reference::Reference;
use super::{Image, record_labels};
use crate::client::Containerd;
use crate::error::{Error, Result};

const BLOCK: usize = 512;
const CHUNK: usize = 1 << 20;
/// index.json and whatever else is kept in memory.
const TEXT_LIMIT: u64 = 4 << 20;
const NAME_CONTAINERD: &str = "io.containerd.image.name";
const NAME_OCI: &str = "org.opencontainers.image.ref.name";

impl Containerd {
    /// Imports every image of the archive under the name it carries; `name` replaces that (for archives of one image).
    pub async fn import(&self, archive: impl AsyncRead + Unpin, name: Option<&str>) -> Result<Vec<Image>> {
        let lease = self.lease().await?;
        let imported = lease.client.import_under_lease(archive, name).await;
        lease.end().await;
        imported
    }

    async fn import_under_lease(&self, archive: impl AsyncRead + Unpin, name: Option<&str>) -> Result<Vec<Image>> {
        let what = "import image archive";
        let index = self.import_blobs(archive).await?;
        let index = index.ok_or_else(|| Error::malformed(what, "no index.json in it: not an OCI image archive"))?;
        let index: Index =
            serde_json::from_slice(&index).map_err(|e| Error::malformed(what, format!("index.json: {e}")))?;
        let mut images = Vec::new();
        for target in &index.manifests {
            let name = match name {
                Some(name) => Some(
                    Reference::parse(name)
                        .map_err(|e| Error::malformed(what, e))?
                        .canonical(),
                ),
                None => name_of(target),
            };
            let name = name.ok_or_else(|| Error::malformed(what, "an image in it has no name: give one"))?;
            images.push(self.adopt(&name, target).await?);
        }
        Ok(images)
    }

    /// Names a target whose blobs are there, and unpacks it.
    async fn adopt(&self, name: &str, target: &Descriptor) -> Result<Image> {
        self.label_children(target).await?;
        let resolved = self.resolve(target).await?;
        let target = Descriptor {
            platform: None,
            annotations: Default::default(),
            ..target.clone()
        };
        let mut image = Image::new(name, &target.digest, &resolved);
        self.unpack_leased(&image).await?;
        for record in [name, image.id.as_str()] {
            self.put_image_record(record, &target, record_labels(false, false))
                .await?;
        }
        image.repo_tags.push(name.to_owned());
        Ok(image)
    }

    /// Sets the labels that keep config and layers alive for as long as the manifest is.
    pub(crate) async fn label_children(&self, target: &Descriptor) -> Result<()> {
        let mut next = Some(target.digest.clone());
        while let Some(digest) = next.take() {
            let what = format!("image {digest}");
            let document = manifest::parse(&self.read_blob(&digest).await?).map_err(|e| Error::malformed(&what, e))?;
            self.label_blob(&digest, manifest::child_labels(&document)).await?;
            if let Document::Index(index) = &document {
                let chosen =
                    manifest::choose(index).ok_or_else(|| Error::malformed(&what, manifest::no_match(index)))?;
                next = Some(chosen.digest.clone());
            }
        }
        Ok(())
    }

    /// Walks the tar: blobs into the store, index.json back to the caller.
    async fn import_blobs(&self, mut archive: impl AsyncRead + Unpin) -> Result<Option<Vec<u8>>> {
        let error = |e| Error::io("read image archive", e);
        let mut index = None;
        let mut block = [0u8; BLOCK];
        loop {
            match archive.read_exact(&mut block).await {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(index),
                other => other.map_err(error)?,
            };
            let Some(entry) = Entry::of(&block)? else {
                return Ok(index);
            };
            let padding = padding(entry.size);
            let mut body = (&mut archive).take(entry.size);
            match entry.blob_digest() {
                Some(digest) => self.import_blob(&digest, entry.size, &mut body).await?,
                None if entry.name == "index.json" && entry.size <= TEXT_LIMIT => {
                    let mut text = Vec::new();
                    body.read_to_end(&mut text).await.map_err(error)?;
                    index = Some(text);
                }
                None => {}
            }
            tokio::io::copy(&mut body, &mut tokio::io::sink())
                .await
                .map_err(error)?;
            tokio::io::copy(&mut (&mut archive).take(padding), &mut tokio::io::sink())
                .await
                .map_err(error)?;
        }
    }

    async fn import_blob(&self, digest: &str, size: u64, body: &mut (impl AsyncRead + Unpin)) -> Result<()> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let descriptor = Descriptor {
            digest: digest.to_owned(),
            size,
            ..Default::default()
        };
        let Some(mut ingest) = self.ingest(&descriptor).await? else {
            return Ok(());
        };
        let error = |e| Error::io("read image archive", e);
        // An earlier attempt may have left a beginning.
        let skip = u64::try_from(ingest.offset).unwrap_or_default();
        tokio::io::copy(&mut body.take(skip), &mut tokio::io::sink())
            .await
            .map_err(error)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = body.take(CHUNK as u64).read_to_end(&mut chunk).await.map_err(error)?;
            if read == 0 {
                break;
            }
            ingest.write(Bytes::from(chunk)).await?;
        }
        ingest.commit(Default::default()).await
    }
}

/// The full name that an index entry carries; a bare tag is none.
fn name_of(target: &Descriptor) -> Option<String> {
    let full = target.annotations.get(NAME_CONTAINERD);
    let named = full.or(target
        .annotations
        .get(NAME_OCI)
        .filter(|name| name.contains([':', '/'])));
    named
        .and_then(|name| Reference::parse(name).ok())
        .map(|reference| reference.canonical())
}

struct Entry {
    name: String,
    size: u64,
    is_file: bool,
}

impl Entry {
    /// `None`: an empty block, the end of the archive.
    fn of(block: &[u8; BLOCK]) -> Result<Option<Entry>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &block[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let name = text(0..100);
        let size = size(&block[124..136]).ok_or_else(|| Error::malformed("read image archive", "not a tar"))?;
        let is_file = matches!(block[156], b'0' | 0);
        Ok(Some(Entry {
            name: name.trim_start_matches("./").to_owned(),
            size,
            is_file,
        }))
    }

    /// `blobs/sha256/HEX` → `sha256:HEX`.
    fn blob_digest(&self) -> Option<String> {
        let (algorithm, hex) = self.name.strip_prefix("blobs/")?.split_once('/')?;
        (self.is_file && !hex.is_empty()).then(|| format!("{algorithm}:{hex}"))
    }
}

/// After an entry's content, to the next whole block. The archive says its size: any number.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Octal text, or base 256 where that is too small.
fn size(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        return Some(field[4..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches([' ', '\0']);
    if text.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(text, 8).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        let named = |key: &str, name: &str| {
            let annotations = [(key.to_owned(), name.to_owned())].into();
            name_of(&Descriptor {
                annotations,
                ..Default::default()
            })
        };
        assert_eq!(
            named(NAME_OCI, "busybox:1").as_deref(),
            Some("docker.io/library/busybox:1")
        );
        assert_eq!(named(NAME_OCI, "latest"), None);
        assert_eq!(named(NAME_CONTAINERD, "q.io/a:b").as_deref(), Some("q.io/a:b"));
        assert_eq!(size(b"00000001000\0"), Some(512));
        assert_eq!(size(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Some(0x2_0000_0000));
        assert_eq!(size(b"zz\0"), None);
        for (size, padding) in [(0_u64, 0), (1, 511), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(super::padding(size), padding);
        }
    }
}
