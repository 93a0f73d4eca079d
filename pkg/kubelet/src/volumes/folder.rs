//! The folder in which the volumes of one kind stand below a pod's directory: `volumes/PLUGIN/VOLUME`.

use super::{Error, PodDir};
use mk8s_dirfd::{Dir, found};

pub fn ensure(pod: &PodDir, plugin: &str) -> Result<Dir, Error> {
    let (dir, _) = pod.open()?.ensure_dir(format!("volumes/{plugin}"), 0o750)?;
    Ok(dir)
}

pub fn find(pod: &PodDir, plugin: &str) -> Result<Option<Dir>, Error> {
    let Some(pod) = found(pod.open())? else { return Ok(None) };
    Ok(found(pod.dir(format!("volumes/{plugin}")))?)
}

/// Empties a volume's directory and removes it; a mount in it stops that, and so does one on it. One that ever `was_mounted`
/// on has to be empty.
pub fn remove(parent: &Dir, volume: &str, was_mounted: bool) -> Result<(), Error> {
    let removed = if was_mounted {
        parent.remove_dir(volume)
    } else {
        parent.remove_tree(volume)
    };
    found(removed)?;
    Ok(())
}
