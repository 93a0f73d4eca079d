//! Tokens of service accounts that are kept in Secrets: what type `kubernetes.io/service-account-token` asks for
//! (<https://kubernetes.io/docs/concepts/security/service-accounts/#manually-create-a-service-account-token-secret>).
//!
//! Watches these Secrets and the accounts; writes token, CA certificate and namespace into the Secrets, deletes those whose account is
//! gone, and takes a Secret that is gone off its account's list. It makes no Secret: accounts get their tokens by request.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use mk8s_client::{Event, Index, Informer};
use mk8s_pki::serviceaccount::{Keys, LegacyClaims};

use super::{ACCOUNT_NAME, ACCOUNT_UID};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const WORKERS: usize = 2;
const TOKEN: &str = "token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// The account that a Secret names; any of the name where there is no uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Named {
    name: String,
    uid: String,
}

impl Named {
    fn by(secret: &Secret) -> Option<Self> {
        let name = meta::annotation(secret, ACCOUNT_NAME).filter(|name| !name.is_empty())?;
        Some(Named {
            name: name.to_owned(),
            uid: meta::annotation(secret, ACCOUNT_UID).unwrap_or_default().to_owned(),
        })
    }

    fn is(&self, account: &ServiceAccount) -> bool {
        self.name == meta::name(account) && (self.uid.is_empty() || self.uid == meta::uid(account))
    }
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Secret(Key),
    /// A Secret that is gone, and the account that may still list it.
    Gone(Key, Named),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Secret(key) => write!(f, "secret {key}"),
            Item::Gone(key, account) => write!(f, "secret {key} of {}", account.name),
        }
    }
}

struct Controller {
    ctx: Context,
    keys: Arc<Keys>,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let Some(keys) = ctx.settings.account_keys.clone() else {
        ctx.scope.token().cancelled().await;
        return Ok(());
    };
    let secrets = super::account_tokens(&ctx);
    let accounts = ctx.informers.of::<ServiceAccount>();
    let by_account = secrets.index("account", |secret| {
        let named = Named::by(secret);
        named.map_or_else(Vec::new, |account| vec![place(meta::namespace(secret), &account.name)])
    });
    let mut driver = Driver::new("serviceaccount-token-controller", &ctx.scope);
    driver.watch(&secrets, |event| match event {
        Event::Applied { new, .. } => vec![Item::Secret(Key::of(&**new))],
        Event::Deleted(old) => {
            let account = Named::by(old);
            account
                .map(|account| Item::Gone(Key::of(&**old), account))
                .into_iter()
                .collect()
        }
    });
    driver.watch(&accounts, move |event| of_account(event, &by_account));
    let controller = Controller {
        ctx,
        keys,
        secrets,
        accounts,
    };
    driver.run(WORKERS, controller).await
}

fn place(namespace: &str, account: &str) -> String {
    format!("{namespace}/{account}")
}

/// The Secrets of an account that is gone, or another one by now.
fn of_account(event: &Event<ServiceAccount>, secrets: &Index<Secret>) -> Vec<Item> {
    let account = match event {
        Event::Deleted(old) => old,
        Event::Applied { old: Some(old), new } if meta::uid(&**old) != meta::uid(&**new) => old,
        Event::Applied { .. } => return Vec::new(),
    };
    let secrets = secrets.get(&place(meta::namespace(&**account), meta::name(&**account)));
    secrets.iter().map(|secret| Item::Secret(Key::of(&**secret))).collect()
}

impl Reconcile<Item> for Controller {
    async fn reconcile(&self, item: Item) -> Result<Next, Error> {
        match item {
            Item::Secret(key) => self.fill(&key).await,
            Item::Gone(key, account) => self.unlist(&key, &account).await,
        }
        .map(|()| Next::Done)
    }
}

impl Controller {
    async fn fill(&self, key: &Key) -> Result<(), Error> {
        let secret = self.secrets.get(key.ns(), &key.name);
        let Some(secret) = secret.filter(|s| !meta::deleting(&**s)) else {
            return Ok(());
        };
        let Some(named) = Named::by(&secret) else {
            return Ok(());
        };
        let api = self.ctx.api::<Secret>(&key.namespace);
        let Some(account) = self.account(&key.namespace, &named).await? else {
            return delete(&api, &*secret, DeleteParams::default()).await.map(drop);
        };
        let token = |claims: LegacyClaims| {
            let signed = self.keys.sign_legacy(&claims);
            signed.map_err(|error| Error::Invalid(format!("the token of secret {key}: {error}")))
        };
        let Some(filled) = filled(&secret, &account, &self.ctx.settings.root_ca, token)? else {
            return Ok(());
        };
        let done = api.replace(&key.name, &PostParams::default(), &filled).await;
        done.tried_if_exists(|| format!("write the token of secret {key}"))
            .map(drop)
    }

    /// Asked for where it is not known: a Secret is not deleted because its account's event is late.
    async fn account(&self, namespace: &str, named: &Named) -> Result<Option<Arc<ServiceAccount>>, Error> {
        let known = self.accounts.get(Some(namespace), &named.name);
        if let Some(known) = known.filter(|account| named.is(account)) {
            return Ok(Some(known));
        }
        let api = self.ctx.api::<ServiceAccount>(namespace);
        let live = api.get_opt(&named.name).await;
        let live = live.tried(|| format!("get service account {namespace}/{}", named.name))?;
        Ok(live.filter(|account| named.is(account)).map(Arc::new))
    }

    async fn unlist(&self, key: &Key, named: &Named) -> Result<(), Error> {
        let account = self.accounts.get(key.ns(), &named.name);
        let again = self.secrets.get(key.ns(), &key.name);
        let Some(account) = account.filter(|account| named.is(account) && again.is_none()) else {
            return Ok(());
        };
        let Some(rest) = unlisted(&account, &key.name) else {
            return Ok(());
        };
        let api = self.ctx.api::<ServiceAccount>(&key.namespace);
        let done = api.replace(&named.name, &PostParams::default(), &rest).await;
        done.tried_if_exists(|| format!("take secret {key} off service account {}", named.name))
            .map(drop)
    }
}

/// The Secret with all that it is to have; None: it has.
fn filled(
    secret: &Secret,
    account: &ServiceAccount,
    ca: &str,
    token: impl FnOnce(LegacyClaims) -> Result<String, Error>,
) -> Result<Option<Secret>, Error> {
    let has = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map_or(&[][..], |bytes| &bytes.0)
    };
    let wants_ca = !ca.is_empty() && has(CA) != ca.as_bytes();
    let (wants_namespace, wants_token) = (has(NAMESPACE).is_empty(), has(TOKEN).is_empty());
    if !wants_ca && !wants_namespace && !wants_token {
        return Ok(None);
    }
    let (mut filled, namespace) = (secret.clone(), meta::namespace(secret));
    let data = filled.data.get_or_insert_default();
    let mut put = |key: &str, text: String| data.insert(key.to_owned(), ByteString(text.into_bytes()));
    if wants_ca {
        put(CA, ca.to_owned());
    }
    if wants_namespace {
        put(NAMESPACE, namespace.to_owned());
    }
    if wants_token {
        let (name, uid) = (meta::name(account), meta::uid(account));
        put(
            TOKEN,
            token(LegacyClaims::new(namespace, meta::name(secret), name, uid))?,
        );
    }
    meta::set_annotation(&mut filled.metadata, ACCOUNT_NAME, meta::name(account));
    meta::set_annotation(&mut filled.metadata, ACCOUNT_UID, meta::uid(account));
    Ok(Some(filled))
}

/// The account without this Secret; None: it does not list it.
fn unlisted(account: &ServiceAccount, secret: &str) -> Option<ServiceAccount> {
    let mut account = account.clone();
    let secrets = account.secrets.as_mut()?;
    let before = secrets.len();
    secrets.retain(|reference| reference.name.as_deref() != Some(secret));
    (secrets.len() < before).then_some(account)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn account(secrets: Value) -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "d", "uid": "7"}, "secrets": secrets}))
            .unwrap()
    }

    #[test]
    fn a_secret_gets_what_it_lacks_and_keeps_the_rest() {
        let bytes = |text: &str| serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap();
        let whole = json!({"token": bytes("T"), "ca.crt": bytes("CA"), "namespace": bytes("d")});
        for (data, expected) in [
            (
                json!({}),
                Some(json!({"token": bytes("made"), "ca.crt": bytes("CA"), "namespace": bytes("d")})),
            ),
            (whole.clone(), None),
            (
                json!({"token": bytes("T"), "ca.crt": bytes("old"), "namespace": bytes("own"), "more": bytes("m")}),
                Some(
                    json!({"token": bytes("T"), "ca.crt": bytes("CA"), "namespace": bytes("own"), "more": bytes("m")}),
                ),
            ),
        ] {
            let secret: Secret = serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "d", "annotations": {"kubernetes.io/service-account.name": "robot"}},
                "data": data,
            }))
            .unwrap();
            let token = |claims: LegacyClaims| {
                assert_eq!(claims, LegacyClaims::new("d", "s", "robot", "7"));
                Ok("made".to_owned())
            };
            let filled = filled(&secret, &account(json!([])), "CA", token).unwrap();
            if let Some(filled) = &filled {
                assert_eq!(meta::annotation(filled, ACCOUNT_UID), Some("7"));
            }
            assert_eq!(
                filled.map(|secret| serde_json::to_value(secret.data).unwrap()),
                expected,
                "{data}"
            );
        }
    }

    #[test]
    fn an_account_loses_a_secret_that_is_gone() {
        let account = account(json!([{"name": "a"}, {"name": "b"}]));
        let rest = unlisted(&account, "a").unwrap();
        assert_eq!(rest.secrets.unwrap().len(), 1);
        assert!(unlisted(&account, "c").is_none());
        let other = Named {
            name: "robot".into(),
            uid: "8".into(),
        };
        assert!(!other.is(&account));
        assert!(
            Named {
                uid: String::new(),
                ..other
            }
            .is(&account)
        );
    }
}
