//! Many objects are changed at once where a request or a definition's end names them all, since they share the committer's
//! fsync. How many goes by their length too: an object's tree is up to fifty times as long as its text, and whoever may write
//! one kind says how long that is.

use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt as _};
use mk8s_api::status::Status;
use tokio::sync::Semaphore;

use crate::object::Object;

/// How many objects.
const MOST: u32 = 32;
/// Of how much text each; a longer one counts for several.
const TEXT: usize = 32 << 10;

/// Does something to each object, in any order; tells how each ended.
pub fn each<F>(objects: Vec<Arc<Object>>, change: impl Fn(Arc<Object>) -> F) -> impl Stream<Item = Result<(), Status>>
where
    F: Future<Output = Result<(), Status>>,
{
    let room = Arc::new(Semaphore::new(MOST as usize));
    stream::iter(objects)
        .map(move |object| {
            let (room, weight) = (room.clone(), weight(object.json.len()));
            let change = change(object);
            async move {
                let _place = room.acquire_many_owned(weight).await;
                change.await
            }
        })
        .buffer_unordered(MOST as usize)
}

fn weight(length: usize) -> u32 {
    u32::try_from(length / TEXT + 1).map_or(MOST, |weight| weight.min(MOST))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mk8s_api::registry;

    use super::*;

    fn object(length: usize) -> Arc<Object> {
        let entry = mk8s_store::Entry {
            key: "/registry/core/configmaps/default/a".into(),
            revision_at: 0,
            value: vec![b' '; length].into(),
            create_revision: 1,
            mod_revision: 1,
        };
        let config_maps = registry::find("", "v1", "configmaps").expect("a row");
        Arc::new(Object::new(config_maps.clone(), entry, None))
    }

    /// Forty objects of 1.8 MB, each read into a tree at the same time, took 3 GB.
    #[tokio::test]
    async fn long_objects_are_changed_one_after_the_other() {
        for (length, expected) in [(100, MOST as usize), (1 << 20, 1)] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let objects = (0..2 * MOST).map(|_| object(length)).collect();
            let (running, most) = (&running, &most);
            let ended = each(objects, |_| async move {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!(ended.count().await, 2 * MOST as usize);
            assert_eq!(most.load(Ordering::Relaxed), expected, "of {length} bytes");
        }
    }

    #[test]
    fn the_longest_object_is_changed_alone() {
        assert_eq!((weight(0), weight(TEXT), weight(3 << 20)), (1, 2, MOST));
    }
}
