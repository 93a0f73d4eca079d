//! mk8s-kubelet: the node agent. It makes the pods that the API server gave this node run on containerd, and reports.
//!
//! ```text
//!  watch pods (spec.nodeName) ─▶ pods ─▶ pod_worker (one task per pod) ─▶ plan (pure) ─▶ volumes ∥ sandbox ∥ images
//!                                          ▲   │                                           ▼
//!               containerd's events, probes┘   └─▶ status (pure) ─▶ API            containers ─▶ probes, hooks
//! ```
//!
//! Invariants: a pod has one task that owns it and alone writes its status; nothing is polled; what runs needs no
//! process of ours to go on running, and is found again by its labels in containerd.

mod backoff;
mod cache;
mod containers;
mod downward;
mod plan;
mod pod;
mod record;
mod resources;
mod sandbox;
mod status;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

/// What a node agent is told at start.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Pods' directories: /var/lib/kubelet. Node DaemonSets mount it by this name.
    pub root_dir: PathBuf,
    /// The agent's own state: /var/lib/mk8s/node.
    pub data_dir: PathBuf,
    /// /var/log/pods
    pub pod_log_dir: PathBuf,
    /// /var/log/containers
    pub container_log_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub register_taints: Vec<Taint>,
    /// Beside those that every node has.
    pub labels: BTreeMap<String, String>,
    pub max_pods: u32,
    /// As nodeInfo shows it: `v1.35.4+mk8s.1`.
    pub version: String,
    /// Where the node's HTTPS server listens.
    pub listen: std::net::SocketAddr,
    /// Its certificate, replaced in place on renewal.
    pub server_certificate: Arc<dyn rustls::server::ResolvesServerCert>,
    /// Who may sign the API server's client certificate.
    pub client_ca: Arc<rustls::RootCertStore>,
}
