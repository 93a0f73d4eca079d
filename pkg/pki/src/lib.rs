//! Keys and what is signed with them: the cluster's CAs and certificates, certificate requests, service-account and
//! bootstrap tokens, kubeconfig files, the layout of the pki directory, and rotation inside the running process.
//!
//! Everything is ECDSA P-256 by ring. No function here logs or prints a secret; types that hold one have no derived
//! `Debug`.

pub mod bootstrap;
pub mod bundle;
pub mod ca;
pub mod csr;
mod der;
pub mod files;
pub mod issue;
mod judged;
pub mod jws;
pub mod kubeconfig;
pub mod layout;
pub mod rotation;
pub mod serviceaccount;
pub mod subject;
pub mod unverified;

/// What went wrong, and with what.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{action} {path}: {source}")]
    File {
        action: &'static str,
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// What a cluster is known by, and what only a backup can bring back.
    #[error(
        "{} {} missing, and never made again, since the cluster is known by it: bring it back from a backup, or end the cluster by `mk8s reset`",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        if .0.len() == 1 { "is" } else { "are" }
    )]
    Missing(Vec<std::path::PathBuf>),
    /// One of those that can't be read as what it is.
    #[error("{path} is damaged ({cause}): bring it back from a backup, or end the cluster by `mk8s reset`")]
    Damaged {
        path: std::path::PathBuf,
        #[source]
        cause: Box<PkiError>,
    },
    #[error("{what} is not valid PEM of the expected kind")]
    Pem { what: String },
    #[error("{what} can't be read as a certificate: {cause}")]
    Certificate { what: String, cause: String },
    #[error("key {what}: {cause}")]
    Key { what: String, cause: String },
    #[error("signing {what}: {cause}")]
    Sign { what: String, cause: String },
    #[error("the certificate and the key in {what} don't belong together")]
    Mismatch { what: String },
    #[error("kubeconfig {what}: {cause}")]
    Kubeconfig { what: String, cause: String },
}

/// Seconds since 1970, as certificates and tokens count time.
pub fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}
