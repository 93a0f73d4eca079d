//! The detached JWS by which join knows that kube-public/cluster-info comes from someone who holds the token:
//! HS256 over the kubeconfig's text, key = the token's secret (kubeadm's `jws-kubeconfig-<id>`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::bootstrap::Token;

/// `<header>..<signature>`
pub fn sign(content: &str, token: &Token) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id));
    let signature = hmac::sign(&key(token), signed(&header, content).as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether `jws` was made by the holder of `token` over `content`.
pub fn verify(content: &str, jws: &str, token: &Token) -> bool {
    let Some((header, signature)) = jws.split_once("..") else {
        return false;
    };
    let parsed = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|header| serde_json::from_slice::<serde_json::Value>(&header).ok());
    let Some(parsed) = parsed else { return false };
    if parsed["alg"] != "HS256" || parsed["kid"] != token.id.as_str() {
        return false;
    }
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
        return false;
    };
    hmac::verify(&key(token), signed(header, content).as_bytes(), &signature).is_ok()
}

fn key(token: &Token) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_bytes())
}

fn signed(header: &str, content: &str) -> String {
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Signatures that kubeadm's own implementation makes of the same input.
    #[test]
    fn agrees_with_kubeadm() {
        let token = Token {
            id: "joshua".into(),
            secret: "my voice is my passcode".into(),
        };
        let header = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9";
        for (content, signature) in [
            (
                "Hello from the other side. I must have called a thousand times.",
                "VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8",
            ),
            ("", "7Ui1ALizW4jXphVUB7xUqC9vLYLL9RZeOFfVLoB7Tgk"),
        ] {
            assert_eq!(sign(content, &token), format!("{header}..{signature}"));
        }
    }

    #[test]
    fn only_the_holder_signs() {
        let token: Token = "joshua.0123456789abcdef".parse().unwrap();
        let made = sign("Hear me sing!", &token);
        assert!(verify("Hear me sing!", &made, &token));
        assert!(!verify("Hear me sing?", &made, &token));
        let other: Token = "joshua.0123456789abcdee".parse().unwrap();
        assert!(!verify("Hear me sing!", &made, &other));
    }
}
