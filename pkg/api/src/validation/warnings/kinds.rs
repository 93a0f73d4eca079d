//! What upstream warns of in kinds other than pods and what makes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{addresses, claim_spec, labels, volumes};
use crate::meta as object;
use crate::quantity::{self, Quantity};
use crate::validation::{Path, each, has, strings, text};

type Warnings = Vec<String>;

const SPEC: Path<'static> = Path::new("spec");
const ANNOTATIONS: Path<'static> = Path::new("metadata.annotations");

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object::at(object, &["metadata", "annotations", key])
}

fn part<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    object::at(object, path).unwrap_or(&Value::Null)
}

pub fn service(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    let spec = part(new, &["spec"]);
    let kind = text(spec, "type");
    if annotation(new, "service.kubernetes.io/topology-aware-hints").is_some() {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead"
                .into(),
        );
    }
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let addresses = |key, warnings: &mut Warnings| {
        let path = SPEC.child(key);
        strings(spec, key)
            .enumerate()
            .for_each(|(index, ip)| addresses::ip(ip, &path.index(index), warnings));
    };
    if kind != "ExternalName" && !matches!(text(spec, "clusterIP"), "" | "None") {
        addresses("clusterIPs", &mut warnings);
    }
    let external = strings(spec, "externalIPs").next().is_some();
    let balancer = text(spec, "loadBalancerIP");
    if headless {
        let ignored = [
            ("loadBalancerIP", !balancer.is_empty()),
            ("externalIPs", external),
            ("SessionAffinity", text(spec, "sessionAffinity") != "None"),
        ];
        for (field, _) in ignored.iter().filter(|(_, set)| *set) {
            warnings.push(format!("spec.{field} is ignored for headless services"));
        }
    }
    addresses("externalIPs", &mut warnings);
    addresses::ip(balancer, &SPEC.child("loadBalancerIP"), &mut warnings);
    let ranges = SPEC.child("loadBalancerSourceRanges");
    for (index, range) in strings(spec, "loadBalancerSourceRanges").enumerate() {
        addresses::cidr(range, &ranges.index(index), &mut warnings);
    }
    if kind == "ExternalName" && external {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if kind != "ExternalName" && !text(spec, "externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    warnings
}

pub fn ingress(new: &Value, old: Option<&Value>) -> Warnings {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let named = has(part(new, &["spec"]), "ingressClassName").is_some();
    if old.is_some() || named || annotation(new, CLASS).is_none() {
        return Vec::new();
    }
    vec![format!(
        "annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"
    )]
}

/// Whether a controller of the cluster made it, which knows how addresses are written.
fn is_managed(new: &Value, label: &str, managers: &[&str]) -> bool {
    managers.contains(&object::string(new, &["metadata", "labels", label]))
}

pub fn endpoints(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    if is_managed(new, "endpoints.kubernetes.io/managed-by", &["endpoint-controller"]) {
        return warnings;
    }
    let subsets = Path::new("subsets");
    for (index, subset) in each(new, "subsets") {
        let path = subsets.index(index);
        for key in ["addresses", "notReadyAddresses"] {
            let path = path.child(key);
            for (index, address) in each(subset, key) {
                addresses::ip(text(address, "ip"), &path.index(index).child("ip"), &mut warnings);
            }
        }
    }
    warnings
}

pub fn endpoint_slice(new: &Value, old: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    if old.is_none() && text(new, "addressType") == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
    }
    const MANAGERS: [&str; 2] = [
        "endpointslice-controller.k8s.io",
        "endpointslicemirroring-controller.k8s.io",
    ];
    if is_managed(new, "endpointslice.kubernetes.io/managed-by", &MANAGERS) {
        return warnings;
    }
    let endpoints = Path::new("endpoints");
    for (index, endpoint) in each(new, "endpoints") {
        let path = endpoints.index(index);
        let path = path.child("addresses");
        for (index, address) in strings(endpoint, "addresses").enumerate() {
            addresses::ip(address, &path.index(index), &mut warnings);
        }
    }
    warnings
}

pub fn network_policy(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    for (way, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = SPEC.child(way);
        for (index, rule) in each(part(new, &["spec"]), way) {
            let path = rules.index(index);
            let path = path.child(peers);
            for (index, peer) in each(rule, peers) {
                let Some(block) = has(peer, "ipBlock") else { continue };
                let path = path.index(index);
                let path = path.child("ipBlock");
                addresses::cidr(text(block, "cidr"), &path.child("cidr"), &mut warnings);
                let except = path.child("except");
                for (index, range) in strings(block, "except").enumerate() {
                    addresses::cidr(range, &except.index(index), &mut warnings);
                }
            }
        }
    }
    warnings
}

pub fn node(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    let spec = part(new, &["spec"]);
    if !text(spec, "externalID").is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    let ranges = SPEC.child("podCIDRs");
    for (index, range) in strings(spec, "podCIDRs").enumerate() {
        addresses::cidr(range, &ranges.index(index), &mut warnings);
    }
    warnings
}

const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const STORAGE_CLASS_GONE: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";

pub fn persistent_volume(new: &Value, _: Option<&Value>) -> Warnings {
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    let mut warnings = Vec::new();
    let spec = part(new, &["spec"]);
    for (key, why) in [
        (STORAGE_CLASS, STORAGE_CLASS_GONE),
        (
            OPTIONS,
            "deprecated since v1.31; use \"mountOptions\" attribute instead",
        ),
    ] {
        if annotation(new, key).is_some() {
            warnings.push(format!("{}: {why}", ANNOTATIONS.key(key)));
        }
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                .into(),
        );
    }
    let terms = Path::new("spec.nodeAffinity.required.nodeSelectorTerms");
    for (index, term) in each(part(spec, &["nodeAffinity", "required"]), "nodeSelectorTerms") {
        labels::term(term, false, &terms.index(index), &mut warnings);
    }
    for source in [
        "cephfs",
        "photonPersistentDisk",
        "scaleIO",
        "storageos",
        "glusterfs",
        "rbd",
    ] {
        let gone = volumes::GONE.iter().find(|(gone, _)| *gone == source);
        if let (Some((_, why)), Some(_)) = (gone, has(spec, source)) {
            warnings.push(format!("{}: {why}", SPEC.child(volumes::shown(source))));
        }
    }
    warnings
}

pub fn claim(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    if annotation(new, STORAGE_CLASS).is_some() {
        warnings.push(format!("{}: {STORAGE_CLASS_GONE}", ANNOTATIONS.key(STORAGE_CLASS)));
    }
    claim_spec(has(new, "spec"), &SPEC, &mut warnings);
    warnings
}

pub fn storage_class(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    let topologies = Path::new("allowedTopologies");
    for (index, topology) in each(new, "allowedTopologies") {
        let path = topologies.index(index);
        let path = path.child("matchLabelExpressions");
        for (index, expression) in each(topology, "matchLabelExpressions") {
            if let Some(why) = labels::deprecated(text(expression, "key")) {
                warnings.push(format!("{}: {why}", path.index(index).child("key")));
            }
        }
    }
    warnings
}

pub fn storage_capacity(new: &Value, _: Option<&Value>) -> Warnings {
    let mut warnings = Vec::new();
    if let Some(topology) = has(new, "nodeTopology") {
        labels::selector(topology, &Path::new("nodeTopology"), &mut warnings);
    }
    warnings
}

pub fn runtime_class(new: &Value, _: Option<&Value>) -> Warnings {
    let selector = object::map_at(new, &["scheduling", "nodeSelector"]);
    let labels = selector
        .into_iter()
        .flatten()
        .filter_map(|(label, _)| labels::deprecated(label));
    labels.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
}

pub fn csi_driver(new: &Value, old: Option<&Value>) -> Warnings {
    let requests = |object| part(object, &["spec", "tokenRequests"]);
    let asks_none = each(part(new, &["spec"]), "tokenRequests").next().is_none();
    let said = object::at(new, &["spec", "serviceAccountTokenInSecrets"]).is_some();
    if asks_none || said || old.is_some_and(|old| requests(old) == requests(new)) {
        return Vec::new();
    }
    vec![
        "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"
            .into(),
    ]
}

pub fn service_account(new: &Value, old: Option<&Value>) -> Warnings {
    const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";
    if annotation(new, ENFORCED).is_none() || old.is_some_and(|old| annotation(old, ENFORCED).is_some()) {
        return Vec::new();
    }
    vec![format!(
        "{}: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
        ANNOTATIONS.key(ENFORCED)
    )]
}

pub fn resource_slice(new: &Value, _: Option<&Value>) -> Warnings {
    let driver = object::string(new, &["spec", "driver"]);
    if driver.to_lowercase() == driver {
        return Vec::new();
    }
    vec![format!(
        "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
    )]
}

pub fn resource_quota(new: &Value, old: Option<&Value>) -> Warnings {
    if old.is_some() {
        return Vec::new();
    }
    let hard = part(new, &["spec", "hard"]);
    let amount = |name: &str| -> Option<Quantity> { quantity::from_json(hard.get(name)?).ok() };
    let mut warnings = Vec::new();
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let long = format!("requests.{name}");
        let bare = || {
            Some((
                name.to_string(),
                amount(name).filter(|_| matches!(name, "cpu" | "memory"))?,
            ))
        };
        let Some((request, asked)) = amount(&long).map(|asked| (long.clone(), asked)).or_else(bare) else {
            continue;
        };
        let limit = format!("limits.{name}");
        if let Some(most) = amount(&limit).filter(|most| asked > *most) {
            warnings.push(format!(
                "ResourceQuota {request} ({asked}) should be less than {limit} ({most})"
            ));
        }
    }
    warnings
}

/// Of a TLS secret: that its texts hold what they are named after.
pub fn secret(new: &Value, _: Option<&Value>) -> Warnings {
    if text(new, "type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    let holds_blocks = |key| {
        let data = object::string(new, &["data", key]);
        let data = STANDARD.decode(data).unwrap_or_default();
        data.windows(PEM.len()).any(|bytes| bytes == PEM)
    };
    let missing = [("tls.crt", "certificate"), ("tls.key", "key")];
    let missing = missing.into_iter().find(|(key, _)| !holds_blocks(key));
    missing
        .map(|(_, what)| format!("tls: failed to find any PEM data in {what} input"))
        .into_iter()
        .collect()
}

const PEM: &[u8] = b"-----BEGIN ";
