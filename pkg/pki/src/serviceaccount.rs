//! Service-account tokens: ES256 JWTs with upstream's private claims, the JWKS that others verify them with, and the
//! OpenID discovery document (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::PkiError;

/// Name and uid of what a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default)]
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Binding,
    pub nbf: i64,
    pub sub: String,
}

/// Who tokens that are kept in Secrets say they are from.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What a token says that is kept in a Secret: it ends with that alone, and names no audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyClaims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    pub sub: String,
}

impl LegacyClaims {
    pub fn new(namespace: &str, secret: &str, account: &str, uid: &str) -> Self {
        LegacyClaims {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            uid: uid.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours at all: another authenticator may know it.
    #[error("not a service account token of this cluster")]
    Foreign,
    #[error("invalid signature")]
    Signature,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("token audiences {got:?} is invalid for the target audiences {wanted:?}")]
    Audience { got: Vec<String>, wanted: Vec<String> },
    #[error("{0}")]
    Gone(String),
    /// Its Secret says so by a label.
    #[error(
        "the token in secret {secret} has been marked invalid: use tokens from the TokenRequest API or manually created secret-based \
         tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token"
    )]
    Invalidated { secret: String },
}

/// The signing key and every key that verifies (the signing one first).
pub struct Keys {
    signing: EcdsaKeyPair,
    kid: String,
    public: Vec<PublicKey>,
    private_pem: String,
    public_pem: String,
}

struct PublicKey {
    kid: String,
    /// Uncompressed point: 04 ‖ x ‖ y.
    point: Vec<u8>,
}

impl Keys {
    pub fn generate() -> Result<Keys, PkiError> {
        let failed = |cause: rcgen::Error| PkiError::Key {
            what: "of service accounts".into(),
            cause: cause.to_string(),
        };
        Keys::from_pem(&KeyPair::generate().map_err(failed)?.serialize_pem())
    }

    /// Reads `sa.key` (PKCS#8 PEM, ECDSA P-256).
    pub fn from_pem(pem: &str) -> Result<Keys, PkiError> {
        let failed = |cause: String| PkiError::Key {
            what: "of service accounts".into(),
            cause,
        };
        let pair = KeyPair::from_pem(pem).map_err(|cause| failed(cause.to_string()))?;
        if pair.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(failed("it is not ECDSA P-256".into()));
        }
        let signing = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &pair.serialize_der(),
            &ring::rand::SystemRandom::new(),
        )
        .map_err(|cause| failed(cause.to_string()))?;
        let kid = kid(&pair.subject_public_key_info());
        let public = vec![PublicKey {
            kid: kid.clone(),
            point: pair.der_bytes().to_vec(),
        }];
        Ok(Keys {
            signing,
            kid,
            public,
            private_pem: pem.to_string(),
            public_pem: pair.public_key_pem(),
        })
    }

    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, PkiError> {
        self.sign_text(serde_json::to_vec(claims))
    }

    /// A token for a Secret.
    pub fn sign_legacy(&self, claims: &LegacyClaims) -> Result<String, PkiError> {
        self.sign_text(serde_json::to_vec(claims))
    }

    fn sign_text(&self, payload: serde_json::Result<Vec<u8>>) -> Result<String, PkiError> {
        let failed = |cause: String| PkiError::Sign {
            what: "a service account token".into(),
            cause,
        };
        let payload = payload.map_err(|cause| failed(cause.to_string()))?;
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.kid);
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self
            .signing
            .sign(&ring::rand::SystemRandom::new(), token.as_bytes())
            .map_err(|cause| failed(cause.to_string()))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// Signature and issuer. Times and audiences are the caller's (they change while a verified token is cached).
    pub fn verify(&self, token: &str, issuer: &str) -> Result<Claims, TokenError> {
        let payload = self.verified(token, issuer)?;
        serde_json::from_slice(&payload).map_err(|_| TokenError::Foreign)
    }

    /// The same of a token that is kept in a Secret. Whether that has it still is the caller's to see.
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyClaims, TokenError> {
        let payload = self.verified(token, LEGACY_ISSUER)?;
        serde_json::from_slice(&payload).map_err(|_| TokenError::Foreign)
    }

    fn verified(&self, token: &str, issuer: &str) -> Result<Vec<u8>, TokenError> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            #[serde(default)]
            kid: String,
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Foreign);
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Foreign)?;
        let payload = decode(payload)?;
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        let stated: Issuer = serde_json::from_slice(&payload).map_err(|_| TokenError::Foreign)?;
        if stated.iss != issuer {
            return Err(TokenError::Foreign);
        }
        if header.alg != "ES256" {
            return Err(TokenError::Signature);
        }
        let signature = decode(signature)?;
        let verifies = |key: &&PublicKey| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
                .verify(signed.as_bytes(), &signature)
                .is_ok()
        };
        let mut candidates = self
            .public
            .iter()
            .filter(|key| header.kid.is_empty() || key.kid == header.kid);
        if candidates.find(verifies).is_none() {
            return Err(TokenError::Signature);
        }
        Ok(payload)
    }

    /// `/openid/v1/jwks`
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self
            .public
            .iter()
            .map(|key| {
                json!({
                    "use": "sig", "kty": "EC", "kid": key.kid, "crv": "P-256", "alg": "ES256",
                    "x": URL_SAFE_NO_PAD.encode(&key.point[1..33]),
                    "y": URL_SAFE_NO_PAD.encode(&key.point[33..65]),
                })
            })
            .collect();
        json!({ "keys": keys })
    }
}

/// base64url of the SHA-256 of the public key's SPKI, as upstream names its keys.
fn kid(spki: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, spki))
}

/// `/.well-known/openid-configuration`
pub fn discovery(issuer: &str, jwks_uri: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

impl Claims {
    /// Whether the token's time is now.
    pub fn check_time(&self, now: i64) -> Result<(), TokenError> {
        if now >= self.exp {
            Err(TokenError::Expired)
        } else if now + 10 < self.nbf {
            // Ten seconds of leeway between clocks.
            Err(TokenError::NotYet)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn claims() -> Claims {
        Claims {
            aud: vec!["a".into()],
            exp: 2000,
            iat: 1000,
            iss: "https://kubernetes.default.svc.cluster.local".into(),
            jti: "id".into(),
            kubernetes: Binding {
                namespace: "default".into(),
                pod: Some(Reference {
                    name: "web".into(),
                    uid: "1".into(),
                }),
                serviceaccount: Reference {
                    name: "default".into(),
                    uid: "2".into(),
                },
                ..Binding::default()
            },
            nbf: 1000,
            sub: "system:serviceaccount:default:default".into(),
        }
    }

    #[test]
    fn round_trip_and_refusals() {
        let keys = Keys::generate().unwrap();
        let again = Keys::from_pem(keys.private_pem()).unwrap();
        let other = Keys::generate().unwrap();
        let issuer = claims().iss;
        let token = keys.sign(&claims()).unwrap();
        assert_eq!(again.verify(&token, &issuer), Ok(claims()));
        assert_eq!(other.verify(&token, &issuer), Err(TokenError::Signature));
        assert_eq!(keys.verify(&token, "https://elsewhere"), Err(TokenError::Foreign));
        assert_eq!(
            keys.verify("abcdef.0123456789abcdef", &issuer),
            Err(TokenError::Foreign)
        );
        let mut parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Claims { exp: 9000, ..claims() }).unwrap());
        parts[1] = &forged;
        assert_eq!(keys.verify(&parts.join("."), &issuer), Err(TokenError::Signature));
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        parts[0] = &unsigned;
        assert_eq!(keys.verify(&parts.join("."), &issuer), Err(TokenError::Signature));
    }

    #[test]
    fn a_token_of_a_secret_is_told_from_others_by_its_issuer() {
        let keys = Keys::generate().unwrap();
        let legacy = LegacyClaims::new("default", "robot-token", "robot", "7");
        let token = keys.sign_legacy(&legacy).unwrap();
        assert_eq!(keys.verify_legacy(&token), Ok(legacy));
        assert_eq!(keys.verify(&token, &claims().iss), Err(TokenError::Foreign));
        let bound = keys.sign(&claims()).unwrap();
        assert_eq!(keys.verify_legacy(&bound), Err(TokenError::Foreign));
        let other = Keys::generate().unwrap();
        assert_eq!(other.verify_legacy(&token), Err(TokenError::Signature));
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let said: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(
            said,
            json!({
                "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot",
                "kubernetes.io/serviceaccount/namespace": "default",
                "kubernetes.io/serviceaccount/secret.name": "robot-token",
                "kubernetes.io/serviceaccount/service-account.name": "robot",
                "kubernetes.io/serviceaccount/service-account.uid": "7",
            })
        );
    }

    #[test]
    fn times() {
        for (now, result) in [
            (1500, Ok(())),
            (2000, Err(TokenError::Expired)),
            (989, Err(TokenError::NotYet)),
            (990, Ok(())),
        ] {
            assert_eq!(claims().check_time(now), result, "{now}");
        }
    }

    #[test]
    fn jwks_names_the_key_that_signed() {
        let keys = Keys::generate().unwrap();
        let token = keys.sign(&claims()).unwrap();
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["kid"], keys.jwks()["keys"][0]["kid"]);
    }
}
