//! A node that has the pod's images already is better: the more of them, the larger, and the more nodes have them, so that the first node
//! with an image does not draw all pods.

use crate::cluster::{Cluster, ImageId, NodeInfo};
use crate::framework::{MAX_SCORE, Plugin, Score};
use crate::pod::PodInfo;

const MIB: i64 = 1024 * 1024;
const FLOOR: i64 = 23 * MIB;
const CEILING_PER_CONTAINER: i64 = 1000 * MIB;

/// Upstream's ImageLocality.
pub struct ImageLocality;

struct Wanted {
    /// Each image that some node has, and what it counts there; one that two containers have is here twice.
    images: Vec<(ImageId, i64)>,
    ceiling: i64,
}

impl Score for Wanted {
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores) {
            let has = |id: &ImageId| node.facts.images.binary_search(id).is_ok();
            let sum: i64 = self
                .images
                .iter()
                .filter(|(id, _)| has(id))
                .map(|(_, counts)| counts)
                .sum();
            *score = MAX_SCORE * (sum.clamp(FLOOR, self.ceiling) - FLOOR) / (self.ceiling - FLOOR);
        }
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a share of a size"
    )]
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let names = &pod.wishes().images;
        let all = cluster.order().len() as f64;
        let images: Vec<_> = names
            .iter()
            .filter_map(|name| cluster.images().find(&normalised(name)))
            .map(|(id, size, nodes)| (id, (size as f64 * (f64::from(nodes) / all)) as i64))
            .collect();
        let containers = i64::try_from(names.len()).unwrap_or(i64::MAX);
        (!images.is_empty()).then(|| -> Box<dyn Score> {
            Box::new(Wanted {
                images,
                ceiling: CEILING_PER_CONTAINER * containers,
            })
        })
    }
}

/// An image name with the tag that it means when it has none.
fn normalised(name: &str) -> String {
    match name.rfind(':') <= name.rfind('/') {
        true => format!("{name}:latest"),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_get_their_tag() {
        for (name, expected) in [
            ("a", "a:latest"),
            ("r:5000/a", "r:5000/a:latest"),
            ("a:1", "a:1"),
            ("a@sha256:0", "a@sha256:0"),
        ] {
            assert_eq!(normalised(name), expected);
        }
    }
}
