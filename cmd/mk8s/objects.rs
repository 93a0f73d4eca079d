//! The few objects that verbs write to the API themselves.

use kube::api::{Patch, PatchParams, PostParams};
use mk8s_client::Api;

use crate::failure::{Failure, Result};

/// An object from its JSON.
pub fn of<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<K> {
    serde_json::from_value(value).map_err(|error| Failure::of("make an object", error))
}

/// Creates an object in kube-system, or merges it over the one that is there.
pub async fn upsert<K>(client: &kube::Client, object: K) -> std::result::Result<(), kube::Error>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), "kube-system");
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => {
            let name = object.meta().name.clone().unwrap_or_default();
            let patch = serde_json::to_value(&object).map_err(kube::Error::SerdeError)?;
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.map(drop)
        }
        other => other.map(drop),
    }
}
