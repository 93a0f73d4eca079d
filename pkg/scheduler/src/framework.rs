//! What a plugin is: one rule of placement, asked at fixed points of a decision
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/>).
//!
//! A plugin has no state of its own: it is made of its configuration, and asks the [`Cluster`]. What it works out of one pod lives in
//! the [`Filter`] and the [`Score`] that it makes for a decision, or beside what the cluster knows, until the pod is reserved.

use std::borrow::Cow;

use futures::future::BoxFuture;
use kube::Client;
use smallvec::{SmallVec, smallvec};

use crate::change::Change;
use crate::cluster::{Cluster, NodeId, NodeInfo};
use crate::pod::PodInfo;

/// The best score that a plugin gives a node, before its weight.
pub const MAX_SCORE: i64 = 100;

/// Why a node, or every node, does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// Upstream's words, one or several reasons.
    pub reasons: SmallVec<[Cow<'static, str>; 1]>,
    /// Nothing that happens to other pods would change it.
    pub unresolvable: bool,
    /// It is none: the plugin cannot tell, and the decision fails with that.
    pub failed: bool,
    /// The time was over before the plugin could tell: the pod is to be tried again, whatever happens.
    pub unfinished: bool,
}

impl Objection {
    /// Preemption may help.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Objection {
            reasons: smallvec![reason.into()],
            unresolvable: false,
            failed: false,
            unfinished: false,
        }
    }

    /// Preemption doesn't help.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Objection {
            unresolvable: true,
            ..Self::new(reason)
        }
    }

    /// The plugin has no more time.
    pub fn unfinished(reason: impl Into<Cow<'static, str>>) -> Self {
        Objection {
            unfinished: true,
            ..Self::unresolvable(reason)
        }
    }

    /// The plugin fails.
    pub fn failed(error: impl Into<Cow<'static, str>>) -> Self {
        Objection {
            failed: true,
            ..Self::unresolvable(error)
        }
    }
}

/// What a plugin has to say of a pod before any node is looked at.
pub enum PreFilter<'a> {
    /// Every node is right: the pod asks for nothing that concerns the plugin.
    Skip,
    /// No node is right.
    Refuse(Objection),
    /// To be asked node by node.
    Check(Box<dyn Filter + 'a>),
    /// To be asked about these nodes, by name, whether they exist or not; no other is right.
    Only(Vec<&'a str>, Box<dyn Filter + 'a>),
}

/// Whether nodes are right for one pod.
pub trait Filter {
    /// None: it is right.
    fn check(&self, node: &NodeInfo) -> Option<Objection>;

    /// The same rule for a trial in which pods come to and go from one node. None: [`Filter::check`] goes by the node that it is
    /// given alone.
    fn trial(&self) -> Option<Box<dyn Trial + '_>> {
        None
    }
}

/// A filter that is told which pods a trial puts on a node or takes off it.
pub trait Trial {
    /// As [`Filter::check`].
    fn check(&self, node: &NodeInfo) -> Option<Objection>;

    /// `pod` came to (1) or went from (-1) `node`.
    fn change(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64);
}

/// How good nodes are for one pod.
pub trait Score {
    /// A number for each node, in `scores`.
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]);

    /// Brings all numbers into 0 to [`MAX_SCORE`].
    fn normalise(&self, _nodes: &[&NodeInfo], _scores: &mut [i64]) {}
}

/// Scales the largest to 100; `reverse`: the smallest is the best.
pub fn scale(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

/// Why what a plugin does between a decision and its binding failed: the pod is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The cluster is not any more as the decision saw it.
    #[error("plugin {plugin:?}: {what}")]
    Changed {
        /// Whose rule.
        plugin: &'static str,
        /// What is not as it was.
        what: String,
    },
    /// The API server refused a write.
    #[error("plugin {plugin:?}: {what}: {}", mk8s_client::words(source))]
    Api {
        /// Whose write.
        plugin: &'static str,
        /// What was tried.
        what: String,
        /// The answer.
        source: kube::Error,
    },
}

/// What has to be done before a pod is bound: writes, and waiting for others' writes.
pub type PreBind = BoxFuture<'static, Result<(), StepError>>;

/// A write to the API that no pod's binding waits for.
pub struct Write(Box<dyn FnOnce(Client) -> BoxFuture<'static, Result<(), kube::Error>> + Send>);

impl Write {
    /// What is to be done with a client.
    pub fn new(write: impl FnOnce(Client) -> BoxFuture<'static, Result<(), kube::Error>> + Send + 'static) -> Self {
        Write(Box::new(write))
    }

    /// Does it.
    pub fn run(self, client: Client) -> BoxFuture<'static, Result<(), kube::Error>> {
        (self.0)(client)
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

/// What a plugin does about a pod that no node is right for.
#[derive(Debug)]
pub struct PostFilter {
    /// What it has to say of that beside its objections.
    pub words: Cow<'static, str>,
    /// What may make room for the pod.
    pub write: Option<Write>,
}

/// A rule of placement.
pub trait Plugin: Send + Sync {
    /// Upstream's name of it, by which configurations name it.
    fn name(&self) -> &'static str;

    /// Whether it is of use to try the pod at all. If not, it waits without a word until an event of the pod, or one that the
    /// shell knows of, says otherwise.
    fn pre_enqueue(&self, _pod: &PodInfo, _cluster: &Cluster) -> bool {
        true
    }

    /// Before a decision: has the cluster count what this pod's decision will ask for.
    fn prepare(&self, _pod: &PodInfo, _cluster: &mut Cluster) {}

    /// Looks at a pod.
    fn pre_filter<'a>(&'a self, _pod: &'a PodInfo, _cluster: &'a Cluster) -> PreFilter<'a> {
        PreFilter::Skip
    }

    /// No node was right. `refused` are the nodes that the plugin itself objected to.
    fn post_filter(
        &self,
        _pod: &PodInfo,
        _cluster: &Cluster,
        _refused: &mut dyn Iterator<Item = (&NodeInfo, &Objection)>,
    ) -> Option<PostFilter> {
        None
    }

    /// None: all nodes are as good as each other, at 0.
    fn pre_score<'a>(
        &'a self,
        _pod: &'a PodInfo,
        _cluster: &'a Cluster,
        _feasible: &[&NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        None
    }

    /// The pod is to go to `node`: takes for it what it needs there, so that the next decision counts on it.
    fn reserve(&self, _pod: &PodInfo, _node: NodeId, _cluster: &mut Cluster) -> Result<(), StepError> {
        Ok(())
    }

    /// Gives back what [`Plugin::reserve`] took, if it did; also in the API, where that is what it returns.
    fn unreserve(&self, _pod: &PodInfo, _cluster: &mut Cluster) -> Option<Write> {
        None
    }

    /// What is to be done before the pod, reserved on `node`, is bound. None: nothing.
    fn pre_bind(&self, _pod: &PodInfo, _node: NodeId, _cluster: &Cluster, _client: &Client) -> Option<PreBind> {
        None
    }

    /// Which kinds of changes may make a pod schedulable that it refused: bits of [`crate::change::Kind`].
    fn wakes_on(&self) -> u32 {
        0
    }

    /// Whether this change, of one of those kinds, may make the pod schedulable.
    fn helps(&self, _pod: &PodInfo, _change: &Change<'_>, _cluster: &Cluster) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_to_the_largest() {
        for (scores, reverse, expected) in [
            ([0, 5, 10], false, [0, 50, 100]),
            ([0, 5, 10], true, [100, 50, 0]),
            ([0, 0, 0], true, [100, 100, 100]),
            ([0, 0, 0], false, [0, 0, 0]),
        ] {
            let mut scaled = scores;
            scale(&mut scaled, reverse);
            assert_eq!(scaled, expected, "{scores:?}");
        }
    }
}
