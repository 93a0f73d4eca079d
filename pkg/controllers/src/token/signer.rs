//! Signs ConfigMap kube-public/cluster-info with each bootstrap token that may sign: so a joining host knows that it is its cluster's.
//!
//! Watches the tokens and the ConfigMap; writes `jws-kubeconfig-ID` for each token, and removes those of tokens that are gone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use mk8s_client::Informer;
use mk8s_pki::bootstrap::Token;
use mk8s_pki::jws;

use super::{NAMESPACE, usable};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const PUBLIC: &str = "kube-public";
const INFO: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const PREFIX: &str = "jws-kubeconfig-";

struct Signer {
    ctx: Context,
    secrets: Informer<Secret>,
    maps: Informer<ConfigMap>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let secrets = ctx
        .informers
        .in_namespace::<Secret>(NAMESPACE, &format!("type={}", mk8s_pki::bootstrap::SECRET_TYPE));
    let maps = ctx
        .informers
        .in_namespace::<ConfigMap>(PUBLIC, &format!("metadata.name={INFO}"));
    let mut driver = Driver::new("bootstrap-signer-controller", &ctx.scope);
    driver.watch(&secrets, |_| vec![Key::new(PUBLIC, INFO)]);
    driver.watch(&maps, |_| vec![Key::new(PUBLIC, INFO)]);
    driver.run(1, Signer { ctx, secrets, maps }).await
}

impl Reconcile for Signer {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Signer { ctx, secrets, maps } = self;
        let Some(info) = maps.get(Some(PUBLIC), INFO).filter(|m| meta::name(&**m) == INFO) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        let tokens: Vec<Token> = secrets
            .list()
            .iter()
            .filter_map(|secret| usable(secret, "signing", now))
            .collect();
        let Some(data) = signed(info.data.as_ref(), &tokens) else {
            return Ok(Next::Done);
        };
        let update = ConfigMap {
            data: Some(data),
            ..(*info).clone()
        };
        let api = ctx.api::<ConfigMap>(PUBLIC);
        let done = api.replace(INFO, &PostParams::default(), &update).await;
        done.tried_if_exists(|| format!("sign ConfigMap {key}"))?;
        Ok(Next::Done)
    }
}

/// The ConfigMap's data with the right signatures; None if it has them.
fn signed(data: Option<&BTreeMap<String, String>>, tokens: &[Token]) -> Option<BTreeMap<String, String>> {
    let data = data?;
    let content = data.get(KUBECONFIG)?;
    let mut next = data.clone();
    next.retain(|key, _| !key.starts_with(PREFIX));
    for token in tokens {
        next.insert(format!("{PREFIX}{}", token.id), jws::sign(content, token));
    }
    (next != *data).then_some(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_token_signs_and_gone_ones_do_not() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let data = BTreeMap::from([
            (KUBECONFIG.to_owned(), "text".to_owned()),
            (format!("{PREFIX}gonexx"), "old".to_owned()),
        ]);
        let next = signed(Some(&data), std::slice::from_ref(&token)).unwrap();
        assert_eq!(next.len(), 2);
        assert!(jws::verify("text", &next[&format!("{PREFIX}abcdef")], &token));
        assert_eq!(signed(Some(&next), &[token]), None);
        assert_eq!(signed(Some(&BTreeMap::new()), &[]), None);
    }
}
