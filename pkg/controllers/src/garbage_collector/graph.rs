//! Who owns whom: one node per object by uid, kept from the monitor's changes. Pure: says what has to be looked at, does nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::monitor::Kind;

/// Set on an object that goes after those that block it.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Set on an object that goes and leaves its dependents.
pub const ORPHAN: &str = "orphan";

/// An object, as far as the graph knows it.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// None while only dependents have told of it.
    pub kind: Option<Arc<Kind>>,
    /// As dependents name its kind.
    pub api_version: String,
    pub kind_name: String,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    /// Uids of those that name it as an owner.
    pub dependents: HashSet<String>,
    pub deleting: bool,
    /// It waits for those that block it.
    pub waits_for_dependents: bool,
    /// It wants its dependents to be orphaned.
    pub orphans_dependents: bool,
}

/// What has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// May this object stay?
    Check(String),
    /// Let its dependents go.
    Orphan(String),
    /// It names an owner in another namespace, where no owner of it can be: whoever made it is told.
    Misplaced {
        /// The object that names it.
        dependent: String,
        /// The owner's uid.
        owner: String,
    },
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Task::Check(uid) => write!(f, "check {uid}"),
            Task::Orphan(uid) => write!(f, "orphan the dependents of {uid}"),
            Task::Misplaced { dependent, owner } => write!(f, "tell that {dependent} can't be owned by {owner}"),
        }
    }
}

impl Node {
    /// Can it be what the reference of a dependent in `namespace` means? An owner is in its dependent's namespace or in none.
    fn is_near(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace == namespace
    }

    /// Is it there, and what the reference says, so that nothing need be asked of the API server?
    fn is_as_named(&self, reference: &OwnerReference, namespace: &str) -> bool {
        let named = (&self.name, &self.kind_name) == (&reference.name, &reference.kind);
        self.kind.is_some() && named && self.is_near(namespace)
    }
}

/// All objects.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// How many nodes there are of each kind. Of most kinds there are none, and 500 custom ones may be listed at once: the
    /// others' nodes are not looked through for them.
    counts: HashMap<Arc<Kind>, usize>,
}

impl Graph {
    /// An object by uid.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// An object is there, or changed.
    pub fn applied(&mut self, kind: &Arc<Kind>, meta: &ObjectMeta) -> Vec<Task> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let mut tasks = Vec::new();
        let new_owners = meta.owner_references.clone().unwrap_or_default();
        let node = self.nodes.entry(uid.clone()).or_default();
        let first_seen = node.kind.is_none();
        let old_owners = std::mem::replace(&mut node.owners, new_owners.clone());
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        let (waits, orphans) = (deleting && has(FOREGROUND), deleting && has(ORPHAN));
        let began_waiting = waits && !node.waits_for_dependents;
        let began_orphaning = orphans && !node.orphans_dependents;
        let moved = first_seen && node.namespace != meta.namespace.clone().unwrap_or_default();
        let old_kind = node.kind.replace(kind.clone());
        node.api_version.clone_from(&kind.api.api_version);
        node.kind_name.clone_from(&kind.api.kind);
        node.namespace = meta.namespace.clone().unwrap_or_default();
        node.name = meta.name.clone().unwrap_or_default();
        (node.deleting, node.waits_for_dependents, node.orphans_dependents) = (deleting, waits, orphans);
        if old_kind.as_ref() != Some(kind) {
            *self.counts.entry(kind.clone()).or_default() += 1;
            uncount(&mut self.counts, old_kind.as_ref());
        }
        if began_waiting {
            tasks.extend(node.dependents.iter().cloned().map(Task::Check));
            tasks.push(Task::Check(uid.clone()));
        }
        if began_orphaning {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if moved {
            tasks.extend(self.misplaced_dependents(&uid));
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let owners_changed = old_owners != new_owners;
        if owners_changed {
            tasks.extend(self.relink(&uid, namespace, &old_owners, &new_owners));
        }
        if (first_seen || owners_changed) && !new_owners.is_empty() {
            // Seen for the first time, its owners may be long gone, or never have been what it says.
            let doubtful = new_owners.iter().any(|o| {
                let owner = self.nodes.get(&o.uid);
                owner.is_none_or(|n| !n.is_as_named(o, namespace) || n.waits_for_dependents)
            });
            if doubtful || (!first_seen && owners_changed) {
                tasks.push(Task::Check(uid));
            }
        }
        tasks
    }

    /// An object turns out to be elsewhere than those that name it thought.
    fn misplaced_dependents(&self, uid: &str) -> Vec<Task> {
        let Some(owner) = self.nodes.get(uid) else {
            return Vec::new();
        };
        let far = owner.dependents.iter().filter(|dependent| {
            let dependent = self.nodes.get(*dependent);
            dependent.is_some_and(|dependent| !owner.is_near(&dependent.namespace))
        });
        far.flat_map(|dependent| [Task::Check(dependent.clone()), misplaced(dependent, uid)])
            .collect()
    }

    /// Moves the object from its old owners to its new ones.
    fn relink(&mut self, uid: &str, namespace: &str, old: &[OwnerReference], new: &[OwnerReference]) -> Vec<Task> {
        let mut tasks = Vec::new();
        for owner in old {
            let now = new.iter().find(|o| o.uid == owner.uid);
            if now.is_none()
                && let Some(node) = self.nodes.get_mut(&owner.uid)
            {
                node.dependents.remove(uid);
                self.drop_if_unknown(&owner.uid);
            }
            let unblocked =
                owner.block_owner_deletion == Some(true) && now.is_none_or(|n| n.block_owner_deletion != Some(true));
            if unblocked && self.nodes.get(&owner.uid).is_some_and(|n| n.waits_for_dependents) {
                tasks.push(Task::Check(owner.uid.clone()));
            }
        }
        for owner in new {
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| Node {
                api_version: owner.api_version.clone(),
                kind_name: owner.kind.clone(),
                namespace: namespace.to_owned(),
                name: owner.name.clone(),
                ..Node::default()
            });
            node.dependents.insert(uid.to_owned());
            if node.kind.is_some() && !node.is_near(namespace) {
                tasks.push(misplaced(uid, &owner.uid));
            }
        }
        tasks
    }

    fn drop_if_unknown(&mut self, uid: &str) {
        if self
            .nodes
            .get(uid)
            .is_some_and(|n| n.kind.is_none() && n.dependents.is_empty())
        {
            self.nodes.remove(uid);
        }
    }

    /// An object is gone: its dependents may have to go too, and owners that waited for it may be free.
    pub fn deleted(&mut self, uid: &str) -> Vec<Task> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        uncount(&mut self.counts, node.kind.as_ref());
        let mut tasks: Vec<Task> = node.dependents.iter().cloned().map(Task::Check).collect();
        for owner in &node.owners {
            if let Some(known) = self.nodes.get_mut(&owner.uid) {
                known.dependents.remove(uid);
                if known.waits_for_dependents {
                    tasks.push(Task::Check(owner.uid.clone()));
                }
                self.drop_if_unknown(&owner.uid);
            }
        }
        if !node.dependents.is_empty() {
            // Dependents still name it: should one be added later, it is found the same way.
            let unknown = Node {
                kind: None,
                owners: Vec::new(),
                deleting: false,
                waits_for_dependents: false,
                orphans_dependents: false,
                ..node
            };
            self.nodes.insert(uid.to_owned(), unknown);
        }
        tasks
    }

    /// Only these uids of a kind exist.
    pub fn listed(&mut self, kind: &Arc<Kind>, uids: &HashSet<String>) -> Vec<Task> {
        if !self.counts.contains_key(kind) {
            return Vec::new();
        }
        let gone: Vec<String> = self
            .nodes
            .iter()
            .filter(|(uid, node)| node.kind.as_ref() == Some(kind) && !uids.contains(*uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.deleted(uid)).collect()
    }

    /// The objects of a kind are another's from now on. They go on blocking their owners until that one's list says which are there.
    pub fn moved(&mut self, kind: &Arc<Kind>, next: &Arc<Kind>) {
        let Some(count) = self.counts.remove(kind) else { return };
        *self.counts.entry(next.clone()).or_default() += count;
        for node in self.nodes.values_mut().filter(|node| node.kind.as_ref() == Some(kind)) {
            node.kind = Some(next.clone());
            node.api_version.clone_from(&next.api.api_version);
            node.kind_name.clone_from(&next.api.kind);
        }
    }

    /// Are all its owners known to be there, and to stay? Then nothing need be asked: when one goes, the object comes up again. (At the start
    /// many objects are seen before their owners are.)
    pub fn is_settled(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| {
            let stays = |o: &OwnerReference| {
                let owner = self.nodes.get(&o.uid);
                owner.is_some_and(|owner| owner.is_as_named(o, &node.namespace) && !owner.waits_for_dependents)
            };
            !node.deleting && node.owners.iter().all(stays)
        })
    }

    /// Those that keep an object that waits for its dependents.
    pub fn blockers(&self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        node.dependents
            .iter()
            .filter(|dependent| {
                self.nodes.get(*dependent).is_some_and(|d| {
                    d.owners
                        .iter()
                        .any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
                })
            })
            .cloned()
            .collect()
    }
}

/// A node of this kind is there no more, or is of another.
fn uncount(counts: &mut HashMap<Arc<Kind>, usize>, kind: Option<&Arc<Kind>>) {
    if let Some(kind) = kind
        && let Some(count) = counts.get_mut(kind)
    {
        *count -= 1;
        if *count == 0 {
            counts.remove(kind);
        }
    }
}

fn misplaced(dependent: &str, owner: &str) -> Task {
    Task::Misplaced {
        dependent: dependent.to_owned(),
        owner: owner.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kube::discovery::ApiResource;

    use super::*;

    fn kind() -> Arc<Kind> {
        let api = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            plural: "pods".to_owned(),
        };
        Arc::new(Kind {
            api,
            namespaced: true,
            verbs: Vec::new(),
        })
    }

    fn object(uid: &str, owners: &[&str], finalizer: Option<&str>) -> ObjectMeta {
        let owner = |uid: &&str| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: (*uid).to_owned(),
            uid: (*uid).to_owned(),
            controller: None,
            block_owner_deletion: Some(true),
        };
        ObjectMeta {
            uid: Some(uid.to_owned()),
            name: Some(uid.to_owned()),
            owner_references: Some(owners.iter().map(owner).collect()),
            deletion_timestamp: finalizer.map(|_| crate::meta::now()),
            finalizers: finalizer.map(|f| vec![f.to_owned()]),
            ..ObjectMeta::default()
        }
    }

    fn check(uids: &[&str]) -> Vec<Task> {
        uids.iter().map(|uid| Task::Check((*uid).to_owned())).collect()
    }

    #[test]
    fn dependents_are_checked_when_their_owner_goes_or_was_never_there() {
        let (mut graph, kind) = (Graph::default(), kind());
        assert_eq!(graph.applied(&kind, &object("a", &[], None)), []);
        assert_eq!(graph.applied(&kind, &object("b", &["a"], None)), []);
        assert_eq!(graph.applied(&kind, &object("c", &["gone"], None)), check(&["c"]));
        assert!(graph.is_settled("b") && !graph.is_settled("c"));
        assert_eq!(graph.deleted("a"), check(&["b"]));
        assert!(!graph.is_settled("b"));
        assert_eq!(graph.applied(&kind, &object("d", &["a"], None)), check(&["d"]));
        let listed = HashSet::from(["b".to_owned()]);
        graph.listed(&kind, &listed);
        assert!(graph.get("c").is_none() && graph.get("b").is_some());
    }

    /// A list is of one kind, and of the version by which its objects are known.
    #[test]
    fn a_list_takes_away_what_is_of_its_kind_alone() {
        let (mut graph, kind) = (Graph::default(), kind());
        let mut later = Kind::clone(&kind);
        later.api.api_version = "v2".to_owned();
        let (later, none) = (Arc::new(later), HashSet::new());
        for uid in ["a", "b", "c"] {
            graph.applied(&kind, &object(uid, &[], None));
        }
        graph.applied(&kind, &object("c", &[], None));
        graph.applied(&later, &object("b", &[], None));
        assert_eq!(graph.counts, HashMap::from([(kind.clone(), 2), (later.clone(), 1)]));
        graph.listed(&kind, &none);
        assert!(graph.get("a").is_none() && graph.get("b").is_some() && graph.get("c").is_none());
        graph.listed(&kind, &none);
        graph.listed(&later, &none);
        assert!(graph.get("b").is_none() && graph.counts.is_empty());
    }

    #[test]
    fn foreground_owner_waits_for_blockers_and_is_checked_when_they_go() {
        let (mut graph, kind) = (Graph::default(), kind());
        graph.applied(&kind, &object("a", &[], None));
        graph.applied(&kind, &object("b", &["a"], None));
        let mut tasks = graph.applied(&kind, &object("a", &[], Some(FOREGROUND)));
        tasks.sort();
        assert_eq!(tasks, check(&["a", "b"]));
        assert_eq!(graph.applied(&kind, &object("a", &[], Some(FOREGROUND))), []);
        assert_eq!(graph.blockers("a"), ["b"]);
        assert_eq!(graph.deleted("b"), check(&["a"]));
        assert!(graph.blockers("a").is_empty());
    }

    /// Else the finalizer of the owner would go before they do.
    #[test]
    fn what_moves_to_another_version_goes_on_blocking() {
        let (mut graph, kind) = (Graph::default(), kind());
        let mut later = Kind::clone(&kind);
        later.api.api_version = "v2".to_owned();
        let later = Arc::new(later);
        graph.applied(&kind, &object("a", &[], Some(FOREGROUND)));
        graph.applied(&kind, &object("b", &["a"], None));
        graph.applied(&kind, &object("c", &["a"], None));
        graph.moved(&kind, &later);
        let mut blockers = graph.blockers("a");
        blockers.sort();
        assert_eq!(blockers, ["b", "c"]);
        assert_eq!(graph.counts, HashMap::from([(later.clone(), 3)]));
        let here = HashSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(graph.listed(&later, &here), check(&["a"]));
        assert_eq!(graph.blockers("a"), ["b"]);
    }

    #[test]
    fn orphaning_owner_is_told_once() {
        let (mut graph, kind) = (Graph::default(), kind());
        graph.applied(&kind, &object("a", &[], None));
        assert_eq!(
            graph.applied(&kind, &object("a", &[], Some(ORPHAN))),
            [Task::Orphan("a".to_owned())]
        );
        assert_eq!(graph.applied(&kind, &object("a", &[], Some(ORPHAN))), []);
    }

    fn placed(uid: &str, namespace: &str, owners: &[&str]) -> ObjectMeta {
        ObjectMeta {
            namespace: Some(namespace.to_owned()),
            ..object(uid, owners, None)
        }
    }

    #[test]
    fn an_owner_in_another_namespace_is_none_whichever_is_seen_first() {
        let kind = kind();
        let told = [misplaced("b", "a"), Task::Check("b".to_owned())];
        let mut owner_first = Graph::default();
        owner_first.applied(&kind, &placed("a", "one", &[]));
        assert_eq!(owner_first.applied(&kind, &placed("b", "two", &["a"])), told);
        assert_eq!(owner_first.applied(&kind, &placed("b", "two", &["a"])), [], "told once");
        assert!(!owner_first.is_settled("b"));
        let mut dependent_first = Graph::default();
        assert_eq!(
            dependent_first.applied(&kind, &placed("b", "two", &["a"])),
            check(&["b"])
        );
        let mut tasks = dependent_first.applied(&kind, &placed("a", "one", &[]));
        tasks.reverse();
        assert_eq!(tasks, told);
        // A cluster-scoped dependent can't have an owner in a namespace.
        let mut cluster_scoped = Graph::default();
        cluster_scoped.applied(&kind, &placed("a", "one", &[]));
        assert_eq!(cluster_scoped.applied(&kind, &placed("b", "", &["a"])), told);
        // And one in a namespace may have one that is in none.
        let mut near = Graph::default();
        near.applied(&kind, &placed("a", "", &[]));
        assert_eq!(near.applied(&kind, &placed("b", "two", &["a"])), []);
    }
}
