//! What a host was set up as: the first file that init or join write, and the last that reset removes, read by every other
//! verb and start. While it says `unfinished`, a set-up goes on where it was interrupted.
//!
//! Both documents of this file carry a version, which changes only when an older reader would go wrong; fields that are
//! missing have defaults and unknown ones are passed over, so that neighbours of one version more or less read each other's.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use mk8s_pki::{PkiError, files};
use serde::{Deserialize, Serialize};

use crate::cli::{Network, NodeFlags, Part};
use crate::failure::{Failure, Result};
use crate::footprint::{self, SETTINGS, SETTINGS_COPY};

pub const DATA_DIR: &str = "/var/lib/mk8s";
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
pub const BINARY: &str = "/usr/local/bin/mk8s";
pub const PID_FILE: &str = "/run/mk8s/mk8s.pid";
pub const LOG_FILE: &str = "/var/log/mk8s.log";
pub const UNIT_FILE: &str = "/etc/systemd/system/mk8s.service";
pub const CRI_SOCKET: &str = "/run/containerd/containerd.sock";
/// Where every verb finds a data directory that is not the default one.
const POINTER: &str = "/etc/kubernetes/mk8s-data-dir";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Worker,
}

/// The version of the documents that this program writes, and the newest that it reads. 0 had no version, and one server
/// in the place of the endpoints.
const VERSION: u32 = 1;

/// A document's version, by which alone it is known whether the rest can be read.
fn version(text: &str) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        version: u32,
    }
    serde_json::from_str(text).map(|Versioned { version }| version)
}

/// Refuses a document that only a newer mk8s understands.
fn known_version(version: u32, what: &str) -> Result<()> {
    if version <= VERSION {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{what} has version {version} and this mk8s knows none above {VERSION}: install the mk8s that wrote it, or a newer one"
    )))
}

/// What all nodes of a cluster have to agree on; joins read it from ConfigMap kube-system/mk8s-config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    pub version: u32,
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub dns_domain: String,
    pub network: Network,
    pub image_repository: Option<String>,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            version: VERSION,
            pod_cidr: Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            service_cidr: Ipv4Net::new_assert([10, 96, 0, 0].into(), 16),
            dns_domain: "cluster.local".into(),
            network: Network::Vxlan,
            image_repository: None,
        }
    }
}

impl Cluster {
    /// Reads the document that a master publishes.
    pub fn from_json(text: &str, what: &str) -> Result<Cluster> {
        let unread = |error| Failure::of(format!("read {what}"), error);
        known_version(version(text).map_err(unread)?, what)?;
        serde_json::from_str(text).map_err(unread)
    }

    /// The n-th address of the service range: 1 is the API, 10 is DNS.
    pub fn service_address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()).wrapping_add(n))
    }

    pub fn dns_address(&self) -> Ipv4Addr {
        self.service_address(10)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    #[serde(default)]
    pub version: u32,
    pub role: Role,
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// The API servers, at least one, as `https://10.0.0.1:6443`.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Version 0's only endpoint.
    #[serde(default, skip_serializing)]
    server: Option<String>,
    pub cri_socket: PathBuf,
    #[serde(default)]
    pub register_with_taints: Vec<String>,
    /// None: the node agent's default.
    #[serde(default)]
    pub eviction_hard: Option<String>,
    #[serde(default)]
    pub cluster: Cluster,
    /// The masters' own.
    #[serde(default)]
    pub master: Option<Master>,
    /// A set-up that was interrupted before its end left this true; the next one goes on from there.
    #[serde(default)]
    pub unfinished: bool,
    /// What stood where mk8s is not alone before it came (see `footprint`): reset leaves it.
    #[serde(default)]
    pub before: BTreeSet<PathBuf>,
    /// The users who got a copy of admin.conf: it is renewed with that, and removed by reset, whoever calls it.
    #[serde(default)]
    pub kubeconfigs: Vec<Home>,
    /// Where this file stands: one that was copied elsewhere is not this host's. Version 0 did not say.
    #[serde(default)]
    data_dir: PathBuf,
}

/// A user's home directory, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Home {
    pub directory: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// Whether `.kube` was made with the copy.
    pub made_directory: bool,
}

/// What init and join plan alike.
pub struct Node {
    pub name: String,
    pub ip: Ipv4Addr,
    pub endpoint: String,
    pub flags: NodeFlags,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    pub advertise_address: Ipv4Addr,
    pub bind_port: u16,
    pub cert_extra_sans: Vec<String>,
    /// Built-in parts that the cluster does without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disable: Vec<Part>,
    /// The file of the scheduler's configuration, which is read at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_config: Option<PathBuf>,
}

impl Settings {
    /// Those of a set-up that begins: of the flags and this host, nothing of which is written yet.
    pub fn plan(role: Role, node: Node, cluster: Cluster, master: Option<Master>) -> Result<Settings> {
        let data_dir = find(node.flags.data_dir.as_deref())?;
        Ok(Settings {
            version: VERSION,
            role,
            node_name: node.name,
            node_ip: node.ip,
            endpoints: vec![node.endpoint],
            server: None,
            cri_socket: cri_socket(node.flags.cri_socket.as_deref()),
            register_with_taints: node.flags.register_with_taints,
            eviction_hard: node.flags.eviction_hard,
            cluster,
            master,
            unfinished: true,
            before: footprint::survey(&data_dir),
            kubeconfigs: Vec::new(),
            data_dir,
        })
    }

    /// The settings of this host, if it was set up.
    pub fn load(data_dir: Option<&Path>) -> Result<Option<Settings>> {
        let data_dir = find(data_dir)?;
        let failure = match stored(&file(&data_dir), &data_dir) {
            Ok(None) if !copy(&data_dir).exists() => return Ok(None),
            Ok(Some(settings)) => return Ok(Some(settings)),
            Ok(None) => Unread::Damaged("is missing".into()),
            Err(unread) => unread,
        };
        Err(match failure {
            Unread::Damaged(how) => Failure::new(format!("{} {how}: {}", file(&data_dir).display(), cure(&data_dir))),
            Unread::Refused(failure) => failure,
        })
    }

    /// The same, where a host that was not set up is an error.
    pub fn require(data_dir: Option<&Path>) -> Result<Settings> {
        let data_dir = find(data_dir)?;
        Settings::load(Some(&data_dir))?.ok_or_else(|| {
            Failure::new(format!(
                "this host was not set up ({} is missing): run `mk8s init` or `mk8s join` first",
                file(&data_dir).display()
            ))
        })
    }

    /// The same, for what ends mk8s here: where the file is damaged or lost, its copy does.
    pub fn require_to_end(data_dir: Option<&Path>) -> Result<Settings> {
        let data_dir = find(data_dir)?;
        Settings::require(Some(&data_dir)).or_else(|failure| {
            let Ok(Some(settings)) = stored(&copy(&data_dir), &data_dir) else {
                return Err(failure);
            };
            eprintln!(
                "{} can't be used: going by {SETTINGS_COPY} beside it",
                file(&data_dir).display()
            );
            Ok(settings)
        })
    }

    /// The API server that this host speaks to first.
    pub fn server(&self) -> &str {
        self.endpoints.first().map_or("", String::as_str)
    }

    /// What a master keeps of its own.
    pub fn own_master(&self) -> Result<&Master> {
        let own = self.master.as_ref();
        own.ok_or_else(|| Failure::new("the stored settings of this master are incomplete"))
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Writes them down; they say that the set-up is over from then on.
    pub fn finish(mut self) -> Result<Settings> {
        self.unfinished = false;
        self.save()?;
        Ok(self)
    }

    pub fn save(&self) -> Result<()> {
        self.write_both()?;
        record(Path::new(POINTER), &self.data_dir)
    }

    fn write_both(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Failure::of("print the settings", error))?;
        // Where this ends between the two, the set-up is unfinished, whichever of them is read: a copy that is put back must
        // never say so of a cluster that lives, whose CA could be made anew then.
        let mut both = [file(&self.data_dir), copy(&self.data_dir)];
        if !self.unfinished {
            both.reverse();
        }
        for path in both {
            files::write(&path, &text, 0o600)?;
        }
        Ok(())
    }

    /// Forgets that this host was set up, which is the last that reset does. The pointer goes after the settings: without
    /// it nobody would find them.
    pub fn remove(&self) -> Result<()> {
        for path in [&file(&self.data_dir), &copy(&self.data_dir), Path::new(POINTER)] {
            files::remove(path)?;
        }
        Ok(())
    }

    /// Takes away everybody else's right to look at what is kept here: the objects of the cluster, Secrets among them, keys,
    /// and what pods are given of both.
    pub fn protect(&self) -> Result<()> {
        let store = (self.role == Role::Master).then(|| self.data_dir.join("db"));
        for directory in store.into_iter().chain([self.pki_dir(), self.node_dir()]) {
            files::private_directory(&directory)?;
        }
        Ok(())
    }

    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    pub fn node_dir(&self) -> PathBuf {
        self.data_dir.join("node")
    }
}

/// Why a file of settings is not taken.
#[derive(Debug)]
enum Unread {
    /// It is not what mk8s wrote: how it is.
    Damaged(String),
    Refused(Failure),
}

/// What to do about a damaged file.
fn cure(data_dir: &Path) -> String {
    match stored(&copy(data_dir), data_dir) {
        Ok(Some(_)) => format!(
            "put its copy back (`cp -p {} {}`), or end all of mk8s's here by `mk8s reset`",
            copy(data_dir).display(),
            file(data_dir).display()
        ),
        _ => format!(
            "bring it back from a backup; its copy, {}, is of no use either",
            copy(data_dir).display()
        ),
    }
}

/// What a file of the data directory says; none where there is no file.
fn stored(path: &Path, data_dir: &Path) -> std::result::Result<Option<Settings>, Unread> {
    match files::read_to_string(path) {
        Ok(text) => read(&text, path, data_dir.to_path_buf()).map(Some),
        Err(PkiError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(PkiError::File { source, .. }) if source.kind() == ErrorKind::InvalidData => {
            Err(Unread::Damaged(format!("is damaged ({source})")))
        }
        Err(error) => Err(Unread::Refused(error.into())),
    }
}

fn read(text: &str, path: &Path, data_dir: PathBuf) -> std::result::Result<Settings, Unread> {
    let what = path.display().to_string();
    let damaged = |cause: serde_json::Error| Unread::Damaged(format!("is damaged ({cause})"));
    known_version(version(text).map_err(damaged)?, &what).map_err(Unread::Refused)?;
    let mut settings: Settings = serde_json::from_str(text).map_err(damaged)?;
    if !settings.data_dir.as_os_str().is_empty() && !same_directory(&settings.data_dir, &data_dir) {
        return Err(Unread::Refused(Failure::new(format!(
            "{what} is a copy of that of {}, which is where this host was set up",
            settings.data_dir.display()
        ))));
    }
    if settings.endpoints.is_empty() {
        settings.endpoints.extend(settings.server.take());
    }
    if settings.endpoints.is_empty() {
        return Err(Unread::Damaged("is damaged (it names no API server)".into()));
    }
    Ok(Settings {
        version: VERSION,
        server: None,
        data_dir,
        ..settings
    })
}

fn same_directory(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole(one) == whole(other)
}

/// kubeadm writes sockets as URLs, people as paths.
pub fn cri_socket(given: Option<&str>) -> PathBuf {
    PathBuf::from(given.map_or(CRI_SOCKET, |given| given.trim_start_matches("unix://")))
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(SETTINGS)
}

fn copy(data_dir: &Path) -> PathBuf {
    data_dir.join(SETTINGS_COPY)
}

/// The data directory: the flag's, the one a set-up recorded, or the default.
///
/// # Errors
/// What was recorded can't be read: the default would be another cluster's place, or nobody's.
pub fn find(data_dir: Option<&Path>) -> Result<PathBuf> {
    match data_dir {
        Some(data_dir) => Ok(data_dir.to_path_buf()),
        None => Ok(recorded(Path::new(POINTER))?.unwrap_or_else(|| DATA_DIR.into())),
    }
}

fn recorded(pointer: &Path) -> Result<Option<PathBuf>> {
    let text = match files::read_to_string(pointer) {
        Ok(text) => text,
        Err(PkiError::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let path = PathBuf::from(text.strip_suffix('\n').unwrap_or(&text));
    if path.is_absolute() {
        return Ok(Some(path));
    }
    Err(Failure::new(format!(
        "{} names no directory: write the data directory into it, or name it by --data-dir",
        pointer.display()
    )))
}

/// Writes down where the settings are, for those that are not told. The default is where they look anyway, unless something
/// else is written there.
fn record(pointer: &Path, data_dir: &Path) -> Result<()> {
    if data_dir == Path::new(DATA_DIR) {
        files::remove(pointer)?;
    } else {
        files::write(pointer, data_dir.as_os_str().as_encoded_bytes(), 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FIRST_FORM: &str = r#"{"role": "worker", "nodeName": "two", "nodeIp": "10.9.0.2", "server": "https://10.9.0.1:6443",
        "criSocket": "/run/containerd/containerd.sock", "registerWithTaints": [], "cluster": {"podCidr": "10.1.0.0/16",
        "serviceCidr": "10.96.0.0/16", "dnsDomain": "cluster.local", "network": "routes", "imageRepository": null},
        "master": null}"#;

    #[test]
    fn the_data_directory_is_the_one_that_was_recorded_last() {
        let dir = tempfile::tempdir().unwrap();
        let pointer = dir.path().join("pointer");
        assert_eq!(recorded(&pointer).unwrap(), None);
        for path in ["/srv/mk8s", "/srv/ends with a blank "] {
            record(&pointer, path.as_ref()).unwrap();
            assert_eq!(recorded(&pointer).unwrap().unwrap(), Path::new(path));
        }
        record(&pointer, DATA_DIR.as_ref()).unwrap();
        assert_eq!(recorded(&pointer).unwrap(), None, "of an earlier set-up");
        // What can't be read is not the default.
        for bad in [&b"not/absolute"[..], b"", b"/srv/\xff"] {
            std::fs::write(&pointer, bad).unwrap();
            assert!(recorded(&pointer).is_err(), "{bad:?}");
        }
    }

    /// Killed between the two files.
    #[test]
    fn a_set_up_that_ends_leaves_no_copy_that_says_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = read(FIRST_FORM, "settings.json".as_ref(), dir.path().into()).unwrap();
        settings.unfinished = true;
        settings.write_both().unwrap();
        std::fs::remove_file(file(dir.path())).unwrap();
        std::fs::create_dir(file(dir.path())).unwrap();
        settings.unfinished = false;
        assert!(settings.write_both().is_err(), "the second of the two can't be written");
        std::fs::remove_dir(file(dir.path())).unwrap();
        std::fs::copy(copy(dir.path()), file(dir.path())).unwrap();
        assert!(!Settings::require(Some(dir.path())).unwrap().unfinished);
    }

    #[test]
    fn the_first_form_is_read_and_the_present_one_written() {
        let read_back = |text: &str| read(text, "settings.json".as_ref(), "/var/lib/mk8s".into());
        let settings = read_back(FIRST_FORM).unwrap();
        assert_eq!(settings.endpoints, ["https://10.9.0.1:6443"]);
        assert_eq!(settings.cluster.network, Network::Routes);
        assert!(!settings.unfinished);
        let text = serde_json::to_string(&settings).unwrap();
        assert!(
            text.contains(r#""version":1"#) && !text.contains(r#""server""#),
            "{text}"
        );
        assert_eq!(read_back(&text).unwrap(), settings);
    }

    #[test]
    fn documents_of_neighbouring_versions() {
        let cluster = |text| Cluster::from_json(text, "the cluster's settings");
        let older = cluster(r#"{"podCidr": "10.1.0.0/16"}"#).unwrap();
        assert_eq!(older.pod_cidr.to_string(), "10.1.0.0/16");
        assert_eq!(older.dns_domain, "cluster.local");
        let newer = cluster(r#"{"version": 1, "podCidr": "10.1.0.0/16", "yetUnknown": {}}"#).unwrap();
        assert_eq!(newer.pod_cidr, older.pod_cidr);
        let refused = cluster(r#"{"version": 2}"#).unwrap_err().to_string();
        assert!(refused.contains("version 2") && refused.contains("newer"), "{refused}");
    }

    /// As a set-up leaves a data directory, but for the pointer to it.
    fn set_up(data_dir: &Path) -> Settings {
        let settings = read(FIRST_FORM, "settings.json".as_ref(), data_dir.to_path_buf()).unwrap();
        let text = serde_json::to_string(&settings).unwrap();
        for path in [file(data_dir), copy(data_dir)] {
            std::fs::write(path, &text).unwrap();
        }
        settings
    }

    #[test]
    fn a_damaged_file_is_named_with_the_cure_and_its_copy_ends_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let settings = set_up(dir.path());
        let whole = std::fs::read_to_string(file(dir.path())).unwrap();
        let half = &whole[..60];
        let long = " ".repeat(2 << 20);
        for text in ["", half, "no json", "[]", "{}", long.as_str()] {
            std::fs::write(file(dir.path()), text).unwrap();
            let refused = Settings::load(Some(dir.path())).unwrap_err().to_string();
            assert!(
                refused.contains("settings.json is damaged (")
                    && refused.contains("settings.copy.json")
                    && refused.contains("mk8s reset"),
                "{refused}"
            );
            assert_eq!(Settings::require_to_end(Some(dir.path())).unwrap(), settings);
        }
        std::fs::remove_file(file(dir.path())).unwrap();
        let refused = Settings::load(Some(dir.path())).unwrap_err().to_string();
        assert!(
            refused.contains("settings.json is missing: put its copy back"),
            "{refused}"
        );
        assert_eq!(Settings::require_to_end(Some(dir.path())).unwrap(), settings);
        nix::unistd::mkfifo(&file(dir.path()), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = Settings::load(Some(dir.path())).unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        std::fs::remove_file(file(dir.path())).unwrap();
        // Neither is of use: nothing is done.
        for path in [file(dir.path()), copy(dir.path())] {
            std::fs::write(path, half).unwrap();
        }
        let refused = Settings::require_to_end(Some(dir.path())).unwrap_err().to_string();
        assert!(
            refused.contains("is damaged (") && refused.contains("backup"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_of_a_later_form_is_told_by_its_version() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(file(dir.path()), r#"{"version": 99}"#).unwrap();
        let refused = Settings::load(Some(dir.path())).unwrap_err().to_string();
        assert!(refused.contains("version 99") && refused.contains("newer"), "{refused}");
    }

    #[test]
    fn a_copied_data_directory_is_not_this_hosts() {
        let own = tempfile::tempdir().unwrap();
        set_up(own.path());
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(file(own.path()), file(copy.path())).unwrap();
        let refused = Settings::load(Some(copy.path())).unwrap_err().to_string();
        assert!(refused.contains(own.path().to_str().unwrap()), "{refused}");
        // Moved behind a link it is the same one.
        let link = copy.path().join("link");
        std::os::unix::fs::symlink(own.path(), &link).unwrap();
        Settings::require(Some(&link)).unwrap();
    }
}
