//! What a pod says of where it is to be beside other pods, or away from them
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::cluster::{PodSelector, Selector};

/// The domains of a key in which there are such pods.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Term {
    pub pods: Arc<PodSelector>,
    pub key: Box<str>,
}

/// All terms of a pod.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct PodTerms {
    /// It has to be where one pod is that all of these are about.
    pub required: Box<[Arc<Term>]>,
    /// Which pods those terms are about.
    pub required_pods: Box<[Arc<PodSelector>]>,
    /// It must not be where any of these pods is.
    pub anti: Box<[Arc<Term>]>,
    /// Where it would like to be, with weights; below zero: where it would rather not be.
    pub preferred: Box<[(i64, Arc<Term>)]>,
}

impl PodTerms {
    /// None: it says nothing.
    pub fn new(pod: &Pod) -> Option<Self> {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let hard = |terms: Option<&Vec<PodAffinityTerm>>| -> Box<[_]> {
            let terms = terms.into_iter().flatten();
            terms.map(|term| Arc::new(Term::new(term, namespace))).collect()
        };
        let soft = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| -> Vec<_> {
            let terms = terms.into_iter().flatten();
            let weighed = |own: &WeightedPodAffinityTerm| {
                let term = Arc::new(Term::new(&own.pod_affinity_term, namespace));
                (sign * i64::from(own.weight), term)
            };
            terms.map(weighed).collect()
        };
        let (near, away) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let required = hard(near.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref()));
        let anti = hard(away.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref()));
        let liked = near.and_then(|own| own.preferred_during_scheduling_ignored_during_execution.as_ref());
        let disliked = away.and_then(|own| own.preferred_during_scheduling_ignored_during_execution.as_ref());
        let mut preferred = soft(liked, 1);
        preferred.extend(soft(disliked, -1));
        let none = required.is_empty() && anti.is_empty() && preferred.is_empty();
        (!none).then(|| PodTerms {
            required_pods: required.iter().map(|term| term.pods.clone()).collect(),
            required,
            anti,
            preferred: preferred.into(),
        })
    }
}

impl PodTerms {
    /// About how many bytes they take.
    pub fn size(&self) -> usize {
        let hard = self.required.iter().chain(&self.anti);
        let all = hard.chain(self.preferred.iter().map(|(_, term)| term));
        all.map(|term| 64 + term.key.len() + term.pods.size()).sum()
    }
}

impl Term {
    fn new(term: &PodAffinityTerm, namespace: &str) -> Self {
        let mut namespaces: Vec<Box<str>> = term
            .namespaces
            .iter()
            .flatten()
            .map(|name| name.as_str().into())
            .collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.into());
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        Term {
            pods: Arc::new(PodSelector {
                namespaces: namespaces.into(),
                of_namespaces: Selector::new(term.namespace_selector.as_ref()),
                labels: Selector::new(term.label_selector.as_ref()),
            }),
            key: term.topology_key.as_str().into(),
        }
    }
}
