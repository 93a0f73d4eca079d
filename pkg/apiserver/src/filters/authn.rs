//! Who asks: a client certificate (verified by rustls, read once per connection), a bearer token (service account or
//! bootstrap), or nobody, who sees health, version and the one ConfigMap that join discovers the cluster by.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use mk8s_api::status::Status;
use mk8s_pki::serviceaccount::{Binding, Claims, Reference, TokenError};
use mk8s_pki::subject::Subject;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::legacy_tokens;
use crate::identity::User;
use crate::lookup::{Found, Lookup};
use crate::memo::Memo;
use crate::request::RequestInfo;
use crate::tokens::TokenAuthority;

pub struct Authenticator {
    lookup: Arc<dyn Lookup>,
    authority: TokenAuthority,
    verified: Memo<Verified>,
    used: Sender<legacy_tokens::Use>,
}

/// A token whose signature was checked: what remains is time and whether its objects still live.
struct Verified {
    claims: Claims,
    /// The day on which the Secret that keeps the token was last told of its use; none of a token that is kept in none.
    used: Option<AtomicI64>,
    user: Arc<User>,
    /// The revisions at which account and bound object were last found alive: the same state needs no second reading.
    seen: Mutex<(u64, u64)>,
}

impl Verified {
    /// About what it takes: the claims' texts and the user made of them. Audiences are as many and as long as was asked.
    fn bytes(&self) -> usize {
        let texts = self.claims.aud.iter().chain(&self.user.groups);
        let extra = self
            .user
            .extra
            .iter()
            .map(|(key, values)| key.len() + values.iter().map(String::len).sum::<usize>());
        texts.map(|text| text.len() + 48).sum::<usize>() + extra.map(|bytes| bytes + 96).sum::<usize>() + 512
    }
}

impl Authenticator {
    /// Hands on to `used` when a token that is kept in a Secret is used for the first time on a day.
    pub fn new(lookup: Arc<dyn Lookup>, authority: TokenAuthority, used: Sender<legacy_tokens::Use>) -> Self {
        Authenticator {
            lookup,
            authority,
            verified: Memo::default(),
            used,
        }
    }

    pub fn authority(&self) -> &TokenAuthority {
        &self.authority
    }

    /// The filter. `connection` is who the connection's client certificate names (see [`user_of_certificate`]).
    pub fn authenticate(
        &self,
        connection: Option<&Arc<User>>,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Arc<User>, Status> {
        if let Some(user) = connection {
            return Ok(user.clone());
        }
        match bearer(headers) {
            Some(token) => self
                .token(token, &self.authority.audiences)
                .map(|(user, _)| user)
                .map_err(|error| {
                    tracing::debug!(%error, path = %info.path, "a bearer token was refused");
                    Status::unauthorized()
                }),
            None if open_to_anyone(info) => Ok(Arc::new(User::anonymous())),
            None => Err(Status::unauthorized()),
        }
    }

    /// Who a token speaks for, and which of the wanted audiences it is good for (empty for bootstrap tokens).
    pub fn token(&self, token: &str, audiences: &[String]) -> Result<(Arc<User>, Vec<String>), TokenError> {
        let now = mk8s_pki::unix_now();
        if let Ok(bootstrap) = token.parse::<mk8s_pki::bootstrap::Token>() {
            let user = self.bootstrap(&bootstrap, now).ok_or(TokenError::Foreign)?;
            return Ok((Arc::new(user), Vec::new()));
        }
        let remembered = self.verified.get(token);
        let known = remembered.is_some();
        let verified = match remembered {
            Some(verified) => verified,
            None => Arc::new(self.verify(token)?),
        };
        verified.claims.check_time(now)?;
        // Those of a token and of a review may be as many as a body holds.
        let wanted: HashSet<&String> = audiences.iter().collect();
        let own = verified.claims.aud.iter();
        let good: Vec<String> = own.filter(|audience| wanted.contains(audience)).cloned().collect();
        if good.is_empty() {
            return Err(TokenError::Audience {
                got: verified.claims.aud.clone(),
                wanted: audiences.to_vec(),
            });
        }
        let alive = self.alive(&verified, token, now);
        self.note_use(&verified, now, &alive);
        alive?;
        // Only what is good for something is worth its place.
        if !known {
            self.verified.put(token, verified.clone(), verified.bytes());
        }
        Ok((verified.user.clone(), good))
    }

    fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let (claims, used) = match self.authority.verify(token) {
            Err(TokenError::Foreign) => (self.authority.verify_legacy(token)?, Some(AtomicI64::new(0))),
            claims => (claims?, None),
        };
        let user = Arc::new(service_account_user(&claims)?);
        Ok(Verified {
            claims,
            used,
            user,
            seen: Mutex::default(),
        })
    }

    /// Also of one that was marked invalid: that somebody still uses it is worth knowing.
    fn note_use(&self, verified: &Verified, now: i64, alive: &Result<(), TokenError>) {
        let binding = &verified.claims.kubernetes;
        let (Some(used), Some(secret)) = (&verified.used, &binding.secret) else {
            return;
        };
        let today = now.div_euclid(24 * 3600);
        let is = matches!(alive, Ok(()) | Err(TokenError::Invalidated { .. }));
        if !is {
            return;
        }
        let before = used.swap(today, Ordering::Relaxed);
        if before == today {
            return;
        }
        let noted = self.used.try_send(legacy_tokens::Use {
            namespace: binding.namespace.clone(),
            secret: secret.name.clone(),
        });
        // Where too many are on their way the next use is noted instead.
        if let Err(TrySendError::Full(_)) = noted {
            used.store(before, Ordering::Relaxed);
        }
    }

    /// A token dies with its account and with what it is bound to.
    fn alive(&self, verified: &Verified, token: &str, now: i64) -> Result<(), TokenError> {
        let binding = &verified.claims.kubernetes;
        let namespace = &binding.namespace;
        let reference = &binding.serviceaccount;
        let gone = |what: &str| TokenError::Gone(format!("{what} has been deleted"));
        let account = self.lookup.find("", "serviceaccounts", namespace, &reference.name);
        let account = account.ok_or_else(|| gone(&format!("service account {namespace}/{}", reference.name)))?;
        let bound = match self.bound(binding) {
            None => None,
            Some((reference, plural, found)) => {
                let found = found.ok_or_else(|| gone(&format!("bound object {plural} {:?}", reference.name)))?;
                Some((reference, plural, found))
            }
        };
        // No object's revision is 0.
        let state = (account.revision, bound.as_ref().map_or(0, |(.., found)| found.revision));
        if *verified.seen.lock() == state {
            return Ok(());
        }
        let account_leaves = check_alive(&account.json, reference, now)
            .map_err(|why| TokenError::Gone(format!("service account {namespace}/{}: {why}", reference.name)))?;
        let bound_leaves = match bound {
            None => false,
            Some((reference, _, found)) if verified.used.is_some() => {
                legacy_tokens::check(&found.json, token, namespace, &reference.name)?
            }
            Some((reference, plural, found)) => check_alive(&found.json, reference, now)
                .map_err(|why| TokenError::Gone(format!("bound object {plural} {:?}: {why}", reference.name)))?,
        };
        if !account_leaves && !bound_leaves {
            *verified.seen.lock() = state;
        }
        Ok(())
    }

    /// What a token is bound to beside its account, and whether that is there.
    fn bound<'a>(&self, binding: &'a Binding) -> Option<(&'a Reference, &'static str, Option<Found>)> {
        let (reference, plural, namespace) = match (&binding.pod, &binding.secret, &binding.node) {
            (Some(pod), _, _) => (pod, "pods", binding.namespace.as_str()),
            (None, Some(secret), _) => (secret, "secrets", binding.namespace.as_str()),
            (None, None, Some(node)) => (node, "nodes", ""),
            (None, None, None) => return None,
        };
        let found = self.lookup.find("", plural, namespace, &reference.name);
        Some((reference, plural, found))
    }

    fn bootstrap(&self, token: &mk8s_pki::bootstrap::Token, now: i64) -> Option<User> {
        let secret = self.lookup.value("", "secrets", "kube-system", &token.secret_name())?;
        if secret["type"] != mk8s_pki::bootstrap::SECRET_TYPE || !secret["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        let data = |key: &str| {
            let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
            String::from_utf8(bytes).ok()
        };
        let stored = data("token-secret")?;
        let same = ring::digest::digest(&ring::digest::SHA256, stored.as_bytes());
        let shown = ring::digest::digest(&ring::digest::SHA256, token.secret.as_bytes());
        // Digests, so that the time of the comparison tells nothing of the secret.
        if same.as_ref() != shown.as_ref() || data("token-id")? != token.id {
            return None;
        }
        if let Some(expiration) = data("expiration") {
            let until: jiff::Timestamp = expiration.parse().ok()?;
            if until.as_second() <= now {
                return None;
            }
        }
        if data("usage-bootstrap-authentication")? != "true" {
            return None;
        }
        let mut groups = vec!["system:bootstrappers".to_string()];
        let extra = data("auth-extra-groups").unwrap_or_default();
        for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
            if !mk8s_pki::bootstrap::is_group(group) {
                return None;
            }
            groups.push(group.to_string());
        }
        Some(User::authenticated(format!("system:bootstrap:{}", token.id), groups))
    }
}

/// Whether an object is still the one a token names; `Ok(true)` when it is on its way out (upstream's minute of grace).
fn check_alive(json: &[u8], reference: &Reference, now: i64) -> Result<bool, &'static str> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Metadata {
        uid: String,
        deletion_timestamp: Option<jiff::Timestamp>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        metadata: Metadata,
    }
    const LEEWAY: i64 = 60;
    let object: Object = serde_json::from_slice(json).map_err(|_| "can't be read")?;
    if object.metadata.uid != reference.uid {
        return Err("its UID differs from the token's");
    }
    match object.metadata.deletion_timestamp {
        Some(deleted) if deleted.as_second() + LEEWAY < now => Err("has been deleted"),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What is answered without credentials.
fn open_to_anyone(info: &RequestInfo) -> bool {
    if info.is_resource {
        return info.verb == "get"
            && info.group.is_empty()
            && info.resource == "configmaps"
            && info.subresource.is_empty()
            && info.namespace == "kube-public"
            && info.name == "cluster-info";
    }
    let path = info.path.as_str();
    matches!(path, "/version" | "/version/")
        || ["/healthz", "/livez", "/readyz"].iter().any(|root| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

/// The user of a verified client certificate: CN is the name, each O a group. None unless it names exactly one user.
pub fn user_of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
    let subject = Subject::of_certificate(certificate)
        .inspect_err(|error| tracing::warn!(%error, "a certificate of the cluster's names no user"))
        .ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut user = User::authenticated(subject.common_name, subject.organizations);
    user.extra = BTreeMap::from([(
        "authentication.kubernetes.io/credential-id".into(),
        vec![format!("X509SHA256={hex}")],
    )]);
    Some(user)
}

fn service_account_user(claims: &Claims) -> Result<User, TokenError> {
    let binding = &claims.kubernetes;
    let name = format!(
        "system:serviceaccount:{}:{}",
        binding.namespace, binding.serviceaccount.name
    );
    if name != claims.sub || binding.serviceaccount.uid.is_empty() {
        return Err(TokenError::Foreign);
    }
    let groups = [
        "system:serviceaccounts".to_string(),
        format!("system:serviceaccounts:{}", binding.namespace),
    ];
    let mut user = User::authenticated(name, groups);
    user.uid = binding.serviceaccount.uid.clone();
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra
                .insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
        }
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &binding.pod {
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(node) = &binding.node {
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_pki::serviceaccount::Keys;
    use serde_json::json;

    use super::*;
    use crate::lookup::MapLookup;
    use crate::request::Query;

    fn set_up() -> (Arc<MapLookup>, Authenticator) {
        let lookup = Arc::new(MapLookup::default());
        lookup.put(
            "",
            "serviceaccounts",
            &json!({"metadata": {"name": "sa", "namespace": "a", "uid": "1"}}),
        );
        lookup.put(
            "",
            "pods",
            &json!({"metadata": {"name": "web", "namespace": "a", "uid": "2"}}),
        );
        let authority = TokenAuthority::new(Arc::new(Keys::generate().unwrap()), "cluster.local");
        let (used, _) = tokio::sync::mpsc::channel(1);
        (lookup.clone(), Authenticator::new(lookup, authority, used))
    }

    fn claims(authenticator: &Authenticator) -> Claims {
        let now = mk8s_pki::unix_now();
        Claims {
            aud: authenticator.authority.audiences.clone(),
            exp: now + 600,
            iat: now,
            iss: authenticator.authority.issuer.clone(),
            jti: "j".into(),
            kubernetes: Binding {
                namespace: "a".into(),
                pod: Some(Reference {
                    name: "web".into(),
                    uid: "2".into(),
                }),
                serviceaccount: Reference {
                    name: "sa".into(),
                    uid: "1".into(),
                },
                ..Binding::default()
            },
            nbf: now,
            sub: "system:serviceaccount:a:sa".into(),
        }
    }

    fn ask(authenticator: &Authenticator, path: &str, token: Option<&str>) -> Result<Arc<User>, u16> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let info = RequestInfo::parse(&http::Method::GET, path, &Query::default());
        authenticator
            .authenticate(None, &headers, &info)
            .map_err(|status| status.code)
    }

    /// Any number of tokens of any size was kept, with the texts of accounts that were gone, though they were good for nothing.
    #[test]
    fn only_short_tokens_that_are_good_are_remembered() {
        let (_, authenticator) = set_up();
        let remembers = |claims: &Claims, code: Option<u16>| {
            let token = authenticator.authority.keys.sign(claims).unwrap();
            let answer = ask(&authenticator, "/api/v1/pods", Some(&token));
            assert_eq!(answer.err(), code);
            authenticator.verified.get(&token).is_some()
        };
        let good = claims(&authenticator);
        assert!(remembers(&good, None));
        let mut many = good.clone();
        many.aud.extend((0..1000).map(|at| at.to_string()));
        assert!(!remembers(&many, None), "it is verified each time");
        let mut foreign = good.clone();
        foreign.aud = vec!["vault".into()];
        assert!(!remembers(&foreign, Some(401)));
        let mut late = good.clone();
        late.exp = late.iat - 3600;
        assert!(!remembers(&late, Some(401)));
    }

    #[test]
    fn service_account_tokens_die_with_what_they_name() {
        let (lookup, authenticator) = set_up();
        let token = authenticator.authority.keys.sign(&claims(&authenticator)).unwrap();
        let user = ask(&authenticator, "/api/v1/pods", Some(&token)).unwrap();
        assert_eq!(user.name, "system:serviceaccount:a:sa");
        assert_eq!(
            user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:a",
                "system:authenticated"
            ]
        );
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert!(ask(&authenticator, "/api", Some(&token)).is_ok(), "from the cache");

        let expired = Claims {
            exp: mk8s_pki::unix_now() - 1,
            ..claims(&authenticator)
        };
        let foreign = Claims {
            aud: vec!["vault".into()],
            ..claims(&authenticator)
        };
        for refused in [expired, foreign] {
            let token = authenticator.authority.keys.sign(&refused).unwrap();
            assert_eq!(ask(&authenticator, "/api", Some(&token)), Err(401), "{refused:?}");
        }

        lookup.put(
            "",
            "pods",
            &json!({"metadata": {"name": "web", "namespace": "a", "uid": "3"}}),
        );
        assert_eq!(
            ask(&authenticator, "/api", Some(&token)),
            Err(401),
            "another pod of that name"
        );
        lookup.put(
            "",
            "pods",
            &json!({"metadata": {"name": "web", "namespace": "a", "uid": "2"}}),
        );
        assert!(ask(&authenticator, "/api", Some(&token)).is_ok());
        lookup.remove("", "serviceaccounts", "a", "sa");
        assert_eq!(ask(&authenticator, "/api", Some(&token)), Err(401), "no account");
    }

    #[test]
    fn a_token_of_a_secret_lives_as_long_as_the_secret_has_it() {
        let (lookup, mut authenticator) = set_up();
        let (used, mut uses) = tokio::sync::mpsc::channel(1);
        authenticator.used = used;
        let keys = authenticator.authority.keys.clone();
        let legacy = mk8s_pki::serviceaccount::LegacyClaims::new("a", "robot", "sa", "1");
        let token = keys.sign_legacy(&legacy).unwrap();
        let ask = || ask(&authenticator, "/api", Some(&token)).map(|user| user.name.clone());
        let secret = |token: &str, metadata: serde_json::Value| {
            let mut secret = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "9"}, "data": {"token": STANDARD.encode(token)}});
            for (key, value) in metadata.as_object().into_iter().flatten() {
                secret["metadata"][key] = value.clone();
            }
            lookup.put("", "secrets", &secret);
        };
        assert_eq!(ask(), Err(401), "no Secret");
        secret(&token, json!({}));
        let earlier = legacy_tokens::Use {
            namespace: "a".into(),
            secret: "earlier".into(),
        };
        authenticator.used.try_send(earlier).unwrap();
        assert_eq!(ask().as_deref(), Ok("system:serviceaccount:a:sa"));
        assert_eq!(uses.try_recv().unwrap().secret, "earlier");
        assert!(uses.try_recv().is_err(), "there was no room for another");
        assert!(ask().is_ok() && ask().is_ok(), "from the cache");
        assert_eq!(uses.try_recv().unwrap().secret, "robot");
        assert!(uses.try_recv().is_err(), "once a day");
        for (held, metadata) in [
            ("another", json!({})),
            (token.as_str(), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
            (
                token.as_str(),
                json!({"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}),
            ),
        ] {
            secret(held, metadata.clone());
            assert_eq!(ask(), Err(401), "{held} {metadata}");
        }
        secret(&token, json!({}));
        assert!(ask().is_ok());
        lookup.remove("", "serviceaccounts", "a", "sa");
        assert_eq!(ask(), Err(401), "no account");
    }

    #[test]
    fn bootstrap_tokens() {
        let (lookup, authenticator) = set_up();
        let token = mk8s_pki::bootstrap::Token::generate();
        let now = jiff::Timestamp::now();
        let in_an_hour = now + jiff::SignedDuration::from_hours(1);
        lookup.put("", "secrets", &token.to_secret(Some(in_an_hour), "", &[], &[]));
        let user = ask(&authenticator, "/api", Some(&token.to_string())).unwrap();
        assert_eq!(user.name, format!("system:bootstrap:{}", token.id));
        assert!(user.in_group("system:bootstrappers") && user.in_group(mk8s_pki::bootstrap::NODE_GROUP));
        let wrong = format!("{}.0123456789abcdef", token.id);
        assert_eq!(ask(&authenticator, "/api", Some(&wrong)), Err(401));
        let an_hour_ago = now - jiff::SignedDuration::from_hours(1);
        for secret in [
            token.to_secret(Some(an_hour_ago), "", &[], &[]),
            token.to_secret(None, "", &["signing".into()], &[]),
            token.to_secret(None, "", &[], &["system:masters".into()]),
        ] {
            lookup.put("", "secrets", &secret);
            assert_eq!(
                ask(&authenticator, "/api", Some(&token.to_string())),
                Err(401),
                "{secret}"
            );
        }
    }

    #[test]
    fn nobody_sees_health_and_discovery_alone() {
        let (_, authenticator) = set_up();
        for (path, open) in [
            ("/healthz", true),
            ("/livez/ping", true),
            ("/readyz", true),
            ("/version", true),
            ("/healthzz", false),
            ("/api", false),
            ("/metrics", false),
            ("/openid/v1/jwks", false),
            ("/api/v1/namespaces/kube-public/configmaps/cluster-info", true),
            ("/api/v1/namespaces/kube-public/configmaps/other", false),
            ("/api/v1/namespaces/kube-public/configmaps", false),
            ("/api/v1/namespaces/default/configmaps/cluster-info", false),
        ] {
            let got = ask(&authenticator, path, None);
            assert_eq!(got.is_ok(), open, "{path}");
            assert_eq!(ask(&authenticator, path, Some("garbage")), Err(401), "{path}");
        }
    }

    #[test]
    fn certificates_name_users() {
        let ca = mk8s_pki::ca::create("kubernetes").unwrap();
        let issued = mk8s_pki::issue::client(&ca, "jane", Some("dev"), 600)
            .unwrap()
            .certified_key()
            .unwrap();
        let user = user_of_certificate(&issued.cert[0]).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("jane", &["dev".to_string(), "system:authenticated".to_string()][..])
        );

        let mut params = rcgen::CertificateParams::default();
        let again = rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        params.distinguished_name.push(again, "kube-apiserver-kubelet-client");
        let key = rcgen::KeyPair::generate().unwrap();
        assert_eq!(
            user_of_certificate(params.self_signed(&key).unwrap().der()),
            None,
            "two names are nobody's"
        );
    }
}
