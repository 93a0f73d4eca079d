//! Volumes that an image declares (`VOLUME /data`): a directory per container, with what the image has there, mounted
//! unless the pod mounts something of its own. So such a path stays writable under a read-only root, as with the CRI
//! plugin. They go with the container.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use containerd_client::types::Mount;
use oci_spec::runtime::{MountBuilder, Spec};

use crate::client::Containerd;
use crate::error::{Error, Result};
use crate::image::ImageConfig;
use crate::mount::copy_directories;
use crate::stdio::make_private_dir;

impl Containerd {
    /// Makes the directories, fills them from the container's snapshot, and adds their mounts to the spec.
    pub(crate) async fn add_image_volumes(
        &self,
        id: &str,
        image: &ImageConfig,
        snapshot: &[Mount],
        spec: &mut Spec,
    ) -> Result<()> {
        let mounted: HashSet<PathBuf> = spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mount.destination().components().collect())
            .collect();
        let missing = missing(image, &mounted);
        if missing.is_empty() {
            return Ok(());
        }
        let base = self.volumes_dir(id);
        let mut pairs = Vec::new();
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for (index, path) in missing.into_iter().enumerate() {
            let directory = base.join(index.to_string());
            make_private_dir(&base)?;
            fs::create_dir(&directory).map_err(|e| Error::path("create", &directory, e))?;
            let options = ["rbind", "rprivate", "rw"].map(str::to_owned).to_vec();
            let mount = MountBuilder::default()
                .destination(&path)
                .typ("bind")
                .source(&directory)
                .options(options);
            mounts.push(
                mount
                    .build()
                    .map_err(|e| Error::malformed(format!("volume {path} of container {id}"), e))?,
            );
            pairs.push((path, directory));
        }
        spec.set_mounts(Some(mounts));
        copy_directories(snapshot.to_vec(), pairs).await
    }

    pub(crate) fn remove_image_volumes(&self, id: &str) -> Result<()> {
        let directory = self.volumes_dir(id);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path("remove", &directory, error)),
            _ => Ok(()),
        }
    }

    fn volumes_dir(&self, id: &str) -> PathBuf {
        self.shared.options.volumes_dir.join(id)
    }
}

/// The declared paths, absolute, that nothing is mounted on yet; in order.
fn missing(image: &ImageConfig, mounted: &HashSet<PathBuf>) -> Vec<String> {
    let absolute = image.volumes.keys().map(|path| format!("/{}", path.trim_matches('/')));
    absolute
        .filter(|path| path != "/" && !mounted.contains(&PathBuf::from(path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pod_mounts_is_no_volume_of_the_images() {
        let names = ["/data/", "cache", "/", "/own"].map(|path| (path.to_owned(), serde_json::Value::Null));
        let image = ImageConfig {
            volumes: names.into(),
            ..Default::default()
        };
        let mounted = HashSet::from([PathBuf::from("/own")]);
        assert_eq!(missing(&image, &mounted), ["/data", "/cache"]);
    }
}
