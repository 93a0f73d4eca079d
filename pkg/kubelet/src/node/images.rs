//! The images that the node has, as its status lists them.

use k8s_openapi::api::core::v1::ContainerImage;

use crate::agent::Agent;

const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;

/// The largest first, as the scheduler wants to know them.
pub async fn images(agent: &Agent) -> Vec<ContainerImage> {
    let mut images = match agent.containerd.images().await {
        Ok(images) => images,
        Err(error) => {
            tracing::debug!(%error, "cannot list the node's images");
            return Vec::new();
        }
    };
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images.truncate(MAX_IMAGES);
    images
        .into_iter()
        .map(|image| {
            let names = image
                .repo_digests
                .into_iter()
                .chain(image.repo_tags)
                .take(MAX_NAMES)
                .collect();
            ContainerImage {
                names: Some(names),
                size_bytes: Some(image.size as i64),
            }
        })
        .collect()
}
