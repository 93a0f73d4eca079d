//! Files of a ConfigMap, Secret or the like, changed all at once: they stand in a directory named by time, `..data` points
//! at it, and each visible name is a link through `..data`. A reader sees the old set or the new one, never a mixture.
//!
//! Whoever can write to the volume can put any link in place of these names, so none is followed, and of what `..data`
//! says only the name of a directory of ours is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path};

use nix::dir::Type;

use mk8s_dirfd::{Dir, found};

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
    #[error("path {0:?} in a volume, or a part of it, is longer than a file system takes")]
    Length(String),
    #[error("path {0:?} in a volume leads through what is a file there")]
    ThroughFile(String),
    #[error(transparent)]
    Dir(#[from] mk8s_dirfd::Error),
}

type Result<T> = std::result::Result<T, Error>;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// Not subject to our umask: any user of the pod has to be able to look inside.
const DIR_MODE: u32 = 0o755;

/// The kernel's bounds, without the zero that ends a path.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// All that can be told before the first byte is written.
fn check(path: &str, payload: &Payload) -> Result<()> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(Error::Path(path.to_owned()));
    }
    if path.len() > PATH_MAX || path.split('/').any(|part| part.len() > NAME_MAX) {
        return Err(Error::Length(path.to_owned()));
    }
    let mut parents = path.match_indices('/').map(|(end, _)| &path[..end]);
    if parents.any(|parent| payload.contains_key(parent)) {
        return Err(Error::ThroughFile(path.to_owned()));
    }
    Ok(())
}

fn fresh_stamp() -> String {
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.");
    format!("{stamp}{}", rand::random::<u32>())
}

/// `..2026_01_31_10_20_30.1234`: the directories that `fresh_stamp` names, and nothing else.
fn is_stamp(name: &OsStr) -> bool {
    let Some((date, number)) = name.to_str().and_then(|n| n.strip_prefix("..")?.split_once('.')) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    date.split('_').count() == 6 && date.split('_').all(digits) && digits(number)
}

/// Makes `dir` hold exactly `payload`; `group` is the pod's fsGroup. Answers whether anything changed. What fails leaves
/// nothing: it is tried again and again, and each try is a whole copy.
pub fn write(dir: &Dir, payload: &Payload, group: Option<u32>) -> Result<bool> {
    for path in payload.keys() {
        check(path, payload)?;
    }
    let old = found(dir.read_link(DATA)).ok().flatten().filter(|old| is_stamp(old));
    if let Some(old) = &old
        && dir.dir(old).is_ok_and(|present| same(&present, payload))
    {
        // The try before may have come no further than its content.
        show(dir, payload, old)?;
        return Ok(false);
    }
    sweep(dir, old.as_deref())?;
    let name = fresh_stamp();
    if let Err(error) = publish(dir, &name, payload, group) {
        // The failure itself is what is told; what can't be removed now is swept by the next try.
        let _ = dir.remove_tree(&name);
        return Err(error);
    }
    show(dir, payload, OsStr::new(&name))?;
    Ok(true)
}

/// Writes the files into `name` and makes them the present ones, as the last thing it does.
fn publish(dir: &Dir, name: &str, payload: &Payload, group: Option<u32>) -> Result<()> {
    let (fresh, _) = dir.ensure_dir(name, DIR_MODE)?;
    if let Some(group) = group {
        fresh.chown_group(group)?;
    }
    for (path, file) in payload {
        put(&fresh, Path::new(path), file, group)?;
    }
    clear_way(dir, DATA_NEW)?;
    dir.symlink(name, DATA_NEW)?;
    // A rename replaces a link as such; a directory that somebody put there has to go first.
    if dir.dir(DATA).is_ok() {
        dir.remove_tree(DATA)?;
    }
    dir.rename(DATA_NEW, DATA)?;
    Ok(())
}

/// Directories of ours that are not the present one: a crash left them.
fn sweep(dir: &Dir, present: Option<&OsStr>) -> Result<()> {
    for (name, _) in dir.entries()? {
        if is_stamp(&name) && Some(name.as_os_str()) != present {
            found(dir.remove_tree(&name))?;
        }
    }
    Ok(())
}

fn clear_way(dir: &Dir, name: &str) -> Result<()> {
    found(dir.remove_tree(name))?;
    Ok(())
}

/// The visible names, as links through `..data`; what earlier contents left goes.
fn show(dir: &Dir, payload: &Payload, present: &OsStr) -> Result<()> {
    let visible: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &visible {
        let through = Path::new(DATA).join(name);
        if !dir.read_link(name).is_ok_and(|to| to == through) {
            clear_way(dir, name)?;
            dir.symlink(&through, name)?;
        }
    }
    for (name, kind) in dir.entries()? {
        let kept = name
            .to_str()
            .is_some_and(|n| n.starts_with("..") || visible.contains(n));
        if !kept && kind != Type::Directory {
            found(dir.remove_tree(&name))?;
        }
    }
    sweep(dir, Some(present))
}

fn put(fresh: &Dir, path: &Path, file: &File, group: Option<u32>) -> Result<()> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).filter(|p| *p != Path::new("")).collect();
    parents.reverse();
    for parent in parents {
        if let ((made, true), Some(group)) = (fresh.ensure_dir(parent, DIR_MODE)?, group) {
            made.chown_group(group)?;
        }
    }
    // A group that owns the files may read them, whatever the mode leaves it.
    let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
    fresh.create_file(path, &file.data, mode, file.owner, group)?;
    Ok(())
}

/// Files in the directory; none where it is deeper than `levels`, or can't be read.
fn count(dir: &Dir, levels: usize) -> Option<usize> {
    let mut files = 0;
    for (name, kind) in dir.entries().ok()? {
        files += match kind {
            Type::Directory => count(&dir.dir(&name).ok()?, levels.checked_sub(1)?)?,
            _ => 1,
        };
    }
    Some(files)
}

fn same(present: &Dir, payload: &Payload) -> bool {
    let holds = |path: &str, file: &File| {
        let mode = present.stat_of(path).map(|s| s.st_mode & 0o777);
        mode.is_ok_and(|mode| mode & file.mode == file.mode & 0o777) && present.read(path).is_ok_and(|d| d == file.data)
    };
    let levels = payload.keys().map(|path| path.split('/').count()).max().unwrap_or(0);
    count(present, levels) == Some(payload.len()) && payload.iter().all(|(path, file)| holds(path, file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File {
            data: data.as_bytes().to_vec(),
            mode: 0o644,
            owner: None,
        };
        files.iter().map(|(p, d)| ((*p).to_owned(), file(d))).collect()
    }

    #[test]
    fn swaps_the_whole_set() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let at = |p: &str| fs::read_to_string(temp.path().join(p));
        assert!(write(&dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!((at("a").unwrap(), at("sub/b").unwrap()), ("1".into(), "2".into()));
        let before = fs::read_link(temp.path().join(DATA)).unwrap();
        assert!(
            !write(&dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap(),
            "nothing changed"
        );
        assert!(write(&dir, &payload(&[("a", "new"), ("c", "3")]), None).unwrap());
        assert_eq!((at("a").unwrap(), at("c").unwrap()), ("new".into(), "3".into()));
        assert!(at("sub/b").is_err());
        assert!(!temp.path().join(before).exists());
        for bad in ["../x", "/x", "", "..x", "a/../../b"] {
            assert!(write(&dir, &payload(&[(bad, "")]), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_container_can_lead_nobody_out_of_its_volume() {
        let host = tempfile::tempdir().unwrap();
        let kept = host.path().join("kept");
        for place in [DATA, DATA_NEW, "a", "sub"] {
            fs::create_dir_all(&kept).unwrap();
            fs::write(kept.join("file"), "the host's").unwrap();
            let temp = tempfile::tempdir().unwrap();
            let dir = Dir::open(temp.path()).unwrap();
            write(&dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
            let _ = fs::remove_file(temp.path().join(place));
            symlink(&kept, temp.path().join(place)).unwrap();
            assert!(write(&dir, &payload(&[("a", "2"), ("sub/b", "2")]), None).unwrap());
            let left: Vec<_> = fs::read_dir(&kept).unwrap().flatten().map(|e| e.file_name()).collect();
            assert_eq!(left, ["file"], "{place}");
            assert_eq!(fs::read_to_string(temp.path().join("a")).unwrap(), "2", "{place}");
            assert_eq!(fs::read_to_string(temp.path().join("sub/b")).unwrap(), "2", "{place}");
        }
    }

    #[test]
    fn what_a_crash_left_goes_with_the_next_change() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for left in ["..2026_01_31_10_20_30.1", "..data_tmp/x"] {
            fs::create_dir_all(temp.path().join(left)).unwrap();
        }
        write(&dir, &payload(&[("a", "1")]), None).unwrap();
        let mut names: Vec<_> = dir.entries().unwrap().into_iter().map(|(n, _)| n).collect();
        names.sort();
        assert!(
            is_stamp(&names[0]) && names[1] == DATA && names[2] == "a" && names.len() == 3,
            "{names:?}"
        );
    }

    fn names(dir: &Dir) -> Vec<String> {
        let mut names: Vec<_> = dir
            .entries()
            .unwrap()
            .into_iter()
            .map(|(n, _)| n.into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let long = format!("z/{}", "n".repeat(256));
        let deep = vec!["d"; 2100].join("/");
        for bad in [
            &[("a", "1"), (&long, "2")][..],
            &[("a", "1"), ("a.b", "2"), ("a/b", "3")],
            &[("a", "1"), (&deep, "2")],
        ] {
            assert!(write(&dir, &payload(bad), None).is_err());
            assert_eq!(names(&dir), Vec::<String>::new(), "{bad:?}");
        }
        // What only the file system knows: two names of one file.
        let twice = [("a/b", "1"), ("a//b", "2")];
        assert!(write(&dir, &payload(&twice), None).is_err());
        assert_eq!(names(&dir), Vec::<String>::new());
        write(&dir, &payload(&[("a", "1")]), None).unwrap();
        let good = names(&dir);
        assert!(write(&dir, &payload(&twice), None).is_err());
        assert_eq!(names(&dir), good, "the old content stays, alone");
        assert_eq!(fs::read_to_string(temp.path().join("a")).unwrap(), "1");
    }

    #[test]
    fn names_that_a_failed_try_did_not_come_to_are_made_by_the_next() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        write(&dir, &payload(&[("a", "1")]), None).unwrap();
        fs::remove_file(temp.path().join("a")).unwrap();
        assert!(!write(&dir, &payload(&[("a", "1")]), None).unwrap());
        assert_eq!(fs::read_to_string(temp.path().join("a")).unwrap(), "1");
    }

    #[test]
    fn stamps() {
        assert!(is_stamp(OsStr::new(&fresh_stamp())));
        for no in [
            "..data",
            "..",
            "../x",
            "/root",
            "..2026_01_31_10_20_30.",
            "..2026.1",
            "..a_b_c_d_e_f.1",
            "..1_2_3_4_5_6.1/x",
        ] {
            assert!(!is_stamp(OsStr::new(no)), "{no}");
        }
    }
}
