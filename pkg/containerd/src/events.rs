//! containerd's events as a stream that never ends: it connects again by itself and says so.
//!
//! containerd replays nothing, so after [`Event::Connected`] the reader compares with `tasks()`; whatever happened in
//! between is in there.

use std::time::{Duration, SystemTime};

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1 as api;
use containerd_client::types::Envelope;
use mk8s_supervisor::job;
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{Containerd, call};
use crate::error::{Error, Result};
use crate::task::system_time;

const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The subscription stands (first time or again): events before it are lost, list the tasks now.
    Connected,
    /// The subscription is over: containerd went, or can't be reached.
    Lost,
    /// A process ended. `exec_id` is empty for the container's own first process.
    Exit {
        id: String,
        exec_id: String,
        pid: u32,
        status: u32,
        at: SystemTime,
    },
    /// The kernel killed something in the container for want of memory.
    Oom { id: String },
    /// An image record appeared, changed or went, by whosoever's hand.
    ImageChanged { name: String },
}

impl Containerd {
    /// Subscribes. Dropping the receiver or cancelling the token ends the task behind it.
    pub fn events(&self, token: CancellationToken) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(1024);
        let client = self.clone();
        drop(job::spawn("containerd-events", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = sender.closed() => {}
                () = client.follow(&sender) => {}
            }
        }));
        receiver
    }

    async fn follow(&self, sender: &mpsc::Sender<Event>) {
        loop {
            let mut stood = false;
            if let Err(error) = self.subscribe_once(sender, &mut stood).await {
                tracing::debug!(%error, "containerd's event stream ended, connecting again");
            }
            if stood && sender.send(Event::Lost).await.is_err() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One subscription, to its end. The server holds its headers back until the first event, and neither they nor any
    /// length of time say when it began to listen. So mk8s publishes events of its own until one comes back: what happens
    /// from then on is heard, what happened before is to be listed.
    async fn subscribe_once(&self, sender: &mpsc::Sender<Event>, stood: &mut bool) -> Result<()> {
        let barrier = Barrier::fresh(&self.shared.options.namespace);
        let mut client = self.events_api();
        let subscribing = client.subscribe(api::SubscribeRequest {
            filters: barrier.filters(),
        });
        let announcing = barrier.announce(self);
        tokio::pin!(subscribing, announcing);
        let what = "subscribe to events";
        let response = tokio::select! {
            response = &mut subscribing => response.map_err(|e| Error::rpc(what, e))?,
            failed = &mut announcing => return Err(failed),
        };
        let mut stream = response.into_inner();
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(|e| Error::rpc(what, e))?,
                failed = &mut announcing, if !*stood => return Err(failed),
            };
            let Some(envelope) = message else { return Ok(()) };
            let event = match barrier.is(&envelope) {
                true if *stood => None,
                true => {
                    *stood = true;
                    // A containerd that was started again may have other runtimes.
                    self.shared.runtimes.lock().take();
                    Some(Event::Connected)
                }
                false => decode(&envelope),
            };
            if let Some(event) = event
                && sender.send(event).await.is_err()
            {
                return Ok(());
            }
        }
    }
}

/// An event that only its publisher knows.
struct Barrier {
    namespace: String,
    topic: String,
}

/// How often it is said until it is heard: the subscription stands after a few milliseconds.
const BARRIER_EVERY: Duration = Duration::from_millis(20);

impl Barrier {
    fn fresh(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            topic: format!("/mk8s/subscribed/{}", crate::exec::exec_id()),
        }
    }

    fn filters(&self) -> Vec<String> {
        let topics = [
            "/tasks/exit",
            "/tasks/oom",
            "/images/create",
            "/images/update",
            "/images/delete",
            &self.topic,
        ];
        topics
            .map(|topic| format!("namespace=={},topic=={topic:?}", self.namespace))
            .to_vec()
    }

    /// Publishes it again and again; ends only with a failure.
    async fn announce(&self, client: &Containerd) -> Error {
        loop {
            let request = api::PublishRequest {
                topic: self.topic.clone(),
                event: Some(prost_types::Any {
                    type_url: "google.protobuf.Empty".to_owned(),
                    value: Vec::new(),
                }),
            };
            if let Err(failed) = call("publish an event", client.events_api().publish(request)).await {
                return failed;
            }
            tokio::time::sleep(BARRIER_EVERY).await;
        }
    }

    fn is(&self, envelope: &Envelope) -> bool {
        envelope.topic == self.topic
    }
}

/// The image events' three messages all have the name first.
#[derive(Clone, PartialEq, Message)]
struct ImageName {
    #[prost(string, tag = "1")]
    name: String,
}

fn decode(envelope: &Envelope) -> Option<Event> {
    let body = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(body).ok()?;
            let exec_id = if exit.id == exit.container_id {
                String::new()
            } else {
                exit.id
            };
            Some(Event::Exit {
                id: exit.container_id,
                exec_id,
                pid: exit.pid,
                status: exit.exit_status,
                at: exit.exited_at.map_or_else(SystemTime::now, system_time),
            })
        }
        "/tasks/oom" => Some(Event::Oom {
            id: TaskOom::decode(body).ok()?.container_id,
        }),
        topic if topic.starts_with("/images/") => Some(Event::ImageChanged {
            name: ImageName::decode(body).ok()?.name,
        }),
        _ => None,
    }
}
