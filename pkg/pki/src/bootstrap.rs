//! Bootstrap tokens: `id.secret`, what a join shows before it has a certificate
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use serde_json::{Map, Value, json};

/// Six and sixteen characters of [a-z0-9].
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
}

/// The text is not a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bootstrap token is not of the form \"[a-z0-9]{{6}}.[a-z0-9]{{16}}\"")]
pub struct Malformed;

/// The secret stays out of logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.<redacted>", self.id)
    }
}

/// The whole token: for the person who joins a node.
impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (id, secret) = text.split_once('.').ok_or(Malformed)?;
        let good = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if good(id, 6) && good(secret, 16) {
            Ok(Token {
                id: id.into(),
                secret: secret.into(),
            })
        } else {
            Err(Malformed)
        }
    }
}

impl Token {
    pub fn generate() -> Token {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut rng = rand::rng();
        let mut text = |length: usize| -> String {
            (0..length)
                .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
                .collect()
        };
        Token {
            id: text(6),
            secret: text(16),
        }
    }

    /// `bootstrap-token-<id>`
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// The Secret in kube-system that makes the token known. `groups` default to what join needs.
    pub fn to_secret(
        &self,
        expiration: Option<jiff::Timestamp>,
        description: &str,
        usages: &[String],
        groups: &[String],
    ) -> Value {
        let mut data = Map::new();
        let mut put = |key: &str, value: &str| {
            data.insert(key.into(), STANDARD.encode(value).into());
        };
        put("token-id", &self.id);
        put("token-secret", &self.secret);
        if let Some(expiration) = expiration {
            let seconds = jiff::Timestamp::from_second(expiration.as_second()).unwrap_or(expiration);
            put("expiration", &seconds.to_string());
        }
        if !description.is_empty() {
            put("description", description);
        }
        let usages: Vec<&str> = if usages.is_empty() {
            USAGES.to_vec()
        } else {
            usages.iter().map(String::as_str).collect()
        };
        for usage in usages {
            put(&format!("usage-bootstrap-{usage}"), "true");
        }
        let groups = if groups.is_empty() {
            NODE_GROUP.to_string()
        } else {
            groups.join(",")
        };
        put("auth-extra-groups", &groups);
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.secret_name(), "namespace": "kube-system"},
            "type": SECRET_TYPE,
            "data": data,
        })
    }
}

/// What a token may be used for.
pub const USAGES: [&str; 2] = ["authentication", "signing"];

/// Whether a token may put who shows it into the group: `system:bootstrappers:` and then [a-z0-9:-], at most 256, ending in a
/// letter or digit.
pub fn is_group(group: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        rest.len() <= 256
            && rest.bytes().all(|byte| plain(byte) || byte == b':' || byte == b'-')
            && rest.bytes().last().is_some_and(plain)
    })
}

pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// kubeadm's group of joining nodes.
pub const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn form() {
        let token = Token::generate();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        for bad in [
            "",
            "abcdef",
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcdef.",
            "abcde-.0123456789abcdef",
        ] {
            assert_eq!(bad.parse::<Token>(), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn groups() {
        let longest = format!("system:bootstrappers:{}", "a".repeat(256));
        for good in [NODE_GROUP, "system:bootstrappers:a", &longest] {
            assert!(is_group(good), "{good}");
        }
        let longer = format!("{longest}a");
        for bad in [
            "",
            "system:masters",
            "system:bootstrappers",
            "system:bootstrappers:",
            "system:bootstrappers:a-",
            "system:bootstrappers:../x",
            "system:bootstrappers:A",
            &longer,
        ] {
            assert!(!is_group(bad), "{bad}");
        }
    }
}
