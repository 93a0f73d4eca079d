//! Who is this host's mk8s: the process that holds a lock on the pid file, however it ended or was started.
//!
//! A POSIX lock, since the kernel tells who holds one: the number written in the file may be that of a process that is gone,
//! or of another that has it now, and who only looks takes no lock that another start could meet. Such a lock is lost when
//! its process closes any descriptor of the file, so that the running mk8s opens it once. Whoever may read a file may lock it,
//! so that this one is root's alone: another could keep mk8s from starting, and be taken for it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::Pid;

use crate::failure::{Failure, Result};

/// The lock, until it is dropped.
pub struct Held(#[expect(dead_code, reason = "the lock lives as long as it is open")] File);

/// The whole file.
fn lock(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Makes this process the host's mk8s, and writes its number down for those who read the file.
pub fn take(path: &Path) -> Result<Held> {
    let what = format!("write {}", path.display());
    let failed = |error: std::io::Error| Failure::of(&what, error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
        std::fs::set_permissions(parent, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    match fcntl(&file, FcntlArg::F_SETLK(&lock(libc::F_WRLCK))) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => {
            return Err(Failure::new(format!(
                "mk8s runs already ({} is locked)",
                path.display()
            )));
        }
        Err(error) => return Err(Failure::of(format!("lock {}", path.display()), error)),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Held(file))
}

/// Who holds the lock. What can't be found out is an error, not that nobody runs.
pub fn holder(path: &Path) -> Result<Option<Pid>> {
    let failed =
        |error: std::io::Error| Failure::of(format!("find out by {} whether mk8s runs", path.display()), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut found = lock(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_GETLK(&mut found)).map_err(|error| failed(error.into()))?;
    if found.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    if found.l_pid <= 0 {
        return Err(Failure::new(format!(
            "mk8s runs outside of this process's pid namespace ({} is locked): call it from there",
            path.display()
        )));
    }
    Ok(Some(Pid::from_raw(found.l_pid)))
}

/// Returns when nobody holds the lock. Blocking.
pub fn wait_until_free(path: &Path) -> std::io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    loop {
        match fcntl(&file, FcntlArg::F_SETLKW(&lock(libc::F_RDLCK))) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const PATH: &str = "MK8S_TEST_PID_FILE";

    /// What another process of the tests runs: it holds the lock until its stdin ends. Without a path it has nothing to do.
    #[test]
    fn another_process_that_runs() {
        let Some(path) = std::env::var_os(PATH) else { return };
        let _held = take(path.as_ref()).unwrap();
        println!("\nheld");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }

    fn run(path: &Path) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "pidfile::tests::another_process_that_runs"])
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(std::io::Result::ok).any(|line| line == "held"));
        child
    }

    #[test]
    fn who_runs_is_whom_the_kernel_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/mk8s.pid");
        assert_eq!(holder(&path).unwrap(), None);
        let mut other = run(&path);
        // Whatever the file says: a start writes it a moment after it has the lock.
        for text in ["", "no number", "1\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                holder(&path).unwrap(),
                Some(Pid::from_raw(other.id() as i32)),
                "{text:?}"
            );
        }
        assert!(take(&path).is_err());
        let waiting = path.clone();
        let waits = mk8s_supervisor::job::thread("waits", move || wait_until_free(&waiting)).unwrap();
        assert!(!waits.is_finished());
        other.kill().unwrap();
        other.wait().unwrap();
        waits.join().unwrap().unwrap();
        // Its number stays in the file and means nothing.
        assert_eq!(holder(&path).unwrap(), None);
    }

    /// Who may open it may lock it.
    #[test]
    fn nobody_but_root_may_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/mk8s.pid");
        std::fs::create_dir(dir.path().join("run")).unwrap();
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let _held = take(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    /// Many look while others start: no start is refused for that.
    #[test]
    fn who_looks_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mk8s.pid");
        let of = path.clone();
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let looks = mk8s_supervisor::job::thread("looks", move || {
            while end.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                holder(&of).unwrap();
            }
        });
        let looks = looks.unwrap();
        for _ in 0..5 {
            let mut other = run(&path);
            drop(other.stdin.take());
            assert!(other.wait().unwrap().success());
        }
        ended.send(()).unwrap();
        looks.join().unwrap();
    }

    #[test]
    fn what_cannot_be_found_out_is_not_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(holder(&file.join("mk8s.pid")).is_err());
    }
}
