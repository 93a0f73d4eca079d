//! The log file and its rotation: `0.log` grows to the limit, is renamed with a time, older ones are gzipped, the oldest
//! go. Whoever reads `0.log` sees the inode change; that is how `kubectl logs -f` and log shippers follow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use mk8s_supervisor::job;
use parking_lot::Mutex;

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    max_files: usize,
}

impl LogFile {
    pub(super) fn open(path: &Path, max_size: u64, max_files: usize) -> io::Result<LogFile> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            size,
            max_size,
            max_files,
        })
    }

    /// Appends whole records with one write. A full disk loses them: the container must not hang on its log.
    pub(super) fn append(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        if self.size > 0 && self.size + records.len() as u64 > self.max_size {
            // With the directory gone (its pod was removed) there is nothing to rotate into: go on with what is open.
            let _ = self.rotate();
        }
        if self.file.write_all(records).is_ok() {
            self.size += records.len() as u64;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S%.6f").to_string();
        let rotated = PathBuf::from(format!("{}.{stamp}", self.path.display()));
        fs::rename(&self.path, &rotated)?;
        self.file = open(&self.path)?;
        self.size = 0;
        let (path, keep) = (self.path.clone(), self.max_files.saturating_sub(1));
        // Compressing takes a moment: not on the loop that drains the container's pipes.
        job::thread("log-rotation", move || tidy(&path, keep)).map(drop)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    // Where a pod was lent the directory, a link here would lead what the container says to any file of the host.
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Gzips rotated files but the newest (a reader may still be in it), removes all but `keep`. One at a time: a container
/// may fill its log faster than one is compressed.
fn tidy(path: &Path, keep: usize) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let mut rotated = rotated_files(path);
    rotated.sort();
    let surplus = rotated.len().saturating_sub(keep);
    for old in rotated.drain(..surplus) {
        let _ = fs::remove_file(old);
    }
    let older = rotated.split_last().map_or(&[][..], |(_, older)| older);
    for file in older.iter().filter(|file| file.extension().is_none_or(|e| e != "gz")) {
        if compress(file).is_ok() {
            let _ = fs::remove_file(file);
        }
    }
}

fn rotated_files(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let entries = path
        .parent()
        .and_then(|directory| fs::read_dir(directory).ok())
        .into_iter()
        .flatten()
        .flatten();
    let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    entries
        .filter(ours)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none_or(|e| e != "tmp"))
        .collect()
}

fn compress(file: &Path) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}.tmp", file.display()));
    let mut encoder = GzEncoder::new(open(&temporary)?, Compression::default());
    let mut rotated = OpenOptions::new();
    let rotated = rotated.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    io::copy(&mut rotated.open(file)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&temporary, format!("{}.gz", file.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (target, path) = (dir.path().join("target"), dir.path().join("0.log"));
        fs::write(&target, "the host's").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(LogFile::open(&path, 10, 3).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "the host's");
    }

    #[test]
    fn rotates_at_the_limit_and_keeps_so_many() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::open(&path, 10, 3).unwrap();
        for _ in 0..6 {
            log.append(b"12345678\n");
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        assert_eq!(fs::read(&path).unwrap(), b"12345678\n");
        let gzipped = |files: &[PathBuf]| {
            files
                .iter()
                .filter(|file| file.extension().is_some_and(|e| e == "gz"))
                .count()
        };
        let settled = || {
            let files = rotated_files(&path);
            files.len() == 2 && gzipped(&files) == 1
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !settled() {
            assert!(std::time::Instant::now() < deadline, "{:?}", rotated_files(&path));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
