//! What versions that upstream has removed leave out otherwise than their successors do. The stored version's defaults fill
//! in the rest.

use serde_json::{Map, Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::apps::labels_from;
use super::{Object, each, get, map, object, str_of, text, unset, value};

/// A selector, and labels of the object's own, are the template's labels.
fn from_template(workload: &mut Value) {
    let labels = crate::meta::at(workload, &["spec", "template", "metadata", "labels"]);
    let Some(labels) = labels.filter(|labels| **labels != json!({})).cloned() else {
        return;
    };
    if let Some(spec) = get_spec(workload) {
        value(spec, "selector", json!({"matchLabels": labels}));
    }
    labels_from(workload, labels);
}

fn get_spec(object_value: &mut Value) -> Option<&mut Object> {
    map(object_value).and_then(|map| object(map, "spec"))
}

/// apps/v1beta1
pub(crate) fn deployment(deployment: &mut Value) {
    from_template(deployment);
    if let Some(spec) = get_spec(deployment) {
        value(spec, "revisionHistoryLimit", 2);
    }
    super::deployment(deployment);
}

/// extensions/v1beta1: without a deadline or a limit, which its largest numbers stand for.
pub(crate) fn extensions_deployment(deployment: &mut Value) {
    from_template(deployment);
    if let Some(spec) = get_spec(deployment) {
        if let Some(strategy) = object(spec, "strategy") {
            text(strategy, "type", "RollingUpdate");
            if (str_of(strategy, "type") == "RollingUpdate" || !unset(strategy, "rollingUpdate"))
                && let Some(rolling) = object(strategy, "rollingUpdate")
            {
                value(rolling, "maxUnavailable", 1);
                value(rolling, "maxSurge", 1);
            }
        }
        value(spec, "progressDeadlineSeconds", i32::MAX);
        value(spec, "revisionHistoryLimit", i32::MAX);
    }
    super::deployment(deployment);
}

/// extensions/v1beta1
pub(crate) fn replica_set(replica_set: &mut Value) {
    from_template(replica_set);
    super::replica_set(replica_set);
}

/// extensions/v1beta1
pub(crate) fn daemon_set(daemon_set: &mut Value) {
    from_template(daemon_set);
    if let Some(strategy) = get_spec(daemon_set).and_then(|spec| object(spec, "updateStrategy")) {
        text(strategy, "type", "OnDelete");
    }
    super::daemon_set(daemon_set);
}

/// apps/v1beta1
pub(crate) fn stateful_set(stateful_set: &mut Value) {
    from_template(stateful_set);
    if let Some(strategy) = get_spec(stateful_set).and_then(|spec| object(spec, "updateStrategy")) {
        text(strategy, "type", "OnDelete");
    }
    super::stateful_set(stateful_set);
}

/// extensions/v1beta1 and networking.k8s.io/v1beta1
pub(crate) fn ingress(ingress: &mut Value) {
    super::ingress(ingress);
    let Some(spec) = get_spec(ingress) else { return };
    for rule in each(spec, "rules") {
        for path in get(rule, "http").into_iter().flat_map(|http| each(http, "paths")) {
            value(path, "pathType", "ImplementationSpecific");
        }
    }
}

/// autoscaling/v2beta1
pub(crate) fn autoscaler_v2beta1(autoscaler: &mut Value) {
    if let Some(spec) = get_spec(autoscaler) {
        value(spec, "minReplicas", 1);
    }
}

pub(crate) fn validating_webhooks(configuration: &mut Value) {
    for hook in map(configuration).into_iter().flat_map(|map| each(map, "webhooks")) {
        webhook(hook);
    }
}

pub(crate) fn mutating_webhooks(configuration: &mut Value) {
    for hook in map(configuration).into_iter().flat_map(|map| each(map, "webhooks")) {
        webhook(hook);
        value(hook, "reinvocationPolicy", "Never");
    }
}

fn webhook(hook: &mut Object) {
    value(hook, "failurePolicy", "Ignore");
    value(hook, "matchPolicy", "Exact");
    value(hook, "namespaceSelector", Map::new());
    value(hook, "objectSelector", Map::new());
    value(hook, "sideEffects", "Unknown");
    value(hook, "timeoutSeconds", 30);
    filled(hook, "admissionReviewVersions", json!(["v1beta1"]));
    for rule in each(hook, "rules") {
        value(rule, "scope", "*");
    }
    if let Some(client) = get(hook, "clientConfig") {
        port(client, "service");
    }
}

/// The port of a reference to a Service.
fn port(holder: &mut Object, key: &str) {
    if let Some(service) = get(holder, key) {
        value(service, "port", 443);
    }
}

/// A list that is not empty.
fn filled(holder: &mut Object, key: &str, items: Value) {
    if holder.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty) {
        holder.insert(key.into(), items);
    }
}

pub(crate) fn api_service(api_service: &mut Value) {
    if let Some(spec) = get_spec(api_service) {
        port(spec, "service");
    }
}

/// apiextensions.k8s.io/v1beta1
pub(crate) fn definition(definition: &mut Value) {
    let Some(spec) = get_spec(definition) else { return };
    text(spec, "scope", "Namespaced");
    if let Some(names) = object(spec, "names") {
        let kind = str_of(names, "kind").to_string();
        text(names, "singular", &kind.to_lowercase());
        if !kind.is_empty() {
            text(names, "listKind", &format!("{kind}List"));
        }
    }
    let version = str_of(spec, "version").to_string();
    if !version.is_empty() {
        filled(
            spec,
            "versions",
            json!([{"name": version, "served": true, "storage": true}]),
        );
    }
    if unset(spec, "conversion") {
        spec.insert("conversion".into(), json!({"strategy": "None"}));
    }
    if let Some(conversion) = get(spec, "conversion") {
        if str_of(conversion, "strategy") == "Webhook" {
            filled(conversion, "conversionReviewVersions", json!(["v1beta1"]));
        }
        if let Some(client) = get(conversion, "webhookClientConfig") {
            port(client, "service");
        }
    }
    value(spec, "preserveUnknownFields", true);
    let stored = each(spec, "versions")
        .find(|version| version.get("storage") == Some(&Value::Bool(true)))
        .map(|version| json!([version.get("name")]));
    if let (Some(stored), Some(status)) = (stored, map(definition).and_then(|map| object(map, "status"))) {
        filled(status, "storedVersions", stored);
    }
}

/// certificates.k8s.io/v1beta1
pub(crate) fn signing_request(request: &mut Value) {
    super::spec_and_status(request);
    let Some(spec) = get_spec(request) else { return };
    value(spec, "usages", json!(["digital signature", "key encipherment"]));
    if unset(spec, "signerName") {
        let signer = signer_of(spec);
        spec.insert("signerName".into(), signer.into());
    }
    let status = map(request).and_then(|map| get(map, "status"));
    for condition in status.into_iter().flat_map(|status| each(status, "conditions")) {
        text(condition, "status", "True");
    }
}

/// Who signs a request that does not say.
fn signer_of(spec: &Object) -> &'static str {
    let usages: Vec<&str> = spec
        .get("usages")
        .and_then(Value::as_array)
        .map_or(Vec::new(), |usages| usages.iter().filter_map(Value::as_str).collect());
    let purpose = |own: &str| {
        let mut rest: Vec<&str> = usages
            .iter()
            .copied()
            .filter(|usage| *usage != "key encipherment")
            .collect();
        rest.sort_unstable();
        rest.dedup();
        let mut wanted = [own, "digital signature"];
        wanted.sort_unstable();
        rest == wanted
    };
    match names_in(str_of(spec, "request")) {
        Some(Names::None) if purpose("client auth") => "kubernetes.io/kube-apiserver-client-kubelet",
        Some(Names::OfHost) if purpose("server auth") => "kubernetes.io/kubelet-serving",
        _ => "kubernetes.io/legacy-unknown",
    }
}

/// The alternative names in a node's certificate request.
enum Names {
    None,
    /// Host names and addresses alone.
    OfHost,
    Others,
}

/// None where the request can't be read, or is none of a node.
fn names_in(request: &str) -> Option<Names> {
    let pem = STANDARD.decode(request).ok()?;
    let (_, pem) = parse_x509_pem(&pem).ok()?;
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let info = &csr.certification_request_info;
    let mut organizations = info.subject.iter_organization().map(|own| own.as_str());
    let of_nodes = organizations.next()?.ok()? == "system:nodes" && organizations.next().is_none();
    // Go takes the last one.
    let name = info.subject.iter_common_name().last()?.as_str().ok()?;
    if pem.label != "CERTIFICATE REQUEST" || !of_nodes || !name.starts_with("system:node:") {
        return None;
    }
    let mut found = Names::None;
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
            continue;
        };
        for extension in &requested.extensions {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) | GeneralName::IPAddress(_) if !matches!(found, Names::Others) => {
                        found = Names::OfHost;
                    }
                    GeneralName::RFC822Name(_) | GeneralName::URI(_) => found = Names::Others,
                    _ => {}
                }
            }
        }
    }
    Some(found)
}
