//! Images that nodes have already.

use super::Question;
use crate::model::Node;

const MIB: i64 = 1 << 20;

/// As nodes tell of it: with a tag.
fn told(image: &str) -> &str {
    match image {
        "a" => "a:latest",
        "r:5000/c" => "r:5000/c:latest",
        other => other,
    }
}

impl Question<'_> {
    /// The larger the images, and the more nodes have them, the better.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn image_score(&self, node: &Node) -> i64 {
        let has = |node: &Node, image: &str| node.images.iter().any(|(own, _)| *own == image);
        let all = &self.model.nodes;
        let wanted = self.pod.containers.iter().map(|own| told(own.image));
        let sizes = wanted.filter(|image| has(node, image)).map(|image| {
            let share = all.values().filter(|node| has(node, image)).count() as f64 / all.len() as f64;
            (self.model.sizes[image] as f64 * share) as i64
        });
        let most = 1000 * MIB * i64::try_from(self.pod.containers.len()).unwrap();
        100 * (sizes.sum::<i64>().clamp(23 * MIB, most) - 23 * MIB) / (most - 23 * MIB)
    }
}
