//! Which claims a pod has, and what is to be made of its templates. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use mk8s_api::meta as object;
use mk8s_client::Raw;
use serde_json::{Value, json};

use crate::meta;

/// On a claim that was made of a template: what the pod calls it.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// What of a name the random end leaves room for.
const LONGEST_BASE: usize = 57;

/// The claims that were made for a pod, by what it calls them; none: it turned out that none is needed.
pub type Names = BTreeMap<String, Option<String>>;

/// What a pod names.
pub fn named(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten())
}

/// Whether it names any.
pub fn names_any(pod: &Pod) -> bool {
    named(pod).next().is_some()
}

/// What its status says.
pub fn statuses(pod: &Pod) -> Names {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let names = statuses.map(|status| (status.name.clone(), status.resource_claim_name.clone()));
    names.collect()
}

/// The claims of a pod that are known by name.
pub fn known_names(pod: &Pod) -> Vec<String> {
    let made = statuses(pod);
    let known = named(pod).filter_map(|claim| match &claim.resource_claim_name {
        Some(name) => Some(name.clone()),
        None => made.get(&claim.name).cloned().flatten(),
    });
    known.collect()
}

/// The templates of which a pod has no claim yet.
pub fn missing_templates(pod: &Pod) -> Vec<String> {
    let made = statuses(pod);
    let missing = named(pod).filter(|claim| !made.contains_key(&claim.name));
    missing
        .filter_map(|claim| claim.resource_claim_template_name.clone())
        .collect()
}

/// The pod that a claim was made for.
pub fn owner(claim: &Raw) -> Option<&OwnerReference> {
    meta::controller_of(claim).filter(|owner| owner.api_version == "v1" && owner.kind == "Pod")
}

/// What is to be done for one that a pod names.
#[derive(Debug, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// It is there under this name, which the pod's status does not say.
    Known(String),
    /// It is to be made of this template.
    Make(String),
}

/// `known` is the claim that the pod's status says, if it is there; `owned` are all that were made for the pod.
pub fn need(pod: &Pod, named: &PodResourceClaim, known: Option<&Raw>, owned: &[Arc<Raw>]) -> Need {
    let Some(template) = &named.resource_claim_template_name else {
        return Need::Nothing;
    };
    let said = statuses(pod).get(&named.name).cloned();
    // The pod can do without.
    if said == Some(None) || known.is_some_and(|claim| meta::controlled_by(claim, meta::uid(pod))) {
        return Need::Nothing;
    }
    let own = owned
        .iter()
        .find(|claim| meta::annotation(&***claim, POD_CLAIM) == Some(&named.name));
    match own {
        Some(claim) => Need::Known(meta::name(&**claim).to_owned()),
        None => Need::Make(template.clone()),
    }
}

/// The claim that a template makes for a pod.
pub fn from_template(pod: &Pod, name: &str, template: &Raw) -> Value {
    let given = |field: &str| {
        object::map_at(&template.value, &["spec", "metadata", field])
            .cloned()
            .unwrap_or_default()
    };
    let mut annotations = given("annotations");
    annotations.insert(POD_CLAIM.into(), name.into());
    let owner =
        json!({"apiVersion": "v1", "kind": "Pod", "name": meta::name(pod), "uid": meta::uid(pod), "controller": true});
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {
            "namespace": meta::namespace(pod), "generateName": base(meta::name(pod), name), "annotations": annotations,
            "labels": given("labels"), "ownerReferences": [owner],
        },
        "spec": object::at(&template.value, &["spec", "spec"]).cloned().unwrap_or_else(|| json!({})),
    })
}

/// Both names, each cut in proportion where they are too long.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= LONGEST_BASE {
        return whole;
    }
    let pod = &pod[..pod.len() * LONGEST_BASE / whole.len()];
    let claim = &claim[..claim.len() * LONGEST_BASE / whole.len()];
    format!("{pod}-{claim}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(claims: Value, statuses: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "resourceClaims": claims}, "status": {"resourceClaimStatuses": statuses}}))
        .unwrap()
    }

    fn claim(name: &str, owner: &str, of: &str) -> Arc<Raw> {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true});
        let metadata = json!({"name": name, "annotations": {POD_CLAIM: of}, "ownerReferences": [owner]});
        Arc::new(Raw::new(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn a_template_is_used_once_for_each_pod() {
        let by_template = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
        let by_name = json!([{"name": "gpu", "resourceClaimName": "c"}]);
        let said = json!([{"name": "gpu", "resourceClaimName": "p-gpu-x"}]);
        let make = || Need::Make("t".into());
        for (claims, statuses, known, owned, expected) in [
            (&by_name, json!([]), None, vec![], Need::Nothing),
            (&by_template, json!([]), None, vec![], make()),
            (
                &by_template,
                json!([]),
                None,
                vec![claim("p-gpu-x", "u", "gpu")],
                Need::Known("p-gpu-x".into()),
            ),
            (
                &by_template,
                json!([]),
                None,
                vec![claim("p-nic-x", "u", "nic")],
                make(),
            ),
            (
                &by_template,
                said.clone(),
                Some(claim("p-gpu-x", "u", "gpu")),
                vec![],
                Need::Nothing,
            ),
            (
                &by_template,
                said.clone(),
                Some(claim("p-gpu-x", "before", "gpu")),
                vec![],
                make(),
            ),
            (&by_template, said, None, vec![], make()),
            (&by_template, json!([{"name": "gpu"}]), None, vec![], Need::Nothing),
        ] {
            let pod = pod(claims.clone(), statuses.clone());
            let named = named(&pod).next().unwrap();
            assert_eq!(
                need(&pod, named, known.as_deref(), &owned),
                expected,
                "{claims} {statuses} {known:?}"
            );
        }
    }

    #[test]
    fn the_claims_of_a_pod_that_are_known() {
        let claims = json!([{"name": "a", "resourceClaimName": "c"}, {"name": "b", "resourceClaimTemplateName": "t"},
            {"name": "d", "resourceClaimTemplateName": "u"}]);
        let pod = pod(claims, json!([{"name": "b", "resourceClaimName": "p-b-x"}]));
        assert_eq!(known_names(&pod), ["c", "p-b-x"]);
        assert_eq!(missing_templates(&pod), ["u"]);
    }

    #[test]
    fn a_claim_has_what_its_template_says_and_whose_it_is() {
        let template = Raw::new(
            json!({"metadata": {}, "spec": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"devices": {}}}}),
        );
        let claim = from_template(&pod(json!([]), json!([])), "gpu", &template.unwrap());
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let metadata = json!({"namespace": "n", "generateName": "p-gpu-", "annotations": {"c": "d", POD_CLAIM: "gpu"},
            "labels": {"a": "b"}, "ownerReferences": owner});
        assert_eq!(
            (&claim["metadata"], &claim["spec"]),
            (&metadata, &json!({"devices": {}}))
        );
    }

    #[test]
    fn a_name_leaves_room_for_its_end() {
        assert_eq!(base("p", "gpu"), "p-gpu-");
        let (pod, claim) = ("p".repeat(60), "c".repeat(30));
        let base = base(&pod, &claim);
        assert_eq!(base, format!("{}-{}", "p".repeat(37), "c".repeat(18)));
    }
}
