//! A file system of the test's own, in a file on a loop device: it can be full, and lose its power. Needs root.
#![allow(dead_code)]

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

mod ioctl {
    // Of <linux/fs.h>: _IOR('X', 125, __u32).
    nix::ioctl_read!(shutdown, b'X', 125, u32);
}

/// Neither what is in memory nor the journal is written any more.
const WITHOUT_LOG: u32 = 2;

pub struct Disk {
    dir: tempfile::TempDir,
    kind: &'static str,
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Disk {
    /// Of ext4, or of ext3: there no room can be claimed beforehand.
    pub fn new(kind: &'static str, mebibytes: u64) -> Disk {
        let disk = Disk {
            dir: tempfile::tempdir().unwrap(),
            kind,
        };
        File::create(disk.image()).unwrap().set_len(mebibytes << 20).unwrap();
        run(
            &format!("mkfs.{kind}"),
            &["-q", "-F", "-m", "0", disk.image().to_str().unwrap()],
        );
        std::fs::create_dir(disk.path()).unwrap();
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub fn mount(&self) {
        let (image, path) = (self.image(), self.path());
        run(
            "mount",
            &[
                "-t",
                self.kind,
                "-o",
                "loop",
                image.to_str().unwrap(),
                path.to_str().unwrap(),
            ],
        );
    }

    pub fn unmount(&self) {
        run("umount", &[self.path().to_str().unwrap()]);
        // Another process's copy of our mounts may keep it a moment longer, and mounting would take up the same one again.
        let began = Instant::now();
        while self.is_in_use() {
            assert!(began.elapsed() < Duration::from_secs(20), "somebody keeps the disk");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_in_use(&self) -> bool {
        let asked = Command::new("losetup").arg("-j").arg(self.image()).output().unwrap();
        !asked.stdout.is_empty()
    }

    /// The power goes: what is on the disk now is all that there will be.
    #[expect(unsafe_code, reason = "an ioctl")]
    pub fn cut_power(&self) {
        let root = File::open(self.path()).unwrap();
        let mut flag = WITHOUT_LOG;
        // SAFETY: the descriptor is open, and the kernel reads one u32.
        unsafe { ioctl::shutdown(root.as_raw_fd(), &mut flag) }.unwrap();
    }

    /// Fills it to the last block with a file, of which removing makes room again.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for block in [1 << 20, 4096] {
            let zeros = vec![0u8; block];
            while file.write_all(&zeros).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path: &Path = &self.path();
        let _ = Command::new("umount").arg("-l").arg(path).output();
    }
}
