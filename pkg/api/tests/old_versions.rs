//! Versions that upstream serves no more, against what its own scheme makes of their objects: `old_versions.jsonl` was
//! recorded from it (`hack/update-old-versions.sh`), with what is sent, stored, shown, and sent again; `old_versions.tsv`
//! has what it warns of.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use mk8s_api::codec::{Validation, conform};
use mk8s_api::registry::{self, Resource, Served};
use mk8s_api::{meta, schema, validation};
use serde_json::{Value, json};

/// Absent and `null` are the same; what an annotation carries is compared as what it says.
fn plain(mut object: Value) -> Value {
    fn drop_nulls(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(drop_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(drop_nulls),
            _ => {}
        }
    }
    drop_nulls(&mut object);
    if let Some(Value::Object(annotations)) = meta::at_mut(&mut object, &["metadata", "annotations"]) {
        for text in annotations.values_mut() {
            let carried = text.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(mut carried) = carried.filter(|carried| carried.is_array() || carried.is_object()) {
                drop_nulls(&mut carried);
                *text = carried;
            }
        }
        // Zero until the object is created, which upstream's strategies see to.
        if annotations.get("deprecated.daemonset.template.generation") == Some(&json!("0")) {
            annotations.remove("deprecated.daemonset.template.generation");
        }
    }
    if meta::annotations(&object).is_some_and(serde_json::Map::is_empty) {
        meta::remove(&mut object, &["metadata", "annotations"]);
    }
    object
}

/// Where upstream answers something else, with the reason.
fn is_known(path: &str, own: &Value, upstream: &Value) -> bool {
    // Its conversion of v2beta1 forgets the container of a container's metric; a field that was sent is kept here.
    let forgotten = path.contains("v2beta1") && path.ends_with(".containerResource.container");
    // Shown, it would have kubectl change a manifest that leaves it out each time it is applied.
    let unsaid = path.ends_with(".pathType") && own.is_null() && upstream == "ImplementationSpecific";
    // What a definition says twice, of all versions and of each, is kept beside them to be refused; of what each says alike,
    // that it does.
    let is_definition = path.contains("CustomResourceDefinition") || path.starts_with("crd: ") && *own == true;
    let both = is_definition && upstream.is_null() && path.contains(": stored: ");
    let above = [
        ".version",
        ".validation",
        ".subresources",
        ".additionalPrinterColumns",
        ".selectableFields",
    ];
    let twice = both && above.iter().any(|key| path.ends_with(&format!(".spec{key}")));
    forgotten || twice || unsaid && path.contains(": shown: ")
}

/// The paths at which two values differ, with both.
fn difference(own: &Value, upstream: &Value, path: &str, wrong: &mut Vec<String>) {
    match (own, upstream) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                difference(&own[key], &upstream[key], &format!("{path}.{key}"), wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (own, upstream)) in a.iter().zip(b).enumerate() {
                difference(own, upstream, &format!("{path}[{index}]"), wrong);
            }
        }
        _ if own != upstream && !is_known(path, own, upstream) => {
            wrong.push(format!("{path}: {own}, upstream {upstream}"))
        }
        _ => {}
    }
}

struct Case {
    name: String,
    resource: &'static Resource,
    served: &'static Served,
    value: Value,
}

impl Case {
    fn read(line: &str) -> Case {
        let value: Value = serde_json::from_str(line).unwrap();
        let (api_version, kind) = value["kind"].as_str().unwrap().split_once(' ').unwrap();
        let (group, version) = meta::split_api_version(api_version);
        let resource = registry::find_kind(group, version, kind);
        let resource = resource.unwrap_or_else(|| panic!("no {kind} in {api_version}"));
        Case {
            name: value["name"].as_str().unwrap().into(),
            resource,
            served: resource.serving(group, version).unwrap(),
            value,
        }
    }

    /// As a request's body becomes what is stored.
    fn to_stored(&self, sent: &Value) -> Value {
        let ty = schema::by_api_version(meta::api_version(sent), meta::kind(sent)).unwrap();
        let mut object = conform(sent.clone(), ty, Validation::Strict).unwrap().value;
        let stored = self.resource.stored();
        self.served.to_stored(stored, &mut object);
        (stored.default)(&mut object);
        object
    }

    fn shown(&self, mut stored: Value) -> Value {
        self.served.from_stored(self.resource.stored(), &mut stored);
        stored
    }

    fn differences(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, own: Value, upstream: &Value| {
            let (own, upstream) = (plain(own), plain(upstream.clone()));
            difference(&own, &upstream, &format!("{}: {what}: ", self.name), &mut wrong);
        };
        let (stored, shown) = (&self.value["stored"], &self.value["shown"]);
        if let Some(sent) = self.value.get("sent") {
            compare("stored", self.to_stored(sent), stored);
        }
        compare("shown", self.shown(stored.clone()), shown);
        if let Some(again) = self.value.get("again") {
            compare("again", self.to_stored(shown), again);
        }
        wrong
    }
}

#[test]
fn objects_are_converted_as_upstream_does() {
    let cases: Vec<Case> = include_str!("old_versions.jsonl").lines().map(Case::read).collect();
    let wrong: Vec<String> = cases.iter().flat_map(Case::differences).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_request_to_a_removed_version_warns_in_upstreams_words() {
    let warnings: HashMap<&str, &str> = include_str!("old_versions.tsv")
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    let mut checked = 0;
    for resource in registry::builtin() {
        for served in resource.versions.iter().filter(|served| served.name.contains("beta")) {
            let name = format!("{} {}", served.api_version(), resource.kind);
            assert_eq!(
                served.deprecated.as_deref(),
                warnings.get(name.as_str()).copied(),
                "{name}"
            );
            checked += 1;
            for own in &served.subresources {
                let Some((group, version, kind)) = own.kind.filter(|(group, ..)| *group != "autoscaling") else {
                    continue;
                };
                let name = format!("{group}/{version} {kind}");
                assert_eq!(
                    own.deprecated.as_deref(),
                    warnings.get(name.as_str()).copied(),
                    "{name}"
                );
            }
        }
    }
    assert_eq!(checked, 37);
}

#[test]
fn what_is_asked_of_an_object_depends_on_the_version_it_comes_in() {
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n";
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let spec = json!({"request": request, "usages": ["client auth"], "signerName": "kubernetes.io/legacy-unknown"});
    let csr = json!({"kind": "CertificateSigningRequest", "metadata": {"name": "a"}, "spec": spec});
    let regarding = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let event =
        json!({"kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "involvedObject": regarding});
    for (group, plural, object, newer) in [
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            csr,
            "spec.signerName",
        ),
        ("events.k8s.io", "events", event, "eventTime"),
    ] {
        let errors = |version: &str| {
            let resource = registry::find(group, version, plural).unwrap();
            let errors = validation::create(resource, resource.serving(group, version).unwrap(), &object);
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(errors("v1").first().map(String::as_str), Some(newer), "{plural}");
        assert!(errors("v1beta1").is_empty(), "{plural}: {:?}", errors("v1beta1"));
    }
}
