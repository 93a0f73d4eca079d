//! Devices for pods: claims are made of templates, reserved for the pods that run, and given back when these have ended.
//!
//! Watches pods that name claims, claims and templates. Makes a claim for each template that a pod names, and says in the pod's
//! status which; writes of claims for whom they are reserved, takes away an allocation that nobody needs, with the finalizer
//! that protects it, and deletes claims that were made for a pod that has ended. Allocates nothing: that is the scheduler's.
//!
//! A claim's name is random: which is a pod's, its owner and an annotation say. Nothing is made for a pod before what was made
//! for it last has come back.

mod claim;
mod pod_claims;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use mk8s_api::meta as object;
use mk8s_client::{Event, EventRecorder, Index, Informer, Raw, Seen, WorkQueue};
use serde_json::json;

use self::claim::Consumer;
use self::pod_claims::Need;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};
use crate::pod;
use crate::rest::{Part, Rest};

const NAME: &str = "resource_claim";
/// The manager of the pod's field, as upstream's.
const FIELD_MANAGER: &str = "ResourceClaimController";
const WORKERS: usize = 4;

const CLAIMS: Rest = Rest {
    group: "resource.k8s.io",
    kind: "ResourceClaim",
    plural: "resourceclaims",
};

const TEMPLATES: Rest = Rest {
    group: "resource.k8s.io",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
};

/// What is reconciled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Side {
    Pod(Key),
    Claim(Key),
    /// The pods that use a claim, which may be thousands.
    Users(Key),
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Side::Pod(key) => write!(f, "pod {key}"),
            Side::Claim(key) => write!(f, "claim {key}"),
            Side::Users(key) => write!(f, "users of claim {key}"),
        }
    }
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<Side>,
    pods: Informer<Pod>,
    /// Pods by the claims that they use.
    by_claim: Index<Pod>,
    claims: Informer<Raw>,
    templates: Informer<Raw>,
    /// Claims by the pod that they were made for.
    owned: Index<Raw>,
    /// Claims that were made.
    seen: Seen<Side>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let pods = ctx.informers.of::<Pod>();
    let [claims, templates] = [&CLAIMS, &TEMPLATES].map(|kind| kind.informer(&ctx.informers));
    let owned = claims.index("pod", |claim| {
        let owner = pod_claims::owner(claim);
        let key = owner.map(|owner| index::owned_by(meta::namespace(claim), &owner.uid));
        key.into_iter().collect()
    });
    let by_claim = pods.index("resource claim", |pod| keys(pod, pod_claims::known_names(pod)));
    let by_template = pods.index("resource claim template", |pod| {
        keys(pod, pod_claims::missing_templates(pod))
    });
    let mut driver = Driver::new("resource-claim-controller", &ctx.scope);
    driver.watch(&pods, pod_event);
    driver.watch(&claims, |event| {
        let key = Key::of(&**event.object());
        match event {
            Event::Applied { .. } => vec![Side::Users(key.clone()), Side::Claim(key)],
            Event::Deleted(_) => vec![Side::Users(key)],
        }
    });
    driver.watch(&templates, move |event| {
        let waiting = by_template.get(&Key::of(&**event.object()).to_string());
        waiting.iter().map(|pod| Side::Pod(Key::of(&**pod))).collect()
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        queue: driver.queue.clone(),
        by_claim,
        ctx,
        pods,
        claims,
        templates,
        owned,
        seen: Seen::default(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn keys(pod: &Pod, names: Vec<String>) -> Vec<String> {
    let keys = names
        .iter()
        .map(|name| Key::new(meta::namespace(pod), name).to_string());
    keys.collect()
}

/// A pod that may need claims, and the claims of one that does not any more.
fn pod_event(event: &Event<Pod>) -> Vec<Side> {
    let pod = event.object();
    if !pod_claims::names_any(pod) {
        return Vec::new();
    }
    let mut sides = vec![Side::Pod(Key::of(&**pod))];
    if matches!(event, Event::Deleted(_)) || is_done(pod) {
        let names = pod_claims::known_names(pod);
        sides.extend(
            names
                .iter()
                .map(|name| Side::Claim(Key::new(meta::namespace(&**pod), name))),
        );
    }
    sides
}

/// It will not run any more, or never.
fn is_done(pod: &Pod) -> bool {
    pod::is_terminal(pod) || (meta::deleting(pod) && pod::node(pod).is_empty())
}

impl Reconcile<Side> for Controller {
    async fn reconcile(&self, side: Side) -> Result<Next, Error> {
        match &side {
            Side::Pod(key) => match self.pods.get(key.ns(), &key.name) {
                Some(pod) if !meta::deleting(&*pod) => self.pod(&side, &pod).await,
                found => {
                    if found.is_none() {
                        self.seen.forget(&side);
                    }
                    Ok(Next::Done)
                }
            },
            Side::Users(key) => {
                for pod in self.by_claim.get(&key.to_string()) {
                    self.queue.add(Side::Pod(Key::of(&*pod)));
                }
                Ok(Next::Done)
            }
            Side::Claim(key) => match self.claims.get(key.ns(), &key.name) {
                Some(claim) => self.claim(&claim).await.map(|()| Next::Done),
                None => Ok(Next::Done),
            },
        }
    }
}

impl Controller {
    async fn pod(&self, side: &Side, pod: &Arc<Pod>) -> Result<Next, Error> {
        if let Some(wait) = self.seen.missing(side, &self.claims) {
            return Ok(Next::After(wait));
        }
        let mut names = pod_claims::statuses(pod);
        let mut news = false;
        for named in pod_claims::named(pod) {
            let known = names.get(&named.name).cloned().flatten();
            let known = known.and_then(|name| self.claims.get(Some(meta::namespace(&**pod)), &name));
            let owned = self
                .owned
                .get(&index::owned_by(meta::namespace(&**pod), meta::uid(&**pod)));
            let made = match pod_claims::need(pod, named, known.as_deref(), &owned) {
                Need::Nothing => continue,
                Need::Known(name) => Ok(name),
                Need::Make(template) => self.make(side, pod, &named.name, &template).await,
            };
            match made {
                Ok(name) => {
                    news = true;
                    names.insert(named.name.clone(), Some(name));
                }
                Err(error) => {
                    let message = format!("PodResourceClaim {}: {}", named.name, error.message());
                    let told = meta::reference(&**pod);
                    self.recorder
                        .event(&told, "Warning", "FailedResourceClaimCreation", message);
                    return Err(error);
                }
            }
        }
        if news {
            self.write_names(pod, &names).await?;
        }
        self.reserve(pod).await.map(|()| Next::Done)
    }

    async fn make(&self, side: &Side, pod: &Pod, name: &str, template: &str) -> Result<String, Error> {
        let found = self.templates.get(Some(meta::namespace(pod)), template);
        let Some(found) = found else {
            return Err(Error::Invalid(format!(
                "resource claim template \"{template}\": resourceclaimtemplate.resource.k8s.io \"{template}\" not found"
            )));
        };
        let claim = pod_claims::from_template(pod, name, &found);
        let made = CLAIMS.create(&self.ctx.client, &claim).await?;
        self.seen.wrote(side, meta::revision_number(&made));
        Ok(meta::name(&made).to_owned())
    }

    /// All of them: what this manager leaves out is taken away.
    async fn write_names(&self, pod: &Pod, names: &pod_claims::Names) -> Result<(), Error> {
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let statuses: Vec<_> = names
            .iter()
            .map(|(name, claim)| json!({"name": name, "resourceClaimName": claim}))
            .collect();
        let applied = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": meta::uid(pod)},
            "status": {"resourceClaimStatuses": statuses},
        });
        let how = PatchParams::apply(FIELD_MANAGER).force();
        let written = self
            .ctx
            .api::<Pod>(namespace)
            .patch_status(name, &how, &Patch::Apply(applied))
            .await;
        written
            .tried_if_exists(|| format!("update pod {namespace}/{name} ResourceClaimStatuses"))
            .map(drop)
    }

    /// A pod that was bound by another than the scheduler is reserved what is allocated.
    async fn reserve(&self, pod: &Pod) -> Result<(), Error> {
        if pod::node(pod).is_empty() || is_done(pod) {
            return Ok(());
        }
        for name in pod_claims::known_names(pod) {
            let Some(claim) = self.claims.get(Some(meta::namespace(pod)), &name) else {
                return Ok(());
            };
            if let Some(new) = claim::reserved(&claim, pod) {
                CLAIMS.replace(&self.ctx.client, &new, Part::Status).await?;
            }
        }
        Ok(())
    }

    async fn claim(&self, claim: &Raw) -> Result<(), Error> {
        let consumers = object::items(&claim.value, &["status", "reservedFor"]);
        let mut valid = Vec::with_capacity(consumers.len());
        for consumer in consumers {
            let known = self
                .pods
                .get(Some(meta::namespace(claim)), object::string(consumer, &["name"]));
            let keep = match claim::consumer(consumer, known.as_deref()) {
                Consumer::Stays => true,
                Consumer::Goes => false,
                Consumer::Unknown => self.is_there(meta::namespace(claim), consumer).await?,
                Consumer::Foreign => {
                    return Err(Error::Invalid(format!("unsupported ReservedFor entry: {consumer}")));
                }
            };
            if keep {
                valid.push(consumer.clone());
            }
        }
        let unused = valid.is_empty();
        let mut now = claim.clone();
        if let Some(new) = claim::released(&now, valid) {
            let Some(new) = CLAIMS.replace(&self.ctx.client, &new, Part::Status).await? else {
                return Ok(());
            };
            now = new;
        }
        if claim::is_free_of(claim, &now)
            && let Some(new) = claim::unprotected(&now)
            && CLAIMS.replace(&self.ctx.client, &new, Part::Object).await?.is_none()
        {
            return Ok(());
        }
        if unused
            && let Some(owner) = pod_claims::owner(claim)
            && let Some(pod) = self.pods.get(Some(meta::namespace(claim)), &owner.name)
            && (meta::uid(&*pod) != owner.uid || is_done(&pod))
            && !meta::deleting(claim)
        {
            CLAIMS.delete(&self.ctx.client, claim).await?;
        }
        Ok(())
    }

    /// Nobody has heard of the pod: it may be news.
    async fn is_there(&self, namespace: &str, consumer: &serde_json::Value) -> Result<bool, Error> {
        let (name, uid) = (object::string(consumer, &["name"]), object::string(consumer, &["uid"]));
        let pod = self.ctx.api::<Pod>(namespace).get_opt(name).await;
        let pod = pod.tried(|| format!("get pod {namespace}/{name}"))?;
        Ok(pod.is_some_and(|pod| meta::uid(&pod) == uid))
    }
}
