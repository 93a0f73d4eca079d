//! Network namespaces by name: made on a thread of their own, kept alive by a bind mount below /run/netns (where
//! containerd and `ip netns` look), entered on a thread of their own.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use mk8s_supervisor::job;
use parking_lot::Mutex;

use crate::{
    before,
    error::{Error, Result},
    names,
};

pub const DIR: &str = "/run/netns";

pub fn path(uid: &str) -> PathBuf {
    Path::new(DIR).join(names::netns(uid))
}

/// Makes the pod's namespace and runs `inside` in it.
pub fn create<T: Send + 'static>(uid: &str, inside: impl FnOnce() -> T + Send + 'static) -> Result<(PathBuf, T)> {
    prepare_dir()?;
    let path = path(uid);
    fs::File::create(&path).map_err(|source| Error::io(format!("create {}", path.display()), source))?;
    let target = path.clone();
    let made = on_thread(move || -> Result<T> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|source| Error::errno("make a network namespace", source))?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|source| Error::errno(format!("mount a network namespace on {}", target.display()), source))?;
        Ok(inside())
    });
    match made {
        Ok(Ok(value)) => Ok((path, value)),
        Ok(Err(error)) | Err(error) => {
            // The first error is the one to tell.
            let _ = remove_path(&path);
            Err(error)
        }
    }
}

/// Removes the pod's namespace by name. It is gone when the last process in it is.
pub fn remove(uid: &str) -> Result<()> {
    remove_path(&path(uid))
}

pub fn exists(uid: &str) -> bool {
    is_namespace(&path(uid))
}

/// The uids that have a namespace, or the remains of one.
pub fn list() -> Result<Vec<String>> {
    let entries = match fs::read_dir(DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::io(format!("list {DIR}"), source)),
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix(names::NETNS_PREFIX).map(str::to_owned))
        .collect())
}

/// Runs `inside` in the namespace at `path`, on a thread of its own: the caller's namespace does not change.
pub fn enter<T: Send + 'static>(path: &Path, inside: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let namespace = fs::File::open(path).map_err(|source| Error::io(format!("open {}", path.display()), source))?;
    let path = path.to_owned();
    on_thread(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|source| Error::errno(format!("enter {}", path.display()), source))?;
        Ok(inside())
    })?
}

fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    job::thread("netns", work)
        .map_err(|source| Error::io("start a thread", source))?
        .join()
        .map_err(Error::Job)
}

/// /run/netns must be a shared mount: what is mounted there has to be seen by containerd too. One pod at a time: a second
/// mount on it would hide the namespaces of those that came between.
fn prepare_dir() -> Result<()> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    if fs::read_dir(DIR).is_err() {
        before::note_netns(true, false)?;
        fs::create_dir_all(DIR).map_err(|source| Error::io(format!("create {DIR}"), source))?;
    }
    let share = || {
        mount(
            None::<&str>,
            DIR,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        Err(Errno::EINVAL) => {
            before::note_netns(false, true)?;
            mount(
                Some(DIR),
                DIR,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )
            .and_then(|()| share())
            .map_err(|source| Error::errno(format!("make {DIR} a shared mount"), source))
        }
        other => other.map_err(|source| Error::errno(format!("make {DIR} a shared mount"), source)),
    }
}

fn remove_path(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(source) => return Err(Error::errno(format!("unmount {}", path.display()), source)),
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}

/// After a reboot of the host (or with another /run) the file may be there with no namespace mounted on it.
fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;
    use std::sync::{Arc, Barrier};

    use super::*;

    const INSIDE: &str = "MK8S_TEST_IN_A_MOUNT_NAMESPACE";

    #[test]
    fn pods_that_start_at_once_mount_it_once() {
        let mut own = Command::new("unshare");
        own.arg("--mount").arg(std::env::current_exe().unwrap());
        own.args(["--exact", "netns::tests::inside_a_mount_namespace", "--nocapture"]);
        let output = own.env(INSIDE, "yes").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What the test above runs, with a /run of its own.
    #[test]
    fn inside_a_mount_namespace() {
        if std::env::var_os(INSIDE).is_none() {
            return;
        }
        for _ in 0..100 {
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let start = Arc::new(Barrier::new(8));
            let pod = || {
                let start = start.clone();
                let prepare = move || {
                    start.wait();
                    prepare_dir()
                };
                job::thread("pod", prepare).unwrap()
            };
            let pods: Vec<_> = (0..8).map(|_| pod()).collect();
            for pod in pods {
                pod.join().unwrap().unwrap();
            }
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            // Those below the last mount on /run; the machine's own may have one, too.
            let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
            let on_it = points
                .take_while(|point| *point != "/run")
                .filter(|point| *point == DIR);
            assert_eq!(on_it.count(), 1, "{mounts}");
            umount2("/run", MntFlags::MNT_DETACH).unwrap();
        }
    }
}
