//! Who goes, as far as extenders have a say in it: they are shown the victims that plugins leave, and answer with their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Extender, ExtenderError, Objects, wire};
use crate::cluster::NodeInfo;
use crate::pod::PodInfo;
use crate::preemption::Victims;

/// A node on which pods could make room.
#[derive(Clone)]
pub struct Candidate {
    pub victims: Victims,
    /// All that is there, as it was: an extender may choose others.
    pub node: NodeInfo,
}

/// Victims by their node's name: while extenders are asked, the node may go and its number become another's.
pub type OnNodes = BTreeMap<Arc<str>, Victims>;

/// Asks the extenders that have a say which of these nodes could be made room on, and by whom.
pub async fn choose_victims(
    extenders: &[Arc<Extender>],
    pod: &Value,
    candidates: Vec<Candidate>,
    objects: &Objects,
) -> Result<OnNodes, ExtenderError> {
    let nodes: HashMap<Arc<str>, NodeInfo> = candidates
        .iter()
        .map(|own| (own.node.name.clone(), own.node.clone()))
        .collect();
    let mut left: OnNodes = candidates.into_iter().map(|own| (own.node.name, own.victims)).collect();
    for extender in extenders {
        if left.is_empty() {
            break;
        }
        match extender.victims(pod, &left, &nodes, objects).await {
            Ok(chosen) => left = chosen,
            Err(error) if extender.ignorable => {
                tracing::info!(extender = extender.connection.url(), %error, "an extender is passed over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

impl Extender {
    async fn victims(
        &self,
        pod: &Value,
        left: &OnNodes,
        nodes: &HashMap<Arc<str>, NodeInfo>,
        objects: &Objects,
    ) -> Result<OnNodes, ExtenderError> {
        let shown = |show: &dyn Fn(&PodInfo) -> Option<Value>| {
            let each = left.iter().map(|(node, own)| {
                let pods: Vec<Value> = own.pods.iter().filter_map(|pod| show(pod)).collect();
                (&**node, json!({"Pods": pods, "NumPDBViolations": own.breaks}))
            });
            each.collect::<BTreeMap<_, _>>()
        };
        let question = match self.node_cache_capable {
            true => json!({"Pod": pod, "NodeNameToMetaVictims": shown(&|pod| Some(json!({"UID": &*pod.uid})))}),
            false => json!({"Pod": pod, "NodeNameToVictims": shown(&|pod| objects.pod(pod))}),
        };
        let answer = self.connection.ask(&self.preempt_verb, question).await?;
        let chosen = wire::victims(&answer).map_err(ExtenderError::Told)?;
        let mut found = BTreeMap::new();
        for (name, victims) in chosen {
            let node = nodes
                .get(&*name)
                .ok_or_else(|| ExtenderError::Told(format!("nodeinfo not found for node name {name:?}")))?;
            let victims = self.found(node, victims)?;
            if !victims.pods.is_empty() {
                found.insert(node.name.clone(), victims);
            } else if !self.ignorable {
                let why = format!("expected at least one victim pod on node {name:?}");
                return Err(ExtenderError::Told(why));
            }
        }
        Ok(found)
    }

    /// The pods that are meant.
    fn found(&self, node: &NodeInfo, (uids, breaks): wire::MetaVictims) -> Result<Victims, ExtenderError> {
        let each = uids.iter().map(|uid| {
            let pod = node.pods.iter().find(|pod| *pod.uid == **uid).cloned();
            pod.ok_or_else(|| {
                ExtenderError::Told(format!(
                    "extender: {} claims to preempt pod (UID: {uid}) on node: {}, but the pod is not found on that node",
                    self.connection.url(),
                    node.name
                ))
            })
        });
        let breaks = usize::try_from(breaks).unwrap_or(0);
        Ok(Victims::new(node.id, each.collect::<Result<_, _>>()?, breaks))
    }
}
