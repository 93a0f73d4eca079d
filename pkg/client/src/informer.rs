//! Shared informers: one reflector per kind per process, many readers. Readers take objects from its map or subscribe to
//! its events; a subscription begins with all that exists and loses nothing.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use kube::core::ApiResource;
use kube::runtime::watcher;
use kube::{Api, Resource};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use mk8s_supervisor::backoff::Backoff;

use crate::decoded::{Kind, Text, View};

/// A change of one object.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// It is there (`old` is none) or changed.
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    /// It is gone; its last known state.
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The object as it is, or was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Event::Applied { new, .. } => new,
            Event::Deleted(last) => last,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    name: String,
}

struct Shared<K> {
    view: View,
    state: RwLock<State<K>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: HashMap<Key, Arc<K>>,
    subscribers: Vec<mpsc::UnboundedSender<Event<K>>>,
}

impl<K: Kind> State<K> {
    fn publish(&mut self, event: Event<K>) {
        self.subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn apply(&mut self, new: Arc<K>) {
        let old = self.objects.insert(key(new.as_ref()), new.clone());
        // A relist repeats what is known already.
        if old
            .as_ref()
            .is_some_and(|old| old.meta().resource_version == new.meta().resource_version)
        {
            return;
        }
        self.publish(Event::Applied { old, new });
    }

    fn delete(&mut self, key: &Key) {
        if let Some(last) = self.objects.remove(key) {
            self.publish(Event::Deleted(last));
        }
    }
}

/// Read access to all objects of a kind (in its informer's scope). Clones share them.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer {
            shared: self.shared.clone(),
        }
    }
}

impl<K: Kind> Informer<K> {
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let key = Key {
            namespace: namespace.unwrap_or_default().to_string(),
            name: name.to_string(),
        };
        self.shared.state.read().objects.get(&key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// Those that `keep`, without a copy of the whole list.
    pub fn filter(&self, mut keep: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        self.shared
            .state
            .read()
            .objects
            .values()
            .filter(|object| keep(object))
            .cloned()
            .collect()
    }

    /// Resolves when the first list is in.
    pub async fn wait_synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// From here on every change, beginning with `Applied` for each object that exists.
    pub fn subscribe(&self) -> Subscription<K> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.shared.state.write();
        for new in state.objects.values() {
            let _ = sender.send(Event::Applied {
                old: None,
                new: new.clone(),
            });
        }
        state.subscribers.push(sender);
        Subscription { receiver }
    }
}

/// A reader's own queue of events.
pub struct Subscription<K> {
    receiver: mpsc::UnboundedReceiver<Event<K>>,
}

impl<K> Subscription<K> {
    /// The next event; pends for ever once the informer has ended (its process is shutting down).
    pub async fn next(&mut self) -> Event<K> {
        match self.receiver.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// An event that already waits.
    pub fn try_next(&mut self) -> Option<Event<K>> {
        self.receiver.try_recv().ok()
    }
}

type Slots = HashMap<(TypeId, View, String), Box<dyn Any + Send + Sync>>;

/// The process's informers, each started when first asked for. Clones share them.
#[derive(Clone)]
pub struct Informers {
    client: kube::Client,
    view: View,
    token: CancellationToken,
    slots: Arc<Mutex<Slots>>,
}

impl Informers {
    pub fn new(client: kube::Client, token: CancellationToken) -> Self {
        Informers {
            client,
            view: View::Whole,
            token,
            slots: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// The same informers, but objects come without what [`Kind::TRIM`] takes away: for a control plane, which holds all
    /// of a cluster, and never writes such an object back whole.
    pub fn trimmed(&self) -> Self {
        Informers {
            view: View::Trimmed,
            ..self.clone()
        }
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
            self.start("", field_selector, self.token.clone())
        })
    }

    /// The objects of one namespace that a field selector picks: what a node may watch of Secrets and ConfigMaps.
    pub fn in_namespace<K>(&self, namespace: &str, field_selector: &str) -> Informer<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        self.slot(format!("{namespace}/{field_selector}"), || {
            self.start(namespace, field_selector, self.token.clone())
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
    pub fn single<K>(&self, namespace: &str, name: &str) -> (Informer<K>, tokio_util::sync::DropGuard)
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
    {
        let token = self.token.child_token();
        let field_selector = format!("metadata.name={name}");
        let informer = self.start(namespace, &field_selector, token.clone());
        (informer, token.drop_guard())
    }

    /// Over one namespace or, where none is named, all.
    fn start<K: Kind>(&self, namespace: &str, field_selector: &str, token: CancellationToken) -> Informer<K> {
        let shared = Arc::new(Shared {
            view: self.view::<K>(),
            state: RwLock::new(State {
                objects: HashMap::new(),
                subscribers: Vec::new(),
            }),
            synced: watch::Sender::new(false),
        });
        let kind = ApiResource::erase::<K>(&());
        let api = match namespace {
            "" => Api::all_with(self.client.clone(), &kind),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &kind),
        };
        let mut config = watcher::Config::default();
        if !field_selector.is_empty() {
            config = config.fields(field_selector);
        }
        let reflector = reflect(api, config, shared.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = reflector => {}
                () = token.cancelled() => {}
            }
        });
        Informer { shared }
    }
}

/// Keeps `shared` as the API server has it, for ever.
async fn reflect<K: Kind>(api: Api<Text>, config: watcher::Config, shared: Arc<Shared<K>>) {
    // On the heap and behind a pointer: one stream for informers of all kinds.
    let mut events: BoxStream<'static, watcher::Result<watcher::Event<Text>>> = watcher(api, config).boxed();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    let mut listed: Option<HashSet<Key>> = None;
    loop {
        match events.next().await {
            Some(Ok(event)) => {
                backoff.reset();
                if let Err(error) = shared.hear(event, &mut listed) {
                    tracing::error!(kind = %K::kind(&()), %error, "an object cannot be decoded and is left out");
                }
            }
            Some(Err(error)) => {
                tracing::debug!(kind = %K::kind(&()), %error, "a watch failed and is tried again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            None => return,
        }
    }
}

impl<K: Kind> Shared<K> {
    /// `listed`: what a list that is coming in has named so far.
    fn hear(&self, event: watcher::Event<Text>, listed: &mut Option<HashSet<Key>>) -> Result<(), serde_json::Error> {
        match event {
            watcher::Event::Init => *listed = Some(HashSet::new()),
            watcher::Event::InitApply(object) => {
                let object = Arc::new(object.decode::<K>(self.view)?);
                if let Some(listed) = listed {
                    listed.insert(key(&*object));
                }
                self.state.write().apply(object);
            }
            watcher::Event::InitDone => {
                let listed = listed.take().unwrap_or_default();
                let mut state = self.state.write();
                let gone: Vec<Key> = state
                    .objects
                    .keys()
                    .filter(|key| !listed.contains(key))
                    .cloned()
                    .collect();
                for key in gone {
                    state.delete(&key);
                }
                drop(state);
                self.synced.send_replace(true);
            }
            watcher::Event::Apply(object) => {
                let object = object.decode(self.view)?;
                self.state.write().apply(Arc::new(object));
            }
            watcher::Event::Delete(object) => {
                let object = object.decode::<K>(self.view)?;
                let key = key(&object);
                let mut state = self.state.write();
                // What was deleted carries its last state, which may be newer than the one known here.
                state.objects.insert(key.clone(), Arc::new(object));
                state.delete(&key);
            }
        }
        Ok(())
    }
}

fn key<K: Kind>(object: &K) -> Key {
    let meta = object.meta();
    Key {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[tokio::test]
    async fn what_is_trimmed_is_not_shared_with_those_who_need_all() {
        let token = CancellationToken::new();
        let _ends = token.clone().drop_guard();
        let whole = Informers::new(crate::in_process(axum::Router::new(), "test"), token);
        let trimmed = whole.trimmed();
        assert!(!Arc::ptr_eq(&whole.of::<Pod>().shared, &trimmed.of::<Pod>().shared));
        assert!(Arc::ptr_eq(&trimmed.of::<Pod>().shared, &trimmed.of::<Pod>().shared));
        assert!(
            Arc::ptr_eq(&whole.of::<Node>().shared, &trimmed.of::<Node>().shared),
            "nothing to trim"
        );
    }
}
