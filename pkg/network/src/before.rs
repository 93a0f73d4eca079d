//! What the host was like before mk8s touched it: the sysctls that mk8s wrote, and whether /run/netns was there. Written
//! down before the first change, so that [`crate::teardown`] gives back what mk8s took and nothing else.
//!
//! The record lives as long as the values do: below /run, and it says which boot and network namespace it is about.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netns;

const RECORD: &str = "/run/mk8s/host-before.json";
const PROC: &str = "/proc/sys";
pub const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// One change of the record at a time.
static TURN: Mutex<()> = Mutex::new(());

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// The boot and the network namespace that the rest is about.
    kernel: String,
    /// By name, `net/ipv4/ip_forward`.
    sysctls: BTreeMap<String, Sysctl>,
    netns_mounted: bool,
    netns_made: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sysctl {
    before: String,
    ours: String,
}

/// Where the record is and the values are; the kernel's in all but tests.
#[derive(Clone)]
struct Host {
    record: PathBuf,
    sysctls: PathBuf,
    kernel: String,
}

impl Host {
    fn own() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |found| found.ino());
        Self {
            record: RECORD.into(),
            sysctls: PROC.into(),
            kernel: format!("{} {namespace}", boot.trim()),
        }
    }

    /// What was recorded of this kernel; an older boot's values are gone with it.
    fn load(&self) -> Result<Record> {
        let fresh = Record {
            kernel: self.kernel.clone(),
            ..Record::default()
        };
        let text = match fs::read(&self.record) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(fresh),
            Err(source) => return Err(Error::io(format!("read {}", self.record.display()), source)),
        };
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.kernel == self.kernel => Ok(record),
            Ok(_) => Ok(fresh),
            Err(error) => {
                tracing::warn!(file = %self.record.display(), %error, "can't be read: what was before is not known");
                Ok(fresh)
            }
        }
    }

    fn store(&self, record: &Record) -> Result<()> {
        let failed = |source| Error::io(format!("write {}", self.record.display()), source);
        let text = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        if let Some(directory) = self.record.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let fresh = self.record.with_extension("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.record))
            .map_err(failed)
    }

    fn note(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let _turn = TURN.lock();
        let mut record = self.load()?;
        let was = record.clone();
        change(&mut record);
        if record == was { Ok(()) } else { self.store(&record) }
    }

    fn value(&self, name: &str) -> std::io::Result<String> {
        Ok(fs::read_to_string(self.sysctls.join(name))?.trim().to_owned())
    }

    /// Writes a value, and before that what was there.
    fn set(&self, name: &str, ours: &str) -> Result<()> {
        let failed = |source| Error::io(format!("set the sysctl {name} to {ours}"), source);
        let now = self.value(name).map_err(failed)?;
        if now == ours {
            return Ok(());
        }
        self.note(|record| {
            // What mk8s finds at its second write is another's change, or its own earlier value: the first one counts.
            let known = record.sysctls.entry(name.to_owned());
            let sysctl = known.or_insert(Sysctl {
                before: now,
                ours: String::new(),
            });
            sysctl.ours = ours.to_owned();
        })?;
        fs::write(self.sysctls.join(name), ours).map_err(failed)
    }

    /// Gives back the values that are still mk8s's, except those that `keep` has. A link that is gone took its values along.
    fn restore(&self, record: &Record, keep: &[&str]) -> Result<()> {
        for (name, sysctl) in &record.sysctls {
            if keep.contains(&name.as_str()) || self.value(name).ok().as_ref() != Some(&sysctl.ours) {
                continue;
            }
            fs::write(self.sysctls.join(name), &sysctl.before)
                .map_err(|source| Error::io(format!("set the sysctl {name} back to {}", sysctl.before), source))?;
        }
        Ok(())
    }

    fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.record.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Sets `net/...`; without it nothing works.
pub fn require(name: &str, value: &str) -> Result<()> {
    Host::own().set(name, value)
}

/// Sets `net/...`, or says that it can't (a read-only /proc, a kernel without it).
pub fn set(name: &str, value: &str) {
    if let Err(error) = require(name, value) {
        tracing::warn!(sysctl = name, value, %error, "left as it is");
    }
}

/// As `set`, where there is such a sysctl: a link, or IPv6, may not be there.
pub fn set_if_known(name: &str, value: &str) {
    if Path::new(PROC).join(name).exists() {
        set(name, value);
    }
}

/// To be called before /run/netns is made, and before something is mounted on it.
pub fn note_netns(made: bool, mounted: bool) -> Result<()> {
    Host::own().note(|record| {
        record.netns_made |= made;
        record.netns_mounted |= mounted;
    })
}

/// Gives the host back what was recorded. `forwarder` is somebody else who needs packets forwarded; the lines say what
/// stays, and why.
pub fn restore(forwarder: Option<&str>) -> Result<Vec<String>> {
    let _turn = TURN.lock();
    let host = Host::own();
    let record = host.load()?;
    let mut stays = Vec::new();
    let mut keep = Vec::new();
    if let Some(forwarder) = forwarder
        && record.sysctls.contains_key(IP_FORWARD)
    {
        keep.push(IP_FORWARD);
        stays.push(format!("net.ipv4.ip_forward stays 1: {forwarder} forwards too"));
    }
    host.restore(&record, &keep)?;
    remove_netns_dir(&record, Path::new(netns::DIR))?;
    host.forget()?;
    Ok(stays)
}

/// Only what mk8s made, and only if nobody has anything in it.
fn remove_netns_dir(record: &Record, directory: &Path) -> Result<()> {
    let is_empty = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty {
        return Ok(());
    }
    if record.netns_mounted {
        use nix::errno::Errno;
        use nix::mount::{MntFlags, umount2};
        match umount2(directory, MntFlags::UMOUNT_NOFOLLOW) {
            // Somebody else unmounted it, or uses it.
            Ok(()) | Err(Errno::EINVAL | Errno::EBUSY) => {}
            Err(errno) => return Err(Error::errno(format!("unmount {}", directory.display()), errno)),
        }
    }
    if record.netns_made {
        // Not if something came into it meanwhile.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FORWARD: &str = IP_FORWARD;
    const LOCAL: &str = "net/ipv4/conf/eth0/route_localnet";

    fn host(directory: &Path) -> Host {
        for name in [FORWARD, LOCAL] {
            let file = directory.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "0\n").unwrap();
        }
        Host {
            record: directory.join("run/before.json"),
            sysctls: directory.to_owned(),
            kernel: "boot 1".into(),
        }
    }

    #[test]
    fn a_value_goes_back_to_what_it_was_before_the_first_write() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        host.set(FORWARD, "1").unwrap();
        // A restart finds its own value; and one that somebody put back is written again.
        host.set(FORWARD, "1").unwrap();
        fs::write(directory.path().join(FORWARD), "2\n").unwrap();
        host.set(FORWARD, "1").unwrap();
        assert_eq!(host.value(FORWARD).unwrap(), "1");
        host.restore(&host.load().unwrap(), &[]).unwrap();
        assert_eq!(host.value(FORWARD).unwrap(), "0");
    }

    #[test]
    fn only_what_mk8s_wrote_and_still_has_its_value_is_restored() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        // The administrator's own: mk8s had nothing to write.
        fs::write(directory.path().join(LOCAL), "1\n").unwrap();
        host.set(LOCAL, "1").unwrap();
        host.set(FORWARD, "1").unwrap();
        fs::write(directory.path().join(FORWARD), "3\n").unwrap();
        host.restore(&host.load().unwrap(), &[]).unwrap();
        assert_eq!(
            (
                host.value(LOCAL).unwrap().as_str(),
                host.value(FORWARD).unwrap().as_str()
            ),
            ("1", "3")
        );
        // A link that is gone is no error.
        let record = host.load().unwrap();
        fs::remove_file(directory.path().join(FORWARD)).unwrap();
        host.restore(&record, &[]).unwrap();
    }

    #[test]
    fn an_earlier_boots_record_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        host.set(FORWARD, "1").unwrap();
        let rebooted = Host {
            kernel: "boot 2".into(),
            ..host.clone()
        };
        rebooted.restore(&rebooted.load().unwrap(), &[]).unwrap();
        assert_eq!(host.value(FORWARD).unwrap(), "1");
        assert_eq!(host.load().unwrap().sysctls.len(), 1);
    }

    #[test]
    fn a_value_that_is_kept_stays() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path());
        host.set(FORWARD, "1").unwrap();
        host.restore(&host.load().unwrap(), &[FORWARD]).unwrap();
        assert_eq!(host.value(FORWARD).unwrap(), "1");
    }
}
