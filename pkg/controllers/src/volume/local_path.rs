//! Volumes on the nodes' own disks: what class `local-path` gives to claims, once the scheduler has named the node.
//!
//! Watches claims, volumes, classes and nodes; makes a volume for a claim that asks this provisioner, and deletes it when it is
//! let go and its policy says so. Acts as the binder, whose rights are just these. Here are objects only: the directory is the
//! node's. Its size is not enforced, and an event says so. Volumes that it did not make it never touches, nor does it make one for a
//! class of another provisioner, whatever a claim says: annotations are anybody's. Who disables local storage has no class `local-path`;
//! an own class that names this provisioner is served there too.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::Node;
use mk8s_api::meta as object;
use mk8s_client::{Event, EventRecorder, Informer, Raw};
use serde_json::{Value, json};

use super::{
    CLAIMS, CLASSES, PROVISIONED_BY, PROVISIONERS, REQUEST, SELECTED_NODE, Side, VOLUMES, access_modes,
    attributes_class, by_wanted_class, class, is_block, phase, volume_name, waits_for_consumer,
};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::meta::{self, Key};
use crate::rest::Part;

/// How classes and claims name it.
pub const PROVISIONER: &str = object::LOCAL_PROVISIONER;

const NAME: &str = "local-path-provisioner";
const WORKERS: usize = 2;
/// On volumes that are deleted with their claim, as external provisioners put it: who deletes such a volume by hand waits for
/// its claim too.
const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// Of a node that does not say where its volumes stand.
const DIRECTORY: &str = "/var/lib/mk8s/volumes";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// What a file system takes as one name.
const LONGEST_NAME: usize = 255;

struct Provisioner {
    ctx: Context,
    claims: Informer<Raw>,
    volumes: Informer<Raw>,
    classes: Informer<Raw>,
    nodes: Informer<Node>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let [claims, volumes, classes] = [&CLAIMS, &VOLUMES, &CLASSES].map(|kind| kind.informer(&ctx.informers));
    let nodes = ctx.informers.of::<Node>();
    let by_class = by_wanted_class(&claims);
    let by_node = claims.index("selected node", |claim| match meta::annotation(claim, SELECTED_NODE) {
        Some(node) if is_asked(claim) => vec![node.to_owned()],
        _ => Vec::new(),
    });
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&claims, |event| match event {
        Event::Applied { new, .. } if is_asked(new) => vec![Side::Claim(Key::of(&**new))],
        _ => Vec::new(),
    });
    driver.watch(&volumes, |event| match event {
        Event::Applied { new, .. } if is_own(new) => vec![Side::Volume(meta::name(&**new).to_owned())],
        _ => Vec::new(),
    });
    driver.watch(&classes, move |event| {
        let waiting = by_class.get(meta::name(&**event.object()));
        let asking = waiting.iter().filter(|claim| is_asked(claim));
        asking.map(|claim| Side::Claim(Key::of(&**claim))).collect()
    });
    driver.watch(&nodes, move |event| {
        let (old, node) = match event {
            Event::Applied { old, new } => (old.as_deref(), new),
            Event::Deleted(node) => (None, node),
        };
        if old.is_some_and(|old| place(old) == place(node)) {
            return Vec::new();
        }
        let asking = by_node.get(meta::name(&**node));
        asking.iter().map(|claim| Side::Claim(Key::of(&**claim))).collect()
    });
    let recorder = ctx.recorder(NAME);
    let provisioner = Provisioner {
        ctx,
        claims,
        volumes,
        classes,
        nodes,
        recorder,
    };
    driver.run(WORKERS, provisioner).await
}

/// Whether a claim waits for a volume of this provisioner's.
fn is_asked(claim: &Raw) -> bool {
    let asked = PROVISIONERS.iter().find_map(|key| meta::annotation(claim, key));
    asked == Some(PROVISIONER) && volume_name(claim).is_empty() && !meta::deleting(claim)
}

fn is_own(volume: &Raw) -> bool {
    meta::annotation(volume, PROVISIONED_BY) == Some(PROVISIONER)
}

/// What a node says of itself for its volumes.
fn place(node: &Node) -> (Option<&str>, Option<&str>) {
    let hostname = meta::labels(node).get(HOSTNAME).map(String::as_str);
    (hostname, meta::annotation(node, object::VOLUMES_DIRECTORY))
}

/// What becomes of a claim that asks.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Its class has another provisioner.
    NotOurs,
    /// The volume that it gets.
    Make(Value),
    /// The scheduler has not named its node.
    Wait,
    /// Why it gets none.
    Refuse(String),
    /// The node that was named is not there: the scheduler names another.
    Elsewhere(String),
}

/// `node` is the one that the claim's annotation names, if it is there.
fn plan(claim: &Raw, class: &Raw, node: Option<&Node>) -> Plan {
    if object::string(&class.value, &["provisioner"]) != PROVISIONER {
        return Plan::NotOurs;
    }
    if let Some(why) = refusal(claim, class) {
        return Plan::Refuse(why);
    }
    let Some(selected) = meta::annotation(claim, SELECTED_NODE) else {
        return match waits_for_consumer(class) {
            true => Plan::Wait,
            false => Plan::Refuse(
                "a local volume is on the node of its first pod: the class has to have volumeBindingMode WaitForFirstConsumer"
                    .into(),
            ),
        };
    };
    let Some(node) = node else {
        return Plan::Elsewhere(format!("Failed to get target node: node \"{selected}\" not found"));
    };
    let (hostname, directory) = place(node);
    let Some(hostname) = hostname else {
        return Plan::Refuse(format!("node \"{selected}\" has no label {HOSTNAME}"));
    };
    let directory = directory.unwrap_or(DIRECTORY);
    if !is_plain(directory) {
        return Plan::Refuse(format!(
            "node \"{selected}\" says that its volumes stand below {directory:?}"
        ));
    }
    Plan::Make(volume(
        claim,
        class,
        hostname,
        &format!("{directory}/{}", folder(claim)),
    ))
}

/// What a directory can't give.
fn refusal(claim: &Raw, class: &Raw) -> Option<String> {
    let shared = access_modes(claim).find(|mode| !matches!(*mode, "ReadWriteOnce" | "ReadWriteOncePod"));
    let has = |owner: &Raw, path: &[&str]| object::at(&owner.value, path).is_some();
    if let Some(mode) = shared {
        return Some(format!(
            "access mode {mode} is not supported: a local volume is on one node"
        ));
    }
    let unsupported = [
        (is_block(claim), "volumeMode Block"),
        (has(claim, &["spec", "selector"]), "a selector"),
        (has(claim, &["spec", "dataSource"]), "a data source"),
        (has(claim, &["spec", "dataSourceRef"]), "a data source"),
        (!attributes_class(claim).is_empty(), "a VolumeAttributesClass"),
        (
            !object::items(&class.value, &["mountOptions"]).is_empty(),
            "mount options",
        ),
        (
            !object::items(&class.value, &["allowedTopologies"]).is_empty(),
            "allowed topologies",
        ),
    ];
    let first = unsupported.into_iter().find(|(asked, _)| *asked);
    first.map(|(_, what)| format!("{what} is not supported by {PROVISIONER}"))
}

/// Absolute, and the way it reads.
fn is_plain(directory: &str) -> bool {
    let mut parts = Path::new(directory).components();
    parts.next() == Some(Component::RootDir) && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The directory's name: unique by the claim's uid, and of the other names as much as there is room for.
fn folder(claim: &Raw) -> String {
    let (namespace, uid) = (meta::namespace(claim), meta::uid(claim));
    let room = LONGEST_NAME.saturating_sub(namespace.len() + uid.len() + 2);
    let name: String = meta::name(claim).chars().take(room).collect();
    format!("{namespace}_{name}_{uid}")
}

fn name_for(claim: &Raw) -> String {
    format!("pvc-{}", meta::uid(claim))
}

fn policy(owner: &Value, path: &[&str]) -> String {
    object::str_at(owner, path).unwrap_or("Delete").to_owned()
}

fn volume(claim: &Raw, class: &Raw, hostname: &str, path: &str) -> Value {
    let policy = policy(&class.value, &["reclaimPolicy"]);
    let finalizers = if policy == "Delete" {
        vec![FINALIZER]
    } else {
        Vec::new()
    };
    let term = json!({"key": HOSTNAME, "operator": "In", "values": [hostname]});
    json!({
        "apiVersion": "v1", "kind": VOLUMES.kind,
        "metadata": {"name": name_for(claim), "annotations": {PROVISIONED_BY: PROVISIONER}, "finalizers": finalizers},
        "spec": {
            "capacity": {"storage": object::at(&claim.value, &REQUEST)},
            "accessModes": access_modes(claim).collect::<Vec<_>>(),
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": meta::name(class),
            "volumeMode": "Filesystem",
            "claimRef": CLAIMS.reference(claim),
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        },
    })
}

/// What becomes of a volume.
#[derive(Debug, PartialEq)]
enum Change {
    Nothing,
    Delete,
    Finalizers(Vec<String>),
}

/// A finalizer for those that go with their claims, as long as they do; deletion when they are let go.
fn change(volume: &Raw) -> Change {
    let deletes = policy(&volume.value, &["spec", "persistentVolumeReclaimPolicy"]) == "Delete";
    let (has, going) = (meta::has_finalizer(volume, FINALIZER), meta::deleting(volume));
    let mut finalizers = volume.metadata.finalizers.clone().unwrap_or_default();
    let let_go = matches!(phase(volume), "Released" | "Failed");
    if deletes && let_go && !going {
        return Change::Delete;
    }
    let ended = going && phase(volume) != "Bound";
    match (has, deletes && !ended) {
        (true, false) => finalizers.retain(|own| own != FINALIZER),
        (false, true) if !going => finalizers.push(FINALIZER.to_owned()),
        _ => return Change::Nothing,
    }
    Change::Finalizers(finalizers)
}

impl Reconcile<Side> for Provisioner {
    async fn reconcile(&self, side: Side) -> Result<Next, Error> {
        match &side {
            Side::Claim(key) => {
                let claim = self.claims.get(key.ns(), &key.name);
                if let Some(claim) = claim.filter(|claim| is_asked(claim)) {
                    self.provide(&claim).await?;
                }
            }
            Side::Volume(name) => {
                let volume = self.volumes.get(None, name);
                if let Some(volume) = volume.filter(|volume| is_own(volume)) {
                    self.keep(&volume).await?;
                }
            }
        }
        Ok(Next::Done)
    }
}

impl Provisioner {
    async fn provide(&self, claim: &Raw) -> Result<(), Error> {
        // One that was made is on its way to the claim.
        if self.volumes.get(None, &name_for(claim)).is_some() {
            return Ok(());
        }
        let wanted = class(claim).unwrap_or_default();
        let node = meta::annotation(claim, SELECTED_NODE).and_then(|name| self.nodes.get(None, name));
        let plan = match self.classes.get(None, wanted) {
            Some(class) => plan(claim, &class, node.as_deref()),
            None => Plan::Refuse(format!("storageclass.storage.k8s.io \"{wanted}\" not found")),
        };
        match plan {
            Plan::NotOurs | Plan::Wait => {}
            Plan::Make(volume) => match VOLUMES.create(&self.ctx.client, &volume).await {
                Ok(made) => {
                    let message = format!(
                        "Successfully provisioned volume {} using {PROVISIONER}; its size is not enforced",
                        meta::name(&made)
                    );
                    self.tell(claim, "Normal", "ProvisioningSucceeded", message);
                }
                // Its name has the claim's uid: it is this one's.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            },
            Plan::Refuse(why) => self.refused(claim, wanted, &why),
            Plan::Elsewhere(why) => {
                self.refused(claim, wanted, &why);
                let mut new = claim.value.clone();
                object::remove(&mut new, &["metadata", "annotations", SELECTED_NODE]);
                CLAIMS.replace(&self.ctx.client, &new, Part::Object).await?;
            }
        }
        Ok(())
    }

    fn refused(&self, claim: &Raw, class: &str, why: &str) {
        let message = format!("Failed to provision volume with StorageClass \"{class}\": {why}");
        self.tell(claim, "Warning", "ProvisioningFailed", message);
    }

    async fn keep(&self, volume: &Raw) -> Result<(), Error> {
        let client = &self.ctx.client;
        match change(volume) {
            Change::Nothing => Ok(()),
            Change::Delete => VOLUMES.delete(client, volume).await.map(drop),
            Change::Finalizers(finalizers) => {
                let mut new = volume.value.clone();
                object::set(&mut new, &["metadata", "finalizers"], finalizers);
                VOLUMES.replace(client, &new, Part::Object).await.map(drop)
            }
        }
    }

    fn tell(&self, claim: &Raw, type_: &'static str, reason: &str, message: String) {
        self.recorder.event(&CLAIMS.reference(claim), type_, reason, message);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::raw;
    use super::*;

    fn claim(more: &Value) -> Raw {
        let mut claim = json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": {SELECTED_NODE: "n1", PROVISIONERS[0]: PROVISIONER}},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path"},
        });
        mk8s_api::patch::merge(&mut claim, more).unwrap();
        raw(claim)
    }

    fn class(more: &Value) -> Raw {
        let mut class = json!({"metadata": {"name": "local-path"}, "provisioner": PROVISIONER, "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer"});
        mk8s_api::patch::merge(&mut class, more).unwrap();
        raw(class)
    }

    fn node(labels: &Value, directory: Option<&str>) -> Node {
        let metadata = json!({"name": "n1", "labels": labels, "annotations": {object::VOLUMES_DIRECTORY: directory.unwrap_or("/var/lib/mk8s/volumes")}});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn a_claim_gets_a_directory_of_the_node_that_was_named() {
        let node = node(&json!({HOSTNAME: "host-1"}), Some("/srv/mk8s/volumes"));
        let Plan::Make(volume) = plan(&claim(&json!({})), &class(&json!({})), Some(&node)) else {
            panic!("no volume");
        };
        assert_eq!(volume["metadata"]["name"], "pvc-u");
        assert_eq!(volume["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(volume["spec"]["local"]["path"], "/srv/mk8s/volumes/n_c_u");
        let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
        assert_eq!(term, &json!({"key": HOSTNAME, "operator": "In", "values": ["host-1"]}));
        assert_eq!(volume["spec"]["claimRef"]["uid"], "u");
        assert_eq!(volume["spec"]["capacity"], json!({"storage": "1Gi"}));
        assert_eq!(volume["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        let retained = plan(
            &claim(&json!({})),
            &class(&json!({"reclaimPolicy": "Retain"})),
            Some(&node),
        );
        let Plan::Make(volume) = retained else {
            panic!("{retained:?}")
        };
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(volume["metadata"]["finalizers"], json!([]));
    }

    fn told(claim_more: &Value, class_more: &Value, node: Option<&Node>) -> String {
        match plan(&claim(claim_more), &class(class_more), node) {
            Plan::Refuse(why) => why,
            Plan::Elsewhere(why) => format!("elsewhere: {why}"),
            Plan::NotOurs => "not ours".into(),
            Plan::Wait => "wait".into(),
            Plan::Make(_) => "made".into(),
        }
    }

    #[test]
    fn what_a_directory_cannot_give_is_refused() {
        let here = node(&json!({HOSTNAME: "n1"}), None);
        let of_claim = |spec: Value, expected| (json!({"spec": spec}), json!({}), expected);
        let source = json!({"kind": "PersistentVolumeClaim", "name": "d"});
        for (claim, class, expected) in [
            of_claim(json!({}), "made"),
            of_claim(json!({"accessModes": ["ReadWriteOncePod"]}), "made"),
            of_claim(
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}),
                "access mode ReadWriteMany is not",
            ),
            of_claim(
                json!({"accessModes": ["ReadOnlyMany"]}),
                "access mode ReadOnlyMany is not supported",
            ),
            of_claim(json!({"volumeMode": "Block"}), "volumeMode Block is not supported"),
            of_claim(json!({"selector": {}}), "a selector is not supported"),
            of_claim(json!({"dataSource": source}), "a data source is not supported"),
            (
                json!({}),
                json!({"mountOptions": ["ro"]}),
                "mount options is not supported",
            ),
            (
                json!({"spec": {"volumeMode": "Block"}}),
                json!({"provisioner": "example.org/disk"}),
                "not ours",
            ),
        ] {
            let found = told(&claim, &class, Some(&here));
            assert!(found.contains(expected), "{found}, not {expected}: {claim} {class}");
        }
    }

    #[test]
    fn a_volume_waits_for_a_node_that_is_there_and_says_who_it_is() {
        let (here, none) = (node(&json!({HOSTNAME: "n1"}), None), json!({}));
        let unnamed = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
        assert_eq!(told(&unnamed, &none, Some(&here)), "wait");
        let immediate = json!({"volumeBindingMode": "Immediate"});
        assert!(told(&unnamed, &immediate, None).contains("WaitForFirstConsumer"));
        let gone = "elsewhere: Failed to get target node: node \"n1\" not found";
        assert_eq!(told(&none, &none, None), gone);
        let nameless = node(&none, None);
        assert!(told(&none, &none, Some(&nameless)).contains("has no label"));
        for directory in ["volumes", "/a/../etc", ""] {
            let found = told(&none, &none, Some(&node(&json!({HOSTNAME: "n1"}), Some(directory))));
            assert!(found.contains("stand below"), "{directory}: {found}");
        }
    }

    #[test]
    fn a_directorys_name_fits_a_file_system() {
        let (name, namespace) = ("c".repeat(253), "n".repeat(63));
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        let long = claim(&json!({"metadata": {"name": name, "namespace": namespace, "uid": uid}}));
        let folder = folder(&long);
        assert_eq!(folder.len(), LONGEST_NAME);
        assert!(folder.starts_with(&namespace) && folder.ends_with(uid));
    }

    #[test]
    fn a_volume_goes_when_it_is_let_go_and_not_before() {
        let volume = |policy: &str, phase: &str, going: bool, finalizers: &[&str]| {
            let at = going.then_some("2026-01-01T00:00:00Z");
            raw(
                json!({"metadata": {"name": "v", "finalizers": finalizers, "deletionTimestamp": at},
                "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}}),
            )
        };
        let (own, none) = (&["x", FINALIZER][..], &["x"][..]);
        let finalizers = |names: &[&str]| Change::Finalizers(names.iter().map(|name| (*name).to_owned()).collect());
        for (policy, phase, going, has, expected) in [
            ("Delete", "Bound", false, own, Change::Nothing),
            ("Delete", "Bound", false, none, finalizers(own)),
            ("Retain", "Bound", false, own, finalizers(none)),
            ("Retain", "Released", false, none, Change::Nothing),
            ("Delete", "Released", false, own, Change::Delete),
            ("Delete", "Bound", true, own, Change::Nothing),
            ("Delete", "Released", true, own, finalizers(none)),
            ("Delete", "Released", true, none, Change::Nothing),
            ("Delete", "Available", true, own, finalizers(none)),
        ] {
            let found = change(&volume(policy, phase, going, has));
            assert_eq!(found, expected, "{policy} {phase} {going} {has:?}");
        }
    }
}
