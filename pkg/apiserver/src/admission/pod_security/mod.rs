//! PodSecurity: the Pod Security Standards, by a namespace's labels (enforce, audit, warn; level and version), in
//! upstream's words (<https://kubernetes.io/docs/concepts/security/pod-security-admission/>).

mod checks;
pub(super) mod policy;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mk8s_api::meta;
use mk8s_api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::namespaces::Namespaces;
use super::{Attributes, Notes, Operation};
use crate::lookup::Lookup;

pub use checks::evaluate;
pub use policy::{Level, LevelVersion, Policy};

const AUDIT_VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

/// Where a workload kind keeps its pod template.
fn template(attributes: &Attributes<'_>) -> Option<&'static [&'static str]> {
    Some(match (&*attributes.resource.group, &*attributes.resource.plural) {
        ("", "podtemplates") => &["template"],
        ("", "replicationcontrollers") => &["spec", "template"],
        ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets") => &["spec", "template"],
        ("batch", "jobs") => &["spec", "template"],
        ("batch", "cronjobs") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    })
}

pub fn validate(
    attributes: &Attributes<'_>,
    object: &Value,
    lookup: &dyn Lookup,
    namespaces: &Namespaces,
    notes: &mut Notes,
) -> Result<(), Status> {
    if attributes.is_core("namespaces") {
        return namespace(attributes, object, lookup, &mut notes.warnings);
    }
    let enforces = attributes.is_core("pods");
    let template = if enforces { None } else { template(attributes) };
    if !enforces && template.is_none() {
        return Ok(());
    }
    let Some(facts) = namespaces.get(lookup, attributes.namespace) else {
        return Ok(());
    };
    let policy = &facts.policy;
    if policy.is_open() {
        return Ok(());
    }
    let pod = match template {
        None => object,
        Some(path) => match meta::at(object, path) {
            Some(template) if template.is_object() => template,
            _ => return Ok(()),
        },
    };
    if let (true, Operation::Update, Some(old)) = (enforces, attributes.operation, attributes.old)
        && !is_significant(object, old)
    {
        return Ok(());
    }
    if enforces {
        let violations = evaluate(policy.enforce, pod);
        if !violations.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&violations));
            return Err(attributes.forbidden(Some(object), &why));
        }
    }
    let would = |level: LevelVersion| {
        // What is enforced was found to hold.
        if enforces && level == policy.enforce {
            return None;
        }
        let violations = evaluate(level, pod);
        let text = || format!("would violate PodSecurity \"{level}\": {}", details(&violations));
        (!violations.is_empty()).then(text)
    };
    if let Some(violations) = would(policy.audit) {
        notes.audit.push((AUDIT_VIOLATIONS, violations));
    }
    notes.warnings.extend(would(policy.warn));
    Ok(())
}

/// A check that failed: what for, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

/// `host namespaces (hostNetwork=true), privileged (container "a" must not …)`
fn details(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations
        .iter()
        .map(|violation| match violation.detail.as_str() {
            "" => violation.reason.clone(),
            detail => format!("{} ({detail})", violation.reason),
        })
        .collect();
    texts.join(", ")
}

/// Updates that could change what a pod may do: another set of containers, another image.
fn is_significant(new: &Value, old: &Value) -> bool {
    for list in ["containers", "initContainers"] {
        let (new, old) = (meta::items(new, &["spec", list]), meta::items(old, &["spec", list]));
        if new.len() != old.len() || new.iter().zip(old).any(|(new, old)| new["image"] != old["image"]) {
            return true;
        }
    }
    let [new, old] = [new, old].map(|pod| meta::items(pod, &["spec", "ephemeralContainers"]));
    let images: HashMap<&Value, &Value> = old.iter().rev().map(|old| (&old["name"], &old["image"])).collect();
    new.iter().any(|new| images.get(&new["name"]) != Some(&&new["image"]))
}

/// How many pods of a namespace are looked at, and for how long, as upstream does.
const MOST_PODS: usize = 3000;
const MOST_TIME: Duration = Duration::from_secs(1);

/// Where there are more than are looked at: those first that no pod before them has the controller of.
fn one_of_each_first(pods: Vec<Bytes>) -> Vec<Bytes> {
    #[derive(Deserialize)]
    struct Pod {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        owner_references: Vec<Owner>,
    }
    #[derive(Deserialize)]
    struct Owner {
        #[serde(default)]
        controller: Option<bool>,
        uid: String,
    }
    if pods.len() <= MOST_PODS {
        return pods;
    }
    let mut seen = HashSet::new();
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for bytes in pods {
        let owners =
            serde_json::from_slice(&bytes).map_or_else(|_| Vec::new(), |pod: Pod| pod.metadata.owner_references);
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        if controller.is_none_or(|owner| seen.insert(owner.uid)) {
            first.push(bytes);
        } else {
            others.push(bytes);
        }
    }
    first.append(&mut others);
    first
}

/// Labels must be valid where they change; a stricter level warns of the pods that are there already.
fn namespace(
    attributes: &Attributes<'_>,
    object: &Value,
    lookup: &dyn Lookup,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let (policy, errors) = Policy::of_labels(&object["metadata"]["labels"]);
    let name = meta::name(object);
    let old = attributes.old.map(|old| Policy::of_labels(&old["metadata"]["labels"]));
    if !errors.is_empty() && old.as_ref().is_none_or(|(_, held)| *held != errors) {
        return Err(Status::invalid("", "Namespace", name, &errors));
    }
    let Some((old, _)) = old else { return Ok(()) };
    let (new, old) = (policy.enforce, old.enforce);
    if new == old || new.level == Level::Privileged || (new.minor == old.minor && new.level <= old.level) {
        return Ok(());
    }
    // warning → (first pod's name, how many)
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let pods = one_of_each_first(lookup.list("", "pods", name));
    let (until, mut looked_at) = (Instant::now() + MOST_TIME, 0);
    for bytes in &pods {
        if looked_at == MOST_PODS || (looked_at > 0 && Instant::now() > until) {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {looked_at} of {} existing pods",
                pods.len()
            ));
            break;
        }
        looked_at += 1;
        let Ok(pod) = serde_json::from_slice::<Value>(bytes) else {
            continue;
        };
        let violations = evaluate(new, &pod);
        if violations.is_empty() {
            continue;
        }
        let reasons: Vec<String> = violations.into_iter().map(|violation| violation.reason).collect();
        let entry = found
            .entry(reasons.join(", "))
            .or_insert_with(|| (meta::name(&pod).to_string(), 0));
        if meta::name(&pod) < entry.0.as_str() {
            entry.0 = meta::name(&pod).to_string();
        }
        entry.1 += 1;
    }
    if found.is_empty() {
        return Ok(());
    }
    warnings.push(format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{new}\""
    ));
    let mut texts: Vec<String> = found
        .into_iter()
        .map(|(reasons, (pod, count))| match count {
            1 => format!("{pod}: {reasons}"),
            2 => format!("{pod} (and 1 other pod): {reasons}"),
            _ => format!("{pod} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    texts.sort();
    warnings.append(&mut texts);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing::{Request, cluster};
    use super::*;

    #[test]
    fn labels() {
        for (labels, enforce, warn, errors) in [
            (json!({}), "privileged:latest", "privileged:latest", 0),
            (
                json!({"pod-security.kubernetes.io/enforce": "baseline"}),
                "baseline:latest",
                "baseline:latest",
                0,
            ),
            (
                json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"}),
                "restricted:v1.30",
                "restricted:v1.30",
                0,
            ),
            (
                json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "privileged"}),
                "restricted:latest",
                "privileged:latest",
                0,
            ),
            (
                json!({"pod-security.kubernetes.io/enforce": "tight"}),
                "restricted:latest",
                "privileged:latest",
                1,
            ),
            (
                json!({"pod-security.kubernetes.io/warn-version": "1.2"}),
                "privileged:latest",
                "privileged:latest",
                1,
            ),
        ] {
            let (policy, found) = Policy::of_labels(&labels);
            assert_eq!(
                (
                    policy.enforce.to_string().as_str(),
                    policy.warn.to_string().as_str(),
                    found.len()
                ),
                (enforce, warn, errors),
                "{labels}"
            );
        }
    }

    #[test]
    fn a_stricter_level_is_held_against_so_many_pods() {
        let lookup = cluster();
        let pod = |name: &str, owner: &str| {
            json!({"metadata": {"name": name, "namespace": "many",
            "ownerReferences": [{"controller": true, "uid": owner}]},
            "spec": {"hostNetwork": owner == "last", "containers": [{"name": "c"}]}})
        };
        for at in 0..MOST_PODS {
            lookup.put("", "pods", &pod(&format!("p{at:05}"), "first"));
        }
        lookup.put("", "pods", &pod("q", "last"));
        let space = |labels: Value| json!({"metadata": {"name": "many", "labels": labels}});
        let new = space(json!({"pod-security.kubernetes.io/enforce": "baseline"}));
        let mut notes = Notes::default();
        let request = Request {
            operation: Operation::Update,
            ..Request::create("namespaces", "")
        };
        let namespaces = Namespaces::default();
        request
            .with(Some(&space(json!({}))), |a| {
                validate(a, &new, &*lookup, &namespaces, &mut notes)
            })
            .unwrap();
        let [bound, of, told] = &notes.warnings[..] else {
            panic!("{:?}", notes.warnings);
        };
        // On a busy machine the time is over before.
        let (told_of, all) = (bound.split(' ').nth(9).unwrap(), "of 3001 existing pods");
        assert!(
            told_of.parse::<usize>().unwrap() <= MOST_PODS && bound.ends_with(all),
            "{bound}"
        );
        assert!(of.starts_with("existing pods in namespace \"many\" violate"), "{of}");
        assert_eq!(told, "q: host namespaces");
    }

    #[test]
    fn what_may_run_changes_with_the_containers_alone() {
        let pod =
            |ephemeral: Value| json!({"spec": {"containers": [{"image": "i"}], "ephemeralContainers": ephemeral}});
        let of = |name: &str, image: &str| json!({"name": name, "image": image});
        let old = pod(json!([of("a", "1"), of("b", "1")]));
        for (new, significant) in [
            (json!([of("b", "1"), of("a", "1")]), false),
            (json!([of("a", "1"), of("b", "2")]), true),
            (json!([of("c", "1")]), true),
            (json!([]), false),
        ] {
            assert_eq!(is_significant(&pod(new.clone()), &old), significant, "{new}");
        }
    }

    #[test]
    fn modes() {
        let lookup = cluster();
        lookup.put("", "namespaces", &json!({"metadata": {"name": "tight", "labels": {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}}));
        let namespaces = Namespaces::default();
        let run = |request: Request<'_>, object: &Value| {
            let mut notes = Notes::default();
            let result = request.with(None, |a| validate(a, object, &*lookup, &namespaces, &mut notes));
            (result.map_err(|status| status.message), notes.warnings)
        };
        let pod = json!({"metadata": {"name": "x"}, "spec": {"hostNetwork": true, "containers": [{"name": "a", "securityContext": {"privileged": true}}]}});
        let (result, _) = run(Request::create("pods", "tight"), &pod);
        assert_eq!(
            result.unwrap_err(),
            "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), privileged (container \"a\" must not set securityContext.privileged=true)"
        );
        assert_eq!(run(Request::create("pods", "default"), &pod), (Ok(()), vec![]));
        let deployment =
            json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}});
        let (result, warnings) = run(
            Request {
                group: "apps",
                ..Request::create("deployments", "tight")
            },
            &deployment,
        );
        result.unwrap();
        assert_eq!(
            warnings,
            [
                "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
            ]
        );
        let bad = json!({"metadata": {"name": "n", "labels": {"pod-security.kubernetes.io/enforce": "x"}}});
        assert_eq!(
            run(Request::create("namespaces", ""), &bad).0.unwrap_err(),
            "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"x\": must be one of privileged, baseline, restricted"
        );
    }
}
