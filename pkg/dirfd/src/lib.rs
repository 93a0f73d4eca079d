//! mk8s-dirfd: a directory that is opened once, and everything below it by descriptor. Containers write to parts of the agent's tree,
//! so a name there may be a link to anywhere at any moment: the kernel resolves each path beneath the directory and
//! through no link (openat2), and what is deleted is never on another mount.
//!
//! Names are relative and have no `..`; absolute ones are refused by the kernel.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// What stands on another mount is not ours to delete.
    #[error("{path} is a mount point: it has to be unmounted first")]
    Mounted { path: PathBuf },
}

impl Error {
    fn new(what: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        let (path, source) = (path.into(), errno.into());
        Error::Io { what, path, source }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What was to be opened or removed as a directory is none; a link is none either.
    pub fn is_no_directory(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        let code = source.raw_os_error();
        code == Some(Errno::ENOTDIR as i32) || code == Some(Errno::ELOOP as i32)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { ref source, .. } => io::Error::new(source.kind(), error),
            Error::Mounted { .. } => io::Error::new(io::ErrorKind::ResourceBusy, error),
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Removes what is at `path` with all below it, as far as it is on this mount; what is not there is removed already. No
/// container may be able to change the path but for its last name.
pub fn remove_path(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path
        .file_name()
        .ok_or_else(|| Error::new("remove", path, Errno::EINVAL))?;
    found(Dir::open(parent).and_then(|parent| parent.remove_tree(name))).map(drop)
}

/// Turns "there is none" into none.
pub fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

const READ_DIR: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// A container can nest directories without limit; deeper ones are moved up before they are emptied, so that neither the
/// stack nor the table of descriptors has to hold them.
const MAX_DEPTH: usize = 32;
/// Who still writes to a directory that is being emptied is not raced for ever.
const MAX_ROUNDS: usize = 8;

/// The kernel asks for another try when a directory on the way was moved meanwhile.
const TRIES: usize = 16;

fn resolve(at: BorrowedFd<'_>, path: &Path, how: OpenHow) -> nix::Result<OwnedFd> {
    for _ in 0..TRIES {
        match openat2(at, path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens `path` beneath `at`, following links that stay beneath it: a subPath may be a link of the volume's own.
pub fn open_beneath(at: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    resolve(at.as_fd(), path, how)
}

/// The path by which another system call reaches exactly what is open.
pub fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Where it was when it was opened: for messages, and for those who are told of a mount's source.
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens by a path that no container can change; links on it are the administrator's.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = nix::fcntl::open(path, READ_DIR, Mode::empty()).map_err(|e| Error::new("open", path, e))?;
        let path = path.to_owned();
        Ok(Self { fd, path })
    }

    /// As `open`; it is made where it is missing.
    pub fn create(path: &Path) -> Result<Self> {
        let made = std::fs::create_dir_all(path);
        made.map_err(|source| Error::Io {
            what: "create",
            path: path.to_owned(),
            source,
        })?;
        Self::open(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    fn open_with(&self, name: &Path, flags: OFlag, mode: Mode, extra: ResolveFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | extra);
        resolve(self.as_fd(), name, how)
    }

    pub fn dir(&self, name: impl AsRef<Path>) -> Result<Self> {
        let name = name.as_ref();
        let fd = self.open_with(name, READ_DIR, Mode::empty(), ResolveFlag::empty());
        let fd = fd.map_err(|e| Error::new("open", self.at(name), e))?;
        let path = self.at(name);
        Ok(Self { fd, path })
    }

    /// As `dir`, and never on another mount.
    fn dir_on_this_mount(&self, name: &OsStr) -> Result<Self> {
        let path = self.at(name);
        match self.open_with(Path::new(name), READ_DIR, Mode::empty(), ResolveFlag::RESOLVE_NO_XDEV) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(Errno::EXDEV) => Err(Error::Mounted { path }),
            Err(errno) => Err(Error::new("open", path, errno)),
        }
    }

    /// Opens a directory, making what is missing on the way with `mode` whatever our umask. Says whether the last was made.
    pub fn ensure_dir(&self, name: impl AsRef<Path>, mode: u32) -> Result<(Self, bool)> {
        match self.dir(&name) {
            Ok(dir) => return Ok((dir, false)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let mut reached: Option<Dir> = None;
        let mut made = false;
        for part in name.as_ref().components() {
            let at = reached.as_ref().unwrap_or(self);
            let part: &OsStr = part.as_os_str();
            made = match mkdirat(at, part, Mode::from_bits_truncate(0o700)) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(Error::new("create", at.at(part), errno)),
            };
            let next = at.dir(part)?;
            if made {
                next.chmod(mode)?;
            }
            reached = Some(next);
        }
        let dir = reached.ok_or_else(|| Error::new("open", self.at(&name), Errno::ENOENT))?;
        Ok((dir, made))
    }

    pub fn chmod(&self, mode: u32) -> Result<()> {
        fchmod(self, Mode::from_bits_truncate(mode)).map_err(|e| Error::new("chmod", &self.path, e))
    }

    pub fn chown_group(&self, group: u32) -> Result<()> {
        fchown(self, None, Some(Gid::from_raw(group))).map_err(|e| Error::new("chown", &self.path, e))
    }

    pub fn stat(&self) -> Result<FileStat> {
        fstat(self).map_err(|e| Error::new("look at", &self.path, e))
    }

    /// What stands under the name itself, were it a link.
    pub fn stat_of(&self, name: impl AsRef<Path>) -> Result<FileStat> {
        let name = name.as_ref();
        fstatat(self, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| Error::new("look at", self.at(name), e))
    }

    pub fn exists(&self, name: impl AsRef<Path>) -> Result<bool> {
        let fd = self.open_with(name.as_ref(), OFlag::O_PATH, Mode::empty(), ResolveFlag::empty());
        match fd {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(Error::new("open", self.at(name), errno)),
        }
    }

    /// Opens a file to read; what is none (a pipe, a device, which may act on being opened or have no end) is refused
    /// before it is opened.
    pub fn file(&self, name: impl AsRef<Path>) -> Result<std::fs::File> {
        let name = name.as_ref();
        let failed = |errno| Error::new("open", self.at(name), errno);
        let there = self.open_with(name, OFlag::O_PATH, Mode::empty(), ResolveFlag::empty());
        self.read_only(name, there.map_err(failed)?)
    }

    /// As [`Dir::file`], by links that stay beneath: a container's own way to a file of its volume.
    pub fn file_beneath(&self, name: impl AsRef<Path>) -> Result<std::fs::File> {
        let name = name.as_ref();
        let there = open_beneath(self, name).map_err(|errno| Error::new("open", self.at(name), errno))?;
        self.read_only(name, there)
    }

    fn read_only(&self, name: &Path, there: OwnedFd) -> Result<std::fs::File> {
        let failed = |errno| Error::new("open", self.at(name), errno);
        match fstat(&there).map_err(failed)?.st_mode & SFlag::S_IFMT.bits() {
            kind if kind == SFlag::S_IFREG.bits() => {}
            kind if kind == SFlag::S_IFDIR.bits() => return Err(failed(Errno::EISDIR)),
            _ => return Err(failed(Errno::EINVAL)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(&proc_path(&there), flags, Mode::empty()).map_err(failed)?;
        Ok(fd.into())
    }

    pub fn read(&self, name: impl AsRef<Path>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file(&name)?.read_to_end(&mut bytes);
        read.map_err(|source| Error::Io {
            what: "read",
            path: self.at(name),
            source,
        })?;
        Ok(bytes)
    }

    /// Makes a file that must not be there yet. Until its mode is set only root may read it.
    pub fn create_file(
        &self,
        name: impl AsRef<Path>,
        data: &[u8],
        mode: u32,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<std::fs::File> {
        let name = name.as_ref();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = self.open_with(name, flags, Mode::from_bits_truncate(0o600), ResolveFlag::empty());
        let mut file: std::fs::File = fd.map_err(|e| Error::new("create", self.at(name), e))?.into();
        file.write_all(data).map_err(|source| Error::Io {
            what: "write",
            path: self.at(name),
            source,
        })?;
        if owner.is_some() || group.is_some() {
            let owned = fchown(&file, owner.map(Uid::from_raw), group.map(Gid::from_raw));
            owned.map_err(|e| Error::new("chown", self.at(name), e))?;
        }
        fchmod(&file, Mode::from_bits_truncate(mode)).map_err(|e| Error::new("chmod", self.at(name), e))?;
        Ok(file)
    }

    /// Puts a file in place as a whole: who reads the name sees the old content or the new. `durable`: after a power cut
    /// too, and once this is through, the new; else a power cut may leave an empty file.
    pub fn replace_file(&self, name: &str, data: &[u8], mode: u32, durable: bool) -> Result<()> {
        let fresh = format!("{name}.new");
        found(self.remove_file(&fresh))?;
        let file = self.create_file(&fresh, data, mode, None, None)?;
        if !durable {
            return self.rename(&fresh, name);
        }
        // The content before the name that leads to it: else the old content could be lost and the new not be there.
        file.sync_all().map_err(|source| Error::Io {
            what: "sync",
            path: self.at(&fresh),
            source,
        })?;
        self.rename(&fresh, name)?;
        nix::unistd::fsync(self).map_err(|e| Error::new("sync", &self.path, e))
    }

    /// An empty file, made where there is none.
    pub fn ensure_file(&self, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK;
        let fd = self.open_with(name, flags, Mode::from_bits_truncate(0o600), ResolveFlag::empty());
        fd.map(drop).map_err(|e| Error::new("create", self.at(name), e))
    }

    pub fn symlink(&self, target: impl AsRef<Path>, name: &str) -> Result<()> {
        symlinkat(target.as_ref(), self, name).map_err(|e| Error::new("link", self.at(name), e))
    }

    pub fn read_link(&self, name: &str) -> Result<OsString> {
        nix::fcntl::readlinkat(self, name).map_err(|e| Error::new("read the link", self.at(name), e))
    }

    /// Within this directory; neither name may be a path.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        renameat(self, from, self, to).map_err(|e| Error::new("rename", self.at(from), e))
    }

    /// The names in it and what each is; `.` and `..` are not among them.
    pub fn entries(&self) -> Result<Vec<(OsString, Type)>> {
        self.listing()?.collect()
    }

    fn listing(&self) -> Result<impl Iterator<Item = Result<(OsString, Type)>> + '_> {
        // A descriptor of its own: the place in a listing belongs to the descriptor.
        let own = self.open_with(Path::new("."), READ_DIR, Mode::empty(), ResolveFlag::empty());
        let listing = own.and_then(nix::dir::Dir::from_fd);
        let listing = listing.map_err(|e| Error::new("list", &self.path, e))?;
        let entries = listing.into_iter().map(|entry| {
            let entry = entry.map_err(|e| Error::new("list", &self.path, e))?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            let kind = match entry.file_type() {
                Some(kind) => kind,
                None => self.kind_of(&name)?,
            };
            Ok((name, kind))
        });
        Ok(entries.filter(|entry| !matches!(entry, Ok((name, _)) if name == "." || name == "..")))
    }

    fn kind_of(&self, name: &OsStr) -> Result<Type> {
        let is_dir = SFlag::from_bits_truncate(self.stat_of(name)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
        Ok(if is_dir { Type::Directory } else { Type::File })
    }

    fn unlink(&self, name: &OsStr, flags: UnlinkatFlags) -> Result<()> {
        match unlinkat(self, name, flags) {
            Ok(()) => Ok(()),
            // Nothing else makes a name busy.
            Err(Errno::EBUSY) => Err(Error::Mounted { path: self.at(name) }),
            Err(errno) => Err(Error::new("remove", self.at(name), errno)),
        }
    }

    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.unlink(name.as_ref(), UnlinkatFlags::NoRemoveDir)
    }

    /// Only an empty one goes.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.unlink(name.as_ref(), UnlinkatFlags::RemoveDir)
    }

    /// Removes `name` with all that is in it, as far as it is on this mount: at a mount point it stops.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = name.as_ref();
        match self.dir_on_this_mount(name) {
            Ok(dir) => {
                dir.clear()?;
                self.remove_dir(name)
            }
            // A file or a link goes as itself.
            Err(error) if error.is_no_directory() => self.remove_file(name),
            Err(error) => Err(error),
        }
    }

    /// Removes all that is in this directory, as far as it is on this mount: at a mount point it stops.
    pub fn clear(&self) -> Result<()> {
        let mut moved = 0;
        let mut rounds_in_vain = 0;
        while rounds_in_vain < MAX_ROUNDS {
            let (mut empty, before) = (true, moved);
            for entry in self.listing()? {
                empty = false;
                let (name, kind) = entry?;
                self.clear_entry(&name, kind, self, 1, &mut moved)?;
            }
            if empty {
                return Ok(());
            }
            rounds_in_vain = if moved == before { rounds_in_vain + 1 } else { 0 };
        }
        Err(Error::new("empty", &self.path, Errno::ENOTEMPTY))
    }

    fn clear_entry(&self, name: &OsStr, kind: Type, top: &Dir, depth: usize, moved: &mut u64) -> Result<()> {
        if kind != Type::Directory {
            return found(self.remove_file(name)).map(drop);
        }
        if depth >= MAX_DEPTH {
            return self.move_up(name, top, moved);
        }
        let Some(dir) = found(self.dir_on_this_mount(name))? else {
            return Ok(());
        };
        for entry in dir.listing()? {
            let (inner, kind) = entry?;
            dir.clear_entry(&inner, kind, top, depth + 1, moved)?;
        }
        drop(dir);
        match self.remove_dir(name) {
            // Some names may hide from a listing that changes under it: the next round finds them.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => found(other).map(drop),
        }
    }

    /// The next round over `top` finds it there.
    fn move_up(&self, name: &OsStr, top: &Dir, moved: &mut u64) -> Result<()> {
        loop {
            let fresh = format!(".mk8s-removing-{moved}");
            *moved += 1;
            let there = nix::fcntl::renameat2(
                self,
                name,
                top,
                fresh.as_str(),
                nix::fcntl::RenameFlags::RENAME_NOREPLACE,
            );
            match there {
                Ok(()) => return Ok(()),
                Err(Errno::EEXIST) => {}
                Err(Errno::EBUSY) => return Err(Error::Mounted { path: self.at(name) }),
                Err(errno) => return Err(Error::new("remove", self.at(name), errno)),
            }
        }
    }

    /// Whether something is mounted on `name`.
    pub fn is_mount_point(&self, name: impl AsRef<Path>) -> Result<bool> {
        let name = name.as_ref();
        match self.open_with(name, OFlag::O_PATH, Mode::empty(), ResolveFlag::RESOLVE_NO_XDEV) {
            Ok(_) => Ok(false),
            Err(Errno::EXDEV) => Ok(true),
            Err(errno) => Err(Error::new("open", self.at(name), errno)),
        }
    }

    /// Mounts a file system of this kind on `name`, which has to be there.
    pub fn mount(&self, name: &str, kind: &str, flags: MsFlags, options: Option<&str>) -> Result<()> {
        let target = self.open_with(Path::new(name), OFlag::O_PATH, Mode::empty(), ResolveFlag::empty());
        let target = target.map_err(|e| Error::new("open", self.at(name), e))?;
        mount(Some(kind), &proc_path(&target), Some(kind), flags, options)
            .map_err(|e| Error::new("mount a file system on", self.at(name), e))
    }

    /// Binds what is open as `source` to `name`, without what is mounted below it. Unless it is to stay `shared`, mounts
    /// and unmounts pass from the source to it, never back.
    pub fn bind(&self, name: &str, source: impl AsFd, shared: bool) -> Result<()> {
        let failed = |errno| Error::new("mount", self.at(name), errno);
        let target = self.open_with(Path::new(name), OFlag::O_PATH, Mode::empty(), ResolveFlag::empty());
        let target = target.map_err(failed)?;
        let none = None::<&str>;
        mount(
            Some(&proc_path(source)),
            &proc_path(&target),
            none,
            MsFlags::MS_BIND,
            none,
        )
        .map_err(failed)?;
        if !shared {
            self.set_propagation(name, MsFlags::MS_SLAVE)?;
        }
        Ok(())
    }

    fn set_propagation(&self, name: &str, flags: MsFlags) -> Result<()> {
        let failed = |errno| Error::new("set the propagation of", self.at(name), errno);
        // Opened anew: now the name leads to the mount that stands on it.
        let mounted = self.open_with(Path::new(name), OFlag::O_PATH, Mode::empty(), ResolveFlag::empty());
        let mounted = mounted.map_err(failed)?;
        let none = None::<&str>;
        mount(none, &proc_path(&mounted), none, flags, none).map_err(failed)
    }

    /// Unmounts the file system that was mounted on `name`. Refused while something uses it or is mounted in it.
    pub fn unmount(&self, name: &str) -> Result<()> {
        match umount2(&self.mount_name(name), MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(errno) => Err(Error::new("unmount", self.at(name), errno)),
        }
    }

    /// Takes a bind off `name`. What is mounted below it here are copies of mounts that others made: they are parted from
    /// those first, so that their going is seen by nobody.
    pub fn unbind(&self, name: &str) -> Result<()> {
        self.set_propagation(name, MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
        umount2(&self.mount_name(name), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|e| Error::new("unmount", self.at(name), e))
    }

    /// By its parent: a descriptor of the mount itself would keep it busy.
    fn mount_name(&self, name: &str) -> PathBuf {
        proc_path(self).join(name)
    }
}

/// Mounts of a test's own.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    #![allow(clippy::unwrap_used, clippy::missing_panics_doc)]
    use super::*;

    /// Runs the test in mounts of its own, which are all shared among themselves, as systemd has a host's.
    #[allow(clippy::disallowed_methods, reason = "a mount namespace is a thread's")]
    pub fn with_shared_mounts(test: impl FnOnce(&Path) + Send + 'static) {
        let run = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            for flags in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
                mount(none, "/", none, flags | MsFlags::MS_REC, none).unwrap();
            }
            let temp = tempfile::tempdir().unwrap();
            tmpfs(temp.path());
            test(temp.path());
            // The namespace goes with this thread, and all mounts with it.
            umount2(temp.path(), MntFlags::MNT_DETACH).unwrap();
        };
        std::thread::spawn(run).join().unwrap();
    }

    pub fn tmpfs(at: &Path) {
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("file"), "the host's").unwrap();
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        symlink(host.path(), temp.path().join("link")).unwrap();
        symlink(host.path().join("file"), temp.path().join("to-file")).unwrap();
        symlink("/proc/self/cwd", temp.path().join("magic")).unwrap();
        assert!(dir.dir("link").is_err() && dir.dir("magic").is_err());
        assert!(dir.read("link/file").is_err() && dir.read("to-file").is_err());
        assert!(dir.ensure_dir("link/new", 0o755).is_err());
        assert!(dir.create_file("link/new", b"x", 0o600, None, None).is_err());
        assert!(dir.ensure_file("to-file").is_err());
        assert!(dir.dir("..").is_err() && dir.dir(host.path()).is_err());
        dir.replace_file("to-file", b"own", 0o600, true).unwrap();
        assert_eq!(dir.read("to-file").unwrap(), b"own");
        dir.remove_tree("link").unwrap();
        dir.clear().unwrap();
        assert_eq!(dir.entries().unwrap(), []);
        assert_eq!(fs::read_to_string(host.path().join("file")).unwrap(), "the host's");
    }

    /// On a disk that has no room for what is written, which shows only when it is synced.
    #[test]
    fn what_does_not_reach_the_disk_replaces_nothing() {
        testing::with_shared_mounts(|root| {
            let run = |command: &str| {
                let mut shell = std::process::Command::new("sh");
                let output = shell.args(["-ec", command]).current_dir(root).output().unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
            };
            run(
                "mkdir back disk; mount -t tmpfs -o size=8m none back; truncate -s 64m back/image
                 mkfs.ext4 -q -O ^has_journal -E nodiscard back/image; mount -o loop back/image disk",
            );
            let dir = Dir::open(&root.join("disk")).unwrap();
            dir.replace_file("file", b"old", 0o600, true).unwrap();
            run("head -c 8m /dev/zero > back/rest 2>/dev/null || true");
            let new = vec![b'x'; 1 << 20];
            let failed = dir.replace_file("file", &new, 0o600, true).unwrap_err();
            assert!(dir.read("file").unwrap() == b"old", "{failed}");
            drop(dir);
            run("umount -l disk; umount -l back");
        });
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let node = |name: &str, kind, device| {
            nix::sys::stat::mknod(&temp.path().join(name), kind, Mode::S_IRUSR, device).unwrap();
        };
        // As a container can make them: the agent would read the first without end.
        node("zero", SFlag::S_IFCHR, nix::sys::stat::makedev(1, 5));
        node("pipe", SFlag::S_IFIFO, 0);
        fs::create_dir(temp.path().join("directory")).unwrap();
        fs::write(temp.path().join("file"), "content").unwrap();
        for name in ["zero", "pipe", "directory"] {
            assert!(dir.file(name).is_err(), "{name}");
        }
        assert_eq!(dir.read("file").unwrap(), b"content");
        assert!(dir.file("none").unwrap_err().is_not_found());
    }

    #[test]
    fn a_tree_goes_however_deep_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        // Deeper than a path can name, and than descriptors last.
        let mut at = dir.ensure_dir("top", 0o755).unwrap().0;
        for level in 0..3000 {
            at.create_file("file", b"", 0o600, None, None).unwrap();
            at = at.ensure_dir(format!("level{level}"), 0o755).unwrap().0;
            // Its path is only for messages.
            at.path = PathBuf::new();
        }
        remove_path(&temp.path().join("top")).unwrap();
        remove_path(&temp.path().join("top")).unwrap();
        remove_path(&temp.path().join("no/top")).unwrap();
        assert_eq!(dir.entries().unwrap(), []);
    }

    #[test]
    fn deletion_stops_at_a_mount() {
        testing::with_shared_mounts(|root| {
            let dir = Dir::open(root).unwrap();
            fs::create_dir_all(root.join("volume/deep/mount")).unwrap();
            fs::create_dir_all(root.join("on-file/x")).unwrap();
            fs::write(root.join("on-file/x/file"), "").unwrap();
            testing::tmpfs(&root.join("volume/deep/mount"));
            fs::write(root.join("volume/deep/mount/kept"), "kept").unwrap();
            let file = root.join("on-file/x/file");
            let kept = root.join("volume/deep/mount/kept");
            mount(Some(&kept), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            for tree in ["volume", "on-file"] {
                let stopped = dir.remove_tree(tree).unwrap_err();
                assert!(matches!(stopped, Error::Mounted { .. }), "{stopped}");
            }
            assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
            assert!(dir.dir("volume/deep").unwrap().is_mount_point("mount").unwrap());
            assert!(!dir.is_mount_point("volume").unwrap());
            umount2(&file, MntFlags::empty()).unwrap();
            dir.dir("volume/deep").unwrap().unmount("mount").unwrap();
            dir.clear().unwrap();
        });
    }
}
