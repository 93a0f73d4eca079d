//! A certificate authority: one self-signed certificate and its key, made by `mk8s init` and kept in the pki directory.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::issue::{random_serial, set_validity};
use crate::{PkiError, files};

/// How long a CA lives: 10 years, as kubeadm's.
const LIFE: i64 = 10 * 365 * 24 * 3600;
/// Clocks of joining hosts may be a little behind.
pub(crate) const BACKDATE: i64 = 300;

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// Makes a self-signed CA whose CN is `name`.
pub fn create(name: &str) -> Result<Authority, PkiError> {
    let failed = |cause: rcgen::Error| PkiError::Sign {
        what: format!("CA {name}"),
        cause: cause.to_string(),
    };
    let key = KeyPair::generate().map_err(failed)?;
    let now = crate::unix_now();
    let mut params = CertificateParams::new(vec![name.to_string()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    set_validity(&mut params, now - BACKDATE, now + LIFE);
    params.serial_number = Some(random_serial());
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Authority {
        pem: certificate.pem(),
        der: certificate.der().clone(),
        issuer: Issuer::new(params, key),
    })
}

/// Reads `<dir>/<stem>.crt` and `.key`.
pub fn load(dir: &Path, stem: &str) -> Result<Authority, PkiError> {
    let [certificate_file, key_file] = ["crt", "key"].map(|extension| dir.join(format!("{stem}.{extension}")));
    let (certificate, key) = (
        files::read_to_string(&certificate_file)?,
        files::read_to_string(&key_file)?,
    );
    Authority::from_pem(&certificate, &key, stem).map_err(|cause| PkiError::Damaged {
        path: match cause {
            PkiError::Key { .. } | PkiError::Mismatch { .. } => key_file,
            _ => certificate_file,
        },
        cause: Box::new(cause),
    })
}

impl Authority {
    pub fn from_pem(certificate: &str, key: &str, what: &str) -> Result<Authority, PkiError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| PkiError::Pem {
            what: format!("{what}.crt"),
        })?;
        let key = KeyPair::from_pem(key).map_err(|cause| PkiError::Key {
            what: format!("{what}.key"),
            cause: cause.to_string(),
        })?;
        let spki = spki(&der)?;
        if spki != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(PkiError::Mismatch { what: what.to_string() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|cause| PkiError::Certificate {
            what: format!("{what}.crt"),
            cause: cause.to_string(),
        })?;
        Ok(Authority {
            issuer,
            pem: certificate.to_string(),
            der,
        })
    }

    /// Writes `<dir>/<stem>.crt` and `.key` (0600); the key first, so that a certificate never stands without it.
    pub fn save(&self, dir: &Path, stem: &str) -> Result<(), PkiError> {
        files::write(
            &dir.join(format!("{stem}.key")),
            self.issuer.key().serialize_pem().as_bytes(),
            0o600,
        )?;
        files::write(&dir.join(format!("{stem}.crt")), self.pem.as_bytes(), 0o644)
    }

    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// `sha256:<hex>` of the public key: kubeadm's --discovery-token-ca-cert-hash.
    pub fn hash(&self) -> Result<String, PkiError> {
        hash(&self.der)
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// `sha256:<hex>` of a certificate's SubjectPublicKeyInfo.
pub fn hash(certificate: &CertificateDer<'_>) -> Result<String, PkiError> {
    let digest = ring::digest::digest(&ring::digest::SHA256, &spki(certificate)?);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// The hashes of every certificate in a PEM bundle.
pub fn hashes_of_pem(bundle: &str) -> Result<Vec<String>, PkiError> {
    let unreadable = |_| PkiError::Pem {
        what: "the CA bundle".into(),
    };
    CertificateDer::pem_slice_iter(bundle.as_bytes())
        .map(|certificate| hash(&certificate.map_err(unreadable)?))
        .collect()
}

fn spki(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, PkiError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|cause| PkiError::Certificate {
        what: "the CA".into(),
        cause: cause.to_string(),
    })?;
    Ok(parsed.tbs_certificate.subject_pki.raw.to_vec())
}
