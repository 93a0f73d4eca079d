//! A claim stays while a pod that has a node names it: such a pod may be writing to what the claim holds.
//!
//! Watches claims and pods; writes the claims' finalizer. Never lets one go before every pod is seen that was given a node
//! when the claim was deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::ListParams;
use mk8s_client::{Api, Event, Index, Partial};
use parking_lot::Mutex;

use super::{CLAIMS, Protector, key_of};
use crate::context::Context;
use crate::driver::{Driver, Next};
use crate::error::{Error, Tried};
use crate::index::{self, claim_of, claims_of};
use crate::meta::{self, Key};
use crate::pod;

/// A second one would list what the first has listed.
const WORKERS: usize = 1;

/// How many pods are read at once: of a large namespace no more is ever held.
const PAGE: u32 = 500;

/// When a claim is looked at again that is used by a pod nobody has heard of.
const AGAIN: Duration = Duration::from_secs(30);

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (claims, pods) = (CLAIMS.informer(&ctx), ctx.informers.of::<Pod>());
    let by_claim = index::claims(&pods);
    let mut driver = Driver::new("pvc-protection-controller", &ctx.scope);
    driver.watch(&claims, |event| key_of(event, &CLAIMS));
    driver.watch(&pods, |event| match event {
        Event::Deleted(pod) => claims_of(pod).collect(),
        Event::Applied { new, .. } if lets_go(new) => claims_of(new).collect(),
        Event::Applied { .. } => Vec::new(),
    });
    let users = Arc::new(Users {
        client: ctx.client.clone(),
        by_claim,
        live: Mutex::default(),
    });
    let in_use = move |claim: Arc<Partial>| -> BoxFuture<'static, Result<Option<Next>, Error>> {
        let users = users.clone();
        Box::pin(async move { users.of(&claim).await })
    };
    let protector = Protector {
        ctx,
        guarded: &CLAIMS,
        objects: claims,
        in_use: Box::new(in_use),
    };
    driver.run(WORKERS, protector).await
}

/// The pods that name claims.
struct Users {
    client: Client,
    by_claim: Index<Pod>,
    live: Mutex<Option<Live>>,
}

/// What a list of the pods of a namespace showed.
struct Live {
    namespace: String,
    revision: u64,
    /// By the claim's name.
    uses: HashMap<String, Vec<Use>>,
}

/// How a pod uses a claim.
struct Use {
    claim: String,
    /// Of a claim that was made for the pod: who controls it then.
    owner: Option<String>,
}

impl Users {
    /// When a claim is looked at again, if a pod uses it. Where no pod is known that does, all are read once more: the claim's
    /// deletion may have been heard of before a pod that was given a node earlier. A list in which nobody uses a claim counts for
    /// every claim that was deleted before it.
    async fn of(&self, claim: &Partial) -> Result<Option<Next>, Error> {
        let known = self.by_claim.get(&Key::of(claim).to_string());
        if known.iter().any(|pod| uses(pod).any(|own| own.is_of(claim))) {
            return Ok(Some(Next::Done));
        }
        if self.live.lock().as_ref().is_some_and(|live| live.clears(claim)) {
            return Ok(None);
        }
        let live = self.list(meta::namespace(claim)).await?;
        let used = live.uses(claim);
        *self.live.lock() = Some(live);
        // A pod that only the list has may come and go before it is heard of: no event would bring the claim back.
        Ok(used.then_some(Next::After(AGAIN)))
    }

    async fn list(&self, namespace: &str) -> Result<Live, Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let mut page = ListParams::default().limit(PAGE);
        let mut live = Live {
            namespace: namespace.to_owned(),
            revision: 0,
            uses: HashMap::new(),
        };
        loop {
            let listed = pods.list(&page).await;
            let listed = listed.tried(|| format!("list pods in {namespace}"))?;
            for own in listed.items.iter().flat_map(uses) {
                live.uses.entry(own.claim.clone()).or_default().push(own);
            }
            // All pages are of one.
            live.revision = revision(listed.metadata.resource_version.as_deref().unwrap_or_default());
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => return Ok(live),
            }
        }
    }
}

impl Live {
    fn uses(&self, claim: &Partial) -> bool {
        let named = self.uses.get(meta::name(claim));
        named.into_iter().flatten().any(|own| own.is_of(claim))
    }

    fn clears(&self, claim: &Partial) -> bool {
        self.namespace == meta::namespace(claim)
            && self.revision >= revision(meta::revision(claim))
            && !self.uses(claim)
    }
}

impl Use {
    /// Of a claim in the pod's namespace.
    fn is_of(&self, claim: &Partial) -> bool {
        let owned = |owner: &String| meta::controlled_by(claim, owner);
        self.claim == meta::name(claim) && self.owner.as_ref().is_none_or(owned)
    }
}

fn revision(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

/// Whether a pod that is there may be no hindrance any more.
fn lets_go(pod: &Pod) -> bool {
    pod::is_terminal(pod) || pod::node(pod).is_empty() || is_shut_down(pod)
}

/// Its node is done with it, or it was removed by force: what was made for it goes before it, should it wait for that.
fn is_shut_down(pod: &Pod) -> bool {
    meta::deleting(pod) && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// What a pod that has a node may be writing to.
fn uses(pod: &Pod) -> impl Iterator<Item = Use> {
    let has_node = !pod::node(pod).is_empty();
    pod::volumes(pod).filter(move |_| has_node).filter_map(|volume| {
        let lasts = volume.persistent_volume_claim.is_some();
        (lasts || !is_shut_down(pod)).then_some(())?;
        Some(Use {
            claim: claim_of(pod, volume)?,
            owner: (!lasts).then(|| meta::uid(pod).to_owned()),
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::{StreamExt, stream};
    use http::{Request, Response};
    use kube::client::Body;
    use mk8s_client::feed::{Change, Changes};
    use mk8s_client::{Feed, Informers, Selection};
    use mk8s_supervisor::Supervisor;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::super::tests::protected;
    use super::*;

    fn pod(node: &str, volumes: Value, metadata: &Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes}});
        mk8s_api::patch::merge(&mut pod["metadata"], metadata).unwrap();
        serde_json::from_value(pod).unwrap()
    }

    /// No pod, ever.
    struct Nothing;

    impl Feed for Nothing {
        fn open(&self, _: &Selection, _: Option<u64>) -> Changes {
            stream::iter([Ok(Change::UpTo(1))]).chain(stream::pending()).boxed()
        }
    }

    /// Two pages, in the second of which a pod uses `c`.
    async fn serve(request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let query = request.uri().query().unwrap();
        assert!(query.contains("limit=500"), "{query}");
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let (items, metadata) = match query.contains("continue=more") {
            false => (vec![], json!({"resourceVersion": "7", "continue": "more"})),
            true => (vec![pod("n", named, &json!({}))], json!({"resourceVersion": "7"})),
        };
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items});
        Ok(Response::new(Body::from(list.to_string().into_bytes())))
    }

    #[tokio::test]
    async fn all_pods_are_read_in_pages_before_a_claim_goes() {
        let owner = Supervisor::new(CancellationToken::new());
        let pods = Informers::fed(Arc::new(Nothing), &owner).of::<Pod>();
        let users = Users {
            client: Client::new(tower::service_fn(serve), "a"),
            by_claim: index::claims(&pods),
            live: Mutex::default(),
        };
        let claim = |name: &str, revision: &str| {
            protected(json!({"metadata": {"name": name, "namespace": "a", "resourceVersion": revision}}))
        };
        // Nobody has heard of the pod that uses it, and perhaps nobody will.
        assert_eq!(users.of(&claim("c", "5")).await.unwrap(), Some(Next::After(AGAIN)));
        assert_eq!(users.of(&claim("d", "6")).await.unwrap(), None);
        let live = users.live.lock();
        let clears = |claim: &Partial| live.as_ref().unwrap().clears(claim);
        assert!(clears(&claim("d", "7")) && !clears(&claim("d", "8")) && !clears(&claim("c", "7")));
        owner.token().cancel();
    }

    #[test]
    fn a_pod_with_a_node_holds_what_it_names() {
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let claim = |name: &str, owners: &Value| {
            protected(json!({"metadata": {"name": name, "namespace": "a", "ownerReferences": owners}}))
        };
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let made = json!([{"name": "v", "ephemeral": {}}]);
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        let (none, there) = (json!([]), json!({}));
        for (pod, claim, expected) in [
            (pod("n", named.clone(), &there), claim("c", &none), true),
            (pod("n", named.clone(), &gone), claim("c", &none), true),
            (pod("", named.clone(), &there), claim("c", &none), false),
            (pod("n", named, &there), claim("d", &none), false),
            (pod("n", made.clone(), &there), claim("p-v", &owner), true),
            (pod("n", made.clone(), &there), claim("p-v", &none), false),
            (pod("n", made, &gone), claim("p-v", &owner), false),
        ] {
            assert_eq!(
                uses(&pod).any(|own| own.is_of(&claim)),
                expected,
                "{:?} {:?}",
                pod.spec,
                claim.metadata
            );
        }
    }
}
