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
    use super::*;

    #[test]
    fn the_longest_object_is_changed_alone() {
        assert_eq!((weight(0), weight(TEXT), weight(3 << 20)), (1, 2, MOST));
    }
}
