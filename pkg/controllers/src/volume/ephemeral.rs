//! A pod's ephemeral volumes: a claim for each, made of the template in the pod, and the pod's own.
//!
//! Watches pods and claims; makes claims. Deletes none: they go with their pod. A claim of the name that is not the pod's is never
//! used: the pod waits, and an event says so.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};
use mk8s_client::{Event, EventRecorder, Informer, Raw};
use serde_json::{Value, json};

use super::CLAIMS;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::meta::{self, Key};
use crate::{index, pod};

const NAME: &str = "ephemeral_volume";
const WORKERS: usize = 2;

struct Controller {
    ctx: Context,
    pods: Informer<Pod>,
    claims: Informer<Raw>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (pods, claims) = (ctx.informers.of::<Pod>(), CLAIMS.informer(&ctx.informers));
    let users = index::claims(&pods);
    let mut driver = Driver::new("ephemeral-volume-controller", &ctx.scope);
    // What a pod's volumes are never changes.
    driver.watch(&pods, |event| match event {
        Event::Applied { old: None, new } if needs_claims(new) => vec![Key::of(&**new)],
        _ => Vec::new(),
    });
    driver.watch(&claims, move |event| match event {
        Event::Deleted(claim) => {
            let users = users.get(&Key::of(&**claim).to_string());
            let needing = users.iter().filter(|pod| needs_claims(pod));
            needing.map(|pod| Key::of(&**pod)).collect()
        }
        Event::Applied { .. } => Vec::new(),
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        pods,
        claims,
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn needs_claims(pod: &Pod) -> bool {
    !meta::deleting(pod) && pod::volumes(pod).any(|volume| volume.ephemeral.is_some())
}

/// What becomes of a volume's claim.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It is there, or none is asked for.
    Nothing,
    Make(Value),
    /// There is one of its name that is not the pod's.
    Conflict(String),
}

fn plan(pod: &Pod, volume: &Volume, known: Option<&Raw>) -> Plan {
    let template = volume
        .ephemeral
        .as_ref()
        .and_then(|own| own.volume_claim_template.as_ref());
    let (Some(template), Some(name)) = (template, index::claim_of(pod, volume)) else {
        return Plan::Nothing;
    };
    if let Some(claim) = known {
        let own = meta::controlled_by(claim, meta::uid(pod));
        let (namespace, of) = (meta::namespace(pod), meta::name(pod));
        return if own {
            Plan::Nothing
        } else {
            Plan::Conflict(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{of} (pod is not owner)"
            ))
        };
    }
    let given = template.metadata.as_ref();
    Plan::Make(json!({
        "apiVersion": "v1", "kind": CLAIMS.kind,
        "metadata": {
            "namespace": meta::namespace(pod), "name": name, "ownerReferences": [meta::owner_reference(pod)],
            "labels": given.and_then(|given| given.labels.as_ref()),
            "annotations": given.and_then(|given| given.annotations.as_ref()),
        },
        "spec": template.spec,
    }))
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(key.ns(), &key.name).filter(|pod| needs_claims(pod)) else {
            return Ok(Next::Done);
        };
        for volume in pod::volumes(&pod) {
            if let Err(error) = self.volume(&pod, volume).await {
                // The reconciliation before this one made it, most likely; if not, that is told when it has come back.
                if error.is_conflict() {
                    return Err(error);
                }
                let message = format!("ephemeral volume {}: {}", volume.name, error.message());
                let told = meta::reference(&*pod);
                self.recorder.event(&told, "Warning", "FailedBinding", message);
                return Err(error);
            }
        }
        Ok(Next::Done)
    }
}

impl Controller {
    async fn volume(&self, pod: &Arc<Pod>, volume: &Volume) -> Result<(), Error> {
        let name = index::claim_of(pod, volume);
        let known = name.and_then(|name| self.claims.get(Some(meta::namespace(&**pod)), &name));
        match plan(pod, volume, known.as_deref()) {
            Plan::Nothing => Ok(()),
            Plan::Conflict(why) => Err(Error::Invalid(why)),
            Plan::Make(claim) => {
                let name = mk8s_api::meta::name(&claim).to_owned();
                match CLAIMS.create(&self.ctx.client, &claim).await {
                    Err(error) if error.is_conflict() => Err(error),
                    Err(error) => Err(Error::Invalid(format!("create PVC {name}: {}", error.message()))),
                    Ok(_) => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::raw;
    use super::*;

    #[test]
    fn a_claim_is_made_of_its_template_and_of_the_pod() {
        let template = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "emptyDir": {}}]}}))
        .unwrap();
        let volumes: Vec<&Volume> = pod::volumes(&pod).collect();
        let Plan::Make(claim) = plan(&pod, volumes[0], None) else {
            panic!("none is made")
        };
        assert_eq!(claim["spec"], template["spec"]);
        let metadata = &claim["metadata"];
        assert_eq!(
            (&metadata["name"], &metadata["namespace"]),
            (&json!("p-v"), &json!("n"))
        );
        assert_eq!(
            (&metadata["labels"], &metadata["annotations"]),
            (&json!({"a": "b"}), &json!({"c": "d"}))
        );
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true, "blockOwnerDeletion": true});
        assert_eq!(metadata["ownerReferences"], json!([owner]));
        assert_eq!(plan(&pod, volumes[0], Some(&raw(claim))), Plan::Nothing);
        assert_eq!(plan(&pod, volumes[1], None), Plan::Nothing);
        let another = raw(json!({"metadata": {"name": "p-v", "namespace": "n"}}));
        let why = "PVC n/p-v was not created for pod n/p (pod is not owner)";
        assert_eq!(plan(&pod, volumes[0], Some(&another)), Plan::Conflict(why.into()));
    }
}
