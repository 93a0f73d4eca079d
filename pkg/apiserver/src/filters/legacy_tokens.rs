//! Tokens that are kept in Secrets (type `kubernetes.io/service-account-token`): good as long as the Secret has them
//! (<https://kubernetes.io/docs/concepts/security/service-accounts/#manually-create-a-service-account-token-secret>). Each use is
//! noted on the Secret, by day, so that the cleaner of those that nobody uses can tell.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mk8s_api::meta;
use mk8s_pki::serviceaccount::TokenError;
use serde_json::Value;

use crate::own_write;
use crate::state::State;

const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// So many uses wait to be noted, each by a write, and no more: where one finds no room, the next of its token is noted.
pub const USES: usize = 1024;

/// A Secret whose token was used.
#[derive(Debug)]
pub struct Use {
    pub namespace: String,
    pub secret: String,
}

/// Whether the Secret has this token; never `Ok(true)`: one that is to go has it no more.
pub fn check(secret: &[u8], token: &str, namespace: &str, name: &str) -> Result<bool, TokenError> {
    let gone = |why: &str| TokenError::Gone(format!("the token in secret {namespace}/{name} {why}"));
    let secret: Value = serde_json::from_slice(secret).map_err(|_| gone("can't be read"))?;
    if meta::is_deleting(&secret) {
        return Err(gone("has been invalidated"));
    }
    let held = STANDARD
        .decode(meta::string(&secret, &["data", "token"]))
        .unwrap_or_default();
    // Digests, so that the time of the comparison tells nothing of the token.
    let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    if digest(&held).as_ref() != digest(token.as_bytes()).as_ref() {
        return Err(gone("is another one"));
    }
    match meta::string(&secret, &["metadata", "labels", INVALID_SINCE]) {
        "" => Ok(false),
        _ => Err(TokenError::Invalidated {
            secret: format!("{namespace}/{name}"),
        }),
    }
}

/// The Secret with the day of its last use; None: it says so, or a day later (another server's clock).
fn noted(secret: &Value, today: jiff::civil::Date) -> Option<Value> {
    let last = meta::string(secret, &["metadata", "labels", LAST_USED]);
    let tomorrow = today.tomorrow().map(|day| day.to_string());
    if last == today.to_string() || tomorrow.is_ok_and(|day| day == last) {
        return None;
    }
    let mut secret = secret.clone();
    secret["metadata"]["labels"][LAST_USED] = today.to_string().into();
    Some(secret)
}

/// Notes uses on their Secrets.
pub async fn run(state: Arc<State>) {
    let mut uses = state.token_uses.lock().await;
    while let Some(Use { namespace, secret }) = uses.recv().await {
        let Some(secrets) = state.cache().resource("", "secrets") else {
            return;
        };
        let done = own_write::change(&state, &secrets, (&namespace, &secret), "", |current| {
            let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
            Ok(noted(&current.value()?, today))
        })
        .await;
        if let Err(status) = done {
            tracing::warn!(
                namespace,
                secret,
                error = status.message,
                "the use of a token is not noted on its Secret"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_use_is_noted_once_a_day() {
        let today = jiff::civil::date(2026, 3, 1);
        for (labels, expected) in [
            (json!(null), true),
            (json!({"a": "b"}), true),
            (json!({LAST_USED: "2026-02-28"}), true),
            (json!({LAST_USED: "2026-03-01"}), false),
            (json!({LAST_USED: "2026-03-02"}), false),
        ] {
            let secret = json!({"metadata": {"name": "robot", "labels": labels}});
            let noted = noted(&secret, today);
            assert_eq!(noted.is_some(), expected, "{labels}");
            if let Some(noted) = noted {
                assert_eq!(noted["metadata"]["labels"][LAST_USED], "2026-03-01");
                assert_eq!(noted["metadata"]["labels"]["a"], labels["a"]);
            }
        }
    }
}
