//! The pull itself: manifest, config and layers into the content store, each layer unpacked as soon as its turn comes,
//! then the names. Everything happens under a lease, so that nothing half-done is collected, or stays.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{StreamExt, TryStreamExt};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mk8s_supervisor::job::{self, JobError};

use super::http::{NoAnswer, STALL_TIMEOUT};
use super::keychain::{Credential, Keychain};
use super::session::{Fetched, Session};
use super::{Flight, PullError};
use crate::client::Containerd;
use crate::content::{Ingest, Labels, TEXT_LIMIT};
use crate::image::manifest::{self, Descriptor, Document};
use crate::image::reference::Reference;
use crate::image::{Image, record_labels, sha256};

/// Layers under way at once, as upstream's CRI plugin has it.
const PARALLEL_LAYERS: usize = 3;
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Bytes are gathered to messages of this size for containerd.
const CHUNK: usize = 256 << 10;

impl Containerd {
    /// Pulls an image from its registry, whatever is there already of it not again. Each fitting credential is tried,
    /// none means anonymously. Callers that ask for the same image at the same time share one pull, which also goes on
    /// when they stop waiting.
    pub async fn pull(&self, image: &str, keychain: &Keychain) -> Result<Image, PullError> {
        let reference = Reference::parse(image)?;
        let name = reference.canonical();
        let credentials = keychain.lookup(&reference.repository());
        let key = format!("{reference} {}", fingerprint(&credentials));
        let flight = self.flight(key, reference, credentials);
        flight.await.map_err(|cause| PullError::Image {
            image: name,
            cause: Box::new(cause),
        })
    }

    fn flight(&self, key: String, reference: Reference, credentials: Vec<Credential>) -> Flight {
        let flights = &self.shared.puller.flights;
        let mut flights = flights.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (client, landed) = (self.clone(), key.clone());
        let task = job::spawn("image-pull", async move {
            let result = client.pull_with_any(&reference, &credentials).await;
            let flights = &client.shared.puller.flights;
            flights.lock().remove(&landed);
            result
        });
        let key_of_panic = (self.clone(), key.clone());
        let ended = move |joined: Result<_, JobError>| {
            joined.unwrap_or_else(|error| {
                // It could not take itself off the list.
                let (client, key) = &key_of_panic;
                client.shared.puller.flights.lock().remove(key);
                Err(PullError::Ended(error))
            })
        };
        let flight = task.map(ended).boxed().shared();
        flights.insert(key, flight.clone());
        flight
    }

    async fn pull_with_any(&self, reference: &Reference, credentials: &[Credential]) -> Result<Image, PullError> {
        let mut denied = None;
        for credential in credentials {
            match self.pull_with(reference, Some(credential)).await {
                Err(error) if matches!(error.cause(), PullError::Denied(_)) => denied = Some(error),
                other => return other,
            }
        }
        match denied {
            Some(error) => Err(error),
            None => self.pull_with(reference, None).await,
        }
    }

    async fn pull_with(&self, reference: &Reference, credential: Option<&Credential>) -> Result<Image, PullError> {
        let puller = &self.shared.puller;
        let registries = puller.registries.current();
        let session = Session::new(&puller.clients, &registries, reference, credential);
        let unresolved = |cause| PullError::Resolve {
            reference: reference.canonical(),
            cause: Box::new(cause),
        };
        let top = retried(|| session.manifest(reference.object()))
            .await
            .map_err(unresolved)?;
        let lease = self.lease().await?;
        let pulled = Pull {
            client: &lease.client,
            session: &session,
            reference,
        }
        .run(top)
        .await;
        lease.end().await;
        // Read now, not when the first container waits for it.
        if let Ok(image) = &pulled
            && let Err(error) = self.accounts(image).await
        {
            tracing::debug!(image = image.name, %error, "users and groups of an image can't be read yet");
        }
        pulled
    }
}

struct Pull<'a> {
    /// Under the lease.
    client: &'a Containerd,
    session: &'a Session<'a>,
    reference: &'a Reference,
}

impl Pull<'_> {
    async fn run(&self, top: Fetched) -> Result<Image, PullError> {
        let document = manifest::parse(&top.body).map_err(PullError::Malformed)?;
        let (target, manifest) = match document {
            Document::Manifest(manifest) => {
                let descriptor = top.descriptor.clone();
                self.store(&top, &Document::Manifest(manifest.clone())).await?;
                (descriptor, manifest)
            }
            Document::Index(index) => {
                let no_match = || PullError::Malformed(manifest::no_match(&index));
                let chosen = manifest::choose(&index).ok_or_else(no_match)?;
                let inner = retried(|| self.session.manifest(&chosen.digest)).await?;
                let Document::Manifest(manifest) = manifest::parse(&inner.body).map_err(PullError::Malformed)? else {
                    return Err(PullError::Malformed("an index in an index".to_owned()));
                };
                self.store(&inner, &Document::Manifest(manifest.clone())).await?;
                self.store(&top, &Document::Index(index)).await?;
                (top.descriptor.clone(), manifest)
            }
        };
        if manifest.config.size > TEXT_LIMIT {
            let size = manifest.config.size;
            let message = format!("its config has {size} bytes: more than {TEXT_LIMIT} are not read");
            return Err(PullError::Malformed(message));
        }
        self.fetch(&manifest.config).await?;
        let config = self.client.read_blob(&manifest.config.digest).await?;
        let resolved = manifest::resolved(&manifest, &config).map_err(PullError::Malformed)?;
        let image = Image::new(&self.reference.canonical(), &target.digest, &resolved);
        self.layers(&image).await?;
        self.name(image, &target).await
    }

    async fn store(&self, fetched: &Fetched, document: &Document) -> Result<(), PullError> {
        let labels = manifest::child_labels(document);
        Ok(self
            .client
            .write_blob(&fetched.descriptor, fetched.body.clone(), labels)
            .await?)
    }

    /// Fetches a few layers at a time, in order; each is unpacked as soon as those below it are, while the next come.
    async fn layers(&self, image: &Image) -> Result<(), PullError> {
        let fetches: Vec<BoxFuture<'_, _>> = image.layers.iter().map(|layer| self.fetch(layer).boxed()).collect();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let fetching = async {
            let mut fetched = futures::stream::iter(fetches).buffered(PARALLEL_LAYERS);
            while let Some(()) = fetched.try_next().await? {
                let _ = sender.send(());
            }
            Ok::<(), PullError>(())
        };
        let unpacking = async {
            let mut parent = String::new();
            for (index, chain_id) in image.chain_ids().into_iter().enumerate() {
                // Never closed before all are fetched: an error ends the other half first.
                let _ = receiver.recv().await;
                self.client.unpack_layer(image, index, &parent, &chain_id).await?;
                parent = chain_id;
            }
            Ok(self.client.finish_unpacking(image).await?)
        };
        futures::future::try_join(fetching, unpacking).await.map(|_| ())
    }

    /// A blob, unless it is there, with as many attempts as it deserves; each goes on where the last one stopped.
    async fn fetch(&self, blob: &Descriptor) -> Result<(), PullError> {
        retried(|| self.fetch_once(blob)).await
    }

    async fn fetch_once(&self, blob: &Descriptor) -> Result<(), PullError> {
        let Some(mut ingest) = self.client.ingest(blob).await? else {
            return Ok(());
        };
        let offset = u64::try_from(ingest.offset).unwrap_or_default();
        if blob.size > 0 && ingest.offset < blob.size || blob.size == 0 {
            let response = self.session.blob(&blob.digest, offset).await?;
            if offset > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                match ingest.restart(self.client, blob).await? {
                    Some(fresh) => ingest = fresh,
                    None => return Ok(()),
                }
            }
            receive(&mut ingest, response.into_body(), blob.size).await?;
        }
        let source = format!("containerd.io/distribution.source.{}", self.reference.host);
        let labels = Labels::from([(source, self.reference.path.clone())]);
        Ok(ingest.commit(labels).await?)
    }

    /// The names as the CRI plugin would give them: what was asked for, the digest, the id.
    async fn name(&self, mut image: Image, target: &Descriptor) -> Result<Image, PullError> {
        let by_digest = format!("{}@{}", self.reference.repository(), target.digest);
        let mut names = vec![image.name.clone(), by_digest.clone(), image.id.clone()];
        names.dedup();
        for name in names {
            self.client
                .put_image_record(&name, target, record_labels(true, false))
                .await?;
        }
        if self.reference.digest.is_none() {
            image.repo_tags.push(image.name.clone());
        }
        image.repo_digests.push(by_digest);
        Ok(image)
    }
}

/// Copies a body into the ingest in containerd-sized pieces; not more of it than the blob is said to have.
async fn receive(ingest: &mut Ingest, mut body: Incoming, size: i64) -> Result<(), PullError> {
    let mut left = usize::try_from(size - ingest.offset).unwrap_or_default();
    let mut gathered: Vec<u8> = Vec::with_capacity(CHUNK);
    loop {
        let frame = match tokio::time::timeout(STALL_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(NoAnswer::broken(format!("the stream broke: {error}")).into()),
            Ok(None) => break,
            Err(_) => {
                let seconds = STALL_TIMEOUT.as_secs();
                return Err(NoAnswer::broken(format!("no more bytes for {seconds} s")).into());
            }
        };
        if let Some(data) = frame.data_ref() {
            left = left.checked_sub(data.len()).ok_or_else(|| {
                PullError::Malformed(format!("a blob is larger than the {size} bytes that its manifest says"))
            })?;
            gathered.extend_from_slice(data);
        }
        if gathered.len() >= CHUNK {
            let full = std::mem::replace(&mut gathered, Vec::with_capacity(CHUNK));
            ingest.write(Bytes::from(full)).await?;
        }
    }
    Ok(ingest.write(Bytes::from(gathered)).await?)
}

/// Tries again after what may pass: broken connections, 5xx, 429.
async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, PullError>
where
    F: Future<Output = Result<T, PullError>>,
{
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, ?wait, "trying the registry again");
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            other => return other,
        }
    }
    attempt().await
}

/// Distinguishes pulls with different secrets without keeping them in the map's keys.
fn fingerprint(credentials: &[Credential]) -> String {
    let texts = credentials.iter().map(|c| {
        format!(
            "{}\0{}\0{}\0{}",
            c.username, c.password, c.identity_token, c.registry_token
        )
    });
    sha256(texts.collect::<Vec<_>>().join("\0").as_bytes())
}
