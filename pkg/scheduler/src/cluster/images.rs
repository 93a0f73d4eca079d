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
    /// In bytes, as the first node that had it told.
    size: i64,
    nodes: u32,
}

impl Images {
    /// The images of a node, noted; [`Images::forget`] takes them off again.
    pub(super) fn note(&mut self, node: &Node) -> Box<[ImageId]> {
        let listed = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let names = listed.flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(move |name| (name, size))
        });
        let mut ids: Vec<ImageId> = names.map(|(name, size)| self.id(name, size)).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in &ids {
            self.kept[*id as usize].nodes += 1;
        }
        ids.into()
    }

    pub(super) fn forget(&mut self, images: &[ImageId]) {
        for id in images {
            let kept = &mut self.kept[*id as usize];
            kept.nodes -= 1;
            if kept.nodes == 0 {
                self.ids.remove(&kept.name);
                self.free.push(*id);
            }
        }
    }

    fn id(&mut self, name: &str, size: i64) -> ImageId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.kept.push(Kept::default());
            u32::try_from(self.kept.len() - 1).unwrap_or(u32::MAX)
        });
        self.kept[id as usize] = Kept {
            name: name.into(),
            size,
            nodes: 0,
        };
        self.ids.insert(name.into(), id);
        id
    }

    /// An image that some node has: its id, its size in bytes and the number of nodes that have it.
    pub fn find(&self, name: &str) -> Option<(ImageId, i64, u32)> {
        let id = *self.ids.get(name)?;
        let kept = &self.kept[id as usize];
        Some((id, kept.size, kept.nodes))
    }
}
