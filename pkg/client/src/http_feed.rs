//! A feed over HTTP: a list in pages, then a watch from where the list ended.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, WatchParams};
use kube::core::{ApiResource, DynamicResourceScope, WatchEvent};
use kube::{Client, Resource};
use mk8s_api::codec::json;
use mk8s_api::stored::Stored;
use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::feed::{Change, Changes, Feed, FeedError, Selection};

/// Objects in a page of a list: bounds what a large list takes in memory at once.
const PAGE: u32 = 500;
/// Seconds after which a watch ends and is opened again where it stopped. Below the 300 s that middleboxes like to cut at.
const WATCH_SECONDS: u32 = 290;

/// Lists and watches through a client, as that client's identity.
pub struct HttpFeed {
    client: Client,
}

impl HttpFeed {
    /// A feed that reads as `client` does.
    pub fn new(client: Client) -> Self {
        HttpFeed { client }
    }
}

impl Feed for HttpFeed {
    fn open(&self, selection: &Selection, after: Option<u64>) -> Changes {
        let kind = ApiResource {
            group: selection.group.clone(),
            version: selection.version.clone(),
            api_version: mk8s_api::meta::join_api_version(&selection.group, &selection.version),
            kind: selection.kind.clone(),
            plural: selection.plural.clone(),
        };
        let api = match selection.namespace.as_str() {
            "" => Api::all_with(self.client.clone(), &kind),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &kind),
        };
        let reading = Reading {
            api,
            fields: selection.field_selector.clone(),
            told: VecDeque::new(),
            stage: match after {
                Some(revision) => Stage::Open(revision),
                None => Stage::List(None),
            },
        };
        let changes = futures::stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(change)) => Some((Ok(change), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        changes.boxed()
    }
}

enum Stage {
    /// The next page, after a continue token.
    List(Option<String>),
    /// A watch that begins after a revision.
    Open(u64),
    Watch(BoxStream<'static, kube::Result<WatchEvent<Text>>>),
}

struct Reading {
    api: Api<Text>,
    fields: String,
    told: VecDeque<Change>,
    stage: Stage,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Change>, FeedError> {
        loop {
            if let Some(change) = self.told.pop_front() {
                return Ok(Some(change));
            }
            match &mut self.stage {
                Stage::List(token) => {
                    let token = token.take();
                    self.list(token).await?;
                }
                Stage::Open(revision) => {
                    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
                    params.field_selector = selector(&self.fields);
                    let events = self.api.watch(&params, &revision.to_string()).await.map_err(failed)?;
                    self.stage = Stage::Watch(events.boxed());
                }
                Stage::Watch(events) => {
                    return match events.next().await {
                        Some(event) => change(event.map_err(failed)?).map(Some),
                        None => Ok(None),
                    };
                }
            }
        }
    }

    async fn list(&mut self, token: Option<String>) -> Result<(), FeedError> {
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector = selector(&self.fields);
        params.continue_token = token;
        let page = self.api.list(&params).await.map_err(failed)?;
        self.told
            .extend(page.items.into_iter().map(|text| Change::Applied(Arc::new(text))));
        self.stage = match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => Stage::List(Some(token)),
            None => {
                let revision = number(page.metadata.resource_version.as_deref())?;
                self.told.push_back(Change::UpTo(revision));
                Stage::Open(revision)
            }
        };
        Ok(())
    }
}

fn selector(fields: &str) -> Option<String> {
    (!fields.is_empty()).then(|| fields.to_string())
}

fn number(revision: Option<&str>) -> Result<u64, FeedError> {
    let text = revision.unwrap_or_default();
    text.parse()
        .map_err(|_| FeedError::Failed(format!("resourceVersion {text:?} is not a number").into()))
}

fn change(event: WatchEvent<Text>) -> Result<Change, FeedError> {
    Ok(match event {
        WatchEvent::Added(text) | WatchEvent::Modified(text) => Change::Applied(Arc::new(text)),
        WatchEvent::Deleted(text) => {
            let revision = text.revision;
            Change::Deleted {
                object: Arc::new(text),
                revision,
            }
        }
        WatchEvent::Bookmark(bookmark) => Change::UpTo(number(Some(&bookmark.metadata.resource_version))?),
        WatchEvent::Error(status) => return Err(failed(kube::Error::Api(status))),
    })
}

fn failed(error: kube::Error) -> FeedError {
    match &error {
        kube::Error::Api(status) if status.code == 410 => FeedError::Expired,
        _ => FeedError::Failed(error.into()),
    }
}

/// An object of any kind, not decoded yet: kube's lists and watches are in the binary once for it, not once per kind.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    namespace: Box<str>,
    name: Box<str>,
    revision: u64,
    json: Box<RawValue>,
    /// Asked for by kube's traits, and empty.
    metadata: ObjectMeta,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Names<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

fn names(object: &str) -> Names<'_> {
    json::metadata(object.as_bytes())
        .and_then(|metadata| serde_json::from_str(metadata).ok())
        .unwrap_or_default()
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let names = names(json.get());
        Ok(Text {
            namespace: names.namespace.into(),
            name: names.name.into(),
            revision: names.resource_version.parse().unwrap_or(0),
            metadata: ObjectMeta::default(),
            json,
        })
    }
}

impl Stored for Text {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn json(&self) -> &[u8] {
        self.json.get().as_bytes()
    }
}

impl Resource for Text {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_what_the_metadata_says() {
        for (json, expected) in [
            (
                r#"{"kind":"A","metadata":{"name":"a","labels":{"resourceVersion":"x"},"resourceVersion":"1"},"spec":{}}"#,
                ("", "a", "1"),
            ),
            (
                r#"{"spec":{"metadata":{"name":"x"}},"metadata":{"namespace":"n","resourceVersion":"1"}}"#,
                ("n", "", "1"),
            ),
            (r#"{"spec":{"metadata":{"resourceVersion":"x"}}}"#, ("", "", "")),
            (r#"{"metadata":{}}"#, ("", "", "")),
            (r#"{"metadata":null}"#, ("", "", "")),
            ("{}", ("", "", "")),
            ("1", ("", "", "")),
        ] {
            let names = names(json);
            assert_eq!(
                (&*names.namespace, &*names.name, &*names.resource_version),
                expected,
                "{json}"
            );
        }
    }

    #[test]
    fn a_watch_hands_on_text() {
        let json = r#"{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"7"},"data":{"b":"c"}}}"#;
        let event: WatchEvent<Text> = serde_json::from_str(json).unwrap();
        let Change::Applied(text) = change(event).unwrap() else {
            panic!("a change")
        };
        assert_eq!((text.name(), text.revision()), ("a", 7));
        let map: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_slice(text.json()).unwrap();
        assert_eq!(map.data.unwrap()["b"], "c");
    }

    #[test]
    fn a_revision_that_is_gone_is_told_apart() {
        for (code, expired) in [(410, true), (500, false)] {
            let json = format!(
                r#"{{"type":"ERROR","object":{{"status":"Failure","code":{code},"message":"m","reason":"r"}}}}"#
            );
            let event: WatchEvent<Text> = serde_json::from_str(&json).unwrap();
            assert_eq!(matches!(change(event), Err(FeedError::Expired)), expired, "{code}");
        }
    }
}
