//! `pods|services|nodes/proxy`: any request, passed on to what runs behind the name, and its answer back. The request loses what
//! the client said to this server alone (who it is, as whom it asks); the answer's redirects and the links in its pages lead
//! through the proxy again. An upgraded connection is spliced.
//!
//! The method alone says which right is asked for, as upstream has it: who may `get nodes/proxy` reaches what a node's own server
//! takes by GET, which is `exec` into each of its pods over a WebSocket too. Whoever only reads metrics is granted
//! `nodes/metrics`, and never this.

mod answer;
mod html;
mod links;
mod target;

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use mk8s_api::status::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use self::links::Links;
use self::target::Target;
use super::{nodes, streams};
use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::layers::Guard;
use crate::transport::Peer;

/// What Go escapes in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Headers that end at each hop.
const HOP: &[&str] = &[
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub async fn proxy(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>, Status> {
    {
        let attributes = call.attributes(Operation::Connect, &call.info.name, None, Options::Connect);
        call.admit(&attributes, &mut Value::Null, &mut Vec::new()).await?;
    }
    let (resource, namespace) = (call.row.plural(), &call.info.namespace);
    let target = Target::find(call.server.cache(), resource, namespace, &call.info.name).await?;
    let paths = Paths::of(&call.info.path, &call.info.subpath);
    let upgrades = header_tokens(&call.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if !upgrades && paths.server.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        return to_directory(&parts.uri);
    }
    let links = Links {
        prepend: paths.prepend.clone(),
        server: target.authority.clone(),
        host: host(call, &parts).to_string(),
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri(&target, &paths.server, parts.uri.query())?;
    *request.headers_mut() = headers(call, &parts, &links, upgrades)?;
    let client = if target.kubelet {
        nodes::client_of(&call.server)?
    } else {
        call.server.proxy_client()
    };
    if upgrades {
        let answer = |request| async {
            client
                .request(request)
                .await
                .map_err(|error| Status::new(500, "", format!("error dialing backend: {}", reason(&error))))
        };
        return streams::splice_through(call, parts, &target.authority, request, answer).await;
    }
    set(request.headers_mut(), "x-forwarded-uri", &forwarded_uri(&paths))?;
    *request.body_mut() = body;
    let place = call.server.streams.take(&target.authority, &call.user)?;
    let answer = client.request(request).await;
    let answer = answer.map_err(|error| unreachable(reason(&error)))?;
    Ok(Guard::of(place).hang_on(answered(answer, links)?))
}

/// What is behind the name does not answer.
fn unreachable(why: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("error trying to reach service: {why}"))
}

/// An error with what caused it, which alone says what happened.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Without a slash at its end a directory's relative links would lead elsewhere.
fn to_directory(uri: &Uri) -> Result<Response<Body>, Status> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path()));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = location.map_err(|error| Status::internal(error.to_string()))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The two halves of a request's path.
struct Paths {
    /// What leads to the proxy.
    prepend: String,
    /// What the server behind it is asked for; empty where nothing follows `proxy`.
    server: String,
}

impl Paths {
    /// Of a request's info, which are decoded.
    fn of(path: &str, subpath: &str) -> Paths {
        let server = match (subpath.is_empty(), path.ends_with('/')) {
            (true, false) => String::new(),
            (true, true) => "/".to_string(),
            (false, false) => links::join("", subpath),
            (false, true) => links::join("", &format!("{subpath}/")),
        };
        let prepend = path.strip_suffix(&server).unwrap_or(path).to_string();
        Paths { prepend, server }
    }
}

fn uri(target: &Target, path: &str, query: Option<&str>) -> Result<Uri, Status> {
    let bad = |error: http::Error| Status::bad_request(error.to_string());
    let mut text = utf8_percent_encode(if path.is_empty() { "/" } else { path }, ESCAPED).to_string();
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    let path = PathAndQuery::try_from(text).map_err(|error| bad(error.into()))?;
    let authority = Authority::try_from(&*target.authority).map_err(|error| bad(error.into()))?;
    let scheme = if target.https { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path);
    uri.build().map_err(bad)
}

/// The `Host` that the client named; in h2 it stands in the request's address.
fn host<'a>(call: &'a Call, parts: &'a Parts) -> &'a str {
    let own = call.headers.get(HOST).and_then(|host| host.to_str().ok());
    own.or(parts.uri.authority().map(Authority::as_str)).unwrap_or_default()
}

/// The request's headers as the server behind the proxy gets them.
fn headers(call: &Call, parts: &Parts, links: &Links, upgrades: bool) -> Result<HeaderMap, Status> {
    let mut headers = call.headers.clone();
    remove_matching(&mut headers, |name| {
        matches!(
            name,
            "authorization" | "x-remote-user" | "x-remote-uid" | "x-remote-group" | "host"
        ) || name.starts_with("impersonate-")
            || name.starts_with("x-remote-extra-")
    });
    let trailers = header_tokens(&headers, &TE).any(|token| token == "trailers");
    let protocols: Vec<HeaderValue> = headers.get_all(UPGRADE).iter().cloned().collect();
    remove_hop_headers(&mut headers);
    if upgrades {
        // No body goes along: a length that is promised would be taken out of the next request on this connection.
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.extend(protocols.into_iter().map(|protocol| (UPGRADE, protocol)));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if !links.host.is_empty() {
        set(&mut headers, "host", &links.host)?;
    }
    if let Some(address) = parts.extensions.get::<Peer>().and_then(|peer| peer.address) {
        let mut through: Vec<String> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_string))
            .collect();
        through.push(address.to_string());
        set(&mut headers, "x-forwarded-for", &through.join(", "))?;
    }
    Ok(headers)
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Status> {
    let value = HeaderValue::from_str(value).map_err(|error| Status::bad_request(error.to_string()))?;
    headers.insert(name, value);
    Ok(())
}

fn forwarded_uri(paths: &Paths) -> String {
    let server = utf8_percent_encode(&paths.server, ESCAPED).to_string();
    links::join(&paths.prepend, &server)
}

/// The comma-separated words of a header.
fn header_tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<String> = header_tokens(headers, &CONNECTION)
        .map(str::to_ascii_lowercase)
        .collect();
    remove_matching(headers, |name| {
        HOP.contains(&name) || named.iter().any(|own| own == name)
    });
}

fn remove_matching(headers: &mut HeaderMap, what: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| what(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The server's answer as the client gets it.
fn answered(answer: Response<hyper::body::Incoming>, links: Links) -> Result<Response<Body>, Status> {
    let (mut parts, body) = answer.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // Whoever stands before this server would take what follows for the protocol that nobody asked for.
        let protocol = header_tokens(&parts.headers, &UPGRADE).next().unwrap_or_default();
        let why = format!("backend tried to switch protocol {protocol:?} when \"\" was requested");
        return Err(Status::new(500, "", why));
    }
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        // Of two lengths this one holds (RFC 9112, section 6.3), and the other would cut the body.
        parts.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_headers(&mut parts.headers);
    let private = HeaderValue::from_static("no-cache, private");
    parts.headers.entry(CACHE_CONTROL).or_insert(private);
    // Which origins may read it is this server's to say.
    remove_matching(&mut parts.headers, |name| {
        matches!(
            name,
            "access-control-allow-credentials"
                | "access-control-allow-headers"
                | "access-control-allow-methods"
                | "access-control-allow-origin"
        )
    });
    if let Some(location) = parts.headers.get(LOCATION) {
        let rewritten = location.to_str().ok().and_then(|link| links.rewrite(link));
        if let Some(value) = rewritten.and_then(|link| HeaderValue::from_str(&link).ok()) {
            parts.headers.insert(LOCATION, value);
        }
        return Ok(Response::from_parts(parts, Body::new(body)));
    }
    Ok(answer::page(parts, body, links))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_at_the_proxy() {
        let base = "/api/v1/namespaces/a/pods/p/proxy";
        for (rest, subpath, server) in [
            ("", "", ""),
            ("/", "", "/"),
            ("/a", "a", "/a"),
            ("/a/", "a", "/a/"),
            ("/a b/c", "a b/c", "/a b/c"),
            ("/a%41", "a%41", "/a%41"),
        ] {
            let paths = Paths::of(&format!("{base}{rest}"), subpath);
            assert_eq!((&*paths.server, &*paths.prepend), (server, base), "{rest}");
        }
        assert_eq!(Paths::of(&format!("{base}/../x"), "../x").server, "/x");
    }

    #[test]
    fn what_ends_at_each_hop_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Mine"),
            ("keep-alive", "1"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("x-other", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hop_headers(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-other"]);
    }
}
