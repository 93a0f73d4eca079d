//! The events of a watch, one JSON text each.

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::client::{Connection, JSON, Request};

pub struct Watch {
    connection: Connection,
    query: String,
    answer: http::Response<hyper::body::Incoming>,
    unread: Vec<u8>,
    /// Where the next text begins.
    at: usize,
    last: Vec<u8>,
}

impl Watch {
    /// `query` begins with the path and its `?`. First come the objects that there are.
    pub async fn open(connection: &mut Connection, query: &str) -> Self {
        Self {
            answer: answer(connection, query).await,
            connection: connection.clone(),
            query: query.to_owned(),
            unread: Vec::new(),
            at: 0,
            last: Vec::new(),
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
        let line = self.line().await;
        serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
    }

    /// The next event's text.
    pub async fn line(&mut self) -> &[u8] {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unread[self.at..]) {
                let line = &self.unread[self.at..self.at + end];
                self.at += end + 1;
                self.last.clear();
                if !line.starts_with(br#"{"type":"ERROR""#) {
                    self.last.extend_from_slice(line);
                    return &self.last;
                }
                // It knows no more what came after the last one: from the start.
                self.go_on().await;
                continue;
            }
            self.unread.drain(..self.at);
            self.at = 0;
            match self.answer.frame().await {
                Some(frame) => {
                    let frame = frame.unwrap();
                    self.unread.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
                None => self.go_on().await,
            }
        }
    }

    /// A server ends watches when it likes: upstream's those that a burst overtakes.
    async fn go_on(&mut self) {
        let last: Value = serde_json::from_slice(&self.last).unwrap_or_default();
        let (path, parameters) = self.query.split_once('?').unwrap();
        // Where it began is no place to go on from: it may be as old as what was told last.
        let others = parameters.split('&').filter(|one| !one.starts_with("resourceVersion="));
        let others: Vec<&str> = others.collect();
        let mut query = format!("{path}?{}", others.join("&"));
        if let Some(seen) = last["object"]["metadata"]["resourceVersion"].as_str() {
            query += &format!("&resourceVersion={seen}");
        }
        self.unread.clear();
        self.at = 0;
        self.answer = answer(&mut self.connection, &query).await;
    }

    /// Ends with the first event that is what is waited for.
    pub async fn until(&mut self, mut is: impl FnMut(&Value) -> bool) {
        while !is(&self.next().await) {}
    }
}

async fn answer(connection: &mut Connection, query: &str) -> http::Response<hyper::body::Incoming> {
    let request = Request::get(&format!("{query}&watch=1").as_str().into(), JSON);
    let answer = connection.open(&request).await.unwrap();
    assert!(answer.status().is_success(), "{query}: {}", answer.status());
    answer
}
