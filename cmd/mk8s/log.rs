//! /var/log/mk8s.log, where init and systemd send what `mk8s run` says. Nobody else may be there to rotate it, so the process
//! does: at 10 MiB it becomes mk8s.log.1, in the place of the one before, as the kubelet does with containers' logs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::failure::Result;
use crate::lifecycle;
use crate::settings::LOG_FILE;

const LIMIT: u64 = 10 << 20;

/// The file behind stderr, and how long it is.
struct Log {
    path: PathBuf,
    length: Mutex<u64>,
}

/// What to do after each line: something, if the log is what stderr writes to; in the foreground it is not.
pub fn limit() -> impl Fn(usize) + Send + Sync + 'static {
    let log = stderr_is(Path::new(LOG_FILE)).map(|length| Log {
        path: LOG_FILE.into(),
        length: Mutex::new(length),
    });
    move |written| {
        let Some(log) = &log else { return };
        let mut length = log.length.lock();
        *length += written as u64;
        if *length > LIMIT {
            // Where it fails the next try is one more limit away.
            *length = 0;
            if let Ok(fresh) = rotate(&log.path) {
                let _ = nix::unistd::dup2_stdout(&fresh);
                let _ = nix::unistd::dup2_stderr(&fresh);
            }
        }
    }
}

/// The length of the file at `path`, if stderr is that.
fn stderr_is(path: &Path) -> Option<u64> {
    let (own, named) = (std::fs::metadata("/proc/self/fd/2").ok()?, path.metadata().ok()?);
    ((own.dev(), own.ino()) == (named.dev(), named.ino())).then_some(named.len())
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".1");
    name.into()
}

fn rotate(path: &Path) -> std::io::Result<File> {
    std::fs::rename(path, old(path))?;
    OpenOptions::new().create(true).append(true).open(path)
}

/// Removes the log and the one before it.
pub fn remove() -> Result<()> {
    let path = Path::new(LOG_FILE);
    lifecycle::remove_file(path)?;
    lifecycle::remove_file(&old(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn two_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mk8s.log");
        std::fs::write(&path, "first").unwrap();
        for line in ["second", "third"] {
            rotate(&path).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(std::fs::read_to_string(old(&path)).unwrap(), "second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
