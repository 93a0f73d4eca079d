//! The indexes over shared informers, each with its one name: who needs objects by their owner, node or labels asks here, and
//! all who ask share what was made for the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};
use mk8s_client::{Index, Informer, Kind};

use crate::meta::Key;
use crate::{endpoints, meta, pod};

/// Dependents by their manager. What is in another namespace is no dependent, whatever it says: who may write there may have no say in
/// the manager's.
pub struct Owned<K>(Index<K>);

impl<K> Clone for Owned<K> {
    fn clone(&self) -> Self {
        Owned(self.0.clone())
    }
}

impl<K: Kind> Owned<K> {
    /// Of all objects of the kind.
    pub fn of(informer: &Informer<K>) -> Self {
        Owned(informer.index("owner", |object| match meta::controller_of(object) {
            Some(owner) => vec![owned_by(meta::namespace(object), &owner.uid)],
            None => labelled("orphan/", object),
        }))
    }

    /// Those that the object manages.
    pub fn by(&self, owner: &impl kube::Resource) -> Vec<Arc<K>> {
        self.by_uid(meta::namespace(owner), meta::uid(owner))
    }

    /// Those whose manager in the namespace has this uid.
    pub fn by_uid(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        self.0.get(&owned_by(namespace, uid))
    }

    /// The orphans of a namespace that may have all these labels, and some that do not.
    pub fn orphans(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<K>> {
        self.0.get(&rarest(&self.0, "orphan/", namespace, labels))
    }
}

/// Under what dependents are found.
pub fn owned_by(namespace: &str, uid: &str) -> String {
    ["owner/", namespace, "/", uid].concat()
}

/// Objects by their namespace, and in it by each of their labels: for [`with_labels`].
pub fn labels<K: Kind>(informer: &Informer<K>) -> Index<K> {
    informer.index("labels", |object| labelled("", object))
}

/// The same of the pods that have an address to be published: thousands that wait for their nodes are nothing to look at.
pub fn published(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("published", |pod| match endpoints::is_published(pod, true) {
        true => labelled("", pod),
        false => Vec::new(),
    })
}

/// The objects of a namespace that may have all these labels, and some that do not; without labels, all of the namespace.
pub fn with_labels<K: Kind>(index: &Index<K>, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<K>> {
    index.get(&rarest(index, "", namespace, labels))
}

fn labelled<K: Kind>(prefix: &str, object: &K) -> Vec<String> {
    let (namespace, labels) = (meta::namespace(object), meta::labels(object));
    let mut keys = Vec::with_capacity(1 + labels.len());
    keys.push([prefix, namespace].concat());
    keys.extend(labels.iter().map(|label| key(prefix, namespace, label)));
    keys
}

fn key(prefix: &str, namespace: &str, (label, value): (&String, &String)) -> String {
    [prefix, namespace, "/", label, "=", value].concat()
}

/// The key that finds the fewest objects among which all with these labels are.
fn rarest<K: Kind>(index: &Index<K>, prefix: &str, namespace: &str, labels: &BTreeMap<String, String>) -> String {
    let keys = labels.iter().map(|label| key(prefix, namespace, label));
    let all = || format!("{prefix}{namespace}");
    keys.min_by_key(|key| index.count(key)).unwrap_or_else(all)
}

/// Objects by their namespace.
pub fn namespace<K: Kind>(informer: &Informer<K>) -> Index<K> {
    informer.index("namespace", |object| vec![meta::namespace(object).to_owned()])
}

/// Pods by the node that they run on; those without one under the empty name.
pub fn node(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("node", |pod| vec![pod::node(pod).to_owned()])
}

/// Pods by the claims that their volumes are, `namespace/name`.
pub fn claims(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("claim", |pod| claims_of(pod).map(|key| key.to_string()).collect())
}

/// The claims that a pod's volumes are.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = Key> {
    let claims = pod::volumes(pod).filter_map(|volume| claim_of(pod, volume));
    claims.map(|claim| Key::new(meta::namespace(pod), &claim))
}

/// The name of the claim that a volume is, or that is made for it.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", meta::name(pod), volume.name))
}

/// Pods that have finished, all under the empty name, so that they can be counted.
pub fn finished(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("finished", |pod| match pod::is_terminal(pod) {
        true => vec![String::new()],
        false => Vec::new(),
    })
}
