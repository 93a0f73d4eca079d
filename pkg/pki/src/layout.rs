//! The pki directory of a master: what is in it, made on first use, renewed when it is due.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::ca::{self, Authority};
use crate::issue::{self, Issued};
use crate::serviceaccount::Keys;
use crate::{PkiError, files};

/// Whom the API server's certificate is for.
#[derive(Clone, Debug)]
pub struct ServerNames {
    pub node_name: String,
    pub cluster_domain: String,
    pub advertise_address: IpAddr,
    /// The first service address.
    pub service_address: IpAddr,
    pub extra: Vec<String>,
}

impl ServerNames {
    /// kubeadm's list.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![
            self.node_name.clone(),
            "kubernetes".into(),
            "kubernetes.default".into(),
            "kubernetes.default.svc".into(),
            format!("kubernetes.default.svc.{}", self.cluster_domain),
            "localhost".into(),
            self.service_address.to_string(),
            self.advertise_address.to_string(),
            "127.0.0.1".into(),
            "::1".into(),
        ];
        for extra in &self.extra {
            if !names.contains(extra) {
                names.push(extra.clone());
            }
        }
        names
    }
}

/// Everything a master signs and serves with.
pub struct Master {
    pub directory: PathBuf,
    pub ca: Arc<Authority>,
    pub front_proxy_ca: Arc<Authority>,
    pub service_accounts: Arc<Keys>,
    pub server: Arc<CertifiedKey>,
    pub kubelet_client: Arc<CertifiedKey>,
}

/// The API server's name towards nodes' own servers.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Reads the directory, making whatever is missing and renewing leaf certificates that are due or name others.
pub fn open(directory: &Path, names: &ServerNames) -> Result<Master, PkiError> {
    let ca = authority(directory, "ca", "kubernetes")?;
    let front_proxy_ca = authority(directory, "front-proxy-ca", "front-proxy-ca")?;
    let service_accounts = Arc::new(service_account_keys(directory)?);
    let server = server_certificate(directory, &ca, names)?;
    let kubelet_client = kubelet_client_certificate(directory, &ca)?;
    Ok(Master {
        directory: directory.to_path_buf(),
        ca: Arc::new(ca),
        front_proxy_ca: Arc::new(front_proxy_ca),
        service_accounts,
        server,
        kubelet_client,
    })
}

fn authority(directory: &Path, stem: &str, name: &str) -> Result<Authority, PkiError> {
    // A key without its certificate is a first start that was cut short: nothing was signed with it yet.
    if directory.join(format!("{stem}.crt")).exists() {
        return ca::load(directory, stem);
    }
    let made = ca::create(name)?;
    made.save(directory, stem)?;
    Ok(made)
}

fn service_account_keys(directory: &Path) -> Result<Keys, PkiError> {
    let path = directory.join("sa.key");
    if path.exists() {
        return Keys::from_pem(&files::read_to_string(&path)?);
    }
    let keys = Keys::generate()?;
    files::write(&path, keys.private_pem().as_bytes(), 0o600)?;
    files::write(&directory.join("sa.pub"), keys.public_pem().as_bytes(), 0o644)?;
    Ok(keys)
}

/// `apiserver.crt`: kept while it is young enough and names the same; else made anew.
pub fn server_certificate(
    directory: &Path,
    ca: &Authority,
    names: &ServerNames,
) -> Result<Arc<CertifiedKey>, PkiError> {
    let wanted = names.names();
    leaf(directory, "apiserver", ca, &wanted, || {
        issue::server(ca, "kube-apiserver", &wanted, issue::LIFE)
    })
}

/// `apiserver-kubelet-client.crt`
pub fn kubelet_client_certificate(directory: &Path, ca: &Authority) -> Result<Arc<CertifiedKey>, PkiError> {
    let make = || issue::client(ca, KUBELET_CLIENT, None, issue::LIFE);
    leaf(directory, "apiserver-kubelet-client", ca, &[], make)
}

/// The stored pair when it is good, else a new one, stored.
fn leaf(
    directory: &Path,
    stem: &str,
    ca: &Authority,
    names: &[String],
    make: impl FnOnce() -> Result<Issued, PkiError>,
) -> Result<Arc<CertifiedKey>, PkiError> {
    let (certificate, key) = (
        directory.join(format!("{stem}.crt")),
        directory.join(format!("{stem}.key")),
    );
    if let (Ok(certificate), Ok(key)) = (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key))
        && let Ok(pair) = issue::certified_key(&certificate, &key)
        && keeps(&pair, ca, names, crate::unix_now())
    {
        return Ok(pair);
    }
    let issued = make()?;
    files::write(&key, issued.key_pem.as_bytes(), 0o600)?;
    files::write(&certificate, issued.certificate_pem.as_bytes(), 0o644)?;
    issued.certified_key()
}

/// Whether a stored certificate is from this CA, in the first two thirds of its life, and for these names.
fn keeps(pair: &CertifiedKey, ca: &Authority, names: &[String], now: i64) -> bool {
    let Some(certificate) = pair.cert.first() else {
        return false;
    };
    let signed_by_ca = || {
        let (_, leaf) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let (_, issuer) = x509_parser::parse_x509_certificate(ca.certificate()).ok()?;
        leaf.verify_signature(Some(issuer.public_key())).ok()
    };
    let same_names = || {
        let mut stored = issue::names(certificate).unwrap_or_default();
        let mut wanted = names.to_vec();
        stored.sort();
        wanted.sort();
        stored == wanted
    };
    crate::rotation::renew_at(certificate).is_ok_and(|due| now < due) && signed_by_ca().is_some() && same_names()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(extra: &[&str]) -> ServerNames {
        ServerNames {
            node_name: "one".into(),
            cluster_domain: "cluster.local".into(),
            advertise_address: "10.0.0.1".parse().unwrap(),
            service_address: "10.96.0.1".parse().unwrap(),
            extra: extra.iter().map(|name| name.to_string()).collect(),
        }
    }

    #[test]
    fn opens_again_what_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &names(&[])).unwrap();
        let second = open(dir.path(), &names(&[])).unwrap();
        assert_eq!(first.ca.hash().unwrap(), second.ca.hash().unwrap());
        assert_eq!(first.server.cert, second.server.cert);
        let third = open(dir.path(), &names(&["example.org"])).unwrap();
        assert_ne!(first.server.cert, third.server.cert, "other names: another certificate");
        assert_eq!(first.kubelet_client.cert, third.kubelet_client.cert);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if name.ends_with(".key") { 0o600 } else { 0o644 }, "{name}");
        }
    }
}
