//! The events of a watch, one JSON text each.

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::client::{Connection, JSON, Request};

pub struct Watch {
    answer: http::Response<hyper::body::Incoming>,
    unread: Vec<u8>,
    /// Where the next text begins.
    at: usize,
}

impl Watch {
    /// `query` begins with the path and its `?`. First come the objects that there are.
    pub async fn open(connection: &mut Connection, query: &str) -> Self {
        let request = Request::get(&format!("{query}&watch=1").as_str().into(), JSON);
        let answer = connection.open(&request).await.unwrap();
        assert!(answer.status().is_success(), "{query}: {}", answer.status());
        Self {
            answer,
            unread: Vec::new(),
            at: 0,
        }
    }

    /// Of what happens from now on alone.
    pub async fn from_now(connection: &mut Connection, query: &str) -> Self {
        let list = connection.whole("GET", &format!("{query}&limit=1"), Bytes::new()).await;
        let list: Value = serde_json::from_slice(&list.unwrap().body).unwrap();
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        Self::open(connection, &format!("{query}&resourceVersion={from}")).await
    }

    /// The next event, as whatever reads it needs of it.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> T {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unread[self.at..]) {
                let line = &self.unread[self.at..self.at + end];
                let event = serde_json::from_slice(line)
                    .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
                self.at += end + 1;
                return event;
            }
            self.unread.drain(..self.at);
            self.at = 0;
            let frame = self.answer.frame().await.unwrap().unwrap();
            self.unread.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }

    /// Ends with the first event that is what is waited for.
    pub async fn until(&mut self, mut is: impl FnMut(&Value) -> bool) {
        while !is(&self.next().await) {}
    }
}
