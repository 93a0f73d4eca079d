//! How a pod's like are to be spread over the domains of a topology key
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>).

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use crate::cluster::{PodSelector, Selector};

/// How, without what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub key: Box<str>,
    pub max_skew: i64,
    /// A node that breaks it is not right; else it is only worse.
    pub hard: bool,
    /// While there are fewer domains, the emptiest counts as empty.
    pub min_domains: usize,
    /// Only the nodes that the pod's node affinity allows count.
    pub honors_affinity: bool,
    /// Only the nodes count whose taints the pod tolerates.
    pub honors_taints: bool,
}

/// A rule for some pods.
#[derive(Debug)]
pub struct Constraint {
    pub rule: Rule,
    pub pods: Arc<PodSelector>,
}

static NOBODY: LazyLock<Arc<PodSelector>> = LazyLock::new(|| Arc::new(PodSelector::within("", Selector::NOTHING)));

impl Rule {
    /// One of the fewest words.
    pub fn soft(key: &str, max_skew: i64) -> Self {
        Rule {
            key: key.into(),
            max_skew,
            hard: false,
            min_domains: 1,
            honors_affinity: true,
            honors_taints: false,
        }
    }

    /// The rule of a constraint.
    pub fn new(constraint: &TopologySpreadConstraint) -> Self {
        let honors = |policy: &Option<String>, default: bool| {
            let policy = policy.as_ref();
            policy.map_or(default, |policy| policy == "Honor")
        };
        let min_domains = constraint.min_domains.unwrap_or(1);
        Rule {
            key: constraint.topology_key.as_str().into(),
            max_skew: i64::from(constraint.max_skew),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: usize::try_from(min_domains).unwrap_or(1),
            honors_affinity: honors(&constraint.node_affinity_policy, true),
            honors_taints: honors(&constraint.node_taints_policy, false),
        }
    }
}

impl Constraint {
    /// All of a pod's own.
    pub fn of(pod: &Pod) -> Box<[Self]> {
        let own = pod
            .spec
            .iter()
            .flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
        own.map(|own| Self::new(own, pod)).collect()
    }

    fn new(constraint: &TopologySpreadConstraint, pod: &Pod) -> Self {
        let labels = pod.metadata.labels.as_ref();
        let keys = constraint.match_label_keys.iter().flatten();
        let merged = keys.filter_map(|key| labels?.get_key_value(key));
        let selector = Selector::new(constraint.label_selector.as_ref()).and(Selector::equal(merged));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Constraint {
            rule: Rule::new(constraint),
            pods: Arc::new(PodSelector::within(namespace, selector)),
        }
    }

    /// The pods to count: a selector that selects everything counts nobody, though it is about every pod.
    pub fn counted(&self) -> &Arc<PodSelector> {
        if self.pods.labels.is_empty() {
            &NOBODY
        } else {
            &self.pods
        }
    }
}
