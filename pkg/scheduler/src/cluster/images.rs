//! The images of all nodes, each known by a number: nodes of a cluster have mostly the same ones.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Node;

/// One name of an image.
pub type ImageId = u32;

/// Names of images and how many nodes have each.
#[derive(Debug, Default)]
pub struct Images {
    ids: HashMap<Box<str>, ImageId>,
    kept: Vec<Kept>,
    free: Vec<ImageId>,
}

#[derive(Debug, Default)]
struct Kept {
    name: Box<str>,
    nodes: u32,
}

impl Images {
    /// The images of a node, noted; [`Images::forget`] takes them off again.
    pub(super) fn note(&mut self, node: &Node) -> Box<[(ImageId, i64)]> {
        let listed = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let names = listed.flat_map(|image| image.names.iter().flatten().map(|name| (name, image.size_bytes)));
        let mut sizes: Vec<(ImageId, i64)> = names.map(|(name, size)| (self.id(name), size.unwrap_or(0))).collect();
        sizes.sort_unstable();
        sizes.dedup_by_key(|(id, _)| *id);
        for (id, _) in &sizes {
            self.kept[*id as usize].nodes += 1;
        }
        sizes.into()
    }

    pub(super) fn forget(&mut self, images: &[(ImageId, i64)]) {
        for (id, _) in images {
            let kept = &mut self.kept[*id as usize];
            kept.nodes -= 1;
            if kept.nodes == 0 {
                self.ids.remove(&kept.name);
                self.free.push(*id);
            }
        }
    }

    fn id(&mut self, name: &str) -> ImageId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.kept.push(Kept::default());
            u32::try_from(self.kept.len() - 1).unwrap_or(u32::MAX)
        });
        self.kept[id as usize] = Kept {
            name: name.into(),
            nodes: 0,
        };
        self.ids.insert(name.into(), id);
        id
    }

    /// An image that some node has, with the number of nodes that do.
    pub fn find(&self, name: &str) -> Option<(ImageId, u32)> {
        let id = *self.ids.get(name)?;
        Some((id, self.kept[id as usize].nodes))
    }
}
