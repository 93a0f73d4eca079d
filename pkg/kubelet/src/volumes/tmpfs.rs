//! Volumes in memory: what is secret reaches no disk, and what a pod asks for in memory goes with it.

use nix::mount::MsFlags;

use super::Error;
use super::record::{Record, State};
use mk8s_dirfd::{Dir, found};

/// Mounts a tmpfs on `name` unless one is there. Answers whether it is new.
pub fn ensure(parent: &Dir, name: &str, size: Option<i64>, record: &mut Record) -> Result<bool, Error> {
    let fresh = !parent.is_mount_point(name)?;
    if fresh {
        let options = size.map(|size| format!("size={size}"));
        parent.mount(name, "tmpfs", MsFlags::empty(), options.as_deref())?;
    }
    if fresh || record.device.is_none() {
        record.device = Some(device(parent, name)?);
    }
    Ok(fresh)
}

fn device(parent: &Dir, name: &str) -> Result<u64, Error> {
    Ok(parent.dir(name)?.stat()?.st_dev)
}

/// Unmounts it, if it is the one that `ensure` mounted: what a container mounted over it is not. Answers whether there
/// ever was one.
pub fn remove(parent: &Dir, name: &str, record: &Record) -> Result<bool, Error> {
    let Some(true) = found(parent.is_mount_point(name))? else {
        return Ok(record.device.is_some());
    };
    let ours = match record.device {
        Some(device_then) => device(parent, name)? == device_then,
        // Not noted down yet: no container has run since.
        None => matches!(record.state, State::Doing(_)),
    };
    if ours {
        parent.unmount(name)?;
    }
    Ok(ours || record.device.is_some())
}
