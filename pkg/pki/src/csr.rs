//! Certificate requests: parsing and checking them, and signing them as upstream's signers do
//! (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>).

use std::net::{IpAddr, Ipv6Addr};

use rcgen::SigningKey;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::ca::{Authority, BACKDATE};
use crate::der;
use crate::subject::{Subject, SubjectError};

/// Why a request can't be read or signed; the text goes into a condition or a Status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("the certificate request can't be parsed: {0}")]
    Parse(String),
    #[error("the certificate request names nobody: {0}")]
    Subject(#[from] SubjectError),
    #[error("the certificate request's signature does not match its key")]
    Signature,
    #[error("unsupported usage: {0}")]
    Usage(String),
    #[error("signing failed: {0}")]
    Sign(String),
}

/// Subject alternative names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// Names of other kinds (directory names, …): nobody signs these. An IPv4 address in IPv6's form is one, too: clients
    /// take it for the IPv4 address, so who compares it as it stands lets through what is refused in its usual form.
    pub others: usize,
}

impl Names {
    pub(crate) fn of(names: &[GeneralName<'_>]) -> Names {
        let mut all = Names::default();
        for name in names {
            match name {
                GeneralName::DNSName(name) => all.dns.push(name.to_string()),
                GeneralName::RFC822Name(name) => all.emails.push(name.to_string()),
                GeneralName::URI(name) => all.uris.push(name.to_string()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => all.addresses.push(address),
                    None => all.others += 1,
                },
                _ => all.others += 1,
            }
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        *self == Names::default()
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    v6.to_ipv4_mapped().is_none().then_some(v6.into())
}

/// A request whose signature has been checked.
pub struct Request {
    /// What a certificate for it says of its user; other attributes of the requested subject are not signed.
    pub subject: Subject,
    pub names: Names,
    public_key: Vec<u8>,
    /// The content of the requested subjectAltName extension, byte for byte.
    san: Option<Vec<u8>>,
}

/// Parses `spec.request` (PEM) and checks that the requester holds the key.
pub fn parse(pem: &[u8]) -> Result<Request, CsrError> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| CsrError::Pem)?;
    let (_, csr) = X509CertificationRequest::from_der(&der).map_err(|cause| CsrError::Parse(cause.to_string()))?;
    csr.verify_signature().map_err(|_| CsrError::Signature)?;
    let info = &csr.certification_request_info;
    let subject = Subject::read(&info.subject)?;
    let mut names = Names::default();
    let mut san = None;
    for attribute in info.iter_attributes() {
        let x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute()
        else {
            continue;
        };
        for extension in &requested.extensions {
            if let ParsedExtension::SubjectAlternativeName(parsed) = extension.parsed_extension() {
                names = Names::of(&parsed.general_names);
                san = Some(extension.value.to_vec());
            }
        }
    }
    let public_key = info.subject_pki.raw.to_vec();
    Ok(Request {
        subject,
        names,
        public_key,
        san,
    })
}

/// What a certificate may be used for, of certificates.k8s.io/v1's KeyUsage: (bits of keyUsage, EKU OID arcs under 1.3.6.1.5.5.7.3).
fn usage(name: &str) -> Option<(u16, Option<u8>)> {
    Some(match name {
        "signing" | "digital signature" => (1 << 0, None),
        "content commitment" => (1 << 1, None),
        "key encipherment" => (1 << 2, None),
        "data encipherment" => (1 << 3, None),
        "key agreement" => (1 << 4, None),
        "cert sign" => (1 << 5, None),
        "crl sign" => (1 << 6, None),
        "encipher only" => (1 << 7, None),
        "decipher only" => (1 << 8, None),
        "server auth" => (0, Some(1)),
        "client auth" => (0, Some(2)),
        "code signing" => (0, Some(3)),
        "email protection" | "s/mime" => (0, Some(4)),
        "ipsec end system" => (0, Some(5)),
        "ipsec tunnel" => (0, Some(6)),
        "ipsec user" => (0, Some(7)),
        "timestamping" => (0, Some(8)),
        "ocsp signing" => (0, Some(9)),
        _ => return None,
    })
}

/// How long what is asked for may live: `expirationSeconds` (at least 10 minutes), never longer than a year or the CA.
pub fn lifetime(expiration_seconds: Option<i64>) -> i64 {
    expiration_seconds.map_or(crate::issue::LIFE, |asked| asked.clamp(600, crate::issue::LIFE))
}

/// keyUsage and extendedKeyUsage, each where one was asked for.
fn usage_extensions(usages: &[String]) -> Result<Vec<u8>, CsrError> {
    let (mut key_usage, mut extended) = (0u16, Vec::new());
    for name in usages {
        let (bits, purpose) = usage(name).ok_or_else(|| CsrError::Usage(name.clone()))?;
        key_usage |= bits;
        if let Some(arc) = purpose {
            let oid = der::tlv(der::OID, &[0x2b, 6, 1, 5, 5, 7, 3, arc]);
            if !extended.contains(&oid) {
                extended.push(oid);
            }
        }
    }
    let mut extensions = Vec::new();
    if key_usage != 0 {
        extensions.extend(der::extension(&[0x55, 0x1d, 15], true, &der::named_bits(key_usage)));
    }
    if !extended.is_empty() {
        extensions.extend(der::extension(
            &[0x55, 0x1d, 37],
            false,
            &der::tlv(der::SEQUENCE, &extended.concat()),
        ));
    }
    Ok(extensions)
}

/// No CA (basicConstraints), who signed (authorityKeyIdentifier), and for which names (subjectAltName, as it was asked).
fn identity_extensions(request: &Request, ca: &X509Certificate<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    extensions.extend(der::extension(&[0x55, 0x1d, 19], true, &der::sequence(&[])));
    let key_id = ca
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    if let Some(id) = key_id {
        extensions.extend(der::extension(
            &[0x55, 0x1d, 35],
            false,
            &der::sequence(&[&der::tlv(0x80, &id)]),
        ));
    }
    if let Some(san) = &request.san {
        // Critical only where there is no subject (RFC 5280 4.2.1.6).
        let critical = request.subject == Subject::default();
        extensions.extend(der::extension(&[0x55, 0x1d, 17], critical, san));
    }
    extensions
}

/// Signs a request for `usages`; returns PEM. The caller has decided that it may be signed.
pub fn sign(
    ca: &Authority,
    request: &Request,
    usages: &[String],
    expiration_seconds: Option<i64>,
    now: i64,
) -> Result<String, CsrError> {
    let failed = |cause: rcgen::Error| CsrError::Sign(cause.to_string());
    let (_, ca_certificate) =
        x509_parser::parse_x509_certificate(ca.certificate()).map_err(|cause| CsrError::Sign(cause.to_string()))?;
    let not_after = (now + lifetime(expiration_seconds)).min(ca_certificate.validity().not_after.timestamp());

    let extensions = [usage_extensions(usages)?, identity_extensions(request, &ca_certificate)].concat();
    // ecdsa-with-SHA256
    let algorithm = der::sequence(&[&der::tlv(der::OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let to_be_signed = der::sequence(&[
        &der::tlv(0xa0, &der::tlv(der::INTEGER, &[2])),
        &der::tlv(der::INTEGER, &crate::issue::random_serial_bytes()),
        &algorithm,
        ca_certificate.subject().as_raw(),
        &der::sequence(&[&der::time(now - BACKDATE), &der::time(not_after)]),
        &request.subject.to_der(),
        &request.public_key,
        &der::tlv(0xa3, &der::tlv(der::SEQUENCE, &extensions)),
    ]);
    let key = ca.issuer().key();
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(CsrError::Sign("the CA's key is not ECDSA P-256".into()));
    }
    let mut signature = key.sign(&to_be_signed).map_err(failed)?;
    signature.insert(0, 0);
    let certificate = der::sequence(&[&to_be_signed, &algorithm, &der::tlv(der::BIT_STRING, &signature)]);
    Ok(pem("CERTIFICATE", &certificate))
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for start in (0..text.len()).step_by(64) {
        out.push_str(&text[start..(start + 64).min(text.len())]);
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signs_what_was_asked_and_nothing_more() {
        let ca = crate::ca::create("kubernetes").unwrap();
        let names = vec!["worker".to_string(), "10.0.0.2".to_string()];
        let (key, request) = crate::issue::request("system:node:worker", Some("system:nodes"), &names).unwrap();
        let request = parse(request.as_bytes()).unwrap();
        assert_eq!(request.subject.common_name, "system:node:worker");
        assert_eq!(request.subject.organizations, ["system:nodes"]);
        assert_eq!(request.names.dns, ["worker"]);
        assert_eq!(request.names.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);

        let usages: Vec<String> = ["digital signature", "server auth"].map(String::from).into();
        let now = crate::unix_now();
        let certificate = sign(&ca, &request, &usages, Some(3600), now).unwrap();
        let chain = crate::issue::certificates(&certificate).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let (_, issuer) = x509_parser::parse_x509_certificate(ca.certificate()).unwrap();
        parsed.verify_signature(Some(issuer.public_key())).unwrap();
        assert_eq!(parsed.validity().not_after.timestamp(), now + 3600);
        assert!(!parsed.is_ca());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_encipherment());
        let extended = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && !extended.client_auth);
        assert_eq!(crate::issue::names(&chain[0]).unwrap(), names);
        assert_eq!(Subject::of_certificate(&chain[0]).unwrap(), request.subject);
        crate::issue::certified_key(&certificate, &key).unwrap();
    }

    #[test]
    fn an_ipv4_address_in_ipv6s_form_is_no_address() {
        let names = ["::ffff:10.96.0.1", "fd00::1", "10.0.0.2"].map(String::from);
        let (_, request) = crate::issue::request("system:node:n1", Some("system:nodes"), &names).unwrap();
        let names = parse(request.as_bytes()).unwrap().names;
        let expected = ["fd00::1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!((&names.addresses[..], names.others), (&expected[..], 1));
    }

    #[test]
    fn refuses_what_is_no_request() {
        let ca = crate::ca::create("kubernetes").unwrap();
        assert_eq!(parse(ca.certificate_pem().as_bytes()).err(), Some(CsrError::Pem));
        assert_eq!(parse(b"hello").err(), Some(CsrError::Pem));
    }

    /// Who approves it would look at one of them, who lets its holder in at the other.
    #[test]
    fn refuses_a_second_common_name() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let again = rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "kube-apiserver-kubelet-client");
        params.distinguished_name.push(again, "system:node:n1");
        let key = rcgen::KeyPair::generate().unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let refused = CsrError::Subject(SubjectError::CommonNames(2));
        assert_eq!(parse(request.as_bytes()).err(), Some(refused));
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(
            Subject::of_certificate(certificate.der()),
            Err(SubjectError::CommonNames(2))
        );
    }

    #[test]
    fn clamps_the_lifetime() {
        for (asked, got) in [
            (None, crate::issue::LIFE),
            (Some(1), 600),
            (Some(7200), 7200),
            (Some(i64::MAX), crate::issue::LIFE),
        ] {
            assert_eq!(lifetime(asked), got);
        }
    }
}
