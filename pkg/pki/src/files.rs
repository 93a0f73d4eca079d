//! Files that are whole or absent: written without a name, synced, then named.
//!
//! A write that is interrupted leaves nothing, or, where a file is replaced, its next content whole under one name that is
//! known: the next write takes it away, as [`remove`] does. So there is one writer of a file at a time.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};

use crate::PkiError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_path_buf();
    move |source| PkiError::File { action, path, source }
}

/// Before the name of a file that is about to take the place of another.
const BESIDE: &str = ".mk8s-new.";
/// What is longer is none of the files that are read here.
const LIMIT: u64 = 1 << 20;

/// Where the next content of `path` stands before it takes the name.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{BESIDE}{name}"))
}

/// Reads a regular file of at most 1 MiB of UTF-8; what else stands there is neither waited for nor read.
pub fn read_to_string(path: &Path) -> Result<String, PkiError> {
    let read = || {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is no regular file"));
        }
        let mut text = String::new();
        file.take(LIMIT + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LIMIT {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is longer than 1 MiB"));
        }
        Ok(text)
    };
    read().map_err(failed("reading", path))
}

/// Makes a directory that root alone may look into, or takes the others' rights away from one that is there.
pub fn private_directory(path: &Path) -> Result<(), PkiError> {
    std::fs::create_dir_all(path).map_err(failed("making", path))?;
    let private = Permissions::from_mode(0o700);
    std::fs::set_permissions(path, private).map_err(failed("protecting", path))
}

/// Replaces `path` atomically; missing directories are made (0700 for those that will hold keys).
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        if mode & 0o077 == 0 {
            private_directory(directory)?;
        } else {
            std::fs::create_dir_all(directory).map_err(failed("making", directory))?;
        }
    }
    let beside = beside(path);
    let written = put(directory, path, &beside, bytes, mode);
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(failed("writing", path))
}

fn put(directory: &Path, path: &Path, beside: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    absent(beside)?;
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    let unnamed = options.clone().custom_flags(OFlag::O_TMPFILE.bits()).open(directory);
    let is_unnamed = unnamed.is_ok();
    // Not every file system has files without a name.
    let mut file = unnamed.or_else(|_| options.create_new(true).open(beside))?;
    // The umask may have taken bits away from the mode.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let is_new = is_unnamed && name(&file, path)?;
    if !is_new {
        if is_unnamed {
            name(&file, beside)?;
        }
        std::fs::rename(beside, path)?;
    }
    File::open(directory)?.sync_all()
}

/// Gives a file without a name one, and says whether it was free.
fn name(file: &File, path: &Path) -> io::Result<bool> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    match nix::unistd::linkat(AT_FDCWD, own.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, and what an interrupted write of it left; one that is not there is removed already.
pub fn remove(path: &Path) -> Result<(), PkiError> {
    for path in [&beside(path), path] {
        absent(path).map_err(failed("removing", path))?;
    }
    Ok(())
}

fn absent(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes a file again and again until it is killed. Without a directory it has nothing to do.
    #[test]
    fn a_process_that_writes() {
        let Some(directory) = std::env::var_os(DIRECTORY) else {
            return;
        };
        for round in 0..u32::MAX {
            let file = Path::new(&directory).join(["first", "second"][round as usize % 2]);
            write(&file, &[b'x'; 100_000], 0o600).unwrap();
            if round % 3 == 0 {
                remove(&file).unwrap();
            }
        }
    }

    const DIRECTORY: &str = "MK8S_TEST_DIRECTORY";

    #[test]
    fn who_is_killed_leaves_whole_files_under_known_names() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..30 {
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "files::tests::a_process_that_writes"])
                .env(DIRECTORY, dir.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20 + round * 3));
            writer.kill().unwrap();
            writer.wait().unwrap();
            for name in names(dir.path()) {
                let plain = name.strip_prefix(BESIDE).unwrap_or(&name);
                assert!(["first", "second"].contains(&plain), "{name}");
                assert_eq!(fs::metadata(dir.path().join(&name)).unwrap().len(), 100_000, "{name}");
            }
        }
        for name in ["first", "second"] {
            remove(&dir.path().join(name)).unwrap();
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_an_interrupted_write_left_goes_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for content in ["first", "second"] {
            fs::write(beside(&path), "half a ke").unwrap();
            write(&path, content.as_bytes(), 0o640).unwrap();
            assert_eq!(names(dir.path()), ["key"]);
            assert_eq!(read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
        fs::write(beside(&path), "half a ke").unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_no_file_of_mk8ss_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = read_to_string(&path).unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(LIMIT + 1).unwrap();
        let refused = read_to_string(&path).unwrap_err().to_string();
        assert!(refused.contains("longer"), "{refused}");
    }
}
