//! ControllerRevisions: the pod templates that a StatefulSet or DaemonSet has had, which `kubectl rollout` reads and goes back to.
//!
//! Makes, renumbers and prunes the revisions of one set at a time, on behalf of its controller. What a revision holds is upstream's to
//! the byte, since names are made of its hash. A revision is never changed but for its number: who has its template back gets it back.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{Selector, SelectorExt};
use mk8s_api::go;
use mk8s_client::{Event, Informer, Kind, Seen};
use serde_json::{Value, json};

use crate::adoption::{self, manager};
use crate::context::Context;
use crate::delete::delete;
use crate::error::{Error, Tried, code};
use crate::hash;
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::selecting::Selecting;

/// How many names are tried for one revision before the next run goes on.
const TRIES: usize = 10;
/// What a name holds of its set's name at most.
const LONGEST_PREFIX: usize = 223;

/// The set whose history it is.
pub struct Parent<'a> {
    pub key: &'a Key,
    pub reference: OwnerReference,
    pub annotations: Option<BTreeMap<String, String>>,
    pub template: &'a PodTemplateSpec,
    /// The label that holds a revision's hash.
    pub label: &'static str,
    /// The hash, made of the template, the revision's data and the number of collisions there were.
    pub hash: fn(&PodTemplateSpec, &Value, Option<i32>) -> String,
    /// Fills in what a template of an earlier version lacks; where there is none, such a template is another one.
    pub defaults: Option<fn(&mut Value)>,
}

/// Access to the revisions of all sets of a kind.
pub struct History {
    ctx: Context,
    all: Informer<ControllerRevision>,
    /// By their set's uid, and orphans by their labels.
    revisions: Owned<ControllerRevision>,
    seen: Seen<Key>,
}

/// What the present template is in a history.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The newest revision.
    Newest,
    /// An older one, which becomes the newest.
    Earlier(usize),
    /// It has never been.
    Unknown,
}

impl History {
    /// Over the shared informer.
    pub fn new(ctx: &Context, all: Informer<ControllerRevision>) -> Self {
        History {
            ctx: ctx.clone(),
            revisions: Owned::of(&all),
            all,
            seen: Seen::default(),
        }
    }

    /// See [`Seen::missing`].
    pub fn missing(&self, key: &Key) -> Option<Duration> {
        self.seen.missing(key, &self.all)
    }

    /// The set is gone.
    pub fn forget(&self, key: &Key) {
        self.seen.forget(key);
    }

    /// The set's revisions, sorted, after adopting and releasing ([`adoption::claim`]); those that are not `of_history` are left alone.
    pub async fn claim<O>(
        &self,
        owner: &O,
        labels: &LabelSelector,
        of_history: impl Fn(&Selector, &ControllerRevision) -> bool,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error>
    where
        O: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let selector = meta::selector(labels)?;
        let mut candidates = adoption::candidates(&self.revisions, owner, labels);
        candidates.retain(|revision| of_history(&selector, revision));
        let mut claimed = adoption::claim(&self.ctx, owner, labels, candidates, |_| true, None).await?;
        sort(&mut claimed);
        Ok(claimed)
    }

    /// The revision of the present template, which is the newest from here on. `revisions` are sorted. Counts in
    /// `collisions` how many names were another template's.
    pub async fn ensure(
        &self,
        parent: &Parent<'_>,
        revisions: &[Arc<ControllerRevision>],
        collisions: &mut Option<i32>,
    ) -> Result<Arc<ControllerRevision>, Error> {
        let data = data(parent.template);
        let next = revisions.last().map_or(1, |newest| newest.revision + 1);
        match (place(revisions, &data), revisions.last()) {
            (Place::Newest, Some(newest)) => Ok(newest.clone()),
            (Place::Earlier(at), _) => self.renumber(parent.key, &revisions[at], next).await,
            (_, Some(newest))
                if parent
                    .defaults
                    .is_some_and(|fill| filled(newest, fill).as_ref() == Some(&data)) =>
            {
                Ok(newest.clone())
            }
            _ => self.create(parent, data, next, collisions).await,
        }
    }

    async fn create(
        &self,
        parent: &Parent<'_>,
        data: Value,
        number: i64,
        collisions: &mut Option<i32>,
    ) -> Result<Arc<ControllerRevision>, Error> {
        let key = parent.key;
        let api = self.ctx.api::<ControllerRevision>(&key.namespace);
        let template = parent.template.metadata.as_ref();
        for _ in 0..TRIES {
            let hash = (parent.hash)(parent.template, &data, *collisions);
            let mut labels = template.and_then(|m| m.labels.clone()).unwrap_or_default();
            labels.insert(parent.label.to_owned(), hash.clone());
            let name = name(&key.name, &hash);
            let revision = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels),
                    annotations: parent.annotations.clone(),
                    owner_references: Some(vec![parent.reference.clone()]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(data.clone())),
                revision: number,
            };
            let created = api.create(&PostParams::default(), &revision).await;
            match created.and_then(|created| created.object()) {
                Ok(created) => {
                    self.seen.wrote(key, meta::revision_number(&created));
                    return Ok(Arc::new(created));
                }
                Err(error) if code(&error) == Some(409) => {}
                Err(error) => {
                    return Err(error).tried(|| format!("create ControllerRevision {}/{name}", key.namespace));
                }
            }
            let taken = api.get_opt(&name).await;
            let taken = taken.tried(|| format!("get ControllerRevision {}/{name}", key.namespace))?;
            match taken {
                Some(taken) if holds(&taken, &data) => return Ok(Arc::new(taken)),
                Some(_) => *collisions = Some(collisions.unwrap_or(0) + 1),
                None => {}
            }
        }
        Err(Error::Invalid(format!(
            "no name is free for the next revision of {key}"
        )))
    }

    async fn renumber(
        &self,
        key: &Key,
        revision: &ControllerRevision,
        number: i64,
    ) -> Result<Arc<ControllerRevision>, Error> {
        self.change(key, revision, json!({"revision": number})).await
    }

    /// Patches a revision.
    pub async fn change(
        &self,
        key: &Key,
        revision: &ControllerRevision,
        mut patch: Value,
    ) -> Result<Arc<ControllerRevision>, Error> {
        patch["metadata"]["uid"] = meta::uid(revision).into();
        let name = meta::name(revision);
        let api = self.ctx.api::<ControllerRevision>(&key.namespace);
        let changed = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        let changed = changed.and_then(|changed| changed.object());
        let changed = changed.tried(|| format!("update ControllerRevision {}/{name}", key.namespace))?;
        self.seen.wrote(key, meta::revision_number(&changed));
        Ok(Arc::new(changed))
    }

    /// Deletes revisions.
    pub async fn prune(&self, key: &Key, doomed: &[Arc<ControllerRevision>]) -> Result<(), Error> {
        let api = self.ctx.api::<ControllerRevision>(&key.namespace);
        for revision in doomed {
            if delete(&api, &**revision, DeleteParams::default()).await? {
                self.seen.deleted(key, &**revision);
            }
        }
        Ok(())
    }
}

/// The sets that an event of a revision concerns. Not that which has just made it: it knows.
pub fn owners<O: Kind>(event: &Event<ControllerRevision>, owners: &Selecting<O>) -> Vec<Key> {
    match event {
        Event::Applied { old: None, new } if manager::<O>(&**new).is_some() => Vec::new(),
        event => adoption::owners(event, owners),
    }
}

/// Has the revision the labels of its set's pods?
pub fn selected(selector: &Selector, revision: &ControllerRevision) -> bool {
    selector.matches(meta::labels(revision))
}

/// The oldest first.
fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| older(a, b));
}

fn older(a: &ControllerRevision, b: &ControllerRevision) -> Ordering {
    let by_age = || meta::created(a).cmp(&meta::created(b));
    let by_name = || meta::name(a).cmp(meta::name(b));
    a.revision.cmp(&b.revision).then_with(by_age).then_with(by_name)
}

/// The oldest of those that no pod is of, as many as there are more than `limit`: of all (`of_all`), or of those without pods.
pub fn expendable(
    sorted: &[Arc<ControllerRevision>],
    limit: usize,
    of_all: bool,
    live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let idle: Vec<_> = sorted.iter().filter(|revision| !live(revision)).collect();
    let counted = if of_all { sorted.len() } else { idle.len() };
    idle.into_iter().take(counted.saturating_sub(limit)).cloned().collect()
}

/// What a revision holds: the patch that puts the template back.
pub fn data(template: &PodTemplateSpec) -> Value {
    // A template always serialises: it came from JSON.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub fn template(revision: &ControllerRevision) -> Result<PodTemplateSpec, Error> {
    let held = revision
        .data
        .as_ref()
        .and_then(|data| data.0.get("spec")?.get("template"));
    let name = meta::name(revision);
    let held = held.ok_or_else(|| Error::Invalid(format!("ControllerRevision {name} holds no pod template")))?;
    mk8s_client::pod_template(held)
        .map_err(|e| Error::Invalid(format!("ControllerRevision {name} holds no pod template: {e}")))
}

/// A StatefulSet's hash of what a revision holds.
pub fn data_hash(_: &PodTemplateSpec, data: &Value, collisions: Option<i32>) -> String {
    let mut text = go::json(data);
    if let Some(count) = collisions {
        text.push_str(&count.to_string());
    }
    hash::safe_encode(&hash::fnv32(text.as_bytes()).to_string())
}

fn name(set: &str, hash: &str) -> String {
    let prefix = set.get(..LONGEST_PREFIX).unwrap_or(set);
    format!("{prefix}-{hash}")
}

/// Does the revision hold this?
pub fn holds(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|held| held.0 == *data)
}

fn place(revisions: &[Arc<ControllerRevision>], data: &Value) -> Place {
    match revisions.iter().rposition(|revision| holds(revision, data)) {
        Some(at) if at + 1 == revisions.len() => Place::Newest,
        Some(at) => Place::Earlier(at),
        None => Place::Unknown,
    }
}

/// What the revision would hold if its template were written now.
fn filled(revision: &ControllerRevision, fill: fn(&mut Value)) -> Option<Value> {
    let mut set = revision.data.as_ref()?.0.clone();
    set.get_mut("spec")?
        .get_mut("template")?
        .as_object_mut()?
        .remove("$patch");
    fill(&mut set);
    let template = set.get("spec")?.get("template")?;
    Some(data(&mk8s_client::pod_template(template).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn revision(number: i64, name: &str, image: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data(&of(image)))),
            revision: number,
        })
    }

    fn of(image: &str) -> PodTemplateSpec {
        serde_json::from_value(
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_revision_holds_the_template_as_upstream_prints_it() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "c", "image": "i", "args": ["a<b"], "resources": {}}], "dnsPolicy": "ClusterFirst"},
            "metadata": {"labels": {"b": "1", "a": "2"}},
        }))
        .unwrap();
        let held = data(&template);
        let text = concat!(
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"a":"2","b":"1"}},"#,
            r#""spec":{"containers":[{"args":["a\u003cb"],"image":"i","name":"c","resources":{}}],"dnsPolicy":"ClusterFirst"}}}}"#,
        );
        assert_eq!(go::json(&held), text);
        let hash = |text: &str| hash::safe_encode(&hash::fnv32(text.as_bytes()).to_string());
        assert_eq!(data_hash(&template, &held, None), hash(text));
        assert_eq!(data_hash(&template, &held, Some(12)), hash(&format!("{text}12")));
        let kept = ControllerRevision {
            data: Some(RawExtension(held)),
            ..ControllerRevision::default()
        };
        assert_eq!(super::template(&kept).unwrap(), template);
        assert!(super::template(&ControllerRevision::default()).is_err());
        assert_eq!(name(&"x".repeat(230), "h"), format!("{}-h", "x".repeat(223)));
    }

    /// The names that upstream's controller gives, made by its own code of what its API server answers.
    #[test]
    fn names_are_upstreams() {
        let answers = include_str!("../../../tests/api/golden/workloads.jsonl");
        for (row, hash) in [
            ("statefulset/create-least", "55bc7d8c97"),
            ("statefulset/create-full", "56d78f6fdb"),
            ("statefulset/strategic-patch", "757c5f8668"),
            ("daemonset/create-full", "7fdbb4d7dd"),
            ("daemonset/create/surge-with-port", "7fc4865f55"),
        ] {
            let start = format!("{{\"name\":\"{row}\",");
            let answer = answers.lines().find(|line| line.starts_with(&start)).unwrap();
            let answer: Value = serde_json::from_str(answer).unwrap();
            let template = answer["answer"]["body"]["spec"]["template"].clone();
            let template: PodTemplateSpec = serde_json::from_value(template).unwrap();
            assert_eq!(data_hash(&template, &data(&template), Some(0)), hash, "{row}");
        }
    }

    #[test]
    fn a_template_that_comes_back_is_its_revision_again() {
        let mut all = [
            revision(3, "c", "3"),
            revision(1, "a", "1"),
            revision(2, "b", "2"),
            revision(2, "a", "2"),
        ];
        sort(&mut all);
        let names: Vec<_> = all.iter().map(|r| (r.revision, meta::name(&**r))).collect();
        assert_eq!(names, [(1, "a"), (2, "a"), (2, "b"), (3, "c")]);
        for (image, expected) in [
            ("3", Place::Newest),
            ("2", Place::Earlier(2)),
            ("1", Place::Earlier(0)),
            ("4", Place::Unknown),
        ] {
            assert_eq!(place(&all, &data(&of(image))), expected, "{image}");
        }
    }

    #[test]
    fn the_oldest_revisions_without_pods_go() {
        let all = ["1", "2", "3", "4"].map(|n| revision(n.parse().unwrap(), n, n));
        for (limit, of_all, live, expected) in [
            (10, false, "", ""),
            (2, false, "", "12"),
            (2, false, "1", "2"),
            (2, true, "1", "23"),
            (0, false, "24", "13"),
            (0, true, "1234", ""),
        ] {
            let gone = expendable(&all, limit, of_all, |r| live.contains(meta::name(r)));
            let names: String = gone.iter().map(|r| meta::name(&**r)).collect();
            assert_eq!(names, expected, "{limit} {of_all} {live}");
        }
    }

    #[test]
    fn a_template_of_an_earlier_version_is_the_same_once_filled_in() {
        let now: PodTemplateSpec = {
            let mut set = json!({"spec": {"template": of("1")}});
            mk8s_api::defaults::stateful_set(&mut set);
            serde_json::from_value(set["spec"]["template"].take()).unwrap()
        };
        let old = revision(1, "a", "1");
        assert!(!holds(&old, &data(&now)));
        assert_eq!(filled(&old, mk8s_api::defaults::stateful_set), Some(data(&now)));
        assert_ne!(
            filled(&revision(1, "a", "2"), mk8s_api::defaults::stateful_set),
            Some(data(&now))
        );
    }
}
