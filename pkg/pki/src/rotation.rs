//! Certificates that change in the running process: rustls asks these holders at every handshake, so a renewed
//! certificate is served from the next connection on, and none that exists is dropped.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::CipherSuite;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, server::danger::ClientCertVerifier};

use crate::PkiError;

/// A certificate that can be swapped; clones share it.
#[derive(Clone, Debug)]
pub struct Holder(Arc<RwLock<Arc<CertifiedKey>>>);

impl Holder {
    pub fn new(certificate: Arc<CertifiedKey>) -> Self {
        Holder(Arc::new(RwLock::new(certificate)))
    }

    pub fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().clone()
    }

    pub fn set(&self, certificate: Arc<CertifiedKey>) {
        *self.0.write() = certificate;
    }
}

impl ResolvesServerCert for Holder {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ResolvesClientCert for Holder {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let held = self.get();
        held.key.choose_scheme(schemes).is_some().then_some(held)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// When two thirds of a certificate's life are over, in seconds since 1970.
pub fn renew_at(certificate: &CertificateDer<'_>) -> Result<i64, PkiError> {
    let (from, to) = crate::issue::validity(certificate)?;
    Ok(from + (to - from) / 3 * 2)
}

/// Renews what `holder` holds, for ever: sleeps until it is due, asks `renew`, and on failure asks again with back-off.
/// To be spawned as a task of its own; ends when it is dropped.
pub async fn keep_fresh<F, R, E>(name: &'static str, holder: Holder, mut renew: F)
where
    F: FnMut() -> R,
    R: Future<Output = Result<Arc<CertifiedKey>, E>>,
    E: std::fmt::Display,
{
    // Timers stand still while a machine sleeps, so a long wait is taken in pieces.
    const LONGEST: Duration = Duration::from_secs(12 * 3600);
    let mut backoff = Duration::from_secs(10);
    loop {
        let due = holder.get().cert.first().map_or(Ok(0), renew_at).unwrap_or(0);
        let wait = due - crate::unix_now();
        if wait > 0 {
            tokio::time::sleep(Duration::from_secs(wait.unsigned_abs()).min(LONGEST)).await;
            continue;
        }
        match renew().await {
            Ok(certificate) => {
                tracing::info!(certificate = name, "renewed");
                holder.set(certificate);
                backoff = Duration::from_secs(10);
            }
            Err(error) => tracing::warn!(certificate = name, %error, "renewing failed, will be tried again"),
        }
        // Also after a success: a signer that hands out certificates which are due at once must not make this spin.
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(Duration::from_secs(600));
    }
}

/// The rustls server side of the API: the holder's certificate, h2 and HTTP/1.1, and client certificates of `ca`
/// (verified when shown; none is fine, tokens come in headers).
pub fn server_config(holder: Holder, ca_pem: &str) -> Result<rustls::ServerConfig, PkiError> {
    let broken = |cause: String| PkiError::Key {
        what: "of the server".into(),
        cause,
    };
    let verifier = client_verifier(ca_pem, false)?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(short_keys_first()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| broken(cause.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(holder));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    Ok(config)
}

/// AES with keys of 128 bits where the client offers it, as Go's servers prefer it: a quarter less work than with 256.
fn short_keys_first() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_short = |suite| {
        matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    provider
        .cipher_suites
        .sort_by_key(|suite| (suite.tls13().is_none(), !is_short(suite.suite())));
    provider
}

/// Verifies client certificates against a CA; `required`: a connection without one is refused.
pub fn client_verifier(ca_pem: &str, required: bool) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider);
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(|cause| PkiError::Certificate {
        what: "the client CA".into(),
        cause: cause.to_string(),
    })
}

/// The rustls client side: trusts `ca`, presents the holder's certificate where there is one.
pub fn client_config(ca_pem: &str, holder: Option<Holder>) -> Result<rustls::ClientConfig, PkiError> {
    let broken = |cause: String| PkiError::Key {
        what: "of the client".into(),
        cause,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| broken(cause.to_string()))?
        .with_root_certificates(roots(ca_pem)?);
    Ok(match holder {
        Some(holder) => builder.with_client_cert_resolver(Arc::new(holder)),
        None => builder.with_no_client_auth(),
    })
}

/// A PEM bundle as trusted roots.
pub fn roots(ca_pem: &str) -> Result<rustls::RootCertStore, PkiError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in crate::issue::certificates(ca_pem)? {
        roots.add(certificate).map_err(|cause| PkiError::Certificate {
            what: "the CA".into(),
            cause: cause.to_string(),
        })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{ca, issue};

    /// A handshake in memory; returns the certificate that the server saw.
    async fn handshake(
        server: rustls::ServerConfig,
        client: rustls::ClientConfig,
    ) -> std::io::Result<Option<CertificateDer<'static>>> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            let mut tls = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far).await?;
            let seen = tls.get_ref().1.peer_certificates().map(|chain| chain[0].clone());
            tls.write_all(b"!").await?;
            Ok::<_, std::io::Error>(seen)
        });
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let mut tls = connector.connect("kubernetes".try_into().unwrap(), near).await?;
        let mut byte = [0];
        tls.read_exact(&mut byte).await?;
        server.await.unwrap()
    }

    #[test]
    fn keys_of_128_bits_come_first_in_both_versions() {
        let order: Vec<_> = short_keys_first()
            .cipher_suites
            .iter()
            .map(|suite| suite.suite())
            .collect();
        assert_eq!(order[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(
            order[3],
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            "{order:?}"
        );
        assert_eq!(
            order.len(),
            rustls::crypto::ring::default_provider().cipher_suites.len()
        );
    }

    #[tokio::test]
    async fn handshakes() {
        let ca = ca::create("kubernetes").unwrap();
        let other = ca::create("kubernetes").unwrap();
        let names = vec!["kubernetes".to_string(), "10.96.0.1".to_string()];
        let serving = Holder::new(
            issue::server(&ca, "kube-apiserver", &names, 3600)
                .unwrap()
                .certified_key()
                .unwrap(),
        );
        let user = |ca: &ca::Authority| {
            Holder::new(
                issue::client(ca, "jane", Some("dev"), 3600)
                    .unwrap()
                    .certified_key()
                    .unwrap(),
            )
        };
        let server = || server_config(serving.clone(), ca.certificate_pem()).unwrap();
        let client = |holder| client_config(ca.certificate_pem(), holder).unwrap();

        assert!(handshake(server(), client(None)).await.unwrap().is_none());
        let jane = user(&ca);
        let seen = handshake(server(), client(Some(jane.clone()))).await.unwrap().unwrap();
        assert_eq!(seen, jane.get().cert[0]);
        assert!(
            handshake(server(), client(Some(user(&other)))).await.is_err(),
            "a foreign CA's client"
        );
        let distrusting = client_config(other.certificate_pem(), None).unwrap();
        assert!(handshake(server(), distrusting).await.is_err(), "a foreign CA's server");

        // Swapped in place, served at the next handshake.
        jane.set(user(&ca).get());
        let again = handshake(server(), client(Some(jane.clone()))).await.unwrap().unwrap();
        assert_ne!(again, seen);
    }

    #[test]
    fn renewal_is_due_at_two_thirds() {
        let ca = ca::create("kubernetes").unwrap();
        let issued = issue::client(&ca, "jane", None, 3300).unwrap().certified_key().unwrap();
        let due = renew_at(&issued.cert[0]).unwrap() - crate::unix_now();
        assert!((2099..=2101).contains(&due), "{due}");
    }
}
