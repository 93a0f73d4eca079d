//! Kinds that are read in part and written back whole, as JSON: where the API has them, and the requests that controllers send.
//!
//! A type for each would cost its own informer, client and codec, and few of its fields are ever asked for. A write has the
//! revision that was read: what changed since is a conflict, and decided anew.

use kube::Client;
use kube::api::{DeleteParams, GetParams, PostParams, Preconditions};
use kube::core::Request;
use mk8s_client::{Informer, Informers, Raw};
use serde_json::Value;

use crate::error::{Error, Tried};
use crate::meta::{self, Key};

/// A kind, in version v1.
#[derive(Debug)]
pub struct Rest {
    /// Empty for the core group.
    pub group: &'static str,
    /// `PersistentVolume`
    pub kind: &'static str,
    /// `persistentvolumes`
    pub plural: &'static str,
}

/// What of an object a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its metadata and spec.
    Object,
    /// Its status.
    Status,
}

impl Rest {
    /// All objects of it.
    pub fn informer(&self, informers: &Informers) -> Informer<Raw> {
        Raw::informer(informers, self.group, self.kind, self.plural)
    }

    /// Where the API has a namespace's objects; for objects of the cluster it is empty.
    fn path(&self, namespace: &str) -> Request {
        let root = match self.group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        Request::new(match namespace {
            "" => format!("{root}/{}", self.plural),
            namespace => format!("{root}/namespaces/{namespace}/{}", self.plural),
        })
    }

    /// The object as it is now, if it is there.
    pub async fn get(&self, client: &Client, key: &Key) -> Result<Option<Raw>, Error> {
        let what = || format!("get {} {key}", self.kind);
        let asked = self.path(&key.namespace).get(&key.name, &GetParams::default());
        self.send(client, asked, what).await.or_else(none_if_gone)
    }

    /// Makes it; its namespace is the object's.
    pub async fn create(&self, client: &Client, object: &Value) -> Result<Raw, Error> {
        let namespace = mk8s_api::meta::namespace(object);
        let what = || format!("create {} {namespace}/{}", self.kind, mk8s_api::meta::name(object));
        let asked = self.path(namespace).create(&PostParams::default(), body(object));
        self.send(client, asked, what)
            .await?
            .ok_or_else(|| Error::Invalid(what()))
    }

    /// Writes it back; none: it is gone.
    pub async fn replace(&self, client: &Client, object: &Value, part: Part) -> Result<Option<Raw>, Error> {
        let (namespace, name) = (mk8s_api::meta::namespace(object), mk8s_api::meta::name(object));
        let (path, params) = (self.path(namespace), PostParams::default());
        let asked = match part {
            Part::Object => path.replace(name, &params, body(object)),
            Part::Status => path.replace_subresource("status", name, &params, body(object)),
        };
        let what = || match part {
            Part::Object => format!("update {} {namespace}/{name}", self.kind),
            Part::Status => format!("update status of {} {namespace}/{name}", self.kind),
        };
        self.send(client, asked, what).await.or_else(none_if_gone)
    }

    /// Deletes this very object; false: it is gone.
    pub async fn delete(&self, client: &Client, object: &Raw) -> Result<bool, Error> {
        let key = Key::of(object);
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: None,
        });
        let asked = self.path(&key.namespace).delete(&key.name, &params);
        let deleted = self.send(client, asked, || format!("delete {} {key}", self.kind)).await;
        deleted.or_else(none_if_gone).map(|answer| answer.is_some())
    }

    /// The object that Events name.
    pub fn reference(&self, object: &Raw) -> k8s_openapi::api::core::v1::ObjectReference {
        object.reference(self.group, self.kind)
    }

    async fn send<E: std::fmt::Display>(
        &self,
        client: &Client,
        asked: Result<http::Request<Vec<u8>>, E>,
        what: impl Fn() -> String,
    ) -> Result<Option<Raw>, Error> {
        let asked = asked.map_err(|error| Error::Invalid(format!("{}: {error}", what())))?;
        let answer = client.request::<Value>(asked).await.tried(&what)?;
        let answer = Raw::new(answer);
        answer
            .map(Some)
            .map_err(|error| Error::Invalid(format!("{}: {error}", what())))
    }
}

fn body(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}

fn none_if_gone<T>(error: Error) -> Result<Option<T>, Error> {
    if error.is_not_found() { Ok(None) } else { Err(error) }
}

/// Is it the same object, and not only one of its name?
pub fn is_same(one: &Raw, other: &Raw) -> bool {
    meta::uid(one) == meta::uid(other)
}
