//! Leaf certificates: the server's own and the clients' that init and the node agent hold.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::PkiError;
use crate::ca::{Authority, BACKDATE};

/// A year, as kubeadm's leaf certificates.
pub const LIFE: i64 = 365 * 24 * 3600;

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// A serving certificate for DNS names and addresses.
pub fn server(ca: &Authority, common_name: &str, names: &[String], seconds: i64) -> Result<Issued, PkiError> {
    let mut params = params(common_name, &[], names, seconds)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(ca, params, common_name)
}

/// A client certificate: the common name is the user, each organization (at most one here) a group.
pub fn client(ca: &Authority, user: &str, group: Option<&str>, seconds: i64) -> Result<Issued, PkiError> {
    let mut params = params(user, group.as_slice(), &[], seconds)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(ca, params, user)
}

/// A new key and a request (PEM) for a certificate on it: what a joining node sends to the CSR API. Returns (key, request).
pub fn request(user: &str, group: Option<&str>, names: &[String]) -> Result<(String, String), PkiError> {
    let failed = |cause: rcgen::Error| PkiError::Sign {
        what: format!("request of {user}"),
        cause: cause.to_string(),
    };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = params(user, group.as_slice(), names, LIFE)?;
    params.key_usages.clear();
    params.use_authority_key_identifier_extension = false;
    params.serial_number = None;
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.pem().map_err(failed)?))
}

fn params(name: &str, organizations: &[&str], names: &[String], seconds: i64) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(|cause| PkiError::Sign {
        what: format!("certificate of {name}"),
        cause: cause.to_string(),
    })?;
    params.distinguished_name = DistinguishedName::new();
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    let now = crate::unix_now();
    set_validity(&mut params, now - BACKDATE, now + seconds);
    params.serial_number = Some(random_serial());
    Ok(params)
}

fn sign(ca: &Authority, params: CertificateParams, name: &str) -> Result<Issued, PkiError> {
    let failed = |cause: rcgen::Error| PkiError::Sign {
        what: format!("certificate of {name}"),
        cause: cause.to_string(),
    };
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, ca.issuer()).map_err(failed)?;
    Ok(Issued {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

impl Issued {
    /// What rustls serves or presents.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, PkiError> {
        certified_key(&self.certificate_pem, &self.key_pem)
    }
}

/// A PEM chain and key as rustls takes them.
pub fn certified_key(certificate_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, PkiError> {
    let chain = certificates(certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| PkiError::Pem {
        what: "the private key".into(),
    })?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|cause| PkiError::Key {
        what: "of the certificate".into(),
        cause: cause.to_string(),
    })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err(PkiError::Mismatch {
            what: "certificate and key".into(),
        }),
    }
}

/// All certificates of a PEM text; none is an error.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(PkiError::Pem {
            what: "the certificate".into(),
        }),
    }
}

/// (not before, not after) in seconds since 1970.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<(i64, i64), PkiError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|cause| PkiError::Certificate {
        what: "the certificate".into(),
        cause: cause.to_string(),
    })?;
    let validity = &parsed.tbs_certificate.validity;
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// DNS names and addresses a certificate is for, as text.
pub fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, PkiError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|cause| PkiError::Certificate {
        what: "the certificate".into(),
        cause: cause.to_string(),
    })?;
    let extension = parsed.subject_alternative_name().ok().flatten();
    let names = extension
        .map(|san| crate::csr::Names::of(&san.value.general_names))
        .unwrap_or_default();
    Ok(names
        .dns
        .into_iter()
        .chain(names.addresses.iter().map(|address| address.to_string()))
        .collect())
}

pub(crate) fn random_serial() -> SerialNumber {
    SerialNumber::from_slice(&random_serial_bytes())
}

/// 128 random bits, positive and without a leading zero byte.
pub(crate) fn random_serial_bytes() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    bytes
}

/// Validity in seconds since 1970 (rcgen's time type comes from a crate we don't depend on, so it is never named).
pub(crate) fn set_validity(params: &mut CertificateParams, from: i64, to: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from.max(0).unsigned_abs());
    params.not_after = epoch + Duration::from_secs(to.max(0).unsigned_abs());
}
