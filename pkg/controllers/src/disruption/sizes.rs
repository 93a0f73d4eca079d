//! How many pods the owners of a budget's pods ask for together: of the workloads that the process watches anyway, or of whatever
//! else has a scale, which is asked for it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use mk8s_client::Informer;

use crate::context::Context;
use crate::meta;
use crate::scale::Scales;

/// The workloads that say how many pods there should be.
pub struct Sizes {
    pub deployments: Informer<Deployment>,
    pub sets: Informer<ReplicaSet>,
    pub stateful: Informer<StatefulSet>,
    pub controllers: Informer<ReplicationController>,
    others: Scales,
}

/// What the owners ask for, and whether there are pods that have none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub pods: i32,
    pub unmanaged: bool,
}

/// An owner and its size.
struct Sized {
    uid: String,
    replicas: i32,
}

impl Sizes {
    /// As the context's informers know them.
    pub fn new(ctx: &Context) -> Self {
        Sizes {
            deployments: ctx.informers.of(),
            sets: ctx.informers.of(),
            stateful: ctx.informers.of(),
            controllers: ctx.informers.of(),
            others: Scales::new(ctx.client.clone(), ctx.hub.clone()),
        }
    }

    /// Why they can't be counted is said in upstream's words, which the budget's condition quotes.
    pub async fn expected(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<Expected, String> {
        let mut expected = Expected::default();
        let mut owners: HashMap<&str, &OwnerReference> = HashMap::new();
        let mut resolved: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            let Some(owner) = meta::controller_of(&**pod) else {
                expected.unmanaged = true;
                continue;
            };
            if owners.insert(&owner.uid, owner).is_some() {
                continue;
            }
            let sized = match self.known(namespace, owner) {
                Some(sized) => Some(sized),
                None => self.other(namespace, owner).await?,
            };
            let sized = sized.ok_or_else(|| format!("found no controllers for pod {:?}", meta::name(&**pod)))?;
            resolved.insert(sized.uid, sized.replicas);
        }
        expected.pods = resolved.into_values().fold(0, i32::saturating_add);
        Ok(expected)
    }

    /// The size that an owner asks for; a ReplicaSet's is its Deployment's.
    fn known(&self, namespace: &str, owner: &OwnerReference) -> Option<Sized> {
        let (ns, uid) = (Some(namespace), owner.uid.as_str());
        let sized = |uid: &str, replicas: Option<i32>| {
            Some(Sized {
                uid: uid.to_owned(),
                replicas: replicas.unwrap_or(1),
            })
        };
        if is::<ReplicaSet>(owner) {
            let set = self.sets.get(ns, &owner.name).filter(|s| meta::uid(&**s) == uid)?;
            let Some(above) = meta::controller_of_kind::<Deployment, _>(&*set) else {
                return sized(uid, set.spec.as_ref()?.replicas);
            };
            let deployment = self.deployments.get(ns, &above.name);
            let deployment = deployment.filter(|d| meta::uid(&**d) == above.uid)?;
            sized(&above.uid, deployment.spec.as_ref()?.replicas)
        } else if is::<StatefulSet>(owner) {
            let set = self.stateful.get(ns, &owner.name).filter(|s| meta::uid(&**s) == uid)?;
            sized(uid, set.spec.as_ref()?.replicas)
        } else if is::<ReplicationController>(owner) {
            let set = self
                .controllers
                .get(ns, &owner.name)
                .filter(|c| meta::uid(&**c) == uid)?;
            sized(uid, set.spec.as_ref()?.replicas)
        } else {
            None
        }
    }

    /// The size of what is none of these.
    async fn other(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<Sized>, String> {
        let found = self
            .others
            .find(namespace, &owner.api_version, &owner.kind, &owner.name);
        let found = found.await.map_err(|error| error.message())?;
        Ok(found.filter(|target| target.uid() == owner.uid).map(|target| Sized {
            uid: owner.uid.clone(),
            replicas: target.replicas(),
        }))
    }
}

fn is<K: kube::Resource<DynamicType = ()>>(owner: &OwnerReference) -> bool {
    owner.kind == K::kind(&()) && mk8s_api::meta::split_api_version(&owner.api_version).0 == K::group(&())
}
