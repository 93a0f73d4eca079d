//! The `scale` subresource of whatever has one: the size that is asked for and the one there is, of a kind that only its name tells of
//! (autoscaling/v1 Scale, <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/scale-v1/>).

use std::sync::Arc;

use http::Request;
use kube::Client;
use mk8s_api::meta;
use serde_json::{Value, json};

use crate::error::{Error, Tried};
use crate::monitor::{Hub, Kind};

/// How often a size is written anew, where somebody else wrote first.
const TRIES: usize = 5;

/// Who reads and writes scales.
pub struct Scales {
    client: Client,
    hub: Arc<Hub>,
}

/// What is scaled.
pub struct Target {
    path: String,
    scale: Value,
}

impl Target {
    /// The size that is asked for.
    pub fn replicas(&self) -> i32 {
        number(&self.scale, "spec")
    }

    /// The size it had when its controller looked last.
    pub fn current(&self) -> i32 {
        number(&self.scale, "status")
    }

    /// Which pods are its own, as a query has it; empty where it does not tell.
    pub fn selector(&self) -> &str {
        meta::string(&self.scale, &["status", "selector"])
    }

    /// Of the object that is scaled.
    pub fn uid(&self) -> &str {
        meta::string(&self.scale, &["metadata", "uid"])
    }
}

fn number(scale: &Value, part: &str) -> i32 {
    let found = scale.pointer(&format!("/{part}/replicas")).and_then(Value::as_i64);
    found.and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

impl Scales {
    /// Acts as `client`; `hub` knows the kinds.
    pub fn new(client: Client, hub: Arc<Hub>) -> Self {
        Scales { client, hub }
    }

    /// The scale of the object of this kind and name.
    pub async fn get(&self, namespace: &str, api_version: &str, kind: &str, name: &str) -> Result<Target, Error> {
        let Some(found) = self.kind(api_version, kind).await else {
            let group = meta::split_api_version(api_version).0;
            return Err(Error::Invalid(format!(
                "no matches for kind {kind:?} in group {group:?}"
            )));
        };
        let path = path(&found, namespace, name);
        let scale = self.read(&path).await?;
        Ok(Target { path, scale })
    }

    /// The same; None where there is no such object, and an error where the kind cannot be scaled at all.
    pub async fn find(
        &self,
        namespace: &str,
        api_version: &str,
        kind: &str,
        name: &str,
    ) -> Result<Option<Target>, Error> {
        let Some(found) = self.kind(api_version, kind).await else {
            return Err(Error::Invalid(format!(
                "no matches for kind {kind:?} in version {api_version:?}"
            )));
        };
        let path = path(&found, namespace, name);
        match self.read(&path).await {
            Ok(scale) => Ok(Some(Target { path, scale })),
            Err(error) if error.is_not_found() && error.names_object() => Ok(None),
            Err(error) if error.is_not_found() => {
                let dot = if found.api.group.is_empty() { "" } else { "." };
                let resource = format!("{}{dot}{}", found.api.plural, found.api.group);
                Err(Error::Invalid(format!(
                    "{resource} does not implement the scale subresource"
                )))
            }
            Err(error) => Err(error),
        }
    }

    async fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        if let Some(known) = self.hub.kind(api_version, kind) {
            return Some(known);
        }
        // It may be newer than what is known.
        let group = meta::split_api_version(api_version).0;
        self.hub.find(&self.client, group, kind).await
    }

    async fn read(&self, path: &str) -> Result<Value, Error> {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
        let answer = match request {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(error),
        };
        answer.tried(|| format!("get {path}"))
    }

    /// Asks for another size.
    pub async fn set(&self, target: &mut Target, replicas: i32) -> Result<(), Error> {
        for left in (0..TRIES).rev() {
            target.scale["spec"]["replicas"] = json!(replicas);
            let body = target.scale.to_string().into_bytes();
            let request = Request::put(&target.path).header("content-type", "application/json");
            let written: Result<Value, kube::Error> = match request.body(body) {
                Ok(request) => self.client.request(request).await,
                Err(error) => Err(kube::Error::HttpError(error)),
            };
            match written.tried(|| format!("scale {}", target.path)) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() && left > 0 => target.scale = self.read(&target.path).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn path(kind: &Kind, namespace: &str, name: &str) -> String {
    let root = if kind.api.group.is_empty() { "api" } else { "apis" };
    let namespace = if kind.namespaced {
        format!("/namespaces/{namespace}")
    } else {
        String::new()
    };
    format!(
        "/{root}/{}{namespace}/{}/{name}/scale",
        kind.api.api_version, kind.api.plural
    )
}
