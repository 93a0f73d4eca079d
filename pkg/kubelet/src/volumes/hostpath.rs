//! hostPath: what must be there, or is made. It is the host's, before and after: nothing is undone.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Volume;

use super::PodDir;
use super::driver::{Driver, Request};
use super::record::{Record, Step};

pub struct HostPath;

impl Driver for HostPath {
    fn plugin(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn claims(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    fn is_durable(&self, _volume: &Volume) -> bool {
        false
    }

    fn ensure(&self, _step: Step, request: &Request<'_>, _record: &mut Record) -> Result<(), super::Error> {
        let Some(source) = &request.volume.host_path else {
            return Ok(());
        };
        check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())?;
        Ok(())
    }

    fn undo(&self, _step: Step, _dir: &PodDir, _volume: &str, _record: &Record) -> Result<(), super::Error> {
        Ok(())
    }

    fn path(&self, request: &Request<'_>) -> PathBuf {
        let source = request.volume.host_path.as_ref();
        source.map(|source| PathBuf::from(&source.path)).unwrap_or_default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("hostPath type check failed: {path} is not {wanted}")]
    Type { path: PathBuf, wanted: &'static str },
    #[error("cannot make {path} for a hostPath volume: {source}")]
    Make { path: PathBuf, source: std::io::Error },
    #[error("hostPath type {0:?} is unknown")]
    Unknown(String),
}

pub fn check(path: &Path, kind: &str) -> Result<(), Error> {
    let make = |source| Error::Make {
        path: path.to_owned(),
        source,
    };
    let found = fs::metadata(path).ok().map(|m| m.file_type());
    let (wanted, holds) = match kind {
        "" => {
            // Runtimes have always made a missing source a directory.
            if found.is_none() {
                fs::create_dir_all(path).map_err(make)?;
            }
            return Ok(());
        }
        "DirectoryOrCreate" => {
            if found.is_none() {
                fs::create_dir_all(path).map_err(make)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(make)?;
            }
            ("a directory", found.is_none_or(|f| f.is_dir()))
        }
        "FileOrCreate" => {
            if found.is_none() {
                fs::File::create(path).map_err(make)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(make)?;
            }
            ("a file", found.is_none_or(|f| f.is_file()))
        }
        "Directory" => ("a directory", found.is_some_and(|f| f.is_dir())),
        "File" => ("a file", found.is_some_and(|f| f.is_file())),
        "Socket" => ("a socket", found.is_some_and(|f| f.is_socket())),
        "CharDevice" => ("a character device", found.is_some_and(|f| f.is_char_device())),
        "BlockDevice" => ("a block device", found.is_some_and(|f| f.is_block_device())),
        other => return Err(Error::Unknown(other.to_owned())),
    };
    if holds {
        Ok(())
    } else {
        Err(Error::Type {
            path: path.to_owned(),
            wanted,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "").unwrap();
        for (path, kind, fine) in [
            (dir.path().join("new"), "", true),
            (dir.path().join("new2/deep"), "DirectoryOrCreate", true),
            (dir.path().join("nf"), "FileOrCreate", true),
            (file.clone(), "File", true),
            (file.clone(), "Directory", false),
            (file.clone(), "DirectoryOrCreate", false),
            (dir.path().join("none"), "Directory", false),
            (PathBuf::from("/dev/null"), "CharDevice", true),
            (file, "Socket", false),
        ] {
            assert_eq!(check(&path, kind).is_ok(), fine, "{} {kind}", path.display());
        }
        assert!(dir.path().join("nf").is_file() && dir.path().join("new").is_dir());
    }
}
