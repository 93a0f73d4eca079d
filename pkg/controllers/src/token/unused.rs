//! Tokens of service accounts that were made for them once, kept in Secrets, and that nobody uses: marked invalid after a year, and
//! deleted after one more (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#legacy-serviceaccount-token-cleaner>).
//!
//! Watches these Secrets and the accounts; writes label `kubernetes.io/legacy-token-invalid-since`, and deletes. Secrets that people
//! made are never touched: an account does not list them. When nothing but time decides, a Secret is looked at when it has passed.

use std::collections::HashSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::Request;
use mk8s_client::{Event, Informer};
use serde_json::{Value, json};

use super::{ACCOUNT_NAME, ACCOUNT_UID};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Since when uses are noted; the API server keeps it.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
/// What no event tells of, a pod that lets go of a Secret, is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

struct Cleaner {
    ctx: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let secrets = super::account_tokens(&ctx);
    let accounts = ctx.informers.of::<ServiceAccount>();
    let mut driver = Driver::new("legacy-service-account-token-cleaner", &ctx.scope);
    driver.watch(&secrets, |event| match event {
        Event::Applied { new, .. } => vec![Key::of(&**new)],
        Event::Deleted(_) => Vec::new(),
    });
    let cleaner = Cleaner { ctx, secrets, accounts };
    driver.run(1, cleaner).await
}

/// What is to become of a Secret, so long as no pod has it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing before this time has passed.
    Stays(Duration),
    Invalid,
    Deleted,
}

/// The day that a label names.
fn day(secret: &Secret, label: &str) -> Option<Result<Date, jiff::Error>> {
    meta::labels(secret).get(label).map(|text| text.parse())
}

fn verdict(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    tracked: Date,
    period: Duration,
    now: Timestamp,
) -> Verdict {
    let listed = account.is_some_and(|account| {
        let secrets = account.secrets.iter().flatten();
        secrets
            .into_iter()
            .any(|own| own.name.as_deref() == Some(meta::name(secret)))
    });
    if !listed || meta::deleting(secret) {
        return Verdict::Stays(LOOK_AGAIN);
    }
    let start = |day: Date| day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |at| at.timestamp());
    let next = |day: Date| day.checked_add(1.day()).map_or(Timestamp::MAX, start);
    // A day counts until its end: at which hour of it, nobody noted.
    let mut since = vec![next(tracked), meta::created(secret)];
    match day(secret, LAST_USED) {
        Some(Ok(day)) => since.push(next(day)),
        Some(Err(_)) => return Verdict::Stays(LOOK_AGAIN),
        None => {}
    }
    let invalid = day(secret, INVALID_SINCE).and_then(Result::ok);
    since.extend(invalid.map(next));
    let latest = since.into_iter().max().unwrap_or(Timestamp::MAX);
    let passed = Duration::try_from(now.duration_since(latest)).unwrap_or_default();
    if passed <= period {
        let left = Duration::try_from(latest.duration_since(now)).unwrap_or_default() + period - passed;
        return Verdict::Stays(left + Duration::from_secs(1));
    }
    match invalid {
        None => Verdict::Invalid,
        Some(_) => Verdict::Deleted,
    }
}

impl Reconcile for Cleaner {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(secret) = self.secrets.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        let account = meta::annotation(&*secret, ACCOUNT_NAME).and_then(|name| self.accounts.get(key.ns(), name));
        let uid = meta::annotation(&*secret, ACCOUNT_UID).unwrap_or_default();
        let account = account.filter(|account| uid.is_empty() || uid == meta::uid(&**account));
        let Some(tracked) = self.tracked().await? else {
            return Ok(Next::After(LOOK_AGAIN));
        };
        let (period, now) = (self.ctx.settings.unused_token_period, Timestamp::now());
        let verdict = verdict(&secret, account.as_deref(), tracked, period, now);
        if let Verdict::Stays(time) = verdict {
            return Ok(Next::After(time));
        }
        if self.in_pods(&key.namespace).await?.contains(&key.name) {
            return Ok(Next::After(LOOK_AGAIN));
        }
        let api = self.ctx.api::<Secret>(&key.namespace);
        if verdict == Verdict::Deleted {
            // As it was read: one that is used now stays.
            let params = DeleteParams::default().preconditions(meta::this_version(&*secret));
            return delete(&api, &*secret, params).await.map(|_| Next::Done);
        }
        let today = now.to_zoned(TimeZone::UTC).date().to_string();
        let patch = json!({"metadata": {"uid": meta::uid(&*secret), "labels": {INVALID_SINCE: today}}});
        let done = api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        done.tried_if_exists(|| format!("mark the token of secret {key} invalid"))?;
        Ok(Next::Done)
    }
}

impl Cleaner {
    async fn tracked(&self) -> Result<Option<Date>, Error> {
        let (namespace, name) = TRACKING;
        let map = self.ctx.api::<ConfigMap>(namespace).get_opt(name).await;
        let map = map.tried(|| format!("get ConfigMap {namespace}/{name}"))?;
        Ok(map.and_then(|map| map.data?.get("since")?.parse().ok()))
    }

    /// The Secrets that pods of a namespace use. Read whole: informers keep of a pod only what the control plane needs.
    async fn in_pods(&self, namespace: &str) -> Result<HashSet<String>, Error> {
        let path = Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let mut page = ListParams::default().limit(500);
        let mut names = HashSet::new();
        loop {
            let what = || format!("list the pods of namespace {namespace}");
            let asked = path
                .list(&page)
                .map_err(|error| Error::Invalid(format!("{}: {error}", what())))?;
            let list = self.ctx.reader().request::<Value>(asked).await.tried(what)?;
            for pod in list["items"].as_array().into_iter().flatten() {
                secret_names(&pod["spec"], &mut names);
            }
            match list["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token.to_owned()),
                None => return Ok(names),
            }
        }
    }
}

/// All Secrets that a pod's spec names, whichever field it is: those that are called `secretName`, and the `name` of what is called
/// a reference to one.
fn secret_names(value: &Value, names: &mut HashSet<String>) {
    const REFERENCES: [&str; 6] = [
        "secret",
        "secretRef",
        "secretKeyRef",
        "imagePullSecrets",
        "nodePublishSecretRef",
        "sslCertificateSecretRef",
    ];
    let mut take = |name: &Value| names.extend(name.as_str().map(str::to_owned));
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == "secretName" {
                    take(value);
                } else if REFERENCES.contains(&field.as_str()) {
                    take(&value["name"]);
                    value
                        .as_array()
                        .into_iter()
                        .flatten()
                        .for_each(|one| take(&one["name"]));
                }
            }
            fields.values().for_each(|value| secret_names(value, names));
        }
        Value::Array(items) => items.iter().for_each(|item| secret_names(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: one row a Secret")]
    fn a_year_unused_makes_it_invalid_and_one_more_ends_it() {
        let account = |secrets: Value| -> ServiceAccount {
            serde_json::from_value(json!({"metadata": {"name": "robot"}, "secrets": secrets})).unwrap()
        };
        let listing = account(json!([{"name": "s"}]));
        let secret = |created: &str, labels: Value| -> Secret {
            serde_json::from_value(json!({"metadata": {"name": "s", "creationTimestamp": created, "labels": labels}}))
                .unwrap()
        };
        let day = Duration::from_secs(24 * 3600);
        let year = 365 * day;
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let old = "2020-01-01T00:00:00Z";
        let tracked = jiff::civil::date(2021, 1, 1);
        let second = Duration::from_secs(1);
        for (secret, account, tracked, expected) in [
            (secret(old, json!({})), Some(&listing), tracked, Verdict::Invalid),
            (
                secret(old, json!({INVALID_SINCE: "2024-05-01"})),
                Some(&listing),
                tracked,
                Verdict::Deleted,
            ),
            // Until the end of its day a year later, and half a day.
            (
                secret(old, json!({INVALID_SINCE: "2026-06-01"})),
                Some(&listing),
                tracked,
                Verdict::Stays(year + day / 2 + second),
            ),
            (
                secret(old, json!({LAST_USED: "2026-05-31"})),
                Some(&listing),
                tracked,
                Verdict::Stays(year - day / 2 + second),
            ),
            (
                secret(old, json!({LAST_USED: "2024-05-31"})),
                Some(&listing),
                tracked,
                Verdict::Invalid,
            ),
            (
                secret(old, json!({LAST_USED: "soon"})),
                Some(&listing),
                tracked,
                Verdict::Stays(LOOK_AGAIN),
            ),
            (
                secret(old, json!({INVALID_SINCE: "soon"})),
                Some(&listing),
                tracked,
                Verdict::Invalid,
            ),
            (
                secret("2026-06-01T00:00:00Z", json!({})),
                Some(&listing),
                tracked,
                Verdict::Stays(year - day / 2 + second),
            ),
            // Not noted for long enough.
            (
                secret(old, json!({})),
                Some(&listing),
                jiff::civil::date(2026, 5, 31),
                Verdict::Stays(year - day / 2 + second),
            ),
            // Made by a person, or of nobody.
            (
                secret(old, json!({})),
                Some(&account(json!([]))),
                tracked,
                Verdict::Stays(LOOK_AGAIN),
            ),
            (secret(old, json!({})), None, tracked, Verdict::Stays(LOOK_AGAIN)),
        ] {
            assert_eq!(
                verdict(&secret, account, tracked, year, now),
                expected,
                "{:?}",
                secret.metadata
            );
        }
    }

    #[test]
    fn every_secret_of_a_pod_is_found() {
        let spec = json!({
            "imagePullSecrets": [{"name": "a"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "b", "key": "x"}}}], "envFrom": [{"secretRef": {"name": "c"}}]}],
            "volumes": [
                {"name": "not", "secret": {"secretName": "d"}},
                {"projected": {"sources": [{"secret": {"name": "e"}}, {"configMap": {"name": "not"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "f"}}},
                {"azureFile": {"secretName": "g"}},
            ],
        });
        let mut names = HashSet::new();
        secret_names(&spec, &mut names);
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g"]);
    }
}
