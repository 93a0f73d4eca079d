//! The objects of one kind, as who decides from informers asks for them and writes them: the requests of [`kube::Api`], with one request's
//! code for all kinds, and an answer that is read as an object only where somebody wants one. Most want to know that it was written,
//! and its revision ([`crate::Seen`]).

use std::fmt;
use std::marker::PhantomData;

use futures::future::{BoxFuture, FutureExt, ready};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{NamespaceResourceScope, Request, request};
use kube::{Client, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Kind;

/// The objects of a kind, in a namespace or in the cluster.
pub struct Api<K> {
    client: Client,
    requests: Request,
    kind: PhantomData<fn() -> K>,
}

/// What the API server answered: an object, as it is stored.
pub struct Answer<K> {
    /// The object's.
    pub name: String,
    /// The object's resourceVersion.
    pub revision: Option<u64>,
    text: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> fmt::Debug for Answer<K> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} at {:?}", self.name, self.revision)
    }
}

impl<K: Kind> Answer<K> {
    /// All of it.
    ///
    /// # Errors
    /// It is none of the kind.
    pub fn object(&self) -> Result<K, Error> {
        K::from_json(self.text.as_bytes()).map_err(Error::SerdeError)
    }
}

/// Some of the objects of one kind.
#[derive(Debug)]
pub struct Page<K> {
    /// In the order of their names.
    pub items: Vec<K>,
    /// The revision that this is of, and where the next page begins if there is one.
    pub metadata: ListMeta,
}

impl<K: Kind> Page<K> {
    fn read(text: &str) -> Result<Self, Error> {
        let list: Texts<'_> = serde_json::from_str(text).map_err(Error::SerdeError)?;
        let items = list
            .items
            .iter()
            .flatten()
            .map(|item| K::from_json(item.get().as_bytes()));
        Ok(Page {
            items: items.collect::<Result<_, _>>().map_err(Error::SerdeError)?,
            metadata: list.metadata,
        })
    }
}

#[derive(Deserialize)]
struct Texts<'a> {
    metadata: ListMeta,
    /// Of none, some servers say null.
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Meta<'a> {
    name: String,
    resource_version: Option<&'a str>,
}

impl<K> Answer<K> {
    fn read(text: String) -> Result<Self, Error> {
        let Head { metadata } = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        Ok(Answer {
            revision: metadata.resource_version.and_then(|revision| revision.parse().ok()),
            name: metadata.name,
            text,
            kind: PhantomData,
        })
    }
}

/// What the API server said of a request that it refused; else, why there is no answer.
pub fn words(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// A request of whatever kind, and its answer's text.
fn send(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, request::Error>,
) -> BoxFuture<'_, Result<String, Error>> {
    match request {
        Ok(request) => client.request_text(request).boxed(),
        Err(error) => ready(Err(Error::BuildRequest(error))).boxed(),
    }
}

type Answered<'a, K> = BoxFuture<'a, Result<Answer<K>, Error>>;

impl<K: kube::Resource<DynamicType = ()>> Api<K> {
    /// Of the whole cluster.
    pub fn all(client: Client) -> Self {
        Self::of(client, K::url_path(&(), None))
    }

    /// Of one namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
    {
        Self::of(client, K::url_path(&(), Some(namespace)))
    }
}

impl<K> Api<K> {
    fn of(client: Client, path: String) -> Self {
        Self {
            client,
            requests: Request::new(path),
            kind: PhantomData,
        }
    }

    fn answered(&self, request: Result<http::Request<Vec<u8>>, request::Error>) -> Answered<'_, K> {
        send(&self.client, request).map(|text| Answer::read(text?)).boxed()
    }

    /// # Errors
    /// Every request's: the server's refusal, or that it was not reached.
    pub fn patch(&self, name: &str, params: &PatchParams, patch: &Patch<Value>) -> Answered<'_, K> {
        self.answered(self.requests.patch(name, params, patch))
    }

    /// # Errors
    /// As [`Self::patch`].
    pub fn patch_status(&self, name: &str, params: &PatchParams, patch: &Patch<Value>) -> Answered<'_, K> {
        self.answered(self.requests.patch_subresource("status", name, params, patch))
    }

    /// Makes what a part of the object stands for: a binding, an eviction.
    ///
    /// # Errors
    /// As [`Self::patch`].
    pub fn create_subresource<S: Serialize>(
        &self,
        part: &str,
        name: &str,
        made: &S,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let request = match serde_json::to_vec(made) {
            Ok(text) => self
                .requests
                .create_subresource(part, name, &PostParams::default(), text),
            Err(error) => return ready(Err(Error::SerdeError(error))).boxed(),
        };
        send(&self.client, request).map(|text| text.map(drop)).boxed()
    }

    /// # Errors
    /// As [`Self::patch`].
    pub fn delete(&self, name: &str, params: &DeleteParams) -> BoxFuture<'_, Result<(), Error>> {
        let text = send(&self.client, self.requests.delete(name, params));
        text.map(|text| text.map(drop)).boxed()
    }
}

impl<K: Serialize> Api<K> {
    fn written(
        &self,
        object: &K,
        request: impl FnOnce(Vec<u8>) -> Result<http::Request<Vec<u8>>, request::Error>,
    ) -> Answered<'_, K> {
        match serde_json::to_vec(object) {
            Ok(text) => self.answered(request(text)),
            Err(error) => ready(Err(Error::SerdeError(error))).boxed(),
        }
    }

    /// # Errors
    /// As [`Self::patch`].
    pub fn create(&self, params: &PostParams, object: &K) -> Answered<'_, K> {
        self.written(object, |text| self.requests.create(params, text))
    }

    /// # Errors
    /// As [`Self::patch`].
    pub fn replace(&self, name: &str, params: &PostParams, object: &K) -> Answered<'_, K> {
        self.written(object, |text| self.requests.replace(name, params, text))
    }

    /// # Errors
    /// As [`Self::patch`].
    pub fn replace_subresource(&self, part: &str, name: &str, params: &PostParams, object: &K) -> Answered<'_, K> {
        self.written(object, |text| {
            self.requests.replace_subresource(part, name, params, text)
        })
    }

    /// # Errors
    /// As [`Self::patch`].
    pub fn replace_status(&self, name: &str, params: &PostParams, object: &K) -> Answered<'_, K> {
        self.replace_subresource("status", name, params, object)
    }
}

impl<K: Kind> Api<K> {
    /// The object of a name.
    ///
    /// # Errors
    /// As [`Self::patch`]; one that there is none is a refusal.
    pub fn get(&self, name: &str) -> BoxFuture<'_, Result<K, Error>> {
        let text = send(&self.client, self.requests.get(name, &GetParams::default()));
        text.map(|text| K::from_json(text?.as_bytes()).map_err(Error::SerdeError))
            .boxed()
    }

    /// The objects that are asked for, or a page of them.
    ///
    /// # Errors
    /// As [`Self::patch`].
    pub fn list(&self, params: &ListParams) -> BoxFuture<'_, Result<Page<K>, Error>> {
        let text = send(&self.client, self.requests.list(params));
        text.map(|text| Page::read(&text?)).boxed()
    }

    /// The object of a name; None: there is none.
    ///
    /// # Errors
    /// As [`Self::patch`].
    pub fn get_opt(&self, name: &str) -> BoxFuture<'_, Result<Option<K>, Error>> {
        self.get(name)
            .map(|found| match found {
                Err(Error::Api(status)) if status.is_not_found() => Ok(None),
                found => found.map(Some),
            })
            .boxed()
    }
}
