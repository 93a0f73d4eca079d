//! TLS to a server that a bundle of certificates vouches for: as authorities, and as the server's own certificate. The
//! latter is what people have who ran `openssl req -x509` for a registry or a webhook, and what Go's verifier accepts;
//! rustls' alone refuses a certificate that says of itself that it is an authority.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use x509_parser::extensions::X509Extension;

use crate::judged;

/// Takes what the roots vouch for, and a server whose very certificate is one of the bundle's.
///
/// # Errors
/// Where there are no roots at all.
pub fn verifier(
    roots: RootCertStore,
    bundle: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierBuilderError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    Ok(judged::by(move |shown| {
        let verified =
            usual.verify_server_cert(shown.end_entity, shown.intermediates, shown.name, shown.ocsp, shown.now);
        if verified.is_err() && bundle.iter().any(|own| own == shown.end_entity) {
            may_serve(shown.end_entity, shown.now)?;
            return verify_server_name(&ParsedCertificate::try_from(shown.end_entity)?, shown.name);
        }
        verified.map(drop)
    }))
}

/// A certificate that is trusted for itself has its time and its purpose, too.
fn may_serve(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let (validity, now) = (parsed.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    let unread = |extension: &X509Extension<'_>| {
        let parsed = extension.parsed_extension();
        extension.critical && (parsed.unsupported() || parsed.error().is_some())
    };
    if parsed.extensions().iter().any(unread) {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    let purposes = parsed
        .extended_key_usage()
        .map_err(|_| CertificateError::BadEncoding)?
        .map(|extension| extension.value);
    match purposes {
        Some(purposes) if !purposes.any && !purposes.server_auth => Err(CertificateError::InvalidPurpose),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose};
    use rustls::pki_types::ServerName;

    use super::*;

    /// A certificate that says it is an authority, valid from one moment to another.
    fn authority(from: i32, to: i32) -> CertificateDer<'static> {
        authority_with(from, to, |_| ())
    }

    fn authority_with(from: i32, to: i32, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec!["hook.example.org".to_string()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        change(&mut params);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn a_server_is_vouched_for_by_its_own_certificate_in_its_time_and_by_its_name() {
        let (own, other, old) = (authority(2020, 2100), authority(2020, 2100), authority(2000, 2001));
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates([own.clone(), old.clone()]);
        assert_eq!(added, 2);
        let verifier = verifier(roots, vec![own.clone(), old.clone()]).expect("a verifier");
        let verified = |certificate: &CertificateDer<'_>, name: &'static str| {
            let name = ServerName::try_from(name).expect("a name");
            verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
        };
        assert!(verified(&own, "hook.example.org").is_ok());
        assert!(verified(&own, "other.example.org").is_err());
        assert!(verified(&other, "hook.example.org").is_err());
        assert!(verified(&old, "hook.example.org").is_err());
    }

    #[test]
    fn a_server_is_vouched_for_by_its_own_certificate_for_what_that_is_for() {
        let purposes = |purposes: &[ExtendedKeyUsagePurpose]| {
            authority_with(2020, 2100, |params| params.extended_key_usages = purposes.to_vec())
        };
        let critical = |critical: bool| {
            authority_with(2020, 2100, |params| {
                let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 99], vec![5, 0]);
                unknown.set_criticality(critical);
                params.custom_extensions = vec![unknown];
            })
        };
        let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        let cases = [
            (purposes(&[]), true),
            (purposes(&[client.clone(), server]), true),
            (purposes(&[client.clone(), ExtendedKeyUsagePurpose::Any]), true),
            (purposes(&[client]), false),
            (critical(false), true),
            (critical(true), false),
        ];
        for (index, (own, expected)) in cases.into_iter().enumerate() {
            let mut roots = RootCertStore::empty();
            roots.add(authority(2020, 2100)).expect("a root");
            let verifier = verifier(roots, vec![own.clone()]).expect("a verifier");
            let name = ServerName::try_from("hook.example.org").expect("a name");
            let verified = verifier.verify_server_cert(&own, &[], &name, &[], UnixTime::now());
            assert_eq!(verified.is_ok(), expected, "case {index}: {verified:?}");
        }
    }
}
