//! list: streamed out of a snapshot as the socket takes it; pages pinned to the first page's revision.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use http::Response;
use mk8s_api::codec::{self, Validation};
use mk8s_api::status::Status;
use serde_json::json;

use super::decode::go_kind;
use super::list_body::{Page, Source, respond_list};
use crate::call::Call;
use crate::components;
use crate::crd::conversion;
use crate::filter::Filter;
use crate::object::Object;
use crate::options::{ListOptions, Match};
use crate::watch_cache::{KEEP_SNAPSHOT, Snapshot};

/// How long a list waits for a revision that is still to come.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn list(call: &Call) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, &call.info)?;
    let filter = Filter::new(&call.row, &call.info, &options)?;
    let Some(cache) = &call.row.cache else {
        let mut all = components::all(call);
        all.retain(|object| filter.matches(object));
        let source = Source::Items(all.into_iter());
        return respond_list(
            call,
            Page {
                source,
                ..Page::default()
            },
        )
        .await;
    };
    let namespace = call.info.namespace.as_str();
    if let Some(page) = by_index(call, &options, &filter) {
        return respond_list(call, page).await;
    }
    let from = begin(call, &options, options.limit > 0).await?;
    let mut page = Page {
        revision: from.snapshot.revision,
        ..Page::default()
    };
    let plain = call.row.webhook().is_none();
    if let (true, Some(name), false) = (
        plain,
        filter.name(),
        namespace.is_empty() && call.row.resource.is_namespaced(),
    ) {
        let key = cache.key(namespace, name);
        let found = from.snapshot.get(&key).filter(|object| filter.matches(object)).cloned();
        page.source = Source::Items(found.into_iter().collect::<Vec<_>>().into_iter());
    } else if options.limit > 0 || !plain {
        let items;
        (page, items) = cut(call, &from, &filter, options.limit).await?;
        page.source = Source::Items(items.into_iter());
    } else {
        page.source = Source::Snapshot {
            snapshot: from.snapshot,
            after: from.after,
            filter,
        };
    }
    respond_list(call, page).await
}

/// How many objects are looked at for one page of those that a webhook has to convert first.
const LOOK: usize = 500;

/// What selectors pick of a snapshot where a webhook makes the objects' form, which is what they are asked of: up to
/// `limit` (0: all) of them, and whether there are more.
async fn converted(
    call: &Call,
    snapshot: &Snapshot,
    after: Option<&str>,
    filter: &Filter,
    limit: usize,
) -> Result<(Vec<Arc<Object>>, bool), Status> {
    let mut rest = snapshot.iter_after(after).filter(|object| filter.may_match(object));
    let wanted = match limit {
        0 => usize::MAX,
        limit => limit.saturating_add(1),
    };
    let mut picked = Vec::new();
    while picked.len() < wanted {
        let most = if filter.is_everything() {
            wanted - picked.len()
        } else {
            LOOK
        };
        let found: Vec<Arc<Object>> = rest.by_ref().take(most.min(LOOK)).cloned().collect();
        if found.is_empty() {
            return Ok((picked, false));
        }
        let shown = conversion::objects(&call.server, &call.row, found).await?;
        picked.extend(shown.into_iter().filter(|object| filter.matches(object)));
    }
    picked.truncate(limit);
    Ok((picked, true))
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

/// The objects at the revision that is asked for, or now. Waits for one that is not there yet.
///
/// # Errors
/// 400 for what is no revision, 410 for one that is forgotten, 504 for one that does not come.
async fn snapshot_for(call: &Call, options: &ListOptions, is_paged: bool) -> Result<Snapshot, Status> {
    let (cache, namespace) = (call.cache()?, &call.info.namespace);
    let Some(revision) = options.revision()? else {
        return Ok(cache.list(namespace));
    };
    wait_for(call, revision).await?;
    let exact = match options.version_match {
        Match::Exact => true,
        // Upstream's legacy rule: a limit makes an unset match exact.
        Match::Unset => is_paged,
        Match::NotOlderThan | Match::Other(_) => false,
    };
    match exact {
        true => cache.at(namespace, revision).ok_or_else(too_old),
        false => Ok(cache.list(namespace)),
    }
}

/// Waits for a revision that is still to come, as another server may have shown it.
///
/// # Errors
/// 504 where it does not come.
pub async fn wait_for(call: &Call, revision: u64) -> Result<(), Status> {
    let cache = call.server.cache();
    if revision > cache.revision() && !cache.wait_for(revision, PATIENCE).await {
        return Err(too_new(revision, cache.revision()));
    }
    Ok(())
}

fn too_new(revision: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!(
        "Timeout: Too large resource version: {revision}, current: {current}"
    ));
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

/// Where a list goes on, or begins.
pub struct Resumed {
    snapshot: Snapshot,
    /// The last key that was shown.
    after: Option<Arc<str>>,
    /// How many objects are left.
    left: Option<usize>,
    /// When the first page was shown.
    since: u64,
}

/// Where the list begins that is asked for: as [`snapshot_for`] says, or after the page of a continue token.
///
/// # Errors
/// Those of [`snapshot_for`], 400 for an ill token, 410 for one whose time is over.
pub async fn begin(call: &Call, options: &ListOptions, is_paged: bool) -> Result<Resumed, Status> {
    let mut from = if options.continue_token.is_empty() {
        Resumed {
            snapshot: snapshot_for(call, options, is_paged).await?,
            after: None,
            left: None,
            since: now(),
        }
    } else {
        resume(call, options).await?
    };
    from.snapshot = from.snapshot.known_as(&call.row.resource, call.deadline).await?;
    Ok(from)
}

async fn resume(call: &Call, options: &ListOptions) -> Result<Resumed, Status> {
    if !matches!(options.resource_version.as_str(), "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let token = Token::decode(&options.continue_token)
        .map_err(|error| Status::bad_request(format!("invalid continue token: continue key is not valid: {error}")))?;
    let cache = call.cache()?;
    let namespace = call.info.namespace.as_str();
    let Some(revision) = token.revision else {
        let snapshot = cache.list(namespace);
        let after = after_key(&snapshot, &token.start);
        return Ok(Resumed {
            snapshot,
            after,
            left: None,
            since: now(),
        });
    };
    // A token may name any: of what is still to come nothing is shown, let alone kept.
    wait_for(call, revision).await?;
    let Some(snapshot) = cache.at(namespace, revision).filter(|_| !token.is_over()) else {
        return Err(over(token));
    };
    let after = after_key(&snapshot, &token.start);
    Ok(Resumed {
        snapshot,
        after,
        left: token.left,
        since: token.since,
    })
}

fn after_key(snapshot: &Snapshot, start: &str) -> Option<Arc<str>> {
    let start = start.strip_suffix('\0').unwrap_or(start);
    Some(format!("{}{start}", snapshot.prefix()).into())
}

/// The 410 of a token whose time is over, with one that leads on inconsistently.
fn over(token: Token) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let inconsistent = Token {
        revision: None,
        left: None,
        ..token
    };
    status.continue_token = Some(inconsistent.encode());
    status
}

/// The continue token, in upstream's form with two fields more.
struct Token {
    /// None: inconsistent, the rest as it is now.
    revision: Option<u64>,
    /// What follows the list's prefix in the last key shown, and a NUL.
    start: String,
    left: Option<usize>,
    /// When the first page was shown, in seconds since 1970.
    since: u64,
}

/// Base64 of URLs without padding; the bits that are left over at its end may be any.
const AS_GO: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Why a text is no continue token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("{0}")]
    Json(String),
    #[error("server does not recognize this encoded version {0}")]
    Version(String),
    #[error("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")]
    NoRevision,
    #[error("encoded start key empty (version meta.k8s.io/v1)")]
    NoStart,
    #[error("{0}")]
    Climbs(String),
}

impl Token {
    fn encode(&self) -> String {
        let revision = self
            .revision
            .map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let mut token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start, "since": self.since});
        if let Some(left) = self.left {
            token["left"] = left.into();
        }
        AS_GO.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Token, TokenError> {
        let bytes = AS_GO.decode(text).map_err(|error| {
            TokenError::Base64(match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(length) => length / 4 * 4,
                base64::DecodeError::InvalidPadding => text.find('=').unwrap_or(text.len()),
            })
        })?;
        if let Some(fault) = codec::syntax::fault(&bytes) {
            return Err(TokenError::Json(fault));
        }
        let token = codec::json::decode(&bytes, None, Validation::Ignore);
        let token = token.map_err(|error| TokenError::Json(error.to_string()))?.value;
        if !token.is_object() && !token.is_null() {
            let found = go_kind(&token);
            let why = format!("json: cannot unmarshal {found} into Go value of type storage.continueToken");
            return Err(TokenError::Json(why));
        }
        let version = token["v"].as_str().unwrap_or_default();
        if version != "meta.k8s.io/v1" {
            return Err(TokenError::Version(version.to_string()));
        }
        let revision = token["rv"].as_i64().filter(|revision| *revision != 0);
        let revision = revision.ok_or(TokenError::NoRevision)?;
        let start = token["start"].as_str().filter(|start| !start.is_empty());
        let start = start.ok_or(TokenError::NoStart)?;
        let segments = start.strip_prefix('/').unwrap_or(start).split('/');
        if segments.into_iter().any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(TokenError::Climbs(start.to_string()));
        }
        Ok(Token {
            revision: u64::try_from(revision).ok(),
            start: start.to_string(),
            left: token["left"].as_u64().and_then(|left| usize::try_from(left).ok()),
            since: token["since"].as_u64().unwrap_or_default(),
        })
    }

    /// Whether its snapshot may be gone: who pages so slowly hears it also where nothing happened to change.
    fn is_over(&self) -> bool {
        now().saturating_sub(self.since) > KEEP_SNAPSHOT.as_secs()
    }
}

fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs())
}

/// The next up to `limit` (0: all) of the objects that selectors pick, and the page of them that is still without them; where
/// there are more, with what leads on to them.
///
/// # Errors
/// What a conversion webhook's are, of a kind that has one.
pub async fn cut(
    call: &Call,
    from: &Resumed,
    filter: &Filter,
    limit: usize,
) -> Result<(Page, Vec<Arc<Object>>), Status> {
    let snapshot = &from.snapshot;
    let (items, more) = if call.row.webhook().is_some() {
        converted(call, snapshot, from.after.as_deref(), filter, limit).await?
    } else {
        let most = if limit > 0 { limit } else { usize::MAX };
        let matching = snapshot.iter_after(from.after.as_deref());
        let mut matching = matching.filter(|object| filter.matches(object));
        let items: Vec<_> = matching.by_ref().take(most).cloned().collect();
        (items, matching.next().is_some())
    };
    let mut page = Page {
        revision: snapshot.revision,
        ..Page::default()
    };
    if more {
        let start = items.last().map_or("", |last| &last.key[snapshot.prefix().len()..]);
        // With a selector upstream does not count either.
        let left = filter.is_everything().then(|| {
            let before = from.left.unwrap_or_else(|| snapshot.count_after(from.after.as_deref()));
            before.saturating_sub(items.len())
        });
        page.remaining = left.map(|left| left as u64);
        page.continue_token = Token {
            revision: Some(snapshot.revision),
            start: format!("{start}\0"),
            left,
            since: from.since,
        }
        .encode();
        call.cache()?.pin(snapshot);
        call.server.schedule_pin_expiry();
    }
    Ok((page, items))
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
            since: now(),
        };
        let back = Token::decode(&token.encode()).unwrap();
        assert_eq!(
            (back.revision, back.start.as_str(), back.left, back.is_over()),
            (Some(7), "ns/a\0", Some(3), false)
        );
        let inconsistent = Token {
            revision: None,
            ..token
        };
        assert_eq!(Token::decode(&inconsistent.encode()).unwrap().revision, None);
        assert!(Token::decode("rubbish").is_err());
    }

    /// Where nothing changed the snapshot would still be at hand, but clients expect to hear that they were slow.
    #[test]
    fn tokens_end_with_their_time() {
        let of = |since| Token {
            revision: Some(7),
            start: "a\0".into(),
            left: Some(3),
            since,
        };
        assert!(!of(now() - 299).is_over());
        assert!(of(now() - 301).is_over());
        assert!(!of(now() + 60).is_over(), "a clock that was set back");
        let status = over(of(0));
        let next = Token::decode(&status.continue_token.unwrap()).unwrap();
        assert_eq!((status.code, next.revision, next.left), (410, None, None));
    }
}
