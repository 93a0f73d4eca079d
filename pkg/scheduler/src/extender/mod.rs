//! Extenders: HTTP services that have a say in decisions beside the plugins, as the configuration names them
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/#scheduling-extensions>, kube-scheduler's extender/v1).
//!
//! They are asked one after the other about the nodes that plugins let through, then all at once about how good those are that they
//! left. Decisions of pods that no extender is interested in are not held up.

mod connection;
mod victims;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use mk8s_client::{Informer, Informers};
use serde_json::{Value, json};

use self::connection::Connection;
pub use self::connection::ExtenderError;
pub use self::victims::{Candidate, OnNodes, choose_victims};
use crate::config::ExtenderConfig;
use crate::framework::{MAX_SCORE, Objection};
use crate::pod::PodInfo;

/// Upstream's, where the configuration says none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The best score that an extender gives.
const BEST: i64 = 10;

/// One of them.
pub struct Extender {
    filter_verb: String,
    preempt_verb: String,
    prioritize_verb: String,
    bind_verb: String,
    weight: i64,
    /// It knows nodes and pods itself: it is sent their names.
    node_cache_capable: bool,
    /// It is asked about pods alone that ask for one of these; none: about every pod.
    managed: Vec<String>,
    /// What it can't say is not waited for.
    pub ignorable: bool,
    connection: Connection,
}

/// What extenders said of nodes.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Those that are right.
    pub kept: Vec<Arc<str>>,
    /// Those that are not, as far as it was said why.
    pub failed: HashMap<Arc<str>, Objection>,
    /// What to add to the nodes' totals.
    pub scores: HashMap<Arc<str>, i64>,
}

/// Where objects are found that an extender is sent whole.
#[derive(Clone)]
pub struct Objects {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

impl Objects {
    pub fn new(informers: &Informers) -> Self {
        Objects {
            nodes: informers.of(),
            pods: informers.of(),
        }
    }

    fn node(&self, name: &str) -> Option<Value> {
        serde_json::to_value(&*self.nodes.get_whole(None, name)?).ok()
    }

    /// A pod, if it is still the same. With all that it has: nobody knows what an extender looks at.
    pub fn pod(&self, pod: &PodInfo) -> Option<Value> {
        let object = self.pods.get_whole(Some(pod.namespace()), &pod.name)?;
        let same = object.metadata.uid.as_deref() == Some(&*pod.uid);
        same.then(|| serde_json::to_value(&*object).ok()).flatten()
    }
}

impl Extender {
    /// Reads what the configuration says of one, and the files that it names.
    ///
    /// # Errors
    /// It can't be asked that way.
    pub fn new(own: &ExtenderConfig) -> Result<Self, String> {
        if own.http_timeout.is_some_and(|span| span.negative) {
            return Err("httpTimeout: must not be negative".to_owned());
        }
        let timeout = own.http_timeout.map(|span| span.length).filter(|own| !own.is_zero());
        Ok(Extender {
            filter_verb: own.filter_verb.clone(),
            preempt_verb: own.preempt_verb.clone(),
            prioritize_verb: own.prioritize_verb.clone(),
            bind_verb: own.bind_verb.clone(),
            weight: own.weight,
            node_cache_capable: own.node_cache_capable,
            managed: own.managed_resources.iter().map(|own| own.name.clone()).collect(),
            ignorable: own.ignorable,
            connection: Connection::new(own, timeout.unwrap_or(TIMEOUT))?,
        })
    }

    fn is_interested(&self, pod: &PodInfo) -> bool {
        let asks = |name: &String| pod.requests.scalars.iter().any(|(asked, _)| asked == name);
        self.managed.is_empty() || self.managed.iter().any(asks)
    }

    /// Whether which node this pod gets depends on it.
    pub fn decides(&self, pod: &PodInfo) -> bool {
        let has_say = !self.filter_verb.is_empty() || !self.prioritize_verb.is_empty();
        has_say && self.is_interested(pod)
    }

    /// Whether it has a say in who goes for this pod.
    pub fn preempts(&self, pod: &PodInfo) -> bool {
        !self.preempt_verb.is_empty() && self.is_interested(pod)
    }

    /// Whether it binds this pod.
    pub fn binds(&self, pod: &PodInfo) -> bool {
        !self.bind_verb.is_empty() && self.is_interested(pod)
    }

    fn question(&self, pod: &Value, nodes: &[Arc<str>], objects: &Objects) -> Value {
        if self.node_cache_capable {
            return json!({"Pod": pod, "Nodes": null, "NodeNames": nodes});
        }
        let items: Vec<Value> = nodes.iter().filter_map(|name| objects.node(name)).collect();
        json!({"Pod": pod, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null})
    }

    async fn filter(
        &self,
        pod: &Value,
        nodes: &[Arc<str>],
        objects: &Objects,
    ) -> Result<wire::Filtered, ExtenderError> {
        let question = self.question(pod, nodes, objects);
        let answer = self.connection.ask(&self.filter_verb, question).await?;
        let filtered = wire::filtered(&answer, self.node_cache_capable).map_err(ExtenderError::Told)?;
        let known: HashSet<&str> = nodes.iter().map(|name| &**name).collect();
        let strange = filtered.kept.iter().find(|name| !known.contains(name.as_str()));
        match strange {
            Some(name) if filtered.by_name => Err(ExtenderError::Told(format!(
                "extender {:?} claims a filtered node {name:?} which is not found in the input node list",
                self.connection.url()
            ))),
            _ => Ok(filtered),
        }
    }

    /// Has it bind a pod.
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        let question =
            json!({"PodName": &*pod.name, "PodNamespace": pod.namespace(), "PodUID": &*pod.uid, "Node": node});
        let answer = self.connection.ask(&self.bind_verb, question).await?;
        wire::error(&answer).map_or(Ok(()), |error| Err(ExtenderError::Told(error)))
    }
}

/// Asks the extenders that decide about a pod which of the nodes are right, and how good they are.
pub async fn decide(
    extenders: &[Arc<Extender>],
    pod: &Value,
    nodes: Vec<Arc<str>>,
    objects: &Objects,
) -> Result<Verdict, ExtenderError> {
    let mut verdict = Verdict {
        kept: nodes,
        ..Verdict::default()
    };
    for extender in extenders.iter().filter(|extender| !extender.filter_verb.is_empty()) {
        if verdict.kept.is_empty() {
            break;
        }
        match extender.filter(pod, &verdict.kept, objects).await {
            Ok(filtered) => verdict.narrow(filtered),
            Err(error) if extender.ignorable => {
                tracing::info!(extender = extender.connection.url(), %error, "an extender is passed over");
            }
            Err(error) => return Err(error),
        }
    }
    if verdict.kept.len() > 1 {
        verdict.scores = scores(extenders, pod, &verdict.kept, objects).await;
    }
    Ok(verdict)
}

impl Verdict {
    fn narrow(&mut self, filtered: wire::Filtered) {
        let wire::Filtered {
            kept,
            failed,
            unresolvable,
            ..
        } = filtered;
        for (name, why) in failed {
            self.failed.insert(name.into(), Objection::new(why));
        }
        // Which of both it is where a node is named twice.
        for (name, why) in unresolvable {
            self.failed.insert(name.into(), Objection::unresolvable(why));
        }
        self.kept.retain(|name| kept.contains(&**name));
    }
}

/// What extenders add to the nodes' totals. One that fails adds nothing.
async fn scores(
    extenders: &[Arc<Extender>],
    pod: &Value,
    nodes: &[Arc<str>],
    objects: &Objects,
) -> HashMap<Arc<str>, i64> {
    let asked = extenders.iter().filter(|extender| !extender.prioritize_verb.is_empty());
    let answers = asked.map(|extender| async {
        let question = extender.question(pod, nodes, objects);
        let answer = extender.connection.ask(&extender.prioritize_verb, question).await;
        let scored = answer.and_then(|answer| wire::priorities(&answer).map_err(ExtenderError::Told));
        match scored {
            Ok(scored) => (extender.weight, scored),
            Err(error) => {
                tracing::info!(extender = extender.connection.url(), %error, "an extender gives no scores");
                (0, Vec::new())
            }
        }
    });
    let mut totals: HashMap<Arc<str>, i64> = HashMap::new();
    for (weight, scored) in futures::future::join_all(answers).await {
        for (name, score) in scored {
            let own = score.saturating_mul(weight).saturating_mul(MAX_SCORE / BEST);
            let total = totals.entry(name.into()).or_default();
            *total = total.saturating_add(own);
        }
    }
    totals
}
