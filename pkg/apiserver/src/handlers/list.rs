//! list: streamed out of a snapshot as the socket takes it; pages pinned to the first page's revision.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use http::Response;
use mk8s_api::status::Status;
use serde_json::{Value, json};

use super::list_body::{Page, Source, respond_list};
use crate::call::Call;
use crate::crd::conversion;
use crate::filter::Filter;
use crate::object::Object;
use crate::options::{ListOptions, Match};
use crate::watch_cache::Snapshot;

/// How long a list waits for a revision that is still to come.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn list(call: &Call) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, false)?;
    let Some(cache) = &call.row.cache else {
        return respond_list(call, Page::default());
    };
    let filter = Filter::new(&call.row, &call.info, &options)?;
    let namespace = call.info.namespace.as_str();
    if let Some(page) = by_index(call, &options, &filter) {
        return respond_list(call, page);
    }
    let (snapshot, after, left) = if options.continue_token.is_empty() {
        let snapshot = match snapshot_for(call, &options).await? {
            Some(revision) => cache.at(namespace, revision).ok_or_else(too_old)?,
            None => cache.list(namespace),
        };
        (snapshot, None, None)
    } else {
        resume(call, &options)?
    };
    let mut page = Page {
        revision: snapshot.revision,
        ..Page::default()
    };
    if let (Some(name), false) = (filter.name(), namespace.is_empty() && call.row.resource.is_namespaced()) {
        let key = cache.key(namespace, name);
        let found = snapshot.get(&key).filter(|object| filter.matches(object)).cloned();
        page.source = Source::Items(found.into_iter().collect::<Vec<_>>().into_iter());
    } else if options.limit == 0 {
        page.source = Source::Snapshot {
            snapshot,
            after,
            filter,
        };
    } else {
        take_page(&mut page, &snapshot, after, &filter, options.limit, left);
        if !page.continue_token.is_empty() {
            cache.pin(&snapshot);
            call.server.schedule_pin_expiry();
        }
    }
    if call.row.webhook().is_some() {
        let shown = conversion::objects(&call.server, &call.row, page.source.collect()).await?;
        page.source = Source::Items(shown.into_iter());
    }
    respond_list(call, page)
}

/// A node's own pods, now: by the index, without a look at all the others.
fn by_index(call: &Call, options: &ListOptions, filter: &Filter) -> Option<Page> {
    let plain = options.limit == 0
        && options.continue_token.is_empty()
        && matches!(options.resource_version.as_str(), "" | "0");
    let value = filter.indexed.as_deref().filter(|_| plain)?;
    let cache = call.row.cache.as_ref()?;
    let (mut objects, revision) = cache.list_indexed(&call.info.namespace, value)?;
    objects.retain(|object| filter.matches(object));
    Some(Page {
        revision,
        source: Source::Items(objects.into_iter()),
        ..Page::default()
    })
}

/// The past revision to show; None: now. Waits for one that is not there yet.
async fn snapshot_for(call: &Call, options: &ListOptions) -> Result<Option<u64>, Status> {
    let Some(revision) = options.revision()? else {
        return Ok(None);
    };
    let cache = call.server.cache();
    if revision > cache.revision() && !cache.wait_for(revision, PATIENCE).await {
        return Err(too_new(revision, cache.revision()));
    }
    let exact = match options.version_match {
        Match::Exact => true,
        Match::NotOlderThan => false,
        // Upstream's legacy rule: a limit makes an unset match exact.
        Match::Unset => options.limit > 0,
    };
    Ok(exact.then_some(revision))
}

pub fn too_new(revision: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {revision}, current: {current}"));
    status.retry_after = Some(1);
    status.details = Some(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }));
    status
}

fn too_old() -> Status {
    Status::expired("The resourceVersion for the provided list is too old.")
}

/// Where a continue token leads: snapshot, last key seen, objects left.
type Resumed = (Snapshot, Option<Arc<str>>, Option<usize>);

fn resume(call: &Call, options: &ListOptions) -> Result<Resumed, Status> {
    if !matches!(options.resource_version.as_str(), "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let token = Token::decode(&options.continue_token).ok_or_else(|| {
        Status::bad_request("continue key is not valid: illegal base64 data or not a token of this server")
    })?;
    let cache = call.cache()?;
    let namespace = call.info.namespace.as_str();
    let Some(revision) = token.revision else {
        let snapshot = cache.list(namespace);
        let after = after_key(&snapshot, &token.start);
        return Ok((snapshot, after, None));
    };
    let Some(snapshot) = cache.at(namespace, revision) else {
        let mut status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
             the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
             Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
             deleted between the time the first chunk was returned and now may show up in the list.",
        );
        status.continue_token = Some(
            Token {
                revision: None,
                ..token
            }
            .encode(),
        );
        return Err(status);
    };
    let after = after_key(&snapshot, &token.start);
    Ok((snapshot, after, token.left))
}

fn after_key(snapshot: &Snapshot, start: &str) -> Option<Arc<str>> {
    let start = start.strip_suffix('\0').unwrap_or(start);
    Some(format!("{}{start}", snapshot.prefix()).into())
}

/// The continue token, in upstream's form with one field more.
struct Token {
    /// None: inconsistent, the rest as it is now.
    revision: Option<u64>,
    /// What follows the list's prefix in the last key shown, and a NUL.
    start: String,
    left: Option<usize>,
}

impl Token {
    fn encode(&self) -> String {
        let revision = self
            .revision
            .map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let mut token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start});
        if let Some(left) = self.left {
            token["left"] = left.into();
        }
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Option<Token> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let token: Value = serde_json::from_slice(&bytes.ok()?).ok()?;
        (token["v"] == "meta.k8s.io/v1").then_some(())?;
        let start = token["start"].as_str()?;
        (!start.contains("..")).then_some(())?;
        Some(Token {
            revision: u64::try_from(token["rv"].as_i64()?).ok(),
            start: start.to_string(),
            left: token["left"].as_u64().and_then(|left| usize::try_from(left).ok()),
        })
    }
}

fn take_page(
    page: &mut Page,
    snapshot: &Snapshot,
    after: Option<Arc<str>>,
    filter: &Filter,
    limit: usize,
    left: Option<usize>,
) {
    let mut matching = snapshot
        .iter_after(after.as_deref())
        .filter(|object| filter.matches(object));
    let items: Vec<Arc<Object>> = matching.by_ref().take(limit).cloned().collect();
    if matching.next().is_some() {
        let start = items.last().map_or("", |last| &last.key[snapshot.prefix().len()..]);
        // With a selector upstream does not count either.
        let left = filter.is_everything().then(|| {
            let before = left.unwrap_or_else(|| snapshot.count_after(after.as_deref()));
            before.saturating_sub(items.len())
        });
        page.remaining = left.map(|left| left as u64);
        page.continue_token = Token {
            revision: Some(snapshot.revision),
            start: format!("{start}\0"),
            left,
        }
        .encode();
    }
    page.source = Source::Items(items.into_iter());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_come_back() {
        let token = Token {
            revision: Some(7),
            start: "ns/a\0".into(),
            left: Some(3),
        };
        let back = Token::decode(&token.encode()).unwrap();
        assert_eq!(
            (back.revision, back.start.as_str(), back.left),
            (Some(7), "ns/a\0", Some(3))
        );
        let inconsistent = Token {
            revision: None,
            ..token
        };
        assert_eq!(Token::decode(&inconsistent.encode()).unwrap().revision, None);
        assert!(Token::decode("rubbish").is_none());
    }
}
