//! The service-account token authority: one signing key, the keys that verify, issuer and audiences. Issuing is asked
//! for by TokenRequest, verifying by the authenticator and TokenReview.

use std::sync::Arc;

use mk8s_pki::serviceaccount::{Binding, Claims, Keys, Reference, TokenError};

/// What tokens of this cluster say of themselves.
#[derive(Clone)]
pub struct TokenAuthority {
    pub keys: Arc<Keys>,
    /// `https://kubernetes.default.svc.cluster.local`
    pub issuer: String,
    /// The audiences that this API server answers to; the first is put into tokens that ask for none.
    pub audiences: Vec<String>,
}

impl TokenAuthority {
    /// Issuer and only audience: `https://kubernetes.default.svc.<domain>`, as kubeadm sets it.
    pub fn new(keys: Arc<Keys>, cluster_domain: &str) -> Self {
        let issuer = format!("https://kubernetes.default.svc.{cluster_domain}");
        TokenAuthority {
            keys,
            audiences: vec![issuer.clone()],
            issuer,
        }
    }

    pub fn jwks(&self) -> serde_json::Value {
        self.keys.jwks()
    }

    /// `/.well-known/openid-configuration`
    pub fn discovery(&self, external_address: &str) -> serde_json::Value {
        mk8s_pki::serviceaccount::discovery(&self.issuer, &format!("https://{external_address}/openid/v1/jwks"))
    }

    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.keys.verify(token, &self.issuer)
    }

    /// A token that is kept in a Secret, told in the same form: it is for this API server, has no end, and is bound to the Secret.
    pub fn verify_legacy(&self, token: &str) -> Result<Claims, TokenError> {
        let legacy = self.keys.verify_legacy(token)?;
        let reference = |name, uid| Reference { name, uid };
        Ok(Claims {
            aud: self.audiences.clone(),
            exp: i64::MAX,
            iat: 0,
            iss: legacy.iss,
            jti: String::new(),
            kubernetes: Binding {
                namespace: legacy.namespace,
                secret: Some(reference(legacy.secret, String::new())),
                serviceaccount: reference(legacy.account, legacy.uid),
                ..Binding::default()
            },
            nbf: 0,
            sub: legacy.sub,
        })
    }
}
