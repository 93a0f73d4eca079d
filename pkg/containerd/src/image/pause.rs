//! The pause image, carried inside the binary: the first pod needs no registry.

use bytes::Bytes;
use serde_json::json;

use super::manifest::{
    Descriptor, Document, MEDIA_CONFIG, MEDIA_LAYER, MEDIA_MANIFEST, Manifest, child_labels, own_platform, sha256,
};
use super::{Image, record_labels};
use crate::client::Containerd;
use crate::error::{Error, Result};

/// Name of the built-in image's record.
pub const PAUSE_IMAGE: &str = "mk8s.io/pause:1";

static PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

impl Containerd {
    /// Puts the built-in pause image into the content store and names it; quick when it is there. Every pod stands on
    /// it, so what an earlier run left is compared with the program in the binary, and made again where it differs.
    pub async fn ensure_pause_image(&self) -> Result<Image> {
        let parts = parts()?;
        if let Some(image) = self.image(PAUSE_IMAGE).await?
            && image.digest == parts.manifest.0.digest
        {
            if self.is_pause(&image).await? {
                return Ok(image);
            }
            tracing::warn!(
                snapshot = image.chain_id,
                "the pause image's files are damaged: unpacking them again"
            );
            self.remove_with_children(&image.chain_id).await?;
        }
        self.make_pause_image(parts).await
    }

    async fn is_pause(&self, image: &Image) -> Result<bool> {
        let files = self.read_image_files(image, vec!["pause"]).await?;
        Ok(files.first().and_then(Option::as_deref) == Some(PAUSE))
    }

    async fn make_pause_image(&self, parts: Parts) -> Result<Image> {
        let lease = self.lease().await?;
        let client = &lease.client;
        client
            .write_blob(&parts.layer.0, parts.layer.1, Default::default())
            .await?;
        client
            .write_blob(&parts.config.0, parts.config.1, Default::default())
            .await?;
        client
            .write_blob(&parts.manifest.0, parts.manifest.1, parts.labels)
            .await?;
        let resolved = client.resolve(&parts.manifest.0).await?;
        client
            .unpack_leased(&Image::new(PAUSE_IMAGE, &parts.manifest.0.digest, &resolved))
            .await?;
        client
            .put_image_record(PAUSE_IMAGE, &parts.manifest.0, record_labels(true, true))
            .await?;
        lease.end().await;
        let what = format!("image {PAUSE_IMAGE}");
        self.image(PAUSE_IMAGE).await?.ok_or(Error::NotFound { what })
    }
}

struct Parts {
    layer: (Descriptor, Bytes),
    config: (Descriptor, Bytes),
    manifest: (Descriptor, Bytes),
    labels: crate::content::Labels,
}

/// The same bytes, and so the same digests, every time.
fn parts() -> Result<Parts> {
    let encode = |e: serde_json::Error| Error::malformed("pause image", e);
    let layer = layer();
    let platform = own_platform();
    let config = serde_json::to_vec(&json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
    }))
    .map_err(encode)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: MEDIA_MANIFEST.to_owned(),
        config: Descriptor::of(MEDIA_CONFIG, &config),
        layers: vec![Descriptor::of(MEDIA_LAYER, &layer)],
    };
    let text = serde_json::to_vec(&manifest).map_err(encode)?;
    Ok(Parts {
        layer: (manifest.layers[0].clone(), layer.into()),
        config: (manifest.config.clone(), config.into()),
        manifest: (Descriptor::of(MEDIA_MANIFEST, &text), text.into()),
        labels: child_labels(&Document::Manifest(manifest)),
    })
}

/// An uncompressed tar: the program, and the mount points that its runtime wants.
fn layer() -> Vec<u8> {
    let mut tar = Vec::new();
    for directory in ["dev/", "proc/", "sys/"] {
        tar.extend_from_slice(&header(directory, 0o755, 0, b'5'));
    }
    tar.extend_from_slice(&header("pause", 0o755, PAUSE.len(), b'0'));
    tar.extend_from_slice(PAUSE);
    let padded = tar.len().next_multiple_of(512);
    // Two empty blocks end the archive.
    tar.resize(padded + 1024, 0);
    tar
}

/// One ustar header; owner root, time zero.
fn header(name: &str, mode: u32, size: usize, kind: u8) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |offset: usize, text: &str| block[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}\0"));
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_layer_is_small_and_repeats() {
        let (first, second) = (parts().unwrap(), parts().unwrap());
        assert_eq!(first.manifest.0, second.manifest.0);
        assert!(first.layer.1.len() < 32 << 10, "{}", first.layer.1.len());
        assert_eq!(&PAUSE[..4], b"\x7fELF");
    }
}
