//! The change from HTTP to a stream protocol: which one the client asks for, which version of it both know, and the
//! answer 101.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    Spdy,
}

/// A connection about to change: what to answer, and what then carries the streams.
pub struct Upgrade {
    pub kind: Kind,
    /// The version agreed on; None where the client named none.
    pub protocol: Option<&'static str>,
    pub response: Response,
    pub connection: OnUpgrade,
}

/// All values of a header that lists tokens.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .collect()
}

fn kind(headers: &HeaderMap) -> Option<Kind> {
    let is_upgrade = tokens(headers, &CONNECTION)
        .iter()
        .any(|t| t.eq_ignore_ascii_case("upgrade"));
    if !is_upgrade {
        return None;
    }
    tokens(headers, &UPGRADE).iter().find_map(|t| {
        if t.eq_ignore_ascii_case("websocket") && headers.contains_key(SEC_WEBSOCKET_KEY) {
            Some(Kind::WebSocket)
        } else if t.eq_ignore_ascii_case(SPDY) {
            Some(Kind::Spdy)
        } else {
            None
        }
    })
}

/// Whether the client wants to leave HTTP.
pub fn asks(headers: &HeaderMap) -> bool {
    kind(headers).is_some()
}

/// The first of the client's that we know; None where it offers nothing.
fn choose(offered: &[&str], known: &[&'static str]) -> Result<Option<&'static str>, String> {
    if offered.is_empty() {
        return Ok(None);
    }
    let chosen = offered.iter().find_map(|o| known.iter().find(|k| *k == o));
    chosen.copied().map(Some).ok_or_else(|| {
        format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            known.join(" ")
        )
    })
}

fn refuse(status: StatusCode, text: String, known: &[&'static str]) -> Box<Response> {
    let mut response = (status, text).into_response();
    if let Ok(value) = HeaderValue::from_str(&known.join(", ")) {
        response.headers_mut().insert(ACCEPTED_PROTOCOLS, value);
    }
    Box::new(response)
}

/// Agrees with the client, or says why not.
pub fn negotiate(
    request: &mut Request,
    over_websocket: &[&'static str],
    over_spdy: &[&'static str],
) -> Result<Upgrade, Box<Response>> {
    let headers = request.headers();
    let Some(kind) = kind(headers) else {
        let text = "unable to upgrade: missing upgrade headers in request".to_owned();
        return Err(refuse(StatusCode::BAD_REQUEST, text, &[]));
    };
    let (offers, known) = match kind {
        Kind::WebSocket => (SEC_WEBSOCKET_PROTOCOL, over_websocket),
        Kind::Spdy => (STREAM_PROTOCOL, over_spdy),
    };
    let protocol =
        choose(&tokens(headers, &offers), known).map_err(|text| refuse(StatusCode::FORBIDDEN, text, known))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match kind {
        Kind::WebSocket => {
            answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
            if let Ok(value) = HeaderValue::from_str(&derive_accept_key(key)) {
                answer.insert(SEC_WEBSOCKET_ACCEPT, value);
            }
        }
        Kind::Spdy => {
            answer.insert(UPGRADE, HeaderValue::from_static(SPDY));
        }
    }
    if let Some(protocol) = protocol {
        answer.insert(offers, HeaderValue::from_static(protocol));
    }
    Ok(Upgrade {
        kind,
        protocol,
        response,
        connection: hyper::upgrade::on(request),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds() {
        for (connection, upgrade, key, expected) in [
            ("Upgrade", "websocket", true, Some(Kind::WebSocket)),
            ("keep-alive, Upgrade", "WebSocket", true, Some(Kind::WebSocket)),
            ("Upgrade", "websocket", false, None),
            ("Upgrade", "SPDY/3.1", false, Some(Kind::Spdy)),
            ("Upgrade", "h2c", false, None),
            ("close", "SPDY/3.1", false, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, connection.parse().unwrap());
            headers.insert(UPGRADE, upgrade.parse().unwrap());
            if key {
                headers.insert(SEC_WEBSOCKET_KEY, "x".parse().unwrap());
            }
            assert_eq!(kind(&headers), expected, "{connection} {upgrade}");
        }
    }

    #[test]
    fn versions() {
        let known = ["v4.channel.k8s.io", "channel.k8s.io"];
        assert_eq!(choose(&[], &known), Ok(None));
        assert_eq!(
            choose(&["v9", "channel.k8s.io", "v4.channel.k8s.io"], &known),
            Ok(Some("channel.k8s.io"))
        );
        assert!(choose(&["v9"], &known).is_err());
    }
}
