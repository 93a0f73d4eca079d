//! Which kinds there are, asked for all groups at once: one whose server does not answer hides no other, and is told of.

use std::collections::HashSet;
use std::sync::Arc;

use kube::Client;
use kube::discovery::ApiResource;
use mk8s_api::meta;
use serde_json::Value;

use super::Kind;

/// The kinds there are, as far as could be learned.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// Monitored or not, each in its group's preferred version, or in the one that has it. Where the last try failed: as before.
    pub kinds: Vec<Arc<Kind>>,
    /// What could not be asked, and why. Of what is there, `kinds` may know nothing.
    pub failures: Vec<String>,
}

/// What all groups have in one document (<https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery>).
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Asks for all kinds. Those `known` stay where asking fails: that is no word of their end.
pub(super) async fn discover(client: &Client, known: &[Arc<Kind>]) -> Discovered {
    let mut finding = Finding::default();
    for path in ["/api", "/apis"] {
        let request = http::Request::get(path).header(http::header::ACCEPT, AGGREGATED);
        let answer = match request.body(Vec::new()) {
            Ok(request) => client
                .request::<Value>(request)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(list) => finding.add_groups(&list, known),
            Err(error) => {
                let core = path == "/api";
                finding.keep(known, |kind| kind.api.group.is_empty() == core);
                finding.found.failures.push(format!("{path}: {error}"));
            }
        }
    }
    finding.found
}

#[derive(Default)]
struct Finding {
    found: Discovered,
    /// Groups and plurals of what was found.
    names: HashSet<(String, String)>,
}

impl Finding {
    /// All groups of a document, and of each its versions, the preferred one first.
    fn add_groups(&mut self, list: &Value, known: &[Arc<Kind>]) {
        for group in meta::items(list, &["items"]) {
            let name = meta::name(group);
            for version in meta::items(group, &["versions"]) {
                self.add_version(name, version, known);
            }
        }
    }

    fn add_version(&mut self, group: &str, version: &Value, known: &[Arc<Kind>]) {
        let name = meta::string(version, &["version"]);
        let api_version = meta::join_api_version(group, name);
        if meta::string(version, &["freshness"]) == "Stale" {
            self.keep(known, |kind| kind.api.api_version == api_version);
            let why = "its server did not answer in time";
            self.found.failures.push(format!("{api_version}: {why}"));
            return;
        }
        for resource in meta::items(version, &["resources"]) {
            let api = ApiResource {
                group: group.to_string(),
                version: name.to_string(),
                api_version: api_version.clone(),
                kind: meta::string(resource, &["responseKind", "kind"]).to_string(),
                plural: meta::string(resource, &["resource"]).to_string(),
            };
            if !is_shown_elsewhere(&api) {
                let verbs = meta::items(resource, &["verbs"]).iter().filter_map(Value::as_str);
                self.add(Arc::new(Kind {
                    namespaced: meta::string(resource, &["scope"]) == "Namespaced",
                    verbs: verbs.map(str::to_string).collect(),
                    api,
                }));
            }
        }
    }

    fn keep(&mut self, known: &[Arc<Kind>], which: impl Fn(&Kind) -> bool) {
        known
            .iter()
            .filter(|kind| which(kind))
            .for_each(|kind| self.add(kind.clone()));
    }

    /// Once, in the first version that has it.
    fn add(&mut self, kind: Arc<Kind>) {
        if self.names.insert((kind.api.group.clone(), kind.api.plural.clone())) {
            self.found.kinds.push(kind);
        }
    }
}

/// Whether the objects are another group's, which this one shows too.
fn is_shown_elsewhere(api: &ApiResource) -> bool {
    let known = mk8s_api::registry::find_kind(&api.group, &api.version, &api.kind);
    known.is_some_and(|resource| resource.group != api.group)
}
