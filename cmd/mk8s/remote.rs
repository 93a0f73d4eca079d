//! A worker's way to its master: certificates by the CSR API, and the client that shows them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{Api, ObjectMeta, PostParams, WatchEvent, WatchParams};
use mk8s_client::{Informers, Remote};
use mk8s_pki::issue;
use mk8s_pki::rotation::{self, Holder};
use mk8s_supervisor::{OnExit, Supervisor, until};
use rustls::sign::CertifiedKey;

use crate::failure::{Failure, Result};
use crate::node::Identity;
use crate::settings::Settings;

pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// How long a signature may take while somebody waits for the join: approval and signing are controllers of the master.
const PATIENCE: Duration = Duration::from_secs(60);
/// A request that the master leaves to a person is waited for as long as upstream's kubelet does: each new one stays in the
/// cluster for a day.
const PERSONS_PATIENCE: Duration = Duration::from_secs(15 * 60);

pub fn ca_file(settings: &Settings) -> PathBuf {
    settings.pki_dir().join("ca.crt")
}

/// Writes the CA that the node trusts, in a directory that is root's alone.
pub fn write_ca(settings: &Settings, ca_pem: &str) -> Result<()> {
    mk8s_pki::files::private_directory(&settings.pki_dir())?;
    Ok(mk8s_pki::files::write(&ca_file(settings), ca_pem.as_bytes(), 0o644)?)
}

/// The CA that join verified, as PEM.
fn own_ca(settings: &Settings) -> Result<String> {
    let (path, pem) = (ca_file(settings), read(&ca_file(settings))?);
    issue::certificates(&pem).map_err(|cause| damaged(&path, cause))?;
    Ok(pem)
}

/// Of a file that only a join can make anew.
fn damaged(path: &Path, cause: mk8s_pki::PkiError) -> Failure {
    Failure::new(format!(
        "{} is damaged ({cause}): bring it back from a backup, or `mk8s reset` and join again",
        path.display()
    ))
}

/// Whether the node has its certificate, and knows whom to show it to.
pub fn has_identity(settings: &Settings) -> bool {
    own_ca(settings).is_ok() && load(settings, CLIENT).is_ok()
}

/// A client that acts as the node.
pub fn node_client(settings: &Settings) -> Result<kube::Client> {
    let holder = Holder::new(load(settings, CLIENT)?);
    client(settings, &own_ca(settings)?, Some(holder))
}

/// What the node is to its master, read from disk; certificates are renewed in the running process.
pub async fn identity(settings: &Settings, supervisor: &Supervisor) -> Result<Identity> {
    let ca_pem = own_ca(settings)?;
    let own = Holder::new(load(settings, CLIENT)?);
    let client = client(settings, &ca_pem, Some(own.clone()))?;
    // Its request is approved only for a node that exists, and the node is made by the agent: until then the server
    // shows the client certificate, which nobody takes for a server's.
    let serving = stored_serving_certificate(settings);
    let missing = serving.is_none();
    let serving = serving.unwrap_or_else(|| own.get());

    let (request, settings_copy) = (client.clone(), settings.clone());
    let holder = own.clone();
    supervisor.spawn("renew-node-client-certificate", OnExit::Restart, move |token| {
        let (client, settings) = (request.clone(), settings_copy.clone());
        let renew = move || {
            let (client, settings) = (client.clone(), settings.clone());
            async move { new_client_certificate(&settings, &client).await }
        };
        until(token, rotation::keep_fresh("node client", holder.clone(), renew))
    });
    let holder = Holder::new(serving);
    let (request, settings_copy, renewed) = (client.clone(), settings.clone(), holder.clone());
    supervisor.spawn("renew-node-serving-certificate", OnExit::Restart, move |token| {
        let (client, settings) = (request.clone(), settings_copy.clone());
        let renew = move || {
            let (client, settings) = (client.clone(), settings.clone());
            async move { new_serving_certificate(&settings, &client).await }
        };
        let (holder, settings, client) = (renewed.clone(), settings_copy.clone(), request.clone());
        until(token, async move {
            if missing {
                first_serving_certificate(&settings, &client, &holder).await;
            }
            rotation::keep_fresh("node serving", holder, renew).await;
        })
    });
    Ok(Identity {
        informers: Informers::new(client.clone(), supervisor),
        client,
        server_certificate: Arc::new(holder),
        ca_pem,
    })
}

/// A client of the settings' server that trusts `ca_pem` alone.
pub fn client(settings: &Settings, ca_pem: &str, certificate: Option<Holder>) -> Result<kube::Client> {
    let ca = issue::certificates(ca_pem)?;
    // Who has a node's certificate writes as its node agent.
    let program = if certificate.is_some() { "kubelet" } else { "mk8s" };
    let remote = Remote {
        servers: settings.endpoints.clone(),
        ca,
        certificate: certificate.map(|holder| Arc::new(holder) as Arc<dyn rustls::client::ResolvesClientCert>),
        token: None,
        user_agent: format!("{program}/{}", mk8s_apiserver::config::VERSION),
    };
    Ok(mk8s_client::remote(remote)?)
}

/// The stored serving certificate while it is good.
fn stored_serving_certificate(settings: &Settings) -> Option<Arc<CertifiedKey>> {
    let stored = load(settings, SERVING).ok()?;
    let leaf = stored.cert.first()?;
    let young = rotation::renew_at(leaf).is_ok_and(|due| mk8s_pki::unix_now() < due);
    let fits = issue::names(leaf).is_ok_and(|names| names.contains(&settings.node_ip.to_string()));
    (young && fits).then_some(stored)
}

/// The first serving certificate, asked for until the master signs one.
async fn first_serving_certificate(settings: &Settings, client: &kube::Client, holder: &Holder) {
    let mut backoff = mk8s_supervisor::backoff::Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        match new_serving_certificate(settings, client).await {
            Ok(certificate) => return holder.set(certificate),
            Err(failure) => {
                tracing::warn!(%failure, "no serving certificate yet");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn new_serving_certificate(settings: &Settings, client: &kube::Client) -> Result<Arc<CertifiedKey>> {
    let names = [settings.node_name.clone(), settings.node_ip.to_string()];
    let usages = ["digital signature", "server auth"];
    let (certificate, key) = sign(settings, client, SERVING_SIGNER, &names, &usages, PERSONS_PATIENCE).await?;
    store(settings, SERVING, &certificate, &key)
}

/// The node's own client certificate, also what a join gets first.
pub async fn new_client_certificate(settings: &Settings, client: &kube::Client) -> Result<Arc<CertifiedKey>> {
    let usages = ["digital signature", "client auth"];
    let (certificate, key) = sign(settings, client, CLIENT_SIGNER, &[], &usages, PATIENCE).await?;
    store(settings, CLIENT, &certificate, &key)
}

/// Asks the cluster to sign a fresh key for this node: (certificate, key), PEM.
async fn sign(
    settings: &Settings,
    client: &kube::Client,
    signer: &str,
    names: &[String],
    usages: &[&str],
    patience: Duration,
) -> Result<(String, String)> {
    let user = format!("system:node:{}", settings.node_name);
    let (key, request) = issue::request(&user, Some("system:nodes"), names)?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let what = format!("have a certificate signed by {signer}");
    let created = api
        .create(&PostParams::default(), &signing_request(request, signer, usages))
        .await;
    let created = created.map_err(|error| Failure::of(&what, error))?;
    let name = created.metadata.name.clone().unwrap_or_default();
    let signed = tokio::time::timeout(patience, signed(&api, created, &what)).await;
    let certificate = signed.map_err(|_| {
        Failure::of(
            &what,
            format!("no answer to request {name} within {} s", patience.as_secs()),
        )
    })??;
    Ok((certificate, key))
}

fn signing_request(request: String, signer: &str, usages: &[&str]) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some("csr-".into()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: signer.into(),
            usages: Some(usages.iter().map(|usage| usage.to_string()).collect()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// Waits for the certificate that a request gets, or for its refusal. A watch that ends is no answer: it is opened again.
async fn signed(
    api: &Api<CertificateSigningRequest>,
    mut request: CertificateSigningRequest,
    what: &str,
) -> Result<String> {
    let failed = |error: kube::Error| Failure::of(what, error);
    let name = request.metadata.name.clone().unwrap_or_default();
    let watch = WatchParams::default().fields(&format!("metadata.name={name}"));
    loop {
        if let Some(certificate) = answer(&request, what)? {
            return Ok(certificate);
        }
        let version = request.metadata.resource_version.as_deref().unwrap_or_default();
        let mut events = api.watch(&watch, version).await.map_err(failed)?.boxed();
        while let Some(event) = events.next().await {
            match event.map_err(failed)? {
                WatchEvent::Added(request) | WatchEvent::Modified(request) => {
                    if let Some(certificate) = answer(&request, what)? {
                        return Ok(certificate);
                    }
                }
                WatchEvent::Deleted(_) => return Err(Failure::of(what, format!("request {name} was deleted"))),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => break,
            }
        }
        // A server that closes every watch at once is not asked in a circle.
        tokio::time::sleep(Duration::from_secs(1)).await;
        request = api.get(&name).await.map_err(failed)?;
    }
}

/// The certificate, where there is one by now; an error where there will be none.
fn answer(request: &CertificateSigningRequest, what: &str) -> Result<Option<String>> {
    let Some(status) = &request.status else { return Ok(None) };
    if let Some(certificate) = &status.certificate {
        let pem = String::from_utf8(certificate.0.clone());
        return pem.map(Some).map_err(|error| Failure::of(what, error));
    }
    let refusal = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ != "Approved");
    match refusal {
        Some(refusal) => {
            let message = refusal.message.as_deref().unwrap_or_default();
            Err(Failure::of(what, format!("{}: {message}", refusal.type_)))
        }
        None => Ok(None),
    }
}

/// The node's two pairs: the names of their files in the pki directory.
const CLIENT: &str = "kubelet-client";
const SERVING: &str = "kubelet-serving";

/// Writes a pair as one file, certificate first, as the kubelet has it: no crash can leave one without the other.
fn store(settings: &Settings, name: &str, certificate: &str, key: &str) -> Result<Arc<CertifiedKey>> {
    let directory = settings.pki_dir();
    mk8s_pki::files::private_directory(&directory)?;
    let pair = format!("{}\n{key}", certificate.trim_end());
    mk8s_pki::files::write(&directory.join(format!("{name}.pem")), pair.as_bytes(), 0o600)?;
    for outdated in ["crt", "key"] {
        let _ = std::fs::remove_file(directory.join(format!("{name}.{outdated}")));
    }
    Ok(issue::certified_key(&pair, &pair)?)
}

/// Reads a pair; from two files where an earlier version wrote it.
fn load(settings: &Settings, name: &str) -> Result<Arc<CertifiedKey>> {
    let file = |extension: &str| settings.pki_dir().join(format!("{name}.{extension}"));
    if let (false, Ok(certificate), Ok(key)) = (file("pem").exists(), read(&file("crt")), read(&file("key"))) {
        return Ok(issue::certified_key(&certificate, &key)?);
    }
    let pair = read(&file("pem"))?;
    issue::certified_key(&pair, &pair).map_err(|cause| damaged(&file("pem"), cause))
}

pub fn read(path: &Path) -> Result<String> {
    Ok(mk8s_pki::files::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(data_dir: &Path) -> Settings {
        let text = r#"{"role": "worker", "nodeName": "two", "nodeIp": "10.9.0.2", "endpoints": ["https://10.9.0.1:6443"],
            "criSocket": "/run/containerd/containerd.sock"}"#;
        std::fs::write(data_dir.join(crate::footprint::SETTINGS), text).unwrap();
        Settings::require(Some(data_dir)).unwrap()
    }

    /// A watch that the server ends, with nothing said, is opened again, and no second request is made.
    #[tokio::test]
    async fn a_request_is_waited_for_over_the_ends_of_watches() {
        use http::{Request, Response};
        let request = |status: serde_json::Value| {
            serde_json::json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
                "metadata": {"name": "csr-1", "resourceVersion": "1"},
                "spec": {"request": "", "signerName": SERVING_SIGNER}, "status": status})
        };
        let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let log = asked.clone();
        let service = tower::service_fn(move |call: Request<kube::client::Body>| {
            let watch = call.uri().query().is_some_and(|query| query.contains("watch=true"));
            log.lock()
                .push(format!("{} {}", call.method(), if watch { "watch" } else { "one" }));
            let body = match log.lock().len() {
                1 | 3 => String::new(),
                2 => request(serde_json::json!({})).to_string(),
                _ => request(serde_json::json!({"certificate": "UEVN"})).to_string(),
            };
            async move { Ok::<_, std::convert::Infallible>(Response::new(kube::client::Body::from(body.into_bytes()))) }
        });
        let api: Api<CertificateSigningRequest> = Api::all(kube::Client::new(service, "default"));
        let created = serde_json::from_value(request(serde_json::json!({}))).unwrap();
        assert_eq!(signed(&api, created, "x").await.unwrap(), "PEM");
        assert_eq!(*asked.lock(), ["GET watch", "GET one", "GET watch", "GET one"]);
    }

    fn pair() -> (String, String) {
        let ca = mk8s_pki::ca::create("kubernetes").unwrap();
        let issued = issue::client(&ca, "system:node:two", Some("system:nodes"), 3600).unwrap();
        (issued.certificate_pem.clone(), issued.key_pem.clone())
    }

    /// A renewal writes the pair at once: there is no moment at which a start finds a key and another key's certificate.
    #[test]
    fn a_pair_is_one_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let (old, new) = (pair(), pair());
        // As an earlier version left it.
        std::fs::create_dir(settings.pki_dir()).unwrap();
        std::fs::write(settings.pki_dir().join("kubelet-client.crt"), &old.0).unwrap();
        std::fs::write(settings.pki_dir().join("kubelet-client.key"), &old.1).unwrap();
        let loaded = load(&settings, CLIENT).unwrap();
        assert_eq!(loaded.cert, issue::certificates(&old.0).unwrap());
        // Renewed.
        store(&settings, CLIENT, &new.0, &new.1).unwrap();
        let loaded = load(&settings, CLIENT).unwrap();
        assert_eq!(loaded.cert, issue::certificates(&new.0).unwrap());
        let names: Vec<_> = std::fs::read_dir(settings.pki_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["kubelet-client.pem"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&settings.pki_dir()), 0o700);
        assert_eq!(mode(&settings.pki_dir().join("kubelet-client.pem")), 0o600);
    }
}
