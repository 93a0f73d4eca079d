//! Files of a ConfigMap, Secret or the like, changed all at once: they stand in a directory named by time, `..data` points
//! at it, and each visible name is a link through `..data`. A reader sees the old set or the new one, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner, where it is not root (a token for a user).
    pub owner: Option<u32>,
}

/// Path in the volume → file.
pub type Payload = BTreeMap<String, File>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid path {0:?} in a volume: it must be relative and have no '..'")]
    Path(String),
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn check(path: &str) -> Result<(), Error> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(Error::Path(path.to_owned()));
    }
    Ok(())
}

/// Makes `dir` hold exactly `payload`; `group` is the pod's fsGroup. Answers whether anything changed.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, Error> {
    for path in payload.keys() {
        check(path)?;
    }
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.").to_string();
    let name = format!("{stamp}{}", rand::random::<u32>());
    let fresh = dir.join(&name);
    fs::create_dir(&fresh).map_err(io("create", &fresh))?;
    // Not subject to our umask: any user of the pod has to be able to look inside.
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(io("chmod", &fresh))?;
    own(&fresh, group)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent().filter(|p| *p != fresh) {
            fs::create_dir_all(parent).map_err(io("create", parent))?;
            let mut at = parent;
            while at != fresh {
                fs::set_permissions(at, fs::Permissions::from_mode(0o755)).map_err(io("chmod", at))?;
                own(at, group)?;
                let Some(up) = at.parent() else { break };
                at = up;
            }
        }
        put(&target, file, group)?;
    }
    let pointer = dir.join(DATA_NEW);
    let _ = fs::remove_file(&pointer);
    symlink(&name, &pointer).map_err(io("link", &pointer))?;
    fs::rename(&pointer, &data).map_err(io("swap", &data))?;
    let visible: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &visible {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(io("link", &link))?;
        }
    }
    for entry in fs::read_dir(dir).map_err(io("list", dir))?.flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        if !found.starts_with("..") && !visible.contains(found.as_ref()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Some(old) = old {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

fn put(target: &Path, file: &File, group: Option<u32>) -> Result<(), Error> {
    // A group that owns the files may read them, whatever the mode leaves it.
    let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(io("create", target))?;
    out.write_all(&file.data).map_err(io("write", target))?;
    if file.owner.is_some() || group.is_some() {
        chown(target, file.owner, group).map_err(io("chown", target))?;
    }
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).map_err(io("chmod", target))
}

fn own(path: &Path, group: Option<u32>) -> Result<(), Error> {
    match group {
        Some(group) => chown(path, None, Some(group)).map_err(io("chown", path)),
        None => Ok(()),
    }
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let mut count = 0;
    let mut stack = vec![dir.to_owned()];
    while let Some(at) = stack.pop() {
        let Ok(entries) = fs::read_dir(&at) else { return false };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(t) if t.is_dir() => stack.push(entry.path()),
                Ok(_) => count += 1,
                Err(_) => return false,
            }
        }
    }
    count == payload.len()
        && payload.iter().all(|(path, file)| {
            let path = dir.join(path);
            let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
            mode.is_ok_and(|m| m & file.mode == file.mode & 0o777) && fs::read(&path).is_ok_and(|d| d == file.data)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(p, d)| {
                (
                    (*p).to_owned(),
                    File {
                        data: d.as_bytes().to_vec(),
                        mode: 0o644,
                        owner: None,
                    },
                )
            })
            .collect()
    }

    #[test]
    fn swaps_the_whole_set() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| fs::read_to_string(dir.path().join(p));
        assert!(write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!((at("a").unwrap(), at("sub/b").unwrap()), ("1".into(), "2".into()));
        let before = fs::read_link(dir.path().join(DATA)).unwrap();
        assert!(
            !write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap(),
            "nothing changed"
        );
        assert!(write(dir.path(), &payload(&[("a", "new"), ("c", "3")]), None).unwrap());
        assert_eq!((at("a").unwrap(), at("c").unwrap()), ("new".into(), "3".into()));
        assert!(at("sub/b").is_err());
        assert!(!dir.path().join(before).exists());
        for bad in ["../x", "/x", "", "..x", "a/../../b"] {
            assert!(write(dir.path(), &payload(&[(bad, "")]), None).is_err(), "{bad}");
        }
    }
}
