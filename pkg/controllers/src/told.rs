//! Informers that hear what a test says.

use std::sync::Arc;

use mk8s_api::stored::Stored;
use mk8s_client::{Change, Feed, Informers, Selection};
use mk8s_supervisor::Supervisor;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

struct Text {
    name: String,
    revision: u64,
    json: String,
}

impl Stored for Text {
    fn namespace(&self) -> &str {
        ""
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn json(&self) -> &[u8] {
        self.json.as_bytes()
    }
}

struct Told(Mutex<Option<mpsc::UnboundedReceiver<Change>>>);

impl Feed for Told {
    fn open(&self, _: &Selection, _: Option<u64>) -> mk8s_client::feed::Changes {
        let told = self.0.lock().take().expect("a test tells of one kind");
        let told = futures::stream::unfold(told, |mut told| async { Some((told.recv().await?, told)) });
        Box::pin(futures::StreamExt::map(told, Ok))
    }
}

/// Says what there is of one kind.
pub struct Tell {
    to: mpsc::UnboundedSender<Change>,
    revision: u64,
}

impl Tell {
    /// With the informers that hear it.
    pub fn new(scope: &Supervisor) -> (Self, Informers) {
        let (to, told) = mpsc::unbounded_channel();
        let informers = Informers::fed(Arc::new(Told(Mutex::new(Some(told)))), scope);
        (Tell { to, revision: 0 }, informers)
    }

    /// An object is there, as it is now.
    pub fn set(&mut self, object: &Value) {
        self.revision += 1;
        let text = Text {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            revision: self.revision,
            json: object.to_string(),
        };
        let _ = self.to.send(Change::Applied(Arc::new(text)));
    }

    /// That was all that was there at the start.
    pub fn all_told(&self) {
        let _ = self.to.send(Change::UpTo(self.revision));
    }
}
