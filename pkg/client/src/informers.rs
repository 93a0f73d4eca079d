//! Shared informers: one reflector per kind and scope in a process, many readers.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use mk8s_supervisor::{OnExit, Supervisor, until};
use parking_lot::Mutex;
use tokio_util::sync::DropGuard;

use crate::feed::{Feed, Selection};
use crate::http_feed::HttpFeed;
use crate::informer::{Informer, Shared};
use crate::kind::{Kind, View};
use crate::reflector::reflect;

type Slots = HashMap<(TypeId, View, String), Box<dyn Any + Send + Sync>>;

/// The process's informers that read as one identity, each started when first asked for. Clones share them.
#[derive(Clone)]
pub struct Informers {
    feed: Arc<dyn Feed>,
    view: View,
    owner: Supervisor,
    slots: Arc<Mutex<Slots>>,
}

impl Informers {
    /// Informers that list and watch through a client. Their reflectors are tasks of `owner`'s.
    pub fn new(client: kube::Client, owner: &Supervisor) -> Self {
        Informers::fed(Arc::new(HttpFeed::new(client)), owner)
    }

    /// Informers that read a feed: in the API server's process its watch cache itself. Their reflectors are tasks of `owner`'s.
    pub fn fed(feed: Arc<dyn Feed>, owner: &Supervisor) -> Self {
        Informers {
            feed,
            view: View::Whole,
            owner: owner.clone(),
            slots: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// The same informers, but kinds of which a cluster has very many (pods) are kept as their feed's text, and come without
    /// what only their node reads ([`Kind::TRIM`]): for a control plane, which holds all of a cluster, and never writes such
    /// an object back whole.
    pub fn packed(&self) -> Self {
        Informers {
            view: View::Packed,
            ..self.clone()
        }
    }

    /// Whose tasks the reflectors are.
    pub fn owner(&self) -> &Supervisor {
        &self.owner
    }

    fn view<K: Kind>(&self) -> View {
        if K::TRIM.is_some() { self.view } else { View::Whole }
    }

    /// All objects of a kind, in every namespace.
    pub fn of<K: Kind>(&self) -> Informer<K> {
        self.of_where("")
    }

    /// The objects that a field selector picks (`spec.nodeName=a`, `metadata.name=x,metadata.namespace=y`).
    pub fn of_where<K: Kind>(&self, field_selector: &str) -> Informer<K> {
        self.slot(field_selector.to_string(), || {
            self.start(selection::<K>("", field_selector), &self.owner)
        })
    }

    /// The objects that are selected, whose kind may be another one than the type's: where a type reads a part of several.
    pub fn selected<K: Kind>(&self, selection: Selection) -> Informer<K> {
        self.slot(format!("{selection:?}"), || self.start(selection, &self.owner))
    }

    /// The objects of one namespace that a field selector picks: what a node may watch of Secrets and ConfigMaps.
    pub fn in_namespace<K>(&self, namespace: &str, field_selector: &str) -> Informer<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        self.slot(format!("{namespace}/{field_selector}"), || {
            self.start(selection::<K>(namespace, field_selector), &self.owner)
        })
    }

    fn slot<K: Kind>(&self, scope: String, start: impl FnOnce() -> Informer<K>) -> Informer<K> {
        let mut slots = self.slots.lock();
        let slot = slots
            .entry((TypeId::of::<K>(), self.view::<K>(), scope))
            .or_insert_with(|| Box::new(start()));
        match slot.downcast_ref::<Informer<K>>() {
            Some(informer) => informer.clone(),
            None => unreachable!("a slot holds the informer of its key's type"),
        }
    }

    /// A watch outside the shared table, for one object; ends when the returned guard is dropped.
    pub fn single<K>(&self, namespace: &str, name: &str) -> (Informer<K>, DropGuard)
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        let owner = self.owner.scope();
        let informer = self.start(selection::<K>(namespace, &format!("metadata.name={name}")), &owner);
        (informer, owner.token().clone().drop_guard())
    }

    fn start<K: Kind>(&self, selection: Selection, owner: &Supervisor) -> Informer<K> {
        let shared = Arc::new(Shared::new(self.view::<K>()));
        let (feed, kept) = (self.feed.clone(), shared.clone());
        let name = format!("reflector of {}", selection.plural);
        owner.spawn(name, OnExit::Restart, move |token| {
            until(token, reflect(feed.clone(), selection.clone(), kept.clone()))
        });
        Informer { shared }
    }
}

/// A type's own kind, over one namespace or, where none is named, all.
fn selection<K: Kind>(namespace: &str, field_selector: &str) -> Selection {
    Selection {
        group: K::group(&()).into_owned(),
        version: K::version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        plural: K::plural(&()).into_owned(),
        namespace: namespace.to_string(),
        field_selector: field_selector.to_string(),
    }
}
