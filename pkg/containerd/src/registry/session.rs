//! Talking to one image's registry: its endpoints in order, each with the authorization that it turned out to want.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::auth::{self, Refusal};
use super::config::{Endpoint, Registries, TlsFiles};
use super::http::{Ask, Clients, text};
use super::keychain::Credential;
use super::{PullError, said};
use crate::image::reference::Reference;
use crate::image::{ACCEPTED, Descriptor, sha256};

/// Manifests beyond this are refused, by registries too.
const MANIFEST_LIMIT: usize = 4 << 20;

/// One endpoint and what has been learnt about it.
struct RegistryHost {
    endpoint: Endpoint,
    tls: TlsFiles,
    credential: Option<Credential>,
    authorization: Mutex<Option<HeaderValue>>,
}

pub(super) struct Session<'a> {
    clients: &'a Clients,
    reference: &'a Reference,
    hosts: Vec<RegistryHost>,
}

/// A manifest or index as the registry sent it.
pub(super) struct Fetched {
    pub(super) descriptor: Descriptor,
    pub(super) body: Bytes,
}

impl<'a> Session<'a> {
    /// `credential` is for the image's own registry; mirrors get what is configured for them.
    pub(super) fn new(
        clients: &'a Clients,
        registries: &Registries,
        reference: &'a Reference,
        credential: Option<&Credential>,
    ) -> Session<'a> {
        let hosts = registries
            .endpoints(&reference.host, &reference.path)
            .into_iter()
            .map(|endpoint| {
                let own = if endpoint.mirror_of.is_none() {
                    credential.cloned()
                } else {
                    None
                };
                RegistryHost {
                    tls: registries
                        .configs
                        .get(&endpoint.host)
                        .and_then(|c| c.tls.clone())
                        .unwrap_or_default(),
                    credential: own.or_else(|| registries.credential(&endpoint.host)),
                    authorization: Mutex::new(None),
                    endpoint,
                }
            });
        Session {
            clients,
            reference,
            hosts: hosts.collect(),
        }
    }

    /// Asks the endpoints in order until one has it. The last one's error counts, which is the registry's own; but a
    /// "denied" says more than a "not found" that followed it.
    pub(super) async fn manifest(&self, object: &str) -> Result<Fetched, PullError> {
        let mut worst: Option<PullError> = None;
        for host in &self.hosts {
            match self.manifest_from(host, object).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => {
                    tracing::debug!(endpoint = host.endpoint.base, %error, "no manifest from this endpoint");
                    let keep = matches!((&worst, &error), (Some(PullError::Denied(_)), PullError::NotFound(_)));
                    if !keep {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| PullError::NotFound(self.reference.to_string())))
    }

    async fn manifest_from(&self, host: &RegistryHost, object: &str) -> Result<Fetched, PullError> {
        let accept = HeaderValue::from_str(&ACCEPTED.join(", ")).unwrap_or(HeaderValue::from_static("*/*"));
        let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        let response = self.get(host, &format!("manifests/{object}"), headers).await?;
        let media_type = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        let media_type = media_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let body = text(response, MANIFEST_LIMIT).await?;
        let digest = sha256(&body);
        if object.starts_with("sha256:") && object != digest {
            return Err(PullError::Malformed(format!(
                "manifest {object}: what the registry sent is {digest}"
            )));
        }
        let descriptor = Descriptor {
            media_type: sniffed(media_type, &body),
            ..Descriptor::of("", &body)
        };
        Ok(Fetched { descriptor, body })
    }

    /// A blob from `offset` on. The answer may start at zero all the same: then it says 200, not 206.
    pub(super) async fn blob(&self, digest: &str, offset: u64) -> Result<Response<Incoming>, PullError> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/octet-stream, */*"))]);
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let mut last = None;
        for host in &self.hosts {
            match self.get(host, &format!("blobs/{digest}"), headers.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| PullError::NotFound(digest.to_owned())))
    }

    /// One GET, with the way in found out when the registry asks.
    async fn get(&self, host: &RegistryHost, what: &str, headers: HeaderMap) -> Result<Response<Incoming>, PullError> {
        let known = host.authorization.lock().clone();
        let response = self.send(host, what, headers.clone(), known).await?;
        let response = if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = auth::challenge(response.headers());
            let body = text(response, MANIFEST_LIMIT).await.unwrap_or_default();
            let denied = |why: String| self.denied(host, &why);
            let challenge = challenge.ok_or_else(|| denied(format!("401 Unauthorized{}", said(&body))))?;
            let path = &host.endpoint.path;
            let answered = auth::answer(self.clients, &challenge, host.credential.as_ref(), path, &host.tls).await;
            let value = answered.map_err(|refusal| match refusal {
                Refusal::Denied(why) => denied(why),
                Refusal::Failed(why) => PullError::Transport(why),
            })?;
            *host.authorization.lock() = Some(value.clone());
            self.send(host, what, headers, Some(value)).await?
        } else {
            response
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = text(response, MANIFEST_LIMIT).await.unwrap_or_default();
        Err(match status {
            StatusCode::NOT_FOUND => PullError::NotFound(format!("{}: not found{}", self.reference, said(&body))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(host, &format!("{status}{}", said(&body))),
            status => {
                let message = format!(
                    "{}/{what}: unexpected status: {status}{}",
                    host.endpoint.base,
                    said(&body)
                );
                PullError::Registry {
                    retry: status.is_server_error() || status.as_u16() == 429,
                    message,
                }
            }
        })
    }

    async fn send(
        &self,
        host: &RegistryHost,
        what: &str,
        mut headers: HeaderMap,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, PullError> {
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("mk8s/", env!("CARGO_PKG_VERSION"))),
        );
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let Endpoint {
            base, path, mirror_of, ..
        } = &host.endpoint;
        // A mirror of several registries has to know which one is meant.
        let ns = mirror_of
            .as_ref()
            .map_or_else(String::new, |host| format!("?ns={}", auth::escape(host)));
        let uri = format!("{base}/{path}/{what}{ns}");
        let ask = Ask {
            method: Method::GET,
            uri,
            headers,
            body: Bytes::new(),
            tls: &host.tls,
        };
        Ok(self.clients.send(ask).await?)
    }

    fn denied(&self, host: &RegistryHost, why: &str) -> PullError {
        let name = &host.endpoint.host;
        PullError::Denied(format!(
            "pull access denied, repository does not exist or may require authorization: {name}: {why}"
        ))
    }
}

/// Some registries answer text/plain; then what is in it decides.
fn sniffed(media_type: String, body: &[u8]) -> String {
    if ACCEPTED.contains(&media_type.as_str()) {
        return media_type;
    }
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("mediaType").and_then(|kind| kind.as_str()) {
        Some(kind) => kind.to_owned(),
        None if value.get("manifests").is_some() => ACCEPTED[3].to_owned(),
        None => ACCEPTED[2].to_owned(),
    }
}
