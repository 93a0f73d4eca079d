//! Reading files out of a snapshot: its mounts are made in a thread with a mount namespace of its own, which takes them
//! along when it ends, so that nothing is ever left mounted on the host.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use mk8s_supervisor::job;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, Result};

/// A passwd file beyond this is not one.
const FILE_LIMIT: u64 = 4 << 20;
/// mount(2) takes one page of options.
const PAGE: usize = 4096;

/// The contents of files, relative to the snapshot's root; `None` for one that is not there. No symlink in the image
/// leads out of it.
pub(crate) async fn read_files(mounts: Vec<Mount>, files: Vec<&'static str>) -> Result<Vec<Option<Vec<u8>>>> {
    with_snapshot(mounts, move |root| {
        files.iter().map(|file| read_below(root, file)).collect()
    })
    .await
}

/// Copies directories of a snapshot, each into an existing one of the host: entries with their owners, modes and links.
/// A directory that the snapshot lacks leaves its copy empty.
pub(crate) async fn copy_directories(mounts: Vec<Mount>, pairs: Vec<(String, PathBuf)>) -> Result<()> {
    with_snapshot(mounts, move |root| {
        for (from, to) in &pairs {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let Some(directory) = open_below(root, from.trim_start_matches('/'), flags)? else {
                continue;
            };
            copy_directory(&directory, to).map_err(|e| Error::path("copy an image's files to", to, e))?;
        }
        Ok(())
    })
    .await
}

/// Runs `work` on the root of a snapshot that is mounted, read-only, for it alone.
async fn with_snapshot<T: Send + 'static>(
    mounts: Vec<Mount>,
    work: impl FnOnce(&File) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    job::thread("mk8s-snapshot", move || {
        let _ = sender.send(mounted_root(&mounts).and_then(|root| work(&root)));
    })
    .map_err(|e| Error::io("start a thread", e))?;
    receiver
        .await
        .map_err(|_| Error::malformed("read a snapshot", "its thread ended early"))?
}

fn mounted_root(mounts: &[Mount]) -> Result<File> {
    let errno = |what: &str| {
        let what = what.to_owned();
        move |errno: nix::errno::Errno| Error::io(what, errno.into())
    };
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(errno("unshare the mount namespace"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(errno("make / private"))?;
    // Any directory serves as mount point, since the mount exists in this thread only; this one is everywhere, and
    // neither a snapshot nor a copy of one lives below it.
    let point = Path::new("/sys");
    for one in mounts {
        attach(one, point).map_err(errno(&format!("mount {} {}", one.r#type, one.source)))?;
    }
    File::open(point).map_err(|e| Error::path("open", point, e))
}

/// `None`: there is no such thing in the snapshot.
fn open_below(root: &File, path: &str, flags: OFlag) -> Result<Option<File>> {
    use nix::errno::Errno;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match openat2(root, path, OpenHow::new().flags(flags).resolve(resolve)) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(Error::io(format!("open {path} in a snapshot"), errno.into())),
    }
}

fn copy_directory(from: &File, to: &Path) -> std::io::Result<()> {
    // What an open directory holds, whatever its path is called.
    let source = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
    copy_owner_and_mode(&from.metadata()?, to)?;
    // A list, since an image may nest directories deeper than a stack holds.
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        for entry in fs::read_dir(source.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            copy_entry(&entry, &to.join(&path))?;
            if entry.file_type()?.is_dir() {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// Of a directory the directory alone.
fn copy_entry(entry: &fs::DirEntry, target: &Path) -> std::io::Result<()> {
    let metadata = entry.metadata()?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(target)?;
        copy_owner_and_mode(&metadata, target)
    } else if kind.is_symlink() {
        symlink(fs::read_link(entry.path())?, target)?;
        lchown(target, Some(metadata.uid()), Some(metadata.gid()))
    } else if kind.is_file() {
        fs::copy(entry.path(), target)?;
        copy_owner_and_mode(&metadata, target)
    } else {
        Ok(())
    }
}

fn copy_owner_and_mode(metadata: &fs::Metadata, target: &Path) -> std::io::Result<()> {
    // The owner first: a change of it clears set-user-id bits.
    chown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(target, metadata.permissions())
}

fn read_below(root: &File, file: &str) -> Result<Option<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let Some(opened) = open_below(root, file, flags)? else {
        return Ok(None);
    };
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    let mut content = Vec::new();
    let read = opened.take(FILE_LIMIT).read_to_end(&mut content);
    read.map_err(|e| Error::io(format!("read {file} in a snapshot"), e))?;
    Ok(Some(content))
}

/// One of containerd's mounts, read-only whatever it says.
fn attach(one: &Mount, point: &Path) -> nix::Result<()> {
    let none: Option<&str> = None;
    let mut flags = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    let mut data: Vec<&str> = Vec::new();
    for option in &one.options {
        match option.as_str() {
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "ro" | "rw" => {}
            // The writable layer is empty yet, and will be mounted by somebody else in a moment.
            option if option.starts_with("upperdir=") || option.starts_with("workdir=") => {}
            other => data.push(other),
        }
    }
    // overlayfs wants two layers at least.
    if let Some(only) = data
        .iter()
        .find_map(|option| option.strip_prefix("lowerdir="))
        .filter(|l| !l.contains(':'))
    {
        return mount(Some(only), point, none, MsFlags::MS_BIND, none);
    }
    let joined = data.join(",");
    let (directory, joined) = if joined.len() < PAGE {
        (None, joined)
    } else {
        shorten(&data)
    };
    if let Some(directory) = directory {
        // The working directory is this thread's own (CLONE_FS).
        nix::unistd::chdir(&directory)?;
    }
    mount(
        Some(one.source.as_str()),
        point,
        Some(one.r#type.as_str()),
        flags,
        Some(joined.as_str()),
    )
}

/// Many layers' paths don't fit one page: their common directory is left to the working directory.
fn shorten(data: &[&str]) -> (Option<PathBuf>, String) {
    let lower = data
        .iter()
        .find_map(|option| option.strip_prefix("lowerdir="))
        .unwrap_or_default();
    let layers: Vec<&str> = lower.split(':').collect();
    let mut common = PathBuf::from(layers.first().copied().unwrap_or_default());
    while !layers.iter().all(|layer| Path::new(layer).starts_with(&common)) {
        if !common.pop() {
            return (None, data.join(","));
        }
    }
    let relative: Vec<String> = layers
        .iter()
        .map(|layer| {
            Path::new(layer)
                .strip_prefix(&common)
                .unwrap_or(Path::new(layer))
                .display()
                .to_string()
        })
        .collect();
    let lower = format!("lowerdir={}", relative.join(":"));
    let options = data.iter().map(|option| {
        if option.starts_with("lowerdir=") {
            lower.as_str()
        } else {
            option
        }
    });
    (Some(common), options.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_copied_however_deep_it_is() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // More than there may be descriptors at once; a path holds no more than twice that.
        let deep = "d/".repeat(900);
        fs::create_dir_all(from.path().join(&deep)).unwrap();
        fs::write(from.path().join(&deep).join("file"), "content").unwrap();
        symlink("/etc/passwd", from.path().join("d/link")).unwrap();
        fs::set_permissions(from.path().join("d"), fs::Permissions::from_mode(0o2710)).unwrap();
        copy_directory(&File::open(from.path()).unwrap(), to.path()).unwrap();
        assert_eq!(
            fs::read_to_string(to.path().join(&deep).join("file")).unwrap(),
            "content"
        );
        assert_eq!(
            fs::read_link(to.path().join("d/link")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert_eq!(to.path().join("d").metadata().unwrap().mode() & 0o7777, 0o2710);
    }

    #[test]
    fn long_overlay_options_become_relative() {
        let (directory, options) = shorten(&["index=off", "lowerdir=/var/s/12/fs:/var/s/3/fs"]);
        assert_eq!(directory, Some(PathBuf::from("/var/s")));
        assert_eq!(options, "index=off,lowerdir=12/fs:3/fs");
    }
}
