//! Who looks on from the beginning, and knows what must never be, not even for a moment: of what there may be one, two at once; what
//! has been done, done again; what has failed too often, tried once more.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

/// Whose indexes have two tries each.
pub const LIMITED: &str = "limited-";
const TRIES: usize = 2;

/// Looks on until the token is cancelled; tells what was amiss.
pub async fn look_on(client: Client, namespace: &'static str, end: CancellationToken) -> Vec<String> {
    let (mut pods, mut jobs) = (Pods::default(), Alone::default());
    tokio::select! {
        () = follow(Api::<Pod>::namespaced(client.clone(), namespace), |there, pod| pods.see(there, &pod)) => {}
        () = follow(Api::<Job>::namespaced(client, namespace), |there, job| {
            jobs.see(&job.uid().unwrap(), runs_alone(&job).filter(|_| there));
        }) => {}
        () = end.cancelled() => {}
    }
    [pods.breaches, pods.alone.breaches, jobs.breaches].concat()
}

/// Tells of every change, in their order; of each object, whether it is still there.
async fn follow<K>(objects: Api<K>, mut tell: impl FnMut(bool, K))
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let empty = objects.list(&ListParams::default()).await.unwrap();
    assert!(empty.items.is_empty(), "who looks on comes first");
    let mut revision = empty.metadata.resource_version.unwrap();
    loop {
        let params = WatchParams::default().timeout(60);
        let mut changes = objects.watch(&params, &revision).await.unwrap().boxed();
        while let Some(change) = changes.next().await {
            let change = change.unwrap();
            let there = !matches!(change, WatchEvent::Deleted(_));
            match change {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    revision = object.resource_version().unwrap();
                    tell(there, object);
                }
                WatchEvent::Bookmark(at) => revision = at.metadata.resource_version,
                WatchEvent::Error(error) => panic!("{error:?}"),
            }
        }
    }
}

/// What there may be only one of at once.
#[derive(Default)]
struct Alone {
    /// What each object is the one of, by its uid.
    of: HashMap<String, String>,
    breaches: Vec<String>,
}

impl Alone {
    fn see(&mut self, uid: &str, one: Option<String>) {
        self.of.remove(uid);
        let Some(one) = one else { return };
        if self.of.values().any(|other| *other == one) {
            self.breaches.push(format!("two at once: {one}"));
        }
        self.of.insert(uid.to_owned(), one);
    }
}

#[derive(Default)]
struct Pods {
    alone: Alone,
    known: HashSet<String>,
    /// The pods of StatefulSets that are made one after the other, by their uids: those that are not ready yet.
    starting: HashMap<String, (String, u32)>,
    /// The pods of each index, by their uids.
    made: HashMap<String, HashSet<String>>,
    succeeded: HashSet<String>,
    breaches: Vec<String>,
}

impl Pods {
    fn see(&mut self, there: bool, pod: &Pod) {
        let uid = pod.uid().unwrap();
        self.alone.see(&uid, stands_alone(pod).filter(|_| there));
        let is_new = self.known.insert(uid.clone());
        self.starting.remove(&uid);
        if let Some((set, ordinal)) = starts(pod).filter(|_| there) {
            let mut others = self.starting.values();
            if is_new && others.any(|(other, before)| *other == set && *before < ordinal) {
                self.breaches.push(format!("made before its turn: {set}, {ordinal}"));
            }
            self.starting.insert(uid.clone(), (set, ordinal));
        }
        let Some(index) = index(pod) else { return };
        let made = self.made.entry(index.clone()).or_default();
        if made.insert(uid) && self.succeeded.contains(&index) {
            self.breaches.push(format!("has succeeded, and is made again: {index}"));
        }
        if index.starts_with(LIMITED) && made.len() > TRIES {
            self.breaches.push(format!("{} tries: {index}", made.len()));
        }
        if phase(pod) == "Succeeded" {
            self.succeeded.insert(index);
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The kind, name and uid of who manages it.
fn manager(object: &impl kube::Resource) -> Option<(String, String, String)> {
    let mut owners = object.meta().owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some((owner.kind.clone(), owner.name.clone(), owner.uid.clone()))
}

/// A Job's index, beginning with the Job's name.
fn index(pod: &Pod) -> Option<String> {
    let (kind, name, uid) = manager(pod)?;
    let index = pod.annotations().get("batch.kubernetes.io/job-completion-index");
    index
        .filter(|_| kind == "Job")
        .map(|index| format!("{name} ({uid}), index {index}"))
}

fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !["Succeeded", "Failed"].contains(&phase(pod))
}

/// The set and the ordinal of a pod that is not ready yet, and that those after it wait for.
fn starts(pod: &Pod) -> Option<(String, u32)> {
    let (kind, name, uid) = manager(pod)?;
    // The first set's are made at once.
    let waits = kind == "StatefulSet" && name != "db-0" && is_active(pod) && !is_ready(pod);
    let (_, ordinal) = pod.metadata.name.as_ref().filter(|_| waits)?.rsplit_once('-')?;
    Some((format!("{name} ({uid})"), ordinal.parse().ok()?))
}

/// What there may be no second pod of while this one is there.
fn stands_alone(pod: &Pod) -> Option<String> {
    if !is_active(pod) {
        return None;
    }
    let (kind, name, uid) = manager(pod)?;
    match kind.as_str() {
        "Job" => index(pod),
        "DaemonSet" => Some(format!("{name} ({uid}) on {}", node(pod)?)),
        _ => None,
    }
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Where a DaemonSet's pod is to be.
fn node(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let field = required.node_selector_terms.first()?.match_fields.as_ref()?.first()?;
    field.values.as_ref()?.first().cloned()
}

/// The CronJob whose only Job this one is to be while it runs.
fn runs_alone(job: &Job) -> Option<String> {
    let (kind, name, uid) = manager(job)?;
    let may_have_company = kind != "CronJob" || name == "cron-0";
    (!may_have_company && !has_ended(job) && job.metadata.deletion_timestamp.is_none())
        .then(|| format!("{name} ({uid}), a Job"))
}

pub fn has_ended(job: &Job) -> bool {
    let mut conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| ["Complete", "Failed"].contains(&c.type_.as_str()) && c.status == "True")
}
