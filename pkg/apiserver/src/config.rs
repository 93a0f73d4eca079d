//! What the API server has to be told.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mk8s_pki::serviceaccount::Keys;

use crate::tokens::TokenAuthority;

/// The version that `/version` and every node report.
pub const VERSION: &str = "v1.35.4+mk8s.1";

/// The ports that Services of type NodePort and LoadBalancer get on every node.
pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

#[derive(Clone)]
pub struct Config {
    /// The store's directory is `db` below it; keys and certificates are in `pki`.
    pub data_dir: PathBuf,
    pub service_cidr: IpNet,
    pub node_port_range: RangeInclusive<u16>,
    pub cluster_domain: String,
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    pub version: String,
    /// For the way to the nodes' port 10250: trusts the cluster CA, shows the apiserver-kubelet client certificate.
    pub kubelet_client: Option<rustls::ClientConfig>,
    /// How many requests other than watches, logs and streams are worked on at once: (reading, writing).
    pub max_in_flight: (usize, usize),
    /// How long a client may let a piece of his answers lie before his connection is closed.
    pub unread: Duration,
    /// Signs and verifies service-account tokens.
    pub tokens: TokenAuthority,
}

impl Config {
    /// The defaults for a data directory, an address and a signing key.
    pub fn new(data_dir: impl Into<PathBuf>, advertise_address: IpAddr, keys: Arc<Keys>) -> Config {
        let cluster_domain = "cluster.local";
        Config {
            data_dir: data_dir.into(),
            service_cidr: IpNet::V4(ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 16)),
            node_port_range: NODE_PORTS,
            cluster_domain: cluster_domain.into(),
            advertise_address,
            secure_port: 6443,
            version: VERSION.into(),
            kubelet_client: None,
            max_in_flight: (400, 200),
            // As long as a body may be left unread.
            unread: Duration::from_secs(60),
            tokens: TokenAuthority::new(keys, cluster_domain),
        }
    }
}
