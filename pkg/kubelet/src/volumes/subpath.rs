//! A part of a volume as a mount of its own. Containers can write to the volume, so whatever a path names may turn into a
//! link elsewhere at any moment: the kernel resolves it once, beneath the volume, and what it found is bound by descriptor.
//!
//! The bind is one mount, without what is mounted below it, and unless the container asked to share its mounts it only
//! hears of those of its source: on a host whose mounts are shared (systemd's way) nothing that is done here gets out.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

use super::PodDir;
use mk8s_dirfd::{Dir, found, open_beneath};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("subPath {0:?} must be a relative path without '..'")]
    Path(String),
    #[error("subPath {path:?} leads out of its volume or through a link to outside")]
    Escapes { path: String },
    #[error("cannot {what} {path:?}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Dir(#[from] mk8s_dirfd::Error),
}

/// Below a pod's directory: VOLUME/CONTAINER/INDEX of the mount.
const SUBPATHS: &str = "volume-subpaths";

const PERMISSIONS: Mode = Mode::S_IRWXU.union(Mode::S_IRWXG).union(Mode::S_IRWXO);

/// One mount of one container.
pub struct Part<'a> {
    pub volume: &'a str,
    /// Where the volume is: it may be one file of the host's.
    pub source: &'a Path,
    pub sub: &'a str,
    pub container: &'a str,
    pub index: usize,
    /// Bidirectional: what the container mounts in it is to be seen by the host.
    pub shared: bool,
}

fn io(what: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
    Error::Io {
        what,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Opens `volume/sub` beneath the volume, making missing directories: whoever may write to the volume may to these.
fn resolve(volume: &Path, sub: &str) -> Result<OwnedFd, Error> {
    if Path::new(sub).is_absolute() || Path::new(sub).components().any(|c| c == Component::ParentDir) {
        return Err(Error::Path(sub.to_owned()));
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(volume, flags, Mode::empty()).map_err(|e| io("open the volume", volume, e))?;
    let wrap = |error: Errno| match error {
        Errno::EXDEV | Errno::ELOOP => Error::Escapes { path: sub.to_owned() },
        other => io("open", &volume.join(sub), other),
    };
    match open_beneath(&at, Path::new(sub)) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(wrap(error)),
    }
    let root = fstat(&at).map_err(|e| io("look at the volume", volume, e))?;
    let mode = Mode::from_bits_truncate(root.st_mode) & PERMISSIONS;
    for part in Path::new(sub).components() {
        let Component::Normal(name) = part else { continue };
        at = match open_beneath(&at, Path::new(name)) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                let failed = |error| io("create", &volume.join(sub), error);
                match mkdirat(&at, Path::new(name), Mode::S_IRWXU) {
                    Ok(()) => open_made(&at, name, mode).map_err(failed)?,
                    Err(Errno::EEXIST) => open_beneath(&at, Path::new(name)).map_err(wrap)?,
                    Err(error) => return Err(failed(error)),
                }
            }
            Err(error) => return Err(wrap(error)),
        };
    }
    Ok(at)
}

/// Opens a directory that was just made and gives it this mode, whatever our umask. In a volume with a group it has the
/// group, and hands it on, by the kernel's doing.
fn open_made(at: &OwnedFd, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(at, name, flags, Mode::empty())?;
    let hands_on = Mode::from_bits_truncate(fstat(&made)?.st_mode) & Mode::S_ISGID;
    fchmod(&made, mode | hands_on)?;
    Ok(made)
}

/// Binds the part to a place below the pod's directory (made as a file or a directory, whichever fits). Blocking.
pub fn bind(pod: &PodDir, part: &Part<'_>) -> Result<PathBuf, Error> {
    let source = resolve(part.source, part.sub)?;
    let kind = fstat(&source).map_err(|e| io("look at", &part.source.join(part.sub), e))?;
    let is_dir = SFlag::from_bits_truncate(kind.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    let below = Path::new(SUBPATHS).join(part.volume).join(part.container);
    let (parent, _) = pod.open()?.ensure_dir(&below, 0o750)?;
    let name = part.index.to_string();
    // Of the container's last life; what it names may be another file now.
    unbind(&parent, &name)?;
    if is_dir {
        parent.ensure_dir(&name, 0o750)?;
    } else {
        parent.ensure_file(&name)?;
    }
    parent.bind(&name, &source, part.shared)?;
    Ok(parent.path().join(name))
}

/// The bind goes, and so does what it stood on.
fn unbind(parent: &Dir, name: &str) -> Result<(), Error> {
    while found(parent.is_mount_point(name))? == Some(true) {
        parent.unbind(name)?;
    }
    match parent.remove_dir(name) {
        Err(error) if error.is_no_directory() => Ok(parent.remove_file(name)?),
        other => Ok(found(other).map(drop)?),
    }
}

/// All binds of the pod.
pub fn unbind_all(pod: &Dir) -> Result<(), Error> {
    let Some(volumes) = found(pod.dir(SUBPATHS))? else {
        return Ok(());
    };
    for (volume, _) in volumes.entries()? {
        let containers = volumes.dir(&volume)?;
        for (container, _) in containers.entries()? {
            let binds = containers.dir(&container)?;
            for (bind, _) in binds.entries()? {
                unbind(&binds, &bind.to_string_lossy())?;
            }
            containers.remove_dir(&container)?;
        }
        volumes.remove_dir(&volume)?;
    }
    Ok(pod.remove_dir(SUBPATHS)?)
}
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::volumes::Volumes;
    use mk8s_dirfd::testing::{tmpfs, with_shared_mounts};
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_beneath() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let volume = tempfile::tempdir().unwrap();
        let root = volume.path();
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("file"), "f").unwrap();
        symlink("dir", root.join("inner")).unwrap();
        symlink(outside.path(), root.join("outer")).unwrap();
        symlink("../..", root.join("up")).unwrap();
        for (path, fine) in [
            ("dir", true),
            ("file", true),
            ("inner", true),
            ("new/deep", true),
            ("outer", false),
            ("outer/secret", false),
            ("outer/new", false),
            ("up/etc", false),
            ("../x", false),
            ("/etc", false),
        ] {
            assert_eq!(resolve(root, path).is_ok(), fine, "{path}");
        }
        assert!(root.join("new/deep").is_dir() && !outside.path().join("new").exists());
    }

    /// A container of any user and its volume's group can write to a part that was not there yet.
    #[test]
    fn a_missing_directory_is_as_the_volume() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        for (mode, deep) in [(0o2777, 0o2777), (0o2770, 0o2770), (0o1777, 0o777), (0o700, 0o700)] {
            let volume = tempfile::tempdir().unwrap();
            chown(volume.path(), None, Some(2000)).unwrap();
            std::fs::set_permissions(volume.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            resolve(volume.path(), "new/deep").unwrap();
            for made in ["new", "new/deep"] {
                let found = volume.path().join(made).metadata().unwrap();
                assert_eq!(found.mode() & 0o7777, deep, "{made} in {mode:o}");
                assert_eq!(found.gid(), if mode & 0o2000 > 0 { 2000 } else { 0 });
            }
        }
    }

    fn part<'a>(source: &'a Path, sub: &'a str, shared: bool) -> Part<'a> {
        Part {
            volume: "v",
            source,
            sub,
            container: "c",
            index: 0,
            shared,
        }
    }

    /// The host's mounts are shared, as systemd has them; somebody mounts on a directory below the part.
    #[test]
    fn the_hosts_own_mounts_stay() {
        for (shared, before) in [(false, true), (false, false), (true, true), (true, false)] {
            with_shared_mounts(move |root| {
                let (host, inner) = (root.join("mnt"), root.join("mnt/data/inner"));
                std::fs::create_dir_all(&inner).unwrap();
                let mount_inner = || {
                    tmpfs(&inner);
                    std::fs::create_dir(inner.join("deeper")).unwrap();
                    tmpfs(&inner.join("deeper"));
                    std::fs::write(inner.join("deeper/kept"), "kept").unwrap();
                };
                if before {
                    mount_inner();
                }
                let dir = Volumes::open(root).unwrap().pod_dir("uid");
                dir.create().unwrap();
                let target = bind(&dir, &part(&host, "data", shared)).unwrap();
                if !before {
                    mount_inner();
                    // The container sees what the host mounts later, as it would without a subPath.
                    assert!(target.join("inner/deeper/kept").exists());
                }
                // What is mounted through the part is the host's only where that was asked for.
                std::fs::create_dir(target.join("by-container")).unwrap();
                tmpfs(&target.join("by-container"));
                std::fs::write(target.join("by-container/file"), "").unwrap();
                assert_eq!(host.join("data/by-container/file").exists(), shared);

                // At the container's restart, and at the pod's end.
                let again = bind(&dir, &part(&host, "data", shared)).unwrap();
                assert_eq!(again, target);
                assert!(inner.join("deeper/kept").exists(), "shared {shared}, before {before}");
                unbind_all(&dir.open().unwrap()).unwrap();
                assert!(inner.join("deeper/kept").exists(), "shared {shared}, before {before}");
                assert_eq!(host.join("data/by-container/file").exists(), shared);
                assert!(!target.exists() && !dir.path().join(SUBPATHS).exists());
            });
        }
    }
}
