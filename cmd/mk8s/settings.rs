//! What a host was set up as: written by init or join, read by every later verb and start.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::cli::Network;
use crate::failure::{Failure, Result};

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

/// What all nodes of a cluster have to agree on; joins read it from ConfigMap kube-system/mk8s-config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub dns_domain: String,
    pub network: Network,
    pub image_repository: Option<String>,
}

impl Cluster {
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
    pub role: Role,
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// `https://10.0.0.1:6443`
    pub server: String,
    pub cri_socket: PathBuf,
    pub register_with_taints: Vec<String>,
    /// None: the node agent's default.
    #[serde(default)]
    pub eviction_hard: Option<String>,
    pub cluster: Cluster,
    /// The masters' own.
    pub master: Option<Master>,
    /// An init that was interrupted before its end left this true; the next one goes on from there.
    #[serde(default)]
    pub unfinished: bool,
    #[serde(skip)]
    pub data_dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    pub advertise_address: Ipv4Addr,
    pub bind_port: u16,
    pub cert_extra_sans: Vec<String>,
}

impl Settings {
    /// The settings of this host, if it was set up.
    pub fn load(data_dir: Option<&Path>) -> Result<Option<Settings>> {
        let data_dir = find(data_dir);
        let path = file(&data_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::of(format!("read {}", path.display()), error)),
        };
        let settings =
            serde_json::from_str(&text).map_err(|error| Failure::of(format!("read {}", path.display()), error))?;
        Ok(Some(Settings { data_dir, ..settings }))
    }

    /// The same, where a host that was not set up is an error.
    pub fn require(data_dir: Option<&Path>) -> Result<Settings> {
        Settings::load(data_dir)?.ok_or_else(|| {
            Failure::new(format!(
                "this host was not set up ({} is missing): run `mk8s init` or `mk8s join` first",
                file(&find(data_dir)).display()
            ))
        })
    }

    pub fn save(&self) -> Result<()> {
        let path = file(&self.data_dir);
        let text = serde_json::to_vec_pretty(self).map_err(|error| Failure::of("print the settings", error))?;
        mk8s_pki::files::write(&path, &text, 0o600).map_err(|error| Failure::new(error.to_string()))?;
        if self.data_dir != Path::new(DATA_DIR) {
            let directory = self.data_dir.as_os_str().as_encoded_bytes();
            mk8s_pki::files::write(Path::new(POINTER), directory, 0o644)
                .map_err(|error| Failure::new(error.to_string()))?;
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

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("settings.json")
}

pub fn forget_pointer() {
    let _ = std::fs::remove_file(POINTER);
}

/// The data directory: the flag's, the one a set-up recorded, or the default.
pub fn find(data_dir: Option<&Path>) -> PathBuf {
    if let Some(data_dir) = data_dir {
        return data_dir.to_path_buf();
    }
    match std::fs::read_to_string(POINTER) {
        Ok(recorded) => PathBuf::from(recorded.trim_end()),
        Err(_) => PathBuf::from(DATA_DIR),
    }
}
