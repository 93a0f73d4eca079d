//! Where mk8s writes on a host, what of it others use too, and how what it made is taken away again.
//!
//! Another Kubernetes that is stopped, a package or an administrator may have put something into these directories before
//! mk8s came. What stood there is noted at the set-up, and reset removes the rest alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mk8s_pki::files::beside;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::failure::{Failure, Result};

/// mk8s's alone, whoever made it first: a set-up that was refused leaves its lock there.
const RUN: &str = "/run/mk8s";
/// Whose entries are mk8s's, but for those that were there before; those within others first.
const CLEARED: [&str; 4] = [
    "/var/lib/kubelet/pods",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
];
/// Where mk8s has single files, each of which is removed by name.
const VISITED: [&str; 2] = ["/etc/kubernetes", "/run/netns"];
/// The name of the settings' file in the data directory.
pub const SETTINGS: &str = "settings.json";
/// Its copy, by which this host can be stopped and reset when the file is damaged or lost.
pub const SETTINGS_COPY: &str = "settings.copy.json";
/// What mk8s makes in its data directory beside the settings.
const DATA: [&str; 3] = ["db", "pki", "node"];

/// Whether mk8s makes an entry of this name in its data directory, or the file system does.
pub fn is_data(name: &str) -> bool {
    let whole_files = [SETTINGS, SETTINGS_COPY];
    let mut half_files = whole_files.iter().map(|file| beside(Path::new(file)));
    DATA.contains(&name)
        || whole_files.contains(&name)
        || name == "lost+found"
        || half_files.any(|file| file == Path::new(name))
}

/// What stands there now: the directories, and the entries of those that reset clears.
pub fn survey(data_dir: &Path) -> BTreeSet<PathBuf> {
    let cleared = CLEARED.iter().map(Path::new);
    let entries = cleared.clone().flat_map(entries);
    let directories = cleared.chain(VISITED.iter().map(Path::new)).chain([data_dir]);
    let directories = directories.filter(|directory| directory.is_dir());
    directories.map(Path::to_path_buf).chain(entries).collect()
}

/// Removes what has come since `before`, but for the settings.
pub fn clear(data_dir: &Path, before: &BTreeSet<PathBuf>) -> Result<()> {
    let points = mounts_below(&[data_dir.to_path_buf()])?;
    // What an administrator mounted there for mk8s stays mounted, and is emptied.
    let own_data = DATA
        .iter()
        .map(|name| data_dir.join(name))
        .flat_map(|path| match points.contains(&path) {
            true => entries(&path),
            false => vec![path],
        });
    let own: Vec<PathBuf> = CLEARED
        .iter()
        .flat_map(|directory| entries(Path::new(directory)))
        .filter(|path| !before.contains(path))
        .chain(own_data)
        .chain([RUN.into()])
        .collect();
    unmount(&own)?;
    for path in &own {
        remove(path)?;
    }
    for directory in CLEARED {
        remove_directory(Path::new(directory), before);
    }
    Ok(())
}

/// Removes the directories that mk8s made and others may have put something into: those that are empty.
pub fn remove_directories(data_dir: &Path, before: &BTreeSet<PathBuf>) {
    for directory in VISITED.iter().map(Path::new).chain([data_dir]) {
        remove_directory(directory, before);
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

/// Unless it was there before, holds something of others or is a mount point.
fn remove_directory(directory: &Path, before: &BTreeSet<PathBuf>) {
    if !before.contains(directory) {
        let _ = std::fs::remove_dir(directory);
    }
}

fn remove(path: &Path) -> Result<()> {
    mk8s_dirfd::remove_path(path).map_err(|error| Failure::of(format!("remove {}", path.display()), error))
}

/// Unmounts what is mounted at and below the paths, and fails if something still is, since nothing may be deleted through a
/// mount. Each is cut off from its peers first: where `/` is shared, an unmount of a bind would go on to the mounts that
/// the host has in the folder that was bound.
fn unmount(paths: &[PathBuf]) -> Result<()> {
    let points = mounts_below(paths)?;
    for point in &points {
        mount(None::<&str>, point, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(|error| Failure::of(format!("cut {} off from its peers", point.display()), error))?;
    }
    for point in points.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)
            .map_err(|error| Failure::of(format!("unmount {}", point.display()), error))?;
    }
    match mounts_below(paths)?.first() {
        None => Ok(()),
        Some(point) => Err(Failure::new(format!(
            "{} is mounted again and again: find out by whom, then reset once more",
            point.display()
        ))),
    }
}

/// In the order of mounting: parents first.
fn mounts_below(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let table =
        std::fs::read("/proc/self/mountinfo").map_err(|error| Failure::of("read the table of mounts", error))?;
    let points = mount_points(&table).into_iter();
    Ok(points
        .filter(|point| paths.iter().any(|path| point.starts_with(path)))
        .collect())
}

/// The fifth field of each line, where blanks and the like are written as three octal digits.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let fields = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields
        .map(|field| std::ffi::OsString::from_vec(unescape(field)).into())
        .collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_escapes_them() {
        let table = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            51 22 0:45 / /var/lib/kubelet/pods/a\\040b\\134c rw - tmpfs tmpfs rw\n";
        let expected: Vec<PathBuf> = vec!["/".into(), "/var/lib/kubelet/pods/a b\\c".into()];
        assert_eq!(mount_points(table), expected);
    }

    #[test]
    fn what_a_killed_set_up_left_in_the_data_directory_is_mk8ss() {
        for name in [SETTINGS, SETTINGS_COPY, ".mk8s-new.settings.json", "db", "lost+found"] {
            assert!(is_data(name), "{name}");
        }
        for name in ["mine", ".mk8s-new.mine", ".settings.json"] {
            assert!(!is_data(name), "{name}");
        }
    }

    #[test]
    fn the_data_directory_keeps_what_is_not_mk8ss() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["db", "pki", "node", "mine"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("file"), "x").unwrap();
        }
        std::fs::write(dir.path().join(SETTINGS), "{}").unwrap();
        for name in DATA {
            remove(&dir.path().join(name)).unwrap();
        }
        std::fs::remove_file(dir.path().join(SETTINGS)).unwrap();
        remove_directories(dir.path(), &BTreeSet::from(VISITED.map(PathBuf::from)));
        assert_eq!(entries(dir.path()), [dir.path().join("mine")]);
        assert!(dir.path().join("mine/file").exists());
    }
}
