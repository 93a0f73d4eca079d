//! `Warning` texts: fields that are stored though nothing acts on them yet, each named by its path, and what upstream
//! warns of: deprecated fields, labels and annotations, and what is likely to be meant otherwise.

mod addresses;
mod kinds;
mod labels;
mod ports;
mod volumes;

use std::collections::HashSet;

use serde_json::Value;

pub use self::kinds::{
    claim as claim_warnings, csi_driver as csi_driver_warnings, endpoint_slice as endpoint_slice_warnings,
    endpoints as endpoints_warnings, ingress as ingress_warnings, network_policy as network_policy_warnings,
    node as node_warnings, persistent_volume as persistent_volume_warnings, resource_quota as resource_quota_warnings,
    resource_slice as resource_slice_warnings, runtime_class as runtime_class_warnings, secret as secret_warnings,
    service as service_warnings, service_account as service_account_warnings,
    storage_capacity as storage_capacity_warnings, storage_class as storage_class_warnings,
};
use super::{Path, each, has, list, strings, strings_of, text};
use crate::{meta as object, names, quantity};

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// No answer's headers hold as many.
const MOST: usize = 1000;

/// Of a Pod: told once, when it is made.
pub fn pod_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        name(new, "the Pod's hostname", &mut warnings);
        of_pod(new, &Path::ROOT, &mut warnings);
    }
    warnings
}

/// Of a kind with `spec.template`, whose pods are named after it.
pub fn named_template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        name(new, "Pod names and hostnames", &mut warnings);
    }
    warnings.extend(pod_template_warnings(new, old));
    warnings
}

/// Of a kind with `spec.template`.
pub fn pod_template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if changed(new, old) {
        template(object::at(new, &["spec"]), &Path::new("spec"), &mut warnings);
    }
    warnings
}

/// Of a PodTemplate.
pub fn pod_template_object_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if changed(new, old) {
        template(Some(new), &Path::ROOT, &mut warnings);
    }
    warnings
}

pub fn stateful_set_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = pod_template_warnings(new, old);
    let spec = Path::new("spec");
    let claims = spec.child("volumeClaimTemplates");
    for (index, claim) in object::items(new, &["spec", "volumeClaimTemplates"]).iter().enumerate() {
        let path = claims.index(index);
        // Upstream's own paths.
        let of_change = path.child("Spec");
        let path = if old.is_none() { &path } else { &of_change };
        claim_spec(has(claim, "spec"), path, &mut warnings);
    }
    if object::i64_at(new, &["spec", "revisionHistoryLimit"]).is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .into(),
        );
    }
    warnings
}

pub fn job_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        name(new, "Pod names and hostnames", &mut warnings);
    }
    if changed(new, old) {
        job(object::at(new, &["spec"]), &Path::new("spec"), &mut warnings);
    }
    warnings
}

pub fn cron_job_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        name(new, "Pod names and hostnames", &mut warnings);
    }
    if changed(new, old) {
        let spec = object::at(new, &["spec", "jobTemplate", "spec"]);
        job(spec, &Path::new("spec.jobTemplate.spec"), &mut warnings);
    }
    if old.is_some() && object::string(new, &["spec", "schedule"]).contains("TZ") {
        warnings.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .into(),
        );
    }
    warnings
}

/// Whether an object is made, or its spec is another one.
fn changed(new: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| object::generation(new) != object::generation(old))
}

fn name(new: &Value, used_in: &str, warnings: &mut Vec<String>) {
    let problems = names::dns_label(object::name(new));
    if !problems.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        ));
    }
}

fn job(spec: Option<&Value>, path: &Path<'_>, warnings: &mut Vec<String>) {
    let Some(spec) = spec else { return };
    let number = |key| object::i64_at(spec, &[key]).unwrap_or(0);
    if text(spec, "completionMode") == "Indexed" && number("completions") > 100_000 && number("parallelism") > 10_000 {
        warnings.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    template(Some(spec), path, warnings);
}

/// Of what has a `template` of pods.
fn template(owner: Option<&Value>, path: &Path<'_>, warnings: &mut Vec<String>) {
    if let Some(template) = owner.and_then(|owner| has(owner, "template")) {
        of_pod(template, &path.child("template"), warnings);
    }
}

/// Of a pod or a template.
fn of_pod(pod: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let Some(spec) = has(pod, "spec") else { return };
    let annotations = Annotations {
        all: object::map_at(pod, &["metadata", "annotations"]),
        path: &path.child("metadata"),
        of_template: !path.is_root(),
    };
    let path = path.child("spec");
    scheduling(spec, &path, warnings);
    annotations.alone(warnings);
    volumes::check(spec, &path, warnings);
    lists(spec, &path, warnings);
    if let Some(overhead) = has(spec, "overhead") {
        fractional(
            overhead,
            &path.child("overhead"),
            &["memory", "ephemeral-storage"],
            warnings,
        );
    }
    annotations.seccomp(spec, SECCOMP_POD, warnings);
    for kind in CONTAINERS {
        let containers = path.child(kind);
        for (index, container) in each(spec, kind) {
            annotations.of_container(spec, container, warnings);
            let path = containers.index(index);
            fractional_bytes(container, &path.child("resources"), warnings);
            hidden_variables(container, &path.child("env"), warnings);
        }
    }
    ports::check(spec, &path, warnings);
    if object::i64_at(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
    affinity(spec, &path, warnings);
    let config = path.child("dnsConfig");
    let servers = config.child("nameservers");
    for (index, server) in has(spec, "dnsConfig")
        .into_iter()
        .flat_map(|config| strings(config, "nameservers"))
        .enumerate()
    {
        addresses::ip(server, &servers.index(index), warnings);
    }
    let aliases = path.child("hostAliases");
    for (index, alias) in each(spec, "hostAliases") {
        addresses::ip(text(alias, "ip"), &aliases.index(index).child("ip"), warnings);
    }
    spec_warnings(spec, &path, warnings);
}

/// By which labels a pod selects its node, and by which topology it is spread.
fn scheduling(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for (key, _) in strings_of(spec, "nodeSelector") {
        if let Some(why) = labels::deprecated(key) {
            warnings.push(format!("{}: {why}", path.child("nodeSelector").key(key)));
        }
    }
    if let Some(node) = object::at(spec, &["affinity", "nodeAffinity"]) {
        let affinity = path.child("affinity");
        let affinity = affinity.child("nodeAffinity");
        let required = affinity.child(REQUIRED);
        let terms = required.child("nodeSelectorTerms");
        for (index, term) in has(node, REQUIRED)
            .into_iter()
            .flat_map(|required| each(required, "nodeSelectorTerms"))
        {
            labels::term(term, false, &terms.index(index), warnings);
        }
        let terms = affinity.child(PREFERRED);
        for (index, term) in each(node, PREFERRED) {
            let path = terms.index(index);
            if let Some(term) = has(term, "preference") {
                labels::term(term, true, &path.child("preference"), warnings);
            }
        }
    }
    let spread = path.child("topologySpreadConstraints");
    for (index, constraint) in each(spec, "topologySpreadConstraints") {
        let path = spread.index(index);
        let key = text(constraint, "topologyKey");
        if let Some(why) = labels::deprecated(key) {
            warnings.push(format!("{}: {key} is {why}", path.child("topologyKey")));
        }
        selects_nothing(constraint, &path, warnings);
    }
}

fn selects_nothing(of: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    if has(of, "labelSelector").is_none() {
        let path = path.child("labelSelector");
        warnings.push(format!("{path}: a null labelSelector results in matching no pod"));
    }
}

/// To and away from which pods.
fn affinity(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let root = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = object::at(spec, &["affinity", kind]) else {
            continue;
        };
        let root = root.child(kind);
        let terms = root.child(REQUIRED);
        for (index, term) in each(affinity, REQUIRED) {
            selects_nothing(term, &terms.index(index), warnings);
        }
        let terms = root.child(PREFERRED);
        for (index, term) in each(affinity, PREFERRED) {
            let path = terms.index(index);
            let path = path.child("podAffinityTerm");
            selects_nothing(has(term, "podAffinityTerm").unwrap_or(&Value::Null), &path, warnings);
        }
    }
}

/// What comes twice in lists, or has no name.
fn lists(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    repeated(spec, "hostAliases", "ip", path, warnings);
    repeated(spec, "imagePullSecrets", "name", path, warnings);
    let secrets = path.child("imagePullSecrets");
    for (index, secret) in each(spec, "imagePullSecrets") {
        if text(secret, "name").is_empty() {
            warnings.push(format!(
                "{}: invalid empty name \"\"",
                secrets.index(index).child("name")
            ));
        }
    }
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Annotations that mean nothing any more.
const GONE: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// The annotations of a pod or a template. Most have none.
struct Annotations<'a> {
    all: Option<&'a serde_json::Map<String, Value>>,
    /// Of the metadata that they are in.
    path: &'a Path<'a>,
    of_template: bool,
}

impl Annotations<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.all?.get(key)
    }

    fn tell(&self, key: &str, why: &str, warnings: &mut Vec<String>) {
        warnings.push(format!("{}: {why}", self.path.child("annotations").key(key)));
    }

    fn alone(&self, warnings: &mut Vec<String>) {
        for (key, why) in GONE {
            if self.get(key).is_some() {
                self.tell(key, why, warnings);
            }
        }
    }

    /// `of` has a security context.
    fn seccomp(&self, of: &Value, key: &str, warnings: &mut Vec<String>) {
        let said = object::at(of, &["securityContext", "seccompProfile"]).is_some();
        if !said && self.get(key).is_some() {
            self.tell(
                key,
                "non-functional in v1.27+; use the \"seccompProfile\" field instead",
                warnings,
            );
        }
    }

    fn of_container(&self, spec: &Value, container: &Value, warnings: &mut Vec<String>) {
        if self.all.is_none() {
            return;
        }
        let name = text(container, "name");
        self.seccomp(container, &format!("{SECCOMP_CONTAINER}{name}"), warnings);
        let key = format!("{APP_ARMOR}{name}");
        let field = |of| object::at(of, &["securityContext", "appArmorProfile"]);
        // A pod's own became fields before anything looks at it.
        if !self.of_template || field(container).is_some() {
            return;
        }
        if let Some(annotation) = self.get(&key)
            && field(spec).is_none_or(|profile| !is_profile(annotation.as_str().unwrap_or_default(), profile))
        {
            self.tell(
                &key,
                "deprecated since v1.30; use the \"appArmorProfile\" field instead",
                warnings,
            );
        }
    }
}

/// Whether an annotation says what a field does.
fn is_profile(annotation: &str, profile: &Value) -> bool {
    let local = text(profile, "localhostProfile");
    match text(profile, "type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default",
        _ => annotation.strip_prefix("localhost/").is_some_and(|own| own == local),
    }
}

fn nothing_acts(warnings: &mut Vec<String>, path: impl std::fmt::Display) {
    warnings.push(format!(
        "{path}: stored, but nothing acts on it in this version of mk8s"
    ));
}

fn spec_warnings(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for (index, volume) in each(spec, "volumes") {
        let Some(empty) = has(volume, "emptyDir") else { continue };
        if has(empty, "sizeLimit").is_some() && text(empty, "medium") != "Memory" {
            let volumes = path.child("volumes");
            nothing_acts(warnings, volumes.index(index).child("emptyDir").child("sizeLimit"));
        }
    }
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(spec, kind).iter().enumerate() {
            if object::at(container, &["resources", "limits", "ephemeral-storage"]).is_some() {
                let containers = path.child(kind);
                let container_path = containers.index(index);
                let resources = container_path.child("resources");
                nothing_acts(warnings, resources.child("limits").key("ephemeral-storage"));
            }
        }
    }
}

/// The same value again in a list of objects.
fn repeated(spec: &Value, list_key: &str, key: &str, path: &Path<'_>, warnings: &mut Vec<String>) {
    let items = list(spec, list_key);
    let list_path = path.child(list_key);
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let own = text(item, key);
        if !seen.insert(own) {
            warnings.push(format!(
                "{}: duplicate {key} {own:?}",
                list_path.index(index).child(key)
            ));
        }
    }
}

fn fractional_bytes(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let Some(resources) = has(container, "resources") else {
        return;
    };
    for name in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            if let Some(amounts) = has(resources, kind) {
                fractional(amounts, &path.child(kind), &[name], warnings);
            }
        }
    }
}

/// Bytes that are no whole number.
fn fractional(amounts: &Value, path: &Path<'_>, names: &[&str], warnings: &mut Vec<String>) {
    for name in names {
        let Some(value) = has(amounts, name) else { continue };
        if quantity::from_json(value).is_ok_and(|quantity| !quantity.is_whole()) {
            let value = value.as_str().unwrap_or_default();
            let path = path.key(name);
            warnings.push(format!(
                "{path}: fractional byte value {value:?} is invalid, must be an integer"
            ));
        }
    }
}

/// Of a claim's spec, alone or within a template.
fn claim_spec(spec: Option<&Value>, path: &Path<'_>, warnings: &mut Vec<String>) {
    let Some(resources) = spec.and_then(|spec| has(spec, "resources")) else {
        return;
    };
    let path = path.child("resources");
    for kind in ["requests", "limits"] {
        if let Some(amounts) = has(resources, kind) {
            fractional(amounts, &path.child(kind), &["storage"], warnings);
        }
    }
}

/// A variable that is defined twice, unless the second extends the first.
fn hidden_variables(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, variable) in each(container, "env") {
        let name = text(variable, "name");
        if seen.insert(name) {
            continue;
        }
        let (value, reference) = (text(variable, "value"), format!("$({name})"));
        let extends = has(variable, "valueFrom").is_none() && value != reference && value.contains(&reference);
        if !extends {
            warnings.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                path.index(index)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_names_its_field() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"volumes": [{"emptyDir": {"sizeLimit": "1Gi"}}],
            "containers": [{"resources": {"limits": {"ephemeral-storage": "1Gi"}}}]}});
        assert_eq!(
            pod_warnings(&pod, None),
            [
                "spec.volumes[0].emptyDir.sizeLimit: stored, but nothing acts on it in this version of mk8s",
                "spec.containers[0].resources.limits[ephemeral-storage]: stored, but nothing acts on it in this version of mk8s",
            ]
        );
    }

    #[test]
    fn what_upstream_warns_of() {
        let annotations = json!({"seccomp.security.alpha.kubernetes.io/pod": "x", "scheduler.alpha.kubernetes.io/critical-pod": "",
            "container.apparmor.security.beta.kubernetes.io/c": "unconfined"});
        let container = json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
            "ports": [{"containerPort": 80, "protocol": "TCP", "hostIP": "1.2.3.4"}]});
        let term = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "In", "values": ["a b"]}]});
        let affinity = json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}, PREFERRED: [{"weight": 1, "preference": term}]},
            "podAffinity": {REQUIRED: [{"topologyKey": "k"}]}});
        let spec = json!({"affinity": affinity, "containers": [container], "overhead": {"memory": "1m"},
            "hostAliases": [{"ip": "010.0.0.1"}]});
        let object = json!({"metadata": {"name": "a.b"}, "spec": {"template": {"metadata": {"annotations": annotations}, "spec": spec}}});
        let told = named_template_warnings(&object, None);
        let begin = |text: &str| {
            text.split(": ")
                .next()
                .unwrap_or_default()
                .replace("spec.template.", "")
        };
        let told: Vec<String> = told.iter().map(|text| begin(text)).collect();
        let terms = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].key");
        let preference = format!("spec.affinity.nodeAffinity.{PREFERRED}[0].preference.matchExpressions[0]");
        assert_eq!(
            told,
            [
                "metadata.name",
                &terms,
                &format!("{preference}.key"),
                &format!("{preference}.values[0]"),
                "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]",
                "spec.overhead[memory]",
                "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]",
                "spec.containers[0].env[1]",
                "spec.containers[0].ports[0]",
                &format!("spec.affinity.podAffinity.{REQUIRED}[0].labelSelector"),
                "spec.hostAliases[0].ip",
            ]
        );
        // Who scales it is told again, who labels it is not.
        let (mut old, mut new) = (object.clone(), object);
        old["metadata"]["generation"] = 1.into();
        new["metadata"]["generation"] = 1.into();
        assert!(named_template_warnings(&new, Some(&old)).is_empty());
        new["metadata"]["generation"] = 2.into();
        assert_eq!(named_template_warnings(&new, Some(&old)).len(), told.len() - 1);
    }
}
