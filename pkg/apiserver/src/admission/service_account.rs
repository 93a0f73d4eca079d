//! ServiceAccount: a pod gets the account it runs as (`default`), that account's pull secrets, and unless either says
//! no, the projected volume with a token, the cluster's CA and the namespace.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use mk8s_api::references::{self, Place, Referent};
use mk8s_api::status::Status;
use rand::RngExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Attributes, Operation};
use crate::lookup::{Found, Lookup};
use crate::memo::Parsed;

const PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour, and seven seconds by which upstream knows tokens that it may extend.
const TOKEN_SECONDS: i64 = 3607;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Account {
    metadata: Metadata,
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Option<Vec<Reference>>,
    secrets: Option<Vec<Reference>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Option<Annotations>,
}

/// Of all that there may be, the one that is asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/enforce-mountable-secrets")]
    enforces: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: String,
}

#[derive(Default)]
pub struct Accounts(Parsed<Account>);

pub async fn admit(
    attributes: &Attributes<'_>,
    pod: &mut Value,
    lookup: &dyn Lookup,
    accounts: &Accounts,
) -> Result<(), Status> {
    if attributes.operation != Operation::Create {
        return Ok(());
    }
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return mirror(attributes, pod);
    }
    let namespace = attributes.namespace;
    // The old name of the field counts where the new one is empty.
    let named = ["serviceAccountName", "serviceAccount"].map(|field| mk8s_api::meta::string(pod, &["spec", field]));
    let name = named
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("default")
        .to_string();
    let Some(found) = find(lookup, namespace, &name).await else {
        return Err(no_account(attributes, pod, &name));
    };
    let account = accounts.parse(namespace, &name, found);
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    // Both names of the field, as conversion keeps them the same.
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.as_str().into());
    let own = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if own.or(account.automount_service_account_token).unwrap_or(true) {
        mount_token(spec);
    }
    let has_secrets = spec
        .get("imagePullSecrets")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty());
    if let (false, Some(secrets)) = (has_secrets, &account.image_pull_secrets)
        && !secrets.is_empty()
    {
        let secrets: Vec<Value> = secrets.iter().map(|secret| json!({"name": secret.name})).collect();
        spec.insert("imagePullSecrets".into(), secrets.into());
    }
    if account.enforces_mountable_secrets()
        && let Some(why) = unmountable(pod, &account, &name, |_| true)
    {
        return Err(attributes.forbidden(Some(pod), &why));
    }
    Ok(())
}

/// What an ephemeral container refers to; all else was looked at when the pod was created.
pub fn validate(
    attributes: &Attributes<'_>,
    pod: &Value,
    lookup: &dyn Lookup,
    accounts: &Accounts,
) -> Result<(), Status> {
    if attributes.operation != Operation::Update {
        return Ok(());
    }
    let (namespace, name) = (
        attributes.namespace,
        mk8s_api::meta::string(pod, &["spec", "serviceAccountName"]),
    );
    if name.is_empty() {
        let why = format!("no service account specified for pod {namespace}/{}", attributes.name);
        return Err(attributes.forbidden(Some(pod), &why));
    }
    let Some(found) = lookup.find("", "serviceaccounts", namespace, name) else {
        return Err(no_account(attributes, pod, name));
    };
    let account = accounts.parse(namespace, name, found);
    if !account.enforces_mountable_secrets() {
        return Ok(());
    }
    let is_ephemeral = |place: &Place<'_>| match place {
        Place::Env { list, .. } | Place::EnvFrom { list, .. } => *list == "ephemeralContainers",
        _ => false,
    };
    match unmountable(pod, &account, name, is_ephemeral) {
        // No refusal of upstream's either.
        Some(why) => Err(Status::new(500, "", why)),
        None => Ok(()),
    }
}

fn no_account(attributes: &Attributes<'_>, pod: &Value, name: &str) -> Status {
    let namespace = attributes.namespace;
    let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
    attributes.forbidden(Some(pod), &why)
}

impl Accounts {
    fn parse(&self, namespace: &str, name: &str, found: Found) -> Arc<Account> {
        let key = format!("{namespace}/{name}");
        self.0
            .get(&key, found, |bytes| serde_json::from_slice(bytes).unwrap_or_default())
    }
}

/// The account; the `default` one of a new namespace is waited for a moment, since a controller makes it.
async fn find(lookup: &dyn Lookup, namespace: &str, name: &str) -> Option<Found> {
    let get = || lookup.find("", "serviceaccounts", namespace, name);
    if let Some(found) = get() {
        return Some(found);
    }
    if name != "default" {
        return None;
    }
    // Upstream asks ten times, 100 to 200 ms apart.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        if let Some(found) = get() {
            return Some(found);
        }
    }
    None
}

fn mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let spec = &pod["spec"];
    let refuse = |why: &str| Err(attributes.forbidden(Some(pod), why));
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return refuse("a mirror pod may not reference service accounts");
    }
    if references::any(pod, |reference| reference.to == Referent::Secret) {
        return refuse("a mirror pod may not reference secrets");
    }
    let sources = mk8s_api::meta::items(spec, &["volumes"])
        .iter()
        .flat_map(|volume| mk8s_api::meta::items(volume, &["projected", "sources"]));
    for source in sources {
        if source.get("serviceAccountToken").is_some() {
            return refuse("a mirror pod may not use ServiceAccountToken volume projections");
        }
    }
    Ok(())
}

/// Five characters of upstream's alphabet, in which no words form.
fn suffix() -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

fn mount_token(spec: &mut Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let mut names = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str());
    let existing = names.find(|name| name.starts_with(PREFIX)).map(str::to_string);
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(|| format!("{PREFIX}{}", suffix()));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                mounts.push(json!({"mountPath": MOUNT_PATH, "name": name, "readOnly": true}));
                needed = true;
            }
        }
    }
    if has_volume || !needed {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace",
                }]}},
            ],
        },
    })
}

impl Account {
    /// The (deprecated) annotation by which an account limits the secrets its pods may name.
    fn enforces_mountable_secrets(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        let value = annotations.and_then(|own| own.enforces.as_deref());
        matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Why a pod may not run as an account that limits secrets.
fn unmountable(pod: &Value, account: &Account, name: &str, looked_at: fn(&Place<'_>) -> bool) -> Option<String> {
    let names = |list: &Option<Vec<Reference>>| -> HashSet<String> {
        list.iter().flatten().map(|own| own.name.clone()).collect()
    };
    let (secrets, pull_secrets) = (names(&account.secrets), names(&account.image_pull_secrets));
    let tail = format!("is not allowed because service account {name} does not reference that");
    let mut found = None;
    let _ = references::each(pod, &mut |reference| {
        let secret = &*reference.name;
        let why = match reference.place {
            _ if reference.to != Referent::Secret || !looked_at(&reference.place) => return ControlFlow::Continue(()),
            Place::PullSecret(_) if pull_secrets.contains(secret) => return ControlFlow::Continue(()),
            Place::PullSecret(index) => format!("imagePullSecrets[{index}].name=\"{secret}\" {tail} imagePullSecret"),
            _ if secrets.contains(secret) => return ControlFlow::Continue(()),
            Place::Volume("secret") => format!("volume with secret.secretName=\"{secret}\" {tail} secret"),
            Place::Env {
                list,
                container,
                variable,
            } => {
                let word = word_of(list);
                format!(
                    "{word} {container} with envVar {variable} referencing secret.secretName=\"{secret}\" {tail} secret"
                )
            }
            Place::EnvFrom { list, container } => {
                let word = word_of(list);
                format!("{word} {container} with envFrom referencing secret.secretName=\"{secret}\" {tail} secret")
            }
            // As upstream, which looks at no other kind of volume.
            Place::Volume(_) | Place::Pod => return ControlFlow::Continue(()),
        };
        found = Some(why);
        ControlFlow::Break(())
    });
    found
}

fn word_of(list: &str) -> &'static str {
    match list {
        "initContainers" => "init container",
        "ephemeralContainers" => "ephemeral container",
        _ => "container",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Request, cluster, resource};
    use super::*;
    use crate::admission::Options;

    async fn run(lookup: &dyn Lookup, mut pod: Value) -> Result<Value, Status> {
        let request = Request::create("pods", "default");
        let resource = resource("", "pods");
        let attributes = Attributes {
            user: &request.user,
            resource: &resource,
            requested_kind: ("", "v1", "Pod"),
            requested_resource: ("", "v1", "pods"),
            operation: Operation::Create,
            namespace: "default",
            name: "",
            subresource: "",
            old: None,
            stored: None,
            options: Options::Connect,
        };
        admit(&attributes, &mut pod, lookup, &Accounts::default()).await?;
        Ok(pod)
    }

    #[tokio::test]
    async fn a_pod_gets_account_token_and_pull_secrets() {
        let lookup = cluster();
        lookup.put(
            "",
            "serviceaccounts",
            &json!({"metadata": {"name": "puller", "namespace": "default"},
            "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "reg"}]}),
        );
        let pod = |account: &str| {
            json!({"metadata": {"name": "x"}, "spec": {"serviceAccountName": account,
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}})
        };

        let got = run(&*lookup, pod("")).await.unwrap();
        assert_eq!(got["spec"]["serviceAccountName"], "default");
        let volume = &got["spec"]["volumes"][0];
        assert!(volume["name"].as_str().unwrap().starts_with(PREFIX));
        assert_eq!(got["spec"]["containers"][0]["volumeMounts"][0]["name"], volume["name"]);
        assert_eq!(
            got["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(),
            1,
            "its own mount stays"
        );

        let got = run(&*lookup, pod("puller")).await.unwrap();
        assert!(got["spec"].get("volumes").is_none());
        assert_eq!(got["spec"]["imagePullSecrets"][0]["name"], "reg");

        let refused = run(&*lookup, pod("none")).await.unwrap_err();
        assert_eq!(
            refused.message,
            "pods \"x\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
        );
        let mirror =
            json!({"metadata": {"name": "m", "annotations": {MIRROR: "x"}}, "spec": {"serviceAccountName": "default"}});
        assert_eq!(run(&*lookup, mirror).await.unwrap_err().code, 403);
    }
}
