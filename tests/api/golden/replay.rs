//! Sends an area's requests, in order, and says how each answer differs from the one that is recorded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use base64::Engine as _;
use futures::StreamExt as _;
use http::Response;
use http_body_util::BodyExt as _;
use mk8s_api::codec::{self, Validation, protobuf};
use serde_json::Value;

use crate::compare::{self, Difference};
use crate::harness::Api;
use crate::mask;
use crate::pair::{Answer, Pair, Request};

/// How long an event may take that upstream sent.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one is waited for that upstream did not send.
const QUIET: Duration = Duration::from_millis(20);
/// How long what follows from a write may take.
const SETTLED: Duration = Duration::from_secs(5);
const HEADERS: [&str; 6] = [
    "content-type",
    "allow",
    "location",
    "retry-after",
    "www-authenticate",
    "content-encoding",
];

/// What differs, by the pair's place among the pairs.
pub async fn run(pairs: &[Pair]) -> Vec<Vec<Difference>> {
    let api = Api::open_with(|config| config.advertise_address = [192, 0, 2, 1].into()).await;
    let mut session = Session {
        api,
        values: BTreeMap::new(),
        watches: BTreeMap::new(),
    };
    let mut found = Vec::new();
    for pair in pairs {
        let answer = session.settled(pair).await;
        found.push(compare::answers(&pair.answer, &answer));
    }
    found
}

struct Session {
    api: Api,
    values: BTreeMap<String, String>,
    watches: BTreeMap<String, Watch>,
}

struct Watch {
    body: BodyDataStream,
    text: Vec<u8>,
}

impl Session {
    /// The answer that is waited for, or what there is when it does not come.
    async fn settled(&mut self, pair: &Pair) -> Answer {
        let end = Instant::now() + SETTLED;
        loop {
            let answer = self.answer(pair).await;
            if answer.holds(&pair.request.until) || Instant::now() > end {
                return answer;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    async fn answer(&mut self, pair: &Pair) -> Answer {
        let expected = pair.answer.events.len();
        if let Some(name) = &pair.request.awaited {
            let events = match self.watches.get_mut(name) {
                Some(watch) => watch.events(expected).await,
                None => Vec::new(),
            };
            return Answer {
                code: 200,
                events,
                ..Answer::default()
            };
        }
        let response = self.send(&pair.request).await;
        let mut answer = head(&response);
        if answer.code == 200 && is_watch(&pair.request.path) {
            let mut watch = Watch {
                body: response.into_body().into_data_stream(),
                text: Vec::new(),
            };
            match &pair.request.open {
                Some(name) => drop(self.watches.insert(name.clone(), watch)),
                None => answer.events = watch.events(expected).await,
            }
            return answer;
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let kind = answer.headers.get("content-type").map(String::as_str);
        match kind.and_then(|kind| decode(kind, &body)) {
            Some(tree) => {
                for (name, pointer) in &pair.keep {
                    let kept = tree.pointer(pointer).map(|value| match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    });
                    self.values.insert(name.clone(), kept.unwrap_or_default());
                }
                answer.body = mask::tree(match &pair.request.pick {
                    Some(pointers) => mask::picked(&tree, pointers),
                    None => tree,
                });
            }
            None => answer.text = mask::text(&String::from_utf8_lossy(&body)),
        }
        answer
    }

    async fn send(&self, request: &Request) -> Response<Body> {
        let body: Vec<u8> = match (&request.body, &request.text, &request.base64) {
            (Some(body), ..) => self.fill(&body.to_string()).into(),
            (_, Some(text), _) => self.fill(text).into(),
            (.., Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            _ => Vec::new(),
        };
        let mut headers = BTreeMap::from([("user-agent", "golden"), ("accept", "application/json")]);
        if !body.is_empty() {
            headers.insert("content-type", "application/json");
        }
        let names: Vec<String> = request.headers.keys().map(|name| name.to_lowercase()).collect();
        for (name, value) in names.iter().zip(request.headers.values()) {
            headers.insert(name, value);
        }
        headers.retain(|_, value| !value.is_empty());
        let headers: Vec<(&str, &str)> = headers.into_iter().collect();
        let path = self.fill(&request.path);
        self.api.send_whole(&request.method, &path, &headers, body).await
    }

    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_string();
        for (name, value) in &self.values {
            filled = filled.replace(&format!("${{{name}}}"), value);
        }
        filled
    }
}

impl Watch {
    /// As many as are expected, and what comes right after them.
    async fn events(&mut self, expected: usize) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                events.push(mask::tree(serde_json::from_slice(&line).unwrap()));
            }
            let patience = if events.len() < expected { PATIENCE } else { QUIET };
            match tokio::time::timeout(patience, self.body.next()).await {
                Ok(Some(Ok(chunk))) => self.text.extend_from_slice(&chunk),
                _ => return events,
            }
        }
    }
}

fn is_watch(path: &str) -> bool {
    path.contains("watch=true") || path.contains("/watch/")
}

fn head(response: &Response<Body>) -> Answer {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = |name: &&'static str| Some((name.to_string(), mask::text(&text(response.headers().get(*name)?))));
    Answer {
        code: response.status().as_u16(),
        headers: HEADERS.iter().filter_map(header).collect(),
        warning: response.headers().get_all("warning").iter().map(text).collect(),
        ..Answer::default()
    }
}

fn decode(kind: &str, body: &[u8]) -> Option<Value> {
    if body.is_empty() {
        return None;
    }
    match kind.split(';').next()?.trim() {
        "application/json" => serde_json::from_slice(body).ok(),
        // The index of OpenAPI's documents is called text.
        "text/plain" if body.starts_with(b"{") => serde_json::from_slice(body).ok(),
        "application/yaml" => Some(codec::yaml::decode(body, None, Validation::Ignore).ok()?.value),
        protobuf::MEDIA_TYPE => protobuf::decode(body).ok(),
        _ => None,
    }
}
