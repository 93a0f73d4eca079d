//! Tokens in Secrets: bootstrap tokens, what is signed with them and their end; and those of service accounts.

pub mod accounts;
pub mod cleaner;
pub mod signer;
pub mod unused;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use mk8s_client::Informer;
use mk8s_pki::bootstrap::{SECRET_TYPE, Token};

use crate::context::Context;

/// Where bootstrap tokens are.
const NAMESPACE: &str = "kube-system";

/// The type of Secrets that keep a service account's token, and the annotations that name the account.
const ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

fn account_tokens(ctx: &Context) -> Informer<Secret> {
    ctx.informers.of_where::<Secret>(&format!("type={ACCOUNT_TOKEN}"))
}

fn field<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    std::str::from_utf8(bytes).ok()
}

/// When the token ends; None: never. A time that can't be read is the past: better no token than one for ever.
fn expiration(secret: &Secret) -> Option<Timestamp> {
    let text = field(secret, "expiration").filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or(Timestamp::MIN))
}

/// The token, if it may be used for `usage` now.
fn usable(secret: &Secret, usage: &str, now: Timestamp) -> Option<Token> {
    let token: Token = format!("{}.{}", field(secret, "token-id")?, field(secret, "token-secret")?)
        .parse()
        .ok()?;
    let named = secret.metadata.name.as_deref() == Some(token.secret_name().as_str());
    let typed = secret.type_.as_deref() == Some(SECRET_TYPE);
    let used = field(secret, &format!("usage-bootstrap-{usage}")) == Some("true");
    let live = expiration(secret).is_none_or(|end| end > now);
    (named && typed && used && live && secret.metadata.deletion_timestamp.is_none()).then_some(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn token_is_usable_until_it_expires_and_only_as_it_says() {
        let now: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let secret = |end: &str| -> Secret {
            let value = token.to_secret(end.parse().ok(), "", &["signing".to_owned()], &[]);
            serde_json::from_value(value).unwrap()
        };
        assert!(usable(&secret("2024-01-01T00:00:01Z"), "signing", now).is_some());
        assert!(usable(&secret("2024-01-01T00:00:00Z"), "signing", now).is_none());
        assert!(usable(&secret("never"), "signing", now).is_some());
        assert!(usable(&secret("never"), "authentication", now).is_none());
        let mut renamed = secret("never");
        renamed.metadata.name = Some("other".to_owned());
        assert!(usable(&renamed, "signing", now).is_none());
    }
}
