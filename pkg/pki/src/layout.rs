//! The pki directory of a master. What the cluster is known by (its CAs, the key that signs ServiceAccounts' tokens) is made
//! once, by [`create`]; [`open`] reads it and never makes it again, since another CA or key in its place would end the
//! cluster's identity for good. Leaf certificates are made anew whenever they are missing, due, or for other names.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
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

/// The stems of the authorities' files (`.crt` and `.key`) and their common names.
const AUTHORITIES: [(&str, &str); 2] = [("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca")];
const SERVICE_ACCOUNT_KEY: &str = "sa.key";

/// Makes what the directory lacks, then opens it. For a set-up that has not come to its end, and for nothing else.
pub fn create(directory: &Path, names: &ServerNames) -> Result<Master, PkiError> {
    files::private_directory(directory)?;
    for (stem, name) in AUTHORITIES {
        // A key without its certificate is a first set-up that was cut short: nothing was signed with it yet.
        if !directory.join(format!("{stem}.crt")).exists() {
            ca::create(name)?.save(directory, stem)?;
        }
    }
    let path = directory.join(SERVICE_ACCOUNT_KEY);
    if !path.exists() {
        let keys = Keys::generate()?;
        // The key last: it is what says that the pair is whole.
        files::write(&directory.join("sa.pub"), keys.public_pem().as_bytes(), 0o644)?;
        files::write(&path, keys.private_pem().as_bytes(), 0o600)?;
    }
    open(directory, names)
}

/// Reads the directory and renews leaf certificates. Where a CA or the ServiceAccounts' key is missing it fails with all
/// that is missing, and has written nothing.
pub fn open(directory: &Path, names: &ServerNames) -> Result<Master, PkiError> {
    require(directory)?;
    let [ca, front_proxy_ca] = AUTHORITIES.map(|(stem, _)| ca::load(directory, stem));
    let (ca, front_proxy_ca) = (ca?, front_proxy_ca?);
    let path = directory.join(SERVICE_ACCOUNT_KEY);
    let keys = Keys::from_pem(&files::read_to_string(&path)?);
    let service_accounts = Arc::new(keys.map_err(|cause| PkiError::Damaged {
        path,
        cause: Box::new(cause),
    })?);
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

/// Fails with the files that nothing but a backup can bring back, where some are missing.
pub fn require(directory: &Path) -> Result<(), PkiError> {
    let authorities = AUTHORITIES
        .iter()
        .flat_map(|(stem, _)| [format!("{stem}.crt"), format!("{stem}.key")]);
    let missing: Vec<PathBuf> = authorities
        .chain([SERVICE_ACCOUNT_KEY.to_string()])
        .map(|name| directory.join(name))
        .filter(|path| !path.exists())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(PkiError::Missing(missing))
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

/// Whether `ca` signed the certificate.
pub fn signed_by(certificate: &CertificateDer<'_>, ca: &Authority) -> bool {
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let Ok((_, issuer)) = x509_parser::parse_x509_certificate(ca.certificate()) else {
        return false;
    };
    leaf.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Whether a stored certificate is from this CA, in the first two thirds of its life, and for these names.
fn keeps(pair: &CertifiedKey, ca: &Authority, names: &[String], now: i64) -> bool {
    let Some(certificate) = pair.cert.first() else {
        return false;
    };
    let same_names = || {
        let mut stored = issue::names(certificate).unwrap_or_default();
        let mut wanted = names.to_vec();
        stored.sort();
        wanted.sort();
        stored == wanted
    };
    crate::rotation::renew_at(certificate).is_ok_and(|due| now < due) && signed_by(certificate, ca) && same_names()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
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

    /// Every file of a directory and its content.
    fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    std::fs::read(entry.path()).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn what_the_cluster_is_known_by_is_never_made_again() {
        for lost in ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key"] {
            let dir = tempfile::tempdir().unwrap();
            create(dir.path(), &names(&[])).unwrap();
            std::fs::remove_file(dir.path().join(lost)).unwrap();
            // A leaf that is gone, too: not even that is written beside what is missing.
            std::fs::remove_file(dir.path().join("apiserver.crt")).unwrap();
            let before = contents(dir.path());
            let Err(refused) = open(dir.path(), &names(&[])) else {
                panic!("{lost} was made again");
            };
            let refused = refused.to_string();
            let named = dir.path().join(lost).display().to_string();
            assert!(refused.contains(&named) && refused.contains("backup"), "{refused}");
            assert_eq!(contents(dir.path()), before, "{lost}");
        }
    }

    #[test]
    fn what_is_damaged_is_named_with_what_to_do() {
        for damaged in ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key"] {
            let dir = tempfile::tempdir().unwrap();
            create(dir.path(), &names(&[])).unwrap();
            let path = dir.path().join(damaged);
            for text in [
                "",
                "garbage",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ] {
                std::fs::write(&path, text).unwrap();
                let Err(refused) = open(dir.path(), &names(&[])) else {
                    panic!("{damaged} is read");
                };
                let refused = refused.to_string();
                let named = format!("{} is damaged", path.display());
                assert!(refused.starts_with(&named) && refused.contains("backup"), "{refused}");
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_set_up_that_was_cut_short_goes_on_with_what_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = create(dir.path(), &names(&[])).unwrap();
        std::fs::remove_file(dir.path().join("sa.key")).unwrap();
        std::fs::remove_file(dir.path().join("front-proxy-ca.crt")).unwrap();
        let second = create(dir.path(), &names(&[])).unwrap();
        assert_eq!(first.ca.hash().unwrap(), second.ca.hash().unwrap());
        open(dir.path(), &names(&[])).unwrap();
    }

    #[test]
    fn opens_again_what_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = create(dir.path(), &names(&[])).unwrap();
        let second = open(dir.path(), &names(&[])).unwrap();
        assert_eq!(first.ca.hash().unwrap(), second.ca.hash().unwrap());
        assert_eq!(first.server.cert, second.server.cert);
        let third = open(dir.path(), &names(&["example.org"])).unwrap();
        assert_ne!(first.server.cert, third.server.cert, "other names: another certificate");
        assert_eq!(first.kubelet_client.cert, third.kubelet_client.cert);
        let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "of the directory");
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if name.ends_with(".key") { 0o600 } else { 0o644 }, "{name}");
        }
    }
}
