//! A part of a volume as a mount of its own. Containers can write to the volume, so whatever a path names may turn into a
//! link elsewhere at any moment: the kernel resolves it once, beneath the volume, and what it found is bound by descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

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
}

fn io(what: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
    Error::Io {
        what,
        path: path.to_owned(),
        source: source.into(),
    }
}

fn beneath(dir: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // The kernel asks for another try when a directory on the way was moved meanwhile.
    for _ in 0..16 {
        match openat2(dir.as_fd(), path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens `volume/sub` beneath the volume, making missing directories; `group` owns what is made.
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
    match beneath(&at, Path::new(sub)) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(wrap(error)),
    }
    for part in Path::new(sub).components() {
        let Component::Normal(name) = part else { continue };
        at = match beneath(&at, Path::new(name)) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                match mkdirat(&at, Path::new(name), Mode::from_bits_truncate(0o750)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(io("create", &volume.join(sub), error)),
                }
                beneath(&at, Path::new(name)).map_err(wrap)?
            }
            Err(error) => return Err(wrap(error)),
        };
    }
    Ok(at)
}

/// Binds `volume/sub` to `target` (made as a file or a directory, whichever fits). Blocking.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<(), Error> {
    // A volume may itself be one file of the host's.
    let source = resolve(volume, sub)?;
    let kind = fstat(&source).map_err(|e| io("look at", &volume.join(sub), e))?;
    let is_dir = SFlag::from_bits_truncate(kind.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(|e| io("create", parent, e))?;
    }
    if is_dir {
        std::fs::create_dir_all(target).map_err(|e| io("create", target, e))?;
    } else {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(target)
            .map_err(|e| io("create", target, e))?;
    }
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    mount(
        Some(&by_descriptor),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|e| io("mount", target, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
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
}
