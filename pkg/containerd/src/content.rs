//! The content store: blobs by digest. Reading, and writing in chunks with resumption.
//!
//! Labels on a blob are what keeps others alive: a manifest refers to its config and layers by
//! `containerd.io/gc.ref.content.*`, a config to its unpacked snapshot by `containerd.io/gc.ref.snapshot.*`.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use containerd_client::services::v1 as api;
use containerd_client::tonic::{Code, Status, Streaming};
use futures::SinkExt;
use futures::channel::mpsc as futures_mpsc;
use prost_types::FieldMask;
use tokio::sync::OwnedMutexGuard;

use crate::client::{Containerd, call, in_time, message};
use crate::error::{Error, Result};
use crate::image::Descriptor;

/// containerd accepts messages of some MiB; its own client sends no more than this at once.
const CHUNK: usize = 1 << 20;
/// Manifests and configs are read into memory: what is larger is none (registries draw the same line).
pub(crate) const TEXT_LIMIT: i64 = 8 << 20;
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Labels = HashMap<String, String>;

/// An open ingest. Dropping it leaves the bytes received so far for the next attempt under the same name.
pub(crate) struct Ingest {
    what: String,
    reference: String,
    digest: String,
    total: i64,
    pub(crate) offset: i64,
    requests: futures_mpsc::Sender<api::WriteContentRequest>,
    answers: Streaming<api::WriteContentResponse>,
    /// Nobody else here writes the same blob meanwhile.
    _turn: OwnedMutexGuard<()>,
}

impl Containerd {
    /// A whole blob in memory: manifests and configs, never layers. One beyond [`TEXT_LIMIT`] is an error.
    pub(crate) async fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let what = format!("read blob {digest}");
        let request = api::ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        };
        let mut stream = call(&what, self.content_api().read(request)).await?;
        let mut blob = Vec::new();
        while let Some(part) = message(&what, &mut stream).await? {
            blob.extend_from_slice(&part.data);
            if i64::try_from(blob.len()).unwrap_or(i64::MAX) > TEXT_LIMIT {
                return Err(Error::malformed(what, format!("more than {TEXT_LIMIT} bytes")));
            }
        }
        Ok(blob)
    }

    /// Writes a blob that is in memory; one that is there already gets the labels.
    pub(crate) async fn write_blob(&self, descriptor: &Descriptor, blob: Bytes, labels: Labels) -> Result<()> {
        match self.ingest(descriptor).await? {
            None => self.label_blob(&descriptor.digest, labels).await,
            Some(mut ingest) => {
                let start = usize::try_from(ingest.offset).unwrap_or_default().min(blob.len());
                ingest.write(blob.slice(start..)).await?;
                ingest.commit(labels).await
            }
        }
    }

    /// Adds labels to a blob.
    pub(crate) async fn label_blob(&self, digest: &str, labels: Labels) -> Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = api::Info {
            digest: digest.to_owned(),
            labels,
            ..Default::default()
        };
        let request = api::UpdateRequest {
            info: Some(info),
            update_mask: Some(FieldMask { paths }),
        };
        call(&format!("label blob {digest}"), self.content_api().update(request))
            .await
            .map(|_| ())
    }

    /// Opens (or takes up again) the ingest of a blob, when its turn comes. `None`: the store has it already.
    pub(crate) async fn ingest(&self, descriptor: &Descriptor) -> Result<Option<Ingest>> {
        let turn = self.shared.locks.lock(&descriptor.digest).await;
        self.ingest_in_turn(descriptor, turn).await
    }

    async fn ingest_in_turn(&self, descriptor: &Descriptor, turn: OwnedMutexGuard<()>) -> Result<Option<Ingest>> {
        let what = format!("write blob {}", descriptor.digest);
        let mut tries = 0;
        let (requests, answers, offset) = loop {
            match self.open_ingest(&what, descriptor).await {
                Ok(opened) => break opened,
                Err(error) if error.is_already_exists() => return Ok(None),
                // containerd has not noticed yet that the last attempt's stream is gone.
                Err(error) if is_locked(&error) && tries < LOCK_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        };
        Ok(Some(Ingest {
            what,
            reference: reference(descriptor),
            digest: descriptor.digest.clone(),
            total: descriptor.size,
            offset,
            requests,
            answers,
            _turn: turn,
        }))
    }

    async fn open_ingest(&self, what: &str, descriptor: &Descriptor) -> Result<Opened> {
        let (mut requests, receiver) = futures_mpsc::channel(4);
        let stat = api::WriteContentRequest {
            action: api::WriteAction::Stat.into(),
            r#ref: reference(descriptor),
            total: descriptor.size,
            expected: descriptor.digest.clone(),
            ..Default::default()
        };
        // There is room for it: nothing was sent yet.
        let _ = requests.try_send(stat);
        let mut answers = call(what, self.content_api().write(receiver)).await?;
        let first = message(what, &mut answers).await?;
        let first = first.ok_or_else(|| Error::rpc(what, Status::unavailable(STREAM_CLOSED)))?;
        Ok((requests, answers, first.offset))
    }
}

/// containerd's own answer to a reference that another stream holds. Where there is no containerd the code is the same,
/// but then the status has a cause on this side.
fn is_locked(error: &Error) -> bool {
    let Error::Rpc { status, .. } = error else { return false };
    status.code() == Code::Unavailable && std::error::Error::source(status.as_ref()).is_none()
}

const STREAM_CLOSED: &str = "containerd closed the stream";

type Opened = (
    futures_mpsc::Sender<api::WriteContentRequest>,
    Streaming<api::WriteContentResponse>,
    i64,
);

/// The name of a blob's ingest.
fn reference(descriptor: &Descriptor) -> String {
    format!("mk8s-{}", descriptor.digest)
}

impl Ingest {
    /// Appends bytes at the current offset.
    pub(crate) async fn write(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(CHUNK));
            let length = i64::try_from(part.len()).unwrap_or(i64::MAX);
            let request = api::WriteContentRequest {
                action: api::WriteAction::Write.into(),
                r#ref: self.reference.clone(),
                offset: self.offset,
                data: part.to_vec(),
                ..Default::default()
            };
            self.exchange(request).await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Starts over: for a server that can't continue where the last attempt stopped.
    pub(crate) async fn restart(mut self, client: &Containerd, descriptor: &Descriptor) -> Result<Option<Ingest>> {
        self.requests.close_channel();
        while let Ok(Some(_)) = message(&self.what, &mut self.answers).await {}
        let request = api::AbortRequest {
            r#ref: self.reference.clone(),
        };
        crate::error::gone_is_fine(call(&self.what, client.content_api().abort(request)).await)?;
        client.ingest_in_turn(descriptor, self._turn).await
    }

    /// Seals the blob; containerd verifies size and digest.
    pub(crate) async fn commit(mut self, labels: Labels) -> Result<()> {
        let request = api::WriteContentRequest {
            action: api::WriteAction::Commit.into(),
            r#ref: self.reference.clone(),
            total: self.total,
            expected: self.digest.clone(),
            offset: self.offset,
            labels,
            ..Default::default()
        };
        match self.exchange(request).await {
            // Somebody else was faster with the same bytes.
            Err(error) if error.is_already_exists() => Ok(()),
            other => other,
        }
    }

    async fn exchange(&mut self, request: api::WriteContentRequest) -> Result<()> {
        let (requests, answers) = (&mut self.requests, &mut self.answers);
        let exchanged = in_time(&self.what, async {
            // A failed send means that the stream ended: its status comes with the next answer.
            let _ = requests.send(request).await;
            answers.message().await
        });
        match exchanged.await? {
            Some(_) => Ok(()),
            None => Err(Error::malformed(&self.what, STREAM_CLOSED)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use containerd_client::tonic::transport::Endpoint;
    use futures::StreamExt as _;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message as _;

    use super::*;
    use crate::client::Options;

    /// A containerd that answers each stream once, and then stands still.
    fn stands_still(answers: BTreeMap<&'static str, Vec<u8>>) -> Containerd {
        let serve = move |request: http::Request<Incoming>| {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            let message = answers[method].clone();
            // Not compressed, then the length.
            let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
            let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(framed)))]);
            let body = StreamBody::new(first.chain(futures::stream::pending()));
            let answer = http::Response::builder()
                .header("content-type", "application/grpc")
                .body(BodyExt::boxed_unsync(body));
            async move { answer }
        };
        let connect = tower::service_fn(move |_| {
            let (near, far) = tokio::io::duplex(64 << 10);
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(far), hyper::service::service_fn(serve.clone()));
            drop(mk8s_supervisor::job::spawn("containerd", served));
            async move { Ok::<_, Infallible>(TokioIo::new(near)) }
        });
        let endpoint = Endpoint::try_from("http://containerd.invalid").unwrap();
        Containerd::over(endpoint.connect_with_connector_lazy(connect), Options::default()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stands_still_is_given_up() {
        let part = api::ReadContentResponse {
            offset: 0,
            data: b"the first of it".to_vec(),
        };
        let opened = api::WriteContentResponse::default();
        let listed = api::ListContainerMessage::default();
        let containerd = stands_still(BTreeMap::from([
            ("Read", part.encode_to_vec()),
            ("Write", opened.encode_to_vec()),
            ("ListStream", listed.encode_to_vec()),
        ]));
        let timed_out = |error: Error| assert!(error.is_timeout(), "{error}");
        timed_out(containerd.read_blob("sha256:0").await.unwrap_err());
        timed_out(containerd.containers(&[]).await.unwrap_err());
        let descriptor = Descriptor {
            digest: "sha256:0".into(),
            size: 4,
            ..Descriptor::default()
        };
        let mut ingest = containerd.ingest(&descriptor).await.unwrap().unwrap();
        timed_out(ingest.write(Bytes::from_static(b"blob")).await.unwrap_err());
    }
}
