//! Files that are whole or absent: written beside, synced, renamed.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::PkiError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_path_buf();
    move |source| PkiError::File { action, path, source }
}

pub fn read_to_string(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(failed("reading", path))
}

/// Makes a directory that root alone may look into, or takes the others' rights away from one that is there.
pub fn private_directory(path: &Path) -> Result<(), PkiError> {
    std::fs::create_dir_all(path).map_err(failed("making", path))?;
    let private = std::fs::Permissions::from_mode(0o700);
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{:08x}", rand::random::<u32>()));
    let result = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        // The umask may have taken bits away from the mode.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        std::fs::File::open(directory)?.sync_all()
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    result.map_err(failed("writing", path))
}
