//! Forgets UDP flows beside the work on the table: a look through the kernel's connection tracking takes long where there
//! are many flows, and a burst of changes is one look.

use std::collections::BTreeSet;
use std::time::Duration;

use mk8s_network::conntrack::{self, Truth, Udp};
use mk8s_supervisor::job::{self, AbortOnDrop};
use tokio::sync::{mpsc, oneshot};

const RETRY: Duration = Duration::from_secs(1);

/// What is to be forgotten, gathered.
#[derive(Default)]
struct Pending {
    gone: BTreeSet<Udp>,
    /// The newest holds all that the older ones said.
    truth: Option<Truth>,
    waiting: Vec<oneshot::Sender<()>>,
}

enum Message {
    Gone(BTreeSet<Udp>),
    Truth(Truth),
    Wait(oneshot::Sender<()>),
}

impl Pending {
    fn add(&mut self, message: Message) {
        match message {
            Message::Gone(gone) => self.gone.extend(gone),
            Message::Truth(truth) => self.truth = Some(truth),
            Message::Wait(waiting) => self.waiting.push(waiting),
        }
    }
}

pub struct Flows {
    sender: mpsc::UnboundedSender<Message>,
    _job: AbortOnDrop<()>,
}

impl Default for Flows {
    /// Within a tokio runtime.
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            _job: job::spawn("proxy-conntrack", run(receiver)).abort_on_drop(),
        }
    }
}

impl Flows {
    pub fn forget(&self, gone: BTreeSet<Udp>) {
        if !gone.is_empty() {
            self.send(Message::Gone(gone));
        }
    }

    /// After a start, or a change that failed half-way: whatever contradicts this is forgotten.
    pub fn compare(&self, truth: Truth) {
        self.send(Message::Truth(truth));
    }

    /// Waits until all that was said so far is done.
    pub async fn settled(&self) {
        let (sender, done) = oneshot::channel();
        self.send(Message::Wait(sender));
        let _ = done.await;
    }

    fn send(&self, message: Message) {
        // The job ends with this, or by a panic that is logged: then flows end when they are idle.
        let _ = self.sender.send(message);
    }
}

async fn run(mut receiver: mpsc::UnboundedReceiver<Message>) {
    let mut pending = Pending::default();
    while let Some(message) = receiver.recv().await {
        pending.add(message);
        loop {
            while let Ok(message) = receiver.try_recv() {
                pending.add(message);
            }
            match conntrack::forget(pending.gone.iter().copied().collect(), pending.truth.clone()).await {
                Ok(_) => break,
                Err(error) => tracing::warn!(%error, "stale UDP flows are not forgotten yet, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
        for waiting in std::mem::take(&mut pending).waiting {
            let _ = waiting.send(());
        }
    }
}
