//! How a registry wants to be convinced: what `WWW-Authenticate` says, and the token service it points to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Deserialize;

use super::config::TlsFiles;
use super::http::{Ask, Clients, NoAnswer, text};
use super::keychain::Credential;

const TOKEN_LIMIT: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Why there is no way in.
pub(super) enum Refusal {
    /// These credentials (or none) are not enough.
    Denied(String),
    Failed(NoAnswer),
}

/// The first challenge that can be met, Bearer before Basic.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers
        .get_all(http::header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let parsed: Vec<Challenge> = values.filter_map(parse).collect();
    let bearer = parsed
        .iter()
        .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(parsed.first()).cloned()
}

fn parse(value: &str) -> Option<Challenge> {
    let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value, ""));
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let parameters = parameters(rest);
            let get = |key: &str| {
                parameters
                    .iter()
                    .find(|(name, _)| name == key)
                    .map(|(_, value)| value.clone())
            };
            Some(Challenge::Bearer {
                realm: get("realm")?,
                service: get("service").unwrap_or_default(),
                scope: get("scope").unwrap_or_default(),
            })
        }
        _ => None,
    }
}

/// `a="b, c",d=e` → pairs.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        pairs.push((name, value.trim().to_owned()));
        rest = after;
    }
    pairs
}

pub(super) fn basic(credential: &Credential) -> Option<HeaderValue> {
    let pair = format!("{}:{}", credential.username, credential.password);
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The value of `Authorization` that answers a challenge.
pub(super) async fn answer(
    clients: &Clients,
    challenge: &Challenge,
    credential: Option<&Credential>,
    repository: &str,
    tls: &TlsFiles,
) -> Result<HeaderValue, Refusal> {
    let unusable = || Refusal::Failed(NoAnswer::lasting("credentials that don't fit a header"));
    match challenge {
        Challenge::Basic => {
            let credential = credential.filter(|credential| !credential.username.is_empty());
            let credential = credential.ok_or_else(|| Refusal::Denied("no basic auth credentials".to_owned()))?;
            basic(credential).ok_or_else(unusable)
        }
        Challenge::Bearer { realm, service, scope } => {
            if let Some(ready) = credential.map(|c| &c.registry_token).filter(|token| !token.is_empty()) {
                return bearer(ready).ok_or_else(unusable);
            }
            let scope = if scope.is_empty() {
                format!("repository:{repository}:pull")
            } else {
                scope.clone()
            };
            let ask = token_request(realm, service, &scope, credential, tls);
            let response = clients.send(ask).await.map_err(Refusal::Failed)?;
            let status = response.status();
            let body = text(response, TOKEN_LIMIT).await.map_err(Refusal::Failed)?;
            token(status, &body).and_then(|token| bearer(&token).ok_or_else(unusable))
        }
    }
}

fn token_request<'a>(
    realm: &str,
    service: &str,
    scope: &str,
    credential: Option<&Credential>,
    tls: &'a TlsFiles,
) -> Ask<'a> {
    let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    if let Some(refresh) = credential.map(|c| &c.identity_token).filter(|token| !token.is_empty()) {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "mk8s"),
            ("scope", scope),
            ("refresh_token", refresh),
        ];
        let form: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{key}={}", escape(value)))
            .collect();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        return Ask {
            method: Method::POST,
            uri: realm.to_owned(),
            headers,
            body: Bytes::from(form.join("&")),
            tls,
        };
    }
    if let Some(value) = credential.filter(|c| !c.username.is_empty()).and_then(basic) {
        headers.insert(AUTHORIZATION, value);
    }
    let separator = if realm.contains('?') { '&' } else { '?' };
    let scopes: String = scope
        .split(' ')
        .map(|scope| format!("&scope={}", escape(scope)))
        .collect();
    let uri = format!("{realm}{separator}service={}{scopes}", escape(service));
    Ask {
        method: Method::GET,
        uri,
        headers,
        body: Bytes::new(),
        tls,
    }
}

fn token(status: StatusCode, body: &[u8]) -> Result<String, Refusal> {
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        let said = super::said(body);
        return Err(Refusal::Denied(format!(
            "failed to authorize: failed to fetch oauth token: {status}{said}"
        )));
    }
    if !status.is_success() {
        let said = super::said(body);
        let message = format!("failed to fetch oauth token: unexpected status: {status}{said}");
        return Err(Refusal::Failed(NoAnswer::broken(message)));
    }
    let malformed = |_| Refusal::Failed(NoAnswer::broken("the token service's answer is malformed"));
    let token: Token = serde_json::from_slice(body).map_err(malformed)?;
    let found = if token.token.is_empty() {
        token.access_token
    } else {
        token.token
    };
    if found.is_empty() {
        return Err(Refusal::Failed(NoAnswer::broken(
            "the token service's answer has no token",
        )));
    }
    Ok(found)
}

/// What a query's value may hold as it is.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn escape(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, &UNRESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_and_bearer_is_preferred() {
        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", HeaderValue::from_static("Basic realm=\"x\""));
        assert_eq!(challenge(&headers), Some(Challenge::Basic));
        headers.append(
            "www-authenticate",
            HeaderValue::from_static(
                "Bearer realm=\"https://a/token\",service=\"r.io\",scope=\"repository:a/b:pull,push\"",
            ),
        );
        let want = Challenge::Bearer {
            realm: "https://a/token".into(),
            service: "r.io".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(challenge(&headers), Some(want));
        assert_eq!(challenge(&HeaderMap::new()), None);
        assert!(matches!(token(StatusCode::OK, br#"{"access_token":"t"}"#), Ok(t) if t == "t"));
        assert!(matches!(token(StatusCode::UNAUTHORIZED, b""), Err(Refusal::Denied(_))));
    }
}
