//! Volumes that an image declares (`VOLUME /data`): a directory per container, with what the image has there, mounted
//! unless the pod mounts something of its own. So such a path stays writable under a read-only root, as with the CRI
//! plugin. They go with the container.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use mk8s_supervisor::job;
use serde_json::{Value, json};

use crate::client::Containerd;
use crate::error::{Error, Result};
use crate::image::ImageConfig;
use crate::mount::copy_directories;
use crate::stdio::make_private_dir;

impl Containerd {
    /// Adds the mounts of a container's volumes to its spec. Answers which path of the image goes into which directory.
    pub(crate) fn plan_image_volumes(&self, id: &str, image: &ImageConfig, oci: &mut Value) -> Vec<(String, PathBuf)> {
        let Some(mounts) = oci["mounts"].as_array_mut().filter(|_| !image.volumes.is_empty()) else {
            return Vec::new();
        };
        let mounted: HashSet<PathBuf> = mounts
            .iter()
            .filter_map(|mount| mount["destination"].as_str())
            .map(|path| Path::new(path).components().collect())
            .collect();
        let directory = |(index, path): (usize, String)| (path, self.volumes_dir(id).join(index.to_string()));
        let pairs: Vec<(String, PathBuf)> = missing(image, &mounted)
            .into_iter()
            .enumerate()
            .map(directory)
            .collect();
        mounts.extend(pairs.iter().map(|(path, directory)| {
            let options = ["rbind", "rprivate", "rw"];
            json!({"destination": path, "type": "bind", "source": directory, "options": options})
        }));
        pairs
    }

    /// Makes the directories and fills them from the container's snapshot.
    pub(crate) async fn make_image_volumes(&self, pairs: Vec<(String, PathBuf)>, snapshot: &[Mount]) -> Result<()> {
        for (_, directory) in &pairs {
            if let Some(base) = directory.parent() {
                make_private_dir(base)?;
            }
            fs::create_dir(directory).map_err(|e| Error::path("create", directory, e))?;
        }
        if pairs.is_empty() {
            Ok(())
        } else {
            copy_directories(snapshot.to_vec(), pairs).await
        }
    }

    /// Blocks no worker: a container can fill its volumes as wide and as deep as it likes.
    pub(crate) async fn remove_image_volumes(&self, id: &str) -> Result<()> {
        let directory = self.volumes_dir(id);
        let what = format!("remove {}", directory.display());
        let removal = job::blocking("image-volumes-removal", move || mk8s_dirfd::remove_path(&directory));
        let removed = removal.await.map_err(|e| Error::malformed(&what, e))?;
        removed.map_err(|e| Error::io(what, e.into()))
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
