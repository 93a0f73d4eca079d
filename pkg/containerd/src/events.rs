//! containerd's events as a stream that never ends: it connects again by itself and says so.
//!
//! containerd replays nothing, so after [`Event::Connected`] the reader compares with `tasks()`; whatever happened in
//! between is in there.

use std::time::{Duration, SystemTime};

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1 as api;
use containerd_client::types::Envelope;
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::Containerd;
use crate::task::system_time;

const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The subscription stands (first time or again): events before it are lost, list the tasks now.
    Connected,
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
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = sender.closed() => {}
                () = client.follow(&sender) => {}
            }
        });
        receiver
    }

    async fn follow(&self, sender: &mpsc::Sender<Event>) {
        loop {
            if let Err(status) = self.subscribe_once(sender).await {
                tracing::debug!(
                    error = status.message(),
                    "containerd's event stream ended, connecting again"
                );
            }
            if sender.is_closed() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn subscribe_once(&self, sender: &mpsc::Sender<Event>) -> Result<(), containerd_client::tonic::Status> {
        let namespace = &self.shared.options.namespace;
        let filters = [
            "/tasks/exit",
            "/tasks/oom",
            "/images/create",
            "/images/update",
            "/images/delete",
        ]
        .map(|topic| format!("namespace=={namespace},topic=={topic:?}"));
        let mut client = self.events_api();
        let subscribing = client.subscribe(api::SubscribeRequest {
            filters: filters.to_vec(),
        });
        tokio::pin!(subscribing);
        // The server holds its headers back until the first event, so the call returns only then. It has the request
        // long before, which is what "connected" has to mean: give it a moment, then tell.
        let early = tokio::time::timeout(Duration::from_millis(50), &mut subscribing).await;
        if let Ok(Err(status)) = early {
            return Err(status);
        }
        // A containerd that was started again may have other runtimes.
        self.shared.runtimes.lock().take();
        let _ = sender.send(Event::Connected).await;
        let response = match early {
            Ok(done) => done?,
            Err(_) => subscribing.await?,
        };
        let mut stream = response.into_inner();
        while let Some(envelope) = stream.message().await? {
            if let Some(event) = decode(&envelope)
                && sender.send(event).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
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
