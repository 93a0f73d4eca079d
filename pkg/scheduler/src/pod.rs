//! A pod with everything that decisions ask of it worked out beforehand. The pod itself is not kept: decoded it takes ten times as much,
//! and a cluster's pods are all here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodSpec, Toleration};
use mk8s_client::{HostPort, NodeTerms, host_ports};

use crate::affinity::PodTerms;
use crate::cluster::{Kin, Kins};
use crate::pod_volumes::PodVolumes;
use crate::resources::{self, Resources};
use crate::spread::Constraint;

/// A pod as the scheduler sees it, on a node or waiting for one.
#[derive(Debug)]
pub struct PodInfo {
    /// Names can come back, uids don't.
    pub uid: Arc<str>,
    pub name: Box<str>,
    /// Its namespace and labels.
    pub kin: Arc<Kin>,
    /// Which pods it may push away, and which order it is tried in.
    pub priority: i32,
    /// It is going, and counts as gone where pods are spread.
    pub deleting: bool,
    /// It is going because the scheduler preferred another.
    pub preempted: bool,
    /// When its node took it on, in seconds. None: it did not yet.
    pub started: Option<i64>,
    /// What it asks for.
    pub requests: Resources,
    /// The same for scores.
    pub nonzero: Resources,
    /// The host ports it takes, sorted.
    pub ports: Box<[HostPort]>,
    /// Where it is to be beside others: also those that come later are kept away by it, or drawn.
    pub terms: Option<Arc<PodTerms>>,
    /// What it mounts that is not any node's own; none: nothing.
    pub volumes: Option<Box<PodVolumes>>,
    /// What concerns a pod only until it has its node.
    pub wishes: Option<Box<Wishes>>,
}

/// What a pod without a node asks of one, and what is to be told of it.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Which scheduler is to look after it.
    pub scheduler: Box<str>,
    /// What holds it back from being scheduled at all.
    pub gates: Box<[Box<str>]>,
    /// Where it has to go: nodeSelector and required node affinity.
    pub required: NodeTerms,
    /// Where it would like to go, with weights.
    pub preferred: Vec<(i64, NodeTerms)>,
    pub tolerations: Box<[Toleration]>,
    /// What it is scored by, where that is not its `nonzero`.
    pub scored: Option<Box<Resources>>,
    /// How its like are to be spread.
    pub spread: Box<[Constraint]>,
    /// What it names of spec.resourceClaims.
    pub claims: Box<[PodClaim]>,
    /// Of its containers, as they name them.
    pub images: Box<[Box<str>]>,
    /// The uid of its controller.
    pub controller: Option<Box<str>>,
    /// It waits rather than push others away (preemptionPolicy Never).
    pub never_preempts: bool,
    /// The node that a preemption cleared for it.
    pub nominated: Option<Box<str>>,
    /// Since when it is known not to be scheduled, in seconds.
    pub waits_since: Option<i64>,
    pub generation: Option<i64>,
    pub resource_version: Option<Box<str>>,
}

/// A claim of devices as a pod names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    /// What the pod calls it.
    pub name: Box<str>,
    pub claim: ClaimName,
}

/// Which claim it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimName {
    /// Anyone's.
    Given(Box<str>),
    /// It was made for the pod.
    Made(Box<str>),
    /// It turned out that none is needed.
    NotNeeded,
    /// It is still to be made.
    NotMade,
    /// It is named in a way that nobody knows yet.
    Unknown,
}

static NO_WISHES: std::sync::LazyLock<Wishes> = std::sync::LazyLock::new(Wishes::default);

impl PodInfo {
    /// Works out a pod.
    pub fn new(pod: &Pod, kins: &mut Kins) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let mut requests = resources::requests(pod);
        requests.pods = 1;
        PodInfo {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            kin: kins.of(
                meta.namespace.as_deref().unwrap_or_default(),
                meta.labels.clone().unwrap_or_default(),
            ),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            deleting: meta.deletion_timestamp.is_some(),
            preempted: meta.deletion_timestamp.is_some() && is_preempted(pod),
            started: status
                .and_then(|status| status.start_time.as_ref())
                .map(|time| time.0.as_second()),
            requests,
            nonzero: resources::nonzero_requests(pod),
            ports: spec.map(sorted_ports).unwrap_or_default(),
            terms: PodTerms::new(pod).map(|terms| kins.terms(terms)),
            volumes: PodVolumes::new(pod),
            wishes: node_of(pod)
                .is_none()
                .then(|| spec.map(|spec| Box::new(Wishes::new(pod, spec))))
                .flatten(),
        }
    }

    /// On the same node it counts no otherwise than the other: most of a pod's changes are of no matter there.
    pub fn counts_as(&self, other: &PodInfo) -> bool {
        let terms = match (&self.terms, &other.terms) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        };
        terms
            && Arc::ptr_eq(&self.kin, &other.kin)
            && self.deleting == other.deleting
            && self.requests == other.requests
            && self.nonzero == other.nonzero
            && self.ports == other.ports
            && self.volumes == other.volumes
    }

    pub fn namespace(&self) -> &str {
        &self.kin.namespace
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name)
    }

    /// What it asks of its node; of a pod that has one: nothing.
    pub fn wishes(&self) -> &Wishes {
        self.wishes.as_deref().unwrap_or(&NO_WISHES)
    }

    /// How an Event names it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace().to_owned()),
            name: Some((*self.name).to_owned()),
            uid: Some((*self.uid).to_owned()),
            resource_version: self.wishes().resource_version.as_deref().map(str::to_owned),
            field_path: None,
        }
    }
}

impl Wishes {
    fn new(pod: &Pod, spec: &PodSpec) -> Self {
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        let boxed = |text: &String| text.as_str().into();
        let init = spec.init_containers.iter().flatten();
        let images = init.chain(&spec.containers).filter_map(|c| c.image.as_ref());
        let owners = meta.owner_references.iter().flatten();
        let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let unscheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False");
        Wishes {
            scheduler: spec
                .scheduler_name
                .as_deref()
                .filter(|name| !name.is_empty())
                .unwrap_or(crate::NAME)
                .into(),
            gates: spec.scheduling_gates.iter().flatten().map(|g| boxed(&g.name)).collect(),
            required: NodeTerms::required(pod),
            preferred: NodeTerms::preferred(pod),
            tolerations: spec.tolerations.clone().unwrap_or_default().into(),
            scored: resources::scored_requests(pod).map(Box::new),
            spread: Constraint::of(pod),
            claims: claims(pod, spec),
            images: images.map(boxed).collect(),
            controller: owners
                .filter(|owner| owner.controller == Some(true))
                .map(|owner| boxed(&owner.uid))
                .next(),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            nominated: status
                .and_then(|status| status.nominated_node_name.as_ref())
                .filter(|name| !name.is_empty())
                .map(boxed),
            waits_since: unscheduled
                .and_then(|c| c.last_transition_time.as_ref())
                .map(|time| time.0.as_second()),
            generation: meta.generation,
            resource_version: meta.resource_version.as_ref().map(boxed),
        }
    }
}

fn sorted_ports(spec: &PodSpec) -> Box<[HostPort]> {
    let mut ports = host_ports(spec);
    ports.sort_unstable();
    ports.into()
}

/// Who names a claim twice has it once. There may be many: the API server has no limit of them.
fn claims(pod: &Pod, spec: &PodSpec) -> Box<[PodClaim]> {
    let status = pod.status.as_ref();
    let made = status.and_then(|status| status.resource_claim_statuses.as_ref());
    let made: HashMap<&str, Option<&str>> = made
        .into_iter()
        .flatten()
        .map(|made| (made.name.as_str(), made.resource_claim_name.as_deref()))
        .collect();
    let mut given = HashSet::new();
    let all = spec.resource_claims.iter().flatten().filter(|own| {
        let name = own.resource_claim_name.as_deref();
        name.is_none_or(|name| given.insert(name))
    });
    let named = all.map(|own| PodClaim {
        name: own.name.as_str().into(),
        claim: match (&own.resource_claim_name, &own.resource_claim_template_name) {
            (Some(name), _) => ClaimName::Given(name.as_str().into()),
            (None, Some(_)) => match made.get(own.name.as_str()) {
                None => ClaimName::NotMade,
                Some(Some(name)) => ClaimName::Made((*name).into()),
                Some(None) => ClaimName::NotNeeded,
            },
            (None, None) => ClaimName::Unknown,
        },
    });
    named.collect()
}

fn is_preempted(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let target = conditions.find(|condition| condition.type_ == "DisruptionTarget");
    target.is_some_and(|own| own.status == "True" && own.reason.as_deref() == Some("PreemptionByScheduler"))
}

/// The node that a pod is on.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.filter(|node| !node.is_empty())
}
