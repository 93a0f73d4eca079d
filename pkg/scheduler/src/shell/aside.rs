//! Work that may take long without ever waiting: the other tasks of the runtime go on meanwhile.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does it on this thread, of whose other tasks another one takes care. A runtime of one thread has no other.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
